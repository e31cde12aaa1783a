package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// maxLogged is the largest limit of a sliding log, which remembers every request
// of its window.
const maxLogged = 10_000

// plan checks what a plan names, and that its routes say something.
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
	unnamed := func(name string) bool { return name == "" }
	apis, routes = slices.DeleteFunc(apis, unnamed), slices.DeleteFunc(routes, unnamed)
	for i, name := range p.APIs {
		c.known(fmt.Sprintf("%s.apis[%d]", at, i), name, apis, "api", "apis")
	}
	for _, name := range keysOf(p.Routes) {
		here := append(parsePath(at), path{}.key("routes").key(name)...).String()
		if !slices.Contains(routes, name) {
			c.report(here, "config.unknown_reference", "there is no route %s, %s", quote(name), suggest(name, routes, "routes"))
		}
		if n := c.given(here); p.Routes[name] != nil && n != nil && n.kind == mappingKind && n.get("throttle") == nil {
			c.report(here, "config.missing", "has no throttle, add throttle: {rate: 100/s}, or remove the route")
		}
	}
}

// rateLimits checks the named limits.
func (c *checker) rateLimits() {
	for _, name := range keysOf(c.f.RateLimits) {
		c.rateLimit(path{}.key("rate_limits").key(name).String(), c.f.RateLimits[name])
	}
}

// limitsOf checks the limits that a route, or the defaults of an api, have.
func (c *checker) limitsOf(at string, r *Route) {
	for i, use := range r.RateLimit {
		here := fmt.Sprintf("%s.rate_limit[%d]", at, i)
		if use.Inline != nil {
			c.rateLimit(here, use.Inline)
			continue
		}
		c.known(here, use.Name, keysOf(c.f.RateLimits), "rate limit", "rate limits")
		same := func(u RateLimitUse) bool { return u.Inline == nil && u.Name == use.Name }
		if use.Name != "" && slices.ContainsFunc(r.RateLimit[:i], same) {
			c.warn(here, "config.duplicate", "%s applies already and counts once, remove it", c.subject(here, use.Name))
		}
	}
}

// rateLimit checks the keys of a limit against its algorithm and against what
// else there is.
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
	case r.Algorithm == "sliding_log" && r.Rate != nil && r.Rate.N > maxLogged:
		c.report(at+".rate", "config.out_of_range", "%s is more than the %d requests that a sliding_log can remember, lower it or write algorithm: sliding_window", c.subject(at+".rate", r.Rate.Text), maxLogged)
	}
	if shared := r.Scope == "exact" || r.Scope == "leased"; shared && c.f.State.Redis == nil && c.given("state.redis") == nil {
		c.report(at+".scope", "config.missing", "%s counts in state.redis, which is not there: add it, or write scope: local", c.subject(at+".scope", r.Scope))
	}
	if list := n.get("per"); list != nil && list.kind == sequenceKind && len(list.items) == 0 {
		c.report(at+".per", "config.bad_value", "counts nothing apart, write [global] for one counter")
	}
	for i, part := range r.Per {
		c.counted(fmt.Sprintf("%s.per[%d]", at, i), part, r.Per[:i])
	}
	c.cost(at+".cost", r.Cost.Text)
}

// counted checks what a limit counts apart, behind others that it does.
func (c *checker) counted(at, part string, before []string) {
	header, isHeader := strings.CutPrefix(part, "header:")
	switch {
	case isHeader && tokenProblem(header):
		c.report(at, "config.bad_header", "%s counts by a header that no request can have, try one like header:X-Tenant", c.subject(at, part))
	case strings.EqualFold(part, "header:X-Api-Key") && len(c.f.Clients) > 0:
		c.report(at, "config.conflict", "%s counts all clients as one, because a client's key is taken off the request: write client", c.subject(at, part))
	case part != "" && slices.Contains(before, part):
		c.warn(at, "config.duplicate", "%s is counted apart already, remove it", c.subject(at, part))
	}
}

// cost checks a cost that is a number. Expressions are the business of who
// computes them.
func (c *checker) cost(at, text string) {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil && typeOfText(text) == floatType {
		f, err = math.NaN(), nil // .inf and .nan are numbers of YAML alone
	}
	switch {
	case err != nil && !math.IsInf(f, 0): // an expression
	case math.IsInf(f, 0) || math.IsNaN(f):
		c.report(at, "config.out_of_range", "%s is no finite number, write what one request counts, such as 1", c.subject(at, text))
	case f < 0:
		c.report(at, "config.out_of_range", "%s is negative, the smallest cost is 0", c.subject(at, text))
	}
}
