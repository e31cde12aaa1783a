package auth

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// publisher is a server of keys that can be changed.
type publisher struct {
	*httptest.Server
	body    atomic.Pointer[string]
	fetches atomic.Int64
}

func publish(t testing.TB, body string) *publisher {
	p := &publisher{}
	p.body.Store(&body)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.fetches.Add(1)
		if b := *p.body.Load(); b == "" {
			w.WriteHeader(500)
		} else {
			fmt.Fprint(w, b)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

// movedClock is a time that tests move.
type movedClock struct{ ns atomic.Int64 }

func newMovedClock() *movedClock {
	c := &movedClock{}
	c.ns.Store(noon.UnixNano())
	return c
}

func (c *movedClock) now() time.Time          { return time.Unix(0, c.ns.Load()) }
func (c *movedClock) forward(d time.Duration) { c.ns.Add(int64(d)) }

func codeFor(err error) exchange.Code {
	if err == nil {
		return 0
	}
	return exchange.AsError(err).Code
}

// explained is what explain says of a token.
func explained(f policy.Filter, token string) policy.Opinion {
	return f.(interface {
		Explain(x *exchange.Exchange) policy.Opinion
	}).Explain(withBearer(token))
}

func TestKeysAreFetched(t *testing.T) {
	c := newMovedClock()
	p := publish(t, jwksOf(t, "ed"))
	e, f := tokensOf(t, Options{Now: c.now}, map[string]*config.Authenticator{"idp": jwtOf(config.JWTAuth{JWKSURL: p.URL})}, []string{"idp"})
	token, other := tokenFor(t, "ed", "EdDSA", ``), tokenFor(t, "p256", "ES256", ``)
	if err := f.Request(withBearer(token)); err != nil {
		t.Fatal(exchange.AsError(err).Cause)
	}
	if o := explained(f, other); !strings.Contains(o.Reason, "does not ask") || o.Verdict != telemetry.Allowed {
		t.Errorf("explain of an unknown kid says %+v", o)
	}
	if o := explained(f, tokenFor(t, "ed", "EdDSA", `"sub":"b"`)); !strings.Contains(o.Reason, "says that it is b") {
		t.Errorf("explain of a known kid says %+v", o)
	}
	if code := codeFor(f.Request(withBearer(other))); code != exchange.Unauthenticated || p.fetches.Load() != 1 {
		t.Errorf("within the cooldown: %v, %d fetches", code, p.fetches.Load())
	}

	// The next configuration goes on with the keys of this one.
	again := filterOf(t, e, map[string]*config.Authenticator{"idp": jwtOf(config.JWTAuth{JWKSURL: p.URL})}, []string{"idp"})
	if err := again.Request(withBearer(token)); err != nil || p.fetches.Load() != 1 {
		t.Errorf("after a reload: %v, %d fetches", err, p.fetches.Load())
	}
	if err := again.(policy.Closer).Close(); err != nil {
		t.Error(err)
	}

	// A key that is withdrawn ends what was kept of its tokens.
	p.body.Store(new(jwksOf(t, "p256")))
	c.forward(11 * time.Second)
	if err := f.Request(withBearer(token)); err != nil {
		t.Error("before the change is known: ", err)
	}
	if err := f.Request(withBearer(other)); err != nil || p.fetches.Load() != 2 {
		t.Errorf("an unknown kid after the cooldown: %v, %d fetches", err, p.fetches.Load())
	}
	if code := codeFor(f.Request(withBearer(token))); code != exchange.Unauthenticated {
		t.Errorf("the token of a withdrawn key is answered %v", code)
	}

	// While the issuer is down, what cannot be told is no refusal.
	p.body.Store(new(""))
	c.forward(11 * time.Second)
	for range 2 {
		if code := codeFor(f.Request(withBearer(token))); code != exchange.DependencyUnavailable {
			t.Errorf("an unknown kid while the issuer is down is answered %v", code)
		}
		if err := f.Request(withBearer(other)); err != nil {
			t.Error("a known kid while the issuer is down: ", err)
		}
	}
}

// What PUT with dry_run does: a configuration is made and let go.
func TestATrialOfAConfigurationFetchesNothing(t *testing.T) {
	p := publish(t, jwksOf(t, "ed"))
	e, _ := tokensOf(t, Options{}, map[string]*config.Authenticator{"idp": jwtOf(config.JWTAuth{Keys: nil, Secret: config.NewSecret(strings.Repeat("s", 32)), Algorithms: []string{"HS256"}})}, []string{"idp"})
	for range 3 {
		f := filterOf(t, e, map[string]*config.Authenticator{"idp": jwtOf(config.JWTAuth{JWKSURL: p.URL})}, []string{"idp"})
		if err := f.(policy.Closer).Close(); err != nil {
			t.Error(err)
		}
	}
	if n := p.fetches.Load(); n != 0 {
		t.Errorf("%d fetches", n)
	}
}

func TestNobodyKnowsTheKeysYet(t *testing.T) {
	p := publish(t, "")
	_, f := tokensOf(t, Options{}, map[string]*config.Authenticator{"idp": jwtOf(config.JWTAuth{JWKSURL: p.URL})}, []string{"idp"})
	for _, c := range []struct {
		name, token string
		want        exchange.Code
	}{
		{"a good token", tokenFor(t, "ed", "EdDSA", ``), exchange.DependencyUnavailable},
		{"one that has expired", tokenFor(t, "ed", "EdDSA", `"exp":1`), exchange.Unauthenticated},
		{"none", "", exchange.Unauthenticated},
	} {
		if code := codeFor(f.Request(withBearer(c.token))); code != c.want {
			t.Errorf("%s: answered %v, want %v", c.name, code, c.want)
		}
	}
}

func TestOfflineNothingIsAsked(t *testing.T) {
	p := publish(t, jwksOf(t, "ed"))
	_, f := tokensOf(t, Options{Offline: true}, map[string]*config.Authenticator{"idp": jwtOf(config.JWTAuth{JWKSURL: p.URL}), "found": jwtOf(config.JWTAuth{Issuer: p.URL, Discovery: true})}, []string{"idp"}, []string{"found"})
	if o := explained(f, tokenFor(t, "ed", "EdDSA", ``)); !o.Unknown || !strings.Contains(o.Reason, "does not ask") {
		t.Errorf("explain says %+v", o)
	}
	if p.fetches.Load() != 0 {
		t.Errorf("%d fetches", p.fetches.Load())
	}
}

func TestFilesOfKeysAreChecked(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"good.json": jwksOf(t, "ed"), "rsa.json": tokenKeys()["rsa"].publicJWK(t, "RS256"), "bad.json": "{}", "secret.json": `{"kty":"oct","k":"` + strings.Repeat("A", 43) + `"}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		jwt  config.JWTAuth
		want string // place and a part of what is said
	}{
		{"good", config.JWTAuth{Keys: []string{"good.json", "rsa.json"}}, ""},
		{"absolute", config.JWTAuth{Keys: []string{filepath.Join(dir, "good.json")}}, ""},
		{"not there", config.JWTAuth{Keys: []string{"good.json", "none.json"}}, "authenticators.idp.jwt.keys[1]: cannot be read"},
		{"no keys", config.JWTAuth{Keys: []string{"bad.json"}}, "authenticators.idp.jwt.keys[0]: there is no usable key"},
		{"a secret", config.JWTAuth{Keys: []string{"secret.json"}}, "authenticators.idp.jwt.keys[0]: has no key that the algorithms"},
		{"of other algorithms", config.JWTAuth{Keys: []string{"rsa.json"}, Algorithms: []string{"EdDSA", "PS256"}}, "authenticators.idp.jwt.keys[0]: has no key that the algorithms [EdDSA PS256] can use"},
		{"a place that is none", config.JWTAuth{Keys: []string{"good.json"}, From: []string{"body:x"}}, "authenticators.idp.jwt.from: "},
	} {
		e := New(Options{Dir: dir, Now: func() time.Time { return noon }})
		f, err := e.newAuthenticate(&config.Route{Auth: &config.Auth{Use: [][]string{{"idp"}}}}, &policy.Env{File: &config.File{Authenticators: map[string]*config.Authenticator{"idp": jwtOf(c.jwt)}}})
		got := ""
		if err != nil {
			for _, fault := range policy.Faults(err, "routes.0") {
				got += fault.At + ": " + fault.Error()
			}
		}
		if (err == nil) != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
		if err == nil {
			_ = f.(policy.Closer).Close()
		}
		if err := e.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// Tokens are verified by many at once while keys change.
func TestTokensInParallel(t *testing.T) {
	c := newMovedClock()
	_, next, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	second := tokenKey{"second", next}
	both := `{"keys":[` + tokenKeys()["ed"].publicJWK(t, "") + `,` + second.publicJWK(t, "") + `]}`
	p := publish(t, jwksOf(t, "ed"))
	_, f := tokensOf(t, Options{Now: c.now}, map[string]*config.Authenticator{"idp": jwtOf(config.JWTAuth{JWKSURL: p.URL})}, []string{"idp"})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for n := range 200 {
				token := tokenFor(t, "ed", "EdDSA", fmt.Sprintf(`"sub":"%d"`, n%20))
				if w == 0 && n == 100 {
					p.body.Store(&both)
					c.forward(11 * time.Second)
				}
				if w == 0 && n >= 100 {
					token = second.signed("EdDSA", headerOf("EdDSA", "second", ""), claimsOf(t, ``))
				}
				if err := f.Request(withBearer(token)); err != nil {
					t.Error(exchange.AsError(err).Cause)
				}
			}
		})
	}
	wg.Wait()
	if n := p.fetches.Load(); n != 2 {
		t.Errorf("%d fetches, want 2", n)
	}
}

// dialed sends every request to one server, whatever its host.
type dialed struct{ to string }

func (d dialed) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != "cognito-idp.eu-west-1.amazonaws.com" || r.URL.Scheme != "https" || r.URL.Path != "/eu-west-1_abc/.well-known/jwks.json" {
		return nil, errors.New("nobody is at " + r.URL.String())
	}
	to := r.Clone(r.Context())
	to.URL.Scheme, to.URL.Host = "http", strings.TrimPrefix(d.to, "http://")
	return http.DefaultTransport.RoundTrip(to)
}

func TestCognito(t *testing.T) {
	p := publish(t, jwksOf(t, "rsa", "p256"))
	e := New(Options{Now: func() time.Time { return noon }})
	e.keySets.transport = dialed{p.URL}
	pool := func(use string, apps ...string) *config.Authenticator {
		return &config.Authenticator{Cognito: &config.CognitoAuth{Region: "eu-west-1", UserPool: "eu-west-1_abc", Use: use, AppClients: apps}}
	}
	const iss = `"iss":"https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_abc"`
	// As AWS shows them in "Understanding the access token" and "Understanding the
	// identity (ID) token".
	const access = iss + `,"aud":null,"token_use":"access","client_id":"app","username":"jane","cognito:groups":["admin"],"scope":"aws.cognito.signin.user.admin phone"`
	const id = iss + `,"aud":"app","scope":null,"token_use":"id","cognito:username":"jane","cognito:groups":["reader"]`
	for _, c := range []struct {
		name  string
		pool  *config.Authenticator
		token string
		want  string // id, roles and permissions; empty: refused
	}{
		{"access", pool("access", "app"), tokenFor(t, "rsa", "RS256", access), "acme [admin] aws.cognito.signin.user.admin"},
		{"access of any app", pool("access"), tokenFor(t, "rsa", "RS256", access), "acme [admin] aws.cognito.signin.user.admin"},
		{"access of another app", pool("access", "other"), tokenFor(t, "rsa", "RS256", access), ""},
		{"access without an app", pool("access", "app"), tokenFor(t, "rsa", "RS256", access+`,"client_id":null`), ""},
		{"id where access is meant", pool("access", "app"), tokenFor(t, "rsa", "RS256", id), ""},
		{"id", pool("id", "app"), tokenFor(t, "rsa", "RS256", id), "acme [reader]"},
		{"id of another app", pool("id", "other"), tokenFor(t, "rsa", "RS256", id), ""},
		{"access where id is meant", pool("id", "app"), tokenFor(t, "rsa", "RS256", access), ""},
		{"of another pool", pool("access"), tokenFor(t, "rsa", "RS256", access+`,"iss":"https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_xyz"`), ""},
		{"of another region", pool("access"), tokenFor(t, "rsa", "RS256", access+`,"iss":"https://cognito-idp.us-east-1.amazonaws.com/eu-west-1_abc"`), ""},
		{"of another algorithm", pool("access"), tokenFor(t, "p256", "ES256", access), ""},
		{"without token_use", pool("access"), tokenFor(t, "rsa", "RS256", access+`,"token_use":null`), ""},
	} {
		f := filterOf(t, e, map[string]*config.Authenticator{"pool": c.pool}, []string{"pool"})
		x := withBearer(c.token)
		got := ""
		if err := f.Request(x); err == nil {
			got = fmt.Sprint(x.Caller.ID, " ", x.Caller.Roles, " ", strings.Join(x.Caller.Permissions, " "))
		} else if codeFor(err) != exchange.Unauthenticated {
			t.Errorf("%s: %v", c.name, exchange.AsError(err).Cause)
		}
		if c.want == "" && got != "" || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
		if err := f.(policy.Closer).Close(); err != nil {
			t.Error(err)
		}
	}
	if err := e.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestCognitoPoolsAreChecked(t *testing.T) {
	for _, c := range []struct{ region, pool, want string }{
		{"eu-west-1", "eu-west-1_abc", "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_abc"},
		{"cn-north-1", "cn-north-1_abc", "https://cognito-idp.cn-north-1.amazonaws.com.cn/cn-north-1_abc"},
		{"eu-west-1", "us-east-1_abc", "cognito.user_pool"},
		{"eu-west-1", "abc", "cognito.user_pool"},
		{"eu-west-1", "eu-west-1_abc/../x", "cognito.user_pool"},
		{"evil.example/", "evil.example/_abc", "cognito.region"},
	} {
		j, err := cognitoJWT(&config.CognitoAuth{Region: c.region, UserPool: c.pool})
		got := ""
		if err == nil {
			got = j.Issuer
		} else {
			got = policy.Faults(err, "")[0].At
		}
		if got != c.want {
			t.Errorf("%s, %s: got %s, want %s", c.region, c.pool, got, c.want)
		}
	}
}
