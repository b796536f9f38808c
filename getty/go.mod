module github.com/gostkit/kit/getty

go 1.25.0

require (
	github.com/gostkit/kit/bytespool v0.0.0
	github.com/gostkit/kit/netx v0.0.0
	github.com/gostkit/kit/taskpool v0.0.0
	github.com/gostkit/kit/timerwheel v0.0.0
	github.com/stretchr/testify v1.12.1
)

replace (
	github.com/gostkit/kit/bytespool => ../bytespool
	github.com/gostkit/kit/netx => ../netx
	github.com/gostkit/kit/taskpool => ../taskpool
	github.com/gostkit/kit/timerwheel => ../timerwheel
)
