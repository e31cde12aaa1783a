package issuer

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// clock is one that tests move.
type clock struct{ ns atomic.Int64 }

func (c *clock) now() time.Time { return time.Unix(0, c.ns.Load()) }

func (c *clock) move(d time.Duration) { c.ns.Add(int64(d)) }

func newClock() *clock { return clockAt(time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)) }

// clockAt is a clock that stands still at a time. Beside a store with a clock of its
// own, which forgets what has expired, it must be now.
func clockAt(at time.Time) *clock {
	c := new(clock)
	c.ns.Store(at.UnixNano())
	return c
}

func TestTokenRequests(t *testing.T) {
	clock := newClock()
	_, s := gateway(t, newMemory(clock.now), clock.now, settings(somePeople()))
	basic := func(text string) *Request {
		q := ask("", "grant_type=client_credentials")
		q.Authorization = "Basic " + base64.StdEncoding.EncodeToString([]byte(text))
		return q
	}
	with := func(q *Request, change func(*Request)) *Request {
		change(q)
		return q
	}
	good := "grant_type=client_credentials"
	for _, c := range []struct {
		name   string
		q      *Request
		status int
		code   string
		scope  string
	}{
		{"basic", ask("k1", good), 200, "", "users:read users:write orders:*"},
		{"form", ask("", good, "client_id=k1", "client_secret=secret+of+k1"), 200, "", "users:read users:write orders:*"},
		{"no permissions", ask("k3", good), 200, "", ""},
		{"id in the form too", ask("k1", good, "client_id=k1"), 200, "", "users:read users:write orders:*"},
		{"narrower", ask("k1", good, "scope=users:read"), 200, "", "users:read"},
		{"below a wildcard", ask("k1", good, "scope=orders:read+users:read"), 200, "", "orders:read users:read"},
		{"the wildcard itself", ask("k1", good, "scope=orders:*"), 200, "", "orders:*"},
		{"empty scope is none", ask("k1", good, "scope="), 200, "", "users:read users:write orders:*"},
		{"unknown parameters", ask("k1", good, "resource=x", "audience=y"), 200, "", "users:read users:write orders:*"},
		{"charset", with(ask("k1", good), func(q *Request) { q.ContentType += "; charset=UTF-8" }), 200, "", "users:read users:write orders:*"},
		{"wider", ask("k1", good, "scope=users:read+admin"), 400, "invalid_scope", ""},
		{"wider wildcard", ask("k1", good, "scope=users:*"), 400, "invalid_scope", ""},
		{"all", ask("k1", good, "scope=*"), 400, "invalid_scope", ""},
		{"scope with a quote", ask("k1", good, "scope=a%22b"), 400, "invalid_scope", ""},
		{"scope of a space", ask("k1", good, "scope=+"), 400, "invalid_scope", ""},
		{"scope of too many", ask("k1", good, "scope="+strings.Repeat("users:read+", 65)), 400, "invalid_scope", ""},
		{"wrong secret", basic("k1:secret of k2"), 401, "invalid_client", ""},
		{"unknown key", basic("k9:secret of k9"), 401, "invalid_client", ""},
		{"no credentials", ask("", good), 401, "invalid_client", ""},
		{"id alone", ask("", good, "client_id=k1"), 401, "invalid_client", ""},
		{"no secret", basic("k1:"), 401, "invalid_client", ""},
		{"no colon", basic("k1"), 401, "invalid_client", ""},
		{"bad escape", basic("k1:%zz"), 401, "invalid_client", ""},
		{"bad base64", with(basic(""), func(q *Request) { q.Authorization = "Basic k1:secret" }), 401, "invalid_client", ""},
		{"bearer", with(basic(""), func(q *Request) { q.Authorization = "Bearer x" }), 401, "invalid_client", ""},
		{"twice, both right", ask("k1", good, "client_id=k1", "client_secret=secret+of+k1"), 400, "invalid_request", ""},
		{"another id in the form", ask("k1", good, "client_id=k2"), 400, "invalid_request", ""},
		{"two Authorization fields", with(ask("k1", good), func(q *Request) { q.Several = true }), 400, "invalid_request", ""},
		{"no grant type", ask("k1"), 400, "invalid_request", ""},
		{"two grant types", ask("k1", good, good), 400, "invalid_request", ""},
		{"another grant type", ask("k1", "grant_type=password", "username=a", "password=b"), 400, "unsupported_grant_type", ""},
		{"JSON", with(ask("k1", good), func(q *Request) { q.ContentType = "application/json" }), 400, "invalid_request", ""},
		{"no content type", with(ask("k1", good), func(q *Request) { q.ContentType = "" }), 400, "invalid_request", ""},
		{"bad form", ask("k1", good, "x=%zz"), 400, "invalid_request", ""},
		{"not UTF-8", ask("k1", good, "x=%ff"), 400, "invalid_request", ""},
		{"NUL", ask("k1", good, "x=a%00b"), 400, "invalid_request", ""},
		{"large form", ask("k1", good, "x="+strings.Repeat("x", 64<<10)), 400, "invalid_request", ""},
		{"many parameters", ask("k1", good, strings.Repeat("&x=1", 40)), 400, "invalid_request", ""},
		{"no refresh token", ask("k1", "grant_type=refresh_token"), 400, "invalid_request", ""},
		{"made up refresh token", ask("k1", "grant_type=refresh_token", "refresh_token="+newRefresh(strings.Repeat("A", nameLen))), 400, "invalid_grant", ""},
		{"refresh token of another kind", ask("k1", "grant_type=refresh_token", "refresh_token=abc"), 400, "invalid_grant", ""},
	} {
		r := s.Token(context.Background(), c.q)
		a := read(t, r)
		if a.status != c.status || a.code != c.code || a.scope != c.scope || (a.status == 200) != (a.access != "" && a.refresh != "") {
			t.Errorf("%s: %+v", c.name, a)
		}
		if (r.Challenge != "") != (c.status == 401) || r.MaxAge != 0 || (r.Cause != nil) != (c.status != 200) {
			t.Errorf("%s: %+v", c.name, r)
		}
		if c.status == 401 && !r.Guess {
			t.Errorf("%s: does not count as a failed attempt", c.name)
		}
		if r.Cause != nil && strings.Contains(r.Cause.Error(), "secret of") {
			t.Errorf("%s: the log would have the secret: %v", c.name, r.Cause)
		}
	}
}

func TestConfigKeysMayBeWrittenAsTheyAreInBasic(t *testing.T) {
	for _, c := range []struct{ in, id, secret string }{
		{"config:acme/main:the-key", "config:acme/main", "the-key"},
		{"config%3Aacme%2Fmain:the-key", "config:acme/main", "the-key"},
		{"config:acme/main:a%3Ab", "config:acme/main", "a:b"},
		{"abc:slk_1", "abc", "slk_1"},
		{"abc:a:b", "abc", "a:b"},
	} {
		q := &Request{Authorization: "basic " + base64.StdEncoding.EncodeToString([]byte(c.in))}
		if id, secret, err := credentials(q, form{}); id != c.id || secret != c.secret || err != nil {
			t.Errorf("%s: %q %q %v", c.in, id, secret, err)
		}
	}
}

func TestAccessTokensHaveTheShapeOfRFC9068(t *testing.T) {
	clock := newClock()
	for _, algorithm := range []string{"ES256", "EdDSA", "RS256", "HS256"} {
		o := settings(somePeople())
		if o.Algorithm = algorithm; algorithm == "HS256" {
			o.Secret = []byte(strings.Repeat("s", 32))
		}
		_, s := gateway(t, newMemory(clock.now), clock.now, o)
		token := first(t, s, "k1", "scope=users:read").access
		parts := strings.Split(token, ".")
		var head, claims map[string]any
		for i, m := range []*map[string]any{&head, &claims} {
			b, err := base64.RawURLEncoding.DecodeString(parts[i])
			if err == nil {
				err = json.Unmarshal(b, m)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if head["typ"] != "at+jwt" || head["alg"] != algorithm || head["kid"] == "" {
			t.Errorf("%s: header %v", algorithm, head)
		}
		jti, _ := claims["jti"].(string)
		delete(claims, "jti")
		now := float64(clock.now().Unix())
		want := map[string]any{
			"iss": issuerURL, "sub": "acme", "aud": issuerURL, "client_id": "k1", "exp": now + 1800, "iat": now,
			"type": "access", "scope": "users:read", "plan": "gold", "roles": []any{"reader"},
		}
		if !reflect.DeepEqual(claims, want) || len(jti) != nameLen+14 {
			t.Errorf("%s: claims %v, jti %s", algorithm, claims, jti)
		}
		a, err := s.Verify([]byte(token), clock.now())
		if err != nil || s.Live(a) != nil {
			t.Fatalf("%s: %v", algorithm, err)
		}
		if a.Client != "acme" || a.Key != "k1" || a.Plan != "gold" || fmt.Sprint(a.Roles, a.Scope) != "[reader] [users:read]" {
			t.Errorf("%s: %+v", algorithm, a)
		}
		if err := usable(s, token, clock.now().Add(30*time.Minute-time.Second)); err != nil {
			t.Errorf("%s: at its last second: %v", algorithm, err)
		}
		if err := usable(s, token, clock.now().Add(30*time.Minute)); err == nil {
			t.Errorf("%s: holds at its end", algorithm)
		}
	}
}

func TestWhatIsNoAccessToken(t *testing.T) {
	clock := newClock()
	i, s := gateway(t, newMemory(clock.now), clock.now, settings(somePeople()))
	tokens := first(t, s, "k1")
	now := clock.now()
	signed := func(typ string, change map[string]any) string {
		claims := map[string]any{
			"iss": issuerURL, "sub": "acme", "aud": issuerURL, "client_id": "k1", "exp": now.Unix() + 60, "iat": now.Unix(),
			"type": "access", "jti": strings.Repeat("A", nameLen) + ".1",
		}
		for k, v := range change {
			if claims[k] = v; v == nil {
				delete(claims, k)
			}
		}
		b, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		token, err := i.ring.signing("ES256", now).signer.Sign(typ, b)
		if err != nil {
			t.Fatal(err)
		}
		return string(token)
	}
	if err := usable(s, signed("at+jwt", nil), now); err != nil {
		t.Fatal(err)
	}
	_, other := gateway(t, nil, clock.now, settings(somePeople()))
	for name, token := range map[string]string{
		"a refresh token":             tokens.refresh,
		"of another issuer's keys":    first(t, other, "k1").access,
		"typ JWT":                     signed("JWT", nil),
		"no typ":                      signed("", nil),
		"type refresh":                signed("at+jwt", map[string]any{"type": "refresh"}),
		"no type":                     signed("at+jwt", map[string]any{"type": nil}),
		"no sub":                      signed("at+jwt", map[string]any{"sub": nil}),
		"no client_id":                signed("at+jwt", map[string]any{"client_id": nil}),
		"no jti":                      signed("at+jwt", map[string]any{"jti": nil}),
		"jti of no family":            signed("at+jwt", map[string]any{"jti": "x"}),
		"jti of a short family":       signed("at+jwt", map[string]any{"jti": "x.y"}),
		"another iss":                 signed("at+jwt", map[string]any{"iss": issuerURL + "/"}),
		"another aud":                 signed("at+jwt", map[string]any{"aud": "https://other.example"}),
		"no exp":                      signed("at+jwt", map[string]any{"exp": nil}),
		"roles that are no list":      signed("at+jwt", map[string]any{"roles": "admin"}),
		"roles that are no texts":     signed("at+jwt", map[string]any{"roles": []any{1}}),
		"issued in the far future":    signed("at+jwt", map[string]any{"iat": now.Unix() + 11}),
		"a key that was never there":  signed("at+jwt", map[string]any{"client_id": "k9"}),
		"one byte short":              tokens.access[:len(tokens.access)-1],
		"nothing":                     "",
		"of the same form and random": strings.Repeat("a", 40) + "." + strings.Repeat("b", 40) + "." + strings.Repeat("c", 86),
	} {
		if err := usable(s, token, now); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if !s.Mine([]byte(tokens.access)) || !s.Mine([]byte(tokens.refresh)) || s.Mine([]byte("slk_x")) || s.Mine(nil) {
		t.Error("what is taken for the issuer's own is wrong")
	}
}

func TestRevokingOneTokenEndsItsFamilyAlone(t *testing.T) {
	clock := newClock()
	m := newMemory(clock.now)
	_, s := gateway(t, m, clock.now, settings(somePeople()))
	for _, by := range []string{"access", "refresh"} {
		tokens, other := first(t, s, "k1"), first(t, s, "k1")
		later := refresh(t, s, "k1", tokens.refresh)
		token := map[string]string{"access": tokens.access, "refresh": later.refresh}[by]
		if a := read(t, s.Revoke(context.Background(), ask("k3", "token="+token))); a.status != 400 || a.code != "unauthorized_client" {
			t.Errorf("%s token revoked by another client: %+v", by, a)
		}
		if err := usable(s, later.access, clock.now()); err != nil {
			t.Fatal(err)
		}
		// Another key of the same client may.
		if r := s.Revoke(context.Background(), ask("k2", "token="+token, "token_type_hint=nonsense")); r.Status != 200 || len(r.Body) != 0 {
			t.Errorf("%s token: %+v", by, r)
		}
		for name, access := range map[string]string{"first": tokens.access, "second": later.access} {
			if err := usable(s, access, clock.now()); err == nil {
				t.Errorf("by its %s token: the %s access token is still accepted", by, name)
			}
		}
		if a := refresh(t, s, "k1", later.refresh); a.code != "invalid_grant" {
			t.Errorf("by its %s token: it can still be refreshed: %+v", by, a)
		}
		if err := usable(s, other.access, clock.now()); err != nil {
			t.Errorf("another family has ended: %v", err)
		}
	}
	for name, token := range map[string]string{"unknown": "abc", "made up": newRefresh(strings.Repeat("B", nameLen))} {
		if r := s.Revoke(context.Background(), ask("k1", "token="+token)); r.Status != 200 {
			t.Errorf("%s token: %+v", name, r)
		}
	}
	for name, q := range map[string]*Request{"no token": ask("k1"), "nobody": ask("", "token=x")} {
		if r := s.Revoke(context.Background(), q); r.Status < 400 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	m.setAway(true)
	tokens := first(t, s, "k1")
	if a := read(t, s.Revoke(context.Background(), ask("k1", "token="+tokens.access))); a.status != 503 {
		t.Errorf("acknowledged while the store is away: %+v", a)
	}
	if err := usable(s, tokens.access, clock.now()); err != nil {
		t.Errorf("and made: %v", err)
	}
}

// A revocation is forgotten when no access token can hold any more. What was revoked
// can still not be refreshed.
func TestARevokedFamilyIsNotRefreshedLater(t *testing.T) {
	clock := newClock()
	i, s := gateway(t, newMemory(clock.now), clock.now, settings(somePeople()))
	tokens := first(t, s, "k1")
	if r := s.Revoke(context.Background(), ask("k1", "token="+tokens.access)); r.Status != 200 {
		t.Fatal(r)
	}
	clock.move(3 * time.Hour)
	i.revoked.sweep(clock.now())
	if n := len(i.revoked.all()); n != 0 {
		t.Errorf("%d families are remembered", n)
	}
	if a := refresh(t, s, "k1", tokens.refresh); a.code != "invalid_grant" {
		t.Errorf("%+v", a)
	}
}

func TestIntrospection(t *testing.T) {
	clock := newClock()
	p := somePeople()
	m := newMemory(clock.now)
	_, s := gateway(t, m, clock.now, settings(p))
	tokens := first(t, s, "k1", "scope=users:read")
	old := first(t, s, "k1")
	refresh(t, s, "k1", old.refresh)
	look := func(key, token string) answer {
		return read(t, s.Introspect(context.Background(), ask(key, "token="+token)))
	}
	for _, c := range []struct {
		name, key, token string
		active           bool
		kind             string
		until            time.Duration
	}{
		{"access", "k1", tokens.access, true, "access", 30 * time.Minute},
		{"access, asked by another client", "k3", tokens.access, true, "access", 30 * time.Minute},
		{"refresh", "k1", tokens.refresh, true, "refresh", 7 * 24 * time.Hour},
		{"refresh, asked by another client", "k3", tokens.refresh, false, "", 0},
		{"used refresh token", "k1", old.refresh, false, "", 0},
		{"unknown", "k1", "abc", false, "", 0},
		{"cut off", "k1", tokens.refresh[:90], false, "", 0},
	} {
		a := look(c.key, c.token)
		want := answer{status: 200, active: c.active, kind: c.kind}
		if c.active {
			want.scope, want.client, want.expires = "users:read", "k1", clock.now().Add(c.until).Unix()
		}
		if a != want {
			t.Errorf("%s: %+v", c.name, a)
		}
	}
	if r := s.Introspect(context.Background(), ask("", "token="+tokens.access)); r.Status != 401 {
		t.Errorf("anybody may ask: %+v", r)
	}
	if a := refresh(t, s, "k1", tokens.refresh, "scope=users:read"); a.status != 200 {
		t.Errorf("asking about a refresh token has used it: %+v", a)
	}
	p.kill("k1")
	if a := look("k2", tokens.access); a.active {
		t.Error("active though the key was revoked")
	}
	m.setAway(true)
	if a := look("k2", newRefresh(strings.Repeat("C", nameLen))); a.status != 503 {
		t.Errorf("decided without the store: %+v", a)
	}
}

func TestARefreshTokenIsOfTheKeyItWasGivenTo(t *testing.T) {
	clock := newClock()
	p := somePeople()
	_, s := gateway(t, newMemory(clock.now), clock.now, settings(p))
	tokens := first(t, s, "k1", "scope=users:read+orders:read")
	for _, key := range []string{"k2", "k3"} { // another key of the client, another client
		if a := refresh(t, s, key, tokens.refresh); a.code != "invalid_grant" {
			t.Errorf("%s: %+v", key, a)
		}
	}
	if a := refresh(t, s, "k1", tokens.refresh, "scope=users:write"); a.code != "invalid_scope" {
		t.Errorf("wider than the grant: %+v", a)
	}
	a := refresh(t, s, "k1", tokens.refresh, "scope=orders:read")
	if a.status != 200 || a.scope != "orders:read" {
		t.Fatalf("narrower: %+v", a)
	}
	if a = refresh(t, s, "k1", a.refresh); a.scope != "users:read orders:read" {
		t.Errorf("the next has not the scope of the grant: %+v", a)
	}
	p.mu.Lock()
	p.all["k1"] = &Client{ID: "acme", Key: "k1", Permissions: []string{"users:*"}}
	p.mu.Unlock()
	if a = refresh(t, s, "k1", a.refresh); a.scope != "users:read" {
		t.Errorf("what the key has lost is still there: %+v", a)
	}
	p.kill("k1")
	if b := refresh(t, s, "k1", a.refresh); b.code != "invalid_client" {
		t.Errorf("refreshed with a revoked key: %+v", b)
	}
	if err := usable(s, a.access, clock.now()); err == nil {
		t.Error("the access token outlives its key")
	}
}

func TestRefreshTokensEnd(t *testing.T) {
	clock := newClock()
	_, s := gateway(t, newMemory(clock.now), clock.now, settings(somePeople()))
	tokens := first(t, s, "k1")
	week := 7 * 24 * time.Hour
	clock.move(week - time.Second)
	if tokens = refresh(t, s, "k1", tokens.refresh); tokens.status != 200 {
		t.Fatalf("at its last second: %+v", tokens)
	}
	clock.move(week)
	if a := refresh(t, s, "k1", tokens.refresh); a.code != "invalid_grant" {
		t.Errorf("at its end: %+v", a)
	}
}

func TestWithoutRecordsThereAreAccessTokensOnly(t *testing.T) {
	clock := newClock()
	_, s := gateway(t, nil, clock.now, settings(somePeople()))
	tokens := first(t, s, "k1")
	if err := usable(s, tokens.access, clock.now()); err != nil || tokens.refresh != "" {
		t.Errorf("%v, %+v", err, tokens)
	}
	a := refresh(t, s, "k1", newRefresh(strings.Repeat("A", nameLen)))
	if a.code != "unsupported_grant_type" {
		t.Errorf("%+v", a)
	}
	if r := s.Revoke(context.Background(), ask("k1", "token="+tokens.access)); r.Status != 200 {
		t.Errorf("%+v", r)
	}
	if err := usable(s, tokens.access, clock.now()); err == nil {
		t.Error("is still accepted")
	}
	if strings.Contains(string(s.Metadata().Body), "refresh_token") {
		t.Error("the metadata promise refresh tokens")
	}
}

func TestWhileTheStoreIsAway(t *testing.T) {
	clock := newClock()
	m := newMemory(clock.now)
	p := somePeople()
	_, s := gateway(t, m, clock.now, settings(p))
	tokens := first(t, s, "k1")
	m.setAway(true)
	if err := usable(s, tokens.access, clock.now()); err != nil {
		t.Errorf("an access token is refused: %v", err)
	}
	if a := first(t, s, "k1"); a.refresh != "" {
		t.Errorf("a refresh token that was not recorded: %+v", a)
	}
	if a := refresh(t, s, "k1", tokens.refresh); a.status != 503 || a.code != "temporarily_unavailable" {
		t.Errorf("refreshed: %+v", a)
	}
	m.setAway(false)
	if a := refresh(t, s, "k1", tokens.refresh); a.status != 200 {
		t.Errorf("afterwards: %+v", a)
	}
	p.away = true
	if a := read(t, s.Token(context.Background(), ask("k1", "grant_type=client_credentials"))); a.status != 503 {
		t.Errorf("while nobody knows the keys: %+v", a)
	}

	m = newMemory(clock.now)
	m.setAway(true)
	_, s = gateway(t, m, clock.now, settings(somePeople()))
	if a := read(t, s.Token(context.Background(), ask("k1", "grant_type=client_credentials"))); a.status != 503 {
		t.Errorf("signed without a key: %+v", a)
	}
	if _, err := s.Verify([]byte(tokens.access), clock.now()); !isAway(err) {
		t.Errorf("decided without keys: %v", err)
	}
	if r := s.Keys(); r.Status != 503 {
		t.Errorf("a key set of keys that are not known: %+v", r)
	}
}

// A secret is at hand without the store. What was revoked is not.
func TestUntilRevocationsAreKnownNothingIsAccepted(t *testing.T) {
	clock := newClock()
	m := newMemory(clock.now)
	o := settings(somePeople())
	o.Algorithm, o.Secret = "HS256", []byte(strings.Repeat("s", 32))
	_, s := gateway(t, m, clock.now, o)
	tokens := first(t, s, "k1")
	if r := s.Revoke(context.Background(), ask("k1", "token="+tokens.access)); r.Status != 200 {
		t.Fatal(r)
	}
	m.setAway(true)
	i, fresh := gateway(t, m, clock.now, o)
	if err := usable(fresh, tokens.access, clock.now()); !isAway(err) {
		t.Errorf("decided: %v", err)
	}
	m.setAway(false)
	if err := i.tend(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	if err := usable(fresh, tokens.access, clock.now()); err == nil || isAway(err) {
		t.Errorf("what was revoked: %v", err)
	}
	if err := usable(fresh, first(t, fresh, "k1").access, clock.now()); err != nil {
		t.Error(err)
	}
}

func TestMetadata(t *testing.T) {
	clock := newClock()
	_, s := gateway(t, newMemory(clock.now), clock.now, settings(somePeople()))
	var got map[string]any
	r := s.Metadata()
	if err := json.Unmarshal(r.Body, &got); err != nil {
		t.Fatal(err)
	}
	methods := []any{"client_secret_basic", "client_secret_post"}
	want := map[string]any{
		"issuer": issuerURL, "token_endpoint": issuerURL + "/oauth/token", "jwks_uri": issuerURL + "/oauth/jwks",
		"revocation_endpoint": issuerURL + "/oauth/revoke", "introspection_endpoint": issuerURL + "/oauth/introspect",
		"grant_types_supported": []any{"client_credentials", "refresh_token"}, "response_types_supported": []any{},
		"token_endpoint_auth_methods_supported": methods, "revocation_endpoint_auth_methods_supported": methods,
		"introspection_endpoint_auth_methods_supported": methods, "subject_types_supported": []any{"public"},
		"id_token_signing_alg_values_supported": []any{"ES256"},
	}
	if !reflect.DeepEqual(got, want) || r.MaxAge != time.Hour {
		t.Errorf("%v, for %v", got, r.MaxAge)
	}
	i := New(Options{})
	for name, o := range map[string]Settings{"no URL": {Issuer: "api"}, "short secret": {Issuer: issuerURL, Algorithm: "HS256", Secret: []byte("short")}} {
		if _, err := i.Serve(o); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestAKeyBeginsNotMoreFamiliesThanItsAllowance(t *testing.T) {
	var a allowance
	now := newClock().now()
	n := 0
	for range 2000 {
		if a.take("k1", now) {
			n++
		}
	}
	if n != familiesAtOnce || !a.take("k2", now) || a.take("k1", now.Add(familyEvery-1)) || !a.take("k1", now.Add(familyEvery)) {
		t.Errorf("%d at once", n)
	}
	for i := range 3 * manyKeys {
		a.take(fmt.Sprint(i), now.Add(time.Duration(i)*time.Minute))
	}
	if len(a.full) > manyKeys {
		t.Errorf("%d keys are remembered", len(a.full))
	}
}
