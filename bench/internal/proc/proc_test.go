// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMain makes this binary its own children.
func TestMain(m *testing.M) {
	Main(map[string]Server{
		"add": func(c *Child) error {
			var n int
			if err := c.Config(&n); err != nil {
				return err
			}
			fmt.Println("noise on standard output is not an answer")
			if err := c.Ready("somewhere"); err != nil {
				return err
			}
			return c.Commands(func(command string) (any, error) {
				switch command {
				case "add":
					n++
					return n, nil
				case "cpus":
					return runtime.NumCPU(), nil
				case "burn":
					for begin, err := self(); ; {
						now, _ := self()
						if err != nil || now.Sub(begin).CPU() >= 50*time.Millisecond {
							return nil, err
						}
					}
				case "die":
					fmt.Fprintln(os.Stderr, "some log line")
					panic("boom")
				case "hang":
					time.Sleep(time.Hour)
				}
				return nil, errors.New("what?")
			})
		},
		"refuse": func(*Child) error { return errors.New("port taken") },
	})
	os.Exit(m.Run())
}

const patience = 20 * time.Second

func TestConversation(t *testing.T) {
	p, err := Start("add", 41, -1, patience)
	require.NoError(t, err)
	defer p.Stop()
	require.Equal(t, "somewhere", p.Addr)
	var n int
	require.NoError(t, p.Ask("add", &n, patience))
	require.Equal(t, 42, n)
	require.ErrorContains(t, p.Ask("nonsense", nil, patience), "what?")
	require.NoError(t, p.Ask("add", &n, patience), "an error does not end the conversation")
	require.Equal(t, 43, n)
}

func TestUsageGrowsWithWork(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("usage is measured on Linux only")
	}
	p, err := Start("add", 0, -1, patience)
	require.NoError(t, err)
	defer p.Stop()
	before, err := p.Usage()
	require.NoError(t, err)
	require.NoError(t, p.Ask("burn", nil, patience))
	after, err := p.Usage()
	require.NoError(t, err)
	require.GreaterOrEqual(t, after.Sub(before).CPU(), 50*time.Millisecond)
	require.Positive(t, after.Resident)
	require.Positive(t, after.Mallocs)
	settled, err := p.Settle()
	require.NoError(t, err)
	require.Positive(t, settled.Goroutines)
}

func TestPinned(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("processes are pinned on Linux only")
	}
	// All children are forked by this thread, so that the last one sees if it was left pinned.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here := runtime.NumCPU()
	for cpu := range 3 { // also beyond the machine's last one
		p, err := Start("add", 0, cpu, patience)
		require.NoError(t, err)
		var n int
		require.NoError(t, p.Ask("cpus", &n, patience))
		require.Equal(t, 1, n)
		p.Stop()
	}
	p, err := Start("add", 0, -1, patience)
	require.NoError(t, err)
	defer p.Stop()
	var n int
	require.NoError(t, p.Ask("cpus", &n, patience))
	require.Equal(t, here, n, "the parent stays where it was")
}

func TestLastWords(t *testing.T) {
	p, err := Start("add", 0, -1, patience)
	require.NoError(t, err)
	defer p.Stop()
	err = p.Ask("die", nil, patience)
	var died *DiedError
	require.ErrorAs(t, err, &died)
	require.Equal(t, "panic: boom", died.Message)
	require.ErrorAs(t, p.Ask("add", nil, patience), &died)

	_, err = Start("refuse", 0, -1, patience)
	require.ErrorAs(t, err, &died)
	require.Equal(t, "port taken", died.Message)

	_, err = Start("nobody", 0, -1, patience)
	require.ErrorAs(t, err, &died)
}

func TestSilenceIsNotDeath(t *testing.T) {
	p, err := Start("add", 0, -1, patience)
	require.NoError(t, err)
	defer p.Stop()
	err = p.Ask("hang", nil, 20*time.Millisecond)
	require.ErrorIs(t, err, ErrTimeout)
	var died *DiedError
	require.False(t, errors.As(err, &died))
}
