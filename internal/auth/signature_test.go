package auth

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// signing is an authenticator and the key that signs for it as acme.
type signing struct {
	*signatureAuth
	key   ed25519.PrivateKey
	clock *time.Time
	dir   string
	c     config.Authenticator
}

func newSigning(t testing.TB, c config.Authenticator) *signing {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(map[string]any{"keys": []any{
		map[string]string{"kty": "OKP", "crv": "Ed25519", "kid": "acme", "x": base64.RawURLEncoding.EncodeToString(public)},
		map[string]string{"kty": "OKP", "crv": "Ed25519", "kid": "known", "x": base64.RawURLEncoding.EncodeToString(public)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	s := &signing{key: private, dir: t.TempDir(), c: c}
	if err := os.WriteFile(filepath.Join(s.dir, "partners.jwks"), set, 0o600); err != nil {
		t.Fatal(err)
	}
	s.c.Signature = &config.SignatureAuth{Keys: "partners.jwks", Required: []string{"@method", "@target-uri", "content-digest"}, MaxAge: config.Duration{Duration: 5 * time.Minute}}
	s.start(t, time.Unix(1_700_000_000, 0))
	return s
}

// start makes the authenticator in an engine that begins at a moment.
func (s *signing) start(t testing.TB, at time.Time) *Engine {
	t.Helper()
	s.clock = &at
	e := New(Options{Dir: s.dir, Now: func() time.Time { return *s.clock }})
	t.Cleanup(func() { _ = e.Close(t.Context()) })
	s.load(t, e)
	return e
}

// load makes the authenticator as a configuration of an engine would.
func (s *signing) load(t testing.TB, e *Engine) {
	t.Helper()
	a, err := e.newAuthenticator(e.newRealm(&config.File{Clients: []config.Client{{ID: "known", Plan: "p"}}, Plans: map[string]*config.Plan{"p": {}}}), "a", &s.c)
	if err != nil {
		t.Fatal(err)
	}
	s.signatureAuth = a.(*signatureAuth)
}

// request is a signed POST of a body to https://example.com/pay?x=1; nil: a GET
// without one.
func (s *signing) request(created time.Time, params string, body []byte) *exchange.Exchange {
	x := &exchange.Exchange{}
	q := &x.Request
	q.Method, q.TLS, q.Authority, q.RawPath, q.Query, q.HasQuery = "GET", true, []byte("Example.com:443"), []byte("/pay"), []byte("x=1"), true
	covered, base := `"@method" "@target-uri"`, ""
	if body != nil {
		q.Method, q.Body, q.ContentLength = "POST", exchange.NewBytes(body), int64(len(body))
		sum := sha256.Sum256(body)
		digest := "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
		q.Header.Add([]byte("Content-Digest"), []byte(digest))
		covered += ` "content-digest"`
		base = "\"content-digest\": " + digest + "\n"
	}
	input := fmt.Sprintf(`(%s);created=%d;keyid="acme"%s`, covered, created.Unix(), params)
	base = "\"@method\": " + q.Method + "\n\"@target-uri\": https://example.com/pay?x=1\n" + base + `"@signature-params": ` + input
	signature := base64.StdEncoding.EncodeToString(ed25519.Sign(s.key, []byte(base)))
	q.Header.Add([]byte("Signature-Input"), []byte("sig1="+input))
	q.Header.Add([]byte("Signature"), []byte("sig1=:"+signature+":"))
	return x
}

func (s *signing) ask(x *exchange.Exchange) (*exchange.Caller, error) {
	credential := s.find(x)
	if credential == nil {
		return nil, errMissing
	}
	return s.check(x, credential, false)
}

var paid = []byte(`{"amount": 12}`)

func TestSignature(t *testing.T) {
	s := newSigning(t, config.Authenticator{})
	now := s.clock.Add(time.Second)
	*s.clock = now
	for _, c := range []struct {
		name   string
		change func(x *exchange.Exchange)
		code   string
	}{
		{"as signed", func(*exchange.Exchange) {}, ""},
		{"another method", func(x *exchange.Exchange) { x.Request.Method = "PUT" }, "unauthenticated"},
		{"another query", func(x *exchange.Exchange) { x.Request.Query = []byte("x=2") }, "unauthenticated"},
		{"another path", func(x *exchange.Exchange) { x.Request.RawPath = []byte("/Pay") }, "unauthenticated"},
		{"another host", func(x *exchange.Exchange) { x.Request.Authority = []byte("example.org") }, "unauthenticated"},
		{"the same host without its port", func(x *exchange.Exchange) { x.Request.Authority = []byte("example.com") }, ""},
		{"without TLS", func(x *exchange.Exchange) { x.Request.TLS = false }, "unauthenticated"},
		{"behind a proxy that ended TLS", func(x *exchange.Exchange) {
			x.Request.TLS, x.Trusted = false, true
			x.Request.Header.AddID(exchange.XForwardedProto, []byte("https"))
		}, ""},
		{"as if behind a proxy", func(x *exchange.Exchange) {
			x.Request.TLS = false
			x.Request.Header.AddID(exchange.XForwardedProto, []byte("https"))
		}, "unauthenticated"},
		{"another digest", func(x *exchange.Exchange) { x.Request.Header.Set([]byte("Content-Digest"), []byte("sha-256=:AAAA:")) }, "unauthenticated"},
		{"a digest more", func(x *exchange.Exchange) { x.Request.Header.Add([]byte("Content-Digest"), []byte("md5=:AAAA:")) }, "unauthenticated"},
		{"no signature", func(x *exchange.Exchange) { x.Request.Header.Del(signatureField) }, "unauthenticated"},
		{"no input", func(x *exchange.Exchange) { x.Request.Header.Del(signatureInput) }, "unauthenticated"},
		{"the body is gone", func(x *exchange.Exchange) { x.Request.Body, x.Request.ContentLength = nil, 0 }, "unauthenticated"},
	} {
		x := s.request(now, `;nonce="`+strings.ReplaceAll(c.name, " ", "-")+`"`, paid)
		c.change(x)
		caller, err := s.ask(x)
		if codeOf(err) != c.code || err == nil && caller.ID != "acme" {
			t.Errorf("%s: %+v, %v", c.name, caller, err)
		}
	}
	if x := s.request(now, "", nil); true {
		if caller, err := s.ask(x); err != nil || caller.ID != "acme" {
			t.Errorf("without a body: %+v, %v", caller, err)
		}
		x = s.request(now, `;nonce="b"`, nil)
		x.Request.Body = exchange.NewBytes(paid)
		if _, err := s.ask(x); codeOf(err) != "unauthenticated" {
			t.Errorf("a body that nobody signed: %v", err)
		}
	}
	if s.find(&exchange.Exchange{}) != nil {
		t.Error("a request without a signature has a credential")
	}
}

func TestSignaturesAreAcceptedOnce(t *testing.T) {
	s := newSigning(t, config.Authenticator{})
	start := *s.clock
	*s.clock = start.Add(10 * time.Second)
	first := func() *exchange.Exchange { return s.request(start.Add(10*time.Second), "", paid) }
	if _, err := s.check(first(), nil, true); err != nil { // explained: not used
		t.Error(err)
	}
	if _, err := s.ask(first()); err != nil {
		t.Error(err)
	}
	for range 2 {
		if _, err := s.ask(first()); codeOf(err) != "unauthenticated" || !errors.Is(err, errUsed) {
			t.Errorf("again: %v", err)
		}
	}
	if _, err := s.check(first(), nil, true); !errors.Is(err, errUsed) {
		t.Errorf("again, explained: %v", err)
	}
	if _, err := s.ask(s.request(start.Add(10*time.Second), `;nonce="2"`, paid)); err != nil {
		t.Errorf("the same with a nonce: %v", err)
	}
	s.load(t, s.realm.engine) // another configuration
	if _, err := s.ask(first()); !errors.Is(err, errUsed) {
		t.Errorf("behind a reload: %v", err)
	}
	*s.clock = start.Add(310 * time.Second)
	if _, err := s.ask(first()); !errors.Is(err, errUsed) {
		t.Errorf("in its last second: %v", err)
	}
	*s.clock = start.Add(311 * time.Second)
	if _, err := s.ask(first()); codeOf(err) != "unauthenticated" || errors.Is(err, errUsed) {
		t.Errorf("too old: %v", err)
	}
	// A restart forgets what was used, so what is from before it is refused.
	*s.clock = start.Add(400 * time.Second)
	unused := s.request(start.Add(400*time.Second), "", paid)
	s.start(t, start.Add(401*time.Second))
	*s.clock = start.Add(402 * time.Second)
	if _, err := s.ask(unused); codeOf(err) != "unauthenticated" || !errors.Is(err, errTooOld) {
		t.Errorf("from before the restart: %v", err)
	}
	if _, err := s.ask(s.request(start.Add(402*time.Second), "", paid)); err != nil {
		t.Errorf("from behind the restart: %v", err)
	}
}

func TestSignaturesAreAcceptedOnceByAll(t *testing.T) {
	s := newSigning(t, config.Authenticator{})
	records := openRecords(t)
	at := time.Now().Truncate(time.Second)
	for i, want := range []error{nil, errUsed} {
		s.start(t, at.Add(-time.Duration(i)*time.Second)).guard.used.keep(records)
		*s.clock = at
		if _, err := s.ask(s.request(at, "", paid)); !errors.Is(err, want) {
			t.Errorf("gateway %d: %v, want %v", i, err, want)
		}
	}
	if err := records.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ask(s.request(at, `;nonce="2"`, paid)); codeOf(err) != "dependency_unavailable" {
		t.Errorf("while the store is away: %v", err)
	}
}

func TestSignatureJoinsAClientAndIsStripped(t *testing.T) {
	yes, no := true, false
	s := newSigning(t, config.Authenticator{Join: &yes, Forward: &no})
	*s.clock = s.clock.Add(time.Second)
	x := s.request(*s.clock, "", paid)
	if _, err := s.ask(x); codeOf(err) != "unauthenticated" { // acme is no client
		t.Errorf("%v", err)
	}
	s.strip(x)
	if x.Request.Header.Get(signatureField) != nil || x.Request.Header.Get(signatureInput) != nil || x.Request.Header.Len() != 1 {
		t.Error("is forwarded")
	}
	s = newSigning(t, config.Authenticator{})
	x = s.request(*s.clock, "", paid)
	if s.strip(x); x.Request.Header.Len() != 3 {
		t.Error("is not forwarded")
	}
}

func TestSignatureKeysThatAreWrong(t *testing.T) {
	for content, want := range map[string]string{
		``:            "keys.jwks: ",
		`{"keys":[]}`: "keys.jwks: ",
		`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs"}]}`:              "keys.jwks: a key has no kid, which is who signs with it: give it one",
		`{"keys":[{"kid":"a\nb","kty":"OKP","crv":"Ed25519","x":"JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs"}]}`: `keys.jwks: the kid "a\nb" has control characters`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "keys.jwks"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := authenticatorIn(t, dir, &config.Authenticator{Signature: &config.SignatureAuth{Keys: "keys.jwks", MaxAge: config.Duration{Duration: time.Minute}}})
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v", content, err)
		}
	}
	if _, err := authenticatorIn(t, t.TempDir(), &config.Authenticator{Signature: &config.SignatureAuth{Keys: "none"}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
