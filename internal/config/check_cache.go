package config

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// The checks of the cache. The one that matters most: what is kept for everybody must
// not have been made for one. A rule that names the caller in a request or a response
// needs the caller in the key.

// objectShare is how much of the memory one object may take: a part of so many.
const objectShare = 8

// cache checks the stores.
func (c *checker) cache() {
	k := &c.f.Cache
	if most := k.Memory.Bytes / objectShare; c.given("cache.max_object") != nil && k.Memory.Bytes > 0 && k.MaxObject.Bytes > most {
		c.report("cache.max_object", "config.out_of_range", "%s is more than an eighth of cache.memory, so that a few objects would push out all others: write %dKiB at most, or raise cache.memory",
			c.subject("cache.max_object", k.MaxObject.Text), most>>10)
	}
	if k.Shared && c.f.State.Redis == nil && c.given("state.redis") == nil {
		c.report("cache.shared", "config.missing", "keeps responses in state.redis, which is not there: add it, or remove shared")
	}
	if k.CDN == nil {
		return
	}
	switch strings.ToLower(k.CDN.Header) {
	case "cache-control", "expires", "age", "vary", "cache-status", "sluice-cache-control", "set-cookie", "content-length", "transfer-encoding", "connection",
		"keep-alive", "proxy-connection", "te", "trailer", "upgrade", "date", "etag", "last-modified", "content-type", "content-encoding", "content-range",
		"location", "www-authenticate":
		c.report("cache.cdn.header", "config.conflict", "%s means something else already, name a field that only the caches in front read, such as CDN-Cache-Control", c.subject("cache.cdn.header", k.CDN.Header))
	}
	for i, hook := range k.CDN.PurgeHooks {
		here := fmt.Sprintf("cache.cdn.purge_hooks[%d]", i)
		switch {
		case hook == "":
		case urlProblem("credential_url", hook) != "":
			c.report(here, "config.bad_url", "%s would be told in plain text, which others can read and forge: use https:// or a loopback address", c.subject(here, hook))
		case slices.Contains(k.CDN.PurgeHooks[:i], hook):
			c.warn(here, "config.duplicate", "%s is told already, remove it", c.subject(here, hook))
		}
	}
}

// routeCache checks the cache of one complete route. What a route has from the defaults
// of its api may be of no use to it: other routes have it too.
func (c *checker) routeCache(at string, r *Route) {
	at += ".cache"
	n := c.given(at)
	if r.Cache == nil || n == nil || n.kind != mappingKind {
		return
	}
	k := r.Cache
	kept := func(method string) bool { return method == "GET" || method == "HEAD" || method == "QUERY" }
	if inherited := c.f.doc.find(parsePath(at)).path; len(r.Methods) > 0 && !slices.ContainsFunc(r.Methods, kept) && !(len(inherited) > 2 && inherited[2].key == "defaults") {
		c.report(at, "config.conflict", "keeps answers to GET, HEAD and QUERY only, and the route has none of these methods: remove cache")
	}
	if k.MaxTTL.Duration > 0 && k.TTL.Duration > k.MaxTTL.Duration {
		c.report(at+".max_ttl", "config.conflict", "%s is less than ttl, %s: raise it, or lower ttl", c.subject(at+".max_ttl", k.MaxTTL.Text), k.TTL.Text)
	}
	if percents := k.Heuristic.Of * 100; math.Abs(percents-math.Round(percents)) > 1e-9 {
		c.report(at+".heuristic", "config.out_of_range", "%s is no whole percentage, write one such as 10%%", c.subject(at+".heuristic", k.Heuristic.Text))
	}
	c.cacheKey(at+".key", r)
	if k.Key.Client == nil || *k.Key.Client {
		return
	}
	if place, name := namesCaller(r); place != "" {
		here, why := at+".key.client", "the route is open to all"
		if !r.Auth.Open() {
			why = "client is false"
		}
		if c.given(here) == nil {
			here = at
		}
		c.report(here, "config.conflict", "one client's answer would be given to others: %s names %s, and %s. Write key: {client: true}, or take it out of the rule", place, quote(name), why)
	}
}

// cacheKey checks what is chosen for the key: each once, and no credentials, which must
// neither be kept nor make a key of their own.
func (c *checker) cacheKey(at string, r *Route) {
	key := &r.Cache.Key
	for i, name := range key.Headers {
		here := fmt.Sprintf("%s.headers[%d]", at, i)
		same := func(other string) bool { return strings.EqualFold(other, name) }
		switch reader := c.reader(r, "header", name); {
		case name == "":
		case strings.EqualFold(name, "Authorization") || strings.EqualFold(name, "Proxy-Authorization"):
			c.report(here, "config.conflict", "%s holds credentials, which are not kept: remove it. With client: true every client has its own answers", c.subject(here, name))
		case reader != "":
			c.report(here, "config.conflict", "%s holds the credentials that %s reads, which are not kept: remove it. With client: true every client has its own answers", c.subject(here, name), quote(reader))
		case slices.ContainsFunc(key.Headers[:i], same):
			c.warn(here, "config.duplicate", "%s is in the key already, remove it", c.subject(here, name))
		}
	}
	if key.Query == nil {
		return
	}
	for i, name := range *key.Query {
		here := fmt.Sprintf("%s.query[%d]", at, i)
		if reader := c.reader(r, "query", name); reader != "" {
			c.report(here, "config.conflict", "%s holds the credentials that %s reads, which are not kept: remove it. With client: true every client has its own answers", c.subject(here, name), quote(reader))
		} else if name == "" || strings.ContainsAny(name, "=&%+ #") {
			c.report(here, "config.bad_value", "%s is the name of no query parameter: write it decoded, without its value", c.subject(here, name))
		} else if slices.Contains((*key.Query)[:i], name) {
			c.warn(here, "config.duplicate", "%s is in the key already, remove it", c.subject(here, name))
		}
	}
}

// reader is the authenticator of a route that reads credentials from a header or a
// parameter; empty: none does. Cookies that an authenticator takes off the request are
// gone before there is a key; those that it sends on are in Cookie.
func (c *checker) reader(r *Route, kind, name string) string {
	if r.Auth == nil {
		return ""
	}
	for _, all := range r.Auth.Use {
		for _, reader := range all {
			a := c.f.Authenticators[reader]
			for _, source := range a.sources() {
				from, field, _ := strings.Cut(source, ":")
				switch {
				case from == kind && (field == name || kind == "header" && strings.EqualFold(field, name)),
					from == "cookie" && kind == "header" && strings.EqualFold(name, "Cookie") && a.forwards():
					return reader
				}
			}
		}
	}
	return ""
}

// forwards reports whether the credential goes on to the upstream.
func (a *Authenticator) forwards() bool {
	if a.Forward != nil {
		return *a.Forward
	}
	return a.APIKey == nil && a.Basic == nil
}

// namesCaller finds the first rule of a route that puts something of the caller into a
// request or a response, and what.
func namesCaller(r *Route) (place, name string) {
	if q := r.Request; q != nil {
		// Without a dot it is a path parameter there, whatever its name.
		if name := callerIn(q.Path); strings.Contains(name, ".") {
			return "request.path", name
		}
		if place, name := headersNameCaller(q.Headers); place != "" {
			return "request.headers." + place, name
		}
		if q.Query != nil {
			if place, name := textsNameCaller("set", q.Query.Set); place != "" {
				return "request.query." + place, name
			}
			if place, name := textsNameCaller("add", q.Query.Add); place != "" {
				return "request.query." + place, name
			}
		}
		if place, name := bodyNamesCaller(q.Body); place != "" {
			return "request.body." + place, name
		}
	}
	if p := r.Response; p != nil {
		if place, name := headersNameCaller(p.Headers); place != "" {
			return "response.headers." + place, name
		}
		if place, name := bodyNamesCaller(p.Body); place != "" {
			return "response.body." + place, name
		}
	}
	return "", ""
}

func headersNameCaller(h *HeaderEdit) (place, name string) {
	if h == nil {
		return "", ""
	}
	if place, name := textsNameCaller("set", h.Set); place != "" {
		return place, name
	}
	return textsNameCaller("add", h.Add)
}

func textsNameCaller(at string, values map[string]string) (place, name string) {
	for _, key := range keysOf(values) {
		if name := callerIn(values[key]); name != "" {
			return at + "." + key, name
		}
	}
	return "", ""
}

func bodyNamesCaller(b *BodyMap) (place, name string) {
	if b == nil {
		return "", ""
	}
	for i := range b.Map {
		if name := callerInValue(b.Map[i].Value); name != "" {
			return fmt.Sprintf("map[%d].value", i), name
		}
	}
	for _, name := range [...]string{"$client", "$claims"} {
		if strings.Contains(b.JQ, name) {
			return "jq", name
		}
	}
	return "", ""
}

// callerInValue looks through a value of any shape.
func callerInValue(v any) string {
	switch v := v.(type) {
	case string:
		return callerIn(v)
	case []any:
		for _, item := range v {
			if name := callerInValue(item); name != "" {
				return name
			}
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if name := callerInValue(v[key]); name != "" {
				return name
			}
		}
	}
	return ""
}

// callerIn is the {name} of a text that is about the caller; empty: there is none.
func callerIn(text string) string {
	for _, name := range braces(text) {
		root := strings.TrimSpace(name)
		if end := strings.IndexFunc(root, func(r rune) bool { return (r < 'a' || r > 'z') && r != '_' }); end >= 0 {
			root = root[:end]
		}
		if root == "client" || root == "claims" {
			return "{" + name + "}"
		}
	}
	return ""
}
