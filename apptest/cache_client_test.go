package apptest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The tests of the cache look at every body that they get: it says which URL it is
// for, for whom it was made, which state of its source it shows and when it was made,
// and it holds a checksum over all of that and its filling. So a body that is another's,
// damaged, cut or old is known for what it is.

// sealed is what a body says of itself.
type sealed struct {
	url string // the request target that the origin got
	who string // for whom it was made; "*": for everybody
	gen int64  // the state of the source
	at  int64  // when it was made, Unix ns
}

const filling = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+/"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// text is a body of at least size bytes.
func (s sealed) text(size int) string {
	var b strings.Builder
	b.Grow(size + 64)
	fmt.Fprintf(&b, "url=%s who=%s gen=%d at=%d \n", s.url, s.who, s.gen, s.at)
	for b.Len() < size-len(" sum=xxxxxxxx") {
		b.WriteString(filling[:min(len(filling), size-len(" sum=xxxxxxxx")-b.Len())])
	}
	sum := crc32.Checksum([]byte(b.String()), castagnoli)
	fmt.Fprintf(&b, " sum=%08x", sum)
	return b.String()
}

// seal is a body of at least size bytes that is made now.
func seal(url, who string, gen int64, size int) string {
	return sealed{url: url, who: who, gen: gen, at: time.Now().UnixNano()}.text(size)
}

var errSeal = errors.New("not a whole body of the origin's")

// unseal checks a whole body and returns what it says.
func unseal(body []byte) (sealed, error) {
	end := len(body) - len(" sum=xxxxxxxx")
	if end < 0 || string(body[end:]) != fmt.Sprintf(" sum=%08x", crc32.Checksum(body[:end], castagnoli)) {
		return sealed{}, fmt.Errorf("%w: %d bytes, %.120q", errSeal, len(body), body)
	}
	return readSeal(body)
}

// readSeal reads the first line of a body.
func readSeal(body []byte) (s sealed, err error) {
	line, _, whole := bytes.Cut(body, []byte(" \n"))
	f := strings.Split(string(line), " ")
	if !whole || len(f) != 4 {
		return s, fmt.Errorf("%w: %.120q", errSeal, body)
	}
	s.url, s.who = strings.TrimPrefix(f[0], "url="), strings.TrimPrefix(f[1], "who=")
	s.gen, err = strconv.ParseInt(strings.TrimPrefix(f[2], "gen="), 10, 64)
	if err == nil {
		s.at, err = strconv.ParseInt(strings.TrimPrefix(f[3], "at="), 10, 64)
	}
	if err != nil {
		return s, fmt.Errorf("%w: %.120q", errSeal, line)
	}
	return s, nil
}

// TestSeal checks the check.
func TestSeal(t *testing.T) {
	want := sealed{url: "/a?b=c", who: "u1", gen: 7, at: 12345}
	for _, size := range []int{0, 100, 5000} {
		body := []byte(want.text(size))
		if got, err := unseal(body); err != nil || got != want {
			t.Fatalf("size %d: %+v, %v", size, got, err)
		}
		if size > 0 && len(body) != size {
			t.Errorf("size %d: %d bytes", size, len(body))
		}
		for range 200 {
			i, bit := rand.IntN(len(body)), byte(1)<<rand.IntN(8)
			body[i] ^= bit
			if _, err := unseal(body); err == nil {
				t.Fatalf("size %d: a bit of byte %d is wrong and nobody saw it", size, i)
			}
			body[i] ^= bit
		}
		if _, err := unseal(body[:len(body)-1]); err == nil {
			t.Error("a cut body passed")
		}
	}
}

// reply is an answer to an asker. The next one overwrites it.
type reply struct {
	status int
	head   []byte // the status line and the fields
	body   []byte
	close  bool // the gateway keeps the connection no longer
}

// field is the value of a field of the head, several joined with ", "; empty: none.
func (r *reply) field(name string) string {
	var all []string
	for line := range bytes.Lines(r.head) {
		n, v, ok := bytes.Cut(line, []byte(":"))
		if ok && len(n) == len(name) && bytes.EqualFold(n, []byte(name)) {
			all = append(all, string(bytes.TrimSpace(v)))
		}
	}
	return strings.Join(all, ", ")
}

// cache is what Cache-Status says in a word: hit, stale, miss, collapsed, revalidated,
// bypass, method; forwarded for what was stored and not used; none without one.
func (r *reply) cache() string {
	s := r.field("Cache-Status")
	if i := strings.LastIndex(s, "sluice;"); i >= 0 {
		s = s[i:]
	}
	switch {
	case s == "":
		return "none"
	case strings.Contains(s, "collapsed"):
		return "collapsed"
	case strings.Contains(s, "; hit") && strings.Contains(s, "ttl=-"):
		return "stale"
	case strings.Contains(s, "; hit"):
		return "hit"
	case strings.Contains(s, "fwd-status=304"):
		return "revalidated"
	}
	_, fwd, _ := strings.Cut(s, "fwd=")
	fwd, _, _ = strings.Cut(fwd, ";")
	switch fwd {
	case "uri-miss", "vary-miss":
		return "miss"
	case "stale", "request":
		return "forwarded"
	}
	return fwd
}

// asker is an HTTP/1.1 client of one connection at a small part of what net/http
// takes, for tests that look at a million answers. It never repeats a request.
type asker struct {
	addr string
	c    net.Conn
	r    *bufio.Reader
	got  reply
}

func (k *asker) open() error {
	if k.c != nil {
		return nil
	}
	c, err := net.DialTimeout("tcp", k.addr, 10*time.Second)
	if err != nil {
		return fmt.Errorf("%w: %w", errDial, err)
	}
	k.c = c
	if k.r == nil {
		k.r = bufio.NewReader(c)
	}
	k.r.Reset(c)
	return nil
}

// hangUp closes the connection without leaving it in TIME_WAIT here.
func (k *asker) hangUp() {
	if k.c != nil {
		_ = k.c.(*net.TCPConn).SetLinger(0)
		_ = k.c.Close()
		k.c = nil
	}
}

// ask sends a whole request and reads the answer.
func (k *asker) ask(request string) (*reply, error) {
	if err := k.send(request); err != nil {
		return nil, err
	}
	return k.receive(strings.HasPrefix(request, "HEAD "))
}

// get asks for a target of the host a.test. Header lines end with CRLF.
func (k *asker) get(target, header string) (*reply, error) {
	return k.ask(getting(target, header))
}

func getting(target, header string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: a.test\r\n" + header + "\r\n"
}

func (k *asker) send(request string) error {
	if err := k.open(); err != nil {
		return err
	}
	err := k.c.SetDeadline(time.Now().Add(30 * time.Second))
	if err == nil {
		_, err = io.WriteString(k.c, request)
	}
	if err != nil {
		k.hangUp()
		return fmt.Errorf("%w: %w", errLost, err)
	}
	return nil
}

// receive reads the answer to a request that was sent.
func (k *asker) receive(headOnly bool) (*reply, error) {
	err := k.read(headOnly)
	if err != nil {
		k.hangUp()
		return nil, fmt.Errorf("%w: %w", errLost, err)
	}
	if k.got.close {
		k.hangUp()
	}
	return &k.got, nil
}

func (k *asker) read(headOnly bool) error {
	length, chunked, err := k.readHead()
	if err != nil {
		return err
	}
	r := &k.got
	r.body = r.body[:0]
	if headOnly || r.status == 304 || r.status == 204 {
		return nil
	}
	if chunked {
		var all bytes.Buffer
		if _, err := all.ReadFrom(httputil.NewChunkedReader(k.r)); err != nil {
			return err
		}
		r.body = append(r.body, all.Bytes()...)
		// No trailer is asked for, so none comes.
		_, err = k.r.Discard(len("\r\n"))
		return err
	}
	if length < 0 {
		rest, err := io.ReadAll(k.r)
		r.body, r.close = append(r.body, rest...), true
		return err
	}
	if cap(r.body) < length {
		r.body = make([]byte, 0, length)
	}
	r.body = r.body[:length]
	_, err = io.ReadFull(k.r, r.body)
	return err
}

// readHead reads a head; length is -1 when none is told.
func (k *asker) readHead() (length int, chunked bool, err error) {
	r := &k.got
	*r = reply{head: r.head[:0], body: r.body}
	length = -1
	for n := 0; ; n++ {
		line, err := k.r.ReadSlice('\n')
		if err != nil {
			return 0, false, err
		}
		r.head = append(r.head, line...)
		line = bytes.TrimRight(line, "\r\n")
		if n == 0 {
			if len(line) < 12 || string(line[:9]) != "HTTP/1.1 " {
				return 0, false, fmt.Errorf("%w: %q", errAnswer, line)
			}
			if r.status, err = strconv.Atoi(string(line[9:12])); err != nil {
				return 0, false, fmt.Errorf("%w: %q", errAnswer, line)
			}
			continue
		}
		if len(line) == 0 {
			return length, chunked, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, false, fmt.Errorf("%w: %q", errAnswer, line)
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = true
		case bytes.EqualFold(name, []byte("Connection")):
			r.close = bytes.EqualFold(value, []byte("close"))
		}
	}
}

// origin is a source of bodies that counts who asks.
type origin struct {
	*httptest.Server
	hits *counter // requests by target

	mu    sync.Mutex
	gates map[string]chan struct{}
}

// newOrigin starts an origin until the test ends.
func newOrigin(t testing.TB, serve func(o *origin, w http.ResponseWriter, r *http.Request)) *origin {
	t.Helper()
	o := &origin{hits: newCounter(), gates: map[string]chan struct{}{}}
	o.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.hits.add(r.RequestURI)
		serve(o, w, r)
	}))
	o.Config.ErrorLog = quiet()
	o.Start()
	t.Cleanup(func() { o.CloseClientConnections(); o.Close() })
	return o
}

func (o *origin) addr() string { return o.Listener.Addr().String() }

// gate is a channel of that name, which the test and a request wait at.
func (o *origin) gate(name string) chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.gates[name] == nil {
		o.gates[name] = make(chan struct{})
	}
	return o.gates[name]
}

// wait returns when the gate is open, or the gateway has given the request up.
func (o *origin) wait(r *http.Request, gate string) {
	select {
	case <-o.gate(gate):
	case <-r.Context().Done():
	}
}

// total is the requests for targets that begin so.
func (o *origin) total(prefix string) (n int) {
	for target, count := range o.hits.all() {
		if strings.HasPrefix(target, prefix) {
			n += count
		}
	}
	return n
}

// awaitTotal waits until so many requests came.
func (o *origin) awaitTotal(t testing.TB, prefix string, n int) {
	t.Helper()
	eventually(t, 10*time.Second, func() error {
		if got := o.total(prefix); got < n {
			return fmt.Errorf("the origin was asked %d times for %s, want %d", got, prefix, n)
		}
		return nil
	})
}

// give answers with a body that has a length.
func give(w http.ResponseWriter, cacheControl, body string) {
	h := w.Header()
	if cacheControl != "" {
		h.Set("Cache-Control", cacheControl)
	}
	h.Set("Content-Type", "text/plain")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = io.WriteString(w, body)
}

// linger lets some time go by, as work would, while the gateway still wants the answer.
func linger(r *http.Request, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
	}
}

// askers adds n workers with an asker each to a crowd.
func (c *crowd) askers(n int, addr string, step func(worker int, k *asker) error) {
	all := make([]asker, n)
	c.add(n, func(i int, _ *caller) (bool, error) {
		k := &all[i]
		k.addr = addr
		return true, step(i, k)
	}, "")
	c.t.Cleanup(func() {
		for i := range all {
			all[i].hangUp()
		}
	})
}

// purge asks for a purge and returns the status and the answer.
func (g *gateway) purge(what string) (status int, answer string) {
	g.t.Helper()
	resp, body := g.adminDo(http.MethodPost, "/v1/cache/purge", what, "Content-Type", "application/json")
	return resp.StatusCode, string(body)
}

// seed returns a random source and logs what it grew from.
func seed(t testing.TB) *rand.Rand {
	a, b := rand.Uint64(), rand.Uint64()
	t.Logf("seed: %#x, %#x", a, b)
	return rand.New(rand.NewPCG(a, b))
}

// gateways starts n of them, at once, with one config.
func gateways(t testing.TB, n int, s setup) []*gateway {
	t.Helper()
	sluice(t, s.measured) // built once, before all ask for it
	all := make([]*gateway, n)
	for i := range all {
		all[i] = start(t, s)
	}
	return all
}

// cacheConfig is a gateway with a cache before an origin. @STATE@ is state, @CACHE@
// the stores and @ROUTES@ the routes; all of them go to the upstream o.
const cacheConfig = `
listeners: [{name: plain, address: "@PLAIN@"}]
admin: {address: "@ADMIN@", pprof: true}
limits: {max_connections: 0, admission: {max_in_flight: 50000}}
log: {access: {output: none}}
state: @STATE@
cache: @CACHE@
upstreams: {o: {targets: ["http://@ORIGIN@"]}}
routes:
@ROUTES@
`

// caching is a setup of cacheConfig for an origin.
func caching(o *origin, redis, stores string, routes ...string) setup {
	return cachingAt(o.addr(), redis, stores, routes...)
}

// cachingAt is a setup of cacheConfig. redis is empty for memory alone; stores is more of
// the cache block, such as "memory: 1MiB".
func cachingAt(addr, redis, stores string, routes ...string) setup {
	state, shared := "{}", "shared: false"
	if redis != "" {
		state, shared = fmt.Sprintf("{redis: %s}", redis), "shared: true"
	}
	if stores != "" {
		stores = ", " + stores
	}
	if len(routes) == 0 {
		routes = []string{`{name: all, path: "/{rest...}", cache: {tags: Surrogate-Key}, upstream: o}`}
	}
	return setup{config: cacheConfig, vars: map[string]string{
		"ORIGIN": addr, "STATE": state, "CACHE": "{" + shared + stores + "}",
		"ROUTES": "  - " + strings.Join(routes, "\n  - "),
	}}
}

// awaitMetric waits until a metric has reached a value.
func (g *gateway) awaitMetric(least float64, name string, labels ...string) {
	g.t.Helper()
	eventually(g.t, 10*time.Second, func() error {
		if got := g.metric(name, labels...); got < least {
			return fmt.Errorf("%s%v is %v, want %v", name, labels, got, least)
		}
		return nil
	})
}
