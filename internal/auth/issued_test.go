package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/store"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// office is a gateway with a token issuer: the endpoints, and a route that accepts its
// tokens.
type office struct {
	t      testing.TB
	engine *Engine
	tokens policy.Filter
	route  policy.Filter
	clock  func() time.Time
}

const acmeKey = "acme-key-0123456789abcdef"

// issuing is a configuration with an issuer and the client acme.
func issuing() *config.File {
	f := &config.File{
		Tokens: &config.Tokens{
			Issuer: "https://api.example.com", Algorithm: "ES256", Path: "/oauth",
			AccessTTL: config.Duration{Duration: 30 * time.Minute}, RefreshTTL: config.Duration{Duration: 7 * 24 * time.Hour},
		},
		Authenticators: map[string]*config.Authenticator{"own": {Issued: &config.IssuedAuth{}}},
		Plans:          map[string]*config.Plan{"gold": {}},
		Roles:          map[string]*config.Role{"reader": {Permissions: []string{"users:read"}}},
		Clients: []config.Client{{
			ID: "acme", Plan: "gold", Roles: []string{"reader"}, Permissions: []string{"orders:*"},
			Attributes: map[string]any{"tier": "one"},
			Keys:       []config.ClientKey{{Name: "main", Value: config.NewSecret(acmeKey)}},
		}},
	}
	f.Limits.AuthFailures = config.AuthFailures{Rate: config.Rate{N: 20, Per: time.Minute}, Burst: 5, Per: []string{"ip"}}
	return f
}

// openOffice makes an office of a configuration. records may be nil.
func openOffice(t testing.TB, f *config.File, records store.Records, now func() time.Time) *office {
	t.Helper()
	o := &office{t: t, engine: New(Options{Now: now}), clock: now}
	if records != nil {
		o.engine.Keep(records)
	}
	closers := o.serve(f)
	t.Cleanup(func() {
		for _, c := range closers {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := o.engine.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return o
}

// serve makes the filters of a configuration.
func (o *office) serve(f *config.File) []policy.Closer {
	o.t.Helper()
	common := &sync.Map{}
	var err error
	if o.tokens, err = o.engine.newTokens(&config.Route{}, &policy.Env{File: f, Common: common, Route: exchange.Route{Name: tokensRoute}}); err != nil {
		o.t.Fatal(err)
	}
	route := &config.Route{Auth: &config.Auth{Use: [][]string{{"own"}}}}
	if o.route, err = o.engine.newAuthenticate(route, &policy.Env{File: f, Common: common, Route: exchange.Route{Name: "r"}}); err != nil {
		o.t.Fatal(err)
	}
	return []policy.Closer{o.tokens.(policy.Closer), o.route.(policy.Closer)}
}

func (o *office) exchange(method, path string) *exchange.Exchange {
	x := &exchange.Exchange{Start: o.clock(), Conn: &exchange.Conn{}, Client: netip.MustParseAddr("192.0.2.1")}
	x.Request.Method, x.Request.Path = method, []byte(path)
	return x
}

// posted is the answer of an endpoint to a form.
type posted struct {
	Status  int
	Header  *exchange.Header
	Err     *exchange.Error
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	Scope   string `json:"scope"`
	Error   string `json:"error"`
	Active  bool   `json:"active"`
}

func (o *office) post(path, id, key string, pairs ...string) posted {
	o.t.Helper()
	x := o.exchange("POST", path)
	if id != "" {
		x.Request.Header.AddID(exchange.Authorization, []byte("Basic "+base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id)+":"+url.QueryEscape(key)))))
	}
	x.Request.Header.AddID(exchange.ContentType, []byte("application/x-www-form-urlencoded"))
	x.Request.Body = exchange.NewBytes([]byte(strings.Join(pairs, "&")))
	err := o.tokens.Request(x)
	p := posted{Status: x.Response.Status, Header: &x.Response.Header}
	if err != exchange.Done {
		p.Err = exchange.AsError(err)
		p.Status = p.Err.HTTPStatus()
		return p
	}
	if body := bodyOf(o.t, x); len(body) > 0 {
		if err := json.Unmarshal(body, &p); err != nil {
			o.t.Fatalf("%s: %v", body, err)
		}
	}
	return p
}

func bodyOf(t testing.TB, x *exchange.Exchange) []byte {
	t.Helper()
	if x.Response.Body == nil {
		return nil
	}
	b, err := x.Response.Body.Next()
	if err != io.EOF {
		t.Fatal(err)
	}
	return b
}

// grant gets tokens with a key.
func (o *office) grant(id, key string, pairs ...string) posted {
	o.t.Helper()
	p := o.post("/oauth/token", id, key, append(pairs, "grant_type=client_credentials")...)
	if p.Status != 200 {
		o.t.Fatalf("%s gets %+v, %v", id, p, p.Err)
	}
	return p
}

// use sends a request with a token, and says who it was: the id, or the code of the
// refusal.
func (o *office) use(token string) (string, *exchange.Exchange, *exchange.Error) {
	x := o.exchange("GET", "/")
	x.Request.Header.AddID(exchange.Authorization, []byte("Bearer "+token))
	if err := o.route.Request(x); err != nil {
		e := exchange.AsError(err)
		return e.Code.String(), x, e
	}
	return x.Caller.ID, x, nil
}

func TestATokenOfTheGatewaysOwn(t *testing.T) {
	records := new(cabinet)
	drawer := records.open(t)
	defer drawer.close()
	f := issuing()
	o := openOffice(t, f, drawer, time.Now)
	p := o.grant("config:acme/main", acmeKey)
	if p.Scope != "orders:* users:read" || p.Refresh == "" {
		t.Errorf("%+v", p)
	}
	if v := string(p.Header.GetID(exchange.CacheControl)); v != "no-store" {
		t.Errorf("Cache-Control: %s", v)
	}
	who, x, err := o.use(p.Access)
	if err != nil {
		t.Fatal(err)
	}
	c := x.Caller
	if who != "acme" || c.Authenticator != "own" || c.Plan != "gold" || !slices.Equal(c.Roles, []string{"reader"}) || !slices.Equal(c.Permissions, []string{"orders:*", "users:read"}) {
		t.Errorf("%+v", c)
	}
	if c.Claim("client_id") != "config:acme/main" || c.Claim("type") != "access" || c.Attributes != nil {
		t.Errorf("%+v", c)
	}
	if v := string(x.Request.Header.GetID(exchange.Authorization)); !strings.HasPrefix(v, "Bearer ") {
		t.Error("a token is forwarded unless the entry says otherwise")
	}
	if _, again, _ := o.use(p.Access); again.Caller != c {
		t.Error("the caller is made again for each request")
	}

	_, _, bad := o.use("a.b.c") // nobody's
	for name, token := range map[string]string{
		"the refresh token": p.Refresh, "cut off": p.Access[:len(p.Access)-2], "longer": p.Access + "A", "the key": acmeKey, "nothing": "",
	} {
		_, x, err := o.use(token)
		if err == nil || err.Code != exchange.Unauthenticated || err.Detail != bad.Detail || x.Caller != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	next := o.post("/oauth/token", "config:acme/main", acmeKey, "grant_type=refresh_token", "refresh_token="+p.Refresh)
	if who, _, _ := o.use(next.Access); who != "acme" {
		t.Errorf("after refreshing: %s, %+v", who, next)
	}
	if r := o.post("/oauth/introspect", "config:acme/main", acmeKey, "token="+p.Access); !r.Active {
		t.Errorf("introspection: %+v", r)
	}
	if r := o.post("/oauth/revoke", "config:acme/main", acmeKey, "token="+next.Refresh); r.Status != 200 {
		t.Errorf("revocation: %+v", r)
	}
	for _, token := range []string{p.Access, next.Access} {
		if who, _, _ := o.use(token); who != "unauthenticated" {
			t.Errorf("a revoked token is that of %s", who)
		}
	}
}

func TestAScopeIsNeverExceeded(t *testing.T) {
	yes := true
	for _, c := range []struct {
		name  string
		join  *bool
		scope string
		want  string
	}{
		{"narrow", nil, "orders:read", "[orders:read]"},
		{"narrow, joined", &yes, "orders:read", "[orders:read]"},
		{"of a role", nil, "users:read", "[users:read]"},
		{"of a role, joined", &yes, "users:read", "[users:read]"},
		{"all, joined", &yes, "", "[orders:* users:read]"},
	} {
		f := issuing()
		f.Authenticators["own"].Join = c.join
		o := openOffice(t, f, nil, time.Now)
		_, x, err := o.use(o.grant("config:acme/main", acmeKey, "scope="+c.scope).Access)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := fmt.Sprint(x.Caller.Permissions); got != c.want || (x.Caller.Attributes["tier"] == "one") != (c.join != nil) || x.Caller.Plan != "gold" {
			t.Errorf("%s: %s, %+v", c.name, got, x.Caller)
		}
		if p := o.post("/oauth/token", "config:acme/main", acmeKey, "grant_type=client_credentials", "scope=users:write"); p.Error != "invalid_scope" {
			t.Errorf("%s: wider than the key: %+v", c.name, p)
		}
	}
}

// A key that is revoked ends its tokens on every gateway as soon as that is told, and
// for good.
func TestARevokedKeyEndsItsTokens(t *testing.T) {
	records := new(cabinet)
	var gateways []*office
	for range 4 {
		drawer := records.open(t)
		defer drawer.close()
		f := issuing()
		f.Limits.AuthFailures.Burst = 1 << 20 // it is tried until it is known
		gateways = append(gateways, openOffice(t, f, drawer, time.Now))
	}
	d := gateways[0].engine.Directory()
	if _, err := d.CreateClient(t.Context(), config.Client{ID: "bolt", Permissions: []string{"users:read"}}); err != nil {
		t.Fatal(err)
	}
	all := map[string]posted{}
	ids := map[string]string{}
	for _, end := range []string{"revoke", "disable"} {
		k, text, err := d.CreateKey(t.Context(), Key{Client: "bolt", Name: end})
		if err != nil {
			t.Fatal(err)
		}
		ids[end], all[end] = k.ID, gateways[0].grant(k.ID, text)
		for i, g := range gateways {
			if who := g.becomes(all[end].Access, "bolt"); who != "bolt" {
				t.Fatalf("gateway %d: %s", i, who)
			}
		}
	}
	if err := d.RevokeKey(t.Context(), ids["revoke"]); err != nil {
		t.Fatal(err)
	}
	if _, err := d.EnableKey(t.Context(), ids["disable"], false); err != nil {
		t.Fatal(err)
	}
	for end, p := range all {
		for i, g := range gateways {
			if who := g.becomes(p.Access, "unauthenticated"); who != "unauthenticated" {
				t.Errorf("%s, gateway %d: %s", end, i, who)
			}
		}
	}
	if _, err := d.EnableKey(t.Context(), ids["disable"], true); err != nil {
		t.Fatal(err)
	}
	if who, _, _ := gateways[0].use(all["disable"].Access); who != "bolt" {
		t.Errorf("enabled again: %s", who)
	}
}

// becomes waits, at most a second, until a token is what is wanted, and says what it is.
func (o *office) becomes(token, want string) (who string) {
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		if who, _, _ = o.use(token); who == want {
			break
		}
	}
	return who
}

func TestTheEndpoints(t *testing.T) {
	o := openOffice(t, issuing(), nil, time.Now)
	for _, c := range []struct {
		method, path string
		status       int
		cache        string
		has          string
	}{
		{"GET", "/oauth/jwks", 200, "public, max-age=3600", `"kty":"EC"`},
		{"HEAD", "/oauth/jwks", 200, "public, max-age=3600", ""},
		{"GET", "/.well-known/oauth-authorization-server", 200, "public, max-age=3600", `"issuer":"https://api.example.com"`},
		{"GET", "/.well-known/openid-configuration", 200, "public, max-age=3600", `"jwks_uri":"https://api.example.com/oauth/jwks"`},
		{"POST", "/oauth/jwks", 405, "", ""},
		{"GET", "/oauth/token", 405, "", ""},
		{"GET", "/oauth/revoke", 405, "", ""},
		{"DELETE", "/oauth/introspect", 405, "", ""},
		{"GET", "/oauth/other", 404, "", ""},
		{"GET", "/oauth", 404, "", ""},
		{"POST", "/oauth/token", 400, "no-store", "invalid_request"},
	} {
		x := o.exchange(c.method, c.path)
		err := o.tokens.Request(x)
		status := x.Response.Status
		if err != exchange.Done {
			status = exchange.AsError(err).HTTPStatus()
		}
		if status != c.status || string(x.Response.Header.GetID(exchange.CacheControl)) != c.cache || !strings.Contains(string(bodyOf(t, x)), c.has) {
			t.Errorf("%s %s: %d %v", c.method, c.path, status, err)
		}
		if e := o.tokens.Explain(o.exchange(c.method, c.path)); (e.Verdict == telemetry.Answered) != (c.status != 404) {
			t.Errorf("%s %s is explained as %+v", c.method, c.path, e)
		}
	}
	for name, env := range map[string]*policy.Env{
		"another route": {File: issuing(), Route: exchange.Route{Name: "r"}},
		"no issuer":     {File: &config.File{}, Route: exchange.Route{Name: tokensRoute}},
	} {
		if f, err := o.engine.newTokens(&config.Route{}, env); f != nil || err != nil {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
}

func TestGuessingAtTheTokenEndpointIsLimited(t *testing.T) {
	o := openOffice(t, issuing(), nil, time.Now)
	for i := range 5 {
		p := o.post("/oauth/token", "config:acme/main", "wrong-key-0123456789", "grant_type=client_credentials")
		if p.Status != 401 || p.Error != "invalid_client" || p.Header.Get(wwwAuthenticate) == nil {
			t.Fatalf("try %d: %+v", i, p)
		}
	}
	for _, path := range []string{"/oauth/token", "/oauth/revoke", "/oauth/introspect"} {
		if p := o.post(path, "config:acme/main", acmeKey, "grant_type=client_credentials"); p.Status != 429 {
			t.Errorf("%s: %+v", path, p)
		}
	}
	if who, _, _ := o.use("slr_x"); who != "rate_limited" {
		t.Errorf("elsewhere: %s", who)
	}
}

func TestTheWrongKeyForAnIDIsNobody(t *testing.T) {
	f := issuing()
	f.Limits.AuthFailures.Burst = 100
	f.Clients[0].Keys = append(f.Clients[0].Keys, config.ClientKey{Name: "other", Value: config.NewSecret("acme-other-0123456789abc")})
	o := openOffice(t, f, nil, time.Now)
	for _, c := range []struct{ id, key string }{
		{"config:acme/other", acmeKey}, {"config:acme/main", "acme-other-0123456789abc"}, {"acme", acmeKey}, {"config:acme/none", acmeKey}, {"config:acme/main", ""},
	} {
		if p := o.post("/oauth/token", c.id, c.key, "grant_type=client_credentials"); p.Error != "invalid_client" {
			t.Errorf("%v: %+v", c, p)
		}
	}
}

// A client that has what there is not is told apart from somebody who guesses.
func TestAClientWithAnUnknownPlanGetsNoTokens(t *testing.T) {
	f := issuing()
	f.Clients[0].Plan = "none"
	o := openOffice(t, f, nil, time.Now)
	for range 10 {
		if p := o.post("/oauth/token", "config:acme/main", acmeKey, "grant_type=client_credentials"); p.Status != 400 || p.Error != "unauthorized_client" {
			t.Fatalf("%+v", p)
		}
	}
}

func TestTokensOutlastAConfiguration(t *testing.T) {
	f := issuing()
	o := openOffice(t, f, nil, time.Now)
	p := o.grant("config:acme/main", acmeKey)
	next := issuing()
	next.Tokens.Algorithm = "EdDSA"
	next.Clients[0].Keys = append(next.Clients[0].Keys, config.ClientKey{Name: "second", Value: config.NewSecret("acme-second-0123456789ab")})
	closers := o.serve(next)
	if who, _, err := o.use(p.Access); who != "acme" {
		t.Error(err)
	}
	after := o.grant("config:acme/second", "acme-second-0123456789ab")
	if who, _, err := o.use(after.Access); who != "acme" {
		t.Error(err)
	}
	for _, c := range closers {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	// A configuration without the key ends the tokens that it was granted.
	last := issuing()
	for _, c := range o.serve(last) {
		defer func() { _ = c.Close() }()
	}
	if who, _, _ := o.use(after.Access); who != "unauthenticated" {
		t.Errorf("the token of a key that there is not is that of %s", who)
	}
	if who, _, err := o.use(p.Access); who != "acme" {
		t.Error(err)
	}
}

func TestExplainOfOwnTokens(t *testing.T) {
	o := openOffice(t, issuing(), nil, time.Now)
	p := o.grant("config:acme/main", acmeKey)
	for token, want := range map[string]string{
		p.Access:       "own says that it is acme",
		p.Access + "A": "own: ",
	} {
		x := o.exchange("GET", "/")
		x.Request.Header.AddID(exchange.Authorization, []byte("Bearer "+token))
		if e := o.route.Explain(x); !strings.HasPrefix(e.Reason, want) || strings.Contains(e.Reason, token) {
			t.Errorf("%+v", e)
		}
	}
	offline := &office{t: t, engine: New(Options{Offline: true}), clock: time.Now}
	defer func() { _ = offline.engine.Close(context.Background()) }()
	for _, c := range offline.serve(issuing()) {
		defer func() { _ = c.Close() }()
	}
	x := o.exchange("GET", "/")
	x.Request.Header.AddID(exchange.Authorization, []byte("Bearer "+p.Access))
	if e := offline.route.Explain(x); !e.Unknown || !strings.Contains(e.Reason, "does not ask") {
		t.Errorf("without keys: %+v", e)
	}
}

func TestAKnownTokenCostsNoAllocation(t *testing.T) {
	o := openOffice(t, issuing(), nil, time.Now)
	x := o.exchange("GET", "/")
	x.Request.Header.AddID(exchange.Authorization, []byte("Bearer "+o.grant("config:acme/main", acmeKey).Access))
	if n := testing.AllocsPerRun(1000, func() {
		if err := o.route.Request(x); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkIssued(b *testing.B) {
	for _, algorithm := range []string{"ES256", "EdDSA", "RS256", "HS256"} {
		f := issuing()
		if f.Tokens.Algorithm = algorithm; algorithm == "HS256" {
			f.Tokens.Secret = config.NewSecret(strings.Repeat("s", 32))
		}
		o := openOffice(b, f, nil, time.Now)
		token := o.grant("config:acme/main", acmeKey).Access
		x := o.exchange("GET", "/")
		x.Request.Header.AddID(exchange.Authorization, []byte("Bearer "+token))
		b.Run(algorithm+"/warm", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := o.route.Request(x); err != nil {
					b.Fatal(err)
				}
			}
		})
		a := o.route.(*authenticate).all[0].(*issuedAuth)
		b.Run(algorithm+"/cold", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a.server.Verify([]byte(token), time.Now()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
