// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxColumns is how wide a source line of a document may be, so that a difference
// shows the sentence that changed and not a paragraph. Rows of tables cannot be
// broken and are left out.
const maxColumns = 100

var (
	// The marker of a list item or a quotation, with what follows up to the text.
	marker = regexp.MustCompile(`^\s*([-*+]|\d+[.)])\s+`)
	// A word that would mean something else at the start of a line.
	atLineStart = regexp.MustCompile(`^([-*+>=|]|#+|\d+[.)]|` + "```" + `.*)$`)
)

// columns reports the lines of a document that are too wide.
func (c *checker) columns(name, text string) {
	for i, line := range strings.Split(text, "\n") {
		if n := utf8.RuneCountInString(line); n > maxColumns && !tableRow(line) && breakable(line) {
			c.addf("%s:%d: %d columns, at most %d", name, i+1, n, maxColumns)
		}
	}
}

// isWide reports whether the width of a document is not looked at.
func (c *checker) isWide(name string) bool {
	return slices.ContainsFunc(c.wide, func(w string) bool {
		return name == w || strings.HasSuffix(w, "/") && strings.HasPrefix(name, w)
	})
}

func tableRow(line string) bool { return strings.HasPrefix(strings.TrimSpace(line), "|") }

// breakable reports whether a line has a place to break it: a long link has none.
func breakable(line string) bool { return len(words(marker.ReplaceAllString(line, ""))) > 1 }

// wrapFile rewrites a document with the paragraphs broken that columns reports.
func (c *checker) wrapFile(name string) {
	text, ok := c.read(name)
	if !ok {
		return
	}
	full := filepath.Join(c.root, filepath.FromSlash(name))
	if wrapped := wrap(text); wrapped != text {
		if err := os.WriteFile(full, []byte(wrapped), 0o644); err != nil {
			c.addf("%s: %v", name, err)
		}
	}
}

// wrap breaks anew the paragraphs and list items of a document that have a line of
// more than maxColumns. All else stays as it is: fences, tables, headings, indented
// code, and paragraphs that are narrow enough.
func wrap(text string) string {
	lines := strings.Split(text, "\n")
	plain := prose(text)
	var out []string
	for i := 0; i < len(lines); {
		if !flowing(lines[i], plain[i]) {
			out = append(out, lines[i])
			i++
			continue
		}
		end := i + 1
		for end < len(lines) && flowing(lines[end], plain[end]) && !marker.MatchString(lines[end]) {
			end++
		}
		out = append(out, paragraph(lines[i:end])...)
		i = end
	}
	return strings.Join(out, "\n")
}

// flowing reports whether a line is text whose breaks mean nothing. plain is the line
// as prose returns it, which is empty inside a fence.
func flowing(line, plain string) bool {
	trimmed := strings.TrimSpace(plain)
	return trimmed != "" && !tableRow(line) && !strings.HasPrefix(trimmed, "#") &&
		!strings.HasPrefix(trimmed, "<") && !strings.HasPrefix(trimmed, ">") &&
		(marker.MatchString(line) || !strings.HasPrefix(line, "    "))
}

// paragraph breaks one paragraph or list item.
func paragraph(lines []string) []string {
	wide := false
	for _, line := range lines {
		wide = wide || utf8.RuneCountInString(line) > maxColumns
	}
	if !wide {
		return lines
	}
	first := marker.FindString(lines[0])
	indent := strings.Repeat(" ", len(first))
	if first == "" { // a paragraph, perhaps inside of a list item
		first = lines[0][:len(lines[0])-len(strings.TrimLeft(lines[0], " "))]
		indent = first
	}
	text := strings.TrimPrefix(lines[0], first)
	for _, line := range lines[1:] {
		text += " " + strings.TrimSpace(line)
	}
	var out []string
	var line []string
	width := len(first)
	flush := func() {
		start := indent
		if len(out) == 0 {
			start = first
		}
		out = append(out, start+strings.Join(line, " "))
		line, width = nil, len(indent)
	}
	for _, word := range words(text) {
		n := utf8.RuneCountInString(word)
		if len(line) > 0 && width+n > maxColumns {
			// Not before a word that would begin a list or a heading there.
			var carried []string
			for len(line) > 1 && atLineStart.MatchString(word) {
				carried = append([]string{word}, carried...)
				word, line = line[len(line)-1], line[:len(line)-1]
			}
			flush()
			line = append([]string{word}, carried...)
			for _, w := range line {
				width += utf8.RuneCountInString(w) + 1
			}
			continue
		}
		line = append(line, word)
		width += n + 1
	}
	if len(line) > 0 {
		flush()
	}
	return out
}

// words splits text at blanks, but not inside inline code.
func words(text string) []string {
	var all []string
	open := false
	for _, field := range strings.Fields(text) {
		if open {
			all[len(all)-1] += " " + field
		} else {
			all = append(all, field)
		}
		if strings.Count(field, "`")%2 == 1 {
			open = !open
		}
	}
	return all
}
