package router

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestConflictsAreReportedWithAnExample(t *testing.T) {
	h := func(pairs ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	for _, tt := range []struct {
		name string
		a, b Route
		want string // the example; "": no conflict
	}{
		{"the same", Route{Pattern: "/x"}, Route{Pattern: "/x"}, "GET /x"},
		{"names differ", Route{Pattern: "/users/{id}"}, Route{Pattern: "/users/{user}"}, "GET /users/x"},
		{"rest", Route{Pattern: "/f/{a...}"}, Route{Pattern: "/f/{b...}"}, "GET /f/x"},
		{"mixed", Route{Pattern: "/f/{a}.json"}, Route{Pattern: "/f/{b}.json"}, "GET /f/x.json"},
		{"spelling", Route{Pattern: "/%61/é"}, Route{Pattern: "/a/%c3%a9"}, "GET /a/%C3%A9"},
		{"one method in common", Route{Pattern: "/x", Methods: []string{"PUT", "PATCH"}}, Route{Pattern: "/x", Methods: []string{"POST", "PATCH"}}, "PATCH /x"},
		{"own methods", Route{Pattern: "/x", Methods: []string{"PURGE"}}, Route{Pattern: "/x", Methods: []string{"PURGE"}}, "PURGE /x"},
		{"one host in common", Route{Pattern: "/x", Hosts: []string{"a.org", "b.org"}}, Route{Pattern: "/x", Hosts: []string{"b.org"}}, "GET http://b.org/x"},
		{"case of hosts", Route{Pattern: "/x", Hosts: []string{"A.org"}}, Route{Pattern: "/x", Hosts: []string{"a.ORG."}}, "GET http://a.org/x"},
		{"wildcard", Route{Pattern: "/x", Hosts: []string{"*.a.org"}}, Route{Pattern: "/x", Hosts: []string{"*.a.org"}}, "GET http://any.a.org/x"},
		{"one listener in common", Route{Pattern: "/x", Listeners: []string{"a", "b"}}, Route{Pattern: "/x", Listeners: []string{"b", "c"}}, "GET /x on listener b"},
		{"same header", Route{Pattern: "/x", Headers: h("X-V", "1")}, Route{Pattern: "/x", Headers: h("x-v", "1")}, "GET /x with X-V: 1"},
		{"unlike headers", Route{Pattern: "/x", Headers: h("X-A", "1")}, Route{Pattern: "/x", Headers: h("X-B", "2")}, "GET /x with X-A: 1, X-B: 2"},
		{"header and query", Route{Pattern: "/x", Headers: h("X-A", "1")}, Route{Pattern: "/x", Query: h("a b", "&")}, "GET /x?a+b=%26 with X-A: 1"},
		{"one in common", Route{Pattern: "/x", Query: h("a", "1", "b", "1")}, Route{Pattern: "/x", Query: h("a", "1", "c", "1")}, "GET /x?a=1&b=1&c=1"},

		{"other path", Route{Pattern: "/x"}, Route{Pattern: "/y"}, ""},
		{"literal and parameter", Route{Pattern: "/x"}, Route{Pattern: "/{x}"}, ""},
		{"crossed parameters", Route{Pattern: "/a/{x}"}, Route{Pattern: "/{x}/b"}, ""},
		{"parameter and rest", Route{Pattern: "/{x}"}, Route{Pattern: "/{x...}"}, ""},
		{"end and empty rest", Route{Pattern: "/a"}, Route{Pattern: "/a/{x...}"}, ""},
		{"crossed mixed", Route{Pattern: "/a{x}"}, Route{Pattern: "/{x}b"}, ""},
		{"other method", Route{Pattern: "/x", Methods: []string{"GET"}}, Route{Pattern: "/x", Methods: []string{"PUT"}}, ""},
		{"GET and HEAD", Route{Pattern: "/x", Methods: []string{"GET"}}, Route{Pattern: "/x", Methods: []string{"HEAD"}}, ""},
		{"listed and any", Route{Pattern: "/x", Methods: []string{"GET"}}, Route{Pattern: "/x"}, ""},
		{"other host", Route{Pattern: "/x", Hosts: []string{"a.org"}}, Route{Pattern: "/x", Hosts: []string{"b.org"}}, ""},
		{"exact and wildcard", Route{Pattern: "/x", Hosts: []string{"a.b.org"}}, Route{Pattern: "/x", Hosts: []string{"*.b.org"}}, ""},
		{"other listener", Route{Pattern: "/x", Listeners: []string{"a"}}, Route{Pattern: "/x", Listeners: []string{"b"}}, ""},
		{"restricted and not", Route{Pattern: "/x", Listeners: []string{"a"}}, Route{Pattern: "/x"}, ""},
		{"other value", Route{Pattern: "/x", Headers: h("X-V", "1")}, Route{Pattern: "/x", Headers: h("x-v", "2")}, ""},
		{"other value of a parameter", Route{Pattern: "/x", Query: h("v", "1")}, Route{Pattern: "/x", Query: h("v", "2")}, ""},
		{"more conditions", Route{Pattern: "/x", Headers: h("X-V", "1")}, Route{Pattern: "/x", Headers: h("X-V", "1", "X-W", "1")}, ""},
		{"the same route twice", Route{ID: 1, Pattern: "/x"}, Route{Pattern: "/x"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.b.ID = 1
			_, conflicts := New([]Route{tt.a, tt.b})
			switch {
			case tt.want == "" && len(conflicts) > 0:
				t.Errorf("got %+v, want none", conflicts)
			case tt.want == "":
			case len(conflicts) != 1:
				t.Errorf("got %+v, want one", conflicts)
			default:
				c := conflicts[0]
				if c.A != 0 || c.B != 1 || c.Example != tt.want || !strings.Contains(c.Reason, "equally specific") {
					t.Errorf("got %+v, want %q", c, tt.want)
				}
			}
		})
	}
}

func TestAConflictGoesToTheRouteGivenFirst(t *testing.T) {
	table, conflicts := New([]Route{{ID: 7, Pattern: "/{a}"}, {ID: 3, Pattern: "/{b}"}, {ID: 5, Pattern: "/{c}"}})
	var pairs [][2]int
	for _, c := range conflicts {
		pairs = append(pairs, [2]int{c.A, c.B})
	}
	if want := [][2]int{{7, 3}, {7, 5}}; !slices.Equal(pairs, want) {
		t.Errorf("conflicts %v, want %v", pairs, want)
	}
	if got := outcome(table, request("GET /1")); got != "7 a=1" {
		t.Errorf("got %s", got)
	}
}

// TestAnExampleGoesToOneOfThePair wants examples that no third route answers.
func TestAnExampleGoesToOneOfThePair(t *testing.T) {
	table, conflicts := New([]Route{
		{ID: 0, Pattern: "/a/{id}"},
		{ID: 1, Pattern: "/a/{name}"},
		{ID: 2, Pattern: "/a/x"},
		{ID: 3, Pattern: "/a/{v}.x"},
		{ID: 4, Pattern: "/b/{p...}"},
		{ID: 5, Pattern: "/b/{q...}"},
		{ID: 6, Pattern: "/b/{one}"},
	})
	if len(conflicts) != 2 {
		t.Fatalf("got %+v", conflicts)
	}
	for _, c := range conflicts {
		if m := table.Match(readExample(c.Example), new(Params)); m.ID != c.A {
			t.Errorf("%q goes to %d, not to %d or %d", c.Example, m.ID, c.A, c.B)
		}
	}
}

func TestBadRoutesAreReportedAndLeftOut(t *testing.T) {
	for _, tt := range []struct {
		route       Route
		field, want string // want: a part of the reason
	}{
		{Route{Pattern: ""}, "path", `write "/"`},
		{Route{Pattern: "users"}, "path", `must begin with "/"`},
		{Route{Pattern: "~^/users/[0-9]+"}, "path", "regular expression"},
		{Route{Pattern: "/a//b"}, "path", "empty segment"},
		{Route{Pattern: "//"}, "path", "empty segment"},
		{Route{Pattern: "/a/../b"}, "path", `segment ".."`},
		{Route{Pattern: "/a/%2e"}, "path", `segment "."`},
		{Route{Pattern: "/users/:id"}, "path", "written {id}"},
		{Route{Pattern: "/files/*"}, "path", "{rest...}"},
		{Route{Pattern: "/files/**"}, "path", "{rest...}"},
		{Route{Pattern: "/{proxy+}"}, "path", "{proxy...}"},
		{Route{Pattern: "/{id:[0-9]}"}, "path", "validate.path"},
		{Route{Pattern: "/{id"}, "path", "lacks a }"},
		{Route{Pattern: "/id}"}, "path", "without a {"},
		{Route{Pattern: "/{a}}"}, "path", "without a {"},
		{Route{Pattern: "/{}"}, "path", "needs a name"},
		{Route{Pattern: "/{$}"}, "path", "no parameter name"},
		{Route{Pattern: "/{1a}"}, "path", "no parameter name"},
		{Route{Pattern: "/{...}"}, "path", "needs a name"},
		{Route{Pattern: "/{a}-{b}"}, "path", "two parameters"},
		{Route{Pattern: "/{a}/{a}"}, "path", "{a} twice"},
		{Route{Pattern: "/{a...}/b"}, "path", "must come last"},
		{Route{Pattern: "/v{a...}"}, "path", "nothing may stand beside"},
		{Route{Pattern: "/a?b=1"}, "path", "when.query"},
		{Route{Pattern: "/a#b"}, "path", "has no '#'"},
		{Route{Pattern: "/a%"}, "path", BadPercent.Error()},
		{Route{Pattern: "/a%00"}, "path", EncodedNUL.Error()},
		{Route{Pattern: "/a%5Cb"}, "path", EncodedBackslash.Error()},
		{Route{Pattern: "/a\\b"}, "path", Backslash.Error()},
		{Route{Pattern: "/a\nb"}, "path", BadByte.Error()},
		{Route{Pattern: "/{x}%"}, "path", BadPercent.Error()},
		{Route{Pattern: strings.Repeat("/{x}", 17)}, "path", "twice"},
		{Route{Pattern: "/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}/{j}/{k}/{l}/{m}/{n}/{o}/{p}/{q}"}, "path", "16 is the most"},
		{Route{Pattern: "/x", Hosts: []string{"a.org", ""}}, "hosts[1]", "is empty"},
		{Route{Pattern: "/x", Hosts: []string{"*"}}, "hosts[0]", "leave hosts out"},
		{Route{Pattern: "/x", Hosts: []string{"https://a.org"}}, "hosts[0]", "URL"},
		{Route{Pattern: "/x", Hosts: []string{"a.org:8080"}}, "hosts[0]", "port"},
		{Route{Pattern: "/x", Hosts: []string{"a.*.org"}}, "hosts[0]", "in front of a name"},
		{Route{Pattern: "/x", Hosts: []string{"*.*.org"}}, "hosts[0]", "in front of a name"},
		{Route{Pattern: "/x", Hosts: []string{"*."}}, "hosts[0]", "no host name"},
		{Route{Pattern: "/x", Hosts: []string{"a..org"}}, "hosts[0]", "no host name"},
		{Route{Pattern: "/x", Hosts: []string{"bücher.de"}}, "hosts[0]", "xn--"},
		{Route{Pattern: "/x", Hosts: []string{"a.org/x"}}, "hosts[0]", "no host name"},
		{Route{Pattern: "/x", Hosts: []string{"[::1]:80"}}, "hosts[0]", "IPv6"},
		{Route{Pattern: "/x", Hosts: []string{"*.[::1]"}}, "hosts[0]", "IPv6"},
		{Route{Pattern: "/x", Methods: []string{"GET", "get"}}, "methods[1]", "write GET"},
		{Route{Pattern: "/x", Methods: []string{"GET,POST"}}, "methods[0]", "no method name"},
		{Route{Pattern: "/x", Methods: []string{""}}, "methods[0]", "no method name"},
		{Route{Pattern: "/x", Methods: []string{"TRACE"}}, "methods[0]", "never routed"},
		{Route{Pattern: "/x", Headers: map[string]string{"X A": "1"}}, "headers.X A", "no header name"},
		{Route{Pattern: "/x", Headers: map[string]string{"X-A": " 1"}}, "headers.X-A", "no header value"},
		{Route{Pattern: "/x", Headers: map[string]string{"X-A": "1", "x-a": "2"}}, "headers.x-a", "one header"},
		{Route{Pattern: "/x", Query: map[string]string{"": "1"}}, "query.", "needs a name"},
	} {
		table, conflicts := New([]Route{tt.route, {ID: 1, Pattern: "/ok"}})
		if len(conflicts) != 1 {
			t.Errorf("%+v: got %+v, want one problem", tt.route, conflicts)
			continue
		}
		c := conflicts[0]
		if c.A != 0 || c.B != -1 || c.Field != tt.field || !strings.Contains(c.Reason, tt.want) || c.Example != "" {
			t.Errorf("%+v: got %+v, want %s: …%s…", tt.route, c, tt.field, tt.want)
		}
		if got := outcome(table, request("GET /ok")); got != "1" {
			t.Errorf("%+v: the good route gives %s", tt.route, got)
		}
	}
}

func TestEveryProblemOfARouteIsReported(t *testing.T) {
	_, conflicts := New([]Route{
		{ID: 0, Pattern: "/ok"},
		{ID: 1, Pattern: "bad", Hosts: []string{"a:1", "b:2"}, Methods: []string{"get"}},
		{ID: 2, Pattern: "/ok"},
	})
	var got []string
	for _, c := range conflicts {
		got = append(got, fmt.Sprint(c.A, c.B, c.Field))
	}
	if want := []string{"0 2", "1 -1path", "1 -1hosts[0]", "1 -1hosts[1]", "1 -1methods[0]"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSixtyFourListenersAndFiftyFourMethodsAreTheMost(t *testing.T) {
	var r Route
	r.Pattern = "/"
	for i := range 65 {
		r.Listeners = append(r.Listeners, fmt.Sprint("l", i))
	}
	for i := range 55 {
		r.Methods = append(r.Methods, fmt.Sprint("M", i))
	}
	_, conflicts := New([]Route{r})
	var got []string
	for _, c := range conflicts {
		got = append(got, c.Field)
	}
	if want := []string{"listeners[64]", "methods[54]"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	r.Listeners, r.Methods = r.Listeners[:64], r.Methods[:54]
	table := build(t, r)
	for _, tt := range []struct{ listener, method, want string }{
		{"l63", "M53", "0"},
		{"l0", "M0", "0"},
		{"l64", "M53", "404"},
	} {
		q := request(tt.method + " /")
		q.Listener = tt.listener
		if got := outcome(table, q); got != tt.want {
			t.Errorf("%+v: got %s", tt, got)
		}
	}
	q := request("GET /")
	q.Listener = "l1"
	if m := table.Match(q, new(Params)); len(m.Allow) != 54 || !slices.IsSorted(m.Allow) {
		t.Errorf("Allow is %v", m.Allow)
	}
}

func TestParamNames(t *testing.T) {
	names, err := ParamNames("/a/{x}/b{y-2}.json/{_z...}")
	if want := []string{"x", "y-2", "_z"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("got %q, %v, want %q", names, err, want)
	}
	if _, err := ParamNames("/{x"); err == nil {
		t.Error("a bad pattern has names")
	}
}

func TestCanonicalPattern(t *testing.T) {
	for pattern, want := range map[string]string{
		"/":                             "/",
		"/a/":                           "/a/",
		"/caf\u00e9/%7eme":              "/caf%C3%A9/~me",
		"/a b/{x}/v%2a{y}%2A/{rest...}": "/a%20b/{x}/v%2A{y}%2A/{rest...}",
	} {
		if got, err := CanonicalPattern(pattern); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", pattern, got, err, want)
		}
	}
	if _, err := CanonicalPattern("a"); err == nil {
		t.Error("a bad pattern has a canonical form")
	}
}
