// Package jose verifies and signs JSON Web Tokens in the compact form (RFC 7515,
// RFC 7519), and reads JSON Web Keys (RFC 7517), strictly: what can be read in two
// ways, or asks for what is not understood, is refused (RFC 8725).
//
// A token is taken apart and its header and claims are looked at before a key is
// looked for, so that only a token that would otherwise be accepted costs a look-up
// or a signature. Nothing in a token is ever used as a key, or to find one, but its
// `kid`.
//
// Signatures are those of the standard library's crypto packages.
package jose

import (
	"errors"
	"time"
)

// ErrUnavailable is in the error of a Source that cannot tell now which keys there
// are.
var ErrUnavailable = errors.New("the keys cannot be told now")

// ErrNoKeys is in the error of ParseKeys for data in which no key is of use.
var ErrNoKeys = errors.New("there is no usable key")

// Rules are what a token must keep to. They are not changed once they are in use.
type Rules struct {
	Issuer     string        // exactly the `iss`; empty: not looked at
	Audience   []string      // of which `aud` must have one; empty: not looked at
	Algorithms []string      // those that are accepted
	Types      []string      // the `typ` that are accepted, such as at+jwt; empty: any
	Leeway     time.Duration // how far clocks may differ
}

// Source has the keys that signatures are verified with.
type Source interface {
	// Keys returns the candidates for a `kid`, which is empty when the token gives none.
	// An error that wraps ErrUnavailable says that it cannot be told now.
	Keys(kid string) ([]Key, error)
}

// Keys is a Source of keys that do not change. A key without an id is a candidate for
// every `kid`.
type Keys []Key

// Keys returns the candidates for a kid.
func (k Keys) Keys(kid string) ([]Key, error) {
	if kid == "" {
		return k, nil
	}
	var fit []Key
	for i := range k {
		if k[i].ID == kid || k[i].ID == "" {
			fit = append(fit, k[i])
		}
	}
	return fit, nil
}

// Token is a token that was verified.
type Token struct {
	Type, KeyID, Algorithm       string
	Claims                       map[string]any // all of them
	Expires, NotBefore, IssuedAt time.Time      // zero: not given; Expires always is
	// Confirm is the fingerprint of the client certificate that the token is bound to,
	// as `cnf` has it: base64url of its SHA-256 (RFC 8705 §3.1). Empty: none.
	Confirm string
}
