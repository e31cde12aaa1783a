package config

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"
)

// join adds what the included files hold to the main file.
func (l *loader) join(f *File) {
	at := map[string]string{}
	for i := range f.doc.parts {
		p := &f.doc.parts[i]
		upstreams := p.tree.root.get("upstreams")
		for _, name := range keysOf(p.file.Upstreams) {
			place := fmt.Sprintf("in %s", p.src.name)
			key := upstreams.find(name)
			if key != nil {
				place = fmt.Sprintf("at %s:%d:%d", p.src.name, key.key.line, key.key.col)
			}
			if first, taken := at[name]; taken {
				if key != nil {
					l.report(p.src, key.key, path{}.key("upstreams").key(name), "config.duplicate",
						fmt.Sprintf("there is an upstream %s already, %s: rename one of them", quote(name), first))
				}
				continue
			}
			at[name] = place
			if i > 0 {
				if f.Upstreams == nil {
					f.Upstreams = map[string]*Upstream{}
				}
				f.Upstreams[name] = p.file.Upstreams[name]
			}
		}
		if i > 0 {
			f.APIs = append(f.APIs, p.file.APIs...)
			f.Routes = append(f.Routes, p.file.Routes...)
		}
	}
}

// mergeDefaults completes the routes of every api with its defaults. A key that
// the route gives stays; rate_limit and ip add to those of the defaults.
func (l *loader) mergeDefaults(f *File) {
	plan := l.plan(reflect.TypeFor[Route]())
	i := 0
	for _, p := range f.doc.parts {
		apis := p.tree.root.get("apis")
		for local := range p.apis {
			api := &f.APIs[i]
			i++
			n := apis.item(local)
			defaults, routes := n.get("defaults"), n.get("routes")
			if defaults == nil || defaults.kind != mappingKind {
				continue
			}
			l.refuseOwnKeys(p.src, defaults, path{}.key("apis").index(local).key("defaults"))
			for r := range api.Routes {
				mergeRoute(&api.Routes[r], routes.item(r), &api.Defaults, defaults, plan)
			}
		}
	}
}

// refuseOwnKeys complains of keys in defaults that only a route can have.
func (l *loader) refuseOwnKeys(src *source, defaults *node, p path) {
	for _, key := range []string{"name", "path"} {
		if e := defaults.find(key); e != nil {
			l.report(src, e.key, p.key(key), "config.not_allowed_here",
				fmt.Sprintf("%q cannot be the same for all routes, give it to each route", key))
		}
	}
}

func mergeRoute(route *Route, n *node, defaults *Route, dn *node, plan *structPlan) {
	if n == nil || n.kind != mappingKind {
		return
	}
	own, theirs := reflect.ValueOf(route).Elem(), reflect.ValueOf(defaults).Elem()
	for i := range plan.fields {
		f := &plan.fields[i]
		if f.given(dn) == nil || f.key == "name" || f.key == "path" {
			continue
		}
		mine := f.given(n)
		switch {
		case mine == nil:
			own.Field(f.index).Set(theirs.Field(f.index))
		case f.key == "rate_limit":
			route.RateLimit = slices.Concat(defaults.RateLimit, route.RateLimit)
		case f.key == "ip" && route.IP != nil && defaults.IP != nil:
			joined := &IPRules{
				Allow: slices.Concat(defaults.IP.Allow, route.IP.Allow),
				Deny:  slices.Concat(defaults.IP.Deny, route.IP.Deny),
				Mode:  route.IP.Mode,
			}
			if mine.value.get("mode") == nil {
				joined.Mode = defaults.IP.Mode
			}
			route.IP = joined
		}
	}
}

// fill gives values to what has none and whose default is not a constant.
func fill(f *File) {
	if len(f.Listeners) == 0 {
		f.Listeners = []Listener{{Address: ":8080"}}
	}
	for i := range f.Listeners {
		ln := &f.Listeners[i]
		if ln.Name == "" {
			ln.Name = ln.Address
		}
		if ln.TLS != nil && ln.TLS.ClientAuth == "" {
			ln.TLS.ClientAuth = "none"
			if ln.TLS.ClientCA != "" {
				ln.TLS.ClientAuth = "required"
			}
		}
	}
	credentialFields(f)
	f.Cache.fill()
	scope := "local"
	if f.State.Redis != nil {
		scope = "leased"
	}
	for _, limit := range f.RateLimits {
		limit.fill(scope)
	}
	for _, plan := range f.Plans {
		plan.Throttle.fill()
		for _, r := range plan.Routes {
			if r != nil {
				r.Throttle.fill()
			}
		}
	}
	for i := range f.APIs {
		api := &f.APIs[i]
		if api.StripBasePath == nil {
			strip := true
			api.StripBasePath = &strip
		}
		for r := range api.Routes {
			api.Routes[r].fill(scope)
		}
	}
	for i := range f.Routes {
		f.Routes[i].fill(scope)
	}
}

func (r *Route) fill(scope string) {
	for _, use := range r.RateLimit {
		use.Inline.fill(scope)
	}
	if r.Cache != nil {
		// The block may be shared by routes with different auth, so it is copied.
		own := *r.Cache
		own.fill(r.Auth)
		r.Cache = &own
	}
}

func (c *RouteCache) fill(a *Auth) {
	if c.Key.Stated = c.Key.Client != nil; !c.Key.Stated {
		client := !a.Open()
		c.Key.Client = &client
	}
	for _, d := range [...]*Duration{&c.TTL, &c.MaxTTL, &c.StaleWhileRevalidate, &c.StaleIfError} {
		if over := d.Duration % time.Second; over > 0 && d.Duration < math.MaxInt64-time.Second {
			d.Duration += time.Second - over
		}
	}
}

// defaultObject is the largest response that is kept when nothing is said about it.
const defaultObject = 1 << 20

func (c *Cache) fill() {
	if c.MaxObject.Text == "" {
		c.MaxObject = Size{Bytes: defaultObject, Text: "1MiB"}
		if most := c.Memory.Bytes / objectShare; most > 0 && most < defaultObject {
			c.MaxObject = Size{Bytes: most}
		}
	}
}

func (r *RateLimit) fill(scope string) {
	if r == nil {
		return
	}
	if r.Scope == "" {
		r.Scope = scope
	}
	if bucket := strings.HasSuffix(r.Algorithm, "_bucket"); bucket && r.Burst == nil && r.Rate != nil {
		r.Burst = defaultBurst(*r.Rate)
	}
}

func (t *Throttle) fill() {
	if t != nil && t.Burst == nil {
		t.Burst = defaultBurst(t.Rate)
	}
}

// defaultBurst is what a rate gives in one second, rounded up, at least 1.
func defaultBurst(r Rate) *int64 {
	burst := int64(1)
	if r.Per > 0 {
		burst = max(burst, int64(math.Ceil(float64(r.N)/r.Per.Seconds())))
	}
	if r.Per == time.Second {
		burst = max(1, r.N)
	}
	return &burst
}
