// SPDX-License-Identifier: Apache-2.0

package bytespool

// Chunk is a run of bytes in a pooled buffer on its way from one owner to the next: out of a
// [Buffer] by TakeChunk, into one by AddChunk. Its owner must either call Release or hand it on.
// Copies of a Chunk are the same buffer; only one may be used. The zero Chunk is empty.
type Chunk struct {
	pool *Pool
	buf  []byte // as lent, at full capacity, which Put needs to see
	r, w int    // buf[r:w] are the bytes
}

// NewChunk makes a Chunk of b, which usually comes from Get, and takes it over: Release puts it
// back into p, or the Pool that the package shares if p is nil. What lies between the length and
// the capacity of b may be overwritten.
func NewChunk(p *Pool, b []byte) Chunk {
	return Chunk{pool: p, buf: b[:cap(b)], w: len(b)}
}

// Bytes returns the content of c. It is valid until Release or until the Chunk is handed on.
func (c Chunk) Bytes() []byte { return c.buf[c.r:c.w:c.w] }

// Release puts the buffer back and makes c empty. Further calls do nothing.
func (c *Chunk) Release() {
	buf := c.buf
	p := c.pool
	*c = Chunk{} // first, so that a second call puts back nothing
	if p == nil {
		p = &defaultPool
	}
	p.Put(buf)
}

// node is a Chunk in the list of a Buffer.
type node struct {
	Chunk
	next *node
}

// nodes keeps the list elements of all Buffers.
var nodes Objects[node]

func newNode(c Chunk) *node {
	n := nodes.Get()
	n.Chunk = c
	return n
}

// take returns the Chunk of n and gives up n.
func (n *node) take() Chunk {
	c := n.Chunk
	*n = node{} // an idle node must keep no buffer and no list alive
	nodes.Put(n)
	return c
}

// free is the room behind the content.
func (n *node) free() []byte { return n.buf[n.w:] }
