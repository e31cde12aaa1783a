package gatetest

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Origin is an HTTP/1.1 server on a loopback port whose answers a test writes
// byte by byte, and which keeps every byte that it received.
type Origin struct {
	Addr string // host:port

	serve func(*Peer)
	ln    net.Listener
	wg    sync.WaitGroup

	mu    sync.Mutex
	peers []*Peer
	seen  []*Seen
	bad   []error       // requests that could be read in more than one way
	moved chan struct{} // closed and replaced with every request seen
	shut  bool
}

// NewOrigin starts an origin that runs serve for each connection and closes the
// connection behind it. It stops with the test.
func NewOrigin(t testing.TB, serve func(*Peer)) *Origin {
	t.Helper()
	o := &Origin{serve: serve, moved: make(chan struct{})}
	if err := o.listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Stop(); o.wg.Wait() })
	return o
}

func (o *Origin) listen(addr string) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	o.Addr = ln.Addr().String()
	o.mu.Lock()
	o.ln, o.shut = ln, false
	o.mu.Unlock()
	o.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			o.wg.Go(func() { o.run(c) })
		}
	})
	return nil
}

// Restart listens again, on the same port, after Stop.
func (o *Origin) Restart() error { return o.listen(o.Addr) }

// Stop closes the listener and resets every connection, as the death of the
// process would.
func (o *Origin) Stop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shut = true
	_ = o.ln.Close()
	for _, p := range o.peers {
		p.Reset()
	}
}

func (o *Origin) run(c net.Conn) {
	p := &Peer{Conn: c, o: o}
	p.r = bufio.NewReaderSize(io.TeeReader(c, &p.all), 32<<10)
	o.mu.Lock()
	if o.shut {
		o.mu.Unlock()
		p.Reset()
		return
	}
	p.ID = len(o.peers)
	o.peers = append(o.peers, p)
	o.mu.Unlock()
	defer c.Close()
	o.serve(p)
}

// Requests returns the requests read so far.
func (o *Origin) Requests() []*Seen {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]*Seen(nil), o.seen...)
}

// Bad returns what arrived and could not be read without doubt.
func (o *Origin) Bad() []error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]error(nil), o.bad...)
}

// Conns is the number of connections that came.
func (o *Origin) Conns() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.peers)
}

// Await waits until n requests have been read and returns them. It fails the
// test when they do not come within ten seconds.
func (o *Origin) Await(t testing.TB, n int) []*Seen {
	t.Helper()
	late := time.NewTimer(10 * time.Second)
	defer late.Stop()
	for {
		o.mu.Lock()
		seen, moved := append([]*Seen(nil), o.seen...), o.moved
		o.mu.Unlock()
		if len(seen) >= n {
			return seen
		}
		select {
		case <-moved:
		case <-late.C:
			t.Fatalf("the origin saw %d requests, want %d", len(seen), n)
		}
	}
}

// Peer is one connection to an origin.
type Peer struct {
	net.Conn
	ID int

	o    *Origin
	r    *bufio.Reader
	all  bytes.Buffer // every byte read from Conn, ahead of the parser
	done int          // bytes of all that belong to earlier requests
}

// Head reads the next request's head. The error is io.EOF when the other side
// closed the connection between requests.
func (p *Peer) Head() (*Seen, error) {
	s, err := readHead(p.r)
	if err != nil {
		var timeout net.Error
		if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.As(err, &timeout) {
			p.o.mu.Lock()
			p.o.bad = append(p.o.bad, err)
			p.o.mu.Unlock()
		}
		return nil, err
	}
	s.Conn = p.ID
	return s, nil
}

// Body reads the rest of s and counts it as seen.
func (p *Peer) Body(s *Seen) error {
	if err := s.readBody(p.r); err != nil {
		return err
	}
	end := p.all.Len() - p.r.Buffered()
	s.Raw = bytes.Clone(p.all.Bytes()[p.done:end])
	p.done = end
	p.o.mu.Lock()
	defer p.o.mu.Unlock()
	p.o.seen = append(p.o.seen, s)
	close(p.o.moved)
	p.o.moved = make(chan struct{})
	return nil
}

// Next reads a whole request. It asks for the body when the peer waits for that.
func (p *Peer) Next() (*Seen, error) {
	s, err := p.Head()
	if err == nil && strings.EqualFold(s.Header.Get("Expect"), "100-continue") {
		err = p.Send("HTTP/1.1 100 Continue\r\n\r\n")
	}
	if err == nil {
		err = p.Body(s)
	}
	return s, err
}

// Rest reads what comes behind the last request, for a protocol that follows it.
func (p *Peer) Rest() io.Reader { return p.r }

// Send writes s as it is.
func (p *Peer) Send(s string) error {
	_, err := io.WriteString(p.Conn, s)
	return err
}

// Reset closes the connection with a TCP reset.
func (p *Peer) Reset() {
	if c, ok := p.Conn.(*net.TCPConn); ok {
		_ = c.SetLinger(0)
	}
	_ = p.Conn.Close()
}

// Text is a 200 reply with a length.
func Text(body string) string {
	return "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
}

// Answer serves every request with reply, until the peer closes.
func Answer(reply func(*Seen) string) func(*Peer) {
	return func(p *Peer) {
		for {
			s, err := p.Next()
			if err != nil || p.Send(reply(s)) != nil {
				return
			}
		}
	}
}

// Script answers the requests of all connections together, one reply each. A
// reply that begins with ! is an act instead: !reset, !close, or !hang, which
// answers nothing until the gateway gives up. When the script has ended, the
// answer is a 500.
func Script(replies ...string) func(*Peer) {
	var mu sync.Mutex
	next := func() string {
		mu.Lock()
		defer mu.Unlock()
		if len(replies) == 0 {
			return "HTTP/1.1 500 Script Ended\r\nContent-Length: 0\r\n\r\n"
		}
		r := replies[0]
		replies = replies[1:]
		return r
	}
	return func(p *Peer) {
		for {
			s, err := p.Next()
			if err != nil {
				return
			}
			r := next()
			switch strings.TrimSpace(r) {
			case "!reset":
				p.Reset()
				return
			case "!close":
				return
			case "!hang":
				_, _ = io.Copy(io.Discard, p.r)
				return
			}
			if p.Send(r) != nil || endsConnection(r, s.Method) {
				return
			}
		}
	}
}

// endsConnection reports whether only the close of the connection ends reply.
func endsConnection(reply, method string) bool {
	head, _, _ := strings.Cut(strings.ToLower(reply), "\r\n\r\n")
	switch {
	case strings.Contains(head, "\r\nconnection: close"):
		return true
	case method == "HEAD" || strings.Contains(head, "\r\ncontent-length:") || strings.Contains(head, "\r\ntransfer-encoding:"):
		return false
	}
	status, _, _ := strings.Cut(strings.TrimPrefix(head, "http/1.1 "), " ")
	return !strings.HasPrefix(status, "1") && status != "204" && status != "304"
}
