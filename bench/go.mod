module github.com/gostkit/kit/bench

go 1.25.0

replace (
	github.com/gostkit/kit/bytespool => ../bytespool
	github.com/gostkit/kit/getty => ../getty
	github.com/gostkit/kit/netx => ../netx
	github.com/gostkit/kit/ringbuffer => ../ringbuffer
	github.com/gostkit/kit/taskpool => ../taskpool
	github.com/gostkit/kit/timerwheel => ../timerwheel
	github.com/gostkit/kit/xorlist => ../xorlist
)

require (
	github.com/AlexStocks/getty v1.5.2
	github.com/Allenxuxu/gev v0.5.0
	github.com/Allenxuxu/ringbuffer v0.0.11
	github.com/RussellLuo/timingwheel v0.0.0-20220218152713-54845bda3108
	github.com/alitto/pond/v2 v2.7.1
	github.com/antlabs/timer v0.1.4
	github.com/apache/dubbo-getty v1.5.0
	github.com/bahlo/generic-list-go v0.2.0
	github.com/bytedance/gopkg v0.1.4
	github.com/cloudwego/netpoll v0.7.2
	github.com/coder/websocket v1.8.15
	github.com/dubbogo/gost v1.14.4
	github.com/gammazero/workerpool v1.2.1
	github.com/gobwas/ws v1.4.0
	github.com/golang/snappy v1.0.0
	github.com/gorilla/websocket v1.5.3
	github.com/gostkit/kit/bytespool v0.0.0
	github.com/gostkit/kit/getty v0.0.0
	github.com/gostkit/kit/netx v0.0.0
	github.com/gostkit/kit/ringbuffer v0.0.0
	github.com/gostkit/kit/taskpool v0.0.0
	github.com/gostkit/kit/timerwheel v0.0.0
	github.com/gostkit/kit/xorlist v0.0.0
	github.com/lesismal/nbio v1.6.12
	github.com/lxzan/gws v1.9.1
	github.com/panjf2000/ants/v2 v2.12.1
	github.com/panjf2000/gnet/v2 v2.10.0
	github.com/puzpuzpuz/xsync/v4 v4.5.0
	github.com/smallnest/ringbuffer v0.0.0-20250317021400-0da97b586904
	github.com/stretchr/testify v1.12.1
	github.com/tidwall/evio v1.0.8
	github.com/valyala/bytebufferpool v1.0.0
	golang.org/x/net v0.58.0
	golang.org/x/sync v0.22.0
	golang.org/x/sys v0.47.0
)

require (
	github.com/Allenxuxu/toolkit v0.0.1 // indirect
	github.com/antlabs/stl v0.0.2 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/cloudwego/gopkg v0.1.4 // indirect
	github.com/davecgh/go-spew v1.1.2-0.20180830191138-d8f796af33cc // indirect
	github.com/gammazero/deque v1.2.1 // indirect
	github.com/go-ole/go-ole v1.2.6 // indirect
	github.com/gobwas/httphead v0.1.0 // indirect
	github.com/gobwas/pool v0.2.1 // indirect
	github.com/google/go-cmp v0.7.0 // indirect
	github.com/k0kubun/pp v3.0.1+incompatible // indirect
	github.com/kavu/go_reuseport v1.5.0 // indirect
	github.com/klauspost/compress v1.17.9 // indirect
	github.com/lesismal/llib v1.2.4 // indirect
	github.com/libp2p/go-reuseport v0.0.1 // indirect
	github.com/lufia/plan9stats v0.0.0-20211012122336-39d0f177ccd0 // indirect
	github.com/mattn/go-colorable v0.0.9 // indirect
	github.com/mattn/go-isatty v0.0.16 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/power-devops/perfstat v0.0.0-20210106213030-5aafc221ea8c // indirect
	github.com/shirou/gopsutil/v3 v3.22.2 // indirect
	github.com/tklauser/go-sysconf v0.3.10 // indirect
	github.com/tklauser/numcpus v0.4.0 // indirect
	github.com/yusufpapurcu/wmi v1.2.2 // indirect
	go.uber.org/atomic v1.9.0 // indirect
	go.uber.org/multierr v1.11.0 // indirect
	go.uber.org/zap v1.28.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/crypto v0.55.0 // indirect
	gopkg.in/natefinch/lumberjack.v2 v2.2.1 // indirect
)
