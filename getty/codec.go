// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"fmt"
	"io"
)

// A sessionCodec is the user's Reader and Writer, and the checks of what they answer.
type sessionCodec struct {
	s *session

	reader   Reader
	resumer  ResumingReader // reader, if it is one
	typed    TypedReader    // reader, if it is one
	writer   Writer
	appender AppendWriter // writer, if it is one
	framing  framing      // the protocol, if it cuts the packages out of the stream itself
}

// A framing is a protocol that cuts packages out of the bytes of a stream itself.
type framing interface {
	// decode is sessionCodec.decode, limits included.
	decode(b []byte) (pkg any, n int, err error)
	// weigh returns the size of the latest package, which took n bytes of what decode was given.
	weigh(n int) int
}

func (c *sessionCodec) setReader(r Reader) {
	c.reader = r
	c.resumer, _ = r.(ResumingReader)
	c.typed, _ = r.(TypedReader)
}

func (c *sessionCodec) setWriter(w Writer) {
	c.writer = w
	c.appender, _ = w.(AppendWriter)
}

// decode calls the Reader for the package that begins b and checks the answer. seen is how much of
// b it has looked at in vain. A nil pkg without error means that b holds no whole package; n is
// then the size it needs, 0 if unknown.
func (c *sessionCodec) decode(b []byte, seen int) (pkg any, n int, err error) {
	switch {
	case c.framing != nil:
		return c.framing.decode(b)
	case c.resumer != nil:
		pkg, n, err = c.resumer.ReadResume(c.s, b, seen)
	default:
		pkg, n, err = c.reader.Read(c.s, b)
	}
	if err != nil {
		return nil, 0, readerError(err)
	}
	limit := c.s.MaxMsgLen()
	if pkg != nil {
		switch {
		case n <= 0 || n > len(b):
			err = fmt.Errorf("%w: Read returned a package of %d of %d bytes", ErrBadReader, n, len(b))
		case n > limit:
			err = fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLong, n, limit)
		default:
			return pkg, n, nil
		}
		release(pkg)
		return nil, 0, err
	}
	switch {
	case n < 0 || n > 0 && n <= len(b):
		return nil, 0, fmt.Errorf("%w: Read asks for %d bytes and was given %d", ErrBadReader, n, len(b))
	case n > limit || len(b) >= limit:
		return nil, 0, fmt.Errorf("%w: more than %d bytes", ErrTooLong, limit)
	}
	return nil, n, nil
}

// weigh returns what counts as the size of the latest package, which took n bytes of the input.
func (c *sessionCodec) weigh(n int) int {
	if c.framing != nil {
		return c.framing.weigh(n)
	}
	return n
}

// readerError returns a Reader's error as the cause of a session. A Reader that says io.EOF, which a
// parser finds at the end of its bytes, has met a broken package: not the end of the stream.
func readerError(err error) error {
	if err == io.EOF {
		return fmt.Errorf("getty: Reader: %w", err)
	}
	return err
}

// whole calls the Reader for b, one message or datagram (kind says which) that holds one package.
func (c *sessionCodec) whole(kind string, b []byte, text bool) (pkg any, err error) {
	n := 0
	if c.typed != nil && kind == "message" {
		if pkg, err = c.typed.ReadTyped(c.s, b, text); pkg != nil {
			n = len(b)
		}
	} else {
		pkg, n, err = c.reader.Read(c.s, b)
	}
	switch {
	case err != nil:
		return nil, readerError(err)
	case pkg != nil && n == len(b):
		return pkg, nil
	case pkg != nil:
		release(pkg)
		return nil, fmt.Errorf("%w: Read took %d bytes of a %s of %d", ErrBadReader, n, kind, len(b))
	case n < 0 || n > 0 && n <= len(b):
		return nil, fmt.Errorf("%w: Read asks for %d bytes and was given a %s of %d",
			ErrBadReader, n, kind, len(b))
	}
	return nil, fmt.Errorf("%w: a %s of %d bytes holds no whole package",
		io.ErrUnexpectedEOF, kind, len(b))
}

// countRest counts the packages that b begins with, which were read, as undelivered: the session is
// closing.
func (c *sessionCodec) countRest(b []byte) {
	pkgs, where := 0, "Reader"
	defer func() {
		c.s.count.PkgsRead.Add(uint64(pkgs))
		c.s.count.undelivered(pkgs)
	}()
	_ = c.s.turn.guard(&where, func() error {
		for len(b) > 0 {
			pkg, n, err := c.decode(b, 0)
			if pkg == nil || err != nil {
				break
			}
			pkgs++
			releaseGuarded(pkg)
			b = b[n:]
		}
		return nil
	})
}

// marshal encodes pkg behind dst, or into memory of the Writer's own: then appended is false, and
// the result has to be copied.
func (c *sessionCodec) marshal(dst []byte, pkg any) (p []byte, appended bool, err error) {
	switch {
	case c.appender != nil:
		p, err = c.appender.AppendPkg(dst, c.s, pkg)
		return p, true, err
	case c.writer != nil:
		p, err = c.writer.Write(c.s, pkg)
		return p, false, err
	}
	// A writer that does not look at the result would wonder for long.
	c.s.ep.log.Warn("getty: write without a Writer", "session", c.s.id, "peer", peerText(c.s.proto.remoteAddr))
	return nil, false, fmt.Errorf("%w: no Writer set", ErrBadReader)
}

func release(pkg any) {
	if r, ok := pkg.(Releaser); ok {
		r.Release()
	}
}

// releaseGuarded releases a package that is dropped; a panic in its Release has nobody to reach.
func releaseGuarded(pkg any) {
	defer func() { _ = recover() }()
	release(pkg)
}
