// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// readmeLines is how long the README of a library may be, in lines of maxColumns:
// it is read as a whole or not at all.
const readmeLines = 80

var (
	// A link or an image: [text](target "title").
	link = regexp.MustCompile(`\]\(\s*<?([^)>\s]+)>?[^)]*\)`)
	// Inline code is cut out before links are looked for: m[k](v) is not one.
	code = regexp.MustCompile("`[^`]*`")

	// Absolute paths of somebody's machine. Source may say /tmp, documents may
	// not: a reader's commands run in the clone.
	documentPaths = regexp.MustCompile(`(^|[^\w./-])/(work|tmp|root|home|opt|Users)/`)
	goPaths       = regexp.MustCompile(`(^|[^\w./-])/(work|root|home|opt|Users)/\w`)
)

func (c *checker) markdown(name string) {
	c.documents++
	if c.wrap && !c.isWide(name) {
		c.wrapFile(name)
	}
	c.paths(name, documentPaths)
	text, ok := c.read(name)
	if !ok {
		return
	}
	if !c.isWide(name) {
		c.columns(name, text)
	}
	for i, line := range prose(text) {
		for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(line, ""), -1) {
			if problem := c.follow(name, m[1]); problem != "" {
				c.addf("%s:%d: link %s: %s", name, i+1, m[1], problem)
			}
		}
	}
}

// follow returns what is wrong with a link in document name, or "".
func (c *checker) follow(name, target string) string {
	if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
		return "" // other people's pages are not fetched
	}
	file, anchor, _ := strings.Cut(target, "#")
	to := name
	if file != "" {
		to = path.Join(path.Dir(name), file)
	}
	info, err := os.Stat(filepath.Join(c.root, filepath.FromSlash(to)))
	switch {
	case err != nil:
		return "no such file in the tree"
	case anchor == "" || info.IsDir():
		return ""
	}
	text, ok := c.read(to)
	if !ok {
		return "cannot be read"
	}
	for _, line := range prose(text) {
		if title := strings.TrimLeft(line, "#"); title != line && slug(title) == anchor {
			return ""
		}
	}
	return "no such heading"
}

// prose returns the lines of a document with those inside code fences emptied,
// so that line numbers stay right.
func prose(text string) []string {
	lines := strings.Split(text, "\n")
	fenced := false
	for i, line := range lines {
		fence := strings.HasPrefix(strings.TrimSpace(line), "```")
		if fenced || fence {
			lines[i] = ""
		}
		if fence {
			fenced = !fenced
		}
	}
	return lines
}

// slug is the anchor that code hosts give a heading: lower case, punctuation
// dropped, a hyphen for every space.
func slug(title string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r > 127:
			return r
		}
		return -1
	}, strings.ToLower(strings.TrimSpace(title)))
}

// paths reports lines that name a path or a host which only the author has.
func (c *checker) paths(name string, pattern *regexp.Regexp) {
	text, ok := c.read(name)
	if !ok {
		return
	}
	for i, line := range strings.Split(text, "\n") {
		if m := pattern.FindString(line); m != "" {
			c.addf("%s:%d: local path %s", name, i+1, strings.TrimSpace(m))
		}
		for _, host := range c.hosts {
			if strings.Contains(line, host) {
				c.addf("%s:%d: names the host %s", name, i+1, host)
			}
		}
	}
}

// readme reports a library without a README, or with one that is too long.
func (c *checker) readme(lib string) {
	name := lib + "/README.md"
	if _, err := os.Stat(filepath.Join(c.root, name)); err != nil {
		c.addf("%s: missing", name)
		return
	}
	text, ok := c.read(name)
	if n := strings.Count(text, "\n"); ok && n > readmeLines {
		c.addf("%s: %d lines, at most %d", name, n, readmeLines)
	}
}
