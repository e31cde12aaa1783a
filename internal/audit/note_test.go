package audit

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// ended is an exchange that ended with an error.
func ended(err *exchange.Error) *exchange.Exchange {
	x := new(exchange.Exchange)
	x.Request.Method, x.Request.Path = "GET", []byte("/users/7")
	x.Request.Query, x.Request.HasQuery = []byte("key=s3cret-of-the-query"), true
	x.Request.Header.AddID(exchange.Authorization, []byte("Bearer s3cret-of-the-header"))
	x.ID, x.Client = []byte("0199"), netip.MustParseAddr("192.0.2.7")
	x.Route = &exchange.Route{API: "public", Name: "users"}
	x.Err = err
	x.Response.Status = 200
	if err != nil {
		x.Response.Status = err.HTTPStatus()
	}
	return x
}

func TestRefusedExchangesAreNoted(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	commit(t, l, Event{Kind: "test"})
	acme := &exchange.Caller{Authenticator: "partners", ID: "acme", Key: "laptop"}
	declared := &exchange.Caller{ID: "acme"}
	for _, c := range []struct {
		err    *exchange.Error
		caller *exchange.Caller
		route  string
		status int
		want   string // what the line has from kind to prev; empty: there is none
	}{
		{err: nil},
		{err: &exchange.Error{Code: exchange.RateLimited}},
		{err: &exchange.Error{Code: exchange.RateLimited, Cause: errors.New("limits.auth_failures is used up")}}, // the same words
		{err: &exchange.Error{Code: exchange.DependencyUnavailable, Cause: errors.New("x")}},
		{err: &exchange.Error{Code: exchange.RouteNotFound}},
		{status: 401}, // of an upstream
		{status: 200, route: tokensRoute},
		{
			err:  &exchange.Error{Code: exchange.Unauthenticated, Cause: errors.New("the token has expired")},
			want: `"kind":"auth.refused","address":"192.0.2.7","request":"0199","api":"public","route":"users","target":"GET /users/7","status":401,"reason":"the token has expired"`,
		},
		{
			err:  &exchange.Error{Code: exchange.RateLimited, Cause: exchange.ErrGuessing},
			want: `"kind":"auth.refused","address":"192.0.2.7","request":"0199","api":"public","route":"users","target":"GET /users/7","status":429,"reason":"limits.auth_failures is used up"`,
		},
		{
			err: &exchange.Error{Code: exchange.Forbidden, Cause: errors.New("permission users:write is missing")}, caller: acme,
			want: `"kind":"auth.forbidden","actor":"partners:acme","key":"laptop","address":"192.0.2.7","request":"0199","api":"public","route":"users","target":"GET /users/7","status":403,"reason":"permission users:write is missing"`,
		},
		{
			err: &exchange.Error{Code: exchange.Forbidden, Detail: "no."}, caller: declared,
			want: `"kind":"auth.forbidden","actor":"acme","address":"192.0.2.7","request":"0199","api":"public","route":"users","target":"GET /users/7","status":403,"reason":"no."`,
		},
		{
			status: 401, route: tokensRoute,
			want: `"kind":"auth.refused","address":"192.0.2.7","request":"0199","api":"public","route":"sluice.tokens","target":"GET /users/7","status":401,"reason":"no token was issued: 401"`,
		},
	} {
		x := ended(c.err)
		x.Caller = c.caller
		if c.route != "" {
			x.Route.Name = c.route
		}
		if c.status != 0 {
			x.Response.Status = c.status
		}
		names := files(t, dir)
		before := len(written(t, names...))
		l.Note(x)
		// Nothing of the exchange's memory is kept.
		copy(x.Request.Path, "/xxxxx/x")
		copy(x.ID, "xxxx")
		commit(t, l, Event{Kind: "test"})
		text, err := os.ReadFile(files(t, dir)[0])
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte("s3cret")) {
			t.Fatalf("there is a secret in %s", text)
		}
		got := strings.Split(strings.TrimSpace(string(text)), "\n")[before:]
		if c.want == "" && len(got) == 1 || len(got) == 2 && c.want != "" && strings.Contains(got[0], "Z\","+c.want+",\"prev\"") {
			continue
		}
		t.Errorf("%v: got %s, want %s", c.err, strings.Join(got, "\n"), c.want)
	}
}

func TestWithOnFaultClosedRequestsAreRefused(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	specs := l.Specs()
	if len(specs) != 1 || specs[0].Phase != policy.Authenticate || specs[0].Waits != 0 {
		t.Fatalf("%+v", specs)
	}
	for _, audit := range []*config.Audit{nil, {File: "a", OnFault: "open"}} {
		if f, err := specs[0].New(&config.Route{}, &policy.Env{File: &config.File{Audit: audit}}); f != nil || err != nil {
			t.Errorf("%+v: %v %v", audit, f, err)
		}
	}
	f, err := specs[0].New(&config.Route{}, &policy.Env{File: &config.File{Audit: &config.Audit{File: "a", OnFault: "closed"}}})
	if err != nil {
		t.Fatal(err)
	}
	x := ended(nil)
	if err := f.Request(x); err != nil || f.Explain(x).Refusal != nil {
		t.Error(err)
	}
	l.failing.Store(true)
	e := exchange.AsError(f.Request(x))
	if o := f.Explain(x); e.Code != exchange.DependencyUnavailable || e.HTTPStatus() != 503 || o.Verdict != telemetry.Refused || o.Refusal != e ||
		!strings.Contains(o.Reason, "on_fault is closed") || strings.Contains(e.Detail, "audit") {
		t.Errorf("%v, %+v", e, o)
	}
	if n := testing.AllocsPerRun(100, func() { _ = f.Request(x) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// What is not refused costs nothing.
func BenchmarkNote(b *testing.B) {
	l, err := Open(Options{File: "audit.jsonl", Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close(b.Context()) }()
	for _, c := range []struct {
		name string
		x    *exchange.Exchange
	}{{"passed", ended(nil)}, {"refused", ended(&exchange.Error{Code: exchange.Unauthenticated, Cause: errors.New("no")})}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l.Note(c.x)
			}
		})
	}
}
