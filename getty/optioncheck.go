// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gostkit/kit/netx"
)

// What cannot work is found before anything is dialled or listened for: a client would dial it for
// ever, and a server would listen where nobody can arrive.

// isNilPointer reports whether v holds a pointer that is nil.
func isNilPointer(v any) bool {
	r := reflect.ValueOf(v)
	return r.Kind() == reflect.Pointer && r.IsNil()
}

// checkSocket checks socket options for the network of k.
func checkSocket(o *netx.SocketOptions, k kind) error {
	if err := o.Validate(k.network()); err != nil {
		return fmt.Errorf("getty: Socket: %w", err)
	}
	return nil
}

// withoutLinger returns the socket options that a session's connection gets: with a Linger that
// waits, close(2) would, and CloseNow with it.
func withoutLinger(o netx.SocketOptions) netx.SocketOptions {
	o.Linger = min(o.Linger, 0)
	return o
}

// checkServerAddr checks the Addr of a client.
func checkServerAddr(addr string, k kind) error {
	if addr == "" {
		return errors.New("getty: client without a server address: Addr is empty")
	}
	var err error
	switch k {
	case wsClient:
		err = checkURL(addr)
	case unixClient:
		err = netx.CheckUnixPath(addr)
	default:
		err = checkHostPort(k.network(), addr)
	}
	if err != nil {
		return fmt.Errorf("getty: Addr: %w", err)
	}
	return nil
}

// checkHostPort checks a "host:port" that is to be dialled.
func checkHostPort(network, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if n, err := net.LookupPort(network, port); err != nil {
		return err
	} else if n == 0 {
		return errors.New("nobody can be reached at port 0")
	}
	return checkHost(host)
}

// checkHost checks an IP address or a name, which a resolver may still not know. An empty one is
// the loopback.
func checkHost(host string) error {
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return nil
	}
	name := strings.TrimSuffix(host, ".")
	labels := strings.Split(name, ".")
	last := labels[len(labels)-1]
	switch {
	case len(name) > 253:
		return errors.New("the host's name is longer than 253 bytes")
	case strings.ContainsFunc(name, notInHost):
		return fmt.Errorf("%q is neither an address nor a host's name", host)
	case strings.Trim(last, "0123456789") == "": // such a name would be taken for an address
		return fmt.Errorf("%q is neither an address nor a host's name", host)
	case slices.ContainsFunc(labels, func(l string) bool { return l == "" || len(l) > 63 }):
		return fmt.Errorf("the host's name %q has a part that is empty or longer than 63 bytes", host)
	}
	return nil
}

// notInHost reports whether no host's name has r.
func notInHost(r rune) bool {
	return r <= ' ' || r == 0x7f || strings.ContainsRune(`"#%/:<>?@[\]^{|}`, r)
}

// checkURL checks the address of a WebSocket client.
func checkURL(addr string) error {
	u, err := url.Parse(addr)
	if err != nil || u.Scheme != "ws" && u.Scheme != "wss" || u.Host == "" {
		return errors.New("a WebSocket client's address is ws://host:port/path or wss://host:port/path")
	}
	switch {
	case u.User != nil:
		return errors.New("a WebSocket address has no user")
	case u.Fragment != "" || strings.Contains(addr, "#"):
		return errors.New("a WebSocket address has no fragment")
	}
	hostPort := u.Host
	if strings.LastIndexByte(hostPort, ':') <= strings.LastIndexByte(hostPort, ']') {
		hostPort += ":" + webPort(u)
	}
	return checkHostPort("tcp", hostPort)
}

// isWSS reports whether addr asks for WebSocket over TLS.
func isWSS(addr string) bool {
	u, err := url.Parse(addr)
	return err == nil && u.Scheme == "wss"
}

// webPort returns the port of a WebSocket address without one.
func webPort(u *url.URL) string {
	if u.Scheme == "wss" {
		return "443"
	}
	return "80"
}

// checkPath checks a path that a WebSocket server serves. It is the decoded form; what could only
// arrive encoded is refused, since it is easily meant as something else: a pattern, or an encoded
// path.
func checkPath(p string) error {
	switch {
	case !strings.HasPrefix(p, "/"):
		return fmt.Errorf("%q does not begin with /", p)
	case !utf8.ValidString(p):
		return fmt.Errorf("%q is not UTF-8", p)
	}
	for _, r := range p {
		plain := isAlnum(r) || strings.ContainsRune("/-._~!$&'()*+,;=:@", r)
		if !plain && r < 0xa0 { // also the control characters of Latin 1
			return fmt.Errorf("%q has %q, which no path has", p, r)
		}
	}
	for part := range strings.SplitSeq(p, "/") {
		if part == "." || part == ".." {
			return fmt.Errorf("%q has a part that clients take out", p)
		}
	}
	return nil
}

func isAlnum(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
}

// isToken reports whether s is a token, RFC 9110, section 5.6.2.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !isAlnum(r) && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}

// commonWebSocket are the options that WebSocket servers and clients share.
type commonWebSocket struct {
	pingPeriod         time.Duration
	maxHeaderBytes     int
	compressionLevel   int
	subprotocols       []string
	requireSubprotocol bool
}

func checkWebSocket(o *commonWebSocket) error {
	switch {
	case o.pingPeriod < 0:
		return errors.New("getty: WebSocket.PingPeriod is negative")
	case o.maxHeaderBytes < 0:
		return errors.New("getty: WebSocket.MaxHeaderBytes is negative")
	case o.compressionLevel < 1 || o.compressionLevel > 9:
		return fmt.Errorf("getty: WebSocket.CompressionLevel is %d; want 1 to 9", o.compressionLevel)
	case o.requireSubprotocol && len(o.subprotocols) == 0:
		return errors.New("getty: WebSocket.RequireSubprotocol without Subprotocols")
	}
	if err := checkSubprotocols(o.subprotocols); err != nil {
		return fmt.Errorf("getty: WebSocket.Subprotocols: %w", err)
	}
	return nil
}

// checkSubprotocols checks what RFC 6455, section 4.1, wants of subprotocols: tokens, no two alike.
func checkSubprotocols(list []string) error {
	for i, p := range list {
		switch {
		case !isToken(p):
			return fmt.Errorf("%q is not a token", p)
		case slices.Contains(list[:i], p):
			return fmt.Errorf("%q is named twice", p)
		}
	}
	return nil
}

// checkOrigin checks an entry of AllowedOrigins, which is compared with what browsers send.
func checkOrigin(o string) error {
	if o == "*" || o == "null" {
		return nil
	}
	u, err := url.Parse(strings.Replace(o, "://*.", "://", 1)) // a pattern
	if err != nil || u.Scheme == "" || u.Host == "" || strings.Contains(u.Host, "*") ||
		!strings.EqualFold(u.Scheme+"://"+u.Host, strings.Replace(o, "://*.", "://", 1)) {
		return fmt.Errorf("%q is not an origin: want scheme://host, scheme://host:port or "+
			"scheme://*.domain", o)
	}
	return nil
}

// checkHeader checks what a client adds to its upgrade request.
func checkHeader(h http.Header, subprotocols bool) error {
	for name, values := range h {
		switch key := http.CanonicalHeaderKey(name); {
		case !isToken(name):
			return fmt.Errorf("%q is not a header's name", name)
		case key == "Upgrade", key == "Connection", key == "Sec-Websocket-Key",
			key == "Sec-Websocket-Version", key == "Sec-Websocket-Extensions",
			key == "Content-Length", key == "Transfer-Encoding", key == "Trailer":
			return fmt.Errorf("%s belongs to the handshake", key)
		case key == "Sec-Websocket-Protocol" && subprotocols:
			return fmt.Errorf("%s is given by WebSocket.Subprotocols", key)
		case key == "Host" && (len(values) != 1 || strings.ContainsAny(values[0], " \t/\\@?#")):
			return errors.New("the Host is not one host")
		}
		for _, v := range values {
			if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
				return fmt.Errorf("the value of %s has a control character", name)
			}
		}
	}
	return nil
}
