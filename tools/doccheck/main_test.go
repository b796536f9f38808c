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

// hundred is as wide as a line may be, in runes, and can be broken.
const hundred = "ä-23456789 123456789 123456789 123456789 123456789 123456789 123456789 123456789 123456789 123456789"

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
	"lib/README.md":           strings.Repeat("line\n", 80),
	"bare/README.md":          strings.Repeat("line\n", 81),
	"docs/a.md":               "# A title, with: marks\n\n## Two\n",
	"docs/b.md":               "[ok](a.md) [ok](a.md#a-title-with-marks) [ok](../lib) [ok](#here) [ok](https://x.org/y)\n# Here\n",
	"docs/c.md":               "[gone](none.md)\n[gone](a.md#three) `m[k](v)`\n" + fence + "\n[not](alink)\n" + fence + "\n![gone](x.png)\n",
	"docs/d.md":               "see /tmp/x and example.org/work/y\nfrom proxy.example.org\n",
	"docs/path with blank.md": "fine\n",
	"docs/wide.md": hundred + " x\n" + hundred + "\n| " + hundred + " |\n- " + strings.Repeat("y", 120) + "\n" +
		fence + "\n" + hundred + " x\n" + fence + "\n",
	"old/wide.md": hundred + " x\n",
	"log.md":      hundred + " x\n",
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
	c := &checker{root: root, libraries: []string{"lib", "bare", "absent"}, hosts: []string{"proxy.example.org"},
		wide: []string{"old/", "log.md"}}
	c.run(files)
	var out strings.Builder
	if !c.report(&out) {
		t.Error("report: want true, there are findings")
	}
	want := []string{
		"absent/README.md: missing",
		"bare/README.md: 81 lines, at most 80",
		"bare: package bare has no package comment",
		"cmd/main.go:3: local path " + home + "/s",
		"docs/c.md:1: link none.md: no such file in the tree",
		"docs/c.md:2: link a.md#three: no such heading",
		"docs/c.md:6: link x.png: no such file in the tree",
		"docs/d.md:1: local path /tmp/",
		"docs/d.md:2: names the host proxy.example.org",
		"docs/wide.md:1: 102 columns, at most 100",
		"docs/wide.md:6: 102 columns, at most 100",
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

// Only what is too wide is broken, and never so that it reads as something else.
func TestWrap(t *testing.T) {
	a := func(n int) string { return strings.TrimSpace(strings.Repeat("aaaa ", n)) } // 5n-1 wide
	for _, c := range []struct{ name, in, want string }{
		{"narrow lines stay", "one\ntwo\n", "one\ntwo\n"},
		{"a paragraph", a(30) + "\nb\n\n" + a(3) + "\n", a(20) + "\n" + a(10) + " b\n\n" + a(3) + "\n"},
		{"a list", "- " + a(22) + "\n  b\n- c\n", "- " + a(19) + "\n  " + a(3) + " b\n- c\n"},
		{"a numbered list", "10. " + a(22) + "\n", "10. " + a(19) + "\n    " + a(3) + "\n"},
		{"inline code", a(19) + " `xy z` z\n", a(19) + "\n`xy z` z\n"},
		{"a table", "| " + a(30) + " |\n", "| " + a(30) + " |\n"},
		{"a heading", "# " + a(30) + "\n", "# " + a(30) + "\n"},
		{"a fence", fence + "\n" + a(30) + "\n" + fence + "\n", fence + "\n" + a(30) + "\n" + fence + "\n"},
		{"indented code", "x\n\n    " + a(30) + "\n", "x\n\n    " + a(30) + "\n"},
		{"a dash", a(20) + " - " + a(2) + "\n", a(19) + "\naaaa - " + a(2) + "\n"},
		{"a number", a(20) + " 7. " + a(2) + "\n", a(19) + "\naaaa 7. " + a(2) + "\n"},
	} {
		got := wrap(c.in)
		if got != c.want {
			t.Errorf("%s:\n%s\nwant:\n%s", c.name, got, c.want)
		}
		if again := wrap(got); again != got {
			t.Errorf("%s: a second time:\n%s", c.name, again)
		}
	}
}
