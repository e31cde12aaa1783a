package auth

import (
	"sync"
	"testing"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
)

// listed makes the filter of a route with an auth list.
func listed(t *testing.T, file *config.File, mode string, use ...[]string) policy.Filter {
	t.Helper()
	e := New(Options{})
	t.Cleanup(func() { _ = e.Close(t.Context()) })
	auth := &config.Auth{Use: use, Mode: mode}
	f, err := e.newAuthenticate(&config.Route{Auth: auth}, &policy.Env{File: file, Common: new(sync.Map)})
	if err != nil {
		t.Fatal(err)
	}
	if c, ok := f.(policy.Closer); ok {
		t.Cleanup(func() { _ = c.Close() })
	}
	return f
}

func withKeysAndTokens() *config.File {
	return &config.File{
		Limits:  config.Limits{AuthFailures: *guessing(1, 3_600_000_000_000, 1, "ip")},
		Clients: []config.Client{{ID: "acme", Keys: []config.ClientKey{{Value: config.NewSecret("acme-key-written-out")}}}},
		Authenticators: map[string]*config.Authenticator{
			"keys":  {APIKey: &config.APIKeyAuth{From: []string{"header:X-Api-Key"}}},
			"staff": {JWT: &config.JWTAuth{Issuer: "https://idp.example.com", Algorithms: []string{"HS256"}, Secret: config.NewSecret("a-secret-of-the-tests-that-is-long-enough"), From: []string{"header:Authorization"}}},
			"outside": {HTTP: &config.HTTPAuth{
				URL: "http://127.0.0.1:1/verify", Send: []string{"X-Session"}, Receive: []string{"X-User"},
			}},
		},
	}
}

// unsigned is a token that claims to be of the issuer.
const unsigned = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlLmNvbSIsInN1YiI6InJvb3QifQ."

func TestWhatNobodyHasLookedAtGoesNoFurther(t *testing.T) {
	f := listed(t, withKeysAndTokens(), "", []string{"keys"}, []string{"staff"})
	x := asks("", "X-Api-Key", "acme-key-written-out", "Authorization", "Bearer "+unsigned, "X-User", "root")
	if err := f.Request(x); err != nil || x.Caller == nil || x.Caller.ID != "acme" {
		t.Fatalf("%v, %+v", err, x.Caller)
	}
	for _, name := range []string{"X-Api-Key", "Authorization", "X-User"} {
		if v := x.Request.Header.Get([]byte(name)); v != nil {
			t.Errorf("%s: %s goes to the upstream", name, v)
		}
	}
	if !x.Request.NoTrailer {
		t.Error("so does a trailer with X-User in it")
	}
	// Nor do several, nor in another place; the token that decided does.
	cookies := withKeysAndTokens()
	cookies.Authenticators["staff"].JWT.From = []string{"header:Authorization", "cookie:session"}
	f2 := listed(t, cookies, "", []string{"keys"}, []string{"staff"})
	x = asks("", "X-Api-Key", "acme-key-written-out", "Authorization", "Bearer "+unsigned, "Authorization", "Basic YTpi", "Cookie", "a=b; session="+unsigned)
	if err := f2.Request(x); err != nil || x.Request.Header.Has(exchange.Authorization) || string(x.Request.Header.GetID(exchange.Cookie)) != "a=b" {
		t.Errorf("%v: tokens in two fields and a cookie", err)
	}
	_, f3 := tokensOf(t, Options{}, usual(), []string{"idp"})
	token := tokenFor(t, "ed", "EdDSA", ``)
	x = withBearer(token)
	if err := f3.Request(x); err != nil || string(x.Request.Header.GetID(exchange.Authorization)) != "Bearer "+token {
		t.Errorf("%v: the token that decided is not forwarded", err)
	}
	// What is for somebody else stays.
	x = asks("", "X-Api-Key", "acme-key-written-out", "Authorization", "Basic YTpi")
	if err := f.Request(x); err != nil || string(x.Request.Header.GetID(exchange.Authorization)) != "Basic YTpi" {
		t.Errorf("%v: the upstream's own credentials are gone", err)
	}
	// On an open route too nobody may say who a service vouches for.
	open := listed(t, withKeysAndTokens(), "")
	x = asks("", "X-User", "root", "Authorization", "Bearer "+unsigned)
	if err := open.Request(x); err != nil || x.Request.Header.Get([]byte("X-User")) != nil || !x.Request.NoTrailer {
		t.Errorf("%v: X-User on an open route", err)
	}
}

func TestShadowShutsNobodyOut(t *testing.T) {
	file := withKeysAndTokens()
	f := listed(t, file, "shadow", []string{"keys"})
	for range 10 {
		if err := f.Request(asks("", "X-Api-Key", "a-key-that-nobody-has")); exchange.AsError(err).Code != exchange.Unauthenticated {
			t.Fatalf("a shadow of a failed attempt: %v", err)
		}
	}
	if err := f.Request(asks("", "X-Api-Key", "acme-key-written-out")); err != nil {
		t.Errorf("the good key behind them: %v", err)
	}
}

func TestIntrospectionTakesOtherTokensOnly(t *testing.T) {
	file := withKeysAndTokens()
	file.Authenticators["opaque"] = &config.Authenticator{Introspection: &config.IntrospectionAuth{URL: "http://127.0.0.1:1/introspect"}}
	f := listed(t, file, "", []string{"opaque"}, []string{"staff"})
	err := f.Request(asks("", "Authorization", "Bearer "+unsigned+"AAAA"))
	if e := exchange.AsError(err); e.Code != exchange.Unauthenticated {
		t.Errorf("a token of staff's issuer: %v", err) // 503 would say that the issuer was asked
	}
}
