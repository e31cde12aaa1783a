package auth

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/internal/auth/apikey"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
)

// realm is what one configuration says about who may call: its authenticators,
// clients, plans and roles. All routes of the configuration share it, and the last
// that lets go closes it.
type realm struct {
	engine         *Engine
	file           *config.File
	authenticators map[string]authenticator
	clients        map[string]*config.Client
	granted        map[string][]string // the permissions of each role, those it inherits included
	declared       declaredKeys
	users          atomic.Int64
	closing        sync.Once
	err            error // why there is none: Faults
}

// realm returns the one of a configuration, with one more user.
func (e *Engine) realm(env *policy.Env) (*realm, error) {
	r := policy.Common(env, func() *realm { return e.newRealm(env.File) })
	if r.err != nil {
		return nil, r.err
	}
	r.users.Add(1)
	return r, nil
}

func (e *Engine) newRealm(f *config.File) *realm {
	r := &realm{engine: e, file: f, authenticators: map[string]authenticator{}, clients: map[string]*config.Client{}, granted: permissionsOf(f.Roles)}
	for i := range f.Clients {
		r.clients[f.Clients[i].ID] = &f.Clients[i]
	}
	var failed []error
	for _, name := range slices.Sorted(maps.Keys(f.Authenticators)) {
		a, err := e.newAuthenticator(r, name, f.Authenticators[name])
		if err != nil {
			failed = append(failed, below("authenticators."+name, err))
			continue
		}
		r.authenticators[name] = a
	}
	for i := range f.Clients {
		for j := range f.Clients[i].Keys {
			key := []byte(f.Clients[i].Keys[j].Value.Reveal())
			if _, ok := apikey.Parse(key); apikey.IsOwn(key) && !ok {
				failed = append(failed, policy.At(fmt.Sprintf("clients[%d].keys[%d].value", i, j),
					errors.New("begins with slk_ and has a wrong checksum, so that it would always be refused: copy it once more, or make another with sluice keys create")))
			}
		}
	}
	if len(failed) > 0 {
		r.err = errors.Join(append(failed, r.close())...)
	}
	return r
}

// below is err as a Fault at a place of the configuration, or at the places below it
// that it names.
func below(at string, err error) error {
	var all []error
	for _, f := range policy.Faults(err, "") {
		inner := *f
		if inner.At = at; f.At != "" {
			inner.At += "." + f.At
		}
		all = append(all, &inner)
	}
	return errors.Join(all...)
}

// newAuthenticator makes one entry of `authenticators`. An error that is a
// policy.Fault says by its path where below the entry the cause stands.
func (e *Engine) newAuthenticator(r *realm, name string, c *config.Authenticator) (authenticator, error) {
	switch {
	case c == nil:
	case c.APIKey != nil:
		return newKeyAuth(r, name, c)
	case c.JWT != nil:
		return newJWTAuth(r, name, c)
	case c.Cognito != nil:
		return newCognitoAuth(r, name, c)
	case c.MTLS != nil:
		return newMTLSAuth(r, name, c)
	case c.Introspection != nil:
		return newIntrospectionAuth(r, name, c)
	case c.HTTP != nil:
		return newHTTPAuth(r, name, c)
	case c.Lambda != nil:
		return newLambdaAuth(r, name, c)
	case c.Signature != nil:
		return newSignatureAuth(r, name, c)
	case c.Basic != nil:
		return newBasicAuth(r, name, c)
	case c.Issued != nil:
		return newIssuedAuth(r, name, c)
	}
	return nil, errors.New("is of no kind, add api_key: {}, jwt: or another")
}

// release gives one use back.
func (r *realm) release() error {
	if r.users.Add(-1) > 0 {
		return nil
	}
	return r.close()
}

// close closes what there is, once: a configuration that fails lets go of its realm
// route by route, while further routes take it up again.
func (r *realm) close() error {
	var failed []error
	r.closing.Do(func() {
		for _, a := range r.authenticators {
			if c, ok := a.(io.Closer); ok {
				failed = append(failed, c.Close())
			}
		}
	})
	return errors.Join(failed...)
}

// joins reports whether an authenticator's identities are declared clients: only
// those of api_key are, unless the entry says otherwise.
func joins(c *config.Authenticator) bool {
	if c.Join != nil {
		return *c.Join
	}
	return c.APIKey != nil
}

// forwards reports whether the upstream gets to see the credential.
func forwards(c *config.Authenticator) bool {
	if c.Forward != nil {
		return *c.Forward
	}
	return c.APIKey == nil && c.Basic == nil
}

// caller makes of an identity the caller that policies see. With join it is a client
// that is declared or was made through the admin API, which must be there; what the
// credential says besides is added. A plan or role that there is not is a 403.
func (r *realm) caller(authenticator string, join bool, who identity) (*exchange.Caller, error) {
	c := &exchange.Caller{
		Authenticator: authenticator, ID: who.id, Plan: who.plan, Roles: who.roles, Permissions: who.permissions,
		Attributes: who.attributes, Claims: who.claims, Key: who.key,
	}
	if join {
		known, ok := r.client(who.id)
		if !ok {
			return nil, refuse(fmt.Errorf("%s: there is no client %q", authenticator, who.id))
		}
		c.Authenticator = ""
		c.Plan = cmp.Or(known.Plan, who.plan)
		c.Roles = union(known.Roles, who.roles)
		c.Permissions = union(known.Permissions, who.permissions)
		if c.Attributes = texts(known.Attributes); c.Attributes == nil {
			c.Attributes = who.attributes
		} else {
			maps.Copy(c.Attributes, who.attributes)
		}
	}
	return c, r.complete(c)
}

// complete looks up the plan and the roles of a caller, and adds the permissions that
// they give.
func (r *realm) complete(c *exchange.Caller) error {
	if c.Plan != "" && r.file.Plans[c.Plan] == nil {
		return forbid(fmt.Errorf("%s has the plan %q, which there is not", c.ID, c.Plan))
	}
	for _, role := range c.Roles {
		granted, ok := r.granted[role]
		if !ok {
			return forbid(fmt.Errorf("%s has the role %q, which there is not", c.ID, role))
		}
		c.Permissions = union(c.Permissions, granted)
	}
	return nil
}

// client returns a client of the configuration, or one that was made through the
// admin API.
func (r *realm) client(id string) (*config.Client, bool) {
	if c, ok := r.clients[id]; ok {
		return c, true
	}
	return r.engine.directory.client(id)
}

// union is a and what b has besides. Neither is changed.
func union(a, b []string) []string {
	out := slices.Clip(a)
	for _, s := range b {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
