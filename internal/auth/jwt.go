package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth/jose"
	"github.com/sluice-gateway/sluice/internal/auth/keyset"
	"github.com/sluice-gateway/sluice/internal/auth/verdict"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
)

// jwtAuth verifies JSON Web Tokens of one issuer. A token is for it when it claims to
// be of that issuer.
//
// What was found out about a token is kept under the whole token, for maxVerdict at
// most and never past its end, and is found again without reading it. It is not used
// once the issuer's keys have changed. What a verdict cannot hold is looked at each
// time: the client certificate that a token is bound to, and the client that it joins.
type jwtAuth struct {
	realm    *realm
	name     string
	rules    jose.Rules
	from     sources
	claims   config.ClaimNames
	keys     jose.Source
	set      *keyset.Set // the same as keys, when they are fetched
	join     bool
	forward  bool
	verdicts *verdict.Cache[*jwtVerdict]
	issuers  *verdict.Cache[string]  // nil: there is no other issuer
	also     func(*jose.Token) error // what a token must keep to besides; nil: nothing
	prints   *verdict.Cache[[sha256.Size]byte]
}

// jwtVerdict is a token that was verified.
type jwtVerdict struct {
	who     identity
	caller  *exchange.Caller
	client  *config.Client // that caller joined; nil without join
	from    int64          // Unix ns from which on it holds
	changes uint64         // of the key set, before it was verified
	bound   bool           // to the certificate with the fingerprint print
	print   [sha256.Size]byte
}

// The bounds of verdicts: 16,384 tokens of at most 4 KiB are 64 MiB at the very most,
// and 16 MiB at the usual length.
const (
	maxVerdicts   = 16 << 10
	maxVerdictKey = 4 << 10
	maxVerdict    = time.Hour
)

var _ authenticator = (*jwtAuth)(nil)

func newJWTAuth(r *realm, name string, c *config.Authenticator) (authenticator, error) {
	return makeJWTAuth(r, name, c, c.JWT)
}

func makeJWTAuth(r *realm, name string, c *config.Authenticator, j *config.JWTAuth) (*jwtAuth, error) {
	from, err := parseSources(j.From)
	if err != nil {
		return nil, policy.At("jwt.from", err)
	}
	a := &jwtAuth{
		realm: r, name: name, from: from, claims: j.Claims, join: joins(c), forward: forwards(c),
		rules:    jose.Rules{Issuer: j.Issuer, Audience: j.Audience, Algorithms: j.Algorithms, Types: j.Types, Leeway: j.Leeway.Duration},
		verdicts: verdict.New[*jwtVerdict](maxVerdicts, maxVerdictKey),
	}
	registry := r.engine.keySets.open(r.engine)
	a.prints = r.engine.keySets.certificates
	if readers(r.file) > 1 {
		a.issuers = r.engine.keySets.issuers
	}
	switch {
	case j.JWKSURL != "":
		a.set = registry.Acquire(keyset.Place{URL: j.JWKSURL})
	case j.Discovery:
		a.set = registry.Acquire(keyset.Place{Issuer: j.Issuer})
	case !j.Secret.Empty():
		a.keys = jose.Keys{jose.Secret([]byte(j.Secret.Reveal()))}
		return a, nil
	default:
		a.keys, err = filesOfKeys(r, j)
		return a, err
	}
	a.keys = a.set
	return a, nil
}

// readers is how many authenticators of a configuration read tokens of an issuer.
func readers(f *config.File) (n int) {
	for _, c := range f.Authenticators {
		if c != nil && (c.JWT != nil || c.Cognito != nil) {
			n++
		}
	}
	return n
}

// filesOfKeys reads the files of keys. Each must have one that an algorithm can use.
func filesOfKeys(r *realm, j *config.JWTAuth) (jose.Keys, error) {
	var all jose.Keys
	var failed []error
	for i, name := range j.Keys {
		at := fmt.Sprintf("jwt.keys[%d]", i)
		data, err := readBeside(r.engine.dir, name)
		if err != nil {
			failed = append(failed, policy.At(at, fmt.Errorf("cannot be read: %w", err)))
			continue
		}
		keys, err := jose.ParseKeys(data)
		if err != nil {
			failed = append(failed, policy.At(at, oneLine(err)))
			continue
		}
		n := len(all)
		for k := range keys {
			if !keys[k].Symmetric() && suitsAny(&keys[k], j.Algorithms) {
				all = append(all, keys[k])
			}
		}
		if len(all) == n {
			failed = append(failed, policy.At(at, fmt.Errorf("has no key that the algorithms %v can use: change algorithms, or give the keys of this issuer", j.Algorithms)))
		}
	}
	return all, errors.Join(failed...)
}

// oneLine keeps an error that is made of several in one piece.
func oneLine(err error) error { return errors.New(strings.ReplaceAll(err.Error(), "\n", "; ")) }

func suitsAny(k *jose.Key, algorithms []string) bool {
	for _, alg := range algorithms {
		if k.Suits(alg) {
			return true
		}
	}
	return false
}

// Close gives the key set back.
func (a *jwtAuth) Close() error {
	if a.set != nil {
		a.realm.engine.keySets.registry.Release(a.set)
	}
	return nil
}

// find returns the first token that claims to be of the issuer.
func (a *jwtAuth) find(x *exchange.Exchange) []byte {
	for i := range a.from {
		s := &a.from[i]
		token := bearer(s.value(x), s.kind == inHeader && s.id == exchange.Authorization)
		if len(token) > 0 && a.mine(token) {
			return token
		}
	}
	return nil
}

// mine reports whether a token claims to be of the issuer.
func (a *jwtAuth) mine(token []byte) bool {
	const whenever = math.MinInt64 // who made a token does not change
	if _, ok := a.verdicts.Get(token, whenever); ok {
		return true
	}
	if a.issuers != nil {
		if iss, ok := a.issuers.Get(token, whenever); ok {
			return iss == a.rules.Issuer
		}
	}
	iss, ok := jose.Issuer(token)
	return ok && iss == a.rules.Issuer
}

// check says whose the token is.
func (a *jwtAuth) check(x *exchange.Exchange, token []byte, dry bool) (*exchange.Caller, error) {
	now := a.realm.engine.now()
	v, ok := a.verdicts.Get(token, now.UnixNano())
	if ok && v.changes == a.changes() && now.UnixNano() >= v.from {
		return a.admit(x, v)
	}
	v, until, err := a.verify(token, now, dry)
	if err != nil {
		return nil, err
	}
	if !dry {
		a.verdicts.Put(token, v, until)
		if a.issuers != nil {
			a.issuers.Put(token, a.rules.Issuer, until)
		}
	}
	return a.admit(x, v)
}

// changes counts how often the keys became others.
func (a *jwtAuth) changes() uint64 {
	if a.set == nil {
		return 0
	}
	return a.set.Changes()
}

// verify reads a token, and says until when (Unix ns) that may be kept.
func (a *jwtAuth) verify(token []byte, now time.Time, dry bool) (*jwtVerdict, int64, error) {
	v := &jwtVerdict{changes: a.changes(), from: math.MinInt64}
	keys := a.keys
	if dry && a.set != nil {
		keys = a.set.Quiet()
	}
	t, err := a.rules.Verify(token, keys, now)
	switch {
	case errors.Is(err, jose.ErrUnavailable) && dry:
		return nil, 0, errDry
	case errors.Is(err, jose.ErrUnavailable):
		return nil, 0, away(err)
	case err != nil:
		return nil, 0, refuse(err)
	}
	if a.also != nil {
		if err := a.also(t); err != nil {
			return nil, 0, refuse(err)
		}
	}
	if v.who, err = identityOf(t.Claims, &a.claims); err != nil {
		return nil, 0, refuse(err)
	}
	if t.Confirm != "" {
		sum, err := base64.RawURLEncoding.DecodeString(t.Confirm)
		if err != nil || copy(v.print[:], sum) != len(v.print) {
			return nil, 0, refuse(errors.New("cnf is no SHA-256"))
		}
		v.bound = true
	}
	if v.caller, v.client, err = a.resolve(v.who); err != nil {
		return nil, 0, err
	}
	if !t.NotBefore.IsZero() {
		v.from = t.NotBefore.Add(-a.rules.Leeway).UnixNano()
	}
	until := t.Expires.Add(a.rules.Leeway)
	if most := now.Add(maxVerdict); most.Before(until) {
		until = most
	}
	return v, until.UnixNano(), nil
}

// resolve finds out what the identity is here.
func (a *jwtAuth) resolve(who identity) (*exchange.Caller, *config.Client, error) {
	var client *config.Client
	if a.join {
		client, _ = a.realm.client(who.id)
	}
	c, err := a.realm.caller(a.name, a.join, who)
	if err != nil {
		return nil, nil, err
	}
	return c, client, nil
}

// admit looks at what may have changed since the token was verified.
func (a *jwtAuth) admit(x *exchange.Exchange, v *jwtVerdict) (*exchange.Caller, error) {
	if v.bound {
		if err := a.holds(x, v); err != nil {
			return nil, refuse(err)
		}
	}
	if a.join {
		if client, ok := a.realm.client(v.who.id); !ok || client != v.client {
			c, _, err := a.resolve(v.who)
			return c, err
		}
	}
	return v.caller, nil
}

var (
	errNoCertificate = errors.New("the token is bound to a client certificate, and the connection has none")
	errCertificate   = errors.New("the token is bound to another client certificate (RFC 8705 §3)")
)

// holds checks that the connection's client certificate is the one that the token is
// bound to.
func (a *jwtAuth) holds(x *exchange.Exchange, v *jwtVerdict) error {
	if x.Conn == nil || x.Conn.TLS == nil || len(x.Conn.TLS.Client) == 0 {
		return errNoCertificate
	}
	der := x.Conn.TLS.Client
	print, ok := a.prints.Get(der, 0)
	if !ok {
		print = sha256.Sum256(der)
		a.prints.Put(der, print, math.MaxInt64)
	}
	if subtle.ConstantTimeCompare(print[:], v.print[:]) == 0 {
		return errCertificate
	}
	return nil
}

// strip takes the token off. An Authorization field that is not for it stays: another
// authenticator of the route, or the upstream, may read that one.
func (a *jwtAuth) strip(x *exchange.Exchange) {
	if a.forward {
		return
	}
	for i := range a.from {
		if s := &a.from[i]; s.kind != inHeader || s.id != exchange.Authorization {
			a.from[i : i+1].strip(x)
			continue
		}
		for v := range x.Request.Header.ValuesID(exchange.Authorization) {
			if token := credentialsOf(v, bearerScheme); token != nil && a.mine(token) {
				x.Request.Header.DelID(exchange.Authorization)
				break
			}
		}
	}
}

func (a *jwtAuth) scheme() string { return "Bearer" }
