package jose

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"
)

var b64 = base64.RawURLEncoding.EncodeToString

// The keys of RFC 7515 appendix A and RFC 8037 appendix A.
const (
	rsaN = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"
	ecX  = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
	ecY  = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
	edX  = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
)

// The examples of the RFCs verify, and nothing that differs from them by one bit does.
func TestExamplesOfTheRFCs(t *testing.T) {
	for _, c := range []struct{ name, alg, key, input, signature string }{
		{
			"RFC 7515 A.1", "HS256", `{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}`,
			"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
			"dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
		},
		{
			"RFC 7515 A.2", "RS256", `{"kty":"RSA","n":"` + rsaN + `","e":"AQAB"}`,
			"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
			"cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
		},
		{
			"RFC 7515 A.3", "ES256", `{"kty":"EC","crv":"P-256","x":"` + ecX + `","y":"` + ecY + `"}`,
			"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
			"DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
		},
		{
			"RFC 8037 A.4", "EdDSA", `{"kty":"OKP","crv":"Ed25519","x":"` + edX + `"}`,
			"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
			"hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
		},
	} {
		keys, err := ParseKeys([]byte(c.key))
		if err != nil || len(keys) != 1 {
			t.Errorf("%s: %v, %v", c.name, keys, err)
			continue
		}
		signature, _ := decode([]byte(c.signature))
		h := header{alg: c.alg}
		if err := h.signed(keys, []byte(c.input), signature); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		for i := range signature {
			signature[i] ^= 1 << (i % 8)
			if h.signed(keys, []byte(c.input), signature) == nil {
				t.Errorf("%s: the signature with another byte %d is accepted", c.name, i)
			}
			signature[i] ^= 1 << (i % 8)
		}
	}
}

// RFC 7638 §3.1 and RFC 8037 A.3.
func TestThumbprints(t *testing.T) {
	for jwk, want := range map[string]string{
		`{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`: "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
		`{"kty":"OKP","crv":"Ed25519","x":"` + edX + `"}`: "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
	} {
		keys, err := ParseKeys([]byte(jwk))
		if err != nil || keys[0].Thumbprint() != want {
			t.Errorf("%s: got %v, %v, want %s", jwk, keys, err, want)
		}
	}
}

func rsaJWK(n, e string) string { return `{"kty":"RSA","n":"` + n + `","e":"` + e + `"}` }
func ecJWK(crv, x, y string) string {
	return `{"kty":"EC","crv":"` + crv + `","x":"` + x + `","y":"` + y + `"}`
}

// modulus is a number of so many bits that is no product of primes: nothing signs
// with it.
func modulus(bits int, odd bool) string {
	n := make([]byte, bits/8)
	n[0] = 0x80
	if odd {
		n[len(n)-1] = 1
	}
	return b64(n)
}

func TestHostileKeys(t *testing.T) {
	_, secret, _ := ed25519.GenerateKey(rand.Reader)
	pkcs8, _ := x509.MarshalPKCS8PrivateKey(secret)
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	spki224, _ := x509.MarshalPKIXPublicKey(p224.Public())
	ec := ecJWK("P-256", ecX, ecY)
	members := func(key, more string) string { return strings.TrimSuffix(key, "}") + "," + more + "}" }
	p521, _ := NewSigner("ES512")
	wide, _ := p521.JWK()
	for _, c := range []struct{ name, in, want string }{
		{"nothing", ``, "no object"},
		{"no JSON", `ssh-ed25519 AAAA`, "no object"},
		{"empty object", `{}`, "no known type"},
		{"a list", `[` + ec + `]`, "no object"},
		{"an empty set", `{"keys":[]}`, "no usable key"},
		{"keys is no list", `{"keys":{}}`, "no list"},
		{"keys of a key", members(ec, `"keys":[]`), "no list"},
		{"a member that is no key", `{"keys":[1]}`, "no object"},
		{"a member twice", `{"keys":[` + members(ec, `"kty":"RSA"`) + `]}`, "twice"},
		{"too many", `{"keys":[` + strings.Repeat(`{},`, 256) + `{}]}`, "more than 256"},
		{"kid is a number", members(ec, `"kid":1`), "no string"},
		{"kid is too long", members(ec, `"kid":"`+strings.Repeat("k", 257)+`"`), "longer than 256"},
		{"alg is a list", members(ec, `"alg":["ES256"]`), "no string"},
		{"use is a number", members(ec, `"use":1`), "no string"},
		{"use is enc", members(ec, `"use":"enc"`), "not for signatures"},
		{"key_ops without verify", members(ec, `"key_ops":["sign"]`), "not for verifying"},
		{"key_ops is no list", members(ec, `"key_ops":"verify"`), "not for verifying"},
		{"alg of encryption", members(ec, `"alg":"ECDH-ES"`), "own alg"},
		{"alg none", members(ec, `"alg":"none"`), "own alg"},
		{"alg of another curve", members(ec, `"alg":"ES384"`), "own alg"},
		{"alg of another type", members(ec, `"alg":"RS256"`), "own alg"},
		{"alg of a secret", members(rsaJWK(rsaN, "AQAB"), `"alg":"HS256"`), "own alg"},
		{"kty is unknown", `{"kty":"AKP"}`, "no known type"},
		{"kty in lower case", `{"kty":"rsa","n":"` + rsaN + `","e":"AQAB"}`, "no known type"},
		{"RSA without n", `{"kty":"RSA","e":"AQAB"}`, "no n"},
		{"RSA without e", `{"kty":"RSA","n":"` + rsaN + `"}`, "no e"},
		{"RSA with an empty e", rsaJWK(rsaN, ""), "no e"},
		{"RSA of 1024 bits", rsaJWK(modulus(1024, true), "AQAB"), "1024 bits"},
		{"RSA of 2040 bits", rsaJWK(modulus(2040, true), "AQAB"), "2040 bits"},
		{"RSA of 16384 bits", rsaJWK(modulus(16384, true), "AQAB"), "16384 bits"},
		{"RSA, 1024 bits behind zeros", rsaJWK(b64(append(make([]byte, 128), must(decode([]byte(modulus(1024, true))))...)), "AQAB"), "1024 bits"},
		{"RSA with an even modulus", rsaJWK(modulus(2048, false), "AQAB"), "even modulus"},
		{"RSA with e = 0", rsaJWK(rsaN, "AA"), "bad exponent"},
		{"RSA with e = 1", rsaJWK(rsaN, "AQ"), "bad exponent"},
		{"RSA with an even e", rsaJWK(rsaN, "Ag"), "bad exponent"},
		{"RSA with an e of 64 bits", rsaJWK(rsaN, b64([]byte{1, 0, 0, 0, 0, 0, 0, 1})), "31 bits"},
		{"RSA with padding", rsaJWK(rsaN+"==", "AQAB"), "bad n"},
		{"RSA in base64 with +", rsaJWK(strings.ReplaceAll(rsaN, "-", "+"), "AQAB"), "bad n"},
		{"RSA with a line end", rsaJWK(rsaN[:8]+`\n`+rsaN[8:], "AQAB"), "bad n"},
		{"RSA with its private exponent", members(rsaJWK(rsaN, "AQAB"), `"d":"AQ"`), "private key"},
		{"RSA with a prime", members(rsaJWK(rsaN, "AQAB"), `"p":"AQ"`), "private key"},
		{"EC with its private part", members(ec, `"d":"AQ"`), "private key"},
		{"EC without a curve", `{"kty":"EC","x":"` + ecX + `","y":"` + ecY + `"}`, "not P-256"},
		{"EC on secp256k1", ecJWK("secp256k1", ecX, ecY), "not P-256"},
		{"EC on P-224", ecJWK("P-224", ecX, ecY), "not P-256"},
		{"EC on a curve in lower case", ecJWK("p-256", ecX, ecY), "not P-256"},
		{"EC off its curve", ecJWK("P-256", ecX, ecX), "point"},
		{"EC at zero", ecJWK("P-256", b64(make([]byte, 32)), b64(make([]byte, 32))), "point"},
		{"EC with short coordinates", ecJWK("P-256", ecX[:40], ecY), "32 bytes"},
		{"EC with long coordinates", ecJWK("P-256", b64(append([]byte{0}, must(decode([]byte(ecX)))...)), ecY), "32 bytes"},
		{"EC of another curve's size", ecJWK("P-384", ecX, ecY), "48 bytes"},
		{"EC said to be of another curve", strings.Replace(string(wide), "P-521", "P-256", 1), "32 bytes"},
		{"EC without y", `{"kty":"EC","crv":"P-256","x":"` + ecX + `"}`, "no y"},
		{"EC coordinate over the field", ecJWK("P-256", b64([]byte(strings.Repeat("\xff", 32))), ecY), "encoding"},
		{"OKP on X25519", `{"kty":"OKP","crv":"X25519","x":"` + edX + `"}`, "not Ed25519"},
		{"OKP on Ed448", `{"kty":"OKP","crv":"Ed448","x":"` + edX + `"}`, "not Ed25519"},
		{"OKP too short", `{"kty":"OKP","crv":"Ed25519","x":"` + edX[:40] + `"}`, "no Ed25519 key"},
		{"OKP at zero", `{"kty":"OKP","crv":"Ed25519","x":"` + b64(make([]byte, 32)) + `"}`, "no Ed25519 key"},
		{"OKP at one", `{"kty":"OKP","crv":"Ed25519","x":"` + b64(append([]byte{1}, make([]byte, 31)...)) + `"}`, "no Ed25519 key"},
		{"OKP of order 8", `{"kty":"OKP","crv":"Ed25519","x":"` + b64(lowOrderY[6][:]) + `"}`, "no Ed25519 key"},
		{"OKP with its seed", `{"kty":"OKP","crv":"Ed25519","x":"` + edX + `","d":"AQ"}`, "private key"},
		{"oct too short", `{"kty":"oct","k":"` + b64(make([]byte, 31)) + `"}`, "less than 32 bytes"},
		{"oct empty", `{"kty":"oct","k":""}`, "no k"},
		{"PEM of a private key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})), "-pubout"},
		{"PEM of a curve that is none of ours", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki224})), "point"},
		{"PEM of nothing", "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n", "no usable key"},
		{"PEM cut short", "-----BEGIN PUBLIC KEY-----\nAAAA", "0 PEM blocks"},
	} {
		keys, err := ParseKeys([]byte(c.in))
		if keys != nil || !errors.Is(err, ErrNoKeys) || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: got %d keys, %v, want %s", c.name, len(keys), err, c.want)
		}
		if keys, err := ParseKeys([]byte(`{"keys":[` + c.in + `,` + ec + `]}`)); err == nil && len(keys) != 1 && c.want != "no list" {
			t.Errorf("%s: with a good key beside it %d are of use", c.name, len(keys))
		}
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// Every algorithm signs what it verifies, and jwx, which others wrote, agrees in both
// directions.
func TestSignersAgreeWithJWX(t *testing.T) {
	claims := []byte(`{"iss":"https://sluice.example","exp":2000000000}`)
	now := time.Unix(1999999999, 0)
	for _, c := range []struct {
		name string
		alg  jwa.SignatureAlgorithm
	}{
		{"RS256", jwa.RS256()},
		{"RS384", jwa.RS384()},
		{"RS512", jwa.RS512()},
		{"PS256", jwa.PS256()},
		{"PS384", jwa.PS384()},
		{"PS512", jwa.PS512()},
		{"ES256", jwa.ES256()},
		{"ES384", jwa.ES384()},
		{"ES512", jwa.ES512()},
		{"EdDSA", jwa.EdDSA()},
		{"HS256", jwa.HS256()},
		{"HS384", jwa.HS384()},
		{"HS512", jwa.HS512()},
	} {
		s, err := NewSigner(c.name)
		if err != nil {
			t.Fatal(err)
		}
		rules := &Rules{Algorithms: []string{c.name}, Types: []string{"at+jwt"}, Issuer: "https://sluice.example"}
		token, err := s.Sign("at+jwt", claims)
		if err != nil {
			t.Fatal(err)
		}
		got, err := rules.Verify(token, Keys{s.Key()}, now)
		if err != nil || got.KeyID != s.ID() || got.Algorithm != c.name || got.Type != "at+jwt" || got.Expires.Unix() != 2000000000 {
			t.Errorf("%s: its own token: %+v, %v", c.name, got, err)
		}
		if _, err := jws.Verify(token, jws.WithKey(c.alg, s.key.material)); err != nil {
			t.Errorf("%s: jwx refuses our token: %v", c.name, err)
		}
		head := jws.NewHeaders()
		_ = head.Set("typ", "application/at+jwt")
		theirs, err := jws.Sign(claims, jws.WithKey(c.alg, s.private, jws.WithProtectedHeaders(head)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := rules.Verify(theirs, Keys{s.Key()}, now); err != nil {
			t.Errorf("%s: the token of jwx is refused: %v", c.name, err)
		}
		if s.Key().Algorithm[:2] == "HS" {
			continue
		}
		public, err := s.JWK()
		if err != nil {
			t.Fatal(err)
		}
		if k, err := jwk.ParseKey(public); err != nil {
			t.Errorf("%s: jwx refuses our JWK %s: %v", c.name, public, err)
		} else if id, _ := k.KeyID(); id != s.ID() {
			t.Errorf("%s: jwx reads the kid %q", c.name, id)
		}
		keys, err := ParseKeys(public)
		if err != nil || keys[0].Thumbprint() != s.Key().Thumbprint() || keys[0].ID != s.ID() || keys[0].Algorithm != c.name {
			t.Errorf("%s: its JWK %s is read as %+v, %v", c.name, public, keys, err)
		}
		der, err := s.PKCS8()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseSigner(der, c.name, "")
		if err != nil || again.ID() != s.ID() {
			t.Errorf("%s: from PKCS #8: %v", c.name, err)
		}
		spki, _ := x509.MarshalPKIXPublicKey(s.key.material)
		keys, err = ParseKeys(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))
		if err != nil || keys[0].Thumbprint() != s.Key().Thumbprint() {
			t.Errorf("%s: from PEM: %v", c.name, err)
		}
	}
}

func TestSignersAreRefused(t *testing.T) {
	es, _ := NewSigner("ES256")
	der, _ := es.PKCS8()
	weak, _ := rsa.GenerateKey(rand.Reader, 1024)
	small, _ := x509.MarshalPKCS8PrivateKey(weak)
	for _, c := range []struct {
		name string
		der  []byte
		alg  string
	}{
		{"another curve", der, "ES384"},
		{"another type", der, "RS256"},
		{"a secret's algorithm", der, "HS256"},
		{"no algorithm", der, "none"},
		{"no key", []byte("x"), "ES256"},
		{"RSA of 1024 bits", small, "RS256"},
	} {
		if s, err := ParseSigner(c.der, c.alg, ""); err == nil {
			t.Errorf("%s: there is a signer %v", c.name, s.ID())
		}
	}
	if _, err := NewSigner("none"); err == nil {
		t.Error("there is a signer of none")
	}
	shared := HMACSigner(make([]byte, 32), "k")
	if _, err := shared.JWK(); err == nil {
		t.Error("a secret is published")
	}
}

func BenchmarkVerify(b *testing.B) {
	now := time.Unix(1999999999, 0)
	for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "EdDSA", "HS256"} {
		b.Run(alg, func(b *testing.B) {
			s, _ := NewSigner(alg)
			token, _ := s.Sign("at+jwt", []byte(`{"iss":"https://idp.example.com","sub":"6f2c1f6e-6f0a-4b0e-9e58-0a2f1f4b9c77","aud":["api"],"exp":2000000000,"iat":1999999000,"jti":"0f9e8d7c","client_id":"web","scope":"users:read users:write","realm_access":{"roles":["admin","reader"]}}`))
			r := &Rules{Issuer: "https://idp.example.com", Audience: []string{"api"}, Algorithms: []string{alg}, Types: []string{"at+jwt"}}
			keys := Keys{s.Key()}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Verify(token, keys, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
