package gateway

import (
	"log/slog"
	"testing"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// repeater asks its route's target once more, and notes what became of that.
type repeater struct {
	again  func(*exchange.Exchange, func(*exchange.Exchange) bool)
	before func(*exchange.Exchange) bool
	over   chan struct{}
}

func (r *repeater) Request(x *exchange.Exchange) error {
	r.again(x, func(y *exchange.Exchange) bool {
		y.Held = append(y.Held, r)
		return r.before(y)
	})
	return nil
}

func (r *repeater) Release()                                  { r.over <- struct{}{} }
func (r *repeater) Explain(*exchange.Exchange) policy.Opinion { return policy.Opinion{} }

// last sees the responses of the filters behind the cache.
type last struct{ statuses chan int }

func (l *last) Request(*exchange.Exchange) error          { return nil }
func (l *last) Explain(*exchange.Exchange) policy.Opinion { return policy.Opinion{} }
func (l *last) Response(x *exchange.Exchange) error       { l.statuses <- x.Response.Status; return nil }

func spec(name string, p policy.Phase, f policy.Filter) policy.Spec {
	return policy.Spec{Name: name, Phase: p, New: func(*config.Route, *policy.Env) (policy.Filter, error) { return f, nil }}
}

func TestAFilterMayAskOnceMore(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	tel, err := telemetry.New(telemetry.Options{Logger: quiet, Log: config.Log{Level: "error", Access: config.AccessLog{Output: "none"}}})
	if err != nil {
		t.Fatal(err)
	}
	r, l := &repeater{over: make(chan struct{}, 1)}, &last{statuses: make(chan int, 4)}
	first := spec("first", policy.CacheLookup, r)
	made := first.New
	first.New = func(c *config.Route, env *policy.Env) (policy.Filter, error) {
		r.again = env.Again
		return made(c, env)
	}
	g := New(Options{Log: quiet, Telemetry: tel, Specs: []policy.Spec{first, spec("last", policy.CacheStore, l)}})
	t.Cleanup(func() { g.Close(); _ = tel.Close(t.Context()) })
	load(t, g, `
upstreams: {o: {respond: {status: 203, body: hello}}}
routes: [{name: a, path: "/a/{id}", upstream: o}]
`)
	t.Run("with a copy", func(t *testing.T) {
		x := ask("GET /a/7?q=1", "X-A: b")
		conn := x.Conn
		var path, query, field, id string
		r.before = func(y *exchange.Exchange) bool {
			if y == x || y.Conn == conn {
				t.Error("it is no copy")
			}
			path, query = string(y.Request.Path), string(y.Request.Query)
			field, id = string(y.Request.Header.Get([]byte("X-A"))), string(y.Params[0].Value)
			return true
		}
		if status, body := answered(g, x); status != 203 || body != "hello" {
			t.Errorf("%d %q", status, body)
		}
		x.Reset() // what it pointed to may be written over
		<-r.over
		if path != "/a/7" || query != "q=1" || field != "b" || id != "7" {
			t.Errorf("%q %q %q %q", path, query, field, id)
		}
		if a, b := <-l.statuses, <-l.statuses; a != 203 || b != 203 {
			t.Errorf("the response halves saw %d and %d", a, b)
		}
	})
	t.Run("that is not wanted after all", func(t *testing.T) {
		r.before = func(*exchange.Exchange) bool { return false }
		answered(g, ask("GET /a/7"))
		<-r.over
		<-l.statuses
		if len(l.statuses) != 0 {
			t.Error("the target was asked all the same")
		}
	})
	t.Run("and panics", func(t *testing.T) {
		r.before = func(*exchange.Exchange) bool { panic("no") }
		answered(g, ask("GET /a/7"))
		<-r.over
		<-l.statuses
	})
	t.Run("and the gateway ends", func(t *testing.T) {
		r.before = func(y *exchange.Exchange) bool {
			gone := make(cancelled)
			y.OnCancel(gone)
			<-gone
			return false
		}
		answered(g, ask("GET /a/7"))
		g.Close() // waits for it, and cancels it
		<-r.over
	})
}

type cancelled chan struct{}

func (c cancelled) Cancel() { close(c) }
