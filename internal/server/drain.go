package server

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// # Ending without losing a request
//
// A request is lost when its bytes are on their way, or here, and the answer is
// a reset or an end of the connection. These are the places where that can
// happen, and what is done:
//
// The queue of the listening socket. Connections in it are established for their
// clients, who may have sent requests; closing the socket resets them all. So
// first the system is told to begin no new connections (refuseNew), then the
// queue is accepted to its end: until none came for backlogQuiet, which leaves
// those whose handshake was under way the time for its last segment. Only then
// is the socket closed. Without refuseNew a connection that arrives between the
// last look and the close is reset; that is some microseconds.
//
// An idle connection. A client may use it at any moment, and there is no way to
// close it that a request cannot cross on the wire (RFC 9112 §9.5 has clients try
// again). What can be had is that it does not happen to those who use their
// connections: every response says Connection: close from the beginning of the
// drain on, and an idle connection is closed only when for the whole time of
// drainQuiet nothing came, and its socket has nothing to read at the very
// moment. What remains is a request that a client sent within one round trip
// before that moment after a second of silence.
//
// A request that is being read or served. It is served to its end, however late
// in the drain it began, and its connection closed behind it; if its client has
// sent others behind it they are answered first.
//
// HTTP/2. GOAWAY names the last stream that will be served. Later ones are not
// begun, and the client knows that it can send them again elsewhere (RFC 9113
// §6.8). A connection that becomes one of HTTP/2 only now, because it waited in
// the queue, gets a server of its own, and its GOAWAY when the quiet time is over.
//
// Whatever is not done when the context ends is cut: upgraded tunnels too, which
// have no end of their own.
const (
	drainQuiet   = time.Second
	backlogQuiet = 300 * time.Millisecond
	backlogMost  = 2 * time.Second
)

// cutPatience is how long cut connections are waited for. Their goroutines have
// nothing to wait for any more, unless a Handler ignores Cancel.
const cutPatience = 5 * time.Second

// Drain stops accepting, lets everything that has begun finish, and closes the
// server. What has not finished when ctx ends is cut, and the error says how much
// that was. Readiness is the caller's to turn off, before.
func (s *Server) Drain(ctx context.Context) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	all := append(slices.Clone(s.listeners), s.leaving...)
	s.leaving, s.listeners = all, nil
	s.mu.Unlock()
	done := make(chan struct{}, len(all))
	for _, l := range all {
		go func() {
			l.drain(ctx)
			done <- struct{}{}
		}()
	}
	for range all {
		<-done
	}
	left := 0
	for _, l := range all {
		left += l.conns.len()
	}
	if err := s.Close(); err != nil {
		return err
	}
	if left > 0 {
		return fmt.Errorf("server: %d connections were cut: %w", left, context.Cause(ctx))
	}
	return nil
}

// retire drains a listener that is not in the configuration any more. Its
// connections may take most, 0 is for ever, and no longer than the server lives.
func (s *Server) retire(l *listener, most time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if most > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, most)
		defer stop()
	}
	go func() {
		select {
		case <-s.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	l.drain(ctx)
	if left := s.cutAll([]*listener{l}); left > 0 {
		s.log.Error("connections of a removed listener did not end", "listener", l.set.Load().name, "connections", left)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving = slices.DeleteFunc(s.leaving, func(o *listener) bool { return o == l })
}

// quietUntil is when a connection that idles in a drain is closed.
func (l *listener) quietUntil(now time.Time) time.Time {
	return now.Add(time.Duration(l.quiet.Load()))
}

// drain ends the listener. It returns when every connection has ended, or ctx.
func (l *listener) drain(ctx context.Context) {
	quiet, backlog := l.server.timing.quiet, backlogQuiet
	if end, ok := ctx.Deadline(); ok {
		left := max(time.Until(end), 0)
		quiet, backlog = min(quiet, left/2), min(backlog, left/4)
	}
	l.quiet.Store(int64(quiet))
	l.backlog.Store(int64(backlog))
	l.draining.Store(true)
	early := l.rotateH2()
	l.poke()
	for _, h := range early {
		h.goAway()
	}
	l.stopAccepting()
	wait := time.NewTimer(quiet)
	defer wait.Stop()
	late := false
	for {
		empty := l.conns.empty()
		if empty == nil {
			break
		}
		select {
		case <-empty:
			continue
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		if !late {
			late = true
			for _, h := range l.rotateH2() {
				h.goAway()
			}
		}
	}
	for _, h := range l.rotateH2() {
		h.goAway()
	}
}

// poke shortens the waits of connections that are idle.
func (l *listener) poke() {
	until := l.quietUntil(time.Now())
	l.conns.each(func(c *conn) {
		if c.state.hold(idle) {
			_ = c.sock.Conn.SetReadDeadline(until) // fails when it has closed
			c.state.release(poked)
		}
	})
}

// backlogUntil is when the queue of the socket is taken for empty, if nothing
// comes until then.
func (l *listener) backlogUntil() time.Time {
	return time.Now().Add(time.Duration(l.backlog.Load()))
}

// stopAccepting empties the queue of the socket and closes it.
func (l *listener) stopAccepting() {
	if err := refuseNew(l.socket); err != nil {
		l.server.log.Debug("connections that arrive while a listener closes may be reset", "listener", l.set.Load().name, "cause", err)
	}
	l.stopping.Store(true)
	_ = l.socket.SetDeadline(l.backlogUntil()) // an error shows at the accept
	most := time.NewTimer(backlogMost)
	defer most.Stop()
	select {
	case <-l.stopped:
	case <-most.C:
		l.shut()
	}
}

// cutAll cuts every connection of some listeners, and waits until they have
// ended. It returns how many have not.
func (s *Server) cutAll(all []*listener) int {
	end := time.NewTimer(cutPatience)
	defer end.Stop()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for _, l := range all {
		l.cutting.Store(true)
	}
	for {
		left := 0
		for _, l := range all {
			l.closeH2()
			l.conns.each(func(c *conn) { c.cut() })
			left += l.conns.len() + l.streams.len()
		}
		if left == 0 {
			return 0
		}
		select {
		case <-again.C:
		case <-end.C:
			return left
		}
	}
}
