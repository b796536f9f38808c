// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/gostkit/kit/getty/internal/wsframe"
)

// An UpgradeError is an HTTP answer in the place of a WebSocket session. OnUpgrade of a server
// returns one to say what the client is answered; for a client it is why a dial failed.
type UpgradeError struct {
	// Status is the HTTP status, 400 to 599. A server answers any other with 403.
	Status int
	// Header is sent with the answer; what the client got. nil: none.
	Header http.Header
	// Body is plain text, unless Header has a Content-Type. A client keeps its first KiB.
	Body string
}

// Error names the status and, quoted, the beginning of the body.
func (e *UpgradeError) Error() string {
	text := fmt.Sprintf("getty: upgrade refused: %d %s", e.Status, http.StatusText(e.Status))
	if e.Body != "" {
		text += fmt.Sprintf(": %q", limitString(strings.TrimSpace(e.Body)))
	}
	return text
}

// lasting reports whether the same request will be refused again: a client need not hurry then.
func (e *UpgradeError) lasting() bool {
	return e.Status/100 == 4 && e.Status != http.StatusRequestTimeout &&
		e.Status != http.StatusTooManyRequests
}

// WSRequest returns the upgrade request of a WebSocket session of a server: URL, query, headers,
// cookies, the state of TLS, and in its context the values that the user's own middleware put
// there. It can be asked for in the NewSessionCallback and in OnOpen; what is needed later is kept,
// as an attribute for example. Afterwards, for clients and for other transports it is nil, so that a
// session which lives for months does not hold it.
func WSRequest(s Session) *http.Request {
	if t := webSocketOf(s); t != nil {
		return t.request.Load()
	}
	return nil
}

// WSSubprotocol returns the subprotocol that a WebSocket session has agreed on, "" if there is none.
func WSSubprotocol(s Session) string {
	if t := webSocketOf(s); t != nil {
		return t.subprotocol
	}
	return ""
}

// webSocketOf returns the protocol of a WebSocket session, nil for all others.
func webSocketOf(s Session) *webSocket {
	if s, ok := s.(*session); ok {
		t, _ := s.proto.(*webSocket)
		return t
	}
	return nil
}

// originAllowed is the origin policy: the user's, or the same origin and those that the options
// name.
func (s *Server) originAllowed(r *http.Request) bool {
	o := &s.opts.WebSocket
	if o.CheckOrigin != nil {
		return o.CheckOrigin(r)
	}
	lines := r.Header.Values("Origin")
	if len(lines) > 1 {
		return false // RFC 6454, section 7.3: there is one, so nobody knows which of them is true
	}
	origin := strings.Join(lines, "")
	if origin == "" {
		return true
	}
	for _, allowed := range o.AllowedOrigins {
		if matchOrigin(allowed, origin) {
			return true
		}
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host)
}

// matchOrigin reports whether an entry of AllowedOrigins allows origin.
func matchOrigin(allowed, origin string) bool {
	if allowed == "*" || strings.EqualFold(allowed, origin) {
		return true
	}
	scheme, domain, pattern := strings.Cut(allowed, "://*.")
	u, err := url.Parse(origin)
	if !pattern || err != nil || !strings.EqualFold(u.Scheme, scheme) {
		return false
	}
	sub, ok := cutSuffixFold(u.Host, "."+domain)
	return ok && sub != ""
}

// cutSuffixFold is strings.CutSuffix that does not look at upper and lower case.
func cutSuffixFold(s, suffix string) (before string, found bool) {
	n := len(s) - len(suffix)
	if n < 0 || !strings.EqualFold(s[n:], suffix) {
		return s, false
	}
	return s[:n], true
}

// decide asks the user's hook about a request that is in order. The error is an *UpgradeError for
// the client; why tells the log more, if there is more to tell.
func (s *Server) decide(r *http.Request) (header http.Header, refusal *UpgradeError, why error) {
	hook := s.opts.WebSocket.OnUpgrade
	if hook == nil {
		return nil, nil, nil
	}
	header, err := askUpgrade(hook, r)
	var panicked *PanicError
	switch {
	case err == nil:
		return header, nil, nil
	case errors.As(err, &panicked):
		s.ep.log.Error("getty: callback panicked", "peer", r.RemoteAddr, "where", panicked.Where,
			"panic", limitString(fmt.Sprint(panicked.Value)), "stack", string(panicked.Stack))
		return nil, &UpgradeError{Status: http.StatusInternalServerError}, err
	case errors.As(err, &refusal):
		if refusal.Status < 400 || refusal.Status > 599 {
			refusal = &UpgradeError{http.StatusForbidden, refusal.Header, refusal.Body}
		}
		return nil, refusal, err
	}
	// What another error says is for the log, and nothing for a stranger.
	return nil, &UpgradeError{Status: http.StatusForbidden}, err
}

func askUpgrade(
	hook func(*http.Request) (http.Header, error), r *http.Request,
) (header http.Header, err error) {
	defer caught("OnUpgrade", &err)
	return hook(r)
}

// answerRefusal answers a request with e.
func answerRefusal(w http.ResponseWriter, e *UpgradeError) {
	h := w.Header()
	h.Set("Connection", "close") // it has a place among the sessions while it lasts
	for name, values := range e.Header {
		h[http.CanonicalHeaderKey(name)] = values
	}
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		h.Set("X-Content-Type-Options", "nosniff")
	}
	w.WriteHeader(e.Status)
	_, _ = io.WriteString(w, cmp.Or(e.Body, http.StatusText(e.Status)+"\n"))
}

// extraHeader returns the lines of h for an answer that switches protocols, without those that
// belong to the handshake.
func extraHeader(h http.Header) []byte {
	var b bytes.Buffer
	own := make(map[string]bool)
	for name := range h {
		own[name] = wsframe.Reserved(name)
	}
	_ = h.WriteSubset(&b, own) // it also takes line breaks out of values
	return b.Bytes()
}

// keepRequest returns the form of r that outlives its handler.
func keepRequest(r *http.Request) *http.Request {
	// The context of a request ends with its handler, the values in it are the user's.
	r = r.WithContext(context.WithoutCancel(r.Context()))
	r.Body = http.NoBody
	return r
}
