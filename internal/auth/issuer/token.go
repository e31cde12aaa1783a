package issuer

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth/jose"
)

// accessType is the `typ` of access tokens (RFC 9068 §2.1).
const accessType = "at+jwt"

// accessClaims are the claims of an access token (RFC 9068 §2.2), with those that
// the gateway itself reads: what the token is, and what its client has.
type accessClaims struct {
	Issuer   string   `json:"iss"`
	Subject  string   `json:"sub"`
	Audience string   `json:"aud"`
	Client   string   `json:"client_id"`
	Bound    string   `json:"key,omitempty"` // the very key, where client_id could be another's later
	Expires  int64    `json:"exp"`
	IssuedAt int64    `json:"iat"`
	ID       string   `json:"jti"`
	Type     string   `json:"type"` // access
	Scope    string   `json:"scope,omitempty"`
	Plan     string   `json:"plan,omitempty"`
	Roles    []string `json:"roles,omitempty"`
}

// KeyID is the id of a key, of one that may have `~` and a part of its digest behind it.
func KeyID(key string) string {
	id, _, _ := strings.Cut(key, "~")
	return id
}

// bound is key when it says more than its id.
func bound(key string) string {
	if strings.Contains(key, "~") {
		return key
	}
	return ""
}

// Access is what a verified access token says. It is shared and read-only.
type Access struct {
	Client  string // id of the client
	Key     string // id of the API key that the token was granted to
	Scope   []string
	Plan    string
	Roles   []string
	Expires time.Time
	Claims  map[string]any

	id     string
	family string
	issued time.Time
	gone   *atomic.Bool // of the key that has signed it
}

// hmacPrefix begins the `kid` of tokens of a shared secret.
const hmacPrefix = "hs256."

// hmacID names a secret without telling of it more than its tokens do.
func hmacID(secret []byte) string {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte("sluice token key"))
	return hmacPrefix + hex.EncodeToString(h.Sum(nil)[:8])
}

var errNoKey = fmt.Errorf("%w: there is no signing key yet", ErrAway)

// sign makes an access token of a family. It returns when the token ends.
func (s *Server) sign(c *Client, scope []string, family string, now time.Time) (token []byte, expires time.Time, err error) {
	signer := s.hmac
	if signer == nil {
		k := s.i.ring.signing(s.o.Algorithm, now)
		if k == nil {
			return nil, expires, errNoKey
		}
		signer = k.signer
	}
	expires = time.Unix(now.Add(s.o.AccessTTL).Unix(), 0)
	claims, err := json.Marshal(accessClaims{
		Issuer: s.o.Issuer, Subject: c.ID, Audience: s.o.Issuer, Client: KeyID(c.Key), Bound: bound(c.Key),
		Expires: expires.Unix(), IssuedAt: now.Unix(), ID: family + "." + rand.Text()[:13], Type: "access",
		Scope: strings.Join(scope, " "), Plan: c.Plan, Roles: c.Roles,
	})
	if err != nil {
		return nil, expires, err
	}
	token, err = signer.Sign(accessType, claims)
	if len(token) > maxAccess {
		return nil, expires, errLong
	}
	return token, expires, err
}

// maxAccess is the longest access token, bytes: more does not fit into the header of
// a request everywhere.
const maxAccess = 8 << 10

var errLong = fmt.Errorf("the access token is longer than %d bytes", maxAccess)

// skew is how far the clocks of gateways may differ: a token of another gateway may
// be of the future that much.
const skew = 10 * time.Second

// Mine reports whether a token claims to be of this issuer. Nobody has verified it.
func (s *Server) Mine(token []byte) bool {
	if strings.HasPrefix(string(token[:min(len(token), len(refreshPrefix))]), refreshPrefix) {
		return true
	}
	iss, isJWS := jose.Issuer(token)
	return isJWS && iss == s.o.Issuer
}

var errUnread = fmt.Errorf("%w: the signing keys and what was revoked have not been read yet", ErrAway)

var errNoAccess = errors.New("it is no access token of the gateway's own")

// Verify reads an access token. A refresh token is none. An error that wraps ErrAway
// says that it cannot be told now; every other one that the token does not hold. What
// has been verified has still to be Live.
func (s *Server) Verify(token []byte, now time.Time) (*Access, error) {
	rules := jose.Rules{Issuer: s.o.Issuer, Audience: []string{s.o.Issuer}, Types: []string{accessType}, Leeway: skew, Algorithms: s.i.ring.algorithms()}
	if s.hmac != nil {
		rules.Algorithms = append(rules.Algorithms, s.hmac.Algorithm())
	}
	if len(rules.Algorithms) == 0 || !s.i.known() {
		return nil, errUnread
	}
	t, err := rules.Verify(token, (*keySource)(s), now)
	switch {
	case errors.Is(err, jose.ErrUnavailable):
		return nil, fmt.Errorf("%w: %w", ErrAway, err)
	case err != nil:
		return nil, err
	case !now.Before(t.Expires):
		return nil, fmt.Errorf("it has expired at %s", t.Expires.UTC().Format(time.RFC3339))
	}
	return s.read(t)
}

// Keys returns the candidates for a `kid`.
func (s *keySource) Keys(id string) ([]jose.Key, error) {
	if h := s.hmac; h != nil && id == h.ID() {
		return []jose.Key{h.Key()}, nil
	}
	return s.i.Keys(id)
}

// keySource is a Server as a jose.Source.
type keySource Server

// read takes the claims of a token whose signature is right.
func (s *Server) read(t *jose.Token) (*Access, error) {
	text := func(name string) string {
		v, _ := t.Claims[name].(string)
		return v
	}
	a := &Access{
		Client: text("sub"), Key: cmp.Or(text("key"), text("client_id")), Plan: text("plan"), Scope: strings.Fields(text("scope")),
		Expires: t.Expires, Claims: t.Claims, issued: t.IssuedAt, id: text("jti"),
	}
	var ok bool
	if a.family, _, ok = strings.Cut(a.id, "."); !ok || len(a.family) != nameLen || a.Client == "" || a.Key == "" || text("type") != "access" {
		return nil, errNoAccess
	}
	if roles, given := t.Claims["roles"]; given {
		list, isList := roles.([]any)
		for _, r := range list {
			role, isText := r.(string)
			isList = isList && isText
			a.Roles = append(a.Roles, role)
		}
		if !isList {
			return nil, errNoAccess
		}
	}
	if k := s.i.ring.find(t.KeyID); k != nil {
		a.gone = k.gone
	}
	return a, nil
}

// The ways in which a token has ended before its time.
var (
	errRevoked = errors.New("the token was revoked")
	errKeyGone = errors.New("the key that has signed the token is none any more")
	// ErrKey is that of the API key.
	ErrKey = errors.New("the API key that the token was granted to was revoked, has expired or is disabled")
)

// Live returns nil as long as a verified token has not been revoked, and neither has
// the API key that it was granted to. It takes no lock, waits for nothing and does
// not allocate.
func (s *Server) Live(a *Access) error {
	switch {
	case s.i.revoked.has(a.family):
		return errRevoked
	case a.gone != nil && a.gone.Load():
		return errKeyGone
	case !s.o.Clients.Live(a.Key):
		return ErrKey
	}
	return nil
}
