// SPDX-License-Identifier: Apache-2.0

// Package harness runs comparisons of this project with its peers and judges them.
//
// A Family is one module's comparison: cases, each with several subjects that do the same work.
// A subject is measured once per round, rounds interleave all subjects of all cases, and the
// order turns from round to round, so that a slow minute of the machine hits everyone. What is
// compared is the median over the rounds; the spread is printed beside it and decides whether a
// verdict is more than noise.
//
// Everything compared is a cost: smaller is better.
//
// The package is not safe for concurrent use: one comparison owns the machine.
package harness

import (
	"errors"
	"fmt"
	"time"

	"github.com/gostkit/kit/bench/internal/proc"
)

// Family is the comparison of one module with its peers.
type Family struct {
	// Name is the module's name as the flag -module and the targets file spell it.
	Name string
	// Doc says in one line what is measured and how.
	Doc string
	// Cases are run in this order within a round.
	Cases []Case
	// Servers are the bodies of separate processes, by a name that is unique among all
	// families. See package proc. Nil when everything runs in one process.
	Servers map[string]proc.Server
}

// Case is one piece of work that several subjects do.
type Case struct {
	// Name identifies the case within its family: lower case, no spaces, `key=value` parts
	// separated by slashes.
	Name string
	// Unit is the name of the metric that is compared when a target names none, such as "ns/op".
	Unit string
	// Sample is how long one sample should take in a full run; zero means 200 ms. A quick run
	// shortens it for all cases alike.
	Sample time.Duration
	// Brief limits the case to one round in a quick run: for samples that cannot be shortened and
	// whose targets are far from their noise.
	Brief bool
	// Subjects are ours and the peers.
	Subjects []Subject
}

// Subject is one participant of a case.
type Subject struct {
	// Name identifies the subject in tables and targets: lower case, no spaces. Ours begins
	// with "ours".
	Name string
	// Module is the path of the Go module behind it; the table prints its version. Empty for
	// the standard library and for ours.
	Module string
	// Measure takes one sample. It sets up, works for about r.Budget, tears down, and returns
	// what it cost. The harness calls it once per round.
	Measure func(r *Run) (Sample, error)
}

// Run is what a subject is told about the sample it takes.
type Run struct {
	// Quick is true in a run that must end within a minute.
	Quick bool
	// Round counts from zero.
	Round int
	// Budget is how long the measured part should take.
	Budget time.Duration

	state any
}

// Sample is what one measurement yields: named costs. The first one named like the case's Unit
// is what targets compare by default.
type Sample struct {
	metrics []Metric
}

// Metric is one named number of a sample.
type Metric struct {
	Name  string
	Value float64
}

// Add appends a named number and returns the sample, so that calls can be chained.
func (s Sample) Add(name string, value float64) Sample {
	s.metrics = append(s.metrics, Metric{Name: name, Value: value})
	return s
}

// Metrics returns the numbers in the order they were added. The caller must not change them.
func (s Sample) Metrics() []Metric { return s.metrics }

// PeerError is the failure of a subject in its own words: a panic, an error it returned, the
// standard error of a process that died. A peer that failed this way is reported and left out of
// the baseline; a peer that is absent for any other reason makes the target short.
type PeerError struct {
	// Message is what the peer said.
	Message string
}

// Error implements error.
func (e *PeerError) Error() string { return e.Message }

// Failed returns a *PeerError with a formatted message.
func Failed(format string, args ...any) error {
	return &PeerError{Message: fmt.Sprintf(format, args...)}
}

// ownWords reports whether err is a failure in the subject's own words.
func ownWords(err error) bool {
	var pe *PeerError
	return errors.As(err, &pe) && pe.Message != ""
}
