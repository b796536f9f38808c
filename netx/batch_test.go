// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// room returns n entries with buffers of size bytes.
func room(n, size int) []Datagram {
	ds := make([]Datagram, n)
	for i := range ds {
		ds[i].Buf = make([]byte, size)
	}
	return ds
}

// readAll reads n datagrams in batches.
func readAll(t *testing.T, b *Batch, n, size int) []Datagram {
	t.Helper()
	ds := room(n, size)
	for got := 0; got < n; {
		m, err := b.ReadBatch(ds[got:])
		require.NoError(t, err)
		require.Positive(t, m)
		got += m
	}
	return ds
}

// Bursts of random length and sizes arrive as they were sent, each with its sender and truncated
// exactly if it did not fit: against single calls as the model.
func TestBatch(t *testing.T) {
	bothSystems(t, func(t *testing.T, stub bool) {
		families(t, func(t *testing.T, loopback string) {
			rng := rand.New(rand.NewPCG(1, 2))
			a, aAddr := listenUDP(t, loopback)
			c, cAddr := listenUDP(t, loopback)
			ab, err := NewBatch(a, 5)
			require.NoError(t, err)
			cb, err := NewBatch(c, 7)
			require.NoError(t, err)
			for round := range 60 {
				var sent []Datagram
				for i := range rng.IntN(20) {
					b := bytes.Repeat([]byte{byte(round), byte(i)}, rng.IntN(60))
					sent = append(sent, Datagram{Buf: b, Addr: cAddr})
				}
				n, err := ab.WriteBatch(sent)
				require.NoError(t, err)
				require.Equal(t, len(sent), n)
				got := readAll(t, cb, len(sent), 80)
				for i, d := range got {
					want := sent[i].Buf
					require.Equal(t, len(want) > 80, d.Truncated, "a datagram of %d bytes", len(want))
					require.Equal(t, want[:min(len(want), 80)], d.Buf[:d.N])
					require.Equal(t, aAddr, d.Addr)
				}
				// And back, written one by one.
				for i := range got {
					_, err := WriteUDP(c, got[i].Buf[:got[i].N], got[i].Addr)
					require.NoError(t, err)
				}
				for i, d := range readAll(t, ab, len(got), 200) {
					require.Equal(t, got[i].Buf[:got[i].N], d.Buf[:d.N])
					require.Equal(t, cAddr, d.Addr)
				}
			}
		})
	})
}

func TestBatchConnected(t *testing.T) {
	bothSystems(t, func(t *testing.T, stub bool) {
		server, addr := listenUDP(t, "127.0.0.1")
		serveUDP(t, server, echo)
		c, _, err := DialUDP(testContext(t), "udp", addr.String(), Probe{})
		require.NoError(t, err)
		defer c.Close()
		b, err := NewBatch(c, 4)
		require.NoError(t, err)
		n, err := b.WriteBatch([]Datagram{{Buf: []byte("a")}, {}, {Buf: []byte("ccc")}})
		require.NoError(t, err)
		require.Equal(t, 3, n)
		ds := readAll(t, b, 3, 8)
		for i, want := range []string{"a", "", "ccc"} {
			require.Equal(t, want, string(ds[i].Buf[:ds[i].N]))
			require.Equal(t, addr, ds[i].Addr)
		}
	})
}

// A dual-stack socket sends to and hears IPv4 peers under their IPv4 address.
func TestBatchMapped(t *testing.T) {
	bothSystems(t, func(t *testing.T, stub bool) {
		dual, err := net.ListenUDP("udp", &net.UDPAddr{})
		require.NoError(t, err)
		defer dual.Close()
		four, addr := listenUDP(t, "127.0.0.1")
		db, err := NewBatch(dual, 4)
		require.NoError(t, err)
		fb, err := NewBatch(four, 4)
		require.NoError(t, err)
		mapped := netip.AddrPortFrom(netip.AddrFrom16(addr.Addr().As16()), addr.Port())
		_, err = db.WriteBatch([]Datagram{{Buf: []byte("x"), Addr: addr}, {Buf: []byte("y"), Addr: mapped}})
		require.NoError(t, err)
		back := readAll(t, fb, 2, 8)
		back[0].Addr = netip.AddrPortFrom(netip.AddrFrom16(back[0].Addr.Addr().As16()), back[0].Addr.Port())
		_, err = fb.WriteBatch(back)
		require.NoError(t, err)
		for _, d := range readAll(t, db, 2, 8) {
			require.Equal(t, addr, d.Addr)
		}
		_, err = fb.WriteBatch([]Datagram{{Addr: addr}, {Addr: netip.MustParseAddrPort("[::1]:1")}})
		require.Error(t, err, "IPv6 through an IPv4 socket")
		d := readAll(t, fb, 1, 8)
		require.Zero(t, d[0].N, "the one before it was written")
	})
}

// An error is about the entry at the returned index; those before it were sent, those behind not.
func TestBatchErrors(t *testing.T) {
	bothSystems(t, func(t *testing.T, stub bool) {
		a, aAddr := listenUDP(t, "127.0.0.1")
		b, err := NewBatch(a, 8)
		require.NoError(t, err)
		ds := []Datagram{{Buf: []byte("1"), Addr: aAddr}, {Buf: []byte("2"), Addr: aAddr},
			{Buf: make([]byte, maxDatagram), Addr: aAddr}, {Buf: []byte("4"), Addr: aAddr}}
		n, err := b.WriteBatch(ds)
		require.Equal(t, 2, n)
		require.True(t, IsPacketError(err), "%v", err)
		n, err = b.WriteBatch(ds[3:])
		require.NoError(t, err)
		require.Equal(t, 1, n)
		got := readAll(t, b, 3, 8)
		require.Equal(t, "124", string(got[0].Buf[0])+string(got[1].Buf[0])+string(got[2].Buf[0]))

		n, err = b.ReadBatch(nil)
		require.NoError(t, err)
		require.Zero(t, n)
		a.SetDeadline(time.Now().Add(20 * time.Millisecond))
		n, err = b.ReadBatch(got)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Zero(t, n)
		a.SetDeadline(time.Time{})
		closed := make(chan error)
		go func() {
			_, err := b.ReadBatch(got)
			closed <- err
		}()
		a.Close()
		require.ErrorIs(t, <-closed, net.ErrClosed)
		_, err = b.WriteBatch(ds)
		require.ErrorIs(t, err, net.ErrClosed)
	})
	c, _ := listenUDP(t, "127.0.0.1")
	for _, size := range []int{-1, 0, 1025} {
		_, err := NewBatch(c, size)
		require.ErrorIs(t, err, syscall.EINVAL)
	}
	c.Close()
	if runtime.GOOS == "linux" {
		_, err := NewBatch(c, 1)
		require.ErrorIs(t, err, net.ErrClosed)
	}
}

// fault: 79
func TestBatchRefused(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("ICMP errors are another matter here")
	}
	bothSystems(t, func(t *testing.T, stub bool) {
		dead, addr := listenUDP(t, own())
		c, _, err := DialUDP(testContext(t), "udp", addr.String(), Probe{})
		require.NoError(t, err)
		defer c.Close()
		dead.Close()
		b, err := NewBatch(c, 4)
		require.NoError(t, err)
		_, err = c.Write([]byte("x"))
		require.NoError(t, err)
		_, err = b.ReadBatch(room(2, 8))
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		require.True(t, IsPacketError(err))
		_, err = c.Write([]byte("x"))
		require.NoError(t, err)
		refusal(t, c)
		n, err := b.WriteBatch([]Datagram{{Buf: []byte("x")}})
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		require.Zero(t, n)
	})
}

// One goroutine reads while another writes, through a reader that has to wait in between and with
// more than the socket's buffers hold.
func TestBatchReaderAndWriter(t *testing.T) {
	bothSystems(t, func(t *testing.T, stub bool) {
		a, _ := listenUDP(t, "127.0.0.1")
		c, cAddr := listenUDP(t, "127.0.0.1")
		ab, err := NewBatch(a, 16)
		require.NoError(t, err)
		cb, err := NewBatch(c, 16)
		require.NoError(t, err)
		const n = 4000
		failed := make(chan error, 1)
		turn := make(chan struct{}, 1)
		go func() {
			ds := room(16, 8)
			next := 0
			for next < n {
				m, err := cb.ReadBatch(ds)
				if err != nil {
					failed <- err
					return
				}
				for _, d := range ds[:m] {
					if want := fmt.Sprint(next); string(d.Buf[:d.N]) != want {
						failed <- errors.New(string(d.Buf[:d.N]) + " instead of " + want)
						return
					}
					next++
				}
				if next%100 == 0 && next < n {
					turn <- struct{}{}
				}
			}
			failed <- nil
		}()
		for i := 0; i < n; i += 100 {
			var ds []Datagram
			for k := range 100 {
				ds = append(ds, Datagram{Buf: []byte(fmt.Sprint(i + k)), Addr: cAddr})
			}
			_, err := ab.WriteBatch(ds)
			require.NoError(t, err)
			select {
			case <-turn:
			case err := <-failed: // too early, or the last turn
				require.NoError(t, err)
				require.Equal(t, n-100, i)
				return
			}
		}
	})
}

func TestBatchAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations differ under the race detector")
	}
	bothSystems(t, func(t *testing.T, stub bool) {
		families(t, func(t *testing.T, loopback string) {
			a, addr := listenUDP(t, loopback)
			b, err := NewBatch(a, 8)
			require.NoError(t, err)
			in, out := room(8, 64), room(8, 64)
			for i := range out {
				out[i].Addr = addr
			}
			require.Zero(t, fewestAllocs(100, func() {
				b.WriteBatch(out)
				for got := 0; got < 8; {
					n, err := b.ReadBatch(in)
					if err != nil {
						t.Fatal(err)
					}
					got += n
				}
			}))
		})
	})
}
