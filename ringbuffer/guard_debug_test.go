// SPDX-License-Identifier: Apache-2.0

//go:build ringbufferdebug

package ringbuffer

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestGuard: a second goroutine on a side that belongs to one is found, and one that comes after
// the first has left is not.
func TestGuard(t *testing.T) {
	const message = "ringbuffer: two goroutines use the producer side of a single-producer buffer"
	q := NewSPSC[int](8)
	q.producer.enter("producer") // a producer is in the middle of TryPush
	require.PanicsWithValue(t, message, func() { _ = q.TryPush(1) })
	require.PanicsWithValue(t, message, func() { _, _ = q.PushN([]int{1}) })
	require.PanicsWithValue(t, message, func() { _ = q.Push(t.Context(), 1) })
	_, err := q.TryPop()
	require.Equal(t, ErrEmpty, err, "the other side is free")
	q.producer.leave()
	require.NoError(t, q.TryPush(1))

	q.consumer.enter("consumer")
	require.Panics(t, func() { _, _ = q.TryPop() })
	require.Panics(t, func() { _, _ = q.PopN(make([]int, 1)) })
	q.consumer.leave()

	m := NewMPSC[int](8)
	m.consumer.enter("consumer")
	require.Panics(t, func() { _, _ = m.TryPop() })
	require.Panics(t, func() { _, _ = m.PopN(make([]int, 1)) })

	b := NewBytes(8)
	b.writer.enter("writer")
	require.Panics(t, func() { _, _ = b.Write([]byte{1}) })
	require.Panics(t, func() { _, _, _ = b.WriteSlices() })
	b.reader.enter("reader")
	require.Panics(t, func() { _, _ = b.TryRead(make([]byte, 1)) })
	require.Panics(t, func() { _, _, _ = b.ReadSlices() })

	l, err := NewLinked(LinkedConfig{MaxBytes: 8})
	require.NoError(t, err)
	l.writer.enter("writer")
	require.Panics(t, func() { _, _ = l.Write([]byte{1}) })
	l.reader.enter("reader")
	require.Panics(t, func() { _, _ = l.Peek(1) })
	require.Panics(t, func() { _, _ = l.Until(1) })
}
