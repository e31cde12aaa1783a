package jose

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
)

// Signer makes tokens. It is safe for use by many goroutines.
type Signer struct {
	name    string
	alg     algorithm
	private any // *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey or []byte
	key     Key
}

// NewSigner makes a new key for an algorithm; RSA keys have 2048 bits, secrets the
// length of the hash. Its id is its thumbprint (RFC 7638).
func NewSigner(alg string) (*Signer, error) {
	a, ok := algorithms[alg]
	if !ok {
		return nil, fmt.Errorf("there is no algorithm %q", alg)
	}
	var private any
	var err error
	switch a.family {
	case hmacSHA:
		secret := make([]byte, a.hash.Size())
		_, _ = rand.Read(secret) // never fails
		private = secret
	case ecDSA:
		private, err = ecdsa.GenerateKey(a.curve, rand.Reader)
	case edDSA:
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		private, err = rsa.GenerateKey(rand.Reader, minRSA)
	}
	if err != nil {
		return nil, err
	}
	return newSigner(alg, private, "")
}

// ParseSigner reads a private key in PKCS #8 (DER), as PKCS8 gives it. An empty kid
// is the key's thumbprint.
func ParseSigner(pkcs8 []byte, alg, kid string) (*Signer, error) {
	private, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return nil, errors.New("the signing key is no PKCS #8") // the cause may hold a part of it
	}
	return newSigner(alg, private, kid)
}

// HMACSigner signs with HS256 and a secret of at least 32 bytes.
func HMACSigner(secret []byte, kid string) *Signer {
	key := Secret(secret)
	key.ID, key.Algorithm = kid, "HS256"
	return &Signer{name: "HS256", alg: algorithms["HS256"], private: bytes.Clone(secret), key: key}
}

func newSigner(name string, private any, kid string) (*Signer, error) {
	s := &Signer{name: name, alg: algorithms[name], private: private, key: Key{Algorithm: name, Use: "sig", material: private}}
	if p, ok := private.(crypto.Signer); ok {
		s.key.material = p.Public()
	}
	if err := sound(s.key.material); err != nil {
		return nil, fmt.Errorf("the signing key %w", err)
	}
	if _, ok := algorithms[name]; !ok || !s.alg.suits(s.key.material) {
		return nil, fmt.Errorf("the signing key does not suit the algorithm %q", name)
	}
	if s.key.ID = kid; kid == "" {
		s.key.ID = s.key.Thumbprint()
	}
	return s, nil
}

// Sign makes a token of claims, which are a JSON object.
func (s *Signer) Sign(typ string, claims []byte) ([]byte, error) {
	head, err := json.Marshal(struct {
		Alg string `json:"alg"`
		Kid string `json:"kid,omitempty"`
		Typ string `json:"typ,omitempty"`
	}{s.name, s.key.ID, typ})
	if err != nil {
		return nil, err
	}
	return s.seal(head, claims)
}

// seal signs a header and a payload as they stand.
func (s *Signer) seal(head, payload []byte) ([]byte, error) {
	b64 := base64.RawURLEncoding
	out := b64.AppendEncode(make([]byte, 0, (len(head)+len(payload))*4/3+512), head)
	out = b64.AppendEncode(append(out, '.'), payload)
	signature, err := s.alg.sign(s.private, out)
	if err != nil {
		return nil, err
	}
	return b64.AppendEncode(append(out, '.'), signature), nil
}

// ID is the `kid` that tokens name.
func (s *Signer) ID() string { return s.key.ID }

// Algorithm is the `alg` of tokens.
func (s *Signer) Algorithm() string { return s.name }

// Key returns the key that verifies.
func (s *Signer) Key() Key { return s.key }

var errShared = errors.New("a shared secret has no public key")

// JWK returns the public key with its id, algorithm and use, as JSON.
func (s *Signer) JWK() ([]byte, error) {
	if s.key.Symmetric() {
		return nil, errShared
	}
	rest, err := json.Marshal(struct {
		Kid string `json:"kid"`
		Alg string `json:"alg"`
		Use string `json:"use"`
	}{s.key.ID, s.name, "sig"})
	if err != nil {
		return nil, err
	}
	members := required(s.key.material)
	members[len(members)-1] = ','
	return append(members, rest[1:]...), nil
}

// PKCS8 returns the private key in PKCS #8 (DER). It is to be kept as a secret.
func (s *Signer) PKCS8() ([]byte, error) {
	if s.key.Symmetric() {
		return nil, errShared
	}
	return x509.MarshalPKCS8PrivateKey(s.private)
}
