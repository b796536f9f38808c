module github.com/gostkit/kit/xorlist

go 1.25.0
