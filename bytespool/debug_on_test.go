// SPDX-License-Identifier: Apache-2.0

//go:build bytespooldebug

package bytespool

import (
	"bytes"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// caught runs f and returns the Misuse that it panics with.
func caught(t *testing.T, f func()) (m *Misuse) {
	t.Helper()
	defer func() {
		v := recover()
		require.NotNil(t, v, "no panic")
		m = v.(*Misuse)
	}()
	f()
	return nil
}

func lender() []byte    { return Get(1000) }
func returner(b []byte) { Put(b) }

// acceptance: B02
func TestSecondPut(t *testing.T) {
	b := lender()
	returner(b)
	m := caught(t, func() { Put(b) })
	require.Equal(t, "second Put of a buffer", m.What)
	require.Equal(t, 1024, m.Size)
	require.Contains(t, m.Got, "bytespool.lender\n")
	require.Contains(t, m.Got, "debug_on_test.go:")
	require.Contains(t, m.Put, "bytespool.returner\n")
	require.Contains(t, m.Error(), "bytespool: second Put of a buffer (1024 bytes)\nlent at:\n\t")
	require.Contains(t, m.Error(), "\nput back at:\n\t")
}

// The second Put is found also if the first one went to another Pool or was not kept.
func TestSecondPutElsewhere(t *testing.T) {
	small, err := New(Config{MaxSize: 64})
	require.NoError(t, err)
	full, err := New(Config{MaxIdle: 64})
	require.NoError(t, err)
	for _, p := range []*Pool{small, full, new(Pool)} {
		b := Get(1000)
		p.Put(b)
		require.Equal(t, "second Put of a buffer", caught(t, func() { Put(b) }).What)
	}
}

func TestWriteAfterPut(t *testing.T) {
	p, err := New(Config{MaxIdle: 1 << 20}) // the next Get returns the last Put, also under -race
	require.NoError(t, err)
	for _, at := range []int{0, 500, 1023} {
		b := p.Get(1000)
		p.Put(b)
		b[:1024][at] = 1
		m := caught(t, func() { p.Get(900) })
		require.Equal(t, "write to a buffer after Put", m.What)
		require.Contains(t, m.Got, "TestWriteAfterPut")
		require.Contains(t, m.Put, "TestWriteAfterPut")
	}
	require.Empty(t, debugIdle(), "one report for each write")
}

// A read after Put sees what cannot be mistaken for the data.
func TestPoison(t *testing.T) {
	b := Get(100)
	require.Equal(t, bytes.Repeat([]byte{poison}, 112), b[:cap(b)], "content of a new buffer")
	copy(b, "secret")
	Put(b)
	require.Equal(t, bytes.Repeat([]byte{poison}, 112), b[:cap(b)])
}

// A slice of the inside whose capacity is a class size passes the cheap test of Put.
func TestInteriorSlice(t *testing.T) {
	b := Get(128)
	for _, inside := range [][]byte{b[64:], b[:80:80], b[16:80:96], b[48:48:128]} {
		require.Equal(t, ClassSize(cap(inside)), cap(inside), "the test needs a class size")
		m := caught(t, func() { Put(inside) })
		require.Equal(t, "Put of the inside of a buffer", m.What)
		require.Equal(t, 128, m.Size)
		require.Contains(t, m.Got, "TestInteriorSlice")
		require.Empty(t, m.Put)
	}
	Put(b)
	m := caught(t, func() { Put(b[64:]) })
	require.Equal(t, "Put of the inside of a buffer", m.What)
	require.Contains(t, m.Put, "TestInteriorSlice")
}

// Foreign memory is not watched, since it may be anything, and not kept.
func TestForeignSlice(t *testing.T) {
	p, err := New(Config{MaxIdle: 1 << 20})
	require.NoError(t, err)
	foreign := make([]byte, 128)
	for range 3 {
		p.Put(foreign)
	}
	p.Put(foreign[64:])
	require.Zero(t, p.Trim())
}

func TestLeaks(t *testing.T) {
	require.Empty(t, Leaks())
	a, b := lender(), Get(64)
	found := Leaks()
	require.Len(t, found, 2)
	require.Equal(t, 1024, found[0].Size)
	require.Contains(t, found[0].Stack, "bytespool.lender\n")
	require.Equal(t, 64, found[1].Size)
	require.False(t, found[0].Collected)
	Put(a)
	require.Len(t, Leaks(), 1)

	var report bytes.Buffer
	require.Equal(t, 1, verify(exitCode(0), &report, time.Millisecond))
	require.Equal(t, 1, strings.Count(report.String(), "not put back (64 bytes)\nlent at:\n"), &report)
	report.Reset()
	require.Equal(t, 2, verify(exitCode(2), &report, 0))
	require.Empty(t, report.String(), "a failed run is not blamed on leaks")
	Put(b)
	require.Empty(t, Leaks())

	// What an unreleased Buffer holds counts.
	var buf Buffer
	buf.WriteByte(1)
	require.Len(t, Leaks(), 1)
	require.Contains(t, Leaks()[0].Stack, "(*Buffer).WriteByte")
	buf.Release()
	require.Empty(t, Leaks())
}

// A leak stays one after its memory is gone and has gone to somebody else.
func TestLeakOfCollectedBuffer(t *testing.T) {
	defer forgetLost()
	func() { Get(3000) }()
	lost := func() int {
		guard.mu.Lock()
		defer guard.mu.Unlock()
		return len(guard.lost)
	}
	for deadline := time.Now().Add(20 * time.Second); lost() == 0 && time.Now().Before(deadline); {
		runtime.GC()
		time.Sleep(time.Millisecond) // the cleanup runs on a goroutine of its own
	}
	found := Leaks()
	require.Len(t, found, 1)
	require.True(t, found[0].Collected)
	require.Contains(t, found[0].Stack, "TestLeakOfCollectedBuffer")
	for range 1000 {
		Put(Get(3000))
	}
	require.Len(t, Leaks(), 1)
}

// Memory that was a buffer and is collected may become a foreign slice or a buffer again, at the
// same address; neither may be taken for the old one.
func TestReusedAddresses(t *testing.T) {
	for range 2000 {
		Put(Get(20_000))
		Put(make([]byte, 20_480))
	}
	runtime.GC()
	runtime.GC()
	for range 2000 {
		Put(make([]byte, 20_480))
		p := new(Pool)
		p.Put(p.Get(20_000))
	}
}

// forgetLost lets the other tests start without leaks, also those whose cleanup has yet to run.
func forgetLost() {
	guard.mu.Lock()
	defer guard.mu.Unlock()
	for _, r := range guard.at {
		if !r.alive() {
			forgetLocked(r)
		}
	}
	clear(guard.lost)
}

// Nobody may ask for the buffer again, so that the end of the run has to look.
func TestVerifyFindsWriteAfterPut(t *testing.T) {
	b := Get(1 << 20)
	Put(b)
	b[12345] = 1
	var report bytes.Buffer
	require.Equal(t, 1, verify(exitCode(0), &report, 0))
	require.Contains(t, report.String(), "write to a buffer after Put (1048576 bytes)")
	require.Contains(t, report.String(), "put back at:\n")
	b[12345] = poison
	require.Zero(t, verify(exitCode(0), &report, 0))
}

func TestSecondPutOfChunk(t *testing.T) {
	var b Buffer
	b.WriteByte(1)
	c := b.TakeChunk()
	d := c
	c.Release()
	require.Equal(t, "second Put of a buffer", caught(t, d.Release).What)
}

func TestSecondPutOfObject(t *testing.T) {
	resets := 0
	o := Objects[[32]byte]{Reset: func(*[32]byte) { resets++ }}
	x := o.Get()
	o.Put(x)
	m := caught(t, func() { o.Put(x) })
	require.Equal(t, "second Put of an object", m.What)
	require.Equal(t, 32, m.Size)
	require.Contains(t, m.Put, "TestSecondPutOfObject")
	require.Equal(t, 1, resets, "the object of another user was reset")
	for range 1000 { // collected objects are forgotten
		o.Put(new([32]byte))
		if len(o.guard.idle) > 500 {
			runtime.GC()
		}
	}
	runtime.GC()
	runtime.GC()
	for range 1000 {
		o.Put(new([32]byte))
	}
	require.Less(t, len(o.guard.idle), 2000)

	// Put, dropped for its size, put again: not idle in between.
	large := Objects[[32]byte]{Size: func(*[32]byte) int { return 32 }, MaxSize: 31}
	y := large.Get()
	large.Put(y)
	large.Put(y)

	var none Objects[struct{}]
	none.Put(none.Get())
	none.Put(new(struct{}))
}

// TestMisuseChangesNothing: a Put that panics has not written to the buffer of somebody else.
func TestMisuseChangesNothing(t *testing.T) {
	p, err := New(Config{ZeroOnPut: true, MaxIdle: 1 << 20}) // the next Get returns the last Put
	require.NoError(t, err)
	b := p.Get(256)
	copy(b, strings.Repeat("x", 256))
	require.Equal(t, "Put of the inside of a buffer", caught(t, func() { p.Put(b[128:]) }).What)
	require.Equal(t, strings.Repeat("x", 256), string(b))
	p.Put(b)
	require.Equal(t, "second Put of a buffer", caught(t, func() { p.Put(b) }).What)
	require.Zero(t, p.Get(256)[0], "and nobody is told of a write after Put")
	p.Put(b)
}

// TestResetPanics: an object whose Reset panicked is not idle; its owner may put it back again.
func TestResetPanics(t *testing.T) {
	broken := true
	o := Objects[int]{Reset: func(*int) {
		if broken {
			panic("reset")
		}
	}}
	x := o.Get()
	require.PanicsWithValue(t, "reset", func() { o.Put(x) })
	broken = false
	o.Put(x)
	require.Equal(t, "second Put of an object", caught(t, func() { o.Put(x) }).What)
}
