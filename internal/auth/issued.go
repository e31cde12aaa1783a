package auth

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/internal/auth/issuer"
	"github.com/sluice-gateway/sluice/internal/auth/verdict"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// issuedAuth accepts the access tokens of the gateway's own issuer.
//
// A token is verified once and kept, never past its end. What can end it before, a
// revocation of its family or of the API key that it was granted to, is looked at for
// every request, in memory and without a lock. A refresh token is claimed too, so
// that it is refused here and nobody else is asked about it.
//
// Whatever the client has, with `join` or through roles: a request with a token has no
// permission that the token's scope has not.
type issuedAuth struct {
	realm    *realm
	name     string
	server   *issuer.Server
	join     bool
	forward  bool
	verdicts *verdict.Cache[*issuedVerdict]
}

// issuedVerdict is a token that was verified.
type issuedVerdict struct {
	access *issuer.Access
	// caller is who it is: always the same, unless it joins a client of the admin API.
	caller atomic.Pointer[issuedCaller]
}

type issuedCaller struct {
	caller  *exchange.Caller
	version uint64 // of the directory, that it was found in
}

var (
	_ authenticator = (*issuedAuth)(nil)
	_ io.Closer     = (*issuedAuth)(nil)
)

func newIssuedAuth(r *realm, name string, c *config.Authenticator) (authenticator, error) {
	if r.file.Tokens == nil {
		return nil, errors.New("accepts the gateway's own tokens and there is no issuer, add tokens")
	}
	server, err := r.engine.issuer.serve(r)
	if err != nil {
		return nil, err
	}
	return &issuedAuth{
		realm: r, name: name, server: server, join: joins(c), forward: forwards(c),
		verdicts: verdict.New[*issuedVerdict](maxVerdicts, maxIssued),
	}, nil
}

// maxIssued is how long a token may be whose verdict is kept, bytes.
const maxIssued = 4 << 10

// Close lets the issuer's server go.
func (a *issuedAuth) Close() error {
	a.server.Close()
	return nil
}

// find returns the bearer token, when it claims to be of the gateway's own.
func (a *issuedAuth) find(x *exchange.Exchange) []byte {
	var value []byte
	for v := range x.Request.Header.ValuesID(exchange.Authorization) {
		if value != nil {
			return nil // of two nobody knows which counts
		}
		value = v
	}
	token := credentialsOf(value, bearerScheme)
	if token == nil {
		return nil
	}
	if _, known := a.verdicts.Get(token, 0); known || a.server.Mine(token) {
		return token
	}
	return nil
}

// check says whose the token is.
func (a *issuedAuth) check(x *exchange.Exchange, token []byte, dry bool) (*exchange.Caller, error) {
	v, ok := a.verdicts.Get(token, x.Start.UnixNano())
	if !ok {
		access, err := a.server.Verify(token, x.Start)
		switch {
		case errors.Is(err, issuer.ErrAway) && dry:
			return nil, errDry
		case errors.Is(err, issuer.ErrAway):
			return nil, away(err)
		case err != nil:
			return nil, refuse(err)
		}
		v = &issuedVerdict{access: access}
		if !dry {
			a.verdicts.Put(token, v, access.Expires.UnixNano())
		}
	}
	if err := a.server.Live(v.access); err != nil {
		return nil, a.ended(v.access, err)
	}
	return a.caller(v)
}

// ended is the refusal of a token that does not hold any more. A key that is not
// known, or whose client is not, while the directory is behind its store may be a good
// one.
func (a *issuedAuth) ended(t *issuer.Access, err error) error {
	d := a.realm.engine.directory
	if errors.Is(err, issuer.ErrKey) && d.behind.Load() {
		if c, known := d.ids.get(t.Key); !known || !a.realm.owns(c) {
			return away(fmt.Errorf("%s: %w", t.Key, errBehind))
		}
	}
	return refuse(err)
}

// caller returns who holds the token. The work is done once for each token, and again
// when a client has changed that it may join.
func (a *issuedAuth) caller(v *issuedVerdict) (*exchange.Caller, error) {
	version := uint64(0)
	if a.join {
		version = a.realm.engine.directory.version()
	}
	if c := v.caller.Load(); c != nil && c.version == version {
		return c.caller, nil
	}
	t := v.access
	who := identity{id: t.Client, claims: t.Claims, key: issuer.KeyID(t.Key)}
	if !a.join {
		who.plan, who.roles = t.Plan, t.Roles
	}
	caller, err := a.realm.caller(a.name, a.join, who)
	if err != nil {
		return nil, err
	}
	if a.join {
		caller.Permissions = inCommon(caller.Permissions, t.Scope)
	} else {
		caller.Permissions = t.Scope
	}
	v.caller.Store(&issuedCaller{caller: caller, version: version})
	return caller, nil
}

// strip takes the token off, unless it is to be forwarded.
func (a *issuedAuth) strip(x *exchange.Exchange) {
	if !a.forward {
		x.Request.Header.DelID(exchange.Authorization)
	}
}

func (a *issuedAuth) scheme() string { return "Bearer" }
