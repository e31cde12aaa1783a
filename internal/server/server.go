// Package server is the gateway's front door: it accepts connections, speaks
// HTTP/1.1 and HTTP/2 with clients, plain and over TLS, and hands what they ask
// to a Handler as exchanges. It enforces every limit on what a client may use
// before and beside the Handler.
//
// # Drivers
//
// HTTP/1 is driven by a goroutine per connection (conn.go) over sock and http1.
// HTTP/2 is served by net/http and adapted to the same exchange (h2.go), on
// connections that agreed on it (ALPN) or begin with its preface.
//
//	listener → conn → process → exchange → Handler.Serve → respond → Handler.Done
//	               ↘ handOver → net/http → stream → the same
//
// # Who waits for what
//
// The connection's goroutine does all the work of an exchange. The sweeper
// (sweep.go) looks after what has taken long; a drain (drain.go) ends listeners
// without losing a request; the watcher keeps certificates up to date.
package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// Handler decides about exchanges.
type Handler interface {
	// Serve fills x.Response, always: a refusal is a response too. The response
	// is written when it returns. It runs on the goroutine of the connection, or
	// of the stream.
	//
	// Another goroutine may read x.Request.Body, from Serve until Close of
	// x.Response.Body returns. Before that Close the driver cancels the request
	// body, so that a reader does not wait for the client any more.
	Serve(x *exchange.Exchange)
	// Done is called once for every call of Serve, when the response was written
	// or given up. x is not used after it returns.
	Done(x *exchange.Exchange)
}

// Options are what a Server is made with.
type Options struct {
	Log *slog.Logger // nil: nothing is logged
}

// Server is a set of listeners with one Handler. Its methods may be called from
// any goroutine.
type Server struct {
	handler Handler
	log     *slog.Logger
	timing  timing

	slots     sync.Pool
	streams   sync.Pool
	buffers   buffers
	date      httpDate
	gate      gate
	admission atomic.Pointer[admission]
	shards    atomic.Uint32
	watcher   *watcher

	mu        sync.Mutex // guards what follows: one change at a time
	listeners []*listener
	leaving   []*listener // removed, and with connections still
	closed    bool
	stop      chan struct{} // ends the sweeper
	running   sync.WaitGroup
}

// timing is what tests make shorter.
type timing struct {
	tick  time.Duration // of the sweeper
	quiet time.Duration // see drain.go
	grace time.Duration // see paceGrace
}

// paceGrace is how long a client is waited for, in one body, before its pace
// counts.
const paceGrace = 5 * time.Second

// New makes a server without listeners.
func New(h Handler, o Options) *Server {
	return newServer(h, o, timing{tick: sweepTick, quiet: drainQuiet, grace: paceGrace})
}

func newServer(h Handler, o Options, t timing) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{handler: h, log: o.Log, timing: t, stop: make(chan struct{})}
	s.date.set(time.Now())
	s.watcher = newWatcher(s.log)
	s.running.Go(func() { s.sweep(t.tick, s.stop) })
	return s
}

// Addrs are the addresses that are listened on, by the listener's name.
func (s *Server) Addrs() map[string]net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]net.Addr{}
	for _, l := range s.listeners {
		all[l.set.Load().name] = l.socket.Addr()
	}
	return all
}

// all are the listeners that have or may get connections.
func (s *Server) all() []*listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(slices.Clone(s.listeners), s.leaving...)
}

// getSlot lends a slot.
func (s *Server) getSlot() *slot {
	if t, ok := s.slots.Get().(*slot); ok {
		return t
	}
	t := new(slot)
	t.in.init()
	return t
}

// freeSlot takes a slot back. Its exchange was Reset.
func (s *Server) freeSlot(t *slot) {
	t.in.r, t.in.w = 0, 0
	t.in.settle(&s.buffers)
	s.slots.Put(t)
}

// panicked logs a panic that was contained.
func (s *Server) panicked(p any, listener string) {
	s.log.Error("panic while serving a request", "listener", listener, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
}

// Close ends everything at once: listeners and connections. It waits for the
// connections' goroutines, but not for ever: the error says how many are left.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	all := append(slices.Clone(s.listeners), s.leaving...)
	s.mu.Unlock()
	for _, l := range all {
		l.shut()
	}
	left := s.cutAll(all)
	close(s.stop)
	s.watcher.close()
	s.running.Wait()
	if left > 0 {
		return fmt.Errorf("server: %d connections did not end", left)
	}
	return nil
}

// ListenerStats are numbers of one listener. The counters only grow as long as
// its address is listened on.
type ListenerStats struct {
	Name    string
	Address string

	Open    int // connections, of which
	Idle    int // wait for a request, and
	Tunnels int // were upgraded; the others are at work
	HTTP2   int // connections that speak HTTP/2, at work or not
	Streams int // of HTTP/2, at work

	Accepted      uint64 // connections
	Refused       uint64 // connections over a limit
	BadHandshakes uint64 // TLS handshakes that failed
}

// Stats are the numbers of all listeners, in the order of the configuration;
// those that are being drained come last.
func (s *Server) Stats() []ListenerStats {
	var all []ListenerStats
	for _, l := range s.all() {
		all = append(all, l.stats())
	}
	return all
}

var errClosed = errors.New("server: closed")
