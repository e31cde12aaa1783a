package auth

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
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
	// received are the names of what services of other routes vouch for with fields.
	received [][]byte
	vouched  bool // some service of the configuration does
}

// alternative is authenticators that must all agree. The first says who calls; what
// the others claim is added to its claims.
type alternative struct {
	names []string
	all   []authenticator
	asks  bool // one of them is introspection, which takes any other bearer token
}

// dropper is an authenticator whose credential can speak for itself to an upstream that
// does not look closely. drop takes it off a request that another one has decided.
type dropper interface{ drop(x *exchange.Exchange) }

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
		if names := received(env.File, nil); names != nil {
			return unvouched(names), nil
		}
		return nil, nil
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
	f.received = received(env.File, route.Auth)
	f.vouched = received(env.File, nil) != nil
	return f, nil
}

// received are the names of fields that services vouch with, for a route that has
// none of these services: from its clients nobody may get them.
func received(f *config.File, use *config.Auth) [][]byte {
	var names [][]byte
	for _, name := range slices.Sorted(maps.Keys(f.Authenticators)) {
		a := f.Authenticators[name]
		if a == nil || a.HTTP == nil || use != nil && slices.ContainsFunc(use.Use, func(all []string) bool { return slices.Contains(all, name) }) {
			continue
		}
		for _, field := range a.HTTP.Receive {
			names = append(names, []byte(field))
		}
	}
	return names
}

// unvouched is the filter of an open route: it takes off the fields that services of
// other routes vouch with.
type unvouched [][]byte

var _ policy.Filter = unvouched(nil)

// Request takes them off.
func (f unvouched) Request(x *exchange.Exchange) error {
	for _, name := range f {
		x.Request.Header.Del(name)
	}
	x.Request.NoTrailer = true
	return nil
}

// Explain says so.
func (f unvouched) Explain(x *exchange.Exchange) policy.Opinion {
	_ = f.Request(x) // it refuses nothing
	return policy.Opinion{Verdict: telemetry.Allowed, Reason: "the route is open to all"}
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
	caller, by, err := f.decide(x, false)
	f.strip(x, by)
	if f.shadow {
		x.Request.Body = body // a signature may refuse it later
	}
	if err != nil {
		return f.refused(err)
	}
	x.Caller = caller
	return nil
}

// strip takes off what goes no further: the credentials of those who do not forward
// them, those that nobody has looked at, and fields that only a service may set.
func (f *authenticate) strip(x *exchange.Exchange, by *alternative) {
	for _, a := range f.all {
		if d, ok := a.(dropper); ok && !by.hasLookedAt(a, x) {
			d.drop(x)
		}
		a.strip(x)
	}
	if len(f.signed) > 0 && by.leaves(x) {
		x.Request.Header.DelID(exchange.Authorization)
	}
	for _, name := range f.received {
		x.Request.Header.Del(name)
	}
	if f.vouched {
		x.Request.NoTrailer = true
	}
}

// hasLookedAt reports whether the credential that a would read is one that decided.
func (by *alternative) hasLookedAt(a authenticator, x *exchange.Exchange) bool {
	if by == nil {
		return false
	}
	if slices.Contains(by.all, a) {
		return true
	}
	c := a.find(x)
	return len(c) > 0 && slices.ContainsFunc(by.all, func(b authenticator) bool {
		other := b.find(x)
		return len(other) > 0 && &other[0] == &c[0]
	})
}

// leaves reports whether a token in Authorization that looks like a signed one, of
// whatever form, is none that decided: somebody behind may read it with less care.
func (by *alternative) leaves(x *exchange.Exchange) bool {
	token := credentialsOf(x.Request.Header.GetID(exchange.Authorization), bearerScheme)
	if bytes.Count(token, dot) < 2 {
		return false
	}
	return by == nil || !slices.ContainsFunc(by.all, func(b authenticator) bool {
		switch b.(type) {
		case *httpAuth, *lambdaAuth: // who were sent it
			return true
		}
		c := b.find(x)
		return len(c) > 0 && &c[0] == &token[0]
	})
}

var dot = []byte(".")

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

// choose returns the first alternative whose credentials are all there.
func (f *authenticate) choose(x *exchange.Exchange, found *[maxTogether][]byte) *alternative {
next:
	for i := range f.alternatives {
		a := &f.alternatives[i]
		for j, one := range a.all {
			if found[j] = one.find(x); found[j] == nil {
				continue next
			}
		}
		if a.asks && f.hasSigned(x) {
			continue
		}
		return a
	}
	return nil
}

// hasSigned reports whether the token is one for those that read signed ones.
func (f *authenticate) hasSigned(x *exchange.Exchange) bool {
	return slices.ContainsFunc(f.signed, func(a authenticator) bool { return a.find(x) != nil })
}

// decide says who calls, and which alternative has decided it.
func (f *authenticate) decide(x *exchange.Exchange, dry bool) (*exchange.Caller, *alternative, error) {
	var found [maxTogether][]byte
	a := f.choose(x, &found)
	if a == nil {
		if f.anonymous {
			return nil, nil, nil
		}
		return nil, nil, refuse(errMissing)
	}
	who, err := f.check(x, a, &found, dry)
	return who, a, err
}

// check asks all of an alternative. What fails in shadow mode does not count as an
// attempt: it would shut out who is let in elsewhere.
func (f *authenticate) check(x *exchange.Exchange, a *alternative, found *[maxTogether][]byte, dry bool) (*exchange.Caller, error) {
	g := &f.realm.engine.guard
	if !dry && !f.shadow {
		if err := g.admit(&f.realm.file.Limits.AuthFailures, x); err != nil {
			return nil, err
		}
	}
	var who *exchange.Caller
	for i, one := range a.all {
		c, err := one.check(x, found[i], dry)
		if err != nil {
			if e, ok := errors.AsType[*exchange.Error](err); ok && e.Code == exchange.Unauthenticated && !dry && !f.shadow {
				g.failed(&f.realm.file.Limits.AuthFailures, x)
			}
			if len(a.names) > 0 && err != errDry {
				return nil, named(a.names[i], err)
			}
			return nil, err
		}
		if who == nil {
			who = c
		} else {
			who = withClaims(who, c)
		}
	}
	return who, nil
}

// named says in the log which authenticator it was.
func named(name string, err error) error {
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
	caller, a, err := f.decide(x, true)
	f.strip(x, a)
	by := ""
	if a != nil {
		by = strings.Join(a.names, " and ")
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
