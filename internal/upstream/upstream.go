// Package upstream asks the targets of an upstream for a response: it chooses one,
// keeps connections to it, writes the request, reads the response's head, and leaves
// a body that streams from the connection. It speaks HTTP/1.1, in plain text and
// over TLS, and knows answers that need no target.
//
// # One exchange
//
//	Do: what of the body is in hand → choose an endpoint → a connection, kept or
//	new → head and body in one write → the response's head → x.Response
//
// A try that fails is made again where that cannot do harm (retry.go). One goroutine
// carries the exchange. Only a request body that is not wholly in hand is written by
// a second one (pump.go), which has always ended before the exchange has.
//
// # Names
//
// A target is one entry of `targets`. An endpoint is one address of a target: a name
// that resolves to three addresses makes three of them, which are balanced, counted
// and set aside one by one. Each has its own idle connections; the one used last is
// used next, so that the rest can age. A call is the work for one exchange; it
// lives in x.Kept, and is used again by the next exchange that x carries.
//
// # What is where
//
//   - upstream.go, keeper.go, resolve.go: the upstream, its background work, names
//   - target.go, endpoint.go, dial.go, conn.go: from a URL to a connection
//   - balance.go, hash.go: who is asked
//   - call.go, head.go, reply.go, body.go, pump.go, tunnel.go: one exchange
//   - retry.go, failure.go: what goes wrong
//   - respond.go: fixed answers
package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// Resolver finds the addresses of a name; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Env is what upstreams are made with.
type Env struct {
	Log      *slog.Logger
	Dir      string   // what relative paths of the config are relative to
	Name     string   // the gateway's name in Via; "" is "sluice"
	Resolver Resolver // nil: the system's
}

// times are the lengths of time that no config sets.
type times struct {
	idle    time.Duration // how long a connection may be idle when its target did not say
	sweep   time.Duration // between two looks at the idle connections
	resolve time.Duration // between two look-ups of a name
	hurry   time.Duration // the same, while a name has no address or connecting fails
	lookup  time.Duration // how long a look-up may take
	expect  time.Duration // how long the target may keep silent about Expect: 100-continue
}

func usualTimes() times {
	return times{
		idle: 55 * time.Second, sweep: 5 * time.Second, resolve: 30 * time.Second, hurry: time.Second,
		lookup: 5 * time.Second, expect: time.Second,
	}
}

// Upstream answers exchanges. It is safe for use by many goroutines.
type Upstream struct {
	name  string
	log   *slog.Logger
	via   string // our element of Via, behind the version
	fixed *fixed // of `respond`; all below is empty then

	targets        []*target
	balance        string
	hashKey        hashKey // used with balance: hash
	connectTimeout time.Duration
	timeout        time.Duration // of one try, 0: only the exchange's
	limit          int           // connections to one endpoint
	retry          *retry
	resolver       Resolver
	times          times

	set     atomic.Pointer[set]
	gone    atomic.Uint64 // requests of endpoints that have left the set
	buffers buffers

	mu        sync.Mutex // over changes of the set, and the targets' addresses
	closed    bool
	first     chan struct{} // closed when every name has been looked up once
	firstDone bool

	wake chan struct{} // the keeper has something to do
	stop context.CancelFunc
	ctx  context.Context // ends with Close; of background work
	work sync.WaitGroup
}

// New makes an upstream. It connects to nobody; names are looked up in the
// background, and a request that comes first waits for that. c is not kept.
func New(name string, c *config.Upstream, env Env) (*Upstream, error) {
	return newUpstream(name, c, env, usualTimes())
}

func newUpstream(name string, c *config.Upstream, env Env, t times) (*Upstream, error) {
	u := &Upstream{
		name: name, log: env.Log, via: " " + env.Name, balance: c.Balance,
		connectTimeout: c.ConnectTimeout.Duration, timeout: c.Timeout.Duration, limit: c.MaxConnections,
		resolver: env.Resolver, times: t, first: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	if env.Name == "" {
		u.via = " sluice"
	}
	if u.log == nil {
		u.log = slog.New(slog.DiscardHandler)
	}
	if u.resolver == nil {
		u.resolver = net.DefaultResolver
	}
	if u.connectTimeout <= 0 {
		u.connectTimeout = time.Second
	}
	u.ctx, u.stop = context.WithCancel(context.Background())
	if c.Respond != nil {
		var err error
		u.fixed, err = newFixed(c.Respond)
		return u, err
	}
	if err := u.configure(c, env.Dir); err != nil {
		return nil, err
	}
	u.mu.Lock()
	u.rebuild()
	u.mu.Unlock()
	u.work.Go(u.keep)
	return u, nil
}

// configure reads the parts of c that can be wrong.
func (u *Upstream) configure(c *config.Upstream, dir string) error {
	var err error
	switch c.Protocol {
	case "", "auto", "http1":
	default:
		return fmt.Errorf("protocol: %q is not supported yet, take http1", c.Protocol)
	}
	switch c.Balance {
	case "", "p2c", "round_robin", "least_requests":
	case "hash":
		if u.hashKey, err = newHashKey(c.HashOn); err != nil {
			return err
		}
	default:
		return fmt.Errorf("balance: %q is not p2c, round_robin, least_requests or hash", c.Balance)
	}
	if u.retry, err = newRetry(c.Retry, time.Now()); err != nil {
		return err
	}
	secure, err := newTLS(c.TLS, dir)
	if err != nil {
		return err
	}
	sum := 0
	for _, t := range c.Targets {
		n, err := newTarget(t, c.Host, secure)
		if err != nil {
			return err
		}
		u.targets = append(u.targets, n)
		sum += n.weight
	}
	if sum <= 0 {
		return errors.New("no target has a weight above 0")
	}
	return nil
}

// Do fills x.Response, or returns an *exchange.Error and leaves it empty. What the
// response points to holds until x is reset, its body until it is closed.
func (u *Upstream) Do(x *exchange.Exchange) error {
	if u.fixed != nil {
		u.fixed.answer(u.name, x)
		return nil
	}
	k, ok := x.Kept.(*call)
	if !ok {
		k = new(call)
		x.Kept = k
	}
	k.begin(u, x)
	return k.run()
}

// Close lets the upstream go: idle connections close now, busy ones when their
// exchange ends, and the background work has ended when it returns. An exchange that
// still comes is answered, over a connection of its own.
func (u *Upstream) Close() error {
	u.mu.Lock()
	if u.closed {
		u.mu.Unlock()
		return nil
	}
	u.closed = true
	s := u.set.Load()
	u.mu.Unlock()
	u.stop()
	if s != nil {
		for _, e := range s.endpoints {
			e.retire()
		}
	}
	u.work.Wait()
	return nil
}

// rebuild makes the set of the targets' addresses, and keeps the endpoints that
// were there. The caller holds the lock.
func (u *Upstream) rebuild() {
	if u.closed {
		return
	}
	var old []*endpoint
	if s := u.set.Load(); s != nil {
		old = s.endpoints
	}
	var all []*endpoint
	for _, t := range u.targets {
		if t.weight == 0 {
			continue
		}
		for _, a := range t.addrs {
			addr := netip.AddrPortFrom(a, t.port)
			weight := float64(t.weight) / float64(len(t.addrs))
			var e *endpoint
			if i := slices.IndexFunc(old, func(e *endpoint) bool { return e.target == t && e.addr == addr }); i >= 0 {
				e = old[i]
			} else {
				e = &endpoint{target: t, addr: addr, name: addr.String(), limit: u.limit}
			}
			e.setWeight(weight)
			all = append(all, e)
		}
	}
	u.set.Store(newSet(u.balance, all))
	for _, e := range old {
		if !slices.Contains(all, e) {
			u.gone.Add(e.retire())
		}
	}
}

// siblings returns the other endpoints of e's target, those that are well first.
func (u *Upstream) siblings(e *endpoint, but []*endpoint) []*endpoint {
	if e.target.host == "" {
		return nil
	}
	var in, out []*endpoint
	for _, o := range u.set.Load().endpoints {
		switch {
		case o.target != e.target || slices.Contains(but, o):
		case o.out.Load():
			out = append(out, o)
		default:
			in = append(in, o)
		}
	}
	return append(in, out...)
}

// reached notes that e answers.
func (u *Upstream) reached(e *endpoint) {
	if e.restore() {
		u.log.Info("target is back", "upstream", u.name, "target", e.target.url, "address", e.name)
	}
}

// unreachable notes that e does not answer, and has its name looked up again.
func (u *Upstream) unreachable(e *endpoint, err error) {
	if !e.setAside(time.Now(), false) {
		return
	}
	u.log.Warn("target set aside", "upstream", u.name, "target", e.target.url, "address", e.name, "error", err)
	if e.target.host != "" {
		u.mu.Lock()
		e.target.lookAgain = true
		u.mu.Unlock()
	}
	u.nudge()
}

// nudge wakes the keeper.
func (u *Upstream) nudge() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}
