package auth

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// authenticate is the `auth` of a route.
type authenticate struct {
	realm        *realm
	alternatives []alternative
	all          []authenticator // each once, to strip
	anonymous    bool            // who shows no credential is let through
	shadow       bool
	challenges   []exchange.Field
	// signed are those of all that read signed tokens, which introspection leaves to them.
	signed []authenticator
	rest   leftovers
}

// alternative is authenticators that must all agree. The first says who calls; what
// the others claim is added to its claims.
type alternative struct {
	names []string
	all   []authenticator
	asks  bool // one of them is introspection, which takes any other bearer token
}

var (
	_ policy.Filter = (*authenticate)(nil)
	_ policy.Moded  = (*authenticate)(nil)
	_ policy.Closer = (*authenticate)(nil)
)

// maxTogether is how many authenticators may have to agree.
const maxTogether = 4

func (e *Engine) newAuthenticate(route *config.Route, env *policy.Env) (policy.Filter, error) {
	if len(env.File.Authenticators) == 0 {
		return e.newImplicit(env)
	}
	if route.Auth.Open() {
		return newUnvouched(env.File), nil
	}
	realm, err := e.realm(env)
	if err != nil {
		return nil, err
	}
	f := &authenticate{realm: realm, shadow: route.Auth.Mode == "shadow"}
	for _, names := range route.Auth.Use {
		if len(names) == 1 && names[0] == "anonymous" {
			f.anonymous = true
			continue
		}
		if len(names) > maxTogether {
			err = fmt.Errorf("%d authenticators together are more than %d", len(names), maxTogether)
			break
		}
		a := alternative{names: names}
		for _, name := range names {
			one, ok := realm.authenticators[name]
			if !ok { // the configuration's own check has more to say
				err = fmt.Errorf("there is no authenticator %q", name)
				break
			}
			a.all = append(a.all, one)
			switch one.(type) {
			case *introspectionAuth:
				a.asks = true
			case *jwtAuth, *issuedAuth:
				f.signed = append(f.signed, one)
			}
			if !slices.Contains(f.all, one) {
				f.all = append(f.all, one)
			}
			f.challenge(one.scheme())
		}
		f.alternatives = append(f.alternatives, a)
	}
	if err != nil {
		return nil, errors.Join(policy.At(env.At+".auth", err), realm.release())
	}
	f.rest = newLeftovers(env.File, route.Auth)
	return f, nil
}

// challenge adds a scheme to WWW-Authenticate, once.
func (f *authenticate) challenge(scheme string) {
	for i := range f.challenges {
		if string(f.challenges[i].Value) == scheme {
			return
		}
	}
	f.challenges = append(f.challenges, exchange.Field{Name: wwwAuthenticate, Value: []byte(scheme)})
}

var wwwAuthenticate = []byte("WWW-Authenticate")

// Shadow reports whether refusals are only recorded.
func (f *authenticate) Shadow() bool { return f.shadow }

// Close lets the realm go.
func (f *authenticate) Close() error { return f.realm.release() }

// Request finds out who calls.
func (f *authenticate) Request(x *exchange.Exchange) error {
	body := x.Request.Body
	var c choice
	caller, err := f.decide(x, &c, false)
	f.strip(x, &c, err)
	if f.shadow {
		x.Request.Body = body // a signature may refuse it later
	}
	if err != nil {
		return f.refused(err)
	}
	x.Caller = caller
	return nil
}

// refused adds the challenges to a 401.
func (f *authenticate) refused(err error) *exchange.Error {
	e := exchange.AsError(err)
	if e.Code == exchange.Unauthenticated {
		e.Header = append(e.Header, f.challenges...)
	}
	return e
}

// elsewhere says where more is known.
func (r *realm) elsewhere() string {
	if r.engine.offline {
		return "; a running gateway knows more: POST /v1/explain"
	}
	return ""
}

var errMissing = errors.New("there is no credential that an authenticator of this route reads")

// choice is the alternative that decides about a request, nil for none, with the
// credentials that its authenticators have found.
type choice struct {
	of    *alternative
	found [maxTogether][]byte
}

// choose finds the first alternative whose credentials are all there.
func (f *authenticate) choose(x *exchange.Exchange, c *choice) {
next:
	for i := range f.alternatives {
		a := &f.alternatives[i]
		for j, one := range a.all {
			if c.found[j] = one.find(x); c.found[j] == nil {
				continue next
			}
		}
		if a.asks && f.hasSigned(x) {
			continue
		}
		c.of = a
		return
	}
}

// hasSigned reports whether the token is one for those that read signed ones.
func (f *authenticate) hasSigned(x *exchange.Exchange) bool {
	return slices.ContainsFunc(f.signed, func(a authenticator) bool { return a.find(x) != nil })
}

// decide says who calls. What fails in shadow mode does not count as an attempt: it
// would shut out who is let in elsewhere.
func (f *authenticate) decide(x *exchange.Exchange, c *choice, dry bool) (*exchange.Caller, error) {
	f.choose(x, c)
	if c.of == nil {
		if f.anonymous {
			return nil, nil
		}
		return nil, refuse(errMissing)
	}
	g, rule, counts := &f.realm.engine.guard, &f.realm.file.Limits.AuthFailures, !dry && !f.shadow
	if counts {
		if err := g.admit(rule, x); err != nil {
			return nil, err
		}
	}
	var who *exchange.Caller
	for i, one := range c.of.all {
		found, err := one.check(x, c.found[i], dry)
		if err == errDry {
			return nil, err
		}
		if err != nil {
			e := named(c.of.names[i], err)
			if e.Code == exchange.Unauthenticated && counts {
				g.failed(rule, x)
			}
			return nil, e
		}
		if who == nil {
			who = found
		} else {
			who = withClaims(who, found)
		}
	}
	return who, nil
}

// named says in the log which authenticator it was.
func named(name string, err error) *exchange.Error {
	e := exchange.AsError(err)
	c := *e
	c.Cause = fmt.Errorf("%s: %w", name, e.Cause)
	return &c
}

// withClaims is c with the claims of another that agrees.
func withClaims(c, other *exchange.Caller) *exchange.Caller {
	if len(other.Claims) == 0 {
		return c
	}
	both := *c
	both.Claims = make(map[string]any, len(c.Claims)+len(other.Claims))
	for k, v := range other.Claims {
		both.Claims[k] = v
	}
	for k, v := range c.Claims {
		both.Claims[k] = v
	}
	return &both
}

// Explain says which authenticator decides, and what it finds.
func (f *authenticate) Explain(x *exchange.Exchange) policy.Opinion {
	var c choice
	caller, err := f.decide(x, &c, true)
	f.strip(x, &c, err)
	by := ""
	if c.of != nil {
		by = strings.Join(c.of.names, " and ")
	}
	switch {
	case err == errDry:
		return policy.Opinion{Unknown: true, Reason: by + " decides, and explain does not ask whom it would have to ask" + f.realm.elsewhere()}
	case err != nil:
		e := f.refused(err)
		return policy.Opinion{Verdict: telemetry.Refused, Reason: e.Cause.Error(), Refusal: e}
	case caller == nil:
		return policy.Opinion{Verdict: telemetry.Allowed, Reason: "there is no credential, and anonymous is admitted"}
	}
	x.Caller = caller
	return policy.Opinion{Verdict: telemetry.Allowed, Reason: fmt.Sprintf("%s says that it is %s", by, caller.ID)}
}
