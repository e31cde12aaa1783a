package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
)

// tokenKey is a private key of an issuer in tests. Tokens are made here without
// package jose, so that they can be as wrong as a case needs.
type tokenKey struct {
	id      string
	private any
}

// tokenKeys are those of the issuer in tests, by id, and of somebody else.
var tokenKeys = sync.OnceValue(func() map[string]tokenKey {
	keys := map[string]tokenKey{}
	for _, id := range []string{"rsa", "evil-rsa"} {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		keys[id] = tokenKey{id, k}
	}
	for id, curve := range map[string]elliptic.Curve{"p256": elliptic.P256(), "p384": elliptic.P384(), "p521": elliptic.P521(), "evil-p256": elliptic.P256()} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			panic(err)
		}
		keys[id] = tokenKey{id, k}
	}
	for _, id := range []string{"ed", "evil-ed"} {
		_, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			panic(err)
		}
		keys[id] = tokenKey{id, k}
	}
	keys["secret"] = tokenKey{"secret", []byte(sharedSecret)}
	return keys
})

const sharedSecret = "a secret of the tests, of sixty-four bytes, which nobody else has"

var hashes = map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512, "DSA": 0}

// signature is that of a key over input, whatever alg says of the key's type.
func (k tokenKey) signature(alg, input string) []byte {
	h := hashes[alg[len(alg)-3:]]
	var digest []byte
	if h != 0 {
		hash := h.New()
		hash.Write([]byte(input))
		digest = hash.Sum(nil)
	}
	var out []byte
	var err error
	switch p := k.private.(type) {
	case []byte:
		mac := hmac.New(h.New, p)
		mac.Write([]byte(input))
		return mac.Sum(nil)
	case *rsa.PrivateKey:
		if alg[0] == 'P' {
			out, err = rsa.SignPSS(rand.Reader, p, h, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		} else {
			out, err = rsa.SignPKCS1v15(nil, p, h, digest)
		}
	case *ecdsa.PrivateKey:
		var r, s *big.Int
		r, s, err = ecdsa.Sign(rand.Reader, p, digest)
		if err == nil {
			out = pair(p.Curve, r, s)
		}
	case ed25519.PrivateKey:
		out = ed25519.Sign(p, []byte(input))
	}
	if err != nil {
		panic(err)
	}
	return out
}

// pair is r and s, each as long as the order of the curve.
func pair(curve elliptic.Curve, r, s *big.Int) []byte {
	size := (curve.Params().BitSize + 7) / 8
	out := make([]byte, 2*size)
	r.FillBytes(out[:size])
	s.FillBytes(out[size:])
	return out
}

func b64(data string) string { return base64.RawURLEncoding.EncodeToString([]byte(data)) }

// signed is a token of a header and claims as they stand.
func (k tokenKey) signed(alg, header, claims string) string {
	input := b64(header) + "." + b64(claims)
	return input + "." + b64(string(k.signature(alg, input)))
}

// headerOf is a header with members besides, as JSON.
func headerOf(alg, kid, more string) string {
	return `{"alg":"` + alg + `","kid":"` + kid + `"` + more + `}`
}

// tokenFor is a good token: claims of the tests with changes, as JSON members; null
// takes one away.
func tokenFor(t testing.TB, key, alg, changes string) string {
	t.Helper()
	return tokenKeys()[key].signed(alg, headerOf(alg, key, ""), claimsOf(t, changes))
}

func claimsOf(t testing.TB, changes string) string {
	t.Helper()
	claims := map[string]any{"iss": testIssuer, "sub": "acme", "aud": "api", "exp": noon.Unix() + 600, "nbf": noon.Unix() - 60, "iat": noon.Unix() - 60, "scope": "users:read users:write"}
	var more map[string]any
	if err := json.Unmarshal([]byte("{"+changes+"}"), &more); err != nil {
		t.Fatal(changes, err)
	}
	for k, v := range more {
		if claims[k] = v; v == nil {
			delete(claims, k)
		}
	}
	out, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

const testIssuer = "https://idp.example"

// publicJWK is the public half of a key.
func (k tokenKey) publicJWK(t testing.TB, alg string) string {
	t.Helper()
	b := func(x []byte) string { return base64.RawURLEncoding.EncodeToString(x) }
	m := map[string]string{"kid": k.id, "use": "sig"}
	if alg != "" {
		m["alg"] = alg
	}
	switch p := k.private.(type) {
	case *rsa.PrivateKey:
		m["kty"], m["n"], m["e"] = "RSA", b(p.N.Bytes()), b(big.NewInt(int64(p.E)).Bytes())
	case *ecdsa.PrivateKey:
		point, err := p.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		half := len(point) / 2
		m["kty"], m["crv"], m["x"], m["y"] = "EC", p.Curve.Params().Name, b(point[1:1+half]), b(point[1+half:])
	case ed25519.PrivateKey:
		m["kty"], m["crv"], m["x"] = "OKP", "Ed25519", b(p.Public().(ed25519.PublicKey))
	}
	out, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// jwksOf is the key set of keys.
func jwksOf(t testing.TB, ids ...string) string {
	t.Helper()
	var all []string
	for _, id := range ids {
		all = append(all, tokenKeys()[id].publicJWK(t, ""))
	}
	return `{"keys":[` + strings.Join(all, ",") + `]}`
}

// tokensOf is an engine at noon and a route whose auth is the names, with a file of
// keys and authenticators in which `keys` may name it.
func tokensOf(t testing.TB, o Options, authenticators map[string]*config.Authenticator, use ...[]string) (*Engine, policy.Filter) {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
		if err := os.WriteFile(filepath.Join(o.Dir, "keys.json"), []byte(jwksOf(t, "rsa", "p256", "p384", "p521", "ed")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if o.Now == nil {
		o.Now = func() time.Time { return noon }
	}
	e := New(o)
	f := filterOf(t, e, authenticators, use...)
	t.Cleanup(func() {
		if err := f.(policy.Closer).Close(); err != nil {
			t.Error(err)
		}
		if err := e.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return e, f
}

func filterOf(t testing.TB, e *Engine, authenticators map[string]*config.Authenticator, use ...[]string) policy.Filter {
	t.Helper()
	f, err := e.newAuthenticate(&config.Route{Auth: &config.Auth{Use: use}}, &policy.Env{File: &config.File{
		Authenticators: authenticators,
		Roles:          map[string]*config.Role{"admin": {Permissions: []string{"users:*"}}, "reader": {Permissions: []string{"users:read"}}},
		Clients:        []config.Client{{ID: "acme", Roles: []string{"reader"}, Attributes: map[string]any{"tier": "gold"}}},
		Plans:          map[string]*config.Plan{"gold": {}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// jwtOf is an authenticator with the defaults that the configuration gives.
func jwtOf(j config.JWTAuth) *config.Authenticator {
	if j.Issuer == "" {
		j.Issuer = testIssuer
	}
	if j.Algorithms == nil {
		j.Algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
	}
	if j.From == nil {
		j.From = []string{"header:Authorization"}
	}
	if j.Claims.Client == "" {
		j.Claims.Client = "sub"
	}
	if j.Claims.Permissions == "" {
		j.Claims.Permissions = "scope"
	}
	j.Leeway = config.Duration{Duration: 30 * time.Second}
	return &config.Authenticator{JWT: &j}
}

// withBearer is a request with a token.
func withBearer(token string) *exchange.Exchange {
	x := &exchange.Exchange{Conn: &exchange.Conn{}, Start: noon}
	x.Request.Header.Add([]byte("Accept"), []byte("*/*"))
	x.Request.Header.Add([]byte("Authorization"), []byte("Bearer "+token))
	return x
}

// usual is an authenticator with the keys of the file.
func usual() map[string]*config.Authenticator {
	return map[string]*config.Authenticator{"idp": jwtOf(config.JWTAuth{Keys: []string{"keys.json"}, Audience: []string{"api"}})}
}

func TestTokensSayWhoCalls(t *testing.T) {
	join := jwtOf(config.JWTAuth{Issuer: "https://joined", Keys: []string{"keys.json"}})
	yes := true
	join.Join = &yes
	f := func() policy.Filter {
		_, f := tokensOf(t, Options{}, map[string]*config.Authenticator{
			"idp": usual()["idp"],
			"paths": jwtOf(config.JWTAuth{Issuer: "https://paths", Keys: []string{"keys.json"}, Claims: config.ClaimNames{
				Client: "https://x.example/id", Roles: "realm_access.roles", Permissions: "perms.list", Plan: "org.plan",
			}}),
			"joined": join,
		}, []string{"idp"}, []string{"paths"}, []string{"joined"})
		return f
	}()
	for _, c := range []struct {
		name, changes                 string
		authenticator, id, plan       string
		roles, permissions, attribute string
		want                          exchange.Code // 0: let through
	}{
		{"sub and scope", ``, "idp", "acme", "", "", "users:read users:write", "", 0},
		{"scope as a list", `"scope":["a","b"]`, "idp", "acme", "", "", "a b", "", 0},
		{"no scope", `"scope":null`, "idp", "acme", "", "", "", "", 0},
		{"scope is a number", `"scope":1`, "", "", "", "", "", "", exchange.Unauthenticated},
		{"scope has a number", `"scope":["a",1]`, "", "", "", "", "", "", exchange.Unauthenticated},
		{"no sub", `"sub":null`, "", "", "", "", "", "", exchange.Unauthenticated},
		{"an empty sub", `"sub":""`, "", "", "", "", "", "", exchange.Unauthenticated},
		{"a sub with a line end", `"sub":"a\nb"`, "", "", "", "", "", "", exchange.Unauthenticated},
		{"a sub of 256 bytes", `"sub":"` + strings.Repeat("s", 256) + `"`, "idp", strings.Repeat("s", 256), "", "", "users:read users:write", "", 0},
		{"a sub of 257 bytes", `"sub":"` + strings.Repeat("s", 257) + `"`, "", "", "", "", "", "", exchange.Unauthenticated},
		{"paths", `"iss":"https://paths","https://x.example/id":"b","realm_access":{"roles":["admin"]},"perms":{"list":"p q"},"org":{"plan":"gold"}`, "paths", "b", "gold", "admin", "p q users:*", "", 0},
		{"a name with dots is nearer than a path", `"iss":"https://paths","https://x.example/id":"b","realm_access.roles":["reader"],"realm_access":{"roles":["admin"]}`, "paths", "b", "", "reader", "users:read", "", 0},
		{"a role that there is not", `"iss":"https://paths","https://x.example/id":"b","realm_access":{"roles":["root"]}`, "", "", "", "", "", "", exchange.Forbidden},
		{"a plan that there is not", `"iss":"https://paths","https://x.example/id":"b","org":{"plan":"free"}`, "", "", "", "", "", "", exchange.Forbidden},
		{"joined", `"iss":"https://joined"`, "", "acme", "", "reader", "users:read users:write", "gold", 0},
		{"joined, and there is no such client", `"iss":"https://joined","sub":"nobody"`, "", "", "", "", "", "", exchange.Unauthenticated},
	} {
		token := tokenFor(t, "rsa", "RS256", c.changes)
		for range 2 { // cold, then kept
			x := withBearer(token)
			err := f.Request(x)
			if err != nil {
				if code := exchange.AsError(err).Code; code != c.want {
					t.Errorf("%s: got %v: %v", c.name, code, exchange.AsError(err).Cause)
				}
				continue
			}
			got := x.Caller
			if c.want != 0 || got.Authenticator != c.authenticator || got.ID != c.id || got.Plan != c.plan || strings.Join(got.Roles, " ") != c.roles ||
				strings.Join(got.Permissions, " ") != c.permissions || got.Attributes["tier"] != c.attribute || got.Claims["iss"] == nil {
				t.Errorf("%s: got %+v", c.name, got)
			}
		}
	}
}

func TestTokensAreFoundWhereTheyMayStand(t *testing.T) {
	no := false
	other := jwtOf(config.JWTAuth{Issuer: "https://other", Keys: []string{"keys.json"}, From: []string{"header:X-Token", "query:token", "cookie:session", "header:Authorization"}})
	other.Forward = &no
	_, f := tokensOf(t, Options{}, map[string]*config.Authenticator{"idp": usual()["idp"], "other": other}, []string{"idp"}, []string{"other"}, []string{"anonymous"})
	mine, theirs := tokenFor(t, "p256", "ES256", ``), tokenFor(t, "ed", "EdDSA", `"iss":"https://other"`)
	for _, c := range []struct{ name, field, value, query, by, left string }{
		{"nothing", "Accept", "*/*", "", "", "*/*"},
		{"bearer", "Authorization", "Bearer " + mine, "", "idp", "Bearer " + mine},
		{"bearer in lower case", "Authorization", "bearer  " + mine, "", "idp", "bearer  " + mine},
		{"basic, with a token inside", "Authorization", "Basic " + mine, "", "", "Basic " + mine},
		{"without a scheme", "Authorization", mine, "", "", mine},
		{"of the other issuer", "Authorization", "Bearer " + theirs, "", "other", ""},
		{"in a field that the first does not read", "X-Token", mine, "", "", ""},
		{"in a field of the second", "X-Token", theirs, "", "other", ""},
		{"in a cookie", "Cookie", "a=b; session=" + theirs + "; c=d", "", "other", "a=b; c=d"},
		{"in the query", "Accept", "*/*", "a=b&token=" + theirs, "other", "*/*"},
		{"an opaque token", "Authorization", "Bearer opaque", "", "", ""},
		{"of an unknown issuer", "Authorization", "Bearer " + tokenFor(t, "ed", "EdDSA", `"iss":"https://unknown"`), "", "", ""},
	} {
		for range 2 {
			x := &exchange.Exchange{Conn: &exchange.Conn{}, Start: noon}
			x.Request.Header.Add([]byte(c.field), []byte(c.value))
			x.Request.Query, x.Request.HasQuery = []byte(c.query), c.query != ""
			if err := f.Request(x); err != nil {
				t.Errorf("%s: %v", c.name, exchange.AsError(err).Cause)
				continue
			}
			by := ""
			if x.Caller != nil {
				by = x.Caller.Authenticator
			}
			var left []byte
			for v := range x.Request.Header.Values([]byte(c.field)) {
				left = v
			}
			if by != c.by || string(left) != c.left && !(c.field == "Authorization" && c.by == "") || bytes.Contains(x.Request.Query, []byte("token")) {
				t.Errorf("%s: by %q, left %.30q, query %q", c.name, by, left, x.Request.Query)
			}
		}
	}
}

func TestATokenCanBeBoundToACertificate(t *testing.T) {
	_, f := tokensOf(t, Options{}, usual(), []string{"idp"})
	mine := []byte("the DER of a client certificate")
	sum := sha256.Sum256(mine)
	bound := tokenFor(t, "ed", "EdDSA", `"cnf":{"x5t#S256":"`+b64(string(sum[:]))+`"}`)
	free := tokenFor(t, "ed", "EdDSA", ``)
	for _, c := range []struct {
		name, token string
		tls         *exchange.TLSInfo
		ok          bool
	}{
		{"its certificate", bound, &exchange.TLSInfo{Client: mine}, true},
		{"another", bound, &exchange.TLSInfo{Client: []byte("the DER of another")}, false},
		{"none", bound, &exchange.TLSInfo{}, false},
		{"no TLS", bound, nil, false},
		{"its certificate again", bound, &exchange.TLSInfo{Client: mine}, true},
		{"a token that is not bound", free, nil, true},
		{"a token that is not bound, with a certificate", free, &exchange.TLSInfo{Client: mine}, true},
	} {
		x := withBearer(c.token)
		x.Conn = &exchange.Conn{TLS: c.tls}
		if err := f.Request(x); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// A verdict that is kept ends when the token does, whatever the clock does before.
func TestAVerdictEndsWithItsToken(t *testing.T) {
	now := noon
	_, f := tokensOf(t, Options{Now: func() time.Time { return now }}, usual(), []string{"idp"})
	token := tokenFor(t, "ed", "EdDSA", ``) // nbf noon - 60, exp noon + 600, leeway 30
	for _, c := range []struct {
		at time.Duration // from noon
		ok bool
	}{
		{-91 * time.Second, false},
		{-90 * time.Second, true},
		{0, true},
		{-91 * time.Second, false},
		{629 * time.Second, true},
		{630 * time.Second, false},
		{630*time.Second - 1, true},
		{24 * time.Hour, false},
	} {
		now = noon.Add(c.at)
		if err := f.Request(withBearer(token)); (err == nil) != c.ok {
			t.Errorf("at noon %v: %v", c.at, err)
		}
	}
}

func TestAKeptTokenAllocatesNothing(t *testing.T) {
	_, f := tokensOf(t, Options{}, usual(), []string{"idp"})
	x := withBearer(tokenFor(t, "rsa", "RS256", ``))
	if err := f.Request(x); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(200, func() { _ = f.Request(x) }); n != 0 {
		t.Errorf("a token that is kept allocates %v times", n)
	}
}

func BenchmarkToken(b *testing.B) {
	for _, c := range []struct{ name, key, alg string }{{"kept", "rsa", "RS256"}, {"cold RS256", "rsa", "RS256"}, {"cold ES256", "p256", "ES256"}, {"cold EdDSA", "ed", "EdDSA"}} {
		b.Run(c.name, func(b *testing.B) {
			_, f := tokensOf(b, Options{}, usual(), []string{"idp"})
			x := withBearer(tokenFor(b, c.key, c.alg, ``))
			a := f.(*authenticate).all[0].(*jwtAuth)
			b.ReportAllocs()
			for b.Loop() {
				if c.name != "kept" {
					a.verdicts.Clear()
				}
				if err := f.Request(x); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
