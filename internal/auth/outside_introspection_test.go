package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

func introspectionOf(claims config.ClaimNames, ttl time.Duration) func(url string) *config.Authenticator {
	return func(url string) *config.Authenticator {
		return &config.Authenticator{Introspection: &config.IntrospectionAuth{
			URL: url, ClientID: "gw", ClientSecret: config.NewSecret("SECRET"), CacheTTL: ofDuration(ttl), Timeout: ofDuration(30 * time.Second), Claims: claims,
		}}
	}
}

func TestWhatIssuersSay(t *testing.T) {
	exp := func(d time.Duration) string { return fmt.Sprint(noon.Add(d).Unix()) }
	for _, c := range []struct{ name, body, want string }{
		{"active", `{"active":true,"sub":"acme"}`, "acme"},
		{"without sub, for a user", `{"active":true,"client_id":"app","username":"jdoe"}`, "jdoe"},
		{"without sub, for a client", `{"active":true,"client_id":"app"}`, "app"},
		{"for nobody", `{"active":true}`, "unauthenticated: claim sub is no id of a client: it must be text of 1 to 256 bytes"},
		{"not active", `{"active":false,"sub":"acme"}`, "unauthenticated: the issuer says that the token is not active"},
		{"active and over now", `{"active":true,"sub":"acme","exp":` + exp(0) + `}`, "unauthenticated: the issuer says that the token is active and has run out at 2026-11-25T12:00:00Z"},
		{"over in a second", `{"active":true,"sub":"acme","exp":` + exp(time.Second) + `}`, "acme"},
		{"from now on", `{"active":true,"sub":"acme","nbf":` + exp(0) + `}`, "acme"},
		{"not yet", `{"active":true,"sub":"acme","nbf":` + exp(time.Second) + `}`, "unauthenticated: the token holds from 2026-11-25T12:00:01Z on"},
		{"a refresh token", `{"active":true,"sub":"acme","token_type":"refresh_token"}`, "unauthenticated: the issuer says that it is a refresh token"},
		{"a refresh token of Cognito", `{"active":true,"sub":"acme","token_type":"Bearer","token_use":"refresh"}`, "unauthenticated: the issuer says that it is a refresh token"},
		{"a refresh token of Keycloak", `{"active":true,"sub":"acme","typ":"Refresh"}`, "unauthenticated: the issuer says that it is a refresh token"},
		{"an offline token of Keycloak", `{"active":true,"sub":"acme","typ":"Offline"}`, "unauthenticated: the issuer says that it is a refresh token"},
		{"a refresh token by its URN", `{"active":true,"sub":"acme","token_type":"urn:ietf:params:oauth:token-type:refresh_token"}`, "unauthenticated: the issuer says that it is a refresh token"},
		{"an access token by all names", `{"active":true,"sub":"acme","token_type":"Bearer","token_use":"access","typ":"at+jwt","type":7}`, "acme"},
		{"a role that there is not", `{"active":true,"sub":"acme","realm":{"roles":["root"]}}`, `forbidden: acme has the role "root", which there is not`},
		{"nonsense", `{"active":true,"active":true}`, "dependency_unavailable: the introspection endpoint's answer cannot be used: JSON has the member \"active\" twice"},
		{"bound to a certificate", `{"active":true,"sub":"acme","cnf":{"x5t#S256":"` + strings.Repeat("a", 43) + `"}}`, "unauthenticated: the token is bound to another client certificate than this connection has"},
	} {
		a := outsideOf(t, nil, introspectionOf(config.ClaimNames{Client: "sub", Roles: "realm.roles", Permissions: "scope"}, time.Minute))
		a.answers(replying(200, c.body, "Content-Type", "application/json"))
		for range 2 {
			if got := a.verdictOf(outsideRequest("Authorization", "bearer token")); got != c.want {
				t.Errorf("%s: %s", c.name, got)
			}
		}
	}
}

func TestATokenMakesACaller(t *testing.T) {
	a := outsideOf(t, &config.File{Plans: map[string]*config.Plan{"gold": {}}},
		introspectionOf(config.ClaimNames{Client: "sub", Permissions: "scope", Plan: "plan"}, time.Minute))
	a.answers(replying(200, `{"active":true,"sub":"acme","scope":"users:read users:write","plan":"gold","tier":"1"}`, "Content-Type", "application/json"))
	x := outsideRequest("Authorization", "Bearer token")
	got, err := a.check(x, a.find(x), false)
	want := &exchange.Caller{
		Authenticator: "outside", ID: "acme", Plan: "gold", Permissions: []string{"users:read", "users:write"},
		Claims: map[string]any{"sub": "acme", "scope": "users:read users:write", "plan": "gold", "tier": "1"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if a.strip(x); !x.Request.Header.Has(exchange.Authorization) {
		t.Error("the token is not forwarded")
	}
}

func TestWhatIsNoTokenIsNotAskedAbout(t *testing.T) {
	a := outsideOf(t, nil, introspectionOf(config.ClaimNames{}, time.Minute))
	a.answers(replying(500, ""))
	const refused = "unauthenticated: what stands behind Bearer is no token"
	for _, c := range []struct {
		fields []string
		want   string
	}{
		{nil, "none"},
		{[]string{"Authorization", "Basic YTpi"}, "none"},
		{[]string{"Authorization", "Bearer"}, "none"},
		{[]string{"Authorization", "Bearer "}, refused},
		{[]string{"Authorization", "Bearer ="}, refused},
		{[]string{"Authorization", "Bearer a=b"}, refused},
		{[]string{"Authorization", "Bearer a b"}, refused},
		{[]string{"Authorization", "Bearer a&token=b"}, refused},
		{[]string{"Authorization", "Bearer a\xff"}, refused},
		{[]string{"Authorization", "Bearer a", "Authorization", "Bearer b"}, refused},
		{[]string{"Authorization", "Bearer " + strings.Repeat("a", maxToken+1)}, refused},
	} {
		if got := a.verdictOf(outsideRequest(c.fields...)); got != c.want || a.calls.Load() != 0 {
			t.Errorf("%.40q: %s, %d calls", c.fields, got, a.calls.Load())
		}
	}
}

func TestHowLongAnswersAboutTokensHold(t *testing.T) {
	for _, c := range []struct {
		name, body  string
		status      int
		ttl         time.Duration
		kept, asked time.Duration
	}{
		{"active", `{"active":true,"sub":"a"}`, 200, 30 * time.Second, 30*time.Second - 1, 30 * time.Second},
		{"active, never past its end", fmt.Sprintf(`{"active":true,"sub":"a","exp":%d}`, noon.Unix()+3), 200, 30 * time.Second, 3*time.Second - 1, 3 * time.Second},
		{"not active", `{"active":false}`, 200, 30 * time.Second, 10*time.Second - 1, 10 * time.Second},
		{"not active, briefly", `{"active":false}`, 200, 3 * time.Second, 3*time.Second - 1, 3 * time.Second},
		{"not yet", fmt.Sprintf(`{"active":true,"sub":"a","nbf":%d}`, noon.Unix()+3), 200, 30 * time.Second, 3*time.Second - 1, 3 * time.Second},
		{"no answer", ``, 503, 30 * time.Second, -1, 0},
		{"not kept", `{"active":true,"sub":"a"}`, 200, 0, -1, 0},
		{"not kept, not active", `{"active":false}`, 200, 0, -1, 0},
		{"too long to keep", `{"active":true,"sub":"a","b":"` + strings.Repeat("b", 16<<10) + `"}`, 200, 30 * time.Second, -1, 0},
	} {
		a := outsideOf(t, nil, introspectionOf(config.ClaimNames{Client: "sub"}, c.ttl))
		a.answers(replying(c.status, c.body, "Content-Type", "application/json"))
		a.verdictOf(outsideRequest("Authorization", "Bearer t"))
		if c.kept >= 0 {
			a.pass(c.kept)
			if a.verdictOf(outsideRequest("Authorization", "Bearer t")); a.calls.Load() != 1 {
				t.Errorf("%s: %d calls within its time", c.name, a.calls.Load())
			}
			a.pass(c.asked - c.kept)
		}
		if a.verdictOf(outsideRequest("Authorization", "Bearer t")); a.calls.Load() != 2 {
			t.Errorf("%s: %d calls after its time", c.name, a.calls.Load())
		}
	}
}

func TestABoundTokenIsLookedAtOnEveryConnection(t *testing.T) {
	a := outsideOf(t, nil, introspectionOf(config.ClaimNames{Client: "sub"}, time.Minute))
	der := []byte("a certificate")
	sum := sha256.Sum256(der)
	a.answers(replying(200, `{"active":true,"sub":"acme","cnf":{"x5t#S256":"`+base64.RawURLEncoding.EncodeToString(sum[:])+`"}}`, "Content-Type", "application/json"))
	const other = "unauthenticated: the token is bound to another client certificate than this connection has"
	for _, c := range []struct {
		tls  *exchange.TLSInfo
		want string
	}{
		{&exchange.TLSInfo{Client: der}, "acme"},
		{nil, other},
		{&exchange.TLSInfo{}, other},
		{&exchange.TLSInfo{Client: []byte("another")}, other},
		{&exchange.TLSInfo{Client: der}, "acme"},
	} {
		x := outsideRequest("Authorization", "Bearer t")
		x.Conn.TLS = c.tls
		if got := a.verdictOf(x); got != c.want {
			t.Errorf("%+v: %s", c.tls, got)
		}
	}
	if a.calls.Load() != 1 {
		t.Errorf("%d calls", a.calls.Load())
	}
}

func TestAKeptAnswerAllocatesNothing(t *testing.T) {
	a := outsideOf(t, nil, introspectionOf(config.ClaimNames{Client: "sub"}, time.Minute))
	a.answers(replying(200, `{"active":true,"sub":"acme"}`, "Content-Type", "application/json"))
	x := outsideRequest("Authorization", "Bearer token")
	token := a.find(x)
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := a.check(x, token, false); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkIntrospectionKept(b *testing.B) {
	e := New(Options{})
	r := e.newRealm(&config.File{Authenticators: map[string]*config.Authenticator{"outside": introspectionOf(config.ClaimNames{Client: "sub"}, time.Hour)("http://127.0.0.1:1")}})
	a := r.authenticators["outside"].(*introspectionAuth)
	keep(b, &a.outside, askKey("token"), &introspected{is: r.resolve("outside", a.config, identity{id: "acme"})})
	x := outsideRequest("Authorization", "Bearer token")
	token := a.find(x)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.check(x, token, false); err != nil {
			b.Fatal(err)
		}
	}
	_ = r.close()
	_ = e.Close(b.Context())
}
