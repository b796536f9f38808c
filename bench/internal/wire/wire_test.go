// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEchoTakesCompleteFrames(t *testing.T) {
	in := Append(Append(Append(nil, []byte("one")), nil), []byte("three"))
	for cut := range len(in) + 1 {
		out, used, err := Echo(nil, in[:cut])
		require.NoError(t, err)
		require.Equal(t, in[:used], append([]byte{}, out...), "cut at %d", cut)
		require.Contains(t, []int{0, 7, 11, 20}, used)
		rest, more, err := Echo(out, in[used:])
		require.NoError(t, err)
		require.Equal(t, len(in), used+more)
		require.True(t, bytes.Equal(in, rest))
	}
	_, _, err := Echo(nil, []byte{0xff, 0, 0, 0})
	require.ErrorIs(t, err, ErrTooLong)
}

func TestFillTellsPayloadsApart(t *testing.T) {
	seen := map[string]bool{}
	for _, size := range []int{16, 17, 64, 71} {
		for conn := range uint64(5) {
			for number := range uint64(20) {
				p := make([]byte, size)
				Fill(p, conn, number)
				require.False(t, seen[string(p)])
				seen[string(p)] = true
			}
		}
	}
	a, b := make([]byte, 71), make([]byte, 71)
	Fill(a, 1, 2)
	Fill(b, 1, 2)
	require.Equal(t, a, b)
}
