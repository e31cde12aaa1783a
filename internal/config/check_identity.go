package config

import (
	"fmt"
	"reflect"
)

// identity checks what names clients, plans, roles, limits and authenticators.
func (c *checker) identity() {
	f := c.f
	plans, roles := keysOf(f.Plans), keysOf(f.Roles)
	c.known("default_plan", f.DefaultPlan, plans, "plan", "plans")
	c.distinct(len(f.Clients), func(i int) string { return f.Clients[i].ID },
		func(i int) string { return fmt.Sprintf("clients[%d].id", i) }, "a client")
	for i := range f.Clients {
		cl, at := &f.Clients[i], fmt.Sprintf("clients[%d]", i)
		c.known(at+".plan", cl.Plan, plans, "plan", "plans")
		for j, role := range cl.Roles {
			c.known(fmt.Sprintf("%s.roles[%d]", at, j), role, roles, "role", "roles")
		}
	}
	c.keys()
	for _, name := range roles {
		if f.Roles[name] == nil {
			continue
		}
		for j, parent := range f.Roles[name].Inherits {
			c.known(fmt.Sprintf("%s.inherits[%d]", path{}.key("roles").key(name), j), parent, roles, "role", "roles")
		}
	}
	for _, name := range plans {
		if f.Plans[name] != nil {
			c.plan(path{}.key("plans").key(name).String(), f.Plans[name])
		}
	}
	for _, name := range keysOf(f.Authenticators) {
		c.authenticator(path{}.key("authenticators").key(name).String(), name)
	}
	c.rateLimits()
}

// keys checks the API keys of all clients. Their values are never shown.
func (c *checker) keys() {
	first := map[string]string{}
	for i := range c.f.Clients {
		for j := range c.f.Clients[i].Keys {
			k, at := &c.f.Clients[i].Keys[j], fmt.Sprintf("clients[%d].keys[%d]", i, j)
			value, hash := c.given(at+".value"), c.given(at+".hash")
			switch {
			case value == nil && hash == nil:
				if n := c.given(at); n != nil && n.kind == mappingKind {
					c.report(at, "config.missing", "has neither hash nor value, add one")
				}
			case value != nil && hash != nil:
				c.report(at, "config.conflict", "has both a hash and a value, keep one")
			}
			here, secret := at+".hash", k.Hash
			if secret == "" {
				here, secret = at+".value", k.Value.Reveal()
				if secret != "" && len(secret) < 20 {
					c.report(here, "config.bad_value", "is a key of fewer than 20 characters, make a longer one")
				}
			}
			if secret == "" {
				continue
			}
			if before, taken := first[secret]; taken {
				c.report(here, "config.duplicate", "is the same key as at %s, give every client its own", c.where(before))
			} else {
				first[secret] = here
			}
		}
	}
}

func (c *checker) plan(at string, p *Plan) {
	var apis, routes []string
	for i := range c.f.APIs {
		apis = append(apis, c.f.APIs[i].Name)
		for r := range c.f.APIs[i].Routes {
			routes = append(routes, c.f.APIs[i].Routes[r].Name)
		}
	}
	for r := range c.f.Routes {
		routes = append(routes, c.f.Routes[r].Name)
	}
	for i, name := range p.APIs {
		c.known(fmt.Sprintf("%s.apis[%d]", at, i), name, apis, "api", "apis")
	}
	for _, name := range keysOf(p.Routes) {
		here := append(parsePath(at), path{}.key("routes").key(name)...).String()
		found := false
		for _, r := range routes {
			found = found || r == name
		}
		if !found {
			c.report(here, "config.unknown_reference", "there is no route %s, %s", quote(name), suggest(name, routes, "routes"))
		}
	}
}

// authenticator checks that exactly one kind is given.
func (c *checker) authenticator(at, name string) {
	if name == "anonymous" {
		c.report(at, "config.conflict", "anonymous stands for no authentication in auth lists, choose another name")
	}
	n := c.given(at)
	if n == nil || n.kind != mappingKind {
		return
	}
	var kinds []string
	for _, kind := range exclusive(reflect.TypeFor[Authenticator]()) {
		if n.get(kind) != nil {
			kinds = append(kinds, kind)
		}
	}
	for _, e := range n.entries {
		if len(kinds) == 0 && e.key.text != "join" && e.key.text != "forward" {
			return // an unknown key, reported as it was decoded
		}
	}
	switch {
	case len(kinds) == 0:
		c.report(at, "config.missing", "is of no kind, add api_key: {}, jwt: or another")
	case len(kinds) > 1:
		c.report(at+"."+kinds[1], "config.conflict", "an authenticator is either %s or %s: make two authenticators of it", kinds[0], kinds[1])
	}
}

// rateLimits checks the keys of limits against their algorithm.
func (c *checker) rateLimits() {
	for _, name := range keysOf(c.f.RateLimits) {
		c.rateLimit(path{}.key("rate_limits").key(name).String(), c.f.RateLimits[name])
	}
}

func (c *checker) rateLimit(at string, r *RateLimit) {
	n := c.given(at)
	if r == nil || n == nil || n.kind != mappingKind || r.Algorithm == "" {
		return
	}
	fits := map[string]bool{
		"rate":     r.Algorithm != "concurrency",
		"limit":    r.Algorithm == "concurrency",
		"burst":    r.Algorithm == "token_bucket" || r.Algorithm == "leaky_bucket",
		"queue":    r.Algorithm == "leaky_bucket",
		"max_wait": r.Algorithm == "leaky_bucket",
	}
	for _, e := range n.entries {
		if ok, known := fits[e.key.text]; known && !ok && e.value.text != "0" {
			c.report(at+"."+e.key.text, "config.conflict", "%s does not fit the algorithm %s, remove it", e.key.text, r.Algorithm)
		}
	}
	switch {
	case r.Algorithm == "concurrency" && n.get("limit") == nil:
		c.report(at, "config.missing", "has no limit, add limit: 50")
	case r.Algorithm != "concurrency" && n.get("rate") == nil:
		c.report(at, "config.missing", "has no rate, add rate: 100/s")
	}
}

// routePolicies checks what a route names, and that nobody forgot who may call it.
func (c *checker) routePolicies(at string, r *Route) {
	for i, use := range r.RateLimit {
		here := fmt.Sprintf("%s.rate_limit[%d]", at, i)
		if use.Inline != nil {
			c.rateLimit(here, use.Inline)
		} else {
			c.known(here, use.Name, keysOf(c.f.RateLimits), "rate limit", "rate limits")
		}
	}
	names := append(keysOf(c.f.Authenticators), "anonymous")
	if r.Auth == nil {
		if len(c.f.Authenticators) > 0 {
			c.report(at, "config.missing", "says nothing about auth although there are authenticators: add auth: [%s], or auth: [] for open to all", keysOf(c.f.Authenticators)[0])
		}
	} else {
		for i, all := range r.Auth.Use {
			for j, name := range all {
				c.known(c.authPath(at, i, j), name, names, "authenticator", "authenticators")
			}
		}
	}
	if r.Authorize != nil && r.Auth.Open() && (r.Auth != nil || len(c.f.Authenticators) == 0) {
		c.report(at+".authorize", "config.conflict", "asks who is calling on a route that is open to all, add auth: or remove authorize")
	}
	if r.Authorize != nil {
		for i, role := range r.Authorize.Roles {
			c.known(fmt.Sprintf("%s.authorize.roles[%d]", at, i), role, keysOf(c.f.Roles), "role", "roles")
		}
	}
	if r.CORS != nil && r.CORS.Credentials {
		for i, origin := range r.CORS.Origins {
			if origin == "*" {
				c.report(fmt.Sprintf("%s.cors.origins[%d]", at, i), "config.conflict", "every origin cannot be allowed together with credentials, list the origins")
			}
		}
	}
}

// authPath is the path of a name in an auth, which has two forms.
func (c *checker) authPath(at string, i, j int) string {
	at += ".auth"
	if n := c.given(at); n != nil && n.kind == mappingKind {
		at += ".use"
	}
	at = fmt.Sprintf("%s[%d]", at, i)
	if n := c.given(at); n != nil && n.kind == sequenceKind {
		at = fmt.Sprintf("%s[%d]", at, j)
	}
	return at
}
