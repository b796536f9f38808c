// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRunList: both parts of a list are one to those who look, drain and count.
func TestRunList(t *testing.T) {
	var l runList
	var s [4]Strand
	var cur atomic.Pointer[Strand]
	pop := func() (*Strand, bool) {
		v := visit{arrived: true}
		return l.pop(&v, &cur)
	}
	add := func(x *Strand) { require.True(t, l.push(x)) }
	count := func() (n int) {
		l.each(func(*Strand) { n++ })
		return n
	}
	add(&s[0])
	add(&s[1])
	require.Equal(t, 2, count())
	got, more := pop()
	require.Same(t, &s[0], got)
	require.True(t, more, "in the part that workers take from")
	require.True(t, l.any())
	require.Same(t, got, cur.Load())
	add(&s[2])
	require.Equal(t, 2, count())
	first := l.drain(false)
	require.Same(t, &s[1], first)
	require.Same(t, &s[2], first.next)
	require.Nil(t, first.next.next)
	require.False(t, l.any())
	got, more = pop()
	require.Nil(t, got)
	require.False(t, more)
	add(&s[0])
	got, more = pop()
	require.Same(t, &s[0], got)
	require.False(t, more)
	add(&s[0])
	add(&s[1])
	_, _ = pop()
	_, more = pop()
	require.False(t, more)
	add(&s[2])
	add(&s[3])
	_, _ = pop()
	add(&s[2])
	_, more = pop()
	require.True(t, more, "in the part that producers add to")
	add(&s[3])
	l.close()
	l.close()
	require.False(t, l.push(&s[0]), "shut")
	require.True(t, l.any(), "what waits stays")
	require.False(t, l.aborted)
	first = l.drain(true)
	require.Same(t, &s[2], first, "oldest first")
	require.Same(t, &s[3], first.next)
	require.Nil(t, first.next.next)
	require.True(t, l.aborted)
	require.False(t, l.any())
	require.False(t, l.push(&s[0]), "still shut")
	got, _ = pop()
	require.Nil(t, got)
}

// TestGeneration: a visit takes what waited when it came, and what was moved together with it, and
// leaves what came later, also if another worker has moved that.
func TestGeneration(t *testing.T) {
	var l runList
	var s [6]Strand
	var cur atomic.Pointer[Strand]
	for i := range 3 {
		require.True(t, l.push(&s[i]))
	}
	mine := visit{arrived: true}
	got, _ := l.pop(&mine, &cur)
	require.Same(t, &s[0], got)
	require.True(t, l.push(&s[3]))
	other := visit{arrived: true}
	got, _ = l.pop(&other, &cur)
	require.Same(t, &s[1], got, "a worker that joins takes from what is there")
	got, _ = l.pop(&mine, &cur)
	require.Same(t, &s[2], got)
	got, _ = l.pop(&mine, &cur)
	require.Nil(t, got, "the next generation is for those who come anew")
	other = visit{arrived: true}
	require.True(t, l.push(&s[4]))
	got, _ = l.pop(&other, &cur)
	require.Same(t, &s[3], got)
	got, _ = l.pop(&mine, &cur)
	require.Nil(t, got, "also if another worker has begun it")
	mine = visit{arrived: true}
	got, _ = l.pop(&mine, &cur)
	require.Same(t, &s[4], got)
	require.False(t, l.any())
}
