module github.com/gostkit/kit/examples

go 1.25.0

require (
	github.com/gorilla/websocket v1.5.3
	github.com/gostkit/kit/bytespool v0.0.0
	github.com/gostkit/kit/getty v0.0.0
	github.com/gostkit/kit/netx v0.0.0
	github.com/gostkit/kit/ringbuffer v0.0.0
	github.com/gostkit/kit/taskpool v0.0.0
	github.com/gostkit/kit/timerwheel v0.0.0
	github.com/gostkit/kit/xorlist v0.0.0
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/golang/snappy v1.0.0 // indirect
	github.com/pires/go-proxyproto v0.12.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sys v0.47.0 // indirect
)

replace (
	github.com/gostkit/kit/bytespool => ../bytespool
	github.com/gostkit/kit/getty => ../getty
	github.com/gostkit/kit/netx => ../netx
	github.com/gostkit/kit/ringbuffer => ../ringbuffer
	github.com/gostkit/kit/taskpool => ../taskpool
	github.com/gostkit/kit/timerwheel => ../timerwheel
	github.com/gostkit/kit/xorlist => ../xorlist
)
