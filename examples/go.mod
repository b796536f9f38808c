module github.com/gostkit/kit/examples

go 1.25.0
