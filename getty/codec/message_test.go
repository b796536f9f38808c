// SPDX-License-Identifier: Apache-2.0

package codec_test

import (
	"testing"

	"github.com/gostkit/kit/getty/codec"
	"github.com/stretchr/testify/require"
)

func TestMessageIsWhatWasSent(t *testing.T) {
	var c codec.Message
	for _, want := range []string{"", "x", string(make([]byte, 70000))} {
		for _, pkg := range []any{want, []byte(want)} {
			b, err := c.AppendPkg([]byte("before"), nil, pkg)
			require.NoError(t, err)
			require.Equal(t, "before"+want, string(b))
		}
		pkg, n, err := c.Read(nil, []byte(want))
		require.NoError(t, err)
		require.Equal(t, len(want), n)
		f := pkg.(*codec.Frame)
		require.Equal(t, want, f.String())
		again, err := c.Write(nil, f)
		require.NoError(t, err)
		require.Equal(t, want, string(again))
		f.Release()
	}
	_, err := c.AppendPkg(nil, nil, 7)
	require.Error(t, err)
}
