package config

import (
	"crypto/sha256"
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
		c.permissions(at+".permissions", cl.Permissions, true)
		for j := range cl.Keys {
			c.permissions(fmt.Sprintf("%s.keys[%d].permissions", at, j), cl.Keys[j].Permissions, true)
		}
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
		c.permissions(path{}.key("roles").key(name).String()+".permissions", f.Roles[name].Permissions, true)
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
		at := path{}.key("authenticators").key(name).String()
		c.authenticator(at, name)
		c.authenticatorKind(at, f.Authenticators[name])
	}
	c.tokens()
	c.rateLimits()
}

// keys checks the API keys of all clients. Their values are never shown.
func (c *checker) keys() {
	first := map[[sha256.Size]byte]string{}
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
			here, secret := at+".hash", k.Value.Reveal()
			if k.Hash == "" {
				here = at + ".value"
				if secret != "" && len(secret) < 20 {
					c.report(here, "config.bad_value", "is a key of fewer than 20 characters, make a longer one")
				}
			}
			if k.Hash == "" && secret == "" {
				continue
			}
			if before, taken := first[k.Digest()]; taken {
				c.report(here, "config.duplicate", "is the same key as at %s, give every client its own", c.where(before))
			} else {
				first[k.Digest()] = here
			}
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

// routePolicies checks what a route names, and that nobody forgot who may call it.
func (c *checker) routePolicies(at string, r *Route) {
	c.limitsOf(at, r)
	names := append(keysOf(c.f.Authenticators), "anonymous")
	if r.Auth == nil {
		if len(c.f.Authenticators) > 0 {
			c.report(at, "config.missing", "says nothing about auth although there are authenticators: add auth: [%s], or auth: [] for open to all", keysOf(c.f.Authenticators)[0])
		}
	} else {
		for i, all := range r.Auth.Use {
			c.together(at, i, all)
			for j, name := range all {
				c.known(c.authPath(at, i, j), name, names, "authenticator", "authenticators")
			}
		}
	}
	if r.Authorize != nil && r.Auth.Open() && (r.Auth != nil || len(c.f.Authenticators) == 0) {
		c.report(at+".authorize", "config.conflict", "asks who is calling on a route that is open to all, add auth: or remove authorize")
	}
	if r.Authorize != nil {
		c.permissions(at+".authorize.permissions", r.Authorize.Permissions, false)
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
