// SPDX-License-Identifier: Apache-2.0

package family

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gostkit/kit/bench"
	"github.com/gostkit/kit/bench/internal/harness"
)

// TestTargetsNameWhatExists catches a target whose case or peers are misspelt before a
// comparison reports them as missing.
func TestTargetsNameWhatExists(t *testing.T) {
	targets, err := harness.ParseTargets(bench.Targets)
	require.NoError(t, err)
	for _, f := range All() {
		cases := map[string]map[string]bool{}
		for _, c := range f.Cases {
			cases[c.Name] = map[string]bool{}
			for _, s := range c.Subjects {
				cases[c.Name][s.Name] = true
			}
		}
		for _, target := range targets[f.Name] {
			subjects := cases[target.Case]
			require.NotNil(t, subjects, "%s/%s: no such case", f.Name, target.Case)
			names := append([]string{target.Subject()}, target.Best...)
			if target.Plus != "" {
				names = append(names, target.Plus)
			}
			for _, name := range names {
				require.True(t, subjects[name], "%s/%s: no subject %s", f.Name, target.Case, name)
			}
		}
	}
}

// TestNames keeps names unique and fit for the verdict lines.
func TestNames(t *testing.T) {
	modules, servers := map[string]bool{}, map[string]bool{}
	for _, f := range All() {
		require.False(t, modules[f.Name], "two families %s", f.Name)
		modules[f.Name] = true
		require.NotEmpty(t, f.Doc, f.Name)
		cases := map[string]bool{}
		for _, c := range f.Cases {
			require.False(t, cases[c.Name], "%s: two cases %s", f.Name, c.Name)
			cases[c.Name] = true
			require.NotEmpty(t, c.Unit, "%s/%s", f.Name, c.Name)
			require.False(t, strings.ContainsAny(c.Name+c.Unit, " \t\n"), "%s/%s", f.Name, c.Name)
			subjects := map[string]bool{}
			for _, s := range c.Subjects {
				require.False(t, subjects[s.Name], "%s/%s: two subjects %s", f.Name, c.Name, s.Name)
				subjects[s.Name] = true
				require.False(t, strings.ContainsAny(s.Name, " \t\n:"), "%s/%s/%s", f.Name, c.Name, s.Name)
			}
		}
		for name := range f.Servers {
			require.False(t, servers[name], "two servers %s", name)
			servers[name] = true
		}
	}
}
