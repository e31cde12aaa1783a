package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// The checks here are of routes whose rules of who may call say something else than
// they seem to: nobody would notice before somebody is refused, or is not.

func (c *checker) routeAccess(at string, r *Route, api *API) {
	path := r.Path
	if api != nil {
		path = strings.TrimRight(api.BasePath, "/") + path
	}
	c.underTokens(at, path, r.Methods)
	if r.Auth != nil {
		c.alternatives(at, r.Auth.Use)
	}
	if r.Authorize == nil {
		return
	}
	if a := r.Authorize; len(a.Permissions) == 0 && len(a.Roles) == 0 && a.When == "" {
		c.warn(at+".authorize", "config.missing", "asks nothing of the caller: add permissions, roles or when, or remove it")
	}
	c.paramsOf(at+".authorize.when", r.Authorize.When, path)
}

// alternatives checks the alternatives of an auth list against those before them.
func (c *checker) alternatives(at string, use [][]string) {
	for i := range use {
		for j := range i {
			switch {
			case len(use[j]) == 0 || !contains(use[i], use[j]):
				c.sameIssuer(at, use, i, j)
				continue
			case len(use[i]) == len(use[j]):
				c.report(c.authPath(at, i, 0), "config.duplicate", "is there already, remove it")
			default:
				c.warn(c.authPath(at, i, 0), "config.conflict", "never decides: who has these credentials has those of %s too, which is asked before and decides. Put this alternative first", strings.Join(use[j], " and "))
			}
			break
		}
	}
}

// contains reports whether all has every one of some.
func contains(all, some []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

// sameIssuer warns of an authenticator of tokens that comes behind another of the same
// issuer: the token's `iss` and its place choose who decides, and nothing else.
func (c *checker) sameIssuer(at string, use [][]string, i, j int) {
	if len(use[i]) != 1 || len(use[j]) != 1 {
		return
	}
	issuer, from := c.f.Authenticators[use[i][0]].issuer()
	before, places := c.f.Authenticators[use[j][0]].issuer()
	if issuer == "" || issuer != before {
		return
	}
	for _, place := range from {
		if slices.ContainsFunc(places, func(p string) bool { return strings.EqualFold(p, place) }) {
			c.warn(c.authPath(at, i, 0), "config.conflict", "reads tokens of the same issuer as %s, which is asked before and decides about all of them that stand in %s: have the two read different places (from), or let one of them do (audience and algorithms are lists)", quote(use[j][0]), place)
			return
		}
	}
}

// issuer is whose tokens the authenticator reads, and where; empty for other kinds.
func (a *Authenticator) issuer() (iss string, from []string) {
	switch {
	case a == nil:
	case a.JWT != nil:
		return a.JWT.Issuer, a.JWT.From
	case a.Cognito != nil:
		return "https://cognito-idp." + a.Cognito.Region + ".amazonaws.com/" + a.Cognito.UserPool, a.sources()
	}
	return "", nil
}

// issuerEndpoints are what the gateway's own issuer answers below tokens.path, and by
// which method.
var issuerEndpoints = map[string]string{"token": "POST", "revoke": "POST", "introspect": "POST", "jwks": "GET"}

// underTokens complains of a route in the place of an endpoint of the gateway's own
// issuer, which on the hosts of an api would take its requests, and warns of one beside
// them.
func (c *checker) underTokens(at, path string, methods []string) {
	if c.f.Tokens == nil || c.f.Tokens.Path == "" {
		return
	}
	base := strings.TrimRight(c.f.Tokens.Path, "/")
	rest, below := strings.CutPrefix(path, base+"/")
	switch {
	case !below:
	case issuerEndpoints[rest] != "" && (len(methods) == 0 || slices.Contains(methods, issuerEndpoints[rest])):
		c.report(at+".path", "config.conflict", "is where the gateway's own issuer answers (tokens.path), and what is meant for it, keys too, would go to this upstream: choose another path, or another tokens.path")
	default:
		c.warn(at+".path", "config.conflict", "lies below %s, where the gateway's own issuer answers (tokens.path): what is one of its endpoints does not get here. Choose another path, or another tokens.path", base)
	}
}

var (
	celText  = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'`)
	celName  = regexp.MustCompile(`^\w+$`)
	celParam = regexp.MustCompile(`(?:^|[^\w.\]])params\s*(?:\.\s*([A-Za-z_]\w*)|\[\s*(?:"(\w+)"|'(\w+)')\s*\])`)
)

// paramsOf warns of parameters that a condition reads and the path does not have: it has
// no value then, and refuses.
func (c *checker) paramsOf(at, when, path string) {
	if when == "" || path == "" {
		return
	}
	var names []string
	for _, name := range braces(path) {
		names = append(names, strings.TrimSuffix(name, "..."))
	}
	// Texts are no expressions, but for those between brackets behind params.
	plain := celText.ReplaceAllStringFunc(when, func(text string) string {
		if inner := text[1 : len(text)-1]; celName.MatchString(inner) {
			return text
		}
		return `""`
	})
	said := map[string]bool{}
	for _, m := range celParam.FindAllStringSubmatch(plain, -1) {
		name := m[1] + m[2] + m[3]
		if slices.Contains(names, name) || said[name] || asksFor(plain, name) {
			continue
		}
		said[name] = true
		c.warn(at, "config.unknown_reference", "params.%s has no value here, because the path %s has no {%s}, and a condition without a value refuses: %s", name, quote(path), name, suggestParam(names))
	}
}

// asksFor reports whether a condition itself asks whether a parameter is there.
func asksFor(when, name string) bool {
	test := regexp.MustCompile(fmt.Sprintf(`has\s*\(\s*params\s*\.\s*%[1]s\s*\)|["']%[1]s["']\s+in\s+params\b`, name))
	return test.MatchString(when)
}

func suggestParam(names []string) string {
	if len(names) == 0 {
		return "add it to the path, or write the condition without it"
	}
	return "the path has " + listing(names, "parameters")
}
