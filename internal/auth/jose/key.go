package jose

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// The bounds of keys and sets of them.
const (
	maxKeys   = 256
	maxID     = 256 // bytes of a key's id
	minRSA    = 2048
	maxRSA    = 8192 // bits: a longer one costs milliseconds for each token
	minSecret = 32   // bytes
)

// Key is a key that signatures are verified with.
type Key struct {
	ID        string // `kid`; empty: it has none
	Algorithm string // the only one that it may be used with; empty: any that it suits
	Use       string // `use`: sig or empty
	material  any    // *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey or []byte
}

// Public returns the key as the crypto packages have it: *rsa.PublicKey,
// *ecdsa.PublicKey, ed25519.PublicKey, or []byte for a secret. It is not to be changed.
func (k Key) Public() any { return k.material }

// Symmetric reports whether the key is a secret that signs too.
func (k Key) Symmetric() bool {
	_, is := k.material.([]byte)
	return is
}

// Suits reports whether the key may verify signatures of an algorithm.
func (k Key) Suits(alg string) bool {
	a, known := algorithms[alg]
	return known && k.fits(alg, a)
}

// fits reports whether the key may verify a signature of an algorithm.
func (k Key) fits(name string, a algorithm) bool {
	if k.Algorithm != "" && k.Algorithm != name {
		return false
	}
	return a.suits(k.material)
}

// Thumbprint is the SHA-256 of the key (RFC 7638), base64url: equal for equal keys.
func (k Key) Thumbprint() string {
	sum := sha256.Sum256(required(k.material))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Secret makes a key of a secret that both sides know, for HS256, HS384 and HS512. It
// must be at least as long as the hash.
func Secret(secret []byte) Key { return Key{material: bytes.Clone(secret)} }

// ParseKeys reads a JWK, a JWK Set (RFC 7517) or public keys in PEM. Members that are
// of no use here are passed over, such as private keys, those of unknown types, and
// RSA keys below 2048 bits. When none is left, the error says why for each, and wraps
// ErrNoKeys.
func ParseKeys(data []byte) ([]Key, error) {
	if bytes.Contains(data, []byte("-----BEGIN ")) {
		return parsePEM(data)
	}
	set, err := parseObject(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoKeys, err)
	}
	members := []any{set}
	if list, ok := set["keys"]; ok {
		if members, ok = list.([]any); !ok || set["kty"] != nil {
			return nil, fmt.Errorf("%w: `keys` is no list", ErrNoKeys)
		}
	}
	if len(members) > maxKeys {
		return nil, fmt.Errorf("%w: %d keys are more than %d", ErrNoKeys, len(members), maxKeys)
	}
	var keys []Key
	failed := []error{ErrNoKeys}
	for i, m := range members {
		member, _ := m.(map[string]any)
		k, err := parseJWK(member)
		if err != nil {
			failed = append(failed, fmt.Errorf("key %d: %w", i, err))
			continue
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.Join(failed...)
	}
	return keys, nil
}

func parsePEM(data []byte) ([]Key, error) {
	var keys []Key
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		if block.Type != "PUBLIC KEY" {
			return nil, fmt.Errorf("%w: a PEM block %q is no public key: write it with `openssl pkey -pubout`", ErrNoKeys, block.Type)
		}
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err == nil {
			err = sound(public)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoKeys, err)
		}
		keys = append(keys, Key{material: public})
	}
	if len(keys) == 0 || len(keys) > maxKeys {
		return nil, fmt.Errorf("%w: %d PEM blocks are not from 1 to %d", ErrNoKeys, len(keys), maxKeys)
	}
	return keys, nil
}

// private are the members that only a private key has (RFC 7518 §6).
var private = [...]string{"d", "p", "q", "dp", "dq", "qi", "oth"}

// parseJWK reads a key that verifies signatures.
func parseJWK(m map[string]any) (Key, error) {
	k := Key{}
	var ok [3]bool
	k.ID, ok[0] = optional(m, "kid")
	k.Algorithm, ok[1] = optional(m, "alg")
	k.Use, ok[2] = optional(m, "use")
	switch {
	case m == nil:
		return k, errors.New("is no object")
	case ok != [3]bool{true, true, true} || len(k.ID) > maxID:
		return k, fmt.Errorf("kid, alg or use is no string, or kid is longer than %d bytes", maxID)
	case k.Use != "" && k.Use != "sig":
		return k, errors.New("is not for signatures")
	}
	if ops, given := m["key_ops"]; given {
		if list, _ := ops.([]any); !slices.Contains(list, any("verify")) {
			return k, errors.New("is not for verifying")
		}
	}
	for _, name := range private {
		if m[name] != nil {
			return k, errors.New("is a private key, which does not belong here")
		}
	}
	var err error
	switch m["kty"] {
	case "RSA":
		k.material, err = parseRSA(m)
	case "EC":
		k.material, err = parseEC(m)
	case "OKP":
		k.material, err = parseOKP(m)
	case "oct":
		k.material, err = octets(m, "k")
	default:
		err = errors.New("is of no known type")
	}
	if err == nil {
		err = sound(k.material)
	}
	if err != nil {
		return k, err
	}
	if k.Algorithm == "Ed25519" { // RFC 9864 §2.2: the same as EdDSA with this curve
		k.Algorithm = "EdDSA"
	}
	if k.Algorithm != "" && !algorithms[k.Algorithm].suits(k.material) {
		return k, errors.New("does not suit its own alg")
	}
	return k, nil
}

// optional returns a member that must be a string when it is there.
func optional(m map[string]any, name string) (string, bool) {
	v, given := m[name]
	s, ok := v.(string)
	return s, ok || !given
}

// octets returns the bytes of a member in base64url.
func octets(m map[string]any, name string) ([]byte, error) {
	text, ok := m[name].(string)
	if !ok || text == "" {
		return nil, fmt.Errorf("has no %s", name)
	}
	data, err := decode([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("has a bad %s", name)
	}
	return data, nil
}

func parseRSA(m map[string]any) (any, error) {
	n, err := octets(m, "n")
	if err != nil {
		return nil, err
	}
	e, err := octets(m, "e")
	if err != nil {
		return nil, err
	}
	exponent := new(big.Int).SetBytes(e)
	if exponent.BitLen() > 31 {
		return nil, errors.New("has an exponent of more than 31 bits")
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}, nil
}

var curves = map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}

func parseEC(m map[string]any) (any, error) {
	name, _ := m["crv"].(string)
	curve := curves[name]
	if curve == nil {
		return nil, errors.New("is on a curve that is not P-256, P-384 or P-521")
	}
	x, err := octets(m, "x")
	if err != nil {
		return nil, err
	}
	y, err := octets(m, "y")
	if err != nil {
		return nil, err
	}
	size := (curve.Params().BitSize + 7) / 8
	if len(x) != size || len(y) != size { // RFC 7518 §6.2.1.2
		return nil, fmt.Errorf("has coordinates that are not of %d bytes", size)
	}
	return ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y))
}

func parseOKP(m map[string]any) (any, error) {
	if m["crv"] != "Ed25519" {
		return nil, errors.New("is on a curve that is not Ed25519")
	}
	x, err := octets(m, "x")
	if err != nil {
		return nil, err
	}
	return ed25519.PublicKey(x), nil
}

// sound says what is wrong with a key.
func sound(material any) error {
	switch k := material.(type) {
	case []byte:
		if len(k) < minSecret {
			return fmt.Errorf("is a secret of less than %d bytes", minSecret)
		}
	case *rsa.PublicKey:
		switch bits := k.N.BitLen(); {
		case bits < minRSA || bits > maxRSA:
			return fmt.Errorf("is an RSA key of %d bits, which are not from %d to %d", bits, minRSA, maxRSA)
		case k.N.Bit(0) == 0 || k.E < 3 || k.E&1 == 0:
			return errors.New("is an RSA key with an even modulus, or a bad exponent")
		}
	case *ecdsa.PublicKey:
		if _, err := k.ECDH(); err != nil {
			return errors.New("is no point of its curve, or of one that is not P-256, P-384 or P-521")
		}
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize || lowOrder(k) {
			return errors.New("is no Ed25519 key")
		}
	default:
		return fmt.Errorf("is of a type that verifies nothing here: %T", material)
	}
	return nil
}

// lowOrder reports whether an Ed25519 key is a point of small order, for which anybody
// can make signatures. y is that of 0, 1, -1, the two of order 8, or one of those not
// reduced, with any sign bit.
func lowOrder(k ed25519.PublicKey) bool {
	y := [ed25519.PublicKeySize]byte(k)
	y[31] &= 0x7f
	return slices.Contains(lowOrderY[:], y)
}

var lowOrderY = [...][ed25519.PublicKeySize]byte{
	{},
	{1},
	prime(-1), prime(0), prime(1),
	{0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05},
	{0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a},
}

// prime is 2^255 - 19 + d in little endian, for a small d.
func prime(d int) (y [ed25519.PublicKeySize]byte) {
	for i := range y {
		y[i] = 0xff
	}
	y[0], y[31] = byte(0xed+d), 0x7f
	return y
}

// required is the JSON of the members that make the key, in the order that RFC 7638
// §3.2 asks for.
func required(material any) []byte {
	b64 := base64.RawURLEncoding.EncodeToString
	var v any
	switch k := material.(type) {
	case []byte:
		v = struct {
			K   string `json:"k"`
			Kty string `json:"kty"`
		}{b64(k), "oct"}
	case *rsa.PublicKey:
		v = struct {
			E   string `json:"e"`
			Kty string `json:"kty"`
			N   string `json:"n"`
		}{b64(big.NewInt(int64(k.E)).Bytes()), "RSA", b64(k.N.Bytes())}
	case *ecdsa.PublicKey:
		point, _ := k.Bytes() // it is on its curve
		half := (len(point) - 1) / 2
		v = struct {
			Crv string `json:"crv"`
			Kty string `json:"kty"`
			X   string `json:"x"`
			Y   string `json:"y"`
		}{k.Curve.Params().Name, "EC", b64(point[1 : 1+half]), b64(point[1+half:])}
	case ed25519.PublicKey:
		v = struct {
			Crv string `json:"crv"`
			Kty string `json:"kty"`
			X   string `json:"x"`
		}{"Ed25519", "OKP", b64(k)}
	}
	out, _ := json.Marshal(v) // strings alone
	return out
}
