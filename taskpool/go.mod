module github.com/gostkit/kit/taskpool

go 1.25.0
