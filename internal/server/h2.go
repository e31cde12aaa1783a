package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/internal/sock"
)

// HTTP/2 is served by net/http, which has had the years and the attacks that a
// server of our own would have to wait for. Connections come to it through a
// listener that is in this process, from the conn that accepted them and found
// out what they speak. What it serves is adapted to exchanges (stream.go).
//
// Its own bounds on floods hold: on concurrent streams, on streams that are
// opened and reset at once, on control frames that the client does not read, on
// the header list and its continuations.
const (
	maxStreams         = 250     // at one time, on one connection
	receiveConnection  = 1 << 20 // bytes of request bodies on the way or not read yet, of one connection
	receiveStream      = 256 << 10
	readFrame          = 16 << 10 // largest frame; a connection may hold one
	mostHeaderListSize = 16 << 20
)

// preface is what a client sends first that speaks HTTP/2 (RFC 9113 §3.4). To
// HTTP/1 it is a bad request, by design.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

type prefaceMatch uint8

const (
	prefaceNone prefaceMatch = iota
	prefacePart
	prefaceWhole
)

// prefaceOf tells whether b begins with the preface, or may.
func prefaceOf(b []byte) prefaceMatch {
	switch {
	case len(b) >= len(preface) && string(b[:len(preface)]) == preface:
		return prefaceWhole
	case len(b) < len(preface) && string(b) == preface[:len(b)]:
		return prefacePart
	}
	return prefaceNone
}

// h2server serves the HTTP/2 connections of one listener that go by the same
// settings.
type h2server struct {
	l     *listener
	set   *settings
	http  http.Server
	queue chan net.Conn
	ctx   context.Context // of Shutdown
	stop  context.CancelFunc

	closing sync.Once
	closed  chan struct{} // closed when no connection is taken any more

	conns   atomic.Int64
	retired atomic.Bool // closes with its last connection
}

type connKey struct{}

func newH2Server(l *listener, set *settings) *h2server {
	h := &h2server{l: l, set: set, queue: make(chan net.Conn), closed: make(chan struct{})}
	h.ctx, h.stop = context.WithCancel(context.Background())
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	h.http = http.Server{
		Handler:           h,
		IdleTimeout:       set.idle,
		ReadHeaderTimeout: set.header,
		// Larger than what is let through, so that it is we who refuse it, with a
		// problem document.
		MaxHeaderBytes:               min(2*(set.head.Head+smallBuffer), mostHeaderListSize),
		DisableGeneralOptionsHandler: true,
		Protocols:                    protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          maxStreams,
			MaxReceiveBufferPerConnection: receiveConnection,
			MaxReceiveBufferPerStream:     receiveStream,
			MaxReadFrameSize:              readFrame,
		},
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, connOf(nc))
		},
		ConnState: func(nc net.Conn, to http.ConnState) {
			if to == http.StateClosed { // its goroutines have nothing left to do
				connOf(nc).ended()
			}
		},
		ErrorLog: slog.NewLogLogger(l.server.log.Handler(), slog.LevelDebug),
	}
	return h
}

// connOf is the conn that was handed over as nc.
func connOf(nc net.Conn) *conn {
	switch nc := nc.(type) {
	case *tls.Conn:
		return nc.NetConn().(*wire).c
	case *clearConn:
		return nc.c
	}
	return nil
}

// Accept, Close and Addr make the h2server a net.Listener.

// Accept waits for a connection that is handed over.
func (h *h2server) Accept() (net.Conn, error) {
	select {
	case c := <-h.queue:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close ends the taking of connections.
func (h *h2server) Close() error {
	h.closing.Do(func() { close(h.closed) })
	return nil
}

// Addr is that of the listener.
func (h *h2server) Addr() net.Addr { return h.l.socket.Addr() }

// take hands nc over, and reports false when h takes none any more.
func (h *h2server) take(nc net.Conn) bool {
	h.conns.Add(1)
	select {
	case h.queue <- nc:
		return true
	case <-h.closed:
		h.conns.Add(-1)
		return false
	}
}

// left counts a connection that has ended.
func (h *h2server) left() {
	if h.conns.Add(-1) == 0 && h.retired.Load() {
		h.l.server.running.Go(h.end)
	}
}

// retire makes h end with its last connection.
func (h *h2server) retire() {
	h.retired.Store(true)
	if h.conns.Load() == 0 {
		h.l.server.running.Go(h.end)
	}
}

// end closes what is left.
func (h *h2server) end() {
	h.stop()
	_ = h.http.Close() // connections that are cut have nothing more to say
	_ = h.Close()
	h.l.h2mu.Lock()
	defer h.l.h2mu.Unlock()
	delete(h.l.h2s, h)
}

// goAway has every connection finish what it has and then close.
func (h *h2server) goAway() {
	h.l.server.running.Go(func() {
		_ = h.http.Shutdown(h.ctx) // ends with the connections, or with h
	})
}

// handOver gives the connection to HTTP/2. early is what was read already.
func (c *conn) handOver(early []byte) {
	var nc net.Conn = c.tls
	if c.tls == nil {
		nc = &clearConn{Conn: c.sock, c: c, early: bytes.Clone(early)}
	}
	c.away = true
	c.state.leave(handed)
	c.forgetDeadline()
	if c.slot != nil {
		c.free()
	}
	for {
		h := c.l.h2For(c.set)
		if h == nil {
			_ = nc.Close() // the server is closing
			c.ended()
			return
		}
		c.h2 = h
		if h.take(nc) {
			return
		}
		c.h2 = nil
		c.set.h2.CompareAndSwap(h, nil)
	}
}

// ended ends a connection that was handed over.
func (c *conn) ended() {
	c.state.leave(gone)
	c.l.forget(c)
}

// h2For returns the server of connections that go by set, nil when the listener
// has ended.
func (l *listener) h2For(set *settings) *h2server {
	if h := set.h2.Load(); h != nil {
		return h
	}
	l.h2mu.Lock()
	defer l.h2mu.Unlock()
	if h := set.h2.Load(); h != nil {
		return h
	}
	if l.settled {
		return nil
	}
	h := newH2Server(l, set)
	h.retired.Store(l.set.Load() != set)
	l.h2s[h] = struct{}{}
	set.h2.Store(h)
	l.server.running.Go(func() { _ = h.http.Serve(h) }) // it ends with http.ErrServerClosed
	return h
}

// rotateH2 has connections to come served by a new server, and returns the ones
// there were.
func (l *listener) rotateH2() []*h2server {
	l.h2mu.Lock()
	defer l.h2mu.Unlock()
	var all []*h2server
	for h := range l.h2s {
		h.set.h2.CompareAndSwap(h, nil)
		all = append(all, h)
	}
	return all
}

// closeH2 cuts every connection of HTTP/2 and lets none begin.
func (l *listener) closeH2() {
	l.h2mu.Lock()
	l.settled = true
	l.h2mu.Unlock()
	for _, h := range l.rotateH2() {
		h.end()
	}
}

// clearConn is a plain connection that is handed over. It gives what was read
// already first, and reads ahead, since net/http asks for the nine bytes of a
// frame's head and then for the rest.
type clearConn struct {
	*sock.Conn
	c     *conn
	early []byte
	ahead [4 << 10]byte
}

// Read reads what is there.
func (n *clearConn) Read(p []byte) (int, error) {
	if len(n.early) == 0 {
		if len(p) >= len(n.ahead) {
			return n.Conn.Read(p)
		}
		got, err := n.Conn.Read(n.ahead[:])
		if got == 0 {
			return 0, err
		}
		n.early = n.ahead[:got]
	}
	got := copy(p, n.early)
	n.early = n.early[got:]
	return got, nil
}

// Write writes p whole.
func (n *clearConn) Write(p []byte) (int, error) { return n.c.send(p) }
