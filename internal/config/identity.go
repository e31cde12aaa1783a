package config

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"
)

// Client is somebody who calls, with keys, a plan and entitlements.
type Client struct {
	// The identity, unique in the file.
	ID string `yaml:"id" need:"true" check:"name"`
	// The plan, by name. Absent: `default_plan`.
	Plan string `yaml:"plan"`
	// The roles, by name.
	Roles []string `yaml:"roles"`
	// Permissions besides those of the roles.
	Permissions []string `yaml:"permissions"`
	// What is known of the client, for expressions and limits.
	Attributes map[string]any `yaml:"attributes"`
	// The API keys of the client.
	Keys []ClientKey `yaml:"keys"`
}

// ClientKey is one API key of a client. Either `hash` or `value` is given.
type ClientKey struct {
	// The key's name, for people.
	Name string `yaml:"name"`
	// `sha256:` and the SHA-256 of the key in 64 hex digits.
	Hash string `yaml:"hash" check:"key_hash"`
	// The key itself, at least 20 characters. Only its hash is kept.
	Value Secret `yaml:"value"`
	// Permissions that narrow those of the client. Absent: all of the client's.
	Permissions []string `yaml:"permissions"`
	// From when on the key is refused, as `2027-01-31T00:00:00Z`.
	ExpiresAt *time.Time `yaml:"expires_at"`
}

// Digest is the SHA-256 of the key: what `hash` says, or that of `value`. A hash
// that is none has the zero value in it.
func (k *ClientKey) Digest() (sum [sha256.Size]byte) {
	if k.Hash == "" {
		return sha256.Sum256([]byte(k.Value.Reveal()))
	}
	digits := strings.TrimPrefix(k.Hash, "sha256:")
	if len(digits) == 2*len(sum) {
		_, _ = hex.Decode(sum[:], []byte(digits)) // what is no hash was reported as it was read
	}
	return sum
}

// Role is a named set of permissions.
type Role struct {
	// Roles that this one is too, with all their permissions.
	Inherits []string `yaml:"inherits"`
	// Permissions: `users:read`, or `users:*` for all of `users`.
	Permissions []string `yaml:"permissions"`
}

// Tokens is the gateway's own token issuer.
type Tokens struct {
	// The `iss` of its tokens.
	Issuer string `yaml:"issuer" need:"true" check:"url"`
	// How tokens are signed. HS256 needs `secret`.
	Algorithm string `yaml:"algorithm" default:"ES256" enum:"ES256|EdDSA|RS256|HS256"`
	// The key of HS256, at least 32 bytes.
	Secret Secret `yaml:"secret"`
	// How long access tokens hold.
	AccessTTL Duration `yaml:"access_ttl" default:"30m" min:"1s"`
	// How long refresh tokens hold.
	RefreshTTL Duration `yaml:"refresh_ttl" default:"7d" min:"1s"`
	// Where the issuer answers: `/token`, `/revoke`, `/introspect` and `/jwks` below this path.
	Path string `yaml:"path" default:"/oauth" check:"base_path"`
}
