//go:build linux

package trial

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/bench/internal/gateways"
)

// issuer is who signs the tokens of callers.
const issuer = "https://idp.bench.example"

// identity is who may call in a scenario; nil: anybody.
func identity(sc *Scenario) *gateways.Identity {
	if sc.Identity == "" {
		return nil
	}
	i := &gateways.Identity{Issuer: issuer, Tokens: sc.Identity == "jwt"}
	for n := range limitKeys {
		i.Keys = append(i.Keys, key(n))
	}
	if i.Tokens {
		i.JWK = signer().jwk
	}
	return i
}

// field is the request's that tells callers apart.
func (s *Scenario) field() string {
	if s.Identity == "" {
		return tenantField
	}
	return keyField
}

// credentials are the fields of the i-th caller.
func (s *Scenario) credentials(i int) []string {
	fields := []string{s.field() + ": " + key(i)}
	if s.Identity == "jwt" {
		fields = append(fields, "Authorization: Bearer "+signer().tokens[i%limitKeys])
	}
	return fields
}

// callers are the tokens of all callers, and the public key.
type callers struct {
	jwk    string
	tokens []string
}

// signer makes them, once: signing takes a while.
var signer = sync.OnceValue(func() *callers {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // there is no randomness
	}
	b64 := base64.RawURLEncoding.EncodeToString
	point, err := private.PublicKey.Bytes()
	if err != nil {
		panic(err) // the curve is a standard one
	}
	c := &callers{jwk: fmt.Sprintf(`{"kty":"EC","crv":"P-256","kid":"bench","alg":"ES256","use":"sig","x":%q,"y":%q}`, b64(point[1:33]), b64(point[33:]))}
	head := b64([]byte(`{"alg":"ES256","kid":"bench","typ":"at+jwt"}`))
	now := time.Now().Unix()
	for i := range limitKeys {
		claims, err := json.Marshal(map[string]any{
			"iss": issuer, "sub": fmt.Sprintf("client-%d", i), "aud": "bench", "iat": now, "exp": now + 86400,
			"scope": "users:read users:write", "name": "Ada Lovelace", "realm_access": map[string]any{"roles": []string{"reader", "writer"}},
			"jti": fmt.Sprintf("%032d", i),
		})
		if err != nil {
			panic(err) // it is made of plain values
		}
		signed := head + "." + b64(claims)
		sum := sha256.Sum256([]byte(signed))
		r, s, err := ecdsa.Sign(rand.Reader, private, sum[:])
		if err != nil {
			panic(err) // there is no randomness
		}
		var both [64]byte
		r.FillBytes(both[:32])
		s.FillBytes(both[32:])
		c.tokens = append(c.tokens, signed+"."+b64(both[:]))
	}
	return c
})
