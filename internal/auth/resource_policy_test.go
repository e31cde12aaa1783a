package auth

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

const petPolicy = `{
  "Version": "2012-10-17",
  "Statement": [
    {"Sid": "read", "Effect": "Allow", "Principal": "*", "Action": "execute-api:Invoke", "Resource": "execute-api:/prod/GET/pets/*"},
    {"Sid": "own", "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:role/keeper"}, "Action": "execute-api:Invoke",
     "Resource": "arn:aws:execute-api:us-east-1:123456789012:a1b2c3/prod/*/keepers/${aws:username}/*"},
    {"Sid": "agents", "Effect": "Deny", "Principal": "*", "Action": "*", "Resource": "*", "Condition": {"StringLike": {"aws:UserAgent": "bad*", "aws:Referer": "https://bad.example/*"}}},
    {"Sid": "plain", "Effect": "Deny", "Principal": "*", "Action": "*", "Resource": "*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}
  ]
}`

// policed makes the filter of an api with a policy.
func policed(t testing.TB, api config.API, text string) (policy.Filter, error) {
	t.Helper()
	return policedRoute(t, api, &config.Route{}, text)
}

func policedRoute(t testing.TB, api config.API, route *config.Route, text string) (policy.Filter, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "policy.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	api.ResourcePolicy = "policy.json"
	e := New(Options{Dir: dir})
	return e.newResourcePolicy(route, &policy.Env{File: &config.File{APIs: []config.API{{}, api}}, At: "apis[1].routes[0]"})
}

func TestAPolicyStandsBeforeAnAPI(t *testing.T) {
	keeper := &exchange.Caller{ID: "anna", Roles: []string{"keeper"}}
	for _, c := range []struct {
		name         string
		stage, base  string
		method, path string
		caller       *exchange.Caller
		change       func(*exchange.Exchange)
		ok           bool
		why          string // behind the name of the file
	}{
		{"allowed to everybody", "prod", "", "GET", "/pets/1", nil, nil, true, `statement 1 "read" (line 4) allows it`},
		{"behind a base path", "prod", "/v1", "GET", "/v1/pets/1", nil, nil, true, `statement 1 "read" (line 4) allows it`},
		{"another stage", "dev", "", "GET", "/pets/1", nil, nil, false, `execute-api:/dev/GET/pets/1, no statement allows it; statement 1 "read" (line 4) would, but for its Resource`},
		{"no stage", "", "", "GET", "/pets/1", nil, nil, false, `execute-api:/$default/GET/pets/1, no statement allows it; statement 1 "read" (line 4) would, but for its Resource`},
		{"another method", "prod", "", "HEAD", "/pets/1", nil, nil, false, `execute-api:/prod/HEAD/pets/1, no statement allows it; statement 1 "read" (line 4) would, but for its Resource`},
		{"the root", "prod", "/v1", "GET", "/v1", nil, nil, false, `execute-api:/prod/GET/, no statement allows it; statement 1 "read" (line 4) would, but for its Resource`},
		{"by role and name", "prod", "", "PUT", "/keepers/anna/1", keeper, nil, true, `statement 2 "own" (line 5) allows it`},
		{"somebody else's", "prod", "", "PUT", "/keepers/bert/1", keeper, nil, false, `execute-api:/prod/PUT/keepers/bert/1, no statement allows it; statement 1 "read" (line 4) would, but for its Resource`},
		{"nobody known", "prod", "", "PUT", "/keepers/anna/1", nil, nil, false, `execute-api:/prod/PUT/keepers/anna/1, no statement allows it; statement 1 "read" (line 4) would, but for its Resource`},
		{"a user agent", "prod", "", "GET", "/pets/1", nil, func(x *exchange.Exchange) {
			x.Request.Header.Add([]byte("User-Agent"), []byte("bad/1"))
			x.Request.Header.Add([]byte("Referer"), []byte("https://bad.example/a"))
		}, false, `execute-api:/prod/GET/pets/1, statement 3 "agents" (line 7) denies it`},
		{"a user agent without the referer", "prod", "", "GET", "/pets/1", nil, func(x *exchange.Exchange) { x.Request.Header.Add([]byte("User-Agent"), []byte("bad/1")) }, true, `statement 1 "read" (line 4) allows it`},
		{"not over TLS", "prod", "", "GET", "/pets/1", nil, func(x *exchange.Exchange) { x.Request.TLS = false }, false, `execute-api:/prod/GET/pets/1, statement 4 "plain" (line 8) denies it`},
		{"over TLS to a trusted proxy", "prod", "", "GET", "/pets/1", nil, func(x *exchange.Exchange) {
			x.Request.TLS, x.Trusted = false, true
			x.Request.Header.Add([]byte("X-Forwarded-Proto"), []byte("https"))
		}, true, `statement 1 "read" (line 4) allows it`},
		{"without TLS to a trusted proxy", "prod", "", "GET", "/pets/1", nil, func(x *exchange.Exchange) {
			x.Trusted = true
			x.Request.Header.Add([]byte("X-Forwarded-Proto"), []byte("http"))
		}, false, `execute-api:/prod/GET/pets/1, statement 4 "plain" (line 8) denies it`},
		{"somebody who says so", "prod", "", "GET", "/pets/1", nil, func(x *exchange.Exchange) {
			x.Request.TLS = false
			x.Request.Header.Add([]byte("X-Forwarded-Proto"), []byte("https"))
		}, false, `execute-api:/prod/GET/pets/1, statement 4 "plain" (line 8) denies it`},
	} {
		f, err := policed(t, config.API{Name: "public", Stage: c.stage, BasePath: c.base}, petPolicy)
		if err != nil {
			t.Fatal(err)
		}
		x := &exchange.Exchange{Start: noon, Client: netip.MustParseAddr("203.0.113.7"), Caller: c.caller}
		x.Request.Method, x.Request.Path, x.Request.TLS = c.method, []byte(c.path), true
		if c.change != nil {
			c.change(x)
		}
		err = f.Request(x)
		refusal, _ := errors.AsType[*exchange.Error](err)
		if (err == nil) != c.ok || err != nil && (refusal == nil || refusal.Code != exchange.Forbidden || refusal.Detail != forbid(nil).Detail) {
			t.Errorf("%s: %v", c.name, err)
		}
		o := f.Explain(x)
		if o.Reason != "resource_policy policy.json: "+c.why || (o.Verdict == telemetry.Allowed) != c.ok || (o.Refusal == nil) != c.ok {
			t.Errorf("%s: explained as %+v", c.name, o)
		}
	}
}

// Who may not read a resource may not read its fields either. HEAD is an action of its
// own for what allows it.
func TestWhatDeniesGETDeniesItsHEAD(t *testing.T) {
	const text = `{"Version": "2012-10-17", "Statement": [
  {"Sid": "all", "Effect": "Allow", "Principal": "*", "Action": "execute-api:Invoke", "Resource": "execute-api:/$default/*/pets/*"},
  {"Sid": "get", "Effect": "Allow", "Principal": "*", "Action": "execute-api:Invoke", "Resource": "execute-api:/$default/GET/birds/*"},
  {"Sid": "head", "Effect": "Allow", "Principal": "*", "Action": "execute-api:Invoke", "Resource": "execute-api:/$default/HEAD/fish/*"},
  {"Sid": "no", "Effect": "Deny", "Principal": "*", "Action": "execute-api:Invoke", "Resource": "execute-api:/$default/GET/pets/secret"},
  {"Sid": "nohead", "Effect": "Deny", "Principal": "*", "Action": "execute-api:Invoke", "Resource": "execute-api:/$default/HEAD/pets/big"}]}`
	get, both := []string{"GET"}, []string{"GET", "HEAD"}
	for _, c := range []struct {
		methods      []string
		method, path string
		ok           bool
		why          string
	}{
		{get, "GET", "/pets/secret", false, `execute-api:/$default/GET/pets/secret, statement 4 "no" (line 5) denies it`},
		{get, "HEAD", "/pets/secret", false, `execute-api:/$default/GET/pets/secret, statement 4 "no" (line 5) denies it`},
		{nil, "HEAD", "/pets/secret", false, `execute-api:/$default/GET/pets/secret, statement 4 "no" (line 5) denies it`},
		{both, "HEAD", "/pets/secret", true, `statement 1 "all" (line 2) allows it`}, // HEAD is routed by itself
		{nil, "POST", "/pets/secret", true, `statement 1 "all" (line 2) allows it`},
		{get, "HEAD", "/pets/1", true, `statement 1 "all" (line 2) allows it`},
		{get, "GET", "/pets/big", true, `statement 1 "all" (line 2) allows it`},
		{get, "HEAD", "/pets/big", false, `execute-api:/$default/HEAD/pets/big, statement 5 "nohead" (line 6) denies it`},
		{get, "GET", "/birds/1", true, `statement 2 "get" (line 3) allows it`},
		{get, "HEAD", "/birds/1", false, `execute-api:/$default/HEAD/birds/1, no statement allows it; statement 1 "all" (line 2) would, but for its Resource`},
		{get, "HEAD", "/fish/1", true, `statement 3 "head" (line 4) allows it`},
	} {
		f, err := policedRoute(t, config.API{Name: "public"}, &config.Route{Methods: c.methods}, text)
		if err != nil {
			t.Fatal(err)
		}
		x := &exchange.Exchange{Start: noon}
		x.Request.Method, x.Request.Path, x.Request.TLS = c.method, []byte(c.path), true
		if err := f.Request(x); (err == nil) != c.ok {
			t.Errorf("%v %s %s: %v", c.methods, c.method, c.path, err)
		}
		if o := f.Explain(x); o.Reason != "resource_policy policy.json: "+c.why || (o.Refusal == nil) != c.ok {
			t.Errorf("%v %s %s: explained as %+v", c.methods, c.method, c.path, o)
		}
	}
}

func TestAPolicyThatIsNotUnderstoodIsAFault(t *testing.T) {
	f, err := policed(t, config.API{}, "{\n \"Version\": \"2012-10-17\",\n \"Statement\": {\"Effect\": \"Allow\", \"Principal\": \"*\", \"Action\": \"execute-api:Invoke\", \"Resource\": \"*\", \"Condition\": {\"Like\": {}, \"Bool\": {\"aws:Nothing\": true}}}\n}")
	if f != nil || err == nil {
		t.Fatal(f, err)
	}
	faults := policy.Faults(err, "")
	if len(faults) != 2 {
		t.Fatalf("%d faults: %v", len(faults), err)
	}
	for i, want := range []string{`policy.json: line 3, column 116: "Like" is no condition operator`, `policy.json: line 3, column 137: "aws:Nothing" is no condition key`} {
		if faults[i].At != "apis[1].resource_policy" || len(faults[i].Error()) < len(want) || faults[i].Error()[:len(want)] != want {
			t.Errorf("%s: %v", faults[i].At, faults[i])
		}
	}
	e := New(Options{Dir: t.TempDir()})
	_, err = e.newResourcePolicy(nil, &policy.Env{File: &config.File{APIs: []config.API{{ResourcePolicy: "none.json"}}}, At: "apis[0].routes[0]"})
	if !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestOnlyRoutesOfTheAPIHaveItsPolicy(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "p.json"), []byte(petPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	env := policy.Env{File: &config.File{APIs: []config.API{{ResourcePolicy: "p.json"}, {}}}, Common: &sync.Map{}}
	e := New(Options{Dir: dir})
	var first *resourcePolicy
	for at, want := range map[string]bool{"apis[0].routes[0]": true, "apis[0].routes[1]": true, "apis[1].routes[0]": false, "routes[0]": false, "": false, "apis[9].routes[0]": false} {
		env.At = at
		f, err := e.newResourcePolicy(&config.Route{}, &env)
		if (f != nil) != want || err != nil {
			t.Errorf("%s: %v, %v", at, f, err)
		}
		if p, ok := f.(*resourcePolicy); ok {
			if first != nil && first.policy != p.policy {
				t.Error("the document was read twice")
			}
			first = p
		}
	}
}

func policedRequest() *exchange.Exchange {
	x := &exchange.Exchange{Start: noon, Client: netip.MustParseAddr("203.0.113.7"), Caller: acme()}
	x.Request.Method, x.Request.Path, x.Request.TLS = "GET", []byte("/pets/1"), true
	return x
}

func TestPoliciesAllocateNothing(t *testing.T) {
	f, err := policed(t, config.API{Stage: "prod"}, petPolicy)
	if err != nil {
		t.Fatal(err)
	}
	x, path := policedRequest(), []byte("/pets/1")
	if n := testing.AllocsPerRun(1000, func() {
		x.Reset()
		x.Request.Method, x.Request.Path, x.Request.TLS = "GET", path, true
		if err := f.Request(x); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkResourcePolicy(b *testing.B) {
	f, err := policed(b, config.API{Stage: "prod"}, petPolicy)
	if err != nil {
		b.Fatal(err)
	}
	x := policedRequest()
	path := []byte("/pets/1")
	b.ReportAllocs()
	for b.Loop() {
		x.Reset()
		x.Request.Method, x.Request.Path, x.Request.TLS = "GET", path, true
		if err := f.Request(x); err != nil {
			b.Fatal(err)
		}
	}
}
