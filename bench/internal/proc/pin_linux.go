// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// startPinned starts cmd so that all its threads may run only on cpu. A child inherits the
// affinity of the thread that forks it, so this thread moves there for the fork: pinning the
// child from within would miss the threads its runtime has already started, and its runtime would
// have counted the wrong number of CPUs.
func startPinned(cmd *exec.Cmd, cpu int) error {
	if cpu < 0 {
		return cmd.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("read CPU affinity: %w", err)
	}
	one.Set(nth(&before, cpu))
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("pin to CPU %d: %w", cpu, err)
	}
	err := cmd.Start()
	if e := unix.SchedSetaffinity(0, &before); err == nil && e != nil {
		err = fmt.Errorf("unpin: %w", e)
	}
	return err
}

// nth returns the i-th CPU of the set, modulo its size.
func nth(set *unix.CPUSet, i int) int {
	i %= set.Count()
	for cpu := 0; ; cpu++ {
		if set.IsSet(cpu) {
			if i == 0 {
				return cpu
			}
			i--
		}
	}
}

// self measures this process.
func self() (Usage, error) {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		return Usage{}, fmt.Errorf("getrusage: %w", err)
	}
	u := Usage{
		User:       time.Duration(r.Utime.Nano()),
		System:     time.Duration(r.Stime.Nano()),
		Goroutines: runtime.NumGoroutine(),
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u.Mallocs = int64(m.Mallocs)
	u.Resident = field("/proc/self/smaps_rollup", "Rss:") << 10 // exact, unlike the counters of status
	u.Reads = field("/proc/self/io", "syscr:")
	u.Writes = field("/proc/self/io", "syscw:")
	return u, nil
}

// field reads a number after a key in a file of /proc, zero when the kernel does not tell.
func field(file, key string) int64 {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(data) {
		if rest, ok := bytes.CutPrefix(line, []byte(key)); ok {
			words := bytes.Fields(rest)
			if len(words) == 0 {
				return 0
			}
			v, _ := strconv.ParseInt(string(words[0]), 10, 64)
			return v
		}
	}
	return 0
}
