module github.com/gostkit/kit/ringbuffer

go 1.25.0
