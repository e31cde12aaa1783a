package jose

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jws"
)

type noKeys struct{ err error }

func (n noKeys) Keys(string) ([]Key, error) { return nil, n.err }

var (
	fuzzSecret = bytes.Repeat([]byte("0123456789abcdef"), 2)
	fuzzNow    = time.Unix(1_999_999_999, 0)
)

// Only a token that would be accepted otherwise makes anybody look for a key.
func TestKeysAreLookedForLast(t *testing.T) {
	s := HMACSigner(fuzzSecret, "k")
	r := &Rules{Issuer: "i", Audience: []string{"a"}, Algorithms: []string{"HS256"}, Types: []string{"JWT"}}
	for _, c := range []struct {
		name, typ, claims string
		asked             bool
	}{
		{"good", "JWT", `{"iss":"i","aud":"a","exp":2000000000}`, true},
		{"another issuer", "JWT", `{"iss":"j","aud":"a","exp":2000000000}`, false},
		{"another audience", "JWT", `{"iss":"i","aud":"b","exp":2000000000}`, false},
		{"expired", "JWT", `{"iss":"i","aud":"a","exp":1000000000}`, false},
		{"another type", "at+jwt", `{"iss":"i","aud":"a","exp":2000000000}`, false},
		{"no object", "JWT", `[]`, false},
	} {
		token, err := s.Sign(c.typ, []byte(c.claims))
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.Verify(token, noKeys{ErrUnavailable}, fuzzNow)
		if got != nil || err == nil || errors.Is(err, ErrUnavailable) != c.asked {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
		if got, err := r.Verify(token, noKeys{}, fuzzNow); got != nil || err == nil {
			t.Errorf("%s: without a key: %v, %v", c.name, got, err)
		}
	}
}

// A signature is tried with few keys, however many there are.
func TestTriesAreBounded(t *testing.T) {
	var keys Keys
	for range maxTries {
		s, _ := NewSigner("HS256")
		k := s.Key()
		k.ID = ""
		keys = append(keys, k)
	}
	s := HMACSigner(fuzzSecret, "")
	token, _ := s.Sign("", []byte(`{"exp":2000000000}`))
	r := &Rules{Algorithms: []string{"HS256"}}
	if _, err := r.Verify(token, append(keys[:maxTries-1:maxTries-1], s.Key()), fuzzNow); err != nil {
		t.Errorf("the last of %d keys: %v", maxTries, err)
	}
	if _, err := r.Verify(token, append(keys, s.Key()), fuzzNow); err == nil || !strings.Contains(err.Error(), "kid") {
		t.Errorf("the one behind %d keys: %v", maxTries, err)
	}
}

func TestIssuer(t *testing.T) {
	of := func(payload string) string { return "e30." + b64([]byte(payload)) + ".eA" }
	for _, c := range []struct {
		token, iss string
		is         bool
	}{
		{of(`{"iss":"a","sub":"b"}`), "a", true},
		{of(`{"sub":"b"}`), "", true},
		{of(`{"iss":1}`), "", true},
		{of(`{"iss":["a"]}`), "", true},
		{of(`{"iss":"a","iss":"b"}`), "", false},
		{of(`[]`), "", false},
		{of(``), "", false},
		{"", "", false},
		{"opaque", "", false},
		{"a.b", "", false},
		{"slr_a.b.c", "", false},
		{of(`{"iss":"a"}`) + ".x", "", false},
		{of(`{"iss":"` + strings.Repeat("a", 16<<10) + `"}`), "", false},
	} {
		if iss, is := Issuer([]byte(c.token)); iss != c.iss || is != c.is {
			t.Errorf("%.60s: got %q, %v", c.token, iss, is)
		}
	}
}

// What is accepted here is accepted by jwx too, with the same payload, and its issuer
// is the one that chose the authenticator.
func FuzzVerify(f *testing.F) {
	s := HMACSigner(fuzzSecret, "k")
	for _, claims := range []string{`{"iss":"i","exp":2000000000}`, `{"iss":"i","exp":2000000000.5,"aud":["a","b"],"nbf":1,"cnf":{"x5t#S256":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}}`, `{"exp":1}`} {
		token, err := s.Sign("JWT", []byte(claims))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(token)
	}
	f.Add([]byte("eyJhbGciOiJub25lIn0.e30."))
	r := &Rules{Issuer: "i", Algorithms: []string{"HS256"}, Leeway: time.Second}
	f.Fuzz(func(t *testing.T, token []byte) {
		got, err := r.Verify(token, Keys{s.Key()}, fuzzNow)
		if (got == nil) != (err != nil) {
			t.Fatalf("%q: %v, %v", token, got, err)
		}
		if err != nil {
			return
		}
		payload, err := jws.Verify(token, jws.WithKey(jwa.HS256(), fuzzSecret))
		if err != nil {
			t.Fatalf("%q is accepted, and jwx refuses it: %v", token, err)
		}
		claims, err := parseObject(payload)
		if iss, is := Issuer(token); err != nil || !is || iss != "i" || claims["iss"] != "i" {
			t.Fatalf("%q: the payload is %s", token, payload)
		}
	})
}
