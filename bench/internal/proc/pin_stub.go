// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package proc

import (
	"errors"
	"os/exec"
)

// startPinned cannot pin here: the child runs anywhere.
func startPinned(cmd *exec.Cmd, cpu int) error { return cmd.Start() }

// self has no portable way to read a process's system time.
func self() (Usage, error) { return Usage{}, errors.New("process usage is measured on Linux only") }
