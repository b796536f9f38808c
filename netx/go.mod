module github.com/gostkit/kit/netx

go 1.25.0
