// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
)

// driveAll drives the three servers with two clients each.
func driveAll(ctx context.Context, c *config, s *servers, progressTo io.Writer) []result {
	ours := ourDrives(c, s.tcpAddr(), s.udpAddr(), s.wsURL())
	p := newProgress(progressTo)
	var results []result
	for _, step := range []struct {
		transport, client string
		drive             drive
	}{
		{"tcp", "getty", ours["tcp"]},
		{"tcp", "net.Conn", each(s.tcpAddr(), foreignTCP)},
		{"udp", "getty", ours["udp"]},
		{"udp", "net.UDPConn", each(s.udpAddr(), foreignUDP)},
		{"ws", "getty", ours["ws"]},
		{"ws", "gorilla", each(s.wsURL(), foreignWS)},
	} {
		r := &row{transport: step.transport, client: step.client, lanes: c.lanes(step.transport != "udp")}
		r.run(ctx, step.drive, p)
		results = append(results, r.result())
	}
	return results
}

// ourDrives returns the drives of getty's own clients by transport.
func ourDrives(c *config, tcpAddr, udpAddr, wsURL string) map[string]drive {
	return map[string]drive{
		"tcp": driveGetty(func() *getty.Client { return getty.NewTCPClient(at(c, tcpAddr)...) }, frames),
		"udp": driveGetty(func() *getty.Client { return getty.NewUDPClient(at(c, udpAddr)...) }, messages),
		"ws":  driveGetty(func() *getty.Client { return getty.NewWSClient(at(c, wsURL)...) }, messages),
	}
}

func at(c *config, addr string) []getty.ClientOption {
	return []getty.ClientOption{getty.WithServerAddress(addr), getty.WithConnectionNumber(c.sessions)}
}

// driveGetty drives the lanes with the sessions of one getty client.
func driveGetty(client func() *getty.Client, rw getty.ReadWriter) drive {
	return func(ctx context.Context, lanes []*lane) error {
		var taken atomic.Int64
		c := client()
		err := c.RunEventLoop(func(s getty.Session) error {
			i := taken.Add(1) - 1
			if i >= int64(len(lanes)) {
				// The client replaces a session that ended. Its lane has failed by then.
				return errors.New("no lane left")
			}
			s.SetCronPeriod(resendAfter / 2)
			return errors.Join(s.SetPkgHandler(rw), s.SetEventListener(&conversation{lane: lanes[i]}))
		})
		if err != nil {
			return err
		}
		for _, l := range lanes {
			<-l.done // run fails them when ctx ends
		}
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if report, err := c.Shutdown(end); err != nil {
			return fmt.Errorf("shutdown: %w, %d sessions drained, %d forced", err, report.Drained, report.Forced)
		}
		return nil
	}
}

// A conversation is a lane's getty session. It owns no goroutine: the first
// messages are written when the session opens, each further one when an echo
// arrives, and what leaves within one turn leaves in one system call.
type conversation struct {
	lane *lane
}

func writer(s getty.Session) func([]byte) error {
	return func(b []byte) error {
		_, _, err := s.WritePkg(b, 0)
		return err
	}
}

func (c *conversation) OnOpen(s getty.Session) error {
	c.lane.start(writer(s))
	return nil
}

func (c *conversation) OnMessage(s getty.Session, pkg any) {
	if c.lane.echo(pkg.(*codec.Frame).Bytes()) {
		c.lane.send(writer(s))
	}
}

func (c *conversation) OnCron(s getty.Session) { c.lane.resend(resendAfter, writer(s)) }

func (c *conversation) OnError(_ getty.Session, err error) { c.lane.fail(err) }

func (c *conversation) OnClose(getty.Session) { c.lane.fail(io.ErrUnexpectedEOF) }
