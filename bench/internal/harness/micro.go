// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"math"
	"runtime"
	"time"
)

// Op returns a subject that is measured as a plain loop in this process: op must do its work n
// times and return only when all of it is complete. It reports "ns/op", "allocs/op" and "B/op".
func Op(name, module string, op func(n int)) Subject {
	return Prepared(name, module, func() (func(int), func(), error) { return op, nil, nil })
}

// Prepared is [Op] with a set-up before each sample and a tear-down after it; neither is part of
// the measurement. done may be nil. An error or a panic of prepare or op is reported as the
// subject's own failure.
func Prepared(name, module string, prepare func() (op func(n int), done func(), err error)) Subject {
	return Subject{Name: name, Module: module, Measure: func(r *Run) (Sample, error) {
		op, done, err := prepare()
		if err != nil {
			return Sample{}, Failed("%v", err)
		}
		if done != nil {
			defer done()
		}
		// How many operations fill the budget is found once; later rounds repeat the same n,
		// so that costs which depend on n stay the same.
		n, _ := r.state.(int)
		if n == 0 {
			n = calibrate(op, r.Budget)
			r.state = n
		} else {
			op(1 + n/10)
		}
		return timed(op, n), nil
	}}
}

// calibrate finds the n for which op takes about budget. It doubles as the first warm-up.
func calibrate(op func(int), budget time.Duration) int {
	n := 1
	for {
		start := time.Now()
		op(n)
		took := time.Since(start)
		if took >= budget/8 {
			per := float64(took) / float64(n)
			return max(1, int(float64(budget)/per))
		}
		grow := 10.0
		if took > 0 {
			grow = math.Min(10, float64(budget/6)/float64(took))
		}
		n = max(n+1, int(float64(n)*grow))
	}
}

// timed runs op once with n and returns its cost per operation.
func timed(op func(int), n int) Sample {
	var before, after runtime.MemStats
	runtime.GC() // nobody pays for what the subject before left behind
	runtime.ReadMemStats(&before)
	start := time.Now()
	op(n)
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	per := func(v uint64) float64 { return math.Round(float64(v)/float64(n)*100) / 100 }
	return Sample{}.
		Add("ns/op", float64(took.Nanoseconds())/float64(n)).
		Add("allocs/op", per(after.Mallocs-before.Mallocs)).
		Add("B/op", per(after.TotalAlloc-before.TotalAlloc))
}

// Number returns a subject that measures one number itself, such as bytes per element. An error
// is reported as the subject's own failure.
func Number(name, module, metric string, measure func(r *Run) (float64, error)) Subject {
	return Subject{Name: name, Module: module, Measure: func(r *Run) (Sample, error) {
		v, err := measure(r)
		if err != nil {
			return Sample{}, Failed("%v", err)
		}
		return Sample{}.Add(metric, v), nil
	}}
}
