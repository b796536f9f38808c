// SPDX-License-Identifier: Apache-2.0

package deflate

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/gostkit/kit/bytespool"
	"github.com/stretchr/testify/require"
)

// What was compressed is inflated again, at every level, and nothing else.
func TestDeflate(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	noise := make([]byte, 50_000)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	for _, p := range [][]byte{{}, []byte("x"), bytes.Repeat([]byte("abc"), 100_000), noise} {
		for level := Huffman; level <= Best; level++ {
			if level == 0 { // stored
				continue
			}
			packed := Append([]byte("before"), p, level)[6:]
			out, n, err := Inflate(packed, len(p))
			require.NoError(t, err)
			require.Equal(t, p, out[:n])
			bytespool.Put(out)
		}
		packed := Append(nil, p, Fastest)
		out, n, err := Inflate(packed, len(p))
		require.NoError(t, err)
		require.Equal(t, p, out[:n])
		require.LessOrEqual(t, len(packed), MaxSize(len(p)))
		if len(p) > 0 {
			_, _, err = Inflate(packed, len(p)-1)
			require.Equal(t, ErrTooBig, err)
		}
		for _, cut := range []int{1, 2, len(packed) / 2} {
			if cut < len(packed)-1 && len(p) > 1 {
				out, n, err := Inflate(packed[:len(packed)-cut], len(p))
				require.False(t, err == nil && bytes.Equal(out[:n], p))
			}
		}
	}
	// RFC 7692, sections 7.2.3.1 to 7.2.3.5.
	for packed, want := range map[string]string{
		"\xf2\x48\xcd\xc9\xc9\x07\x00":                         "Hello",
		"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00":         "Hello",
		"\xf3\x48\xcd\xc9\xc9\x07\x00\x00":                     "Hello",
		"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00": "Hello",
		"\x00": "",
	} {
		out, n, err := Inflate([]byte(packed), 100)
		require.NoError(t, err, "%q", packed)
		require.Equal(t, want, string(out[:n]))
	}
	_, _, err := Inflate([]byte("\xf3\x48\xcd\xc9\xc9\x07\x00\x01\x02"), 100)
	require.ErrorContains(t, err, "behind the final block")
	_, _, err = Inflate([]byte("\xff\xff\xff\xff"), 100)
	require.Error(t, err)
}
