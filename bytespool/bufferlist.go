// SPDX-License-Identifier: Apache-2.0

package bytespool

// settle gives back the first chunk if it is used up. Each method starts with it, and so ends the
// life of the slice that Next returned.
func (b *Buffer) settle() {
	n := b.head
	if n == nil || n.r < n.w {
		return
	}
	// A Buffer that empties after every message would otherwise go to the pool for each.
	if n == b.tail && len(n.buf) <= keepChunk {
		n.r, n.w = 0, 0
		return
	}
	c := b.unlinkHead().take()
	c.Release()
}

func write[T []byte | string](b *Buffer, p T) (int, error) {
	// Most writes fit into the last chunk and have nothing to settle.
	if h, t := b.head, b.tail; h != nil && h.r < h.w && len(p) <= len(t.buf)-t.w {
		copy(t.buf[t.w:], p)
		b.wrote(len(p))
		return len(p), nil
	}
	b.settle()
	for rest := p; len(rest) > 0; {
		n := copy(b.room(len(rest)), rest)
		b.wrote(n)
		rest = rest[n:]
	}
	return len(p), nil
}

// room returns the space behind the last byte, at least one byte, in a new chunk if necessary;
// want is how much the caller has in hand. What is put there counts after wrote.
func (b *Buffer) room(want int) []byte {
	if b.tail == nil || b.tail.w == len(b.tail.buf) {
		b.link(b.newChunk(want))
	}
	return b.tail.free()
}

// wrote counts n bytes that were put into room.
func (b *Buffer) wrote(n int) {
	b.tail.w += n
	b.len += n
}

// consume counts n bytes of the first chunk as read.
func (b *Buffer) consume(n int) {
	if n > 0 {
		b.head.r += n
		b.len -= n
	}
}

// newChunk returns an empty chunk that is not in the list. It is as large as all that is
// buffered, within limits, so that the number of chunks grows slowly and the unused part of the
// last one stays in proportion.
func (b *Buffer) newChunk(want int) *node {
	// At most what the pool keeps: larger ones would be allocated each time.
	size := min(max(want, b.len, minChunk), maxChunk, b.pool().MaxSize())
	p := b.pool().Get(size)
	return newNode(Chunk{pool: b.Pool, buf: p[:cap(p)]})
}

// front returns the first n <= b.len bytes in one piece.
func (b *Buffer) front(n int) []byte {
	if n == 0 {
		return nil
	}
	if n > b.head.w-b.head.r {
		b.gather(n)
	}
	h := b.head
	return h.buf[h.r : h.r+n : h.r+n]
}

// gather moves bytes to the first chunk until it holds n.
func (b *Buffer) gather(n int) {
	h := b.head
	// Make room for n bytes, by copying as few as possible.
	switch {
	case n <= len(h.buf)-h.r: // there is room behind the content
	case n <= len(h.buf): // there is, together with the room in front of it
		h.w = copy(h.buf, h.Bytes())
		h.r = 0
	default:
		old := h.Chunk
		larger := b.pool().Get(n)
		h.Chunk = Chunk{pool: b.Pool, buf: larger[:cap(larger)], w: copy(larger, old.Bytes())}
		old.Release()
	}
	for h.w-h.r < n {
		next := h.next
		// Not more than n: the rest stays where it is, and the next gather copies less.
		k := copy(h.buf[h.w:h.r+n], next.Bytes())
		h.w += k
		next.r += k
		if next.r < next.w {
			return
		}
		h.next = next.next
		if h.next == nil {
			b.tail = h
		}
		c := next.take()
		c.Release()
	}
}

func (b *Buffer) link(n *node) {
	if b.tail == nil {
		b.head = n
	} else {
		b.tail.next = n
	}
	b.tail = n
}

// unlinkHead removes and returns the first element, which must exist.
func (b *Buffer) unlinkHead() *node {
	n := b.head
	b.head = n.next
	if b.head == nil {
		b.tail = nil
	}
	n.next = nil
	return n
}

func (b *Buffer) pool() *Pool {
	if b.Pool == nil {
		return &defaultPool
	}
	return b.Pool
}
