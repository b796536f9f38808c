// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Verdicts of a target.
const (
	OK    = "ok"
	Short = "short"
	Noise = "noise"
)

// Verdict is the judgement of one target.
type Verdict struct {
	// Line is the RATIO or LIMIT line, Verdict its last word.
	Line    string `json:"line"`
	Verdict string `json:"verdict"`
	// Reasons say why a target is short for another reason than its number.
	Reasons []string `json:"reasons,omitempty"`
}

// Judge compares what was measured with what the module promises.
func Judge(module string, targets []Target, results []CaseResult) []Verdict {
	verdicts := make([]Verdict, 0, len(targets))
	for _, t := range targets {
		j := judge{module: module, target: t}
		for i := range results {
			if results[i].Name == t.Case {
				j.result = &results[i]
			}
		}
		verdicts = append(verdicts, j.verdict())
	}
	return verdicts
}

// judge is the judgement of one target in progress.
type judge struct {
	module  string
	target  Target
	result  *CaseResult // nil when the case did not run
	reasons []string
}

func (j *judge) because(format string, args ...any) {
	j.reasons = append(j.reasons, fmt.Sprintf(format, args...))
}

func (j *judge) verdict() Verdict {
	t := j.target
	if j.result == nil {
		j.because("case %s did not run", t.Case)
	}
	if t.Loosened() {
		j.because("the target %s is looser than its source, %s (%s)", num(t.Target), num(t.Source.Number), t.Source.Where)
	}
	ours, have := j.series(t.Subject())
	if !have && j.result != nil {
		j.because("%s did not run", t.Subject())
	}
	if s := j.subject(t.Subject()); s != nil && len(s.Errors) > 0 {
		j.because("%s failed: %s", t.Subject(), firstLine(s.Errors[0].Message))
	}
	if t.Kind == KindLimit {
		return j.limit(ours, have)
	}
	return j.ratio(ours, have)
}

func (j *judge) ratio(ours Series, have bool) Verdict {
	t := j.target
	best, bestName := Series{}, ""
	for _, peer := range t.Best {
		series, ran := j.series(peer)
		if !ran {
			if s := j.subject(peer); j.result != nil && (s == nil || !s.failedInOwnWords()) {
				j.because("peer %s is missing", peer)
			}
			continue
		}
		if bestName == "" || series.Median < best.Median {
			best, bestName = series, peer
		}
	}
	if bestName == "" && j.result != nil {
		j.because("no peer to compare with")
	}
	word, ratio := Short, math.NaN()
	if have && bestName != "" {
		ratio = quotient(ours.Median, best.Median)
		word = OK
		if ratio > t.Target {
			word = Short
		}
		// A series that scatters more than what separates the ratio from the target proves
		// neither that it is met nor that it is missed.
		if math.Max(ours.Spread, best.Spread)*ratio > math.Abs(ratio-t.Target) {
			word = Noise
		}
	}
	if len(j.reasons) > 0 {
		word = Short
	}
	if bestName == "" {
		bestName, best.Median = "-", math.NaN()
	}
	line := fmt.Sprintf("RATIO %s/%s ours=%s best=%s:%s ratio=%s target=%s aim=%s %s",
		j.module, t.Label(), num(ours.Median), bestName, num(best.Median), num(ratio), num(t.Target), num(t.Aim), word)
	return Verdict{Line: line, Verdict: word, Reasons: j.reasons}
}

func (j *judge) limit(ours Series, have bool) Verdict {
	t := j.target
	limit, aim := t.Target, t.Aim
	if t.Plus != "" {
		base, ran := j.series(t.Plus)
		if !ran {
			j.because("%s did not run", t.Plus)
			base.Median = math.NaN()
		}
		limit += base.Median
		aim += base.Median
	}
	word := OK
	if !have || !(ours.Median <= limit) || len(j.reasons) > 0 {
		word = Short
	}
	line := fmt.Sprintf("LIMIT %s/%s ours=%s limit=%s aim=%s %s", j.module, t.Label(), num(ours.Median), num(limit), num(aim), word)
	return Verdict{Line: line, Verdict: word, Reasons: j.reasons}
}

// subject finds a subject's result, nil when the case has none of that name.
func (j *judge) subject(name string) *SubjectResult {
	if j.result == nil {
		return nil
	}
	for i := range j.result.Subjects {
		if j.result.Subjects[i].Name == name {
			return &j.result.Subjects[i]
		}
	}
	return nil
}

// series finds the compared metric of a subject.
func (j *judge) series(name string) (Series, bool) {
	s := j.subject(name)
	if s == nil {
		return Series{Median: math.NaN()}, false
	}
	metric := j.target.Metric
	if metric == "" {
		metric = j.result.Unit
	}
	for _, m := range s.Metrics {
		if m.Name == metric && len(m.Values) > 0 {
			return m.Series, true
		}
	}
	return Series{Median: math.NaN()}, false
}

// quotient is a/b where a cost of nothing equals a cost of nothing.
func quotient(a, b float64) float64 {
	if a == 0 && b == 0 {
		return 1
	}
	return a / b
}

// num prints a number with about four significant digits and never an exponent, so that a line
// can be read by people and by awk. What was not measured is "-".
func num(v float64) string {
	switch {
	case math.IsNaN(v):
		return "-"
	case math.IsInf(v, 0):
		return "inf"
	case v == 0 || math.Abs(v) >= 1000:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	digits := 3 - int(math.Floor(math.Log10(math.Abs(v))))
	s := strconv.FormatFloat(v, 'f', min(digits, 9), 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// firstLine cuts a message to what fits beside other things.
func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	if len(s) > 160 {
		s = s[:160] + "…"
	}
	return s
}
