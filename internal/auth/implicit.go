package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/sluice-gateway/sluice/internal/auth/apikey"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// newImplicit is the filter of a configuration without authenticators: it finds out
// which client calls, by the key in X-Api-Key, which is one of the configuration's or
// of the admin API's. It refuses nobody: who has no key, or one that is not known or
// has run out, is nobody in particular. A known key is taken off the request, so that
// no upstream gets to see it.
//
// Guessing keys is limited as it is with authenticators (limits.auth_failures). What
// counts as a guess is a key that could be one of ours: any where the configuration
// declares keys, else those that begin with slk_. Others are somebody else's, whose
// upstream has keys of its own in the same field.
func (e *Engine) newImplicit(env *policy.Env) (policy.Filter, error) {
	if len(env.File.Clients) == 0 && !e.directory.kept() {
		return nil, nil
	}
	return policy.Common(env, func() *implicit {
		r := &realm{engine: e, file: env.File, clients: map[string]*config.Client{}, granted: permissionsOf(env.File.Roles)}
		for i := range env.File.Clients {
			r.clients[env.File.Clients[i].ID] = &env.File.Clients[i]
		}
		user := e.directory.user(r, "", true)
		user.lenient = true
		return &implicit{realm: r, user: user}
	}), nil
}

// implicit finds clients by their keys. One is made for each configuration and serves
// all its routes.
type implicit struct {
	realm *realm // without authenticators
	user  keyUser
}

var _ policy.Filter = (*implicit)(nil)

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

// unsure reports whether a key that is not known may be a good one, because the store of
// keys has not been read.
func (e *Engine) unsure(err error) bool {
	return errors.Is(err, errBehind) || errors.Is(err, errUnknown) && e.directory.behind.Load()
}

var errNoKey = errors.New("no X-Api-Key")

// find returns whose key the request has, and why it does not count. The credential
// is there for a key that is known and does not work, too.
func (f *implicit) find(x *exchange.Exchange) (*credential, *exchange.Caller, error) {
	key := x.Request.Header.GetID(exchange.XAPIKey)
	if len(key) == 0 {
		return nil, nil, errNoKey
	}
	c, err := f.realm.keyring().match(f.realm.engine.directory, key)
	if err != nil {
		return nil, nil, err
	}
	if now := x.Start.UnixNano(); !c.works(now) {
		return c, nil, c.fault(now)
	}
	who, err := f.user.caller(c)
	if err != nil {
		return c, nil, exchange.AsError(err).Cause
	}
	return c, who, nil
}

// guess reports whether the request has a key that could be one of ours.
func (f *implicit) guess(x *exchange.Exchange) bool {
	key := x.Request.Header.GetID(exchange.XAPIKey)
	return len(key) > 0 && (apikey.IsOwn(key) || len(f.realm.keyring().ids) > 0)
}

// Request notes who calls, and refuses who has shown too many wrong keys.
func (f *implicit) Request(x *exchange.Exchange) error {
	g, rule, guess := &f.realm.engine.guard, &f.realm.file.Limits.AuthFailures, f.guess(x)
	if guess {
		if err := g.admit(rule, x); err != nil {
			return err
		}
	}
	c, who, err := f.find(x)
	if guess && err != nil && !f.realm.engine.unsure(err) {
		g.failed(rule, x)
	}
	if c != nil {
		x.Request.Header.DelID(exchange.XAPIKey)
	}
	if err == nil {
		c.touch(x.Start.UnixNano())
		x.Caller = who
	}
	return nil
}

// Explain names the client, and notes it for the filters behind.
func (f *implicit) Explain(x *exchange.Exchange) policy.Opinion {
	c, who, err := f.find(x)
	if err != nil {
		return policy.Opinion{Verdict: telemetry.Allowed, Reason: "nobody known: " + err.Error()}
	}
	x.Caller = who
	why := "the key is one of " + c.client
	if c.name != "" {
		why = fmt.Sprintf("the key is %q of %s", c.name, c.client)
	}
	return policy.Opinion{Verdict: telemetry.Allowed, Reason: why}
}
