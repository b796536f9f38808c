// SPDX-License-Identifier: Apache-2.0

// Command compare measures this project's modules beside their peers and judges the result.
//
//	GOWORK=off go run -C bench ./cmd/compare -module NAME [-quick] [-count N] [-json FILE]
//
// It prints a table per case and, as its last lines, one RATIO or LIMIT line per target of
// bench/targets.json. The exit status is 1 only when the comparison itself failed, 2 for bad
// flags; a target that is short does not change it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gostkit/kit/bench"
	"github.com/gostkit/kit/bench/internal/family"
	"github.com/gostkit/kit/bench/internal/harness"
	"github.com/gostkit/kit/bench/internal/proc"
)

func main() {
	families := family.All()
	servers := map[string]proc.Server{}
	for _, f := range families {
		for name, s := range f.Servers {
			servers[name] = s
		}
	}
	proc.Main(servers) // does not return in a child process
	switch err := run(os.Args[1:], families, os.Stdout, os.Stderr); {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

// errUsage marks what the user asked for wrongly.
var errUsage = errors.New("bad usage")

// run is main without the process around it.
func run(args []string, families []harness.Family, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("compare", flag.ContinueOnError)
	fs.SetOutput(stderr)
	module := fs.String("module", "all", "family to run, or all")
	quick := fs.Bool("quick", false, "stay under a minute per family")
	count := fs.Int("count", 0, "number of interleaved rounds (0 means 9, with -quick 5)")
	jsonFile := fs.String("json", "", "also write every sample to this file")
	pattern := fs.String("case", "", "run only cases that match this regular expression; targets of others are left out")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if fs.NArg() > 0 || *count < 0 {
		return fmt.Errorf("%w: unexpected argument or negative count", errUsage)
	}
	options := harness.Options{Quick: *quick, Count: *count, Progress: stderr}
	if *pattern != "" {
		var err error
		if options.Case, err = regexp.Compile(*pattern); err != nil {
			return fmt.Errorf("%w: %w", errUsage, err)
		}
	}
	targets, err := harness.ParseTargets(bench.Targets)
	if err != nil {
		return err
	}
	modules, err := chosen(*module, families, targets)
	if err != nil {
		return err
	}
	report := harness.NewReport()
	fmt.Fprintf(stdout, "%s %s/%s, %d CPUs, %s\n", report.Go, report.OS, report.Arch, report.CPUs, time.Now().UTC().Format("2006-01-02 15:04 UTC"))
	for _, name := range modules {
		fr := harness.FamilyReport{Name: name}
		if i := slices.IndexFunc(families, func(f harness.Family) bool { return f.Name == name }); i >= 0 {
			fmt.Fprintf(stdout, "\n%s: %s\n", name, families[i].Doc)
			fr.Cases = harness.RunFamily(families[i], options)
		}
		list := targets[name]
		if options.Case != nil {
			list = slices.DeleteFunc(slices.Clone(list), func(t harness.Target) bool { return !options.Case.MatchString(t.Case) })
		}
		fr.Verdicts = harness.Judge(name, list, fr.Cases)
		harness.WriteTable(stdout, fr)
		report.Families = append(report.Families, fr)
	}
	if *jsonFile != "" {
		if err := writeJSON(*jsonFile, report); err != nil {
			return err
		}
	}
	harness.WriteVerdicts(stdout, report.Families)
	return nil
}

// chosen lists the modules to run: one, or all that have a family or a target. A module that has
// targets and no family is judged too: its targets are short.
func chosen(name string, families []harness.Family, targets harness.Targets) ([]string, error) {
	var all []string
	for _, f := range families {
		all = append(all, f.Name)
	}
	for module := range targets {
		if !slices.Contains(all, module) {
			all = append(all, module)
		}
	}
	slices.Sort(all[len(families):])
	if name == "all" {
		return all, nil
	}
	if !slices.Contains(all, name) {
		return nil, fmt.Errorf("%w: no module %q; there are %s", errUsage, name, strings.Join(all, ", "))
	}
	return []string{name}, nil
}

func writeJSON(file string, report *harness.Report) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := report.WriteJSON(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
