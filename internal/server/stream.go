package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/http1"
)

// A stream is one request of HTTP/2 and its response, between net/http and an
// exchange. It runs on the goroutine that net/http starts for it.
type stream struct {
	x     exchange.Exchange
	conn  *conn
	w     http.ResponseWriter
	r     *http.Request
	body  streamBody
	watch watch
	place place
	names []string // of the request's fields

	mu         sync.Mutex // guards began and informed
	began      bool       // the response has
	informed   bool       // by an interim response
	apologised bool       // with one of the driver's own
	written    int64
	waited     time.Duration
	others     sync.WaitGroup // goroutines that may still touch the stream
}

// ServeHTTP serves one stream. It panics with http.ErrAbortHandler to have the
// stream reset, as net/http wants it.
func (h *h2server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, ok := r.Context().Value(connKey{}).(*conn)
	if !ok {
		panic(http.ErrAbortHandler)
	}
	s := h.l.server
	t, ok := s.streams.Get().(*stream)
	if !ok {
		t = new(stream)
	}
	err := t.serve(c, w, r)
	broken := err != nil && !t.apologised
	if !errors.Is(err, errPanicked) { // else nobody knows who still has it
		s.streams.Put(t)
	}
	if broken {
		panic(http.ErrAbortHandler)
	}
}

// serve serves r. The error is why the response is not whole, or not what the
// Handler made.
func (t *stream) serve(c *conn, w http.ResponseWriter, r *http.Request) error {
	x := &t.x
	t.conn, t.w, t.r = c, w, r
	t.began, t.informed, t.apologised, t.written, t.waited = false, false, false, 0, 0
	x.Conn, x.Driver, x.Start = &c.info, t, time.Now()
	t.watch.reset()
	t.body.begin(t)
	x.Err = t.request()
	c.l.streams.add(t, c.info.Shard)
	unlink := t.onGone(r.Context())

	served, err := t.answer()
	t.place.leave()
	x.Aborted = err
	t.body.Cancel()
	c.server.close(x)
	t.body.end()
	c.l.streams.remove(t, c.info.Shard)
	unlink()
	t.others.Wait()
	x.BytesIn, x.BytesOut = t.body.taken, t.written
	x.Elapsed, x.ClientWait = time.Since(x.Start), t.body.waited+t.waited
	if served {
		c.server.done(x)
	}
	x.Reset()
	t.body.free()
	t.conn, t.w, t.r = nil, nil, nil
	return err
}

// onGone has x cancelled when ctx ends. After the function it returns was called,
// it is not.
func (t *stream) onGone(ctx context.Context) (unlink func()) {
	t.others.Add(1)
	stop := context.AfterFunc(ctx, func() {
		defer t.others.Done()
		t.x.Cancel()
	})
	return func() {
		if stop() {
			t.others.Done()
		}
	}
}

// answer lets the Handler decide and writes its response.
func (t *stream) answer() (served bool, err error) {
	x, s := &t.x, t.conn.server
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p, t.conn.info.Listener)
			err = errors.Join(errPanicked, t.apologise())
		}
	}()
	set := t.conn.set
	if x.Err == nil && set.redirect && redirect(x, set.httpsPort) {
		return false, t.respond()
	}
	if x.Err == nil {
		x.Err = t.place.enter(s.admission.Load())
	}
	served = true
	s.handler.Serve(x)
	t.body.answered.Store(true)
	return true, t.respond()
}

// apologise answers for a Handler that panicked or left no response, when nothing
// was sent yet. Its error keeps the stream from being taken for whole.
func (t *stream) apologise() error {
	t.mu.Lock()
	began := t.began
	t.began = true
	t.mu.Unlock()
	if began {
		return nil
	}
	t.x.Response.Status = http.StatusInternalServerError
	h := t.w.Header()
	clear(h)
	h["Content-Type"] = []string{"application/problem+json"}
	t.w.WriteHeader(http.StatusInternalServerError)
	t.apologised = true
	return t.write([]byte(apologyBody))
}

// request fills x.Request. Method, path, authority and fields are written down as
// an HTTP/1 head and read by its parser, so that both protocols let through
// exactly the same.
func (t *stream) request() *exchange.Error {
	x, r := &t.x, t.r
	lim := t.conn.set.head
	if e := safeForHead(r); e != nil {
		return e
	}
	head := t.appendHead(x.Scratch(headRoom(r))[:0])
	_, _, err := http1.ParseRequest(head, lim, &x.Request)
	q := &x.Request
	q.Proto, q.TLS, q.Target, q.Upgrade = exchange.HTTP2, t.conn.tls != nil, nil, nil
	if err != nil {
		return exchange.AsError(err)
	}
	q.ContentLength = r.ContentLength
	if r.ContentLength != 0 {
		q.Body = &t.body
	}
	return nil
}

// safeForHead refuses what would not stay in its place in an HTTP/1 head.
// net/http has let through only valid names and values.
func safeForHead(r *http.Request) *exchange.Error {
	for i := range len(r.RequestURI) {
		if c := r.RequestURI[i]; c <= ' ' || c >= 0x7f {
			return badRequest("The path has a byte that must be percent-encoded.")
		}
	}
	for i := range len(r.Host) {
		if c := r.Host[i]; c <= ' ' || c >= 0x7f {
			return badRequest("The authority is not a host and port.")
		}
	}
	if !http1.IsToken([]byte(r.Method)) {
		return badRequest("The method is not a token.")
	}
	for _, host := range r.Header["Host"] {
		if !exchange.EqualFold([]byte(host), []byte(r.Host)) {
			return badRequest("Host is another than :authority (RFC 9113 section 8.3.1).")
		}
	}
	return nil
}

func badRequest(detail string) *exchange.Error {
	return &exchange.Error{Code: exchange.BadRequest, Side: exchange.Client, Detail: detail}
}

func headRoom(r *http.Request) int {
	n := len(r.Method) + len(r.RequestURI) + len(r.Host) + 32
	for name, values := range r.Header {
		for _, v := range values {
			n += len(name) + len(v) + 4
		}
	}
	for name := range r.Trailer {
		n += len("Trailer: ") + len(name) + 2
	}
	return n
}

// appendHead writes the request as HTTP/1 does, the fields in the order of their
// names, since net/http does not keep their own.
func (t *stream) appendHead(b []byte) []byte {
	r := t.r
	b = append(append(append(b, r.Method...), ' '), r.RequestURI...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(append(b, r.Host...), "\r\n"...)
	for _, name := range t.sorted(r.Header) {
		if name == "Host" {
			continue
		}
		for _, v := range r.Header[name] {
			b = append(append(b, name...), ": "...)
			b = append(append(b, v...), "\r\n"...)
		}
	}
	for _, name := range t.sorted(r.Trailer) { // net/http has taken them out of the header
		b = append(append(append(b, "Trailer: "...), name...), "\r\n"...)
	}
	return append(b, "\r\n"...)
}

// sorted are the names in h, in order. They hold until the next call.
func (t *stream) sorted(h http.Header) []string {
	t.names = t.names[:0]
	for name := range h {
		t.names = append(t.names, name)
	}
	slices.Sort(t.names)
	return t.names
}

// Interim sends an informational response. 100 (Continue) net/http sends by
// itself, when the body is first read.
func (t *stream) Interim(status int, h *exchange.Header) error {
	if status < 100 || status > 199 || status == http.StatusSwitchingProtocols {
		return errors.New("server: not an interim status")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.began {
		return errTooLate
	}
	if status == http.StatusContinue {
		return nil
	}
	to := t.w.Header()
	if h != nil {
		addFields(to, h, "")
	}
	t.w.WriteHeader(status)
	clear(to)
	t.informed = true
	return nil
}

// goOn tells a client that may wait for it to send the body. net/http does so by
// itself, but not behind another interim response; and since it does not say
// whether the client has asked, every client is told then, which those that have
// not asked take no notice of (RFC 9110 §15.2).
func (t *stream) goOn() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.informed && !t.began {
		t.w.WriteHeader(http.StatusContinue)
	}
}

// addFields copies what goes to the client on HTTP/2, which has no
// connection-specific fields (RFC 9113 §8.2.2).
func addFields(to http.Header, h *exchange.Header, prefix string) {
	for i := range h.Len() {
		f := h.At(i)
		if f.Hop || isOwn(f.ID) || !http1.IsValue(f.Value) {
			continue
		}
		name := prefix + http.CanonicalHeaderKey(string(f.Name))
		to[name] = append(to[name], string(f.Value))
	}
}

// boundEnd bounds how long net/http may wait for the client's window to send what
// it still holds of the response, which it does when nobody watches any more.
func (t *stream) boundEnd() {
	d := t.conn.set.writeIdle
	if w, ok := t.w.(interface{ SetWriteDeadline(time.Time) error }); ok && d > 0 {
		_ = w.SetWriteDeadline(time.Now().Add(d)) // the stream has ended already when it fails
	}
}

// respond writes the response.
func (t *stream) respond() error {
	x := &t.x
	r := &x.Response
	if r.Status < 200 || r.Status > 999 {
		return errors.Join(errNoResponse, t.apologise())
	}
	t.mu.Lock()
	t.began = true
	t.mu.Unlock()
	frame := http1.ResponseFraming(exchange.HTTP2, x.Request.Method, r)
	h := t.w.Header()
	addFields(h, &r.Header, "")
	if h["Content-Type"] == nil {
		h["Content-Type"] = nil // present, so that none is guessed
	}
	if h["Date"] == nil {
		h["Date"] = []string{string(t.conn.server.date.value())}
	}
	withLength := frame.Kind == http1.ByLength ||
		frame.Kind == http1.NoBody && (x.Request.Method == http.MethodHead && frame.Length >= 0 || frame.Length > 0)
	if withLength {
		h["Content-Length"] = []string{strconv.FormatInt(frame.Length, 10)}
	}
	t.written += headSize(h)
	t.w.WriteHeader(r.Status)
	if frame.Kind == http1.NoBody || r.Body == nil {
		if frame.Kind == http1.ByLength && frame.Length > 0 {
			return errTooShort
		}
		return nil
	}
	if err := t.copyBody(frame); err != nil {
		return err
	}
	addFields(h, &r.Trailer, http.TrailerPrefix)
	t.boundEnd()
	return nil
}

// headSize is about what a head has in bytes, before compression.
func headSize(h http.Header) int64 {
	n := int64(len(":status") + len("200"))
	for name, values := range h {
		for _, v := range values {
			n += int64(len(name) + len(v))
		}
	}
	return n
}

func (t *stream) copyBody(frame http1.Framing) error {
	body := t.x.Response.Body
	left := frame.Length
	pending := true // the head is
	for {
		if pending && !body.Ready() {
			if err := t.flush(); err != nil {
				return err
			}
			pending = false
		}
		piece, err := body.Next()
		if err != nil && err != io.EOF {
			return err
		}
		end := err == io.EOF
		if len(piece) > 0 {
			if left -= int64(len(piece)); frame.Kind == http1.ByLength && left < 0 {
				return errTooLong
			}
			if err := t.write(piece); err != nil {
				return err
			}
			pending = true
		}
		if end {
			break
		}
	}
	if frame.Kind == http1.ByLength && left > 0 {
		return errTooShort
	}
	return nil
}

// writeMost is how much is handed to net/http at a time: it tells of no progress
// inside a write, and a client at the minimum rate must not be taken for one that
// has stopped.
const writeMost = 16 << 10

// write hands p to net/http, which may wait until the client lets it flow. What
// is under way counts as moved.
func (t *stream) write(p []byte) error {
	began := time.Now()
	t.watch.writing.Store(true)
	var err error
	for len(p) > 0 && err == nil {
		some := p[:min(len(p), writeMost)]
		p = p[len(some):]
		t.watch.put.Add(int64(len(some)))
		var n int
		n, err = t.w.Write(some)
		t.written += int64(n)
	}
	t.watch.writing.Store(false)
	t.waited += time.Since(began)
	return t.blame(err)
}

// flush sends what net/http has gathered.
func (t *stream) flush() error {
	began := time.Now()
	t.watch.writing.Store(true)
	err := t.w.(interface{ FlushError() error }).FlushError()
	t.watch.writing.Store(false)
	t.waited += time.Since(began)
	return t.blame(err)
}

// blame says whose fault a failed write is.
func (t *stream) blame(err error) error {
	if err == nil {
		return nil
	}
	if e := t.watch.cutBy.Load(); e != nil {
		return e
	}
	return clientGone(err)
}

var _ exchange.Driver = (*stream)(nil)
