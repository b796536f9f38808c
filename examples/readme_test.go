// SPDX-License-Identifier: Apache-2.0

package examples_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var goBlock = regexp.MustCompile("(?s)```go\n(.*?)```")

// blocks returns the Go code that README.md shows: the program first, then a few
// lines for each module.
func blocks(t *testing.T) (hello string, snippets []string) {
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	for _, m := range goBlock.FindAllStringSubmatch(string(readme), -1) {
		if strings.Contains(m[1], "func main()") {
			require.Empty(t, hello, "README.md shows one program")
			hello = m[1]
		} else {
			snippets = append(snippets, m[1])
		}
	}
	return hello, snippets
}

// What README.md shows as a program is examples/hello, to the letter, so that it
// compiles and runs.
func TestReadmeHello(t *testing.T) {
	source, err := os.ReadFile("hello/main.go")
	require.NoError(t, err)
	hello, _ := blocks(t)
	_, program, found := strings.Cut(string(source), "\n\n") // the licence line
	require.True(t, found)
	require.Equal(t, program, hello)
}

// What a stranger reads first has at most 30 lines of code, without the imports, empty lines and
// comments.
func TestHelloIsShort(t *testing.T) {
	source, err := os.ReadFile("hello/main.go")
	require.NoError(t, err)
	_, code, found := strings.Cut(string(source), "\n)\n") // the imports end
	require.True(t, found)
	lines := regexp.MustCompile(`(?m)^\s*[^\s/].*$`).FindAllString(code, -1)
	require.LessOrEqual(t, len(lines), 30)
	require.Greater(t, len(lines), 15, "the lines are found")
}

// What README.md shows for each module is the body of a function in
// modules_test.go, so that it compiles, runs and prints what it should.
func TestReadmeSnippets(t *testing.T) {
	source, err := os.ReadFile("modules_test.go")
	require.NoError(t, err)
	var bodies []string
	for _, m := range regexp.MustCompile(`(?ms)^func Example_\w+\(\) \{\n(.*?)\n\n\t// Output:`).FindAllStringSubmatch(string(source), -1) {
		bodies = append(bodies, strings.ReplaceAll("\n"+m[1], "\n\t", "\n")[1:]+"\n")
	}
	_, snippets := blocks(t)
	require.Len(t, snippets, len(bodies), "one snippet for each example")
	for _, s := range snippets {
		require.Contains(t, bodies, s)
	}
}

// What a page of docs shows as Go is part of a test of this package, so that it compiles and runs.
func TestSnippetsOfDocs(t *testing.T) {
	for page, source := range map[string]string{
		"migrating": "migrating_test.go",
		"operating": "operating_test.go",
		"sessions":  "sessions_test.go",
	} {
		text, err := os.ReadFile("../docs/" + page + ".md")
		require.NoError(t, err)
		code, err := os.ReadFile(source)
		require.NoError(t, err)
		snippets := goBlock.FindAllStringSubmatch(string(text), -1)
		require.NotEmpty(t, snippets)
		for _, s := range snippets {
			require.Contains(t, string(code), s[1])
		}
	}
}
