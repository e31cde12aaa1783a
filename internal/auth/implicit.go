package auth

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// newImplicit is the filter of a configuration without authenticators: it finds out
// which client calls, by the key in X-Api-Key. It refuses nobody: who has no key, or
// one that is not known or has run out, is nobody in particular. A known key is taken
// off the request, so that no upstream gets to see it.
func (e *Engine) newImplicit(env *policy.Env) (policy.Filter, error) {
	if len(env.File.Clients) == 0 {
		return nil, nil
	}
	return policy.Common(env, func() *directory { return newClientKeys(env.File.Clients) }), nil
}

// directory finds clients by the SHA-256 of their keys. One is made for each
// configuration and serves all its routes.
//
// The look-up compares digests in a time that depends on them. It need not be
// constant: whoever measures it learns about the digest of what he sent, which he
// can neither choose bit by bit nor turn into a key, and the keys themselves are
// not here to be compared.
type directory struct {
	keys map[[sha256.Size]byte]*credential
}

// credential is one key of a client.
type credential struct {
	caller exchange.Caller
	until  time.Time // from when on it is refused; zero: never
}

var _ policy.Filter = (*directory)(nil)

func newClientKeys(clients []config.Client) *directory {
	d := &directory{keys: map[[sha256.Size]byte]*credential{}}
	for i := range clients {
		c := &clients[i]
		attributes := texts(c.Attributes)
		for j := range c.Keys {
			k := &c.Keys[j]
			cred := &credential{caller: exchange.Caller{
				ID: c.ID, Plan: c.Plan, Roles: c.Roles, Permissions: narrow(c.Permissions, k.Permissions), Attributes: attributes, Key: k.Name,
			}}
			if k.ExpiresAt != nil {
				cred.until = *k.ExpiresAt
			}
			d.keys[k.Digest()] = cred
		}
	}
	return d
}

// texts are attributes as policies compare them: texts as they are, all else as
// JSON writes it.
func texts(attributes map[string]any) map[string]string {
	if len(attributes) == 0 {
		return nil
	}
	out := make(map[string]string, len(attributes))
	for name, v := range attributes {
		if s, ok := v.(string); ok {
			out[name] = s
			continue
		}
		b, err := json.Marshal(v)
		if err != nil {
			b = []byte(fmt.Sprint(v)) // a number that JSON has no word for
		}
		out[name] = string(b)
	}
	return out
}

// narrow returns the permissions of a client that a key has: all of them when the
// key says nothing, and never more than the client's. `users:*` covers every
// permission that begins with `users:`.
func narrow(client, key []string) []string {
	if key == nil {
		return client
	}
	var both []string
	for _, k := range key {
		for _, c := range client {
			switch {
			case covers(c, k):
				both = append(both, k)
			case covers(k, c):
				both = append(both, c)
			}
		}
	}
	return both
}

func covers(wide, permission string) bool {
	if prefix, all := strings.CutSuffix(wide, "*"); all {
		return strings.HasPrefix(permission, prefix)
	}
	return wide == permission
}

// What the look-up finds wrong with a key. No client gets to read it.
var (
	errNoKey   = errors.New("no X-Api-Key")
	errUnknown = errors.New("the key is none of the configuration's")
	errExpired = errors.New("the key has run out")
)

// find returns whose key the request has. The credential is there for a key that
// has run out too.
func (d *directory) find(x *exchange.Exchange) (*credential, error) {
	key := x.Request.Header.GetID(exchange.XAPIKey)
	if len(key) == 0 {
		return nil, errNoKey
	}
	c := d.keys[sha256.Sum256(key)]
	switch {
	case c == nil:
		return nil, errUnknown
	case !c.until.IsZero() && !x.Start.Before(c.until):
		return c, errExpired
	}
	return c, nil
}

// Request notes who calls.
func (d *directory) Request(x *exchange.Exchange) error {
	c, err := d.find(x)
	if c != nil {
		x.Request.Header.DelID(exchange.XAPIKey)
	}
	if err == nil {
		x.Caller = &c.caller
	}
	return nil
}

// Explain names the client, and notes it for the filters behind.
func (d *directory) Explain(x *exchange.Exchange) policy.Opinion {
	c, err := d.find(x)
	if err != nil {
		why := "nobody known: " + err.Error()
		if c != nil {
			why = fmt.Sprintf("nobody known: %v, a key of %s since %s", err, c.caller.ID, c.until.UTC().Format(time.RFC3339))
		}
		return policy.Opinion{Verdict: telemetry.Allowed, Reason: why}
	}
	x.Caller = &c.caller
	why := "the key is one of " + c.caller.ID
	if c.caller.Key != "" {
		why = fmt.Sprintf("the key is %q of %s", c.caller.Key, c.caller.ID)
	}
	return policy.Opinion{Verdict: telemetry.Allowed, Reason: why}
}
