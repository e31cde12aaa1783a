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
}

// alternative is authenticators that must all agree. The first says who calls; what
// the others claim is added to its claims.
type alternative struct {
	names []string
	all   []authenticator
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
	caller, err := f.decide(x, false)
	for _, a := range f.all {
		a.strip(x)
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
		return a
	}
	return nil
}

func (f *authenticate) decide(x *exchange.Exchange, dry bool) (*exchange.Caller, error) {
	var found [maxTogether][]byte
	a := f.choose(x, &found)
	if a == nil {
		if f.anonymous {
			return nil, nil
		}
		return nil, refuse(errMissing)
	}
	g := &f.realm.engine.guard
	if !dry {
		if err := g.admit(&f.realm.file.Limits.AuthFailures, x); err != nil {
			return nil, err
		}
	}
	var who *exchange.Caller
	for i, one := range a.all {
		c, err := one.check(x, found[i], dry)
		if err != nil {
			if e, ok := errors.AsType[*exchange.Error](err); ok && e.Code == exchange.Unauthenticated && !dry {
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
	var found [maxTogether][]byte
	a := f.choose(x, &found)
	caller, err := f.decide(x, true)
	for _, one := range f.all {
		one.strip(x)
	}
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
