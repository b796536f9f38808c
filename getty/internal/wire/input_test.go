// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// playInput runs the operations that script describes on an Input and on a plain byte slice.
func playInput(t *testing.T, script []byte) {
	var in Input
	var model []byte
	next := byte(0)
	for len(script) >= 3 {
		op, x := script[0]%5, int(script[1])<<8|int(script[2])
		script = script[3:]
		switch op {
		case 0, 1: // a read of x bytes, as far as there is room
			if op == 1 {
				in.Need = in.Len() + x
			}
			buf := in.lease()
			require.Greater(t, len(buf), in.Len(), "a lease has room")
			limit := max(ReadSize, in.Len()+ReadSize, 2*in.Len()) * 2
			require.LessOrEqual(t, len(buf), limit, "no more than what arrived justifies")
			n := min(x, len(buf)-in.Len())
			if n == 0 {
				in.giveBack(buf)
				break
			}
			for i := range n {
				buf[in.Len()+i] = next
				model = append(model, next)
				next++
			}
			in.accept(buf, n)
		case 2:
			used := min(x, in.Len())
			in.Consume(used)
			model = model[used:]
		case 3:
			in.Rest()
			if len(model) == 0 {
				require.Zero(t, in.Held())
			}
		case 4:
			if x%16 == 0 {
				in.Drop()
				model = nil
			}
		}
		require.True(t, bytes.Equal(model, in.Bytes()), "content")
		require.Less(t, in.Held(), max(4*ReadSize, 8*len(model)+4*ReadSize))
	}
	in.Drop()
	require.Zero(t, in.Held())
}

func TestInput(t *testing.T) {
	for seed := range 200 {
		playInput(t, randomBytes(int64(seed), 3*100))
	}
}

func FuzzInput(f *testing.F) {
	f.Add([]byte{0, 255, 255, 2, 0, 1, 1, 200, 0, 0, 20, 20, 2, 255, 255, 3, 0, 0})
	f.Fuzz(playInput)
}

// A package that comes in drips is copied a bounded number of times, and what waits for its rest
// holds little more than itself.
func TestInputOfDrips(t *testing.T) {
	var in Input
	for i := range 4000 {
		buf := in.lease()
		buf[in.Len()] = byte(i)
		in.accept(buf, 1)
		in.Consume(0)
		require.LessOrEqual(t, in.Held(), max(128, 2*in.Len()+minReadRoom+4096), "after %d bytes", i)
	}
	in.Drop()
}
