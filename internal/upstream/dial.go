package upstream

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/sluice-gateway/sluice/internal/sock"
)

// dial makes a connection to e, TLS included. The end of ctx ends the attempt.
func (u *Upstream) dial(ctx context.Context, e *endpoint) (*conn, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", e.addr.String())
	if err != nil {
		return nil, err
	}
	s, err := sock.New(raw)
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	s.Stall = u.timeout
	c := &conn{sock: s, ep: e, idleFor: u.times.idle}
	if e.target.tls == nil {
		return c, nil
	}
	c.wire = &wire{Conn: s}
	c.tls = tls.Client(c.wire, e.target.tls)
	if err := c.tls.HandshakeContext(ctx); err != nil {
		c.cut()
		return nil, err
	}
	return c, nil
}

// open makes a connection for the exchange, to the call's endpoint or, when that
// does not answer, to another address of the same target: a name is reachable when
// one of its addresses is. A slot has been reserved on the endpoint.
func (k *call) open() *fault {
	ctx, stop := k.x.Context()
	defer stop()
	end := time.Now().Add(k.u.connectTimeout)
	var passed []*endpoint
	for {
		e := k.ep
		passed = append(passed, e)
		left := k.u.siblings(e, passed)
		share := time.Until(end) / time.Duration(len(left)+1)
		one, done := context.WithTimeout(ctx, share)
		c, err := k.u.dial(one, e)
		done()
		if err == nil {
			k.u.reached(e)
			k.conn = c
			k.from = time.Now()
			return nil
		}
		e.drop()
		if k.x.Canceled() {
			return clientGone(err)
		}
		f := unconnected(err)
		if by := k.x.Deadline; !by.IsZero() && !time.Now().Before(by) { // not the target's time
			return timedOut(err)
		}
		if !f.spare {
			e.fail()
			k.u.unreachable(e, err)
		}
		if !time.Now().Before(end) || !k.moveTo(left) {
			return f
		}
		if k.conn != nil {
			k.from = time.Now()
			return nil
		}
	}
}

// moveTo makes one of the endpoints the call's: the first that has a connection to
// spare, or may open one.
func (k *call) moveTo(endpoints []*endpoint) bool {
	for _, e := range endpoints {
		if k.conn = e.take(time.Now(), !k.repeatable()); k.conn != nil {
			k.reused = true
		} else if !e.reserve() {
			continue
		}
		k.enter(e)
		return true
	}
	return false
}
