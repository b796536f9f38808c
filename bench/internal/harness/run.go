// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"runtime/debug"
	"time"

	"github.com/gostkit/kit/bench/internal/proc"
)

// Options say how a comparison is run.
type Options struct {
	// Quick keeps a family under a minute: shorter samples, and rounds are left out when the
	// time is up.
	Quick bool
	// Count is the number of rounds; zero means 9, or 5 in a quick run.
	Count int
	// Case runs only the cases whose names match; nil runs all.
	Case *regexp.Regexp
	// Progress gets a line now and then; nil discards it.
	Progress io.Writer
}

// Time limits.
const (
	quickSampling = 25 * time.Second // of a quick run spent measuring; set-up comes on top
	quickTotal    = 50 * time.Second // no round begins that would end later
	defaultSample = 200 * time.Millisecond
	sampleLimit   = 60 * time.Second // beyond its budget, before a subject is given up
	maxFailures   = 2                // then a subject is not tried again
)

// CaseResult is what a case yielded.
type CaseResult struct {
	Name     string          `json:"name"`
	Unit     string          `json:"unit"`
	Subjects []SubjectResult `json:"subjects"`
}

// SubjectResult is what a subject yielded over all rounds.
type SubjectResult struct {
	Name    string         `json:"name"`
	Version string         `json:"version,omitempty"`
	Metrics []MetricResult `json:"metrics,omitempty"`
	Errors  []Failure      `json:"errors,omitempty"`
}

// MetricResult is one metric of a subject over all rounds.
type MetricResult struct {
	Name string `json:"name"`
	Series
}

// Failure is one failed sample.
type Failure struct {
	Round   int    `json:"round"`
	Message string `json:"message"`
	// Own is true when the message is the subject's own.
	Own bool `json:"own"`
}

func (s *SubjectResult) failedInOwnWords() bool {
	for _, f := range s.Errors {
		if f.Own {
			return true
		}
	}
	return false
}

// entry is one subject of one case while it runs.
type entry struct {
	subject Subject
	run     Run
	rounds  int // it takes part in
	failed  int
	result  *SubjectResult
}

// RunFamily measures all cases of a family and returns one result per case that matched.
func RunFamily(f Family, o Options) []CaseResult {
	progress := o.Progress
	if progress == nil {
		progress = io.Discard
	}
	rounds := o.Count
	if rounds <= 0 {
		rounds = 9
		if o.Quick {
			rounds = 5
		}
	}
	var results []CaseResult
	for _, c := range f.Cases {
		if o.Case != nil && !o.Case.MatchString(c.Name) {
			continue
		}
		r := CaseResult{Name: c.Name, Unit: c.Unit, Subjects: make([]SubjectResult, len(c.Subjects))}
		results = append(results, r)
	}
	var cases [][]*entry
	for _, c := range f.Cases {
		if o.Case != nil && !o.Case.MatchString(c.Name) {
			continue
		}
		r := &results[len(cases)]
		var entries []*entry
		for i, s := range c.Subjects {
			r.Subjects[i] = SubjectResult{Name: s.Name, Version: version(s.Module)}
			budget := c.Sample
			if budget == 0 {
				budget = defaultSample
			}
			mine := rounds
			if o.Quick && c.Brief {
				mine = 1
			}
			entries = append(entries, &entry{subject: s, rounds: mine, run: Run{Quick: o.Quick, Budget: budget}, result: &r.Subjects[i]})
		}
		cases = append(cases, entries)
	}
	if o.Quick {
		shorten(cases)
	}
	start := time.Now()
	for round := range rounds {
		var next time.Duration // that the following round will take
		for ci, entries := range cases {
			for i := range entries {
				// The order turns, so that nobody always follows the same neighbour's mess.
				e := entries[(i+round)%len(entries)]
				if round%2 == 1 {
					e = entries[(2*len(entries)-1-i-round%len(entries))%len(entries)]
				}
				if e.failed >= maxFailures || round >= e.rounds {
					continue
				}
				e.run.Round = round
				fmt.Fprintf(progress, "%s round %d/%d %s %s\n", f.Name, round+1, rounds, results[ci].Name, e.subject.Name)
				began := time.Now()
				e.sample()
				if round+1 < e.rounds {
					next += time.Since(began)
				}
			}
		}
		if o.Quick && time.Since(start)+next > quickTotal {
			break
		}
	}
	for ci := range results {
		for si := range results[ci].Subjects {
			metrics := results[ci].Subjects[si].Metrics
			for mi := range metrics {
				metrics[mi].Series = summarise(metrics[mi].Values)
			}
		}
	}
	return results
}

// shorten scales the samples of a quick run down to the time there is.
func shorten(cases [][]*entry) {
	var total time.Duration
	for _, entries := range cases {
		for _, e := range entries {
			total += e.run.Budget * time.Duration(e.rounds)
		}
	}
	if total <= quickSampling {
		return
	}
	scale := float64(quickSampling) / float64(total)
	for _, entries := range cases {
		for _, e := range entries {
			e.run.Budget = max(time.Millisecond, time.Duration(float64(e.run.Budget)*scale))
		}
	}
}

// sample takes one sample and files it.
func (e *entry) sample() {
	s, err := e.measure()
	if err != nil {
		e.failed++
		e.result.Errors = append(e.result.Errors, Failure{Round: e.run.Round, Message: err.Error(), Own: ownWords(err)})
		return
	}
	for _, m := range s.metrics {
		found := false
		for i := range e.result.Metrics {
			if e.result.Metrics[i].Name == m.Name {
				e.result.Metrics[i].Values = append(e.result.Metrics[i].Values, m.Value)
				found = true
			}
		}
		if !found {
			e.result.Metrics = append(e.result.Metrics, MetricResult{Name: m.Name, Series: Series{Values: []float64{m.Value}}})
		}
	}
}

// measure calls the subject under a watchdog. A panic on its goroutine and the death of its
// process are its own words; silence is not. A subject that hangs keeps its goroutine: there is
// no way to stop it, and the harness says so instead of hanging too.
func (e *entry) measure() (Sample, error) {
	type outcome struct {
		s   Sample
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() {
			if p := recover(); p != nil {
				o.err = Failed("panic: %v", p)
				if _, runtimeError := p.(error); runtimeError {
					o.err = Failed("panic: %v\n%s", p, debug.Stack())
				}
			}
			done <- o
		}()
		o.s, o.err = e.subject.Measure(&e.run)
	}()
	timer := time.NewTimer(e.run.Budget + sampleLimit)
	defer timer.Stop()
	select {
	case o := <-done:
		var died *proc.DiedError
		if errors.As(o.err, &died) && !ownWords(o.err) {
			o.err = Failed("%s", died.Message)
		}
		return o.s, o.err
	case <-timer.C:
		e.failed = maxFailures
		return Sample{}, fmt.Errorf("did not end within %v", e.run.Budget+sampleLimit)
	}
}

// version finds the version of a module in this binary.
func version(module string) string {
	if module == "" {
		return ""
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, dep := range info.Deps {
		if dep.Path == module {
			return dep.Version
		}
	}
	return ""
}
