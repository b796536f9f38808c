// SPDX-License-Identifier: Apache-2.0

package sendq

import (
	"bytes"
	"errors"
	"math/rand"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

var waiters Waiters

// A modelled segment is what the model of a batch knows about one.
type modelled struct {
	left      []byte
	whole     int // bytes in all
	w         *Waiter
	withdrawn bool
	ends      []int // of the packages in it, in bytes of it; none in a mark or in control bytes
}

// model is a batch as a list of segments.
type model struct {
	t    *testing.T
	segs []*modelled
	sent []byte
	want Progress
}

// told checks what the waiter of m was told.
func (m *modelled) told(t *testing.T, want error) {
	if m.w == nil {
		return
	}
	select {
	case <-m.w.Done():
		_, err := m.w.Result()
		require.Equal(t, want, err)
	default:
		require.Fail(t, "nobody told the waiter")
	}
}

// offer passes over what was withdrawn, and reaches marks.
func (m *model) offer() {
	for len(m.segs) > 0 {
		s := m.segs[0]
		switch {
		case s.withdrawn:
			m.want.Gone += s.whole
		case s.whole == 0:
			s.told(m.t, nil)
		default:
			return
		}
		m.segs = m.segs[1:]
	}
}

func (m *model) took(n int) {
	m.want.Taken += n
	m.want.Gone += n
	if n > 0 {
		m.want.Calls++
	}
	for n > 0 {
		s := m.segs[0]
		k := min(n, len(s.left))
		before := s.whole - len(s.left)
		m.sent = append(m.sent, s.left[:k]...)
		s.left = s.left[k:]
		n -= k
		for _, end := range s.ends {
			if end > before && end <= before+k {
				m.want.Pkgs++
			}
		}
		if len(s.left) == 0 {
			s.told(m.t, nil)
			m.segs = m.segs[1:]
		}
	}
}

// play runs the operations that script describes on a Batch and on the model.
func play(t *testing.T, script []byte) {
	b := New()
	m := &model{t: t}
	var sent []byte
	next := byte(1)
	fill := func(n int) []byte {
		p := make([]byte, n)
		for i := range p {
			p[i] = next
			next = next*5 + 3
		}
		return p
	}
	add := func(p []byte, w *Waiter, ends ...int) {
		m.segs = append(m.segs, &modelled{left: p, whole: len(p), w: w, ends: ends})
	}
	for len(script) >= 3 {
		op, x := script[0], int(script[1])<<8|int(script[2])
		script = script[3:]
		var w *Waiter
		if op&0x80 != 0 {
			w = waiters.New()
		}
		switch op % 8 {
		case 0, 1: // encode in place, with a wrong idea of the size
			p := fill(1 + x%12000)
			b.Add(append(b.Reserve(1+x*7%9000), p...), w)
			add(p, w, len(p))
		case 2:
			p := fill(1 + x%6000)
			b.AddCopy(p, w)
			add(p, w, len(p))
		case 3: // several at once, or bytes that are no package
			if w != nil {
				w.Free()
				p := fill(1 + x%50)
				b.AddControl(p)
				add(p, nil)
				break
			}
			x, y := fill(x%100), fill(x%5000+1)
			require.Equal(t, len(x)+len(y)+1, b.AddCopies([][]byte{x, nil, y, {7}}))
			ends := []int{len(x) + len(y), len(x) + len(y) + 1}
			if len(x) > 0 {
				ends = append(ends, len(x))
			}
			add(append(append(x, y...), 7), nil, ends...)
		case 4:
			if w == nil {
				w = waiters.New()
			}
			b.AddMark(w)
			add(nil, w)
			w = nil
		case 5: // withdraw one of them, if it can be
			for i, s := range m.segs {
				if s.w == nil || s.withdrawn || s.whole == 0 || (x>>(i%16))&1 == 0 {
					continue
				}
				s.withdrawn = s.w.Withdraw()
				require.Equal(t, len(s.left) == s.whole, s.withdrawn, "before a part has left")
				break
			}
			if w != nil {
				w.Free()
			}
		default: // a write that takes a part of what is offered
			if w != nil {
				w.Free()
			}
			runs := b.Offer()
			m.offer()
			require.LessOrEqual(t, len(runs), maxSegments)
			total := 0
			for _, r := range runs {
				require.NotEmpty(t, r)
				total += len(r)
			}
			require.Equal(t, len(m.segs) == 0, total == 0)
			n := min(x, total)
			rest := n
			for _, r := range runs {
				k := min(rest, len(r))
				sent = append(sent, r[:k]...)
				rest -= k
			}
			b.Took(n)
			m.took(n)
			require.True(t, bytes.Equal(m.sent, sent))
			require.Equal(t, m.want, b.Progress())
			m.want = Progress{}
		}
	}
	lost := errors.New("lost")
	wantPkgs, wantBytes := 0, 0
	for _, s := range m.segs {
		if s.withdrawn {
			continue
		}
		wantBytes += len(s.left)
		for _, end := range s.ends {
			if end > s.whole-len(s.left) {
				wantPkgs++
			}
		}
	}
	pkgs, n := b.Fail(lost)
	require.Equal(t, wantPkgs, pkgs)
	require.Equal(t, wantBytes, n)
	for _, s := range m.segs {
		if !s.withdrawn {
			s.told(t, lost)
		}
	}
	b.Free()
}

func TestBatch(t *testing.T) {
	for seed := range 300 {
		script := make([]byte, 3*80)
		rand.New(rand.NewSource(int64(seed))).Read(script)
		play(t, script)
	}
}

func FuzzBatch(f *testing.F) {
	f.Add([]byte{0x80, 10, 0, 0x84, 0, 0, 6, 0, 200, 5, 0, 3, 6, 255, 255})
	f.Fuzz(play)
}

// Every package is sent or withdrawn, exactly once, whoever is first.
func TestWithdrawBesideAFlush(t *testing.T) {
	for range 200 {
		b := New()
		const n = 40
		ws := make([]*Waiter, n)
		for i := range ws {
			ws[i] = waiters.New()
			b.AddCopy([]byte{byte(i)}, ws[i])
		}
		taken := make([]bool, n)
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := n - 1; i >= 0; i -= 2 {
				taken[i] = ws[i].Withdraw()
			}
		})
		var sent []byte
		for {
			runs := b.Offer()
			if len(runs) == 0 {
				break
			}
			sent = append(sent, runs[0][0])
			b.Took(1)
		}
		wg.Wait()
		for _, i := range sent {
			require.False(t, taken[i], "sent and withdrawn")
			taken[i] = true
		}
		for i := range taken {
			require.True(t, taken[i], "neither sent nor withdrawn")
		}
		require.Equal(t, len(sent), b.Progress().Pkgs)
		require.Zero(t, b.Left())
		b.Free()
	}
}

// A pooled batch keeps nothing alive.
//
// case: 13
func TestFreedBatchHoldsNothing(t *testing.T) {
	b := New()
	for range 100 {
		b.AddCopy(make([]byte, LargeSize), nil)
	}
	for len(b.Offer()) > 0 {
		b.Took(LargeSize)
	}
	b.Free()
	for _, r := range b.runs[:cap(b.runs)] {
		require.True(t, r == nil)
	}
	for _, s := range b.segs[:cap(b.segs)] {
		require.True(t, s.b == nil && s.whole == nil && s.w == nil)
	}
	for _, c := range b.chunks[:cap(b.chunks)] {
		require.True(t, c == nil)
	}
	require.True(t, b.buf == nil && b.large == nil && b.lent == nil)
}
