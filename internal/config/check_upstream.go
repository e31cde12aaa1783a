package config

import "fmt"

func (c *checker) upstreams() {
	for _, name := range c.upstreamNames {
		u := c.f.Upstreams[name]
		at := path{}.key("upstreams").key(name).String()
		if n := c.given(at); u != nil && n != nil && n.kind == mappingKind {
			c.upstream(at, u)
		}
	}
}

func (c *checker) upstream(at string, u *Upstream) {
	var kinds []string
	for _, kind := range [...]string{"targets", "lambda", "respond"} {
		if c.given(at+"."+kind) != nil {
			kinds = append(kinds, kind)
		}
	}
	switch {
	case len(kinds) == 0:
		c.report(at, "config.missing", "goes nowhere, add targets: [http://127.0.0.1:9001], lambda: or respond:")
	case len(kinds) > 1:
		c.report(at+"."+kinds[1], "config.conflict", "an upstream has either %s or %s: make two upstreams of it", kinds[0], kinds[1])
	}
	c.targets(at+".targets", u)
	c.tlsFiles(at+".tls", u.TLS.CA, u.TLS.Cert, u.TLS.Key)
	if u.Respond != nil {
		c.respond(at+".respond", u.Respond)
	}
}

func (c *checker) targets(at string, u *Upstream) {
	n := c.given(at)
	if n == nil {
		return
	}
	if n.kind == sequenceKind && len(n.items) == 0 {
		c.report(at, "config.missing", "is empty, add at least one target, such as http://127.0.0.1:9001")
		return
	}
	without := 0
	first := map[string]string{}
	for i, t := range u.Targets {
		here := fmt.Sprintf("%s[%d]", at, i)
		if item := n.item(i); item != nil && item.kind == mappingKind {
			here += ".url"
			if zero(item.get("weight")) {
				without++
			}
		}
		if t.URL == "" {
			continue
		}
		if before, taken := first[t.URL]; taken {
			c.report(here, "config.duplicate", "%s is a target already, at %s: give it a weight instead", c.subject(here, t.URL), c.where(before))
		} else {
			first[t.URL] = here
		}
	}
	if without > 0 && without == len(u.Targets) {
		c.report(at, "config.out_of_range", "gives no target any weight, give one of them at least 1")
	}
}

func (c *checker) respond(at string, r *Respond) {
	if (r.Status == 204 || r.Status == 304 || r.Status == 205) && r.Body != "" {
		c.report(at+".body", "config.conflict", "a response with status %d has no body, remove one of them", r.Status)
	}
}
