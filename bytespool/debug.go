// SPDX-License-Identifier: Apache-2.0

package bytespool

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// Leak is a buffer that was lent and not put back.
type Leak struct {
	// Size is the capacity in bytes.
	Size int

	// Stack is where the buffer was lent.
	Stack string

	// Collected says that nobody can put the buffer back any more: the garbage collector has it.
	Collected bool
}

// Leaks returns the buffers that were lent, by any Pool, and not put back, in the order in which
// they were lent. Buffers above the maximum of their Pool are not among them. In builds without
// the tag bytespooldebug it returns nil.
func Leaks() []Leak { return leaks() }

// Misuse is what a build with the tag bytespooldebug panics with.
type Misuse struct {
	// What says in words what went wrong.
	What string

	// Size is the capacity in bytes of the buffer.
	Size int

	// Got and Put are the stacks where the buffer was last lent and last put back. Got is empty
	// for an object of [Objects], Put is empty if the buffer is lent.
	Got, Put string
}

// Error returns a text of several lines that includes the stacks.
func (m *Misuse) Error() string {
	var s strings.Builder
	fmt.Fprintf(&s, "bytespool: %s (%d bytes)", m.What, m.Size)
	if m.Got != "" {
		fmt.Fprintf(&s, "\nlent at:\n%s", m.Got)
	}
	if m.Put != "" {
		fmt.Fprintf(&s, "\nput back at:\n%s", m.Put)
	}
	return s.String()
}

// VerifyTestMain runs the tests of a package and exits. Call it from TestMain:
//
//	func TestMain(m *testing.M) { bytespool.VerifyTestMain(m) }
//
// In builds with the tag bytespooldebug it makes a run fail that leaves buffers not put back or
// that wrote to a buffer after Put. In other builds it only runs the tests.
func VerifyTestMain(m interface{ Run() int }) {
	os.Exit(verify(m, os.Stderr, 2*time.Second))
}

// verify runs the tests, waits for missing buffers for at most patience, and reports.
func verify(m interface{ Run() int }, report io.Writer, patience time.Duration) int {
	code := m.Run()
	if code != 0 {
		return code // the failed test may well be why buffers are missing
	}
	// Goroutines that the tests have ended may be about to return their buffers.
	deadline := time.Now().Add(patience)
	for len(leaks()) > 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	for _, l := range leaks() {
		fmt.Fprintf(report, "bytespool: buffer not put back (%d bytes)\nlent at:\n%s", l.Size, l.Stack)
		code = 1
	}
	for _, m := range debugIdle() {
		fmt.Fprintln(report, m)
		code = 1
	}
	return code
}
