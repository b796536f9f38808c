// SPDX-License-Identifier: Apache-2.0

// Command doccheck reports what is wrong with the project's documents: exported
// names without a doc comment, links that lead nowhere, paths and hosts of the
// machine a document was written on, lines of documents that are too wide, and
// READMEs that grew too long.
//
// Usage: doccheck [-libraries a,b] [-hosts h,i] [-wide x,y/] [-wrap] [ROOT]
//
// With -wrap it first breaks the paragraphs that are too wide.
//
// It prints one line per finding and exits with status 1 if there was one. Only
// the parser is used, so nothing needs to build.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
)

func main() {
	libraries := flag.String("libraries", "", "directories of the importable modules, comma separated")
	hosts := flag.String("hosts", "", "host names that no document may contain, comma separated")
	wide := flag.String("wide", "", "documents, or directories ending in /, whose lines may be of any width, comma separated")
	wrap := flag.Bool("wrap", false, "rewrite paragraphs that are too wide, then check")
	flag.Parse()
	root := "."
	if flag.NArg() > 0 {
		root = flag.Arg(0)
	}
	files, err := tracked(root)
	if err != nil {
		fmt.Fprintln(os.Stderr, "doccheck:", err)
		os.Exit(2)
	}
	c := &checker{root: root, libraries: split(*libraries), hosts: split(*hosts), wide: split(*wide), wrap: *wrap}
	c.run(files)
	if c.report(os.Stdout) {
		os.Exit(1)
	}
}

// tracked lists the files of the tree that git knows or would add, relative to root.
func tracked(root string) ([]string, error) {
	cmd := exec.Command("git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git ls-files: %w", err)
	}
	var files []string
	for name := range strings.SplitSeq(string(out), "\x00") {
		// A file deleted but not yet committed is still listed.
		if _, err := os.Stat(filepath.Join(root, name)); name != "" && err == nil {
			files = append(files, name)
		}
	}
	return files, nil
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

// A checker collects findings. Paths in it are slash separated and relative to root.
type checker struct {
	root      string
	libraries []string
	hosts     []string
	wide      []string // prefixes of documents whose width is not checked
	wrap      bool
	findings  []string
	documents int
	names     int
}

func (c *checker) run(files []string) {
	packages := make(map[string][]string)
	for _, name := range files {
		switch {
		case strings.HasSuffix(name, ".md"):
			c.markdown(name)
		case strings.HasSuffix(name, ".go"):
			c.paths(name, goPaths)
			dir := filepath.ToSlash(filepath.Dir(name))
			if c.public(dir) && !strings.HasSuffix(name, "_test.go") {
				packages[dir] = append(packages[dir], name)
			}
		}
	}
	for dir, names := range packages {
		c.godoc(dir, names)
	}
	for _, lib := range c.libraries {
		c.readme(lib)
	}
}

// public reports whether dir belongs to a library and is importable from outside.
func (c *checker) public(dir string) bool {
	elements := strings.Split(dir, "/")
	for _, e := range elements {
		if e == "internal" || e == "testdata" {
			return false
		}
	}
	for _, lib := range c.libraries {
		if elements[0] == lib {
			return true
		}
	}
	return false
}

func (c *checker) addf(format string, args ...any) {
	c.findings = append(c.findings, fmt.Sprintf(format, args...))
}

// report prints what was found, in order, and reports whether there was anything.
func (c *checker) report(w io.Writer) bool {
	sort.Strings(c.findings)
	for _, f := range c.findings {
		fmt.Fprintln(w, f)
	}
	fmt.Fprintf(w, "%d documents, %d exported names, %d findings\n", c.documents, c.names, len(c.findings))
	return len(c.findings) > 0
}

func (c *checker) read(name string) (string, bool) {
	data, err := os.ReadFile(filepath.Join(c.root, filepath.FromSlash(name)))
	if err != nil {
		c.addf("%s: %v", name, err)
		return "", false
	}
	return string(data), true
}
