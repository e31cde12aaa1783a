package server

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/http1"
)

// Apply makes listeners the ones that are listened on, and limits what new
// connections and requests go by. An address that was listened on before keeps
// its socket and its connections; one that is not there any more is drained in
// the background. trusted are the proxies that bring the connections of many
// clients. Relative paths are relative to dir.
//
// When an address cannot be bound, or a certificate cannot be read, nothing has
// changed, and the error says everything that is wrong.
func (s *Server) Apply(listeners []config.Listener, limits config.Limits, trusted []netip.Prefix, dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	p, err := s.plan(listeners, &limits, dir)
	if err != nil {
		for _, l := range p.bound {
			_ = l.socket.Close() // it was never used
		}
		return err
	}
	s.gate.set(limits.MaxConnections, limits.MaxConnectionsPerIP, trusted)
	if a := newAdmission(&limits); !a.same(s.admission.Load()) {
		s.admission.Store(a)
	}
	for i, l := range p.next {
		l.adopt(p.settings[i])
	}
	for _, l := range p.bound {
		go l.accept()
	}
	for _, l := range s.listeners {
		if !p.keeps(l) {
			s.leaving = append(s.leaving, l)
			s.running.Go(func() { s.retire(l, limits.DrainTimeout.Duration) })
		}
	}
	s.listeners = p.next
	s.watcher.watch(p.ids)
	return nil
}

// Check reports what Apply would refuse about listeners, but for addresses that
// cannot be bound: it opens no socket.
func Check(listeners []config.Listener, dir string) error {
	var failed []error
	secure, redirects := false, false
	for i := range listeners {
		c := &listeners[i]
		secure, redirects = secure || c.TLS != nil, redirects || c.Redirect == "https"
		if c.TLS == nil {
			continue
		}
		if _, err := newIdentity(c.TLS, dir); err != nil {
			failed = append(failed, fmt.Errorf("listener %s: %w", nameOf(c), err))
		}
	}
	if redirects && !secure {
		failed = append(failed, errNoTarget)
	}
	return errors.Join(failed...)
}

var errNoTarget = errors.New("redirect: https needs a listener with tls to redirect to")

func nameOf(c *config.Listener) string {
	if c.Name == "" {
		return c.Address
	}
	return c.Name
}

// plan is what Apply will do once everything that can fail has not.
type plan struct {
	next     []*listener // in the order of the configuration
	settings []*settings // of each
	bound    []*listener // those of next that are new
	ids      []*identity
}

func (p *plan) keeps(l *listener) bool {
	for _, n := range p.next {
		if n == l {
			return true
		}
	}
	return false
}

func (s *Server) plan(listeners []config.Listener, limits *config.Limits, dir string) (p plan, err error) {
	var failed []error
	count := map[string]int{}
	for i := range listeners {
		c := &listeners[i]
		set := newSettings(c, limits)
		p.settings = append(p.settings, set)
		if c.TLS != nil {
			id, err := newIdentity(c.TLS, dir)
			if err != nil {
				failed = append(failed, fmt.Errorf("listener %s: %w", set.name, err))
			}
			set.tls = id
			p.ids = append(p.ids, id)
		}
		key := c.Address + "#" + strconv.Itoa(count[c.Address])
		count[c.Address]++
		l := s.listening(key)
		if l == nil {
			socket, err := bind(c.Address)
			if err != nil {
				failed = append(failed, fmt.Errorf("listener %s: %w", set.name, err))
				continue
			}
			l = newListener(s, key, socket)
			p.bound = append(p.bound, l)
		}
		p.next = append(p.next, l)
	}
	if len(failed) > 0 {
		return p, errors.Join(failed...)
	}
	return p, p.redirects()
}

// listening returns the listener that has a key already.
func (s *Server) listening(key string) *listener {
	for _, l := range s.listeners {
		if l.key == key {
			return l
		}
	}
	return nil
}

// redirects finds the port that redirecting listeners send to: that of the first
// listener with TLS.
func (p *plan) redirects() error {
	port := ""
	for i, set := range p.settings {
		if set.tls != nil {
			port = ":" + strconv.Itoa(p.next[i].socket.Addr().(*net.TCPAddr).Port)
			break
		}
	}
	for _, set := range p.settings {
		switch {
		case !set.redirect:
		case port == "":
			return fmt.Errorf("listener %s: %w", set.name, errNoTarget)
		case port != ":443":
			set.httpsPort = port
		}
	}
	return nil
}

func newSettings(c *config.Listener, l *config.Limits) *settings {
	set := &settings{
		name:       nameOf(c),
		redirect:   c.Redirect == "https",
		header:     l.HeaderTimeout.Duration,
		idle:       l.IdleTimeout.Duration,
		bodyIdle:   l.BodyIdleTimeout.Duration,
		writeIdle:  l.WriteIdleTimeout.Duration,
		tunnelIdle: l.TunnelIdleTimeout.Duration,
		rate:       l.MinBodyRate.Bytes,
		head:       http1.Limits{Head: int(min(l.MaxHeaderSize.Bytes, math.MaxInt32)), Fields: maxFields},
	}
	if set.head.Head <= 0 {
		set.head.Head = math.MaxInt32 - 1
	}
	return set
}

// adopt makes set what new connections go by.
func (l *listener) adopt(set *settings) {
	if old := l.set.Swap(set); old != nil {
		if h := old.h2.Load(); h != nil {
			h.retire()
		}
	}
}
