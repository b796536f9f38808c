// SPDX-License-Identifier: Apache-2.0

package ringbuffer

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/gostkit/kit/bench/internal/harness"
	"github.com/gostkit/kit/ringbuffer"
	smallnest "github.com/smallnest/ringbuffer"
)

const chunk = 512

// bytesCase moves chunks through a byte ring of the given size; both ends block.
func bytesCase(size int) harness.Case {
	return harness.Case{Name: fmt.Sprintf("bytes/chunk=512/size=%d", size), Unit: "ns/op", Subjects: []harness.Subject{
		pipe("ours", "", func() (io.Writer, io.Reader) {
			b := ringbuffer.NewBytes(size)
			return b, b
		}),
		pipe("ours-linked", "", func() (io.Writer, io.Reader) {
			l, err := ringbuffer.NewLinked(ringbuffer.LinkedConfig{MaxBytes: size, Allocator: &shelf})
			if err != nil {
				panic(err)
			}
			return l, l
		}),
		pipe("smallnest", "github.com/smallnest/ringbuffer", func() (io.Writer, io.Reader) {
			b := smallnest.New(size).SetBlocking(true)
			return b, b
		}),
		pipe("io.pipe", "", func() (io.Writer, io.Reader) {
			r, w := io.Pipe()
			return w, r
		}),
	}}
}

// pipe returns a subject with one writer and one reader. Each chunk begins with its number.
func pipe(name, module string, fresh func() (io.Writer, io.Reader)) harness.Subject {
	return harness.Prepared(name, module, func() (func(int), func(), error) {
		w, r := fresh()
		return func(n int) {
			var wg sync.WaitGroup
			wg.Go(func() {
				var p [chunk]byte
				for i := range n {
					binary.LittleEndian.PutUint64(p[:], uint64(i))
					if _, err := w.Write(p[:]); err != nil {
						panic(err)
					}
				}
			})
			var p [chunk]byte
			for i := range n {
				if _, err := io.ReadFull(r, p[:]); err != nil {
					panic(err)
				}
				if got := binary.LittleEndian.Uint64(p[:]); got != uint64(i) {
					panic(fmt.Sprintf("chunk %d arrived as chunk %d", got, i))
				}
			}
			wg.Wait()
		}, nil, nil
	})
}

// pool lends the chunks of ours-linked; a sync.Pool of slices would allocate their headers.
type pool struct {
	mu   sync.Mutex
	idle [][]byte
}

var shelf pool

func (p *pool) Get(n int) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := len(p.idle) - 1; i >= 0 && len(p.idle[i]) == n {
		b := p.idle[i]
		p.idle = p.idle[:i]
		return b
	}
	return make([]byte, n)
}

func (p *pool) Put(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) < 64 {
		p.idle = append(p.idle, b)
	}
}
