package admin

import (
	_ "embed"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/pprof"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/gateway"
	"github.com/sluice-gateway/sluice/internal/telemetry"
	"github.com/sluice-gateway/sluice/internal/upstream"
)

//go:embed openapi.json
var openapi []byte

// endpoint is one method of one path.
type endpoint struct {
	method string
	path   string
	open   bool     // without the guard
	params []string // of the query; any other is refused
	types  []string // content types of the body; none: there is no body
	bare   bool     // the body may be left out, and its content type with it
	serve  func(http.ResponseWriter, *http.Request) *problem
}

var (
	jsonTypes     = []string{"application/json"}
	documentTypes = []string{"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "application/json"}
	patchTypes    = append(slices.Clip(documentTypes), "application/merge-patch+json")
)

// pprofPath is the one endpoint that stands for all paths below it.
const pprofPath = "/debug/pprof/"

// table lists what there is, by path. HEAD goes wherever GET does.
func (s *Server) table() map[string][]endpoint {
	list := []endpoint{
		{method: "GET", path: "/healthz", open: true, serve: s.health},
		{method: "GET", path: "/readyz", open: true, serve: s.ready},
		{method: "GET", path: "/metrics", serve: s.metrics},
		{method: "GET", path: "/v1/openapi.json", serve: s.openapi},
		{method: "GET", path: "/v1/routes", serve: s.routes},
		{method: "GET", path: "/v1/upstreams", serve: s.upstreams},
		{method: "GET", path: "/v1/config", serve: s.getConfig},
		{method: "PUT", path: "/v1/config", params: []string{"dry_run", "persist"}, types: documentTypes, serve: s.putConfig},
		{method: "GET", path: "/v1/usage", params: []string{"client", "period"}, serve: s.usage},
		{method: "GET", path: "/v1/hot", params: []string{"what"}, serve: s.hot},
		{method: "GET", path: "/v1/clients", serve: s.getClients},
		{method: "POST", path: "/v1/clients", types: documentTypes, serve: s.postClient},
		{method: "GET", path: "/v1/clients/{id}", serve: s.getClient},
		{method: "PATCH", path: "/v1/clients/{id}", types: patchTypes, serve: s.patchClient},
		{method: "DELETE", path: "/v1/clients/{id}", serve: s.deleteClient},
		{method: "GET", path: "/v1/keys", params: []string{"client", "revoked"}, serve: s.getKeys},
		{method: "POST", path: "/v1/keys", types: documentTypes, serve: s.postKey},
		{method: "GET", path: "/v1/keys/{id}", serve: s.getKey},
		{method: "PATCH", path: "/v1/keys/{id}", types: patchTypes, serve: s.patchKey},
		{method: "DELETE", path: "/v1/keys/{id}", serve: s.deleteKey},
		{method: "POST", path: "/v1/keys/{id}/rotate", types: documentTypes, bare: true, serve: s.rotateKey},
		{method: "POST", path: "/v1/cache/purge", types: documentTypes, serve: s.purge},
		{method: "POST", path: "/v1/explain", types: jsonTypes, serve: s.explain},
	}
	if s.Config.Pprof {
		list = append(list, endpoint{method: "GET", path: pprofPath, serve: profile})
	}
	table := map[string][]endpoint{}
	for _, e := range list {
		table[e.path] = append(table[e.path], e)
	}
	return table
}

// serve answers on the API's own address.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.answer(w, r, s.guard, func(path string) []endpoint { return s.endpoints[path] })
}

// only serves some paths, to anybody.
func (s *Server) only(paths ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, r, admit, func(path string) []endpoint {
			if !slices.Contains(paths, path) {
				return nil
			}
			return s.endpoints[path]
		})
	})
}

// admit is the guard where everybody may ask.
func admit(*http.Request) *problem { return nil }

// answer finds the endpoint and runs it behind the guard. Who does not pass the
// guard does not learn what there is either.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, guard func(*http.Request) *problem, find func(path string) []endpoint) {
	h := w.Header()
	h.Set("X-Request-Id", string(telemetry.AppendRequestID(nil, time.Now())))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	defer func() {
		if fault := recover(); fault != nil && fault != http.ErrAbortHandler {
			s.Log.Error("the admin API failed", "id", h.Get("X-Request-Id"), "path", r.URL.Path, "cause", fault)
			internal("The log has more, under this request id.").write(w)
		}
	}()
	path, id := idOf(r)
	r.SetPathValue("id", id)
	if strings.HasPrefix(path, pprofPath) {
		path = pprofPath
	} else {
		// Not for profiles, which may take longer: net/http ends a request whose
		// read deadline passes. A writer without deadlines is a test's.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTimeout))
	}
	found := find(path)
	i := slices.IndexFunc(found, func(e endpoint) bool {
		return e.method == r.Method || e.method == http.MethodGet && r.Method == http.MethodHead
	})
	if i < 0 || !found[i].open {
		if p := guard(r); p != nil {
			p.write(w)
			return
		}
	}
	var p *problem
	switch {
	case len(found) == 0:
		p = notFound()
	case i < 0:
		p = notAllowed(methods(found))
	default:
		p = found[i].run(w, r)
	}
	if p != nil {
		p.write(w)
	}
}

// run checks what the endpoint says about its requests, and serves.
func (e *endpoint) run(w http.ResponseWriter, r *http.Request) *problem {
	if e.path != pprofPath && e.path != "/metrics" { // which take what they know
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return badRequest("The query cannot be read: " + err.Error() + ".")
		}
		for name, values := range query {
			// A misspelt dry_run must not be the real thing.
			if !slices.Contains(e.params, name) {
				return badRequest("There is no query parameter " + name + " here.")
			}
			if len(values) > 1 {
				return badRequest("The query parameter " + name + " is there more than once.")
			}
		}
	}
	// Nothing of no type is no form either: browsers give forms one.
	if _, typed := r.Header["Content-Type"]; len(e.types) > 0 && (typed || r.ContentLength != 0 || !e.bare) {
		if p := readable(r, e.types); p != nil {
			return p
		}
	}
	return e.serve(w, r)
}

// methods lists what a path takes, for Allow.
func methods(found []endpoint) string {
	var names []string
	for _, e := range found {
		names = append(names, e.method)
		if e.method == http.MethodGet {
			names = append(names, http.MethodHead)
		}
	}
	return strings.Join(names, ", ")
}

// State is the answer of a probe.
type State struct {
	Status string `json:"status"`
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) *problem {
	send(w, http.StatusOK, "application/json", State{"ok"})
	return nil
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) *problem {
	if !s.Gateway.Ready() {
		return notReady()
	}
	send(w, http.StatusOK, "application/json", State{"ready"})
	return nil
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) *problem {
	s.Metrics.ServeHTTP(w, r)
	return nil
}

func (s *Server) openapi(w http.ResponseWriter, _ *http.Request) *problem {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openapi) // what fails here is the connection
	return nil
}

// RouteList is the answer of GET /v1/routes.
type RouteList struct {
	Routes []Route `json:"routes"`
}

func (s *Server) routes(w http.ResponseWriter, _ *http.Request) *problem {
	list := s.Gateway.Routes()
	if list == nil {
		list = []Route{}
	}
	send(w, http.StatusOK, "application/json", RouteList{list})
	return nil
}

// UpstreamList is the answer of GET /v1/upstreams.
type UpstreamList struct {
	Upstreams []upstream.Status `json:"upstreams"`
}

func (s *Server) upstreams(w http.ResponseWriter, _ *http.Request) *problem {
	list := s.Gateway.Upstreams()
	if list == nil {
		list = []upstream.Status{}
	}
	send(w, http.StatusOK, "application/json", UpstreamList{list})
	return nil
}

// maxQuestion bounds the body of POST /v1/explain, the request's own included.
const maxQuestion = 1 << 20

// Question is the body of POST /v1/explain.
type Question struct {
	Method   string   `json:"method,omitempty"` // default GET
	URL      string   `json:"url"`              // absolute, or a path
	Headers  fieldMap `json:"headers,omitempty"`
	Body     string   `json:"body,omitempty"`
	Listener string   `json:"listener,omitempty"` // default: the first
	Client   string   `json:"client,omitempty"`   // address of the peer, default 127.0.0.1
}

// fieldMap is header fields: an object of values or lists of values, or a list
// of pairs where the order matters.
type fieldMap [][2]string

// UnmarshalJSON reads either form.
func (f *fieldMap) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '[' {
		return json.Unmarshal(b, (*[][2]string)(f))
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(b, &object); err != nil {
		return err
	}
	names := make([]string, 0, len(object))
	for name := range object {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		var many []string
		one := ""
		if json.Unmarshal(object[name], &one) == nil {
			many = []string{one}
		} else if err := json.Unmarshal(object[name], &many); err != nil {
			return err
		}
		for _, v := range many {
			*f = append(*f, [2]string{name, v})
		}
	}
	return nil
}

func (s *Server) explain(w http.ResponseWriter, r *http.Request) *problem {
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxQuestion))
	body.DisallowUnknownFields()
	var q Question
	if err := body.Decode(&q); err != nil {
		return unreadable(err, "1 MiB")
	}
	if _, err := body.Token(); !errors.Is(err, io.EOF) {
		return badRequest("There is more than one document in the body.")
	}
	e, err := s.Gateway.Explain(gateway.Question{
		Method: q.Method, URL: q.URL, Headers: q.Headers, Body: q.Body, Listener: q.Listener, Client: q.Client,
	})
	if err != nil {
		return badRequest(sentence(err.Error()))
	}
	send(w, http.StatusOK, "application/json", e)
	return nil
}

// unreadable is the problem with a body that could not be read.
func unreadable(err error, limit string) *problem {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge(limit)
	}
	if errors.Is(err, io.EOF) {
		return badRequest("The body is empty.")
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && e.Field != "" {
		return badRequest("The body cannot be read: " + e.Field + " is of another type than it should be, a " + e.Value + ".")
	}
	if _, ok := errors.AsType[*time.ParseError](err); ok {
		return badRequest("The body cannot be read: a time is not as in 2027-01-31T00:00:00Z.")
	}
	return badRequest("The body cannot be read: " + err.Error() + ".")
}

// sentence makes an error's text a detail.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	if word, _, _ := strings.Cut(s, " "); strings.Contains(word, "_") || word == "id" { // the name of a member
		return s + "."
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

// profile serves the profiler of the standard library.
func profile(w http.ResponseWriter, r *http.Request) *problem {
	switch strings.TrimPrefix(r.URL.Path, pprofPath) {
	case "cmdline":
		pprof.Cmdline(w, r)
	case "profile":
		pprof.Profile(w, r)
	case "symbol":
		pprof.Symbol(w, r)
	case "trace":
		pprof.Trace(w, r)
	default:
		pprof.Index(w, r) // lists the profiles, or serves the one that the path names
	}
	return nil
}
