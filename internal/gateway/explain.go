package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/router"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// Question is a request that nobody sends: what would become of it?
type Question struct {
	Method   string      `json:"method"`             // default GET
	URL      string      `json:"url"`                // absolute, or a path
	Headers  [][2]string `json:"headers,omitempty"`  // name and value
	Body     string      `json:"body,omitempty"`     // as it would be sent
	Listener string      `json:"listener,omitempty"` // name of the listener; default the first of the URL's scheme
	Client   string      `json:"client,omitempty"`   // address of the peer, default 127.0.0.1
}

// Explanation says what would become of a request, phase by phase.
type Explanation struct {
	Request  string            `json:"request"` // method and canonical path
	Client   string            `json:"client"`
	Trusted  bool              `json:"trusted_proxy"`
	Caller   *Caller           `json:"caller,omitempty"` // absent: nobody known
	API      string            `json:"api,omitempty"`
	Route    string            `json:"route,omitempty"`
	Pattern  string            `json:"pattern,omitempty"`
	At       string            `json:"config,omitempty"` // where the config has the route
	Params   map[string]string `json:"params,omitempty"`
	Phases   []policy.Finding  `json:"phases"`
	Status   int               `json:"status,omitempty"` // of the refusal; absent when the request goes on
	Code     string            `json:"code,omitempty"`
	Detail   string            `json:"detail,omitempty"`
	Unknown  bool              `json:"unknown,omitempty"` // it depends on somebody whom explain does not ask; the last phase says on whom
	Upstream []Destination     `json:"upstream,omitempty"`
	Forward  string            `json:"forward,omitempty"` // method and path as the upstream would get them
	Timeout  string            `json:"timeout,omitempty"`
	MaxBody  int64             `json:"max_body_size,omitempty"`
}

// Caller is who the request would come from.
type Caller struct {
	ID            string `json:"id"`
	Authenticator string `json:"authenticator,omitempty"` // what vouches for it; absent: the configuration
	Plan          string `json:"plan,omitempty"`          // with default_plan applied
	Key           string `json:"key,omitempty"`           // name of the key
}

// Destination is an upstream that the request could go to.
type Destination struct {
	Name    string   `json:"name"`
	Share   string   `json:"share"`
	Targets []string `json:"targets,omitempty"`
}

// Explain answers q from the current snapshot. It opens no state, charges
// nothing and calls nobody. The error is about the question.
func (g *Gateway) Explain(q Question) (*Explanation, error) {
	s := g.pin(0)
	if s == nil {
		return nil, errors.New("the gateway has no configuration yet")
	}
	defer s.leave(0)
	return s.explain(q)
}

// Explain answers q from a plan.
func (p *Plan) Explain(q Question) (*Explanation, error) { return p.next.explain(q) }

func (s *Snapshot) explain(q Question) (*Explanation, error) {
	x, err := q.exchange(s)
	if err != nil {
		return nil, err
	}
	s.trusted.identify(x)
	e := &Explanation{Client: x.Client.String(), Trusted: x.Trusted, Phases: []policy.Finding{}}
	note := func(phase, verdict, reason string) {
		e.Phases = append(e.Phases, policy.Finding{Phase: phase, Filter: phase, Mode: "enforce", Verdict: verdict, Reason: reason})
	}
	var space [8]router.Param
	params := router.Params(space[:0])
	e.Request = x.Request.Method + " " + string(x.Request.RawPath)
	r, err := s.find(x, &params)
	if err != nil {
		refused := exchange.AsError(err)
		note("router", telemetry.Refused.String(), refused.Detail)
		e.refused(refused)
		return e, nil
	}
	e.Request = x.Request.Method + " " + string(x.Request.Path)
	note("router", "match", fmt.Sprintf("%s matches %s", x.Request.Path, r.info.Pattern))
	e.API, e.Route, e.Pattern, e.At = r.info.API, r.info.Name, r.info.Pattern, r.at
	r.params(x, params)
	for _, p := range x.Params {
		if e.Params == nil {
			e.Params = map[string]string{}
		}
		e.Params[p.Name] = string(p.Value)
	}
	e.MaxBody = r.maxBody
	if r.timeout > 0 {
		e.Timeout = r.timeout.String()
	}
	if r.maxBody > 0 && x.Request.ContentLength > r.maxBody {
		refused := tooLarge(r.maxBody)
		note("declared body size", telemetry.Refused.String(), fmt.Sprintf("%d bytes are more than %d", x.Request.ContentLength, r.maxBody))
		e.refused(refused)
		return e, nil
	}
	found := r.chain.Explain(x)
	e.caller(x.Caller, s.file.DefaultPlan)
	e.Phases = append(e.Phases, found...)
	if n := len(found); n > 0 {
		switch last := found[n-1]; {
		case last.Refusal != nil:
			e.refused(last.Refusal)
			return e, nil
		case last.Unknown:
			e.Unknown = true
			return e, nil
		}
	}
	if err := r.forward(x, params); err != nil {
		e.refused(exchange.AsError(err))
		return e, nil
	}
	if len(r.targets.upstreams) > 0 {
		e.destination(r, x)
	}
	return e, nil
}

func (e *Explanation) caller(c *exchange.Caller, defaultPlan string) {
	if c != nil {
		e.Caller = &Caller{ID: c.ID, Authenticator: c.Authenticator, Plan: cmp.Or(c.Plan, defaultPlan), Key: c.Key}
	}
}

func (e *Explanation) refused(err *exchange.Error) {
	e.Status, e.Code, e.Detail = err.HTTPStatus(), err.Code.String(), err.Detail
}

func (e *Explanation) destination(r *route, x *exchange.Exchange) {
	last := 0
	for i, u := range r.targets.upstreams {
		state := u.Status()
		d := Destination{Name: state.Name, Share: share(r.targets.ends[i]-last, r.targets.ends[len(r.targets.ends)-1])}
		last = r.targets.ends[i]
		for _, t := range state.Targets {
			d.Targets = append(d.Targets, t.URL)
		}
		e.Upstream = append(e.Upstream, d)
	}
	e.Forward = x.Request.Method + " " + string(x.Request.ForwardPath)
	if x.Request.HasQuery {
		e.Forward += "?" + string(x.Request.Query)
	}
}

func share(part, whole int) string {
	return fmt.Sprintf("%.4g%%", 100*float64(part)/float64(whole))
}

// listener is the one that the request comes in by: the one that is named, or else
// the first of the URL's scheme that does not just redirect.
func (q Question) listener(all []config.Listener, tls bool) (string, error) {
	if q.Listener == "" {
		for i := range all {
			if (all[i].TLS != nil) == tls && all[i].Redirect == "" {
				return label(&all[i]), nil
			}
		}
		if len(all) > 0 {
			return label(&all[0]), nil
		}
		return "", nil
	}
	names := make([]string, len(all))
	for i := range all {
		names[i] = label(&all[i])
		if names[i] == q.Listener {
			if all[i].Redirect != "" {
				return "", fmt.Errorf("the listener %s answers everything with a redirect to https", q.Listener)
			}
			return q.Listener, nil
		}
	}
	return "", fmt.Errorf("there is no listener %q; there are %s", q.Listener, strings.Join(names, ", "))
}

// label is what connections of a listener are called.
func label(l *config.Listener) string {
	if l.Name != "" {
		return l.Name
	}
	return l.Address
}

// exchange builds the exchange that the request would be.
func (q Question) exchange(s *Snapshot) (*exchange.Exchange, error) {
	u, err := url.Parse(q.URL)
	if err != nil {
		return nil, fmt.Errorf("the URL cannot be read: %w", err)
	}
	if u.Opaque != "" || u.Path != "" && !strings.HasPrefix(u.Path, "/") {
		return nil, fmt.Errorf("the URL %q must be absolute, or a path that begins with /", q.URL)
	}
	peer := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if q.Client != "" {
		if peer, err = netip.ParseAddr(q.Client); err != nil {
			return nil, fmt.Errorf("the client %q is not an IP address", q.Client)
		}
	}
	listener, err := q.listener(s.file.Listeners, u.Scheme == "https")
	if err != nil {
		return nil, err
	}
	x := &exchange.Exchange{
		Start: time.Now(),
		Conn:  &exchange.Conn{Peer: netip.AddrPortFrom(peer, 0), Listener: listener},
	}
	r := &x.Request
	r.Method, r.Proto, r.TLS = q.Method, exchange.HTTP11, u.Scheme == "https"
	if r.Method == "" {
		r.Method = "GET"
	}
	r.Authority = []byte(u.Host)
	r.Host = []byte(strings.ToLower(u.Hostname()))
	path, query, has := strings.Cut(strings.TrimPrefix(q.URL, u.Scheme+"://"+u.Host), "?")
	if u.Host == "" {
		path, query, has = strings.Cut(q.URL, "?")
	}
	path, _, _ = strings.Cut(path, "#")
	query, _, _ = strings.Cut(query, "#")
	if path == "" {
		path = "/"
	}
	r.RawPath, r.Query, r.HasQuery = []byte(path), []byte(query), has
	for _, h := range q.Headers {
		if strings.EqualFold(h[0], "host") {
			r.Authority = []byte(h[1])
			host, _, _ := strings.Cut(strings.ToLower(h[1]), ":")
			r.Host = []byte(host)
			continue
		}
		r.Header.Add([]byte(h[0]), []byte(h[1]))
	}
	if q.Body != "" {
		r.Body, r.ContentLength = exchange.NewBytes([]byte(q.Body)), int64(len(q.Body))
	}
	return x, nil
}
