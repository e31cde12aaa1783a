package gateway

import (
	"cmp"
	"slices"

	"github.com/sluice-gateway/sluice/internal/upstream"
)

// RouteInfo is one route that runs.
type RouteInfo struct {
	API       string   `json:"api,omitempty"`
	Name      string   `json:"name"`
	Stage     string   `json:"stage,omitempty"`
	Hosts     []string `json:"hosts,omitempty"`     // none: every host
	Listeners []string `json:"listeners,omitempty"` // none: every listener
	Methods   []string `json:"methods,omitempty"`   // none: every method
	Path      string   `json:"path"`                // with the base path
	Filters   []string `json:"filters,omitempty"`   // in the order they run
	Upstreams []Share  `json:"upstreams"`
	Timeout   string   `json:"timeout,omitempty"`       // request head to response head; absent: none
	MaxBody   int64    `json:"max_body_size,omitempty"` // bytes; absent: no limit
	Config    string   `json:"config"`                  // where the configuration has it
}

// Share is an upstream of a route.
type Share struct {
	Name   string `json:"name"`
	Weight int    `json:"weight"`
}

// Routes lists the routes that run, in the order of the configuration.
func (g *Gateway) Routes() []RouteInfo {
	s := g.pin(0)
	if s == nil {
		return nil
	}
	defer s.leave(0)
	all := make([]RouteInfo, 0, len(s.routes))
	for _, r := range s.routes {
		i := RouteInfo{
			API: r.info.API, Name: r.info.Name, Stage: r.info.Stage, Hosts: r.hosts, Listeners: r.listeners,
			Methods: r.source.Methods, Path: r.info.Pattern, Filters: r.chain.Names(), MaxBody: r.maxBody, Config: r.at, Upstreams: []Share{},
		}
		if r.timeout > 0 {
			i.Timeout = r.timeout.String()
		}
		for _, w := range r.source.Upstream {
			i.Upstreams = append(i.Upstreams, Share{w.Name, w.Weight})
		}
		all = append(all, i)
	}
	return all
}

// Upstreams tells the state of every upstream that runs, by name.
func (g *Gateway) Upstreams() []upstream.Status {
	s := g.pin(0)
	if s == nil {
		return nil
	}
	defer s.leave(0)
	all := make([]upstream.Status, 0, len(s.upstreams))
	for _, u := range s.upstreams {
		all = append(all, u.Status())
	}
	slices.SortFunc(all, func(a, b upstream.Status) int { return cmp.Compare(a.Name, b.Name) })
	return all
}
