package apptest

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// echoed is what the echo origin tells of a request.
type echoed struct {
	Method  string
	URI     string
	Host    string
	Proto   string
	Header  http.Header
	Length  int64 // -1: chunked
	Body    string
	Size    int
	SHA256  string
	Trailer http.Header
}

// echo is an origin that tells each client, as JSON, what it got from the
// gateway, and does what a few paths ask for.
type echo struct {
	*httptest.Server
	mu    sync.Mutex
	hits  map[string]int // by X-Case, so that parallel tests do not meet
	gates map[string]chan struct{}
}

func newEcho(t testing.TB) *echo {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return newEchoOn(t, ln)
}

func newEchoOn(t testing.TB, ln net.Listener) *echo {
	e := &echo{hits: map[string]int{}, gates: map[string]chan struct{}{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/status/{code}", e.status)
	mux.HandleFunc("/trailer", e.trailer)
	mux.HandleFunc("/early", e.early)
	mux.HandleFunc("/hop", e.hop)
	mux.HandleFunc("/bytes/{n}", e.bytes)
	mux.HandleFunc("/zeros/{n}", e.zeros)
	mux.HandleFunc("/hang", e.hang)
	mux.HandleFunc("/gate/{name}", e.gate)
	mux.HandleFunc("/sse", e.sse)
	mux.HandleFunc("/duplex", e.duplex)
	mux.HandleFunc("/refuse-early", e.refuseEarly)
	root := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		e.hits[r.Header.Get("X-Case")]++
		e.mu.Unlock()
		// The mux would redirect paths that are not clean.
		if _, pattern := mux.Handler(r); pattern != "" && !strings.Contains(r.URL.Path, "//") {
			mux.ServeHTTP(w, r)
			return
		}
		e.tell(w, r)
	})
	e.Server = &httptest.Server{Listener: ln, Config: &http.Server{Handler: root}}
	e.Start()
	t.Cleanup(func() { e.CloseClientConnections(); e.Close() })
	return e
}

func (e *echo) addr() string { return e.Listener.Addr().String() }

func (e *echo) count(name string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.hits[name]
}

func (e *echo) tell(w http.ResponseWriter, r *http.Request) {
	hash := sha256.New()
	var kept strings.Builder
	n, err := io.Copy(io.MultiWriter(hash, &limited{&kept, 4096}), r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(echoed{
		Method: r.Method, URI: r.RequestURI, Host: r.Host, Proto: r.Proto, Header: r.Header,
		Length: r.ContentLength, Body: kept.String(), Size: int(n), SHA256: hex.EncodeToString(hash.Sum(nil)), Trailer: r.Trailer,
	})
}

// limited keeps the first bytes only.
type limited struct {
	to   *strings.Builder
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(l.left, len(p))
	l.to.Write(p[:n])
	l.left -= n
	return len(p), nil
}

// status answers with the code of its path, and a body where one may be.
func (e *echo) status(w http.ResponseWriter, r *http.Request) {
	code, err := strconv.Atoi(r.PathValue("code"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("X-Origin", "yes")
	w.Header().Set("Content-Type", "text/plain")
	if code == http.StatusMovedPermanently {
		w.Header().Set("Location", "/elsewhere")
	}
	w.WriteHeader(code)
	if code != http.StatusNoContent && code != http.StatusNotModified {
		fmt.Fprintf(w, "origin says %d", code)
	}
}

func (e *echo) trailer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Trailer", "X-Sum")
	w.WriteHeader(http.StatusOK)
	_, _ = io.WriteString(w, "body with a trailer")
	w.(http.Flusher).Flush()
	w.Header().Set("X-Sum", "42")
}

func (e *echo) early(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Link", "</style.css>; rel=preload")
	w.WriteHeader(http.StatusEarlyHints)
	w.Header().Del("Link")
	_, _ = io.WriteString(w, "after the hint")
}

// hop answers with fields that belong to its own connection.
func (e *echo) hop(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Connection", "X-Secret-Hop")
	h.Set("X-Secret-Hop", "1")
	h.Set("Keep-Alive", "timeout=5")
	h.Set("Proxy-Connection", "keep-alive")
	h.Set("Upgrade", "h2c")
	h.Set("X-End-To-End", "1")
	h.Add("Set-Cookie", "a=1")
	h.Add("Set-Cookie", "b=2")
	_, _ = io.WriteString(w, "hop")
}

// bytes answers with n bytes whose length is told, or not with ?chunked.
func (e *echo) bytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.PathValue("n"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if !r.URL.Query().Has("chunked") {
		w.Header().Set("Content-Length", strconv.Itoa(n))
	}
	_, _ = io.Copy(w, newPattern(int64(n)))
}

// zeros answers with n bytes at no cost to this process, for thousands of readers.
func (e *echo) zeros(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.PathValue("n"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(n))
	for n > 0 {
		piece := nothing[:min(n, len(nothing))]
		if _, err := w.Write(piece); err != nil {
			return
		}
		n -= len(piece)
	}
}

var nothing [32 << 10]byte

// hang never answers. It opens the gate "left " + X-Case when its client has gone.
func (e *echo) hang(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	select {
	case <-r.Context().Done():
		close(e.opened("left " + r.Header.Get("X-Case")))
	case <-time.After(30 * time.Second):
	}
}

// opened returns the gate of that name, which requests wait at until it is closed.
func (e *echo) opened(name string) chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gates[name] == nil {
		e.gates[name] = make(chan struct{})
	}
	return e.gates[name]
}

// gate answers when its gate has been closed. With ?head it sends the head and
// half of the body before it waits.
func (e *echo) gate(w http.ResponseWriter, r *http.Request) {
	half := r.URL.Query().Has("head")
	if half {
		_, _ = io.WriteString(w, "first half, ")
		w.(http.Flusher).Flush()
	}
	select {
	case <-e.opened(r.PathValue("name")):
	case <-r.Context().Done():
		return
	}
	_, _ = io.WriteString(w, "second half")
}

// sse sends ?n events, each with the time at which it left, ?gap apart.
func (e *echo) sse(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.Atoi(r.URL.Query().Get("n"))
	gap, _ := time.ParseDuration(r.URL.Query().Get("gap"))
	w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(max(gap, time.Millisecond))
	defer tick.Stop()
	for i := range n {
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
		fmt.Fprintf(w, "id: %d\ndata: %d\n\n", i, time.Now().UnixNano())
		w.(http.Flusher).Flush()
	}
}

// duplex sends each line back as soon as it has come.
func (e *echo) duplex(w http.ResponseWriter, r *http.Request) {
	c := http.NewResponseController(w)
	if err := c.EnableFullDuplex(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		fmt.Fprintln(w, lines.Text())
		if c.Flush() != nil {
			return
		}
	}
}

// refuseEarly answers before it has read the body, and then ends the connection.
func (e *echo) refuseEarly(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close")
	w.WriteHeader(http.StatusForbidden)
	_, _ = io.WriteString(w, "no need to go on")
}

// pattern is a stream of n bytes that does not repeat within reach, so that a
// lost, doubled or moved piece shows.
type pattern struct {
	left  int64
	state uint64
	word  [8]byte
	used  int
}

func newPattern(n int64) *pattern { return &pattern{left: n, state: 0x9e3779b97f4a7c15, used: 8} }

// Read fills p with the next bytes (xorshift64*, one word at a time).
func (s *pattern) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), s.left)]
	n := 0
	for n < len(p) {
		for s.used == 8 && len(p)-n >= 8 {
			binary.LittleEndian.PutUint64(p[n:], s.next())
			n += 8
		}
		if n == len(p) {
			break
		}
		if s.used == 8 {
			binary.LittleEndian.PutUint64(s.word[:], s.next())
			s.used = 0
		}
		c := copy(p[n:], s.word[s.used:])
		s.used += c
		n += c
	}
	s.left -= int64(n)
	return n, nil
}

func (s *pattern) next() uint64 {
	x := s.state
	x ^= x >> 12
	x ^= x << 25
	x ^= x >> 27
	s.state = x
	return x * 0x2545f4914f6cdd1d
}

// samePattern compares what r holds with the first n bytes of the pattern.
func samePattern(r io.Reader, n int64) error {
	want := newPattern(n)
	got, expected := make([]byte, 256<<10), make([]byte, 256<<10)
	var at int64
	for {
		m, err := io.ReadFull(r, got)
		if _, werr := io.ReadFull(want, expected[:m]); werr != nil && m > 0 {
			return fmt.Errorf("more than the %d bytes that were sent", n)
		}
		if !bytes.Equal(got[:m], expected[:m]) {
			return fmt.Errorf("a byte differs between %d and %d", at, at+int64(m))
		}
		at += int64(m)
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			if at != n {
				return fmt.Errorf("%d bytes, want %d", at, n)
			}
			return nil
		case err != nil:
			return fmt.Errorf("after %d bytes: %w", at, err)
		}
	}
}
