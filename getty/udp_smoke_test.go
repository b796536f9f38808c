package getty_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
)

type collect struct {
	echo
	got chan string
}

func (c *collect) OnMessage(s getty.Session, pkg any) { c.got <- pkg.(*codec.Frame).String() }

func TestUDPSmoke(t *testing.T) {
	srv := getty.NewUDPEndPoint()
	if err := srv.RunEventLoop(func(s getty.Session) error {
		s.SetEventListener(&echo{t: t})
		return s.SetPkgHandler(&codec.LengthField{})
	}); err != nil {
		t.Fatal(err)
	}
	cl := getty.NewUDPClient(getty.WithServerAddress(srv.Addr().String()))
	got := make(chan string, 10)
	begin := time.Now()
	if err := cl.RunEventLoop(func(s getty.Session) error {
		s.SetEventListener(&collect{echo{t: t}, got})
		return s.SetPkgHandler(&codec.LengthField{})
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := cl.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	t.Log("ready after", time.Since(begin))
	s, _ := cl.Session()
	if _, _, err := s.WritePkg("hi", 0); err != nil {
		t.Fatal(err)
	}
	t.Log(<-got)
	c, _ := net.Dial("udp", srv.Addr().String())
	c.Write([]byte("\x00\x00\x00\x01x"))
	b := make([]byte, 100)
	n, err := c.Read(b)
	t.Log(b[:n], err)
	t.Log(cl.Shutdown(ctx))
	t.Log(srv.Shutdown(ctx))
}
