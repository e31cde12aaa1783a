package httpsig

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"math/big"

	"github.com/sluice-gateway/sluice/internal/auth/jose"
)

// The algorithms (RFC 9421 §3.3 and §6.2).
const (
	rsaPSS  = "rsa-pss-sha512"
	rsaV15  = "rsa-v1_5-sha256"
	ecP256  = "ecdsa-p256-sha256"
	ecP384  = "ecdsa-p384-sha384"
	edwards = "ed25519"
	shared  = "hmac-sha256"
)

// jwkNames are the `alg` that a JWK has for them.
var jwkNames = map[string]string{
	"PS512": rsaPSS, "RS256": rsaV15, "ES256": ecP256, "ES384": ecP384, "EdDSA": edwards, "HS256": shared,
}

// key is a key with the algorithm that it is used with.
type key struct {
	algorithm string // empty: an RSA key without alg, for which a signature must have one
	material  any
}

func newKey(k *jose.Key) (key, error) {
	made := key{material: k.Public()}
	if k.ID == "" {
		return made, errors.New("a key has no kid, which is who signs with it: give it one")
	}
	if k.Algorithm != "" {
		if made.algorithm = jwkNames[k.Algorithm]; made.algorithm == "" {
			return made, fmt.Errorf("the key %q has the alg %q, signatures know PS512, RS256, ES256, ES384, EdDSA and HS256", k.ID, k.Algorithm)
		}
		return made, nil
	}
	switch m := made.material.(type) {
	case *rsa.PublicKey:
		return made, nil
	case *ecdsa.PublicKey:
		switch m.Curve {
		case elliptic.P256():
			made.algorithm = ecP256
		case elliptic.P384():
			made.algorithm = ecP384
		}
	case ed25519.PublicKey:
		made.algorithm = edwards
	case []byte:
		made.algorithm = shared
	}
	if made.algorithm == "" {
		return made, fmt.Errorf("the key %q is on a curve that signatures do not know, take P-256, P-384 or Ed25519", k.ID)
	}
	return made, nil
}

// suits reports whether the key is of the type that an algorithm needs, so that no
// public key is ever used as a secret.
func (k *key) suits(algorithm string) bool {
	switch m := k.material.(type) {
	case *rsa.PublicKey:
		return algorithm == rsaPSS || algorithm == rsaV15
	case *ecdsa.PublicKey:
		return algorithm == ecP256 && m.Curve == elliptic.P256() || algorithm == ecP384 && m.Curve == elliptic.P384()
	case ed25519.PublicKey:
		return algorithm == edwards
	case []byte:
		return algorithm == shared
	}
	return false
}

// verify checks a signature with an algorithm that suits.
func (k *key) verify(algorithm string, base, signature []byte) bool {
	switch m := k.material.(type) {
	case *rsa.PublicKey:
		if len(signature) != m.Size() {
			return false
		}
		if algorithm == rsaPSS {
			sum := sha512.Sum512(base)
			return rsa.VerifyPSS(m, crypto.SHA512, sum[:], signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		sum := sha256.Sum256(base)
		return rsa.VerifyPKCS1v15(m, crypto.SHA256, sum[:], signature) == nil
	case *ecdsa.PublicKey:
		if algorithm == ecP384 {
			sum := sha512.Sum384(base)
			return verifyECDSA(m, sum[:], signature)
		}
		sum := sha256.Sum256(base)
		return verifyECDSA(m, sum[:], signature)
	case ed25519.PublicKey:
		return len(signature) == ed25519.SignatureSize && ed25519.Verify(m, base, signature)
	case []byte:
		mac := hmac.New(sha256.New, m)
		mac.Write(base)
		return hmac.Equal(mac.Sum(nil), signature)
	}
	return false
}

// verifyECDSA takes r and s as two numbers of the curve's length (RFC 9421 §3.3.4).
func verifyECDSA(k *ecdsa.PublicKey, sum, signature []byte) bool {
	order := k.Curve.Params().N
	half := (order.BitLen() + 7) / 8
	if len(signature) != 2*half {
		return false
	}
	r, s := new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])
	if r.Sign() == 0 || s.Sign() == 0 || r.Cmp(order) >= 0 || s.Cmp(order) >= 0 {
		return false
	}
	return ecdsa.Verify(k, sum, r, s)
}
