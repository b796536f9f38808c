// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/gostkit/kit/bench/internal/harness"
)

// beside asks 1 000 times in all while a reader is blocked on the connection, and counts what went
// wrong: an answer other than "alive", a query that did not return within two seconds (it waits for
// the reader), bytes that the reader missed, and a reset that the reader did not get as such. The
// subject fails in its own words if a query never returns.
func beside(name, module string, q question) harness.Subject {
	return harness.Number(name, module, "faults", func(r *harness.Run) (float64, error) {
		faults := 0.0
		for range 50 {
			f, err := oneReader(q, 20)
			faults += f
			if err != nil {
				return faults, err
			}
		}
		return faults, nil
	})
}

var errBlocked = errors.New("a query beside a blocked reader does not return")

func oneReader(q question, queries int) (faults float64, err error) {
	near, far, err := pair()
	if err != nil {
		return 0, err
	}
	defer near.Close()
	defer far.Close()
	ask, err := q(near)
	if err != nil {
		return 0, err
	}
	const size = 1000
	started, read := make(chan struct{}), make(chan error, 1)
	var total int
	go func() {
		b := make([]byte, 100)
		close(started)
		for {
			n, err := near.Read(b)
			total += n
			if err != nil {
				read <- err
				return
			}
		}
	}()
	<-started
	time.Sleep(200 * time.Microsecond) // the reader is parked

	answers := make(chan error, 1)
	go func() {
		for i := range queries {
			if ok, err := ask(); !ok || err != nil {
				answers <- errors.Join(errors.New("wrong answer"), err)
				return
			}
			if i%4 == 0 {
				far.Write(make([]byte, size/queries*4))
			}
		}
		answers <- nil
	}()
	select {
	case err := <-answers:
		if err != nil {
			faults++
		}
	case <-time.After(2 * time.Second):
		return 1, errBlocked
	}
	// More queries fall into the reset itself.
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				ask()
			}
		}
	}()
	deadline := time.Now().Add(2 * time.Second)
	for n := 1; n > 0 && time.Now().Before(deadline); { // all bytes are taken before the reset
		n = unread(near)
	}
	far.SetLinger(0)
	far.Close()
	rerr := <-read
	close(stop)
	<-stopped
	if rerr == io.EOF || !errors.Is(rerr, syscall.ECONNRESET) && !errors.Is(rerr, net.ErrClosed) {
		faults++
	}
	if total != size {
		faults++
	}
	return faults, nil
}
