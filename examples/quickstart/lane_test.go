// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// collect keeps copies of what a lane sends.
type collect struct{ sent [][]byte }

func (c *collect) write(b []byte) error {
	c.sent = append(c.sent, bytes.Clone(b))
	return nil
}

func TestLaneCompletes(t *testing.T) {
	for _, size := range []int{minSize, minSize + 1, 64, 1000} {
		l := newLane(3, size, 20, 4)
		l.inOrder = true
		var c collect
		l.start(c.write)
		require.Len(t, c.sent, 4, "a window, no more")
		for i := 0; i < len(c.sent); i++ {
			require.False(t, l.ended(), "after %d of 20", i)
			require.Len(t, c.sent[i], size)
			require.True(t, l.echo(c.sent[i]), "echo %d", i)
			l.send(c.write)
		}
		require.True(t, l.ended())
		require.NoError(t, l.err)
		require.Len(t, c.sent, 20)
		require.Len(t, l.latencies, 20)
		require.Zero(t, l.errors)
		slices.SortFunc(c.sent, bytes.Compare)
		require.Len(t, slices.CompactFunc(c.sent, bytes.Equal), 20, "no two messages are alike")
	}
}

// Whatever is wrong with an echo ends the lane and counts all that is missing.
func TestLaneObjects(t *testing.T) {
	flip := func(at int) func(sent [][]byte) [][]byte {
		return func(sent [][]byte) [][]byte {
			b := bytes.Clone(sent[0])
			b[at] ^= 1
			return [][]byte{b}
		}
	}
	other := newLane(4, 64, 10, 4)
	var theirs collect
	other.start(theirs.write)
	for name, echoes := range map[string]func(sent [][]byte) [][]byte{
		"a flipped bit in the last byte":  flip(63),
		"a flipped bit in the first byte": flip(0),
		"a flipped bit in the number":     flip(11),
		"a number out of range":           flip(4),
		"a message cut short":             func(s [][]byte) [][]byte { return [][]byte{s[0][:63]} },
		"an empty message":                func(s [][]byte) [][]byte { return [][]byte{nil} },
		"two messages run together":       func(s [][]byte) [][]byte { return [][]byte{slices.Concat(s[0], s[1])} },
		"another session's message":       func(s [][]byte) [][]byte { return theirs.sent[:1] },
		"a message twice":                 func(s [][]byte) [][]byte { return [][]byte{s[0], s[0]} },
		"the second message first":        func(s [][]byte) [][]byte { return [][]byte{s[1]} },
		"the first message lost":          func(s [][]byte) [][]byte { return s[1:] },
		"a message that was not sent yet": func(s [][]byte) [][]byte { b := make([]byte, 64); other.message(b, 7); return [][]byte{b} },
	} {
		l := newLane(3, 64, 10, 4)
		l.inOrder = true
		if name == "a message that was not sent yet" {
			l.id = 4
		}
		var c collect
		l.start(c.write)
		accepted := 0
		for _, b := range echoes(c.sent) {
			if l.echo(b) {
				accepted++
			}
		}
		require.True(t, l.ended(), name)
		require.Error(t, l.err, name)
		require.Equal(t, 10-accepted, l.errors, name)
		require.False(t, l.echo(c.sent[3]), "%s: an ended lane takes nothing", name)
		sent := len(c.sent)
		l.send(c.write)
		require.Len(t, c.sent, sent, "%s: an ended lane sends nothing", name)
	}
}

func TestLaneOutOfOrder(t *testing.T) {
	l := newLane(0, 64, 4, 4)
	var c collect
	l.start(c.write)
	for _, i := range []int{2, 0, 3, 1} {
		require.True(t, l.echo(c.sent[i]), "message %d", i)
	}
	require.True(t, l.ended())
	require.NoError(t, l.err)
}

// A datagram that was sent again may be echoed twice; one that was not may not.
func TestLaneResend(t *testing.T) {
	l := newLane(0, 64, 5, 3)
	var c collect
	l.resend(0, c.write)
	require.Empty(t, c.sent, "a stream loses nothing")
	l.lossy = true
	l.start(c.write)
	require.True(t, l.echo(c.sent[1]))
	l.resend(time.Hour, c.write)
	require.Len(t, c.sent, 3, "nothing is that old")
	l.resend(0, c.write)
	require.Len(t, c.sent, 5, "the two without an echo")
	require.Equal(t, c.sent[0], c.sent[3])
	require.Equal(t, c.sent[2], c.sent[4])
	require.True(t, l.echo(c.sent[3]))
	require.False(t, l.echo(c.sent[0]), "the first copy came late: not new")
	require.False(t, l.ended(), "and not wrong")
	require.True(t, l.echo(c.sent[2]))
	l.send(c.write)
	l.send(c.write)
	require.True(t, l.echo(c.sent[5]))
	require.True(t, l.echo(c.sent[6]))
	require.True(t, l.ended())
	require.NoError(t, l.err)
	require.Equal(t, 2, l.resent)
}

func TestLaneWriteFails(t *testing.T) {
	broken := errors.New("broken")
	l := newLane(0, 64, 5, 3)
	l.inOrder = true
	l.start(func([]byte) error { return broken })
	require.True(t, l.ended())
	require.ErrorIs(t, l.err, broken)
	require.Equal(t, 5, l.errors)
}

func TestPercentile(t *testing.T) {
	var d []time.Duration
	require.Zero(t, percentile(d, 50))
	for i := range 100 {
		d = append(d, time.Duration(i+1))
	}
	require.EqualValues(t, 50, percentile(d, 50))
	require.EqualValues(t, 99, percentile(d, 99))
	require.EqualValues(t, 1, percentile(d[:1], 99))
	require.EqualValues(t, 2, percentile(d[:3], 50))
}
