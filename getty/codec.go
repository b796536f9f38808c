// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"fmt"
	"io"
)

// A sessionCodec calls the user's Reader and Writer, and checks their results.
type sessionCodec struct {
	s *session

	reader   Reader
	resumer  ResumingReader // reader, if it is one
	typed    TypedReader    // reader, if it is one
	writer   Writer
	appender AppendWriter // writer, if it is one
	framing  framing      // the protocol, if it is one
}

// A framing is a protocol that finds the bounds of packages in a stream itself, and calls the
// Reader for whole ones.
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

// decode calls the Reader for the package that b begins with and checks its result. seen is how
// many leading bytes of b it was given before. A nil pkg without error means that b holds no whole
// package; n is then the size that the package needs, 0 if that is unknown.
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
			err = fmt.Errorf("%w: Read returned a package of %d of %d bytes",
				ErrBadReader, n, len(b))
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
		// It would be called with the same bytes again and again.
		return nil, 0, fmt.Errorf("%w: Read asks for %d bytes and was given %d",
			ErrBadReader, n, len(b))
	case n > limit || len(b) >= limit:
		return nil, 0, fmt.Errorf("%w: more than %d bytes", ErrTooLong, limit)
	}
	return nil, n, nil
}

// weigh returns the size of the latest package, which took n bytes of the input, for the bounds of
// the inbox.
func (c *sessionCodec) weigh(n int) int {
	if c.framing != nil {
		return c.framing.weigh(n)
	}
	return n
}

// readerError returns the error of a Reader as the cause of a session.
func readerError(err error) error {
	// A parser returns io.EOF at the end of its bytes. From a Reader that means a broken package,
	// and must not pass for the peer's end of stream.
	if err == io.EOF {
		return fmt.Errorf("getty: Reader: %w", err)
	}
	return err
}

// whole calls the Reader for b, one message or datagram that holds one package. kind is its name in
// errors: "message" or "datagram".
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
		return nil, fmt.Errorf("%w: Read took %d bytes of a %s of %d",
			ErrBadReader, n, kind, len(b))
	case n < 0 || n > 0 && n <= len(b):
		return nil, fmt.Errorf("%w: Read asks for %d bytes and was given a %s of %d",
			ErrBadReader, n, kind, len(b))
	}
	return nil, fmt.Errorf("%w: a %s of %d bytes holds no whole package",
		io.ErrUnexpectedEOF, kind, len(b))
}

// countRest counts the packages that b begins with as read and undelivered, since the session is
// closing.
func (c *sessionCodec) countRest(b []byte) {
	pkgs, where := 0, "Reader"
	defer func() { // also after a Goexit in the Reader
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

// marshal encodes pkg. With appended the result is dst and the package behind it; else the package
// alone, in memory of the Writer, from where it has to be copied.
func (c *sessionCodec) marshal(dst []byte, pkg any) (p []byte, appended bool, err error) {
	switch {
	case c.appender != nil:
		p, err = c.appender.AppendPkg(dst, c.s, pkg)
		return p, true, err
	case c.writer != nil:
		p, err = c.writer.Write(c.s, pkg)
		return p, false, err
	}
	// Logged as well, since many callers of WritePkg ignore the error.
	c.s.ep.log.Warn("getty: write without a Writer",
		"session", c.s.id, "peer", peerText(c.s.proto.remoteAddr))
	return nil, false, fmt.Errorf("%w: no Writer set", ErrBadReader)
}

func release(pkg any) {
	if r, ok := pkg.(Releaser); ok {
		r.Release()
	}
}

// releaseGuarded releases a package that is dropped. A panic in its Release is ignored: the session
// has ended, or goes on with the next package.
func releaseGuarded(pkg any) {
	defer func() { _ = recover() }()
	release(pkg)
}
