package auth

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// authorizes makes the filter of a route with an `authorize`.
func authorizes(t testing.TB, c config.Authorize) policy.Filter {
	t.Helper()
	file := &config.File{Authenticators: map[string]*config.Authenticator{"keys": {APIKey: &config.APIKeyAuth{From: []string{"header:X-Api-Key"}}}}}
	route := &config.Route{Auth: &config.Auth{Use: [][]string{{"keys"}, {"anonymous"}}}, Authorize: &c}
	e := New(Options{})
	f, err := e.newAuthorize(route, &policy.Env{File: file, At: "routes[0]"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(f.(policy.Closer).Close(), e.Close(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return f
}

// asked is PUT /users/acme by a caller.
func asked(c *exchange.Caller) *exchange.Exchange {
	x := &exchange.Exchange{
		Conn: &exchange.Conn{}, Start: noon, Client: netip.MustParseAddr("203.0.113.7"), Caller: c,
		Route: &exchange.Route{API: "public", Name: "user", Pattern: "/users/{id}"}, Params: []exchange.Param{{Name: "id", Value: []byte("acme")}},
	}
	x.Request.Method, x.Request.Path, x.Request.Host = "PUT", []byte("/users/acme"), []byte("api.example.com")
	x.Request.Header.Add([]byte("X-Team"), []byte("blue"))
	return x
}

func acme() *exchange.Caller {
	return &exchange.Caller{
		ID: "acme", Plan: "gold", Roles: []string{"reader"}, Permissions: []string{"users:read", "jobs:*"}, Attributes: map[string]string{"tier": "gold"},
		Claims: map[string]any{"admin": true, "level": json.Number("3"), "realm": map[string]any{"teams": []any{"blue", "red"}}, "scope": "a b"},
	}
}

func other() *exchange.Caller { return &exchange.Caller{ID: "other"} }

func TestWhoMay(t *testing.T) {
	for _, c := range []struct {
		name   string
		rule   config.Authorize
		caller *exchange.Caller
		why    string // of the refusal; empty: may
	}{
		{"nothing is asked", config.Authorize{}, other(), ""},
		{"nothing is asked of nobody", config.Authorize{}, nil, ""},

		{"a permission", config.Authorize{Permissions: []string{"users:read"}}, acme(), ""},
		{"a wildcard", config.Authorize{Permissions: []string{"jobs:run", "jobs:stop"}}, acme(), ""},
		{"all of a kind", config.Authorize{Permissions: []string{"jobs:*"}}, acme(), ""},
		{"one is missing", config.Authorize{Permissions: []string{"users:read", "users:write"}}, acme(), "permission users:write is missing; acme has users:read, jobs:*"},
		{"all of a kind are more than one", config.Authorize{Permissions: []string{"users:*"}}, acme(), "permission users:* is missing; acme has users:read, jobs:*"},
		{"there are none", config.Authorize{Permissions: []string{"users:read"}}, other(), "permission users:read is missing; other has none"},
		{"nobody has one", config.Authorize{Permissions: []string{"users:read"}}, nil, "permission users:read is missing; nobody is known"},

		{"a role", config.Authorize{Roles: []string{"admin", "reader"}}, acme(), ""},
		{"not the role", config.Authorize{Roles: []string{"admin"}}, acme(), "role admin is missing; acme has reader"},
		{"none of the roles", config.Authorize{Roles: []string{"admin", "owner"}}, acme(), "one of the roles admin, owner is missing; acme has reader"},
		{"no roles", config.Authorize{Roles: []string{"admin"}}, other(), "role admin is missing; other has none"},
		{"nobody has a role", config.Authorize{Roles: []string{"admin"}}, nil, "role admin is missing; nobody is known"},

		{"everything", config.Authorize{Permissions: []string{"users:read"}, Roles: []string{"reader"}, When: "client.id == params.id"}, acme(), ""},
		{"the permission is asked first", config.Authorize{Permissions: []string{"x"}, Roles: []string{"y"}, When: "false"}, acme(), "permission x is missing; acme has users:read, jobs:*"},
		{"then the role", config.Authorize{Permissions: []string{"users:read"}, Roles: []string{"y"}, When: "false"}, acme(), "role y is missing; acme has reader"},
		{"then the condition", config.Authorize{Permissions: []string{"users:read"}, Roles: []string{"reader"}, When: "false"}, acme(), "when is false: false (of acme)"},

		{"the same client", config.Authorize{When: `client.id == params.id || "admin" in client.roles`}, acme(), ""},
		{"another client", config.Authorize{When: "client.id == params.id"}, other(), "when is false: client.id == params.id (of other)"},
		{"nobody", config.Authorize{When: "client.id == params.id"}, nil, "when is false: client.id == params.id (nobody is known)"},
		{"a condition that nobody fulfils too", config.Authorize{When: `request.ip.startsWith("203.0.113.")`}, nil, ""},
		{"a plan", config.Authorize{When: `client.plan == "gold" && client.attributes.tier == "gold"`}, acme(), ""},
		{"a claim", config.Authorize{When: `claims.admin == true && claims.level >= 3`}, acme(), ""},
		{"a claim within a claim", config.Authorize{When: `"red" in claims.realm.teams`}, acme(), ""},
		{"a claim and the request", config.Authorize{When: `request.headers["x-team"] in claims.realm.teams`}, acme(), ""},
		{"a claim that there is not", config.Authorize{When: `claims.owner == true`}, acme(), "when cannot be evaluated, no such key: owner: claims.owner == true (of acme)"},
		{"a claim asked for first", config.Authorize{When: `has(claims.owner) && claims.owner == true`}, acme(), "when is false: has(claims.owner) && claims.owner == true (of acme)"},
		{"a claim of nobody", config.Authorize{When: `claims.admin == true`}, nil, "when cannot be evaluated, no such key: admin: claims.admin == true (nobody is known)"},
		{"a claim of another type", config.Authorize{When: `claims.scope > 3`}, acme(), "when cannot be evaluated, no such overload: claims.scope > 3 (of acme)"},
		{"an attribute that there is not", config.Authorize{When: `client.attributes.region == "eu"`}, acme(), `when cannot be evaluated, no such key: region: client.attributes.region == "eu" (of acme)`},
		{"a parameter that there is not", config.Authorize{When: `params.name == "x"`}, acme(), `when cannot be evaluated, no such key: name: params.name == "x" (of acme)`},
		{"no number", config.Authorize{When: `int(params.id) > 3`}, acme(), `when cannot be evaluated, type conversion error from 'string' to 'int': int(params.id) > 3 (of acme)`},
		{"a division", config.Authorize{When: `1 / (size(client.roles) - 1) > 0`}, acme(), `when cannot be evaluated, division by zero: 1 / (size(client.roles) - 1) > 0 (of acme)`},
		{"an error that decides nothing", config.Authorize{When: `claims.owner == true || client.id == "acme"`}, acme(), ""},
		{"the path", config.Authorize{When: `request.method == "PUT" && request.path == "/users/acme" && request.route_path == "/users/{id}" && request.host.endsWith(".example.com")`}, acme(), ""},
		{"before noon", config.Authorize{When: `now.getHours("UTC") < 12`}, acme(), `when is false: now.getHours("UTC") < 12 (of acme)`},
		{"until a day", config.Authorize{When: `now < timestamp("2027-01-01T00:00:00Z")`}, acme(), ""},
		{"any of the roles", config.Authorize{When: `client.roles.exists(r, r.startsWith("read"))`}, acme(), ""},
	} {
		f := authorizes(t, c.rule)
		err := f.Request(asked(c.caller))
		opinion := f.Explain(asked(c.caller))
		if c.why == "" {
			if err != nil || opinion.Verdict != telemetry.Allowed || opinion.Refusal != nil || opinion.Reason == "" {
				t.Errorf("%s: %v, explained as %+v", c.name, err, opinion)
			}
			continue
		}
		refusal, ok := errors.AsType[*exchange.Error](err)
		if !ok {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		code, challenges := exchange.Forbidden, 0
		if c.caller == nil {
			code, challenges = exchange.Unauthenticated, 1
		}
		if refusal.Code != code || len(refusal.Header) != challenges || refusal.Cause.Error() != c.why {
			t.Errorf("%s: %v with %d challenges:\n got %v\nwant %s", c.name, refusal.Code, len(refusal.Header), refusal.Cause, c.why)
		}
		if strings.Contains(refusal.Detail, "permission") || strings.Contains(refusal.Detail, "acme") {
			t.Errorf("%s: the client is told %q", c.name, refusal.Detail)
		}
		if opinion.Verdict != telemetry.Refused || opinion.Reason != c.why || opinion.Refusal == nil || opinion.Refusal.Code != code {
			t.Errorf("%s: explained as %+v", c.name, opinion)
		}
	}
}

func TestConditionsAreCheckedWhenTheyAreLoaded(t *testing.T) {
	for _, c := range []struct{ when, want string }{
		{`client.nam == "x"`, "there is no client.nam, there are client.attributes"},
		{`user.id == "x"`, "user"},
		{`client.id == 3`, "no matching overload"},
		{`client.id`, "it yields string, a bool is needed"},
		{`claims.admin`, "compare it, as in claims.admin == true"},
		{`client.id == `, "offset"},
		{`client.id.matches("(")`, "offset"},
		{`request.query.exists(a, request.query.exists(b, request.query.exists(c, a == b && b == c)))`, "offset"},
	} {
		e := New(Options{})
		route := &config.Route{Authorize: &config.Authorize{When: c.when}}
		f, err := e.newAuthorize(route, &policy.Env{File: &config.File{}, At: "apis[1].routes[2]"})
		if f != nil || err == nil {
			t.Errorf("%s: %v", c.when, err)
			continue
		}
		for _, fault := range policy.Faults(err, "") {
			if fault.At != "apis[1].routes[2].authorize.when" || !strings.Contains(fault.Error(), c.want) {
				t.Errorf("%s: %s: %v", c.when, fault.At, fault)
			}
		}
	}
}

func TestAuthorizeHasAShadow(t *testing.T) {
	for mode, want := range map[string]bool{"": false, "enforce": false, "shadow": true} {
		if got := authorizes(t, config.Authorize{Mode: mode}).(policy.Moded).Shadow(); got != want {
			t.Errorf("%q: %v", mode, got)
		}
	}
	e := New(Options{})
	if f, err := e.newAuthorize(&config.Route{}, &policy.Env{File: &config.File{}}); f != nil || err != nil {
		t.Errorf("without authorize: %v, %v", f, err)
	}
}

func TestLongListsAreCut(t *testing.T) {
	names := strings.Split(strings.Repeat("x,", 24)+"x", ",")
	if got, want := some(names), strings.Repeat("x, ", 19)+"x and 5 more"; got != want {
		t.Errorf("%q", got)
	}
}

func TestPermissionsAndRolesAllocateNothing(t *testing.T) {
	f := authorizes(t, config.Authorize{Permissions: []string{"users:read", "jobs:run"}, Roles: []string{"admin", "reader"}})
	x := asked(acme())
	if n := testing.AllocsPerRun(1000, func() {
		if err := f.Request(x); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAuthorize(b *testing.B) {
	for _, c := range []struct {
		name string
		rule config.Authorize
	}{
		{"permissions and roles", config.Authorize{Permissions: []string{"users:read", "jobs:run"}, Roles: []string{"admin", "reader"}}},
		{"when", config.Authorize{When: `client.id == params.id || "admin" in client.roles`}},
	} {
		b.Run(c.name, func(b *testing.B) {
			f, x := authorizes(b, c.rule), asked(acme())
			b.ReportAllocs()
			for b.Loop() {
				if err := f.Request(x); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
