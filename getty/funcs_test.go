// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"errors"
	"testing"

	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

func TestFuncs(t *testing.T) {
	var none getty.Funcs
	require.NoError(t, none.OnOpen(nil))
	none.OnMessage(nil, 1)
	none.OnCron(nil)
	none.OnError(nil, nil)
	none.OnClose(nil)

	var calls []string
	bad := errors.New("bad")
	all := getty.Funcs{
		Open:    func(getty.Session) error { calls = append(calls, "open"); return bad },
		Message: func(_ getty.Session, pkg any) { calls = append(calls, "message "+pkg.(string)) },
		Cron:    func(getty.Session) { calls = append(calls, "cron") },
		Error:   func(_ getty.Session, err error) { calls = append(calls, "error "+err.Error()) },
		Close:   func(getty.Session) { calls = append(calls, "close") },
	}
	require.Equal(t, bad, all.OnOpen(nil))
	all.OnMessage(nil, "a")
	all.OnCron(nil)
	all.OnError(nil, bad)
	all.OnClose(nil)
	require.Equal(t, []string{"open", "message a", "cron", "error bad", "close"}, calls)
}
