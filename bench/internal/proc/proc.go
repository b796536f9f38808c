// SPDX-License-Identifier: Apache-2.0

// Package proc runs servers and load generators as separate processes pinned to one CPU.
//
// The comparison executes itself again with a hidden mode: [Main], called first in main, takes
// over in the child. The parent writes commands to the child's standard input and reads lines of
// JSON from a pipe of their own: the child says once that it is ready, then answers one line per
// command; it ends when its standard input does, so it never outlives its parent. What a child
// prints is kept and becomes its message when it dies.
package proc

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// Server is the body of a child process. It reads its configuration with [Child.Config], calls
// [Child.Ready] once it serves, and returns when [Child.Commands] ends or with an error, which
// the parent sees as the child's own message.
type Server func(c *Child) error

// Environment variables by which a child knows what it is.
const (
	envName   = "GOSTKIT_BENCH_CHILD"
	envConfig = "GOSTKIT_BENCH_CONFIG"
)

// controlFD carries the child's answers. It is not standard output, because libraries log there.
const controlFD = 3

// Main runs the server that this process was started as and exits; it returns at once in the
// process that a user started.
func Main(servers map[string]Server) {
	name := os.Getenv(envName)
	if name == "" {
		return
	}
	server, ok := servers[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "bench: no server of the name %s\n", name)
		os.Exit(1)
	}
	control := os.NewFile(controlFD, "control")
	c := &Child{config: os.Getenv(envConfig), in: bufio.NewScanner(os.Stdin), out: json.NewEncoder(control)}
	c.in.Buffer(nil, 1<<20)
	if err := server(c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Child is the child's side of the control channel. Its methods belong to one goroutine.
type Child struct {
	config string
	in     *bufio.Scanner
	out    *json.Encoder
}

// Config decodes what the parent passed to [Start] into v.
func (c *Child) Config(v any) error { return json.Unmarshal([]byte(c.config), v) }

// Ready tells the parent that the server serves at addr ("" if it has none).
func (c *Child) Ready(addr string) error { return c.out.Encode(hello{Addr: addr}) }

// Commands answers the parent until it hangs up. The command "usage" is answered with a [Usage],
// "settle" too, after garbage was collected and given back to the system;
// any other goes to handle, whose result is sent as JSON; a nil handle knows none.
func (c *Child) Commands(handle func(command string) (any, error)) error {
	for c.in.Scan() {
		command := c.in.Text()
		var value any
		var err error
		switch {
		case command == "usage":
			value, err = self()
		case command == "settle":
			// Twice, because the first collection runs finalizers and empties pools by half.
			runtime.GC()
			runtime.GC()
			debug.FreeOSMemory()
			value, err = self()
		case handle == nil:
			err = fmt.Errorf("unknown command %q", command)
		default:
			value, err = handle(command)
		}
		a := answer{}
		if err != nil {
			a.Error = err.Error()
		} else if a.Value, err = json.Marshal(value); err != nil {
			a.Error = err.Error()
		}
		if err := c.out.Encode(a); err != nil {
			return err
		}
	}
	return nil
}

type hello struct {
	Addr string `json:"addr"`
}

type answer struct {
	Value json.RawMessage `json:"value,omitempty"`
	Error string          `json:"error,omitempty"`
}

// Usage is what a process has consumed since it began, and what it holds.
type Usage struct {
	User   time.Duration `json:"user"`
	System time.Duration `json:"system"`
	// Resident is the resident set in bytes.
	Resident int64 `json:"resident"`
	// Reads and Writes count read(2) and write(2) calls and their vector forms. Calls of the
	// recv and send families are not in them.
	Reads  int64 `json:"reads"`
	Writes int64 `json:"writes"`
	// Mallocs counts the allocations on the Go heap.
	Mallocs int64 `json:"mallocs"`
	// Goroutines is how many there are.
	Goroutines int `json:"goroutines"`
}

// CPU is user and system time together.
func (u Usage) CPU() time.Duration { return u.User + u.System }

// Sub returns what was consumed between an earlier usage and this one; what is held stays.
func (u Usage) Sub(earlier Usage) Usage {
	u.User -= earlier.User
	u.System -= earlier.System
	u.Reads -= earlier.Reads
	u.Writes -= earlier.Writes
	u.Mallocs -= earlier.Mallocs
	return u
}

// Process is the parent's side of a child. Its methods belong to one goroutine.
type Process struct {
	// Addr is where the child said it serves.
	Addr string
	// Name is what it was started as.
	Name string

	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan []byte // from the child; closed when it hung up
	tail  tail
	ended bool
}

// ErrTimeout is matched by errors of a child that did not answer in time.
var ErrTimeout = errors.New("no answer in time")

// Start runs the named server in a child that may use only the given CPU (counted modulo the
// machine's; negative means anywhere), with config as its configuration, and waits until it is
// ready. A *[DiedError] carries the child's own message.
func Start(name string, config any, cpu int, wait time.Duration) (*Process, error) {
	encoded, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &Process{Name: name, cmd: exec.Command(self), lines: make(chan []byte, 1)}
	p.cmd.Env = append(os.Environ(), envName+"="+name, envConfig+"="+string(encoded))
	p.cmd.Stdout, p.cmd.Stderr = &p.tail, &p.tail
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	control, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.cmd.ExtraFiles = []*os.File{theirs} // the first one is controlFD there
	err = startPinned(p.cmd, cpu)
	theirs.Close()
	if err != nil {
		control.Close()
		return nil, err
	}
	go func() { // ends when the child closes its end, at the latest by dying
		defer close(p.lines)
		defer control.Close()
		scan := bufio.NewScanner(control)
		scan.Buffer(nil, 1<<20)
		for scan.Scan() {
			p.lines <- append([]byte(nil), scan.Bytes()...)
		}
	}()
	var h hello
	line, err := p.receive(wait)
	if err == nil {
		err = json.Unmarshal(line, &h)
	}
	if err != nil {
		p.Stop()
		return nil, err
	}
	p.Addr = h.Addr
	return p, nil
}

// DiedError says how a child ended without being told to.
type DiedError struct {
	Name string
	// Message is what the child wrote to its standard error, beginning with the cause.
	Message string
}

// Error implements error.
func (e *DiedError) Error() string { return e.Name + " died: " + e.Message }

// receive waits for one line.
func (p *Process) receive(wait time.Duration) ([]byte, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case line, ok := <-p.lines:
		if !ok {
			return nil, p.died()
		}
		return line, nil
	case <-timer.C:
		return nil, fmt.Errorf("%s: %w", p.Name, ErrTimeout)
	}
}

// died collects the child's end.
func (p *Process) died() error {
	err := p.wait()
	message := p.tail.message()
	if message == "" {
		message = fmt.Sprintf("it said nothing (%v)", err)
	}
	return &DiedError{Name: p.Name, Message: message}
}

func (p *Process) wait() error {
	if p.ended {
		return nil
	}
	p.ended = true
	return p.cmd.Wait()
}

// Ask sends a command and decodes the answer into v, which may be nil.
func (p *Process) Ask(command string, v any, wait time.Duration) error {
	if _, err := io.WriteString(p.stdin, command+"\n"); err != nil {
		return p.died()
	}
	return p.Await(v, wait)
}

// Send sends a command whose answer [Process.Await] fetches later.
func (p *Process) Send(command string) error {
	if _, err := io.WriteString(p.stdin, command+"\n"); err != nil {
		return p.died()
	}
	return nil
}

// Await waits for the answer to the oldest command and decodes it into v, which may be nil.
func (p *Process) Await(v any, wait time.Duration) error {
	line, err := p.receive(wait)
	if err != nil {
		return err
	}
	var a answer
	if err := json.Unmarshal(line, &a); err != nil {
		return err
	}
	if a.Error != "" {
		return fmt.Errorf("%s: %s", p.Name, a.Error)
	}
	if v == nil {
		return nil
	}
	return json.Unmarshal(a.Value, v)
}

// Usage asks the child what it has consumed.
func (p *Process) Usage() (Usage, error) {
	var u Usage
	err := p.Ask("usage", &u, 10*time.Second)
	return u, err
}

// Settle asks the child what it holds once its garbage has been given back to the system.
func (p *Process) Settle() (Usage, error) {
	var u Usage
	err := p.Ask("settle", &u, 30*time.Second)
	return u, err
}

// Stop ends the child: it hangs up, and kills it when it has not ended after two seconds.
func (p *Process) Stop() {
	p.stdin.Close()
	timer := time.AfterFunc(2*time.Second, func() { p.cmd.Process.Kill() })
	for range p.lines {
	}
	p.wait()
	timer.Stop()
}

// tail keeps the beginning of what was written, where a panic's cause stands. Safe for
// concurrent use.
type tail struct {
	mu   sync.Mutex
	text []byte // guarded by mu, at most 64 KiB
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if room := 64<<10 - len(t.text); room > 0 {
		t.text = append(t.text, b[:min(room, len(b))]...)
	}
	return len(b), nil
}

// message picks the cause from what a dying process wrote: the panic or fatal line if there is
// one, else the last line.
func (t *tail) message() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(t.text)), "\n")
	for _, line := range lines {
		if strings.HasPrefix(line, "panic:") || strings.HasPrefix(line, "fatal error:") {
			return line
		}
	}
	return strings.TrimSpace(lines[len(lines)-1])
}
