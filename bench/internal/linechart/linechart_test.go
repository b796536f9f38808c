// SPDX-License-Identifier: Apache-2.0

package linechart

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWrite: a chart is well-formed XML with a path for each line and no value outside of the
// picture.
func TestWrite(t *testing.T) {
	c := Chart{Title: "a < b", X: "x", Y: "y", LogX: true, Lines: []Line{
		{"one & two", []Point{{1, 3}, {10, 7}, {1000, 99}}},
		{"three", []Point{{1, 1}, {1000, 1}}},
	}}
	var b bytes.Buffer
	require.NoError(t, c.Write(&b))
	require.Contains(t, b.String(), `d="M64.0 323.1L`)
	require.NotContains(t, b.String(), "NaN")
	require.Equal(t, 2, strings.Count(b.String(), `fill="none"`))
	d := xml.NewDecoder(&b)
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
	}
}
