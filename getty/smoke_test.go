package getty_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
)

type echo struct {
	open, closed chan struct{}
	t            *testing.T
}

func (e *echo) OnOpen(getty.Session) error { return nil }
func (e *echo) OnMessage(s getty.Session, pkg any) {
	if _, _, err := s.WritePkg(pkg, 0); err != nil {
		e.t.Log("write", err)
	}
}
func (e *echo) OnCron(getty.Session)               {}
func (e *echo) OnError(s getty.Session, err error) { e.t.Log("error", err) }
func (e *echo) OnClose(s getty.Session)            { e.t.Log("close", s.Err(), s.Stat()) }

func TestSmoke(t *testing.T) {
	for _, d := range []getty.Dispatch{getty.Inline, getty.Ordered, getty.Unordered} {
		t.Run(d.String(), func(t *testing.T) {
			srv := getty.NewTCPServer(getty.WithServerDispatch(d))
			frames := &codec.LengthField{}
			if err := srv.RunEventLoop(func(s getty.Session) error {
				s.SetEventListener(&echo{t: t})
				return s.SetPkgHandler(frames)
			}); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for i := range 50 {
				wg.Go(func() {
					c, err := net.Dial("tcp", srv.Addr().String())
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close()
					var out []byte
					for j := range 50 {
						m := fmt.Sprintf("hello %d %d", i, j)
						out = binary.BigEndian.AppendUint32(out, uint32(len(m)))
						out = append(out, m...)
					}
					if _, err := c.Write(out); err != nil {
						t.Error(err)
					}
					in := make([]byte, len(out))
					c.SetReadDeadline(time.Now().Add(5 * time.Second))
					if _, err := io.ReadFull(c, in); err != nil {
						t.Error(err)
						return
					}
					if d != getty.Unordered && string(in) != string(out) {
						t.Errorf("mismatch %q", in)
					}
				})
			}
			wg.Wait()
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			defer cancel()
			r, err := srv.Shutdown(ctx)
			t.Log(r, err, srv.Stats())
		})
	}
}
