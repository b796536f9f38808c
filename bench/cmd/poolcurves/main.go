// SPDX-License-Identifier: Apache-2.0

// Command poolcurves measures the curves of package taskpool and writes them as SVG.
//
//	GOWORK=off go run -C bench ./cmd/poolcurves -dir ../docs/img
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gostkit/kit/bench/internal/family/taskpool"
)

func main() {
	dir := flag.String("dir", ".", "directory to write to")
	flag.Parse()
	if err := run(*dir); err != nil {
		fmt.Fprintln(os.Stderr, "poolcurves:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	charts, err := taskpool.Curves()
	if err != nil {
		return err
	}
	for name, c := range charts {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		err = c.Write(f)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
		for _, l := range c.Lines {
			fmt.Printf("%s %s:", name, l.Name)
			for _, p := range l.Points {
				fmt.Printf(" %.4g=%.4g", p.X, p.Y)
			}
			fmt.Println()
		}
	}
	return nil
}
