package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // SHA-256
	_ "crypto/sha512" // SHA-384 and SHA-512
	"errors"
	"fmt"
	"math/big"
)

// algorithm is one of RFC 7518 §3.1, or EdDSA with Ed25519 (RFC 8037 §3.1).
type algorithm struct {
	family family
	hash   crypto.Hash
	curve  elliptic.Curve
}

type family uint8

const (
	hmacSHA family = iota
	rsaPKCS1
	rsaPSS
	ecDSA
	edDSA
)

// algorithms are those there are. `none` is not one.
var algorithms = map[string]algorithm{
	"HS256": {family: hmacSHA, hash: crypto.SHA256},
	"HS384": {family: hmacSHA, hash: crypto.SHA384},
	"HS512": {family: hmacSHA, hash: crypto.SHA512},
	"RS256": {family: rsaPKCS1, hash: crypto.SHA256},
	"RS384": {family: rsaPKCS1, hash: crypto.SHA384},
	"RS512": {family: rsaPKCS1, hash: crypto.SHA512},
	"PS256": {family: rsaPSS, hash: crypto.SHA256},
	"PS384": {family: rsaPSS, hash: crypto.SHA384},
	"PS512": {family: rsaPSS, hash: crypto.SHA512},
	"ES256": {family: ecDSA, hash: crypto.SHA256, curve: elliptic.P256()},
	"ES384": {family: ecDSA, hash: crypto.SHA384, curve: elliptic.P384()},
	"ES512": {family: ecDSA, hash: crypto.SHA512, curve: elliptic.P521()},
	"EdDSA": {family: edDSA},
}

var errSignature = errors.New("the signature is not that of the key")

// suits reports whether a key is of the type, curve and length that the algorithm
// needs, so that no public key is ever used as a secret.
func (a algorithm) suits(key any) bool {
	switch k := key.(type) {
	case []byte:
		return a.family == hmacSHA && len(k) >= a.hash.Size() // RFC 7518 §3.2
	case *rsa.PublicKey:
		return a.family == rsaPKCS1 || a.family == rsaPSS
	case *ecdsa.PublicKey:
		return a.family == ecDSA && k.Curve == a.curve
	case ed25519.PublicKey:
		return a.family == edDSA
	}
	return false
}

// verify checks a signature with a key that suits.
func (a algorithm) verify(key any, input, signature []byte) error {
	var digest []byte
	if a.family != edDSA && a.family != hmacSHA {
		h := a.hash.New()
		h.Write(input)
		digest = h.Sum(make([]byte, 0, 64))
	}
	ok := false
	switch k := key.(type) {
	case []byte:
		mac := hmac.New(a.hash.New, k)
		mac.Write(input)
		ok = hmac.Equal(mac.Sum(make([]byte, 0, 64)), signature)
	case *rsa.PublicKey:
		if len(signature) != k.Size() {
			break
		}
		if a.family == rsaPSS {
			ok = rsa.VerifyPSS(k, a.hash, digest, signature, a.pss()) == nil
		} else {
			ok = rsa.VerifyPKCS1v15(k, a.hash, digest, signature) == nil
		}
	case *ecdsa.PublicKey:
		r, s, whole := a.halves(signature)
		ok = whole && ecdsa.Verify(k, digest, r, s)
	case ed25519.PublicKey:
		ok = len(signature) == ed25519.SignatureSize && ed25519.Verify(k, input, signature)
	}
	if !ok {
		return errSignature
	}
	return nil
}

// pss says that the salt is as long as the hash (RFC 7518 §3.5).
func (a algorithm) pss() *rsa.PSSOptions {
	return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: a.hash}
}

// halves cuts an ECDSA signature into r and s, each as long as the curve's order and
// from 1 to less than it (RFC 7518 §3.4).
func (a algorithm) halves(signature []byte) (r, s *big.Int, ok bool) {
	order := a.curve.Params().N
	size := (order.BitLen() + 7) / 8
	if len(signature) != 2*size {
		return nil, nil, false
	}
	r, s = new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:])
	return r, s, r.Sign() > 0 && s.Sign() > 0 && r.Cmp(order) < 0 && s.Cmp(order) < 0
}

// sign makes a signature with a private key, or a secret.
func (a algorithm) sign(key any, input []byte) ([]byte, error) {
	if secret, ok := key.([]byte); ok {
		mac := hmac.New(a.hash.New, secret)
		mac.Write(input)
		return mac.Sum(nil), nil
	}
	if k, ok := key.(ed25519.PrivateKey); ok {
		return ed25519.Sign(k, input), nil
	}
	h := a.hash.New()
	h.Write(input)
	digest := h.Sum(nil)
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if a.family == rsaPSS {
			return rsa.SignPSS(rand.Reader, k, a.hash, digest, a.pss())
		}
		return rsa.SignPKCS1v15(nil, k, a.hash, digest)
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, k, digest)
		if err != nil {
			return nil, err
		}
		out := make([]byte, 2*((a.curve.Params().BitSize+7)/8))
		r.FillBytes(out[:len(out)/2])
		s.FillBytes(out[len(out)/2:])
		return out, nil
	}
	return nil, fmt.Errorf("a key of type %T signs nothing", key)
}
