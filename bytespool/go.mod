module github.com/gostkit/kit/bytespool

go 1.25.0
