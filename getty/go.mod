module github.com/gostkit/kit/getty

go 1.25.0
