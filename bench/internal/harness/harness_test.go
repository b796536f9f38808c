// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"bytes"
	"errors"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gostkit/kit/bench"
)

func TestSummarise(t *testing.T) {
	for _, tt := range []struct {
		values         []float64
		median, spread float64
	}{
		{[]float64{7}, 7, 0},
		{[]float64{1, 3}, 2, 0.5},
		{[]float64{5, 1, 3}, 3, 2.0 / 3},
		{[]float64{4, 1, 3, 2}, 2.5, 0.6},
		{[]float64{100, 1, 1, 1, 1}, 1, 0}, // one outlier moves neither
	} {
		s := summarise(tt.values)
		require.InDelta(t, tt.median, s.Median, 1e-12, "%v", tt.values)
		require.InDelta(t, tt.spread, s.Spread, 1e-12, "%v", tt.values)
	}
	require.True(t, math.IsNaN(summarise(nil).Median))
}

func TestNum(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 1.2: "1.2", 0.0666: "0.0666", 12345.6: "12346", 0.38123: "0.3812", 9000: "9000",
		999.96: "1000", 1e-7: "0.0000001", 57.25: "57.25", 100: "100", -2.5: "-2.5",
	} {
		require.Equal(t, want, num(v))
	}
	require.Equal(t, "-", num(math.NaN()))
	require.Equal(t, "inf", num(math.Inf(1)))
}

// subject builds a result from plain values in the unit "us".
func subject(name string, values ...float64) SubjectResult {
	return SubjectResult{Name: name, Metrics: []MetricResult{{Name: "us", Series: summarise(values)}}}
}

func failed(name, message string, own bool) SubjectResult {
	return SubjectResult{Name: name, Errors: []Failure{{Message: message, Own: own}}}
}

func TestJudgeLines(t *testing.T) {
	ratio := Target{Case: "echo", Kind: KindRatio, Best: []string{"net", "gnet"}, Target: 1.2, Aim: 1.05, Source: Source{Where: "x", Number: 1.2}}
	limit := Target{Case: "echo", Kind: KindLimit, Target: 6.5, Aim: 4.5, Source: Source{Where: "x", Number: 6.5}}
	loose := ratio
	loose.Target = 1.3
	plus := limit
	plus.Plus = "net"
	named := ratio
	named.Name, named.Ours, named.Best = "echo/one", "ours-one", []string{"gnet"}
	for _, tt := range []struct {
		name     string
		target   Target
		subjects []SubjectResult
		line     string
		reason   string // part of one of the reasons; "" for none
	}{
		{"met, best of two", ratio, []SubjectResult{subject("ours", 1.1), subject("net", 2), subject("gnet", 1)},
			"RATIO m/echo ours=1.1 best=gnet:1 ratio=1.1 target=1.2 aim=1.05 ok", ""},
		{"missed", ratio, []SubjectResult{subject("ours", 2), subject("net", 1), subject("gnet", 4)},
			"RATIO m/echo ours=2 best=net:1 ratio=2 target=1.2 aim=1.05 short", ""},
		{"exactly met", ratio, []SubjectResult{subject("ours", 1.2), subject("net", 1), subject("gnet", 4)},
			"RATIO m/echo ours=1.2 best=net:1 ratio=1.2 target=1.2 aim=1.05 ok", ""},
		{"missed within the noise of ours", ratio, []SubjectResult{subject("ours", 1.1, 1.3, 1.5), subject("net", 1), subject("gnet", 4)},
			"RATIO m/echo ours=1.3 best=net:1 ratio=1.3 target=1.2 aim=1.05 noise", ""},
		{"met within the noise of the best", ratio, []SubjectResult{subject("ours", 1.1), subject("net", 0.8, 1, 1.2), subject("gnet", 4)},
			"RATIO m/echo ours=1.1 best=net:1 ratio=1.1 target=1.2 aim=1.05 noise", ""},
		{"noise of a peer that is not the best is nobody's business", ratio, []SubjectResult{subject("ours", 1.1), subject("net", 1), subject("gnet", 2, 4, 8)},
			"RATIO m/echo ours=1.1 best=net:1 ratio=1.1 target=1.2 aim=1.05 ok", ""},
		{"missing peer", ratio, []SubjectResult{subject("ours", 1), subject("net", 1)},
			"RATIO m/echo ours=1 best=net:1 ratio=1 target=1.2 aim=1.05 short", "peer gnet is missing"},
		{"peer that failed in its own words", ratio, []SubjectResult{subject("ours", 1), subject("net", 1), failed("gnet", "panic: boom", true)},
			"RATIO m/echo ours=1 best=net:1 ratio=1 target=1.2 aim=1.05 ok", ""},
		{"peer that only was silent", ratio, []SubjectResult{subject("ours", 1), subject("net", 1), failed("gnet", "no answer", false)},
			"RATIO m/echo ours=1 best=net:1 ratio=1 target=1.2 aim=1.05 short", "peer gnet is missing"},
		{"no peer at all", ratio, []SubjectResult{subject("ours", 1), failed("net", "x", true), failed("gnet", "x", true)},
			"RATIO m/echo ours=1 best=-:- ratio=- target=1.2 aim=1.05 short", "no peer to compare with"},
		{"ours is missing", ratio, []SubjectResult{subject("net", 1), subject("gnet", 1)},
			"RATIO m/echo ours=- best=net:1 ratio=- target=1.2 aim=1.05 short", "ours did not run"},
		{"ours failed once", ratio, []SubjectResult{{Name: "ours", Metrics: subject("ours", 1).Metrics, Errors: []Failure{{Message: "bad echo"}}}, subject("net", 1), subject("gnet", 1)},
			"RATIO m/echo ours=1 best=net:1 ratio=1 target=1.2 aim=1.05 short", "ours failed: bad echo"},
		{"looser than its source", loose, []SubjectResult{subject("ours", 1), subject("net", 1), subject("gnet", 1)},
			"RATIO m/echo ours=1 best=net:1 ratio=1 target=1.3 aim=1.05 short", "looser than its source"},
		{"case did not run", ratio, nil,
			"RATIO m/echo ours=- best=-:- ratio=- target=1.2 aim=1.05 short", "case echo did not run"},
		{"named", named, []SubjectResult{subject("ours-one", 1), subject("gnet", 1)},
			"RATIO m/echo/one ours=1 best=gnet:1 ratio=1 target=1.2 aim=1.05 ok", ""},
		{"limit met", limit, []SubjectResult{subject("ours", 6.5)}, "LIMIT m/echo ours=6.5 limit=6.5 aim=4.5 ok", ""},
		{"limit missed", limit, []SubjectResult{subject("ours", 6.6)}, "LIMIT m/echo ours=6.6 limit=6.5 aim=4.5 short", ""},
		{"limit not run", limit, nil, "LIMIT m/echo ours=- limit=6.5 aim=4.5 short", "did not run"},
		{"limit over a base", plus, []SubjectResult{subject("ours", 26), subject("net", 20)}, "LIMIT m/echo ours=26 limit=26.5 aim=24.5 ok", ""},
		{"limit whose base is missing", plus, []SubjectResult{subject("ours", 1)}, "LIMIT m/echo ours=1 limit=- aim=- short", "net did not run"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var results []CaseResult
			if tt.subjects != nil {
				results = []CaseResult{{Name: "echo", Unit: "us", Subjects: tt.subjects}}
			}
			v := Judge("m", []Target{tt.target}, results)
			require.Len(t, v, 1)
			require.Equal(t, tt.line, v[0].Line)
			require.True(t, strings.HasSuffix(v[0].Line, " "+v[0].Verdict))
			reasons := strings.Join(v[0].Reasons, "; ")
			if tt.reason == "" {
				require.Empty(t, reasons)
			}
			require.Contains(t, reasons, tt.reason)
		})
	}
}

func TestParseTargetsRefuses(t *testing.T) {
	const good = `"case":"c","kind":"limit","target":1,"aim":1,"source":{"where":"w","number":1}`
	_, err := ParseTargets([]byte(`{"m":[{` + good + `}]}`))
	require.NoError(t, err)
	for name, file := range map[string]string{
		"not JSON":          `{"m":[`,
		"trailing":          `{} {}`,
		"unknown field":     `{"m":[{` + good + `,"tarqet":2}]}`,
		"no case":           `{"m":[{"kind":"limit","target":1,"aim":1,"source":{"where":"w","number":1}}]}`,
		"space in case":     strings.Replace(`{"m":[{`+good+`}]}`, `"c"`, `"c d"`, 1),
		"twice":             `{"m":[{` + good + `},{` + good + `}]}`,
		"unknown kind":      strings.Replace(`{"m":[{`+good+`}]}`, "limit", "bound", 1),
		"ratio, no peers":   strings.Replace(`{"m":[{`+good+`}]}`, "limit", "ratio", 1),
		"limit with peers":  `{"m":[{` + good + `,"best":["x"]}]}`,
		"ratio with itself": strings.Replace(`{"m":[{`+good+`,"best":["ours"]}]}`, "limit", "ratio", 1),
		"looser aim":        strings.Replace(`{"m":[{`+good+`}]}`, `"aim":1`, `"aim":2`, 1),
		"no source":         strings.Replace(`{"m":[{`+good+`}]}`, `"w"`, `""`, 1),
	} {
		_, err := ParseTargets([]byte(file))
		require.Error(t, err, name)
	}
}

// TestCheckedInTargets guards the file itself: it parses, and nothing in it was loosened.
func TestCheckedInTargets(t *testing.T) {
	all, err := ParseTargets(bench.Targets)
	require.NoError(t, err)
	for module, list := range all {
		for _, target := range list {
			require.False(t, target.Loosened(), "%s/%s: target %v, source %v", module, target.Label(), target.Target, target.Source)
		}
	}
}

func TestRunFamilyInterleaves(t *testing.T) {
	var order []string
	probe := func(c, name string) Subject {
		return Subject{Name: name, Measure: func(r *Run) (Sample, error) {
			order = append(order, c+name)
			return Sample{}.Add("us", float64(r.Round)).Add("extra", 1), nil
		}}
	}
	f := Family{Name: "f", Cases: []Case{
		{Name: "one", Unit: "us", Subjects: []Subject{probe("1", "a"), probe("1", "b"), probe("1", "c")}},
		{Name: "two", Unit: "us", Subjects: []Subject{probe("2", "a")}},
	}}
	results := RunFamily(f, Options{Count: 4})
	require.Equal(t, "1a1b1c2a"+"1b1a1c2a"+"1c1a1b2a"+"1c1b1a2a", strings.Join(order, ""))
	require.Len(t, results, 2)
	for _, s := range results[0].Subjects {
		require.Equal(t, []float64{0, 1, 2, 3}, s.Metrics[0].Values)
		require.Equal(t, 1.5, s.Metrics[0].Median)
	}
	order = nil
	f.Cases[1].Brief = true
	RunFamily(f, Options{Count: 2, Quick: true})
	require.Equal(t, "1a1b1c2a"+"1b1a1c", strings.Join(order, ""))
	order = nil
	results = RunFamily(f, Options{Count: 1, Case: regexp.MustCompile("two")})
	require.Equal(t, []string{"2a"}, order)
	require.Len(t, results, 1)
}

func TestRunFamilyFilesFailures(t *testing.T) {
	calls := map[string]int{}
	subject := func(name string, measure func() (Sample, error)) Subject {
		return Subject{Name: name, Measure: func(*Run) (Sample, error) { calls[name]++; return measure() }}
	}
	results := RunFamily(Family{Name: "f", Cases: []Case{{Name: "c", Unit: "us", Subjects: []Subject{
		subject("panics", func() (Sample, error) { panic("own words") }),
		subject("errs", func() (Sample, error) { return Sample{}, errors.New("the harness's words") }),
		subject("peer", func() (Sample, error) { return Sample{}, Failed("port %d taken", 7) }),
		subject("works", func() (Sample, error) { return Sample{}.Add("us", 1), nil }),
	}}}}, Options{Count: 5})
	s := results[0].Subjects
	require.Equal(t, map[string]int{"panics": 2, "errs": 2, "peer": 2, "works": 5}, calls)
	require.Equal(t, "panic: own words", s[0].Errors[0].Message)
	require.True(t, s[0].failedInOwnWords())
	require.False(t, s[1].failedInOwnWords())
	require.Equal(t, "port 7 taken", s[2].Errors[0].Message)
	require.True(t, s[2].failedInOwnWords())
	var table bytes.Buffer
	WriteTable(&table, FamilyReport{Name: "f", Cases: results})
	require.Contains(t, table.String(), "FAILED panics  (round 1): panic: own words")
	require.Contains(t, table.String(), "±0.0%")
}

func TestOpMeasures(t *testing.T) {
	var sink []byte
	s := Op("x", "", func(n int) {
		for range n {
			sink = make([]byte, 100<<10)
		}
	})
	r := &Run{Budget: 5 * time.Millisecond}
	for range 2 { // the second sample repeats the n of the first
		sample, err := s.Measure(r)
		require.NoError(t, err)
		m := sample.Metrics()
		require.Equal(t, "ns/op", m[0].Name)
		require.Positive(t, m[0].Value)
		require.Equal(t, "allocs/op", m[1].Name)
		require.InDelta(t, 1, m[1].Value, 0.5)
		require.InDelta(t, 104<<10, m[2].Value, 16<<10)
	}
	require.Len(t, sink, 100<<10)
	_, err := Prepared("x", "", func() (func(int), func(), error) { return nil, nil, errors.New("no") }).Measure(r)
	require.True(t, ownWords(err))
}

func TestVerdictsAreTheLastLines(t *testing.T) {
	var out bytes.Buffer
	WriteVerdicts(&out, []FamilyReport{
		{Name: "a", Verdicts: []Verdict{{Line: "RATIO a/x short", Verdict: Short, Reasons: []string{"why"}}}},
		{Name: "b", Verdicts: []Verdict{{Line: "LIMIT b/y ok", Verdict: OK}}},
	})
	require.Equal(t, "\nnote a/x: why\nRATIO a/x short\nLIMIT b/y ok\n", out.String())
}
