// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"runtime"
	"strings"
	"text/tabwriter"
)

// Report is one comparison in full, as the flag -json writes it.
type Report struct {
	Go       string         `json:"go"`
	OS       string         `json:"os"`
	Arch     string         `json:"arch"`
	CPUs     int            `json:"cpus"`
	Families []FamilyReport `json:"families"`
}

// FamilyReport is one family's part of a report.
type FamilyReport struct {
	Name     string       `json:"name"`
	Cases    []CaseResult `json:"cases"`
	Verdicts []Verdict    `json:"verdicts"`
}

// NewReport returns a report that knows its machine.
func NewReport() *Report {
	return &Report{Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.NumCPU()}
}

// WriteJSON writes the report.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	return enc.Encode(r)
}

// WriteTable prints one family: per case a row per subject with the median and the spread of what
// is compared, and the medians of what was measured beside it.
func WriteTable(w io.Writer, f FamilyReport) {
	for _, c := range f.Cases {
		fmt.Fprintf(w, "\n%s/%s\n", f.Name, c.Name)
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		names := metricNames(c)
		fmt.Fprintf(tw, "  subject\tversion\tn\t%s\tspread\t%s\n", c.Unit, strings.Join(names, "\t"))
		for _, s := range c.Subjects {
			if len(s.Metrics) > 0 {
				main := find(s, c.Unit)
				fmt.Fprintf(tw, "  %s\t%s\t%d\t%s\t±%.1f%%", s.Name, s.Version, len(main.Values), num(main.Median), main.Spread*50)
				for _, name := range names {
					fmt.Fprintf(tw, "\t%s", num(find(s, name).Median))
				}
				fmt.Fprintln(tw)
			} else if len(s.Errors) == 0 {
				fmt.Fprintf(tw, "  %s\t%s\t0\tdid not run\n", s.Name, s.Version)
			}
		}
		tw.Flush()
		for _, s := range c.Subjects {
			for _, e := range s.Errors {
				fmt.Fprintf(w, "  FAILED %s %s (round %d): %s\n", s.Name, s.Version, e.Round+1, firstLine(e.Message))
			}
		}
	}
}

// WriteVerdicts prints why targets are short for other reasons than their numbers, and then one
// line per target.
func WriteVerdicts(w io.Writer, families []FamilyReport) {
	fmt.Fprintln(w)
	for _, f := range families {
		for _, v := range f.Verdicts {
			words := strings.Fields(v.Line)
			for _, reason := range v.Reasons {
				fmt.Fprintf(w, "note %s: %s\n", words[1], reason)
			}
		}
	}
	for _, f := range families {
		for _, v := range f.Verdicts {
			fmt.Fprintln(w, v.Line)
		}
	}
}

// metricNames lists what a case measured beside its unit, in the order of appearance.
func metricNames(c CaseResult) []string {
	var names []string
	seen := map[string]bool{c.Unit: true}
	for _, s := range c.Subjects {
		for _, m := range s.Metrics {
			if !seen[m.Name] {
				seen[m.Name] = true
				names = append(names, m.Name)
			}
		}
	}
	return names
}

func find(s SubjectResult, metric string) MetricResult {
	for _, m := range s.Metrics {
		if m.Name == metric {
			return m
		}
	}
	return MetricResult{Name: metric, Series: Series{Median: math.NaN()}}
}
