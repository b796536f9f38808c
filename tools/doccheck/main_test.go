// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const fence = "```"

// home is in two parts, or this file would be a finding of its own.
const home = "/" + "root"

// tree is a small project with one of everything that doccheck reports, and
// beside each the form that is fine.
var tree = map[string]string{
	"lib/doc.go": "// Package lib is here.\npackage lib\n",
	"lib/lib.go": `package lib

// A is documented.
type A struct {
	// X is documented.
	X int
	Y int // Y is documented.
	V int // covered by the line above

	Z int
	z int
}

type B interface {
	// M is documented.
	M()

	N()
}

// Range explains Min and Max.
type Range struct{ Min, Max int }

const (
	Any Kind = iota // Any of the two
	One
	Two

	Three
)

// Kind is documented.
type Kind int

// Group comments count.
const (
	C = 1
	D = 2
)

var E = 1

func F() {}

// G is documented.
func G[T any]() {}

func (a *A) H() {}
func (a A) i()  {}

type hidden struct{}

func (hidden) J() {}

type List[T any] struct{} // List is documented.

func (*List[T]) K() {}
`,
	"lib/lib_test.go":         "package lib\n\nfunc Helper() {}\n",
	"lib/internal/in/in.go":   "package in\n\nfunc Free() {}\n",
	"bare/bare.go":            "package bare\n",
	"cmd/main.go":             "package main\n\n// reads " + home + "/secret\nfunc Exported() {}\n",
	"lib/README.md":           strings.Repeat("line\n", 60),
	"bare/README.md":          strings.Repeat("line\n", 61),
	"docs/a.md":               "# A title, with: marks\n\n## Two\n",
	"docs/b.md":               "[ok](a.md) [ok](a.md#a-title-with-marks) [ok](../lib) [ok](#here) [ok](https://x.org/y)\n# Here\n",
	"docs/c.md":               "[gone](none.md)\n[gone](a.md#three) `m[k](v)`\n" + fence + "\n[not](alink)\n" + fence + "\n![gone](x.png)\n",
	"docs/d.md":               "see /tmp/x and example.org/work/y\nfrom proxy.example.org\n",
	"docs/path with blank.md": "fine\n",
}

func TestFindings(t *testing.T) {
	root := t.TempDir()
	var files []string
	for name, text := range tree {
		full := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, name)
	}
	c := &checker{root: root, libraries: []string{"lib", "bare", "absent"}, hosts: []string{"proxy.example.org"}}
	c.run(files)
	var out strings.Builder
	if !c.report(&out) {
		t.Error("report: want true, there are findings")
	}
	want := []string{
		"absent/README.md: missing",
		"bare/README.md: 61 lines, at most 60",
		"bare: package bare has no package comment",
		"cmd/main.go:3: local path " + home + "/s",
		"docs/c.md:1: link none.md: no such file in the tree",
		"docs/c.md:2: link a.md#three: no such heading",
		"docs/c.md:6: link x.png: no such file in the tree",
		"docs/d.md:1: local path /tmp/",
		"docs/d.md:2: names the host proxy.example.org",
		"lib/lib.go:10: Z has no doc comment",
		"lib/lib.go:14: B has no doc comment",
		"lib/lib.go:18: N has no doc comment",
		"lib/lib.go:29: Three has no doc comment",
		"lib/lib.go:41: E has no doc comment",
		"lib/lib.go:43: F has no doc comment",
		"lib/lib.go:48: H has no doc comment",
		"lib/lib.go:57: K has no doc comment",
	}
	if !slices.Equal(c.findings, want) {
		t.Errorf("findings:\n%s\nwant:\n%s", strings.Join(c.findings, "\n"), strings.Join(want, "\n"))
	}
}
