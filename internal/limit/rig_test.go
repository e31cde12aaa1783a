package limit

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/limit/meter"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/store"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// begins is when tests in a bubble begin: a Wednesday.
var begins = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// bubble runs a test in fake time, from begins on.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	bubbleAt(t, begins, f)
}

func bubbleAt(t *testing.T, begin time.Time, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(begin))
		f(t)
	})
}

// late is shortly before the end of a day.
var late = time.Date(2026, 11, 25, 23, 58, 0, 0, time.UTC)

// rig is an engine and the chain of one route.
type rig struct {
	t     testing.TB
	e     *Engine
	file  *config.File
	route *config.Route
	chain *policy.Chain
	log   *logged
}

// logged is a log that the engine's goroutines write.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func pointer[T any](v T) *T { return &v }

func rate(text string) *config.Rate {
	r, err := config.ParseRate(text)
	if err != nil {
		panic(err)
	}
	return &r
}

func duration(text string) config.Duration {
	d, err := config.ParseDuration(text)
	if err != nil {
		panic(err)
	}
	return d
}

// tokens is a token bucket by client.
func tokens(r string, burst int64) *config.RateLimit {
	return &config.RateLimit{
		Algorithm: "token_bucket", Rate: rate(r), Burst: &burst, Per: []string{"client"}, Cost: config.Expression{Text: "1"},
		Scope: "local", MaxOvershoot: config.Percent{Of: 0.01}, OnFault: "local", MaxWait: duration("1s"), Mode: "enforce",
	}
}

// limited is a limit of another algorithm.
func limited(algorithm, r string, change func(*config.RateLimit)) *config.RateLimit {
	c := tokens("1/s", 1)
	c.Algorithm, c.Burst = algorithm, nil
	if r != "" {
		c.Rate = rate(r)
	} else {
		c.Rate = nil
	}
	if change != nil {
		change(c)
	}
	return c
}

// uses is a rate_limit list: names and limits in place.
func uses(list ...any) []config.RateLimitUse {
	var all []config.RateLimitUse
	for _, one := range list {
		switch one := one.(type) {
		case string:
			all = append(all, config.RateLimitUse{Name: one})
		case *config.RateLimit:
			all = append(all, config.RateLimitUse{Inline: one})
		}
	}
	return all
}

// newEngine makes an engine that the test's end closes.
func newEngine(t testing.TB, o Options) *Engine {
	t.Helper()
	e := New(o)
	t.Cleanup(func() { closeEngine(t, e) })
	return e
}

func closeEngine(t testing.TB, e *Engine) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
	defer stop()
	if err := e.Close(ctx); err != nil {
		t.Error(err)
	}
}

// newRig makes the route "users" with a rate_limit list.
func newRig(t testing.TB, o Options, file *config.File, list ...any) *rig {
	t.Helper()
	log := &logged{}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(log, nil))
	}
	r := &rig{t: t, e: newEngine(t, o), file: file, route: &config.Route{Name: "users", RateLimit: uses(list...)}, log: log}
	r.compile()
	t.Cleanup(func() { r.close() })
	return r
}

func (r *rig) compile() {
	r.t.Helper()
	r.chain = compileRoute(r.t, r.e, r.file, r.route, new(sync.Map))
}

func (r *rig) close() {
	if r.chain != nil {
		if err := r.chain.Close(); err != nil {
			r.t.Error(err)
		}
		r.chain = nil
	}
}

func compileRoute(t testing.TB, e *Engine, f *config.File, r *config.Route, common *sync.Map) *policy.Chain {
	t.Helper()
	c, err := policy.Compile(e.Specs(), r, &policy.Env{
		Log: e.log, File: f, Route: exchange.Route{API: "public", Name: r.Name}, At: "apis[0].routes[0]", Common: common,
	}, func(string) *telemetry.Filter { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// request is one request of a client: "" is anonymous.
func request(client string) *exchange.Exchange {
	x := &exchange.Exchange{
		Conn: &exchange.Conn{}, Start: time.Now(), Client: netip.MustParseAddr("203.0.113.9"),
		Route: &exchange.Route{API: "public", Name: "users"},
	}
	if client != "" {
		x.Caller = &exchange.Caller{ID: client}
	}
	return x
}

// ask sends a request through the chain, response half included.
func (r *rig) ask(x *exchange.Exchange) *exchange.Error {
	err := r.chain.Request(x)
	if err := r.chain.Response(x); err != nil {
		r.t.Error(err)
	}
	if err == nil {
		return nil
	}
	return exchange.AsError(err)
}

// admitted asks n times and reports how many were admitted.
func (r *rig) admitted(n int, client string) int {
	in := 0
	for range n {
		x := request(client)
		if r.ask(x) == nil {
			in++
		}
		release(x)
	}
	return in
}

func release(x *exchange.Exchange) {
	for _, h := range x.Held {
		h.Release()
	}
	x.Held = nil
}

func header(x *exchange.Exchange, name string) string {
	return string(x.Response.Header.Get([]byte(name)))
}

func fieldOf(e *exchange.Error, name string) string {
	for _, f := range e.Header {
		if string(f.Name) == name {
			return string(f.Value)
		}
	}
	return ""
}

// middle is a store in memory that several gateways share.
type middle struct {
	mu    sync.Mutex
	pools map[string]*meter.Pool
	slots map[string]map[string]int64
	peers atomic.Int64
}

func newMiddle(peers int) *middle {
	m := &middle{pools: map[string]*meter.Pool{}, slots: map[string]map[string]int64{}}
	m.peers.Store(int64(peers))
	return m
}

// link is one gateway's way to it.
type link struct {
	m       *middle
	gateway string
	delay   time.Duration
	down    atomic.Bool
	onUp    func(bool)

	// end says how a charge of Take or Post ends, when it is not nil: whether it is done,
	// and what is answered. The middle's lock is held then, and when it is set.
	end func(c store.Charge) (done bool, err error)
	// during is called while a Post is under way, with what it is of.
	during atomic.Pointer[func([]store.Charge)]

	takes, settles, posts, settlements atomic.Int64
}

var (
	_ store.Shared = (*link)(nil)
	_ store.Health = (*link)(nil)
)

func (m *middle) link(gateway string) *link { return &link{m: m, gateway: gateway} }

func (l *link) set(up bool) {
	if l.down.Swap(!up) == up && l.onUp != nil {
		l.onUp(up)
	}
}

func (l *link) Up() bool                 { return !l.down.Load() }
func (l *link) OnChange(f func(up bool)) { l.onUp = f }
func (l *link) Peers() int               { return int(l.m.peers.Load()) }

func (l *link) call() error {
	if l.delay > 0 {
		time.Sleep(l.delay)
	}
	if l.down.Load() {
		return errors.Join(errors.New("refused"), store.ErrNotDone)
	}
	return nil
}

func (m *middle) pool(key string) *meter.Pool {
	p := m.pools[key]
	if p == nil {
		p = new(meter.Pool)
		m.pools[key] = p
	}
	return p
}

func (m *middle) held(key string) (n int64) {
	for _, one := range m.slots[key] {
		n += one
	}
	return n
}

// slotsHeld is how many slots of all keys are held.
func (m *middle) slotsHeld() (n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range m.slots {
		n += m.held(key)
	}
	return n
}

func (l *link) Take(_ context.Context, charges []store.Charge, out []meter.Verdict) error {
	l.takes.Add(1)
	if err := l.call(); err != nil {
		return err
	}
	m := l.m
	m.mu.Lock()
	defer m.mu.Unlock()
	now, all := time.Now().UnixNano(), true
	for i, c := range charges {
		if c.Limit.Algorithm == meter.Concurrency {
			left := c.Limit.Capacity - m.held(c.Key) - c.Cost
			out[i] = meter.Verdict{OK: left >= 0, Remaining: max(left, 0)}
			if left < 0 {
				out[i].Retry = time.Second
			}
		} else {
			out[i] = m.pool(c.Key).Peek(c.Limit, now, c.Cost)
		}
		all = all && out[i].OK
	}
	if !all {
		return nil
	}
	var failed error
	for i, c := range charges {
		done, err := l.ends(c)
		if err != nil {
			failed = err
		}
		switch {
		case !done:
		case c.Limit.Algorithm == meter.Concurrency:
			l.slots(c.Key, c.Cost)
		default:
			out[i] = m.pool(c.Key).Take(c.Limit, now, c.Cost)
		}
	}
	if failed != nil {
		clear(out)
	}
	return failed
}

// endWith sets end.
func (l *link) endWith(f func(c store.Charge) (done bool, err error)) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.end = f
}

func (l *link) ends(c store.Charge) (done bool, err error) {
	if l.end == nil {
		return true, nil
	}
	return l.end(c)
}

func (l *link) slots(key string, n int64) {
	if l.m.slots[key] == nil {
		l.m.slots[key] = map[string]int64{}
	}
	l.m.slots[key][l.gateway] = max(l.m.slots[key][l.gateway]+n, 0)
}

func (l *link) Post(_ context.Context, charges []store.Charge, out []error) error {
	l.posts.Add(1)
	if f := l.during.Load(); f != nil {
		(*f)(charges)
	}
	if err := l.call(); err != nil {
		for i := range out {
			out[i] = err
		}
		return err
	}
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	var worst error
	for i, c := range charges {
		done, err := l.ends(c)
		if out[i] = err; err != nil && (worst == nil || errors.Is(worst, store.ErrKey)) {
			worst = err
		}
		switch {
		case !done:
		case c.Limit.Algorithm == meter.Concurrency:
			if c.Whole {
				l.slots(c.Key, -l.m.slots[c.Key][l.gateway])
			}
			l.slots(c.Key, c.Cost)
		default:
			l.m.pool(c.Key).Post(c.Limit, time.Now().UnixNano(), c.Cost)
		}
	}
	return worst
}

func (l *link) Settle(_ context.Context, in []store.Settlement, out []store.Grant) error {
	l.settles.Add(1)
	l.settlements.Add(int64(len(in)))
	if err := l.call(); err != nil {
		for i := range out {
			out[i].Err = err
		}
		return err
	}
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	for i, s := range in {
		g := l.m.pool(s.Key).Settle(s.Limit, time.Now().UnixNano(), l.gateway, meter.Settle{Hold: s.Hold, Give: s.Give, Need: s.Need, Ask: s.Ask, Slack: s.Slack, Sent: s.Sent})
		out[i] = store.Grant{Granted: g.Granted, Level: g.Level, Reset: g.Reset, Valid: g.Valid, Retry: g.Retry}
	}
	return nil
}
