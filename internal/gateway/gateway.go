// Package gateway compiles a configuration into an immutable Snapshot, swaps it
// without a pause, and serves one exchange after the other with it.
//
// # One exchange
//
//	Serve: pin the snapshot → identify the client → canonical path → route →
//	declared size → filters → target → response halves → response
//	Done:  what was held goes back, one record, unpin
//
// Serve always leaves a response: a refusal is one too. It never writes; the
// driver does, between Serve and Done.
//
// # Reload
//
// Prepare compiles beside the running snapshot, sharing what did not change;
// Commit swaps one pointer. The old snapshot retires when its last exchange is
// done.
package gateway

import (
	"bytes"
	"context"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/router"
	"github.com/sluice-gateway/sluice/internal/telemetry"
	"github.com/sluice-gateway/sluice/internal/upstream"
)

// Options are what a Gateway is made with.
type Options struct {
	Log       *slog.Logger
	Telemetry *telemetry.Telemetry
	Specs     []policy.Spec // usually Builtins(auth, limits)
	// Note is told of every exchange that ends, before its record; nil: nobody is. It
	// must not wait.
	Note func(*exchange.Exchange)
	Dir  string // what relative paths of the config are relative to
}

// Gateway serves exchanges with the configuration that is current. It owns what
// outlives configurations. It is safe for use by many goroutines.
type Gateway struct {
	log       *slog.Logger
	telemetry *telemetry.Telemetry
	specs     []policy.Spec
	note      func(*exchange.Exchange)
	env       upstream.Env
	upstreams registry[*upstream.Upstream]
	memory    memory
	spares    sync.Pool // *exchange.Exchange, of again

	background context.Context // ends with Close
	halt       context.CancelFunc

	current atomic.Pointer[Snapshot]
	mu      sync.Mutex // one change at a time
}

// New makes a gateway without a configuration: it answers 503 until the first
// Commit.
func New(o Options) *Gateway {
	g := &Gateway{
		log: o.Log, telemetry: o.Telemetry, specs: o.Specs, note: o.Note,
		env: upstream.Env{Log: o.Log, Dir: o.Dir, Name: "sluice"},
	}
	g.background, g.halt = context.WithCancel(context.Background())
	return g
}

// Plan is a compiled configuration that is not current yet. It must be
// committed or discarded.
type Plan struct {
	g    *Gateway
	next *Snapshot
}

// Prepare compiles f. With an error among the diagnostics there is no plan and
// nothing has changed.
func (g *Gateway) Prepare(f *config.File) (*Plan, config.Diagnostics) {
	s, found := g.compile(f)
	if s == nil {
		return nil, found
	}
	return &Plan{g, s}, found
}

// Commit makes the plan current for every request from now on.
func (p *Plan) Commit() {
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	p.g.memory.limit.Store(p.next.file.Limits.BufferMemory.Bytes)
	if old := p.g.current.Swap(p.next); old != nil {
		old.retire()
	}
}

// Discard gives back what the plan holds.
func (p *Plan) Discard() { p.next.close() }

// Close retires the current snapshot and waits until the last exchange is done
// and everything is closed.
func (g *Gateway) Close() {
	g.halt()
	if old := g.current.Swap(nil); old != nil {
		old.retire()
		<-old.closed
	}
}

// Config returns the configuration that is current, nil before the first.
func (g *Gateway) Config() *config.File {
	if s := g.current.Load(); s != nil {
		return s.file
	}
	return nil
}

// pin returns the current snapshot, which stays open until leave.
func (g *Gateway) pin(shard uint32) *Snapshot {
	for {
		s := g.current.Load()
		if s == nil {
			return nil
		}
		s.pins.enter(shard)
		if g.current.Load() == s {
			return s
		}
		s.leave(shard) // it was retired in between, and may have seen us
	}
}

// Serve decides about x and fills its response.
func (g *Gateway) Serve(x *exchange.Exchange) {
	s := g.pin(x.Conn.Shard)
	if s == nil {
		g.telemetry.Begin(x)
		refuse(x, &exchange.Error{Code: exchange.Overloaded, Side: exchange.Gateway, Detail: "The gateway is starting.", Close: true})
		return
	}
	x.Pin = s
	s.trusted.identify(x)
	g.telemetry.Begin(x)
	if err := g.serve(s, x); err != nil {
		refuse(x, exchange.AsError(err))
	}
	x.Response.Header.SetID(exchange.XRequestID, x.ID)
}

// Done gives back what x holds, records x and lets its snapshot go. The driver
// calls it once for every Serve, whatever happened in between.
func (g *Gateway) Done(x *exchange.Exchange) {
	s, _ := x.Pin.(*Snapshot)
	for i := range x.Held {
		x.Held[i].Release()
	}
	clear(x.Held)
	x.Held = x.Held[:0]
	if g.note != nil {
		g.note(x)
	}
	g.telemetry.Record(x, s.meterOf(x))
	if s != nil {
		x.Pin = nil
		s.leave(x.Conn.Shard)
	}
}

// serve is the life of a request, in the order of the contract's phases. What
// comes before, connection limits and admission, is the driver's.
func (g *Gateway) serve(s *Snapshot, x *exchange.Exchange) error {
	q := &x.Request
	if x.Err != nil {
		return x.Err
	}
	if bytes.Equal(q.RawPath, asterisk) {
		return wholeServer(x)
	}
	var space [8]router.Param
	params := router.Params(space[:0])
	r, err := s.find(x, &params)
	if err != nil {
		return err
	}
	x.Route, x.RouteID = &r.info, r.id
	r.params(x, params)
	if err := r.forward(x, params); err != nil {
		return err
	}
	q.MaxBody = r.maxBody
	if r.maxBody > 0 && q.ContentLength > r.maxBody {
		return tooLarge(r.maxBody)
	}
	if r.timeout > 0 {
		x.Deadline = x.Start.Add(r.timeout)
	}
	return g.answer(r, x)
}

// answer runs the route: its filters, its target, and the response halves of
// the filters that were reached.
func (g *Gateway) answer(r *route, x *exchange.Exchange) error {
	if r.chain.Body() == policy.WholeBody {
		if err := g.memory.buffer(x); err != nil {
			return err
		}
	}
	err := r.chain.Request(x)
	if err == nil {
		err = r.targets.do(x)
	}
	if err != nil && err != exchange.Done {
		refuse(x, exchange.AsError(err))
	}
	return r.chain.Response(x)
}

// find sets the canonical path and returns the route.
func (s *Snapshot) find(x *exchange.Exchange, params *router.Params) (*route, error) {
	q := &x.Request
	if q.Method == "CONNECT" {
		return nil, notAllowed(everyMethod)
	}
	path, err := router.Canonicalize(x.Scratch(len(q.RawPath))[:0], q.RawPath, s.lenient)
	if err != nil {
		return nil, badPath(err)
	}
	q.Path = path
	m := s.table.Match(&router.Request{
		Listener: x.Conn.Listener, Method: q.Method, Host: q.Host, Path: q.Path, Query: q.Query, Header: &q.Header,
	}, params)
	if m.Found {
		r := s.routes[m.ID]
		return r, s.admits(r, q.Path)
	}
	if len(m.Allow) > 0 {
		return nil, notAllowed(allow(m.Allow))
	}
	return nil, &exchange.Error{
		Code: exchange.RouteNotFound, Side: exchange.Client,
		Detail: "No route matches this host, path and method.",
	}
}

// admits refuses what only other routes keep in a path.
func (s *Snapshot) admits(r *route, path []byte) error {
	if s.lenient == (router.PathOptions{}) {
		return nil
	}
	if err := r.paths.Check(path); err != nil {
		return badPath(err)
	}
	return nil
}

func badPath(err error) *exchange.Error {
	return &exchange.Error{
		Code: exchange.BadRequest, Side: exchange.Client, Close: true,
		Detail: "The path is not valid: " + err.Error() + ".",
	}
}

var (
	asterisk    = []byte("*")
	everyMethod = []byte("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
)

// wholeServer answers OPTIONS *, which asks about the gateway and no resource
// (RFC 9110 §9.3.7).
func wholeServer(x *exchange.Exchange) error {
	x.Answer(204, "", nil)
	x.Response.Header.Append(exchange.Field{Name: allowName, Value: everyMethod})
	return nil
}

var allowName = []byte("Allow")

func notAllowed(methods []byte) *exchange.Error {
	return &exchange.Error{
		Code: exchange.MethodNotAllowed, Side: exchange.Client, Detail: "This resource takes " + string(methods) + ".",
		Header: []exchange.Field{{Name: allowName, Value: methods}},
	}
}

func tooLarge(limit int64) *exchange.Error {
	return &exchange.Error{
		Code: exchange.PayloadTooLarge, Side: exchange.Client, Close: true,
		Detail: "The body is larger than the " + strconv.FormatInt(limit, 10) + " bytes that are admitted here.",
	}
}
