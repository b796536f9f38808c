// SPDX-License-Identifier: Apache-2.0

package load

import (
	"net"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gostkit/kit/bench/internal/wire"
)

// serve answers every read of complete frames with what answer makes of them.
func serve(t *testing.T, answer func(frames []byte) []byte) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				var in []byte
				buf := make([]byte, 4096)
				for {
					n, err := conn.Read(buf)
					if err != nil {
						return
					}
					in = append(in, buf[:n]...)
					_, used, err := wire.Echo(nil, in)
					if err != nil {
						return
					}
					if _, err := conn.Write(answer(slices.Clone(in[:used]))); err != nil {
						return
					}
					in = in[used:]
				}
			}()
		}
	}()
	return ln.Addr().String()
}

const frame = wire.Header + 64

func TestRunCountsWhatCameBack(t *testing.T) {
	e := Echo{Addr: serve(t, func(b []byte) []byte { return b }), Conns: 5, InFlight: 3, Payload: 64}
	c, err := e.Dial()
	require.NoError(t, err)
	defer c.Close()
	r, err := c.Once(2)
	require.NoError(t, err)
	require.EqualValues(t, 15, r.Messages)
	r, err = c.Run(10 * time.Millisecond)
	require.NoError(t, err)
	require.Positive(t, r.Messages)
	require.Zero(t, r.Messages%3)
	require.Positive(t, r.P50)
	require.LessOrEqual(t, r.P50, r.P99)
	require.GreaterOrEqual(t, r.Elapsed, 10*time.Millisecond)
}

func TestRunNoticesWrongAnswers(t *testing.T) {
	swap := func(b []byte) []byte { // the first two of a batch change places
		if len(b) >= 2*frame {
			b = slices.Concat(b[frame:2*frame], b[:frame], b[2*frame:])
		}
		return b
	}
	for name, tt := range map[string]struct {
		answer    func([]byte) []byte
		unordered bool
		want      string
	}{
		"flipped bit":        {func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, false, "not what was sent"},
		"flipped, unordered": {func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, true, "not what was sent"},
		"moved boundary":     {func(b []byte) []byte { return append(b[1:], 0) }, false, "not what was sent"},
		"order":              {swap, false, "not what was sent"},
		"twice": {func(b []byte) []byte {
			copy(b[frame:], b[:frame])
			return b
		}, true, "not due"},
		"order, where it may": {swap, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := Echo{Addr: serve(t, tt.answer), Conns: 1, InFlight: 4, Payload: 64, Unordered: tt.unordered}
			c, err := e.Dial()
			require.NoError(t, err)
			defer c.Close()
			_, err = c.Once(1)
			if tt.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, tt.want)
			}
		})
	}
}

func TestBurstCountsTheUnserved(t *testing.T) {
	e := Echo{Addr: serve(t, func(b []byte) []byte { return b }), Conns: 50, InFlight: 1, Payload: 64}
	r := e.Burst()
	require.Zero(t, r.Unserved, r.Error)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	e.Addr = ln.Addr().String()
	ln.Close()
	r = e.Burst()
	require.Equal(t, 50, r.Unserved)
	require.NotEmpty(t, r.Error)
}

func TestHistogram(t *testing.T) {
	var h Histogram
	require.Zero(t, h.Quantile(0.5))
	for i := range 1000 {
		h.Add(time.Duration(i+1)*time.Microsecond, 1)
	}
	var all Histogram
	all.Merge(&h)
	for _, q := range []float64{0.01, 0.5, 0.99} {
		require.InEpsilon(t, q*1e6, float64(all.Quantile(q)), 0.04, "%v", q)
	}
	for _, v := range []uint64{0, 1, 31, 32, 33, 63, 64, 65, 1000, 1 << 40, 1<<63 - 1} {
		i := bucket(v)
		require.GreaterOrEqual(t, edge(i), v)
		if i > 0 {
			require.Less(t, edge(i-1), v)
		}
	}
}
