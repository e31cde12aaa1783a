package config

import (
	"fmt"
	"slices"
	"strings"
)

// authenticatorKind checks what one kind of authenticator needs more than one value
// for.
func (c *checker) authenticatorKind(at string, a *Authenticator) {
	switch {
	case a == nil:
	case a.APIKey != nil:
		c.sources(at+".api_key.from", a.APIKey.From)
	case a.JWT != nil:
		c.jwt(at+".jwt", a.JWT)
		c.sources(at+".jwt.from", a.JWT.From)
	case a.MTLS != nil && !c.asksForCertificates():
		c.report(at+".mtls", "config.missing", "finds no certificate, because no listener asks for one: add tls.client_ca to a listener")
	case a.Issued != nil && c.f.Tokens == nil && c.given("tokens") == nil:
		c.report(at+".issued", "config.missing", "accepts the gateway's own tokens and there is no issuer: add tokens:")
	}
}

func (c *checker) asksForCertificates() bool {
	for i := range c.f.Listeners {
		if t := c.f.Listeners[i].TLS; t != nil && t.ClientCA != "" && t.ClientAuth != "none" {
			return true
		}
	}
	return false
}

// hmacLengths are the least lengths of secrets, bytes (RFC 7518 §3.2).
var hmacLengths = map[string]int{"HS256": 32, "HS384": 48, "HS512": 64}

// jwt checks that there is one place for keys, of the kind that the algorithms need:
// a public key that could be used as a shared secret is known to everybody.
func (c *checker) jwt(at string, j *JWTAuth) {
	var places []string
	for _, key := range [...]string{"jwks_url", "discovery", "keys", "secret"} {
		if n := c.given(at + "." + key); n != nil && (key != "discovery" || j.Discovery) {
			places = append(places, key)
		}
	}
	shared, public := 0, 0
	for _, alg := range j.Algorithms {
		if strings.HasPrefix(alg, "HS") {
			shared++
		} else {
			public++
		}
	}
	switch {
	case len(places) == 0:
		c.report(at, "config.missing", "has no keys, add jwks_url, discovery: true, keys or secret")
	case len(places) > 1:
		c.report(at+"."+places[1], "config.conflict", "keys are taken from one place, %s or %s: remove one", places[0], places[1])
	case shared > 0 && public > 0:
		c.report(at+".algorithms", "config.conflict", "algorithms with a shared secret (HS…) and with public keys do not go together: make two authenticators")
	case shared > 0 && places[0] != "secret":
		c.report(at+"."+places[0], "config.conflict", "an HS… algorithm needs a secret that nobody else knows: write secret, or remove it from algorithms")
	case public > 0 && places[0] == "secret":
		c.report(at+".secret", "config.conflict", "is a shared secret, which only the algorithms HS256, HS384 and HS512 use: change algorithms, or give jwks_url, discovery or keys")
	}
	if places != nil && places[0] == "secret" {
		least := 32
		for _, alg := range j.Algorithms {
			least = max(least, hmacLengths[alg])
		}
		if n := len(j.Secret.Reveal()); n > 0 && n < least {
			c.report(at+".secret", "config.bad_value", "is shorter than %d bytes, which these algorithms need: make a longer one", least)
		}
	}
	if j.Discovery && j.Issuer != "" {
		if problem := urlProblem("credential_url", j.Issuer); problem != "" {
			c.report(at+".issuer", "config.bad_url", "is where discovery begins, and %s", problem)
		}
	}
	if len(j.Audience) == 0 && c.given(at) != nil {
		c.warn(at, "config.no_audience", "does not look at the audience: a token that the issuer made for any other service is accepted here. Add audience: [ ] with the name of this one")
	}
}

// sources complains of headers that no request can have: names with _ are dropped.
func (c *checker) sources(at string, from []string) {
	for i, source := range from {
		if name, ok := strings.CutPrefix(source, "header:"); ok && (tokenProblem(name) || strings.Contains(name, "_")) {
			c.report(fmt.Sprintf("%s[%d]", at, i), "config.bad_header", "%s is a header that no request can have here, try one like header:X-Api-Key", c.subject(fmt.Sprintf("%s[%d]", at, i), source))
		}
	}
}

// permissions checks how permissions are written. granted ones may end with a *.
func (c *checker) permissions(at string, list []string, granted bool) {
	for i, p := range list {
		here := fmt.Sprintf("%s[%d]", at, i)
		name, _ := strings.CutSuffix(p, "*")
		switch {
		case p == "" || strings.ContainsAny(p, " \t\n\"\\"):
			c.report(here, "config.bad_value", "%s is no permission, write one like users:read", c.subject(here, p))
		case strings.Contains(name, "*"):
			c.report(here, "config.bad_value", "%s has a * that is not its end, write one like users:*", c.subject(here, p))
		case name != p && !granted:
			c.report(here, "config.bad_value", "%s asks for more than one permission, name each that is needed", c.subject(here, p))
		}
	}
}

// tokens checks the gateway's own issuer.
func (c *checker) tokens() {
	t := c.f.Tokens
	if t == nil {
		return
	}
	secret := c.given("tokens.secret")
	switch {
	case t.Algorithm == "HS256" && secret == nil:
		c.report("tokens", "config.missing", "HS256 needs a secret of at least 32 bytes, add secret")
	case t.Algorithm != "HS256" && secret != nil:
		c.report("tokens.secret", "config.conflict", "is used by HS256 only, %s makes its own keys: remove it", t.Algorithm)
	case t.Algorithm == "HS256" && len(t.Secret.Reveal()) > 0 && len(t.Secret.Reveal()) < 32:
		c.report("tokens.secret", "config.bad_value", "is shorter than 32 bytes, make a longer one")
	}
	if t.Path == "" {
		c.report("tokens.path", "config.bad_path", "would be /token for all hosts, use a path such as /oauth")
	}
}

// together checks an alternative of an auth list.
func (c *checker) together(at string, i int, names []string) {
	if len(names) < 2 {
		return
	}
	for j, name := range names {
		if name == "anonymous" {
			c.report(c.authPath(at, i, j), "config.conflict", "nobody cannot agree with others, write anonymous as an alternative of its own")
		}
		if slices.Contains(names[:j], name) {
			c.report(c.authPath(at, i, j), "config.duplicate", "is there already, remove it")
		}
	}
}

// credentialFields adds to the names whose values are never logged those that
// credentials are read from.
func credentialFields(f *File) {
	redact := &f.Log.Access.Redact
	for _, name := range keysOf(f.Authenticators) {
		for _, source := range f.Authenticators[name].sources() {
			kind, field, _ := strings.Cut(source, ":")
			if kind == "cookie" {
				field = "Cookie"
			}
			if kind != "context" && kind != "stage_variable" && !slices.ContainsFunc(*redact, func(have string) bool { return strings.EqualFold(have, field) }) {
				*redact = append(slices.Clip(*redact), field)
			}
		}
	}
}

// sources are where an authenticator finds credentials, such as header:X-Api-Key.
func (a *Authenticator) sources() []string {
	switch {
	case a == nil:
	case a.APIKey != nil:
		return a.APIKey.From
	case a.JWT != nil:
		return a.JWT.From
	case a.Lambda != nil:
		return a.Lambda.Identity
	case a.HTTP != nil:
		from := make([]string, len(a.HTTP.Send))
		for i, h := range a.HTTP.Send {
			from[i] = "header:" + h
		}
		return from
	case a.Introspection != nil, a.Issued != nil, a.Basic != nil, a.Cognito != nil:
		return []string{"header:Authorization"}
	case a.Signature != nil:
		return []string{"header:Signature"}
	}
	return nil
}
