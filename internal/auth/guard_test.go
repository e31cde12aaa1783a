package auth

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
)

// guessing is a limit of failures: n in per, burst at once.
func guessing(n int64, per time.Duration, burst int64, by ...string) *config.AuthFailures {
	return &config.AuthFailures{Rate: config.Rate{N: n, Per: per}, Burst: burst, Per: by}
}

// attempt is a request from an address at a moment.
func attempt(address string, at time.Time, header ...string) *exchange.Exchange {
	x := &exchange.Exchange{Client: netip.MustParseAddr(address), Start: at}
	for i := 0; i < len(header); i += 2 {
		x.Request.Header.Add([]byte(header[i]), []byte(header[i+1]))
	}
	return x
}

func TestFailuresAreLimitedAndForgiven(t *testing.T) {
	c := guessing(20, time.Minute, 100, "ip")
	start := time.Unix(1_700_000_000, 0)
	var g guard
	for i := range 100 {
		x := attempt("192.0.2.1", start)
		if err := g.admit(c, x); err != nil {
			t.Fatalf("failure %d: %v", i, err)
		}
		g.failed(c, x)
	}
	for range 3 { // a refusal costs nothing
		e, ok := errors.AsType[*exchange.Error](g.admit(c, attempt("192.0.2.1", start)))
		if !ok || e.Code != exchange.RateLimited || len(e.Header) != 3 || e.Header[0].ID != exchange.RetryAfter || string(e.Header[0].Value) != "3" {
			t.Fatalf("%+v", e)
		}
		if a, b := string(e.Header[1].Value), string(e.Header[2].Value); a != `"auth_failures";q=100;w=300` || b != `"auth_failures";r=0;t=300` {
			t.Errorf("%s and %s", a, b)
		}
		if want := "There were too many failed attempts. Try again in 3 s."; e.Detail != want {
			t.Errorf("detail %q, want %q", e.Detail, want)
		}
	}
	if err := g.admit(c, attempt("192.0.2.2", start)); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	if err := g.admit(c, attempt("192.0.2.1", start.Add(3*time.Second-1))); err == nil {
		t.Error("is admitted before Retry-After")
	}
	x := attempt("192.0.2.1", start.Add(3*time.Second))
	if err := g.admit(c, x); err != nil {
		t.Errorf("at Retry-After: %v", err)
	}
	g.failed(c, x)
	if err := g.admit(c, x); err == nil {
		t.Error("has two attempts at Retry-After")
	}
	later := start.Add(6 * time.Minute) // 103 failures are forgotten, at most 100 are held
	for range 100 {
		x := attempt("192.0.2.1", later)
		if err := g.admit(c, x); err != nil {
			t.Fatal(err)
		}
		g.failed(c, x)
	}
	if err := g.admit(c, attempt("192.0.2.1", later)); err == nil {
		t.Error("more than the burst")
	}
}

func TestFailuresAreCountedBy(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		name       string
		per        []string
		one, other *exchange.Exchange
		together   bool
	}{
		{"one address", []string{"ip"}, attempt("192.0.2.1", now), attempt("192.0.2.1", now), true},
		{"two addresses", []string{"ip"}, attempt("192.0.2.1", now), attempt("192.0.2.2", now), false},
		{"an IPv4 address written as IPv6", []string{"ip"}, attempt("192.0.2.1", now), attempt("::ffff:192.0.2.1", now), true},
		{"a /64", []string{"ip"}, attempt("2001:db8::1", now), attempt("2001:db8::ffff:1", now), true},
		{"two /64", []string{"ip"}, attempt("2001:db8::1", now), attempt("2001:db8:0:1::1", now), false},
		{"IPv4 and an IPv6 of the same bytes", []string{"ip"}, attempt("192.0.2.1", now), attempt("c000:201::", now), false},
		{"nothing said is ip", nil, attempt("192.0.2.1", now), attempt("192.0.2.2", now), false},
		{"all together", []string{"global"}, attempt("192.0.2.1", now), attempt("2001:db8::1", now), true},
		{"a header, the same", []string{"header:X-Tenant"}, attempt("192.0.2.1", now, "x-tenant", "a"), attempt("192.0.2.2", now, "X-Tenant", "a"), true},
		{"a header, another", []string{"header:X-Tenant"}, attempt("192.0.2.1", now, "X-Tenant", "a"), attempt("192.0.2.1", now, "X-Tenant", "b"), false},
		{"a header, none", []string{"header:X-Tenant"}, attempt("192.0.2.1", now), attempt("192.0.2.2", now), true},
		{"a header, none and empty", []string{"header:X-Tenant"}, attempt("192.0.2.1", now), attempt("192.0.2.1", now, "X-Tenant", ""), false},
		{"a header, one more field", []string{"header:X-Tenant"}, attempt("192.0.2.1", now, "X-Tenant", "a"), attempt("192.0.2.1", now, "X-Tenant", "a", "X-Tenant", "b"), false},
		{"a known header", []string{"header:User-Agent"}, attempt("192.0.2.1", now, "User-Agent", "a"), attempt("192.0.2.1", now, "User-Agent", "b"), false},
		{"a combination, the same", []string{"ip", "header:A"}, attempt("192.0.2.1", now, "A", "1"), attempt("192.0.2.1", now, "A", "1"), true},
		{"a combination, another address", []string{"ip", "header:A"}, attempt("192.0.2.1", now, "A", "1"), attempt("192.0.2.2", now, "A", "1"), false},
		{"a combination, another value", []string{"ip", "header:A"}, attempt("192.0.2.1", now, "A", "1"), attempt("192.0.2.1", now, "A", "2"), false},
	} {
		limit := guessing(1, time.Minute, 1, c.per...)
		var g guard
		g.failed(limit, c.one)
		if together := g.admit(limit, c.other) != nil; together != c.together {
			t.Errorf("%s: counted together is %v", c.name, together)
		}
	}
}

func TestGuardWithoutARateLimitsNothing(t *testing.T) {
	var g guard
	x := attempt("192.0.2.1", time.Unix(1_700_000_000, 0))
	for range 1000 {
		g.failed(&config.AuthFailures{}, x)
	}
	if err := g.admit(&config.AuthFailures{}, x); err != nil {
		t.Error(err)
	}
}

func TestGuardHoldsForExtremeNumbers(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		limit *config.AuthFailures
		tries int
		ok    bool
	}{
		{guessing(1, 1<<62, 1), 1, false},
		{guessing(1, 1<<62, 1), 100, false},
		{guessing(1<<62, 1, 1<<62), 500, true},
		{guessing(1, 30*24*time.Hour, 1<<62), 500, true},
	} {
		var g guard
		x := attempt("192.0.2.1", now)
		for range c.tries {
			g.failed(c.limit, x)
		}
		if err := g.admit(c.limit, x); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.limit, err)
		}
	}
}

// However many addresses fail, the table stays as it is, and who was refused before
// is still refused unless its set was filled by others that failed more.
func TestGuardKeepsThoseThatFailedMost(t *testing.T) {
	c := guessing(1, time.Minute, 10, "ip")
	now := time.Unix(1_700_000_000, 0)
	var g guard
	for i := range 64 {
		for range 20 {
			g.failed(c, attempt(fmt.Sprintf("192.0.2.%d", i), now))
		}
	}
	for i := range 300_000 {
		x := &exchange.Exchange{Client: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), Start: now}
		g.failed(c, x)
	}
	for i := range 64 {
		if err := g.admit(c, attempt(fmt.Sprintf("192.0.2.%d", i), now)); err == nil {
			t.Errorf("192.0.2.%d was forgotten", i)
		}
	}
}

func TestGuardTogether(t *testing.T) {
	c := guessing(1, time.Hour, 1000, "ip")
	now := time.Unix(1_700_000_000, 0)
	var g guard
	g.failed(c, attempt("192.0.2.1", now))
	var all sync.WaitGroup
	for range 9 {
		all.Go(func() {
			for range 111 {
				g.failed(c, attempt("192.0.2.1", now))
				_ = g.admit(c, attempt("192.0.2.1", now))
			}
		})
	}
	all.Wait()
	x := attempt("192.0.2.1", now)
	if err := g.admit(c, x); err == nil {
		t.Error("1,000 failures are not all counted")
	} else if retry := err.(*exchange.Error).Header[0].Value; string(retry) != strconv.Itoa(3600) {
		t.Errorf("retry after %s", retry)
	}
}

func TestGuardAllocatesNothingUnlessItRefuses(t *testing.T) {
	c := guessing(1000, time.Second, 1<<40, "ip", "header:X-Tenant")
	now := time.Unix(1_700_000_000, 0)
	var g guard
	x := attempt("2001:db8::1", now, "X-Tenant", "a")
	g.failed(c, x)
	if n := testing.AllocsPerRun(1000, func() {
		g.failed(c, x)
		if err := g.admit(c, x); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkGuard(b *testing.B) {
	now := time.Unix(1_700_000_000, 0)
	c := guessing(20, time.Minute, 100, "ip")
	for _, bench := range []struct {
		name     string
		failures int
		at       time.Time
	}{{"nothing failed", 0, now}, {"all forgiven", 1, now.Add(time.Hour)}, {"another failed", 1, now}} {
		b.Run(bench.name, func(b *testing.B) {
			var g guard
			for range bench.failures {
				g.failed(c, attempt("192.0.2.1", now))
			}
			x := attempt("192.0.2.2", bench.at)
			b.ReportAllocs()
			for b.Loop() {
				if err := g.admit(c, x); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// The filter counts what an authenticator refuses, and asks before it looks.
func TestGuessingIsLimitedBeforeAnyCheck(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ops.htpasswd"), []byte("ops:"+bcryptOf(t, "right")), 0o600); err != nil {
		t.Fatal(err)
	}
	e := New(Options{Dir: dir})
	t.Cleanup(func() { _ = e.Close(t.Context()) })
	file := &config.File{
		Authenticators: map[string]*config.Authenticator{"ops": {Basic: &config.BasicAuth{Htpasswd: "ops.htpasswd"}}},
		Limits:         config.Limits{AuthFailures: *guessing(1, time.Minute, 3, "ip")},
	}
	f, err := e.newAuthenticate(&config.Route{Auth: &config.Auth{Use: [][]string{{"ops"}, {"anonymous"}}}}, &policy.Env{File: file})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_700_000_000, 0)
	for i, c := range []struct{ address, pair, code string }{
		{"192.0.2.1", "ops:right", ""},
		{"192.0.2.1", "ops:a", "unauthenticated"},
		{"192.0.2.1", "", ""}, // nobody is no attempt
		{"192.0.2.1", "ops:b", "unauthenticated"},
		{"192.0.2.1", "ops:right", ""},
		{"192.0.2.1", "ops:c", "unauthenticated"},
		{"192.0.2.1", "ops:d", "rate_limited"},
		{"192.0.2.1", "ops:right", "rate_limited"},
		{"192.0.2.1", "", ""},
		{"192.0.2.2", "ops:right", ""},
	} {
		x := attempt(c.address, now)
		if c.pair != "" {
			x.Request.Header.AddID(exchange.Authorization, []byte(basicText(c.pair)))
		}
		if err := f.Request(x); codeOf(err) != c.code {
			t.Errorf("%d: %s of %s: %v, want %s", i, c.pair, c.address, err, c.code)
		}
	}
	for range 3 { // explain neither counts nor is counted
		x := attempt("192.0.2.1", now)
		x.Request.Header.AddID(exchange.Authorization, []byte(basicText("ops:x")))
		if o := f.Explain(x); o.Refusal == nil || o.Refusal.Code != exchange.Unauthenticated {
			t.Errorf("explained as %+v", o)
		}
	}
}
