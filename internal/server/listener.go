package server

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/http1"
	"github.com/sluice-gateway/sluice/internal/sock"
)

// A listener is an address that is listened on, with the connections that came
// through it. It lives as long as the address stays in the configuration; what
// else the configuration says of it is in settings, which new connections take.
type listener struct {
	server *Server
	key    string // which listener of the configuration it is: the address, and a number where it is there twice
	socket *net.TCPListener
	set    atomic.Pointer[settings]

	conns   registry[conn]
	streams registry[stream]
	// resume is what every handshake begins with. It stays the same when
	// certificates and settings change, and with it the keys of session tickets.
	resume *tls.Config

	stopping atomic.Bool   // accept what is there, then close
	stopped  chan struct{} // closed when nothing is accepted any more
	shutting sync.Once
	shutNow  chan struct{}

	draining atomic.Bool  // responses say Connection: close
	cutting  atomic.Bool  // whatever is left ends now
	quiet    atomic.Int64 // a time.Duration: how long a connection may idle in this drain,
	backlog  atomic.Int64 // and how long the queue is looked at

	h2mu    sync.Mutex
	h2s     map[*h2server]struct{} // that have or may get connections
	settled bool                   // no further h2server may begin

	accepted, refused, badHandshakes atomic.Uint64
}

// settings are what a connection goes by from its beginning to its end.
type settings struct {
	name      string
	tls       *identity // nil: plain
	redirect  bool
	httpsPort string // for redirects: ":8443", or empty

	header, idle, bodyIdle, writeIdle, tunnelIdle time.Duration // 0: no limit
	rate                                          int64         // bytes a second; 0: no limit
	head                                          http1.Limits

	h2 atomic.Pointer[h2server] // serves connections of these settings; nil: none has asked
}

// maxFields bounds the fields of a head: what real clients send, with much room.
// Only the size of the head has a setting.
const maxFields = 256

// keepAliveIdle is when the system begins to ask a silent peer whether it is
// there. Only tunnels and long streams are ever silent for so long.
const keepAliveIdle = 60 * time.Second

// bind opens a socket.
func bind(address string) (*net.TCPListener, error) {
	// The options are set once on the socket, whose connections inherit them,
	// instead of four calls for each connection.
	lc := net.ListenConfig{KeepAlive: -1, Control: inheritOptions}
	lc.SetMultipathTCP(false) // such sockets take no filter (see refuseNew)
	l, err := lc.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

func newListener(s *Server, key string, socket *net.TCPListener) *listener {
	l := &listener{
		server: s, key: key, socket: socket,
		stopped: make(chan struct{}), shutNow: make(chan struct{}),
		h2s: map[*h2server]struct{}{},
	}
	l.resume = &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		w, ok := hello.Conn.(*wire)
		if !ok {
			return nil, errClosed
		}
		return w.c.set.tls.current.Load(), nil
	}}
	return l
}

// Waits after a failed accept: what fails it, such as a lack of file descriptors,
// does not go away at once, and must not end the listener.
const (
	acceptWaitLeast = 5 * time.Millisecond
	acceptWaitMost  = time.Second
)

// accept is the goroutine of a listener.
func (l *listener) accept() {
	defer close(l.stopped)
	defer l.socket.Close()
	wait := acceptWaitLeast
	for {
		if l.stopping.Load() {
			_ = l.socket.SetDeadline(l.backlogUntil()) // an error shows at the accept
		}
		c, err := l.socket.AcceptTCP()
		switch {
		case err == nil:
			wait = acceptWaitLeast
			l.admit(c)
		case errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			if l.stopping.Load() {
				return
			}
		default:
			l.server.log.Warn("cannot accept a connection", "listener", l.set.Load().name, "again_in", wait, "cause", err)
			if !l.pause(wait) {
				return
			}
			wait = min(2*wait, acceptWaitMost)
		}
	}
}

// pause waits, and reports false when the listener is shut.
func (l *listener) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.shutNow:
		return false
	}
}

// shut closes the socket at once.
func (l *listener) shut() {
	l.shutting.Do(func() { close(l.shutNow) })
	_ = l.socket.Close() // it may be closed already
	<-l.stopped
}

// admit makes a connection of what was accepted.
func (l *listener) admit(tc *net.TCPConn) {
	s, set := l.server, l.set.Load()
	peer := addrPort(tc.RemoteAddr())
	key, ok := s.gate.enter(peer.Addr())
	if !ok {
		l.refused.Add(1)
		turnAway(tc, set)
		return
	}
	sc, err := sock.New(tc)
	if err != nil {
		s.gate.leave(key)
		_ = tc.Close() // it is of no use
		return
	}
	l.accepted.Add(1)
	sc.Stall = set.writeIdle
	sc.Out = sock.Pace{Floor: set.rate, Grace: s.timing.grace}
	c := &conn{server: s, l: l, set: set, sock: sc, key: key, fresh: set.tls == nil}
	c.info.Peer, c.info.Local = peer, addrPort(tc.LocalAddr())
	c.info.Listener, c.info.Shard = set.name, s.shards.Add(1)
	l.conns.add(c, c.info.Shard)
	go c.serve()
}

// turnAway refuses a connection. A plain one is told so, with one write into a
// socket that is empty, so nothing waits.
func turnAway(tc *net.TCPConn, set *settings) {
	if set.tls == nil {
		_, _ = tc.Write([]byte(turnedAway)) // who does not read it sees the end
	}
	_ = tc.Close() // nothing can be done about it
}

const turnedAwayBody = `{"type":"about:blank","title":"Overloaded","status":503,"code":"overloaded"}` + "\n"

var turnedAway = "HTTP/1.1 503 Service Unavailable\r\n" +
	"Content-Type: application/problem+json\r\n" +
	"Retry-After: 1\r\n" +
	"Content-Length: " + strconv.Itoa(len(turnedAwayBody)) + "\r\n" +
	"Connection: close\r\n\r\n" + turnedAwayBody

// forget ends the count of a connection that has closed.
func (l *listener) forget(c *conn) {
	if h := c.h2; h != nil {
		h.left()
	}
	if l.conns.remove(c, c.info.Shard) {
		l.server.gate.leave(c.key)
	}
}

func (l *listener) stats() ListenerStats {
	set := l.set.Load()
	st := ListenerStats{
		Name: set.name, Address: l.socket.Addr().String(),
		Streams:  l.streams.len(),
		Accepted: l.accepted.Load(), Refused: l.refused.Load(), BadHandshakes: l.badHandshakes.Load(),
	}
	l.conns.each(func(c *conn) {
		st.Open++
		switch c.state.v.Load() & stateMask {
		case idle, poked:
			st.Idle++
		case tunnelled:
			st.Tunnels++
		case handed:
			st.HTTP2++
		}
	})
	return st
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
