// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package getty

// rawStream does nothing here: reads hold their buffer while they block, and the flusher writes.
type rawStream struct{}

func (r *rawStream) init(*stream) {}

func (t *stream) read(s *session, need int) (int, error) { return t.readPlain(s, need) }

func (t *stream) write(s *session, b *batch, wait bool) error { return t.writePlain(s, b, wait) }

type iovecs struct{}
