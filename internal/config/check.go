package config

import (
	"fmt"
	"strings"
)

// The checks here need more than one value; what one value tells is checked as it
// is decoded. They take the paths of the joined document, and report nothing at a
// place that the decoder complained of already.

func (l *loader) check(f *File) {
	c := &checker{l: l, f: f, upstreamNames: keysOf(f.Upstreams)}
	c.listeners()
	c.admin()
	c.upstreams()
	c.clientTLS("state.redis.tls", f.State.Redis)
	c.identity()
	c.cache()
	c.apis()
	for i := range f.Routes {
		c.route(fmt.Sprintf("routes[%d]", i), &f.Routes[i], nil)
	}
	c.routeNames(f.Routes, "routes")
	if len(f.Routes) == 0 && !c.anyRoute() {
		c.warn("", "config.no_routes", "has no routes: every request will be answered with 404")
	}
}

// checker carries what the checks share.
type checker struct {
	l             *loader
	f             *File
	upstreamNames []string // sorted
}

// given finds the node of a path, or nil when the document has none there.
func (c *checker) given(at string) *node {
	if p := c.f.doc.find(parsePath(at)); p.exact {
		return p.node
	}
	return nil
}

// report adds a problem at a path. Where the document has no such place it is
// shown at the nearest block around it.
func (c *checker) report(at, code, format string, args ...any) {
	p := c.f.doc.find(parsePath(at))
	if p.node.kind == brokenKind {
		return
	}
	c.l.report(p.src, p.node, p.path, code, fmt.Sprintf(format, args...))
}

func (c *checker) warn(at, code, format string, args ...any) {
	p := c.f.doc.find(parsePath(at))
	c.l.add(Diagnostic{
		File: p.src.name, order: p.src.order, Line: p.node.line, Col: p.node.col,
		Path: p.path.String(), Message: fmt.Sprintf(format, args...), Code: code, Warning: true,
	})
}

// subject is how a message names the value at a path.
func (c *checker) subject(at, value string) string {
	n := c.given(at)
	switch {
	case n == nil || n.kind != scalarKind:
	case n.text == value:
		return n.subject()
	case n.hidden || n.expanded:
		return "in the value"
	}
	return quote(value)
}

// where is the place of a path, for messages about a second one.
func (c *checker) where(at string) string {
	p := c.f.doc.find(parsePath(at))
	return fmt.Sprintf("%s:%d:%d", p.src.name, p.node.line, p.node.col)
}

// known complains of a name that is not among the candidates.
func (c *checker) known(at, name string, candidates []string, what, many string) {
	if name == "" || len(c.l.problems) > maxProblems {
		return
	}
	for _, k := range candidates {
		if k == name {
			return
		}
	}
	c.report(at, "config.unknown_reference", "there is no %s %s, %s", what, c.subject(at, name), suggest(name, candidates, many))
}

// distinct complains of names that occur twice in a list.
func (c *checker) distinct(n int, name func(int) string, at func(int) string, what string) {
	first := make(map[string]int, n)
	for i := range n {
		key := name(i)
		if key == "" {
			continue
		}
		if j, taken := first[key]; taken {
			c.report(at(i), "config.duplicate", "there is %s %s already, at %s: rename one of them", what, c.subject(at(i), key), c.where(at(j)))
			continue
		}
		first[key] = i
	}
}

func (c *checker) anyRoute() bool {
	for i := range c.f.APIs {
		if len(c.f.APIs[i].Routes) > 0 {
			return true
		}
	}
	return false
}

func (c *checker) apis() {
	f := c.f
	c.distinct(len(f.APIs), func(i int) string { return f.APIs[i].Name },
		func(i int) string { return fmt.Sprintf("apis[%d].name", i) }, "an api")
	var names []string
	redirects := map[string]bool{}
	for _, ln := range f.Listeners {
		names = append(names, ln.Name)
		redirects[ln.Name] = ln.Redirect != ""
	}
	for i := range f.APIs {
		api, at := &f.APIs[i], fmt.Sprintf("apis[%d]", i)
		for j, name := range api.Listeners {
			here := fmt.Sprintf("%s.listeners[%d]", at, j)
			c.known(here, name, names, "listener", "listeners")
			if redirects[name] {
				c.report(here, "config.conflict", "the listener %s only redirects, so nothing of this api is served there: name another", quote(name))
			}
		}
		c.distinct(len(api.Hosts), func(j int) string { return api.Hosts[j] },
			func(j int) string { return fmt.Sprintf("%s.hosts[%d]", at, j) }, "the host")
		if len(api.Routes) == 0 {
			c.limitsOf(at+".defaults", &api.Defaults)
		}
		for r := range api.Routes {
			c.route(fmt.Sprintf("%s.routes[%d]", at, r), &api.Routes[r], api)
		}
		c.routeNames(api.Routes, at+".routes")
	}
}

func (c *checker) routeNames(routes []Route, at string) {
	c.distinct(len(routes), func(i int) string { return routes[i].Name },
		func(i int) string { return fmt.Sprintf("%s[%d].name", at, i) }, "a route")
}

// route checks one complete route.
func (c *checker) route(at string, r *Route, api *API) {
	if n := c.given(at); n == nil || n.kind != mappingKind {
		return
	}
	if r.Path == "" && c.given(at+".path") == nil {
		c.report(at, "config.missing", "has no path, add path: /users/{id}, or path: /{rest...} for every path")
	}
	c.routeUpstream(at, r)
	c.routePolicies(at, r)
	c.routeAccess(at, r, api)
	c.routeCache(at, r)
	if r.Request != nil && r.Request.Path != "" && r.Path != "" {
		c.parameters(at+".request.path", r.Request.Path, r.Path)
	}
}

func (c *checker) routeUpstream(at string, r *Route) {
	at += ".upstream"
	n := c.given(at)
	if n == nil {
		c.report(strings.TrimSuffix(at, ".upstream"), "config.missing", "has no upstream, add upstream: and the name of one of %s", listing(c.upstreamNames, "upstreams"))
		return
	}
	if n.kind == sequenceKind && len(n.items) == 0 {
		c.report(at, "config.missing", "names no upstream, add one")
		return
	}
	without := 0
	seen := make(map[string]bool, len(r.Upstream))
	for i, w := range r.Upstream {
		here := fmt.Sprintf("%s[%d]", at, i)
		if item := n.item(i); item != nil && item.kind == mappingKind {
			here += ".name"
			if zero(item.get("weight")) {
				without++
			}
		}
		if c.f.Upstreams[w.Name] == nil {
			c.known(here, w.Name, c.upstreamNames, "upstream", "upstreams")
		}
		if w.Name != "" && seen[w.Name] {
			c.report(here, "config.duplicate", "%s has a share already, give it one weight", c.subject(here, w.Name))
		}
		seen[w.Name] = true
	}
	if without > 0 && without == len(r.Upstream) {
		c.report(at, "config.out_of_range", "gives no upstream any weight, give one of them at least 1")
	}
}

// zero reports whether a weight is given as 0.
func zero(n *node) bool { return n != nil && n.kind == scalarKind && n.text == "0" }

// parameters checks that the {name} of a rewritten path are parameters of the route's path.
func (c *checker) parameters(at, rewritten, pattern string) {
	var names []string
	for _, name := range braces(pattern) {
		names = append(names, strings.TrimSuffix(name, "..."))
	}
	for _, name := range braces(rewritten) {
		name = strings.TrimPrefix(name, "params.")
		if !strings.Contains(name, ".") {
			c.known(at, name, names, "path parameter", "parameters of the path")
		}
	}
}

// braces are the texts between { and } of a path.
func braces(path string) []string {
	var out []string
	for {
		_, rest, found := strings.Cut(path, "{")
		if !found {
			return out
		}
		name, after, found := strings.Cut(rest, "}")
		if !found {
			return out
		}
		out, path = append(out, name), after
	}
}

// listing names a few candidates, for messages.
func listing(names []string, what string) string {
	switch {
	case len(names) == 0:
		return "the " + what + " that you define"
	case len(names) > 8:
		return strings.Join(names[:8], ", ") + " and others"
	}
	return strings.Join(names, ", ")
}
