package auth

import (
	"bytes"
	"maps"
	"slices"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// What the upstream must not get, beside credentials that are not forwarded: whoever
// reads it there may take it for something that this gateway has verified.
//
//   - Signed tokens, in the places where authenticators of the route look for them,
//     that nobody has looked at because another credential decided. What looks like
//     one is enough, whoever it says it is from: others read tokens with less care.
//   - Fields that a service vouches for callers with (`receive`), from clients: on
//     every route, also where that service is not asked, and in the trailer.
type leftovers struct {
	tokens sources  // where signed tokens may stand
	others [][]byte // fields of services that the route does not ask
	all    [][]byte // fields of all services
}

func newLeftovers(f *config.File, use *config.Auth) leftovers {
	var l leftovers
	for _, name := range slices.Sorted(maps.Keys(f.Authenticators)) {
		a := f.Authenticators[name]
		if a == nil {
			continue
		}
		asked := use != nil && slices.ContainsFunc(use.Use, func(all []string) bool { return slices.Contains(all, name) })
		switch {
		case a.HTTP != nil:
			for _, field := range a.HTTP.Receive {
				l.all = append(l.all, []byte(field))
				if !asked {
					l.others = append(l.others, []byte(field))
				}
			}
		case asked && a.JWT != nil:
			l.look(a.JWT.From)
		case asked && (a.Cognito != nil || a.Issued != nil):
			l.look([]string{"header:Authorization"})
		}
	}
	return l
}

// look adds places of tokens.
func (l *leftovers) look(from []string) {
	places, err := parseSources(from)
	if err != nil {
		return // the authenticator has reported it
	}
	for _, p := range places {
		if !slices.ContainsFunc(l.tokens, func(have source) bool {
			return have.kind == p.kind && have.id == p.id && bytes.Equal(have.name, p.name)
		}) {
			l.tokens = append(l.tokens, p)
		}
	}
}

// strip takes off what goes no further, when c has decided; failed: it has refused, which
// in shadow mode does not end the request.
func (f *authenticate) strip(x *exchange.Exchange, c *choice, failed error) {
	for _, name := range f.rest.others {
		x.Request.Header.Del(name)
	}
	for i := range f.rest.tokens {
		p := f.rest.tokens[i : i+1]
		if token := bearer(p.find(x)); looksSigned(token) && !c.read(token) {
			p.strip(x)
		}
	}
	for _, a := range f.all {
		a.strip(x)
	}
	if failed != nil {
		for _, name := range f.rest.all {
			x.Request.Header.Del(name)
		}
	}
	if f.rest.all != nil {
		x.Request.NoTrailer = true
	}
}

// looksSigned reports whether a credential may be taken for a signed token. Several in
// one place are looked at by nobody, and by others perhaps one by one.
func looksSigned(token []byte) bool {
	return bytes.Count(token, dot) >= 2 || bytes.Equal(token, several)
}

var dot = []byte(".")

// read reports whether a credential is one that decided.
func (c *choice) read(credential []byte) bool {
	if c.of == nil {
		return false
	}
	for i, a := range c.of.all {
		switch a.(type) {
		case *httpAuth, *lambdaAuth: // the service was sent it, with others
			if bytes.Contains(c.found[i], credential) {
				return true
			}
		default:
			if bytes.Equal(c.found[i], credential) {
				return true
			}
		}
	}
	return false
}

// unvouched is the filter of an open route: it takes off the fields that services of
// other routes vouch with.
type unvouched [][]byte

var _ policy.Filter = unvouched(nil)

// newUnvouched returns nil when there are no such fields.
func newUnvouched(f *config.File) policy.Filter {
	if all := newLeftovers(f, nil).all; all != nil {
		return unvouched(all)
	}
	return nil
}

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
