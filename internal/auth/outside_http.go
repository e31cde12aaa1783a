package auth

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strings"

	"github.com/sluice-gateway/sluice/internal/auth/ask"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
)

// httpAuth asks a service of one's own with a GET. It is sent the `send` fields of the
// request and, as forward-auth services know them, X-Forwarded-Method, -Proto, -Host,
// -Uri and -For. An answer is kept under all of that together: the service may decide by
// any of it.
//
// What its answer means:
//
//	2xx            admitted
//	401            refused, 401
//	403            refused, 403
//	408, 429, 5xx  cannot be told now, 503
//	anything else  refused, 401
//
// Fields that the service sends for the upstream are taken from clients first. As strip
// comes behind check, check leaves the answer with the exchange and strip puts its
// fields where the client's were.
type httpAuth struct {
	outside[*permitted]
	url     string
	send    sources
	names   []string // of send, for the request to the service
	receive []receiving
}

// receiving is a field that is sent on to the upstream.
type receiving struct {
	name string
	text []byte
}

var _ authenticator = (*httpAuth)(nil)

// permitted is what the service said. It is held by the exchanges that it lets pass.
type permitted struct {
	refusal *exchange.Error // nil: it admits
	is      *resolved
	fields  []exchange.Field // for the upstream
}

// Release does nothing: answers are shared.
func (p *permitted) Release() {}

// authClient is the field in which the service may name the client.
const authClient = "X-Auth-Client"

// neverSent are fields that are about the connection, not the request.
var neverSent = map[string]bool{
	"connection": true, "content-length": true, "host": true, "keep-alive": true, "proxy-connection": true,
	"te": true, "trailer": true, "transfer-encoding": true, "upgrade": true, "expect": true,
}

func newHTTPAuth(r *realm, name string, c *config.Authenticator) (authenticator, error) {
	h := c.HTTP
	a := &httpAuth{url: h.URL}
	for _, field := range h.Send {
		if neverSent[strings.ToLower(field)] {
			return nil, policy.At("http.send", fmt.Errorf("%s is about the connection and cannot be sent on, remove it", field))
		}
		from, err := parseSources([]string{"header:" + field})
		if err != nil {
			return nil, policy.At("http.send", err)
		}
		a.send, a.names = append(a.send, from...), append(a.names, http.CanonicalHeaderKey(field))
	}
	for _, field := range h.Receive {
		if neverSent[strings.ToLower(field)] {
			return nil, policy.At("http.receive", fmt.Errorf("%s is about the connection and cannot be sent on, remove it", field))
		}
		a.receive = append(a.receive, receiving{name: http.CanonicalHeaderKey(field), text: []byte(field)})
	}
	a.outside = newOutside[*permitted](r, name, c, h.CacheTTL, h.Timeout, false)
	return a, nil
}

// find returns all fields that are sent, as one. Without any of them there is no
// credential; where none is to be sent, every request has one.
func (a *httpAuth) find(x *exchange.Exchange) []byte {
	if len(a.send) == 0 {
		return empty
	}
	n, there := 0, false
	for i := range a.send {
		if v := a.send[i].value(x); v != nil {
			n, there = n+len(v), true
		}
	}
	if !there {
		return nil
	}
	all := x.Scratch(n + 11*len(a.send))[:0] // a length takes 10 bytes at most
	for i := range a.send {
		v := a.send[i].value(x)
		if v == nil {
			all = append(all, 0)
			continue
		}
		all = ask.AppendPart(append(all, 1), v)
	}
	return all
}

func (a *httpAuth) scheme() string { return challengeOf(a.send) }

func (a *httpAuth) check(x *exchange.Exchange, credential []byte, dry bool) (*exchange.Caller, error) {
	to := forwardedOf(x)
	parts := x.Scratch(len(credential) + to.size() + a.sent(x) + 64)[:0]
	parts = to.append(a.append(ask.AppendPart(parts, credential), x))
	key := ask.KeyOf(parts)
	p, ok := a.desk.Kept(&key)
	if !ok {
		if a.silent(dry) {
			return nil, errDry
		}
		header, anonymous := a.header(x, &to), nobody(credential)
		var err error
		if p, err = a.ask(x, key, func(ctx context.Context) (ask.Answer[*permitted], error) { return a.call(ctx, header, anonymous) }); err != nil {
			return nil, err
		}
	}
	if p.refusal != nil {
		return nil, p.refusal
	}
	if !dry && len(p.fields) > 0 {
		x.Held = append(x.Held, p)
	}
	return p.is.caller(a.realm.engine.now().UnixNano())
}

// strip takes the credentials off when they are not to be forwarded, and puts the
// service's fields in the place of the client's.
func (a *httpAuth) strip(x *exchange.Exchange) {
	if !forwards(a.config) {
		a.send.strip(x)
	}
	for i := range a.receive {
		x.Request.Header.Del(a.receive[i].text)
	}
	for _, held := range x.Held {
		p, ok := held.(*permitted)
		if !ok {
			continue
		}
		for _, f := range p.fields {
			for i := range a.receive {
				if exchange.EqualFold(f.Name, a.receive[i].text) {
					x.Request.Header.Append(f)
				}
			}
		}
	}
}

// lines yields the number of each field of `send`, with the value of a line of it.
func (a *httpAuth) lines(x *exchange.Exchange) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		h := &x.Request.Header
		for i := range a.send {
			s := &a.send[i]
			for j := range h.Len() {
				f := h.At(j)
				if f.ID == s.id && (s.id != exchange.Other || exchange.EqualFold(f.Name, s.name)) && !yield(i, f.Value) {
					return
				}
			}
		}
	}
}

// sent is the most that append appends, bytes.
func (a *httpAuth) sent(x *exchange.Exchange) (n int) {
	for _, v := range a.lines(x) {
		n += len(v) + 11
	}
	return n
}

// append appends what the service is sent of the `send` fields, line by line: it may
// tell two lines from one with a comma, and so does the key of its answer.
func (a *httpAuth) append(b []byte, x *exchange.Exchange) []byte {
	for i, v := range a.lines(x) {
		b = ask.AppendPart(append(b, byte(i)), v)
	}
	return b
}

// header is what the service is sent, copied.
func (a *httpAuth) header(x *exchange.Exchange, to *forwarded) http.Header {
	h := http.Header{"User-Agent": {"sluice"}}
	for _, name := range a.names {
		delete(h, name)
	}
	for i, v := range a.lines(x) {
		h[a.names[i]] = append(h[a.names[i]], string(v))
	}
	h["X-Forwarded-Method"] = []string{to.method}
	h["X-Forwarded-Proto"] = []string{to.proto}
	h["X-Forwarded-Host"] = []string{string(to.host)}
	h["X-Forwarded-Uri"] = []string{string(to.uri)}
	if len(to.client) > 0 {
		h["X-Forwarded-For"] = []string{string(to.client)}
	}
	return h
}

// nobody is the id of who is admitted without a name: a digest of the credential, which
// is the same for all its requests and tells nothing of it.
func nobody(credential []byte) string {
	key := ask.KeyOf(credential)
	return "credential-" + hex.EncodeToString(key[:8])
}

// call asks the service.
func (a *httpAuth) call(ctx context.Context, header http.Header, anonymous string) (ask.Answer[*permitted], error) {
	asked := a.realm.engine.now()
	status, got, err := ask.Get(ctx, a.client, a.url, header)
	switch {
	case err != nil:
		return ask.Answer[*permitted]{}, err
	case status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout:
		return ask.Answer[*permitted]{}, fmt.Errorf("the service answers with status %d", status)
	case status == http.StatusForbidden:
		return a.bad(&permitted{refusal: forbid(errors.New("the service answers 403"))}, asked), nil
	case status < 200 || status > 299:
		return a.bad(&permitted{refusal: refuse(fmt.Errorf("the service answers with status %d", status))}, asked), nil
	}
	p, size, err := a.admitted(got, anonymous)
	if err != nil {
		return ask.Answer[*permitted]{}, err
	}
	return a.good(p, asked, asked.Add(a.ttl), size), nil
}

// admitted reads the fields of an answer that admits. The client's id is X-Auth-Client,
// else the first field of `receive` that is there, else that of nobody.
func (a *httpAuth) admitted(got http.Header, anonymous string) (p *permitted, size int, err error) {
	p = &permitted{}
	id := ""
	switch named := got[authClient]; len(named) {
	case 0:
	case 1:
		id = named[0]
	default:
		return nil, 0, fmt.Errorf("the service answers with %s more than once", authClient)
	}
	for i := range a.receive {
		r := &a.receive[i]
		for _, v := range got[r.name] {
			if !isFieldValue(v) {
				return nil, 0, fmt.Errorf("the service answers with a %s that cannot be sent on: it has control characters in it", r.name)
			}
			if id == "" {
				id = v
			}
			p.fields = append(p.fields, exchange.Field{Name: r.text, Value: []byte(v), ID: exchange.Lookup(r.text)})
			size += len(r.text) + len(v)
		}
	}
	if id == "" {
		id = anonymous
	}
	if err := badID(id); err != nil {
		return nil, 0, fmt.Errorf("the client's id in the service's answer %w", err)
	}
	p.is = a.realm.resolve(a.name, a.config, identity{id: id})
	return p, size, nil
}

// isFieldValue reports whether v can be the value of a field (RFC 9110 §5.5).
func isFieldValue(v string) bool {
	for i := range len(v) {
		if c := v[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// forwarded is what the service is told of the request. Its bytes hold as long as the
// exchange.
type forwarded struct {
	method, proto     string
	host, uri, client []byte
}

func forwardedOf(x *exchange.Exchange) forwarded {
	q := &x.Request
	f := forwarded{method: q.Method, proto: "http", host: q.Authority, uri: q.Path}
	if secure(x) {
		f.proto = "https"
	}
	if x.Client.IsValid() {
		f.client = x.Client.Unmap().AppendTo(x.Scratch(64)[:0])
	}
	if q.HasQuery {
		f.uri = append(append(append(x.Scratch(len(q.Path) + 1 + len(q.Query))[:0], q.Path...), '?'), q.Query...)
	}
	return f
}

func (f *forwarded) size() int {
	return len(f.method) + len(f.proto) + len(f.client) + len(f.host) + len(f.uri)
}

func (f *forwarded) append(b []byte) []byte {
	b = ask.AppendPart(b, []byte(f.method))
	b = ask.AppendPart(b, []byte(f.proto))
	return ask.AppendPart(ask.AppendPart(ask.AppendPart(b, f.client), f.host), f.uri)
}
