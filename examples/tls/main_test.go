// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRun(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(&out))
	require.Equal(t, `alice: hello, alice (certificate 1) <nil>
nobody was refused: true
alice: hello, alice (certificate 3) <nil>
`, out.String())
}
