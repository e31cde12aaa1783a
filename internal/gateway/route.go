package gateway

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/router"
	"github.com/sluice-gateway/sluice/internal/telemetry"
	"github.com/sluice-gateway/sluice/internal/upstream"
)

// route is one compiled route: all that a request needs once it was matched.
type route struct {
	id        int // its place in Snapshot.routes
	info      exchange.Route
	meter     *telemetry.Route
	chain     *policy.Chain
	targets   split
	timeout   time.Duration // request head to response head; 0: none
	maxBody   int64         // 0: no limit
	strip     int           // length of the base path taken off for the upstream
	rewrite   *pathTemplate // nil: the stripped path
	paths     router.PathOptions
	source    *config.Route
	at        string // where the config has it: apis[0].routes[3]
	hosts     []string
	listeners []string
}

// split divides a route's requests among upstreams by weight.
type split struct {
	upstreams []*upstream.Upstream
	ends      []int // running sums of the weights
}

// do has one of them answer. Where there are none a filter should have.
func (s *split) do(x *exchange.Exchange) error {
	if len(s.upstreams) == 0 {
		return &exchange.Error{Code: exchange.RouteNotFound, Side: exchange.Client, Detail: "There is nothing here."}
	}
	return s.pick().Do(x)
}

// pick chooses an upstream.
func (s *split) pick() *upstream.Upstream {
	if len(s.upstreams) == 1 {
		return s.upstreams[0]
	}
	n := rand.IntN(s.ends[len(s.ends)-1])
	for i, end := range s.ends {
		if n < end {
			return s.upstreams[i]
		}
	}
	return s.upstreams[len(s.upstreams)-1]
}

// forward sets the path that the upstream sees. params are the router's spans of
// the canonical path.
func (r *route) forward(x *exchange.Exchange, params router.Params) error {
	q := &x.Request
	q.ForwardPrefix = q.Path[:r.strip]
	switch {
	case r.rewrite != nil:
		path, err := r.rewrite.expand(x, params)
		if err != nil {
			return badPath(err)
		}
		q.ForwardPath = path
	case r.strip == 0:
		q.ForwardPath = q.Path
	case len(q.Path) == r.strip:
		q.ForwardPath = slash
	default:
		q.ForwardPath = q.Path[r.strip:]
	}
	return nil
}

var slash = []byte("/")

// params puts the decoded parameters into the exchange, for policies.
func (r *route) params(x *exchange.Exchange, params router.Params) {
	for i := range params {
		p := &params[i]
		x.Params = append(x.Params, exchange.Param{Name: p.Name, Value: decode(x, p.Value)})
	}
}

// decode takes the percent-encoding off; a value without any is not copied.
func decode(x *exchange.Exchange, v []byte) []byte {
	if bytes.IndexByte(v, '%') < 0 {
		return v
	}
	return router.Decode(x.Scratch(len(v))[:0], v)
}

// placed is a route with the api it belongs to.
type placed struct {
	api   *config.API // nil: outside any
	route *config.Route
	at    string
	own   bool // the gateway's own: it answers itself
}

// place lists all routes of a file in its order.
func place(f *config.File) []placed {
	var all []placed
	for a := range f.APIs {
		for r := range f.APIs[a].Routes {
			all = append(all, placed{api: &f.APIs[a], route: &f.APIs[a].Routes[r], at: fmt.Sprintf("apis[%d].routes[%d]", a, r)})
		}
	}
	for r := range f.Routes {
		all = append(all, placed{route: &f.Routes[r], at: fmt.Sprintf("routes[%d]", r)})
	}
	return append(all, tokenRoutes(f)...)
}

// pattern is what the router matches, the whole canonical path, and how much of
// it is the base path that the upstream does not get.
func (p placed) pattern() (pattern string, strip int) {
	base := p.base()
	strip = len(base)
	if p.api != nil && p.api.StripBasePath != nil && !*p.api.StripBasePath {
		strip = 0
	}
	if p.route.Path == "/" && base != "" {
		return base, strip
	}
	return base + p.route.Path, strip
}

// base is the base path as canonical paths have it, without a slash at its end.
func (p placed) base() string {
	if p.api == nil {
		return ""
	}
	base := strings.TrimSuffix(p.api.BasePath, "/")
	if canonical, err := router.CanonicalPattern(base); err == nil {
		return canonical
	}
	return base // the router will say what is wrong with it
}

// rules are the route as the router takes it. The root of an api is both its
// base path and its base path with a slash.
func (p placed) rules(id int) []router.Route {
	pattern, _ := p.pattern()
	r := router.Route{ID: id, Pattern: pattern, Methods: p.route.Methods}
	if p.api != nil {
		r.Hosts, r.Listeners = p.api.Hosts, p.api.Listeners
	}
	if p.route.When != nil {
		r.Headers, r.Query = p.route.When.Headers, p.route.When.Query
	}
	if p.route.Path != "/" || pattern == "/" {
		return []router.Route{r}
	}
	withSlash := r
	withSlash.Pattern += "/"
	return []router.Route{r, withSlash}
}
