// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Kinds of targets.
const (
	// KindRatio compares ours with the best of the named peers in the same case.
	KindRatio = "ratio"
	// KindLimit compares ours with a number, or with a subject's median plus a number.
	KindLimit = "limit"
)

// Target is one number that a module promises.
type Target struct {
	// Case is the name of a case of the module's family.
	Case string `json:"case"`
	// Metric is compared; empty means the case's unit.
	Metric string `json:"metric,omitempty"`
	// Name is how the verdict line calls it; empty means the case, followed by the metric if
	// there is one. Unique within the module.
	Name string `json:"name,omitempty"`
	// Kind is KindRatio or KindLimit.
	Kind string `json:"kind"`
	// Ours is the subject that is judged; empty means "ours".
	Ours string `json:"ours,omitempty"`
	// Best lists the peers of a ratio: the one with the smallest median is the baseline.
	Best []string `json:"best,omitempty"`
	// Plus names a subject whose median is added to the number of a limit.
	Plus string `json:"plus,omitempty"`
	// Target closes the promise; Aim is what the module is after and not looser than Target.
	Target float64 `json:"target"`
	Aim    float64 `json:"aim"`
	// Source says where the number was promised.
	Source Source `json:"source"`
}

// Source is the origin of a target, so that a target that was loosened can be seen.
type Source struct {
	// Where points to the document and the line.
	Where string `json:"where"`
	// Number is the one written there, in the unit of the target.
	Number float64 `json:"number"`
}

// Targets are all promises, by module.
type Targets map[string][]Target

// Label is the name on the verdict line.
func (t Target) Label() string {
	switch {
	case t.Name != "":
		return t.Name
	case t.Metric != "":
		return t.Case + "/" + t.Metric
	}
	return t.Case
}

// Subject is the judged subject.
func (t Target) Subject() string {
	if t.Ours == "" {
		return "ours"
	}
	return t.Ours
}

// Loosened reports whether the target is easier to reach than its source says.
func (t Target) Loosened() bool { return t.Target > t.Source.Number }

// ParseTargets reads the targets file. An unknown field is an error: a misspelt one would
// silently weaken a promise. So is everything that [Targets.check] finds.
func ParseTargets(file []byte) (Targets, error) {
	dec := json.NewDecoder(bytes.NewReader(file))
	dec.DisallowUnknownFields()
	var all Targets
	if err := dec.Decode(&all); err != nil {
		return nil, fmt.Errorf("targets: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("targets: more than one value in the file")
	}
	return all, all.check()
}

// check finds entries that could not be judged. A loosened target is not an error here: it is
// judged as short.
func (all Targets) check() error {
	for module, list := range all {
		seen := map[string]bool{}
		for i, t := range list {
			bad := func(what string) error {
				return fmt.Errorf("targets: %s entry %d (%s): %s", module, i, t.Label(), what)
			}
			switch {
			case t.Case == "" || strings.ContainsAny(t.Label()+t.Subject(), " \t\n"):
				return bad("case and names must be set and free of spaces")
			case seen[t.Label()]:
				return bad("two targets of one name")
			case t.Kind == KindRatio && (len(t.Best) == 0 || t.Target <= 0 || t.Plus != ""):
				return bad("a ratio needs peers and a positive target")
			case t.Kind == KindRatio && slices.Contains(t.Best, t.Subject()):
				return bad("compared with itself")
			case t.Kind == KindLimit && len(t.Best) > 0:
				return bad("a limit has no peers")
			case t.Kind != KindRatio && t.Kind != KindLimit:
				return bad("kind must be ratio or limit")
			case t.Aim > t.Target:
				return bad("the aim is looser than the target")
			case t.Source.Where == "":
				return bad("no source")
			}
			seen[t.Label()] = true
		}
	}
	return nil
}
