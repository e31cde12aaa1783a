package admin

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/gateway"
	"github.com/sluice-gateway/sluice/internal/limit"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/upstream"
)

// operation is what these tests read of openapi.json.
type operation struct {
	Security   []map[string][]string
	Parameters []struct{ Name, In string }
	Request    *struct {
		Content map[string]json.RawMessage
	} `json:"requestBody"`
	Responses map[string]struct {
		Content map[string]json.RawMessage
		Headers map[string]json.RawMessage
	}
}

type schema struct {
	Type       any
	Required   []string
	Properties map[string]struct {
		Type any
		Ref  string `json:"$ref"`
		Enum []string
	}
}

type description struct {
	OpenAPI    string
	Paths      map[string]map[string]operation
	Components struct{ Schemas map[string]schema }
}

func described(t *testing.T) description {
	t.Helper()
	var d description
	if err := json.Unmarshal(openapi, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestEveryEndpointIsDescribedAndEveryDescriptionServed(t *testing.T) {
	d := described(t)
	s := start(t, newNode(t, document), config.Admin{Pprof: true})
	served, documented := map[string]endpoint{}, map[string]operation{}
	for path, list := range s.endpoints {
		for _, e := range list {
			served[e.method+" "+path] = e
		}
	}
	for path, methods := range d.Paths {
		for method, o := range methods {
			documented[strings.ToUpper(method)+" "+path] = o
		}
	}
	if a, b := slices.Sorted(maps.Keys(served)), slices.Sorted(maps.Keys(documented)); !slices.Equal(a, b) {
		t.Fatalf("served     %q\ndocumented %q", a, b)
	}
	for name, e := range served {
		o := documented[name]
		var query []string
		for _, p := range o.Parameters {
			if p.In == "query" {
				query = append(query, p.Name)
			}
		}
		if !slices.Equal(query, e.params) {
			t.Errorf("%s: takes the parameters %q, documented are %q", name, e.params, query)
		}
		var types []string
		if o.Request != nil {
			types = slices.Sorted(maps.Keys(o.Request.Content))
		}
		if !slices.Equal(types, slices.Sorted(slices.Values(e.types))) {
			t.Errorf("%s: takes %q, documented are %q", name, e.types, types)
		}
		if open := len(o.Security) == 0; open != e.open {
			t.Errorf("%s: needs the token: %v, documented %v", name, !e.open, !open)
		}
		for status, guarded := range map[string]bool{"401": !e.open, "403": !e.open, "415": len(e.types) > 0, "413": len(e.types) > 0} {
			if _, ok := o.Responses[status]; ok != guarded {
				t.Errorf("%s: %s is documented: %v, want %v", name, status, ok, guarded)
			}
		}
	}
}

func TestAnswersAreOfTheDescribedStatusAndType(t *testing.T) {
	d := described(t)
	n := newNode(t, document)
	n.keep(t)
	s := start(t, n, config.Admin{Pprof: true})
	tokened := start(t, n, config.Admin{Token: config.NewSecret("t")})
	tag := s.ask("GET", "/v1/config", "").header.Get("ETag")
	yaml, js := "application/yaml", "application/json"
	tried := map[string]bool{}
	check := func(s *Server, method, target, body string, header ...string) {
		t.Helper()
		r := s.ask(method, target, body, header...)
		path, _ := idOf(httptest.NewRequest(method, strings.NewReplacer("{", "%7B", "}", "%7D").Replace(target), nil))
		if path != pprofPath && strings.HasPrefix(path, pprofPath) {
			path = pprofPath
		}
		res, ok := d.Paths[path][strings.ToLower(method)].Responses[strconv.Itoa(r.status)]
		if !ok {
			t.Errorf("%s %s: %d is not documented: %s", method, target, r.status, r.body)
			return
		}
		tried[method+" "+path+" "+strconv.Itoa(r.status)] = true
		kind, _, _ := strings.Cut(r.header.Get("Content-Type"), ";")
		if _, ok := res.Content[kind]; !ok && r.body != "" && path != "/metrics" {
			t.Errorf("%s %s: %d of type %q is not documented", method, target, r.status, kind)
		}
		for h := range res.Headers {
			if r.header.Get(h) == "" {
				t.Errorf("%s %s: %d without %s", method, target, r.status, h)
			}
		}
	}
	for path := range d.Paths {
		for method := range d.Paths[path] {
			m := strings.ToUpper(method)
			kind := js
			body := `{"url": "/"}`
			if m == http.MethodPut {
				kind, body = yaml, document
			}
			check(s, m, path, body, "Content-Type", kind)
			if path != "/healthz" && path != "/readyz" {
				check(s, m, path, body, "Content-Type", kind, "Host", "evil.test")
				check(tokened, m, path, body, "Content-Type", kind)
			}
		}
	}
	check(s, "GET", "/v1/config", "", "Accept", yaml)
	check(s, "GET", "/v1/config", "", "If-None-Match", tag)
	check(s, "PUT", "/v1/config", document, "Content-Type", yaml, "If-Match", `"x"`)
	check(s, "PUT", "/v1/config?x", document, "Content-Type", yaml)
	check(s, "PUT", "/v1/config", document, "Content-Type", "text/plain")
	check(s, "PUT", "/v1/config", "x: 1", "Content-Type", yaml)
	check(s, "PUT", "/v1/config", strings.Repeat("#", maxDocument+1), "Content-Type", yaml)
	check(s, "POST", "/v1/explain", "{", "Content-Type", js)
	check(s, "POST", "/v1/explain", "{", "Content-Type", yaml)
	check(s, "POST", "/v1/explain", `{"url":"`+strings.Repeat("x", maxQuestion), "Content-Type", js)
	check(s, "GET", "/v1/usage?client=nobody", "")
	check(s, "GET", "/v1/usage?period=year", "")
	check(s, "GET", "/v1/hot?what=clients", "")
	checkCache(t, n, check)
	checkIdentities(t, n, s, check)
	n.storeAway = true
	check(s, "GET", "/v1/usage", "")
	n.draining = true
	check(s, "GET", "/readyz", "")
	n.running = nil
	check(s, "GET", "/v1/config", "")
	check(s, "PUT", "/v1/config", document, "Content-Type", yaml)
	check(start(t, n, config.Admin{}), "GET", pprofPath, "")

	// What cannot be brought about here: a scraper too many, a configuration that
	// cannot be shown or written.
	elsewhere := []string{"GET /metrics 503", "GET /v1/config 500", "PUT /v1/config 500"}
	for path, methods := range d.Paths {
		for method, o := range methods {
			for status := range o.Responses {
				if name := strings.ToUpper(method) + " " + path + " " + status; !tried[name] && !slices.Contains(elsewhere, name) {
					t.Errorf("%s is documented and was never seen", name)
				}
			}
		}
	}
}

func TestSchemasAreTheTypes(t *testing.T) {
	d := described(t)
	types := map[string]reflect.Type{
		"State": reflect.TypeFor[State](), "RouteList": reflect.TypeFor[RouteList](), "Route": reflect.TypeFor[Route](), "Share": reflect.TypeFor[Share](),
		"UpstreamList": reflect.TypeFor[UpstreamList](), "Upstream": reflect.TypeFor[upstream.Status](), "Target": reflect.TypeFor[upstream.TargetStatus](),
		"Applied": reflect.TypeFor[Applied](), "Diagnostic": reflect.TypeFor[config.Diagnostic](), "Question": reflect.TypeFor[Question](),
		"Explanation": reflect.TypeFor[gateway.Explanation](), "Finding": reflect.TypeFor[policy.Finding](), "Destination": reflect.TypeFor[gateway.Destination](),
		"Problem": reflect.TypeFor[problem](), "Caller": reflect.TypeFor[gateway.Caller](),
		"Client": reflect.TypeFor[Client](), "ClientList": reflect.TypeFor[ClientList](), "ClientRequest": reflect.TypeFor[ClientRequest](), "ClientChange": reflect.TypeFor[ClientChange](),
		"Key": reflect.TypeFor[Key](), "KeyList": reflect.TypeFor[KeyList](), "KeyRequest": reflect.TypeFor[KeyRequest](), "NewKey": reflect.TypeFor[NewKey](),
		"KeyChange": reflect.TypeFor[KeyChange](), "Rotation": reflect.TypeFor[Rotation](),
		"UsageList": reflect.TypeFor[UsageList](), "Usage": reflect.TypeFor[limit.Usage](), "HotList": reflect.TypeFor[HotList](), "Hot": reflect.TypeFor[limit.Hot](),
		"HotObjectList": reflect.TypeFor[HotObjectList](), "HotObject": reflect.TypeFor[HotObject](), "Purge": reflect.TypeFor[Purge](), "Purged": reflect.TypeFor[Purged](),
	}
	if a, b := slices.Sorted(maps.Keys(types)), slices.Sorted(maps.Keys(d.Components.Schemas)); !slices.Equal(a, b) {
		t.Fatalf("types   %q\nschemas %q", a, b)
	}
	for name, typ := range types {
		var all, required []string
		for i := range typ.NumField() {
			tag := typ.Field(i).Tag.Get("json")
			key, options, _ := strings.Cut(tag, ",")
			if key == "" || key == "-" {
				continue
			}
			all = append(all, key)
			if !strings.HasPrefix(options, "omit") {
				required = append(required, key)
			}
			if got, want := d.Components.Schemas[name].Properties[key].Type, jsonType(typ.Field(i).Type); got != nil && got != want {
				t.Errorf("%s.%s: documented as %v, is %s", name, key, got, want)
			}
		}
		s := d.Components.Schemas[name]
		slices.Sort(all)
		slices.Sort(required)
		if documented := slices.Sorted(maps.Keys(s.Properties)); !slices.Equal(all, documented) {
			t.Errorf("%s: fields %q, documented %q", name, all, documented)
		}
		if documented := slices.Sorted(slices.Values(s.Required)); !slices.Equal(required, documented) {
			t.Errorf("%s: always there are %q, documented %q", name, required, documented)
		}
	}
	manual, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	codes := d.Components.Schemas["Problem"].Properties["code"].Enum
	for _, code := range codes {
		if !strings.Contains(string(manual), `<a id="`+code+`"></a>`) {
			t.Errorf("the manual has no place for %s, which problems of this code lead to", code)
		}
	}
	for _, p := range []*problem{badRequest(""), forbidden(""), notFound(), notAllowed(""), tooLarge(""), notReady(), stale(""), invalid(nil), internal(""), conflict("", ""), unavailable()} {
		if !slices.Contains(codes, p.Code) {
			t.Errorf("the code %s is not documented", p.Code)
		}
	}
}

func jsonType(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return "integer"
	case reflect.Float64:
		return "number"
	case reflect.Slice:
		return "array"
	case reflect.Map:
		return "object"
	}
	return "string" // times and texts
}
