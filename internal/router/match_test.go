package router

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

// build makes a table of routes without conflicts. IDs are set to the place in
// the list.
func build(t testing.TB, routes ...Route) *Table {
	t.Helper()
	for i := range routes {
		routes[i].ID = i
	}
	table, conflicts := New(routes)
	for _, c := range conflicts {
		t.Fatalf("conflict: %+v", c)
	}
	return table
}

// request makes a Request of "METHOD [//host]/path[?query]".
func request(line string) *Request {
	method, target, _ := strings.Cut(line, " ")
	r := &Request{Method: method}
	if rest, ok := strings.CutPrefix(target, "//"); ok {
		host, path, _ := strings.Cut(rest, "/")
		r.Host, target = []byte(host), "/"+path
	}
	path, query, _ := strings.Cut(target, "?")
	r.Path, r.Query = []byte(path), []byte(query)
	return r
}

// outcome writes a match as "ID name=value …", "405 methods" or "404".
func outcome(table *Table, r *Request) string {
	var p Params
	m := table.Match(r, &p)
	switch {
	case m.Found:
		s := strconv.Itoa(m.ID)
		for _, v := range p {
			s += " " + v.Name + "=" + string(v.Value)
		}
		return s
	case len(m.Allow) > 0:
		return "405 " + strings.Join(m.Allow, ",")
	}
	return "404"
}

// check compares outcomes with "METHOD target: outcome" lines, for the routes in
// the given and in the reverse order.
func check(t *testing.T, routes []Route, header Fields, lines ...string) {
	t.Helper()
	for i := range routes {
		routes[i].ID = i
	}
	for _, list := range [][]Route{routes, reversed(routes)} {
		table, conflicts := New(list)
		for _, c := range conflicts {
			t.Errorf("conflict: %+v", c)
		}
		for _, line := range lines {
			ask, want, _ := strings.Cut(line, ": ")
			r := request(ask)
			r.Header = header
			if got := outcome(table, r); got != want {
				t.Errorf("%s: got %s, want %s", ask, got, want)
			}
		}
	}
}

func reversed(routes []Route) []Route {
	list := slices.Clone(routes)
	slices.Reverse(list)
	return list
}

func TestMatchTakesTheMostSpecificPath(t *testing.T) {
	check(t, []Route{
		{Pattern: "/"},
		{Pattern: "/users"},
		{Pattern: "/users/{id}"},
		{Pattern: "/users/me"},
		{Pattern: "/users/{id}/posts"},
		{Pattern: "/users/me/{rest...}"},
		{Pattern: "/a/{x}/c"},
		{Pattern: "/a/b/d"},
		{Pattern: "/files/{path...}"},
		{Pattern: "/files/{dir}/index"},
	}, nil,
		"GET /: 0",
		"GET /users: 1",
		"GET /users/: 404",
		"GET /users/7: 2 id=7",
		"GET /users/me: 3",
		"GET /users/7/posts: 4 id=7",
		"GET /users/me/posts: 5 rest=posts",
		"GET /users/me/: 5 rest=",
		"GET /users/7/: 404",
		"GET /a/b/d: 7",
		"GET /a/b/c: 6 x=b",
		"GET /a/b/e: 404",
		"GET /files: 8 path=",
		"GET /files/: 8 path=",
		"GET /files/a/b/c: 8 path=a/b/c",
		"GET /files/a/index: 9 dir=a",
		"GET /files/a/index/: 8 path=a/index/",
		"GET /filesystem: 404",
		"GET /user: 404",
		"GET *: 404",
		"GET : 404",
	)
}

func TestASlashAtTheEndCounts(t *testing.T) {
	check(t, []Route{{Pattern: "/a"}, {Pattern: "/a/"}, {Pattern: "/b/"}, {Pattern: "/c"}, {Pattern: "/d/{x}/"}, {Pattern: "/e/"}, {Pattern: "/e/{rest...}"}}, nil,
		"GET /a: 0",
		"GET /a/: 1",
		"GET /b: 404",
		"GET /b/: 2",
		"GET /c/: 404",
		"GET /d/1/: 4 x=1",
		"GET /d/1: 404",
		"GET /d//: 404",
		"GET /e: 6 rest=",
		"GET /e/: 5",
		"GET /e/1: 6 rest=1",
	)
}

func TestMixedSegments(t *testing.T) {
	check(t, []Route{
		{Pattern: "/files/{id}"},
		{Pattern: "/files/{id}.json"},
		{Pattern: "/files/{id}.min.json"},
		{Pattern: "/files/v{version}"},
		{Pattern: "/files/v{version}.json"},
		{Pattern: "/files/v1.json"},
		{Pattern: "/users/{id}:activate"},
		{Pattern: "/enc/{x}0"},
		{Pattern: "/enc/%20{x}"},
		{Pattern: "/deep/a{x}/end"},
		{Pattern: "/deep/{y}b/other"},
	}, nil,
		"GET /files/1: 0 id=1",
		"GET /files/1.json: 1 id=1",
		"GET /files/1.min.json: 2 id=1",
		"GET /files/.json: 0 id=.json",
		"GET /files/v2: 3 version=2",
		"GET /files/v: 0 id=v",
		"GET /files/v2.json: 4 version=2",
		"GET /files/v1.json: 5",
		"GET /files/v.json: 3 version=.json",
		"GET /users/7:activate: 6 id=7",
		"GET /users/7: 404",
		"GET /enc/a0: 7 x=a",
		// The 0 of %20 is no character of its own.
		"GET /enc/a%20: 404",
		"GET /enc/%200: 8 x=0",
		"GET /enc/a%200: 7 x=a%20",
		"GET /enc/%20a: 8 x=a",
		"GET /enc/%20%20: 8 x=%20",
		"GET /deep/axb/end: 9 x=xb",
		"GET /deep/axb/other: 10 y=ax",
	)
}

func TestPatternTextIsComparedInCanonicalForm(t *testing.T) {
	check(t, []Route{{Pattern: "/café/{id}"}, {Pattern: "/a b/%7eme/{x}%2a"}}, nil,
		"GET /caf%C3%A9/1: 0 id=1",
		"GET /a%20b/~me/1%2A: 1 x=1",
	)
}

func TestMatchTakesTheMostSpecificHost(t *testing.T) {
	check(t, []Route{
		{Pattern: "/x", Hosts: []string{"api.example.com"}},
		{Pattern: "/x", Hosts: []string{"*.example.com"}},
		{Pattern: "/x"},
		{Pattern: "/y"},
		{Pattern: "/{rest...}", Hosts: []string{"all.example.com"}},
		{Pattern: "/x", Hosts: []string{"[::1]", "10.0.0.1", "Upper.Example.com."}},
		{Pattern: "/x", Hosts: []string{"*.a.example.com"}},
		{Pattern: "/w", Hosts: []string{"a.very-long-name-of-a-host.example.com", "*.very-long-name-of-a-host.example.com"}},
	}, nil,
		"GET //api.example.com/x: 0",
		"GET //api.example.com./x: 0",
		"GET //other.example.com/x: 1",
		"GET //example.com/x: 2",
		// A wildcard stands for one label, as in a certificate.
		"GET //a.b.example.com/x: 2",
		"GET //b.a.example.com/x: 6",
		"GET //.example.com/x: 2",
		"GET //xapi.example.com.evil.org/x: 2",
		"GET /x: 2",
		// What a host does not have, the less specific ones may.
		"GET //api.example.com/y: 3",
		"GET //api.example.com/z: 404",
		// But what it has hides theirs.
		"GET //all.example.com/y: 4 rest=y",
		"GET //[::1]/x: 5",
		"GET //10.0.0.1/x: 5",
		"GET //upper.example.com/x: 5",
		"GET //a.very-long-name-of-a-host.example.com/w: 7",
		"GET //b.very-long-name-of-a-host.example.com/w: 7",
		"GET //c.very-long-name-of-a-hose.example.com/w: 404",
	)
}

func TestMethods(t *testing.T) {
	check(t, []Route{
		{Pattern: "/r", Methods: []string{"GET"}},
		{Pattern: "/r", Methods: []string{"POST", "PURGE"}},
		{Pattern: "/any"},
		{Pattern: "/any", Methods: []string{"GET"}},
		{Pattern: "/head", Methods: []string{"GET"}, Query: map[string]string{"a": "1"}},
		{Pattern: "/head", Methods: []string{"HEAD"}},
		{Pattern: "/head"},
		{Pattern: "/users/me", Methods: []string{"GET"}},
		{Pattern: "/users/{id}", Methods: []string{"POST"}},
		{Pattern: "/users/{rest...}", Methods: []string{"DELETE"}},
	}, nil,
		"GET /r: 0",
		"HEAD /r: 0",
		"POST /r: 1",
		"PURGE /r: 1",
		"PUT /r: 405 GET,HEAD,POST,PURGE",
		"OPTIONS /r: 405 GET,HEAD,POST,PURGE",
		"get /r: 405 GET,HEAD,POST,PURGE",
		"TRACE /r: 405 GET,HEAD,POST,PURGE",
		"GET /any: 3",
		"HEAD /any: 3",
		"PUT /any: 2",
		"PURGE /any: 2",
		"NEW /any: 2",
		"TRACE /any: 405 DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT",
		"CONNECT /any: 405 DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT",
		"TRACE /none: 404",
		"GET /head?a=1: 4",
		"HEAD /head?a=1: 5",
		"HEAD /head: 5",
		"GET /head: 6",
		// A less specific path with the method is a match; Allow joins them all.
		"GET /users/me: 7",
		"POST /users/me: 8 id=me",
		"DELETE /users/me: 9 rest=me",
		"PUT /users/me: 405 DELETE,GET,HEAD,POST",
		"PUT /users/7: 405 DELETE,POST",
		"PUT /users/7/x: 405 DELETE",
	)
}

func TestAllowJoinsTheHosts(t *testing.T) {
	check(t, []Route{
		{Pattern: "/x", Methods: []string{"GET"}, Hosts: []string{"a.example.com"}},
		{Pattern: "/x", Methods: []string{"PUT"}, Hosts: []string{"*.example.com"}},
		{Pattern: "/{id}", Methods: []string{"DELETE"}},
	}, nil,
		"POST //a.example.com/x: 405 DELETE,GET,HEAD,PUT",
		"POST //b.example.com/x: 405 DELETE,PUT",
		"POST //c.org/x: 405 DELETE",
		"PUT //a.example.com/x: 1",
		"DELETE //a.example.com/x: 2 id=x",
	)
}

// fields are header fields, one value each.
type fields map[string]string

func (f fields) Get(name []byte) []byte {
	for n, v := range f {
		if strings.EqualFold(n, string(name)) {
			return append([]byte{}, v...)
		}
	}
	return nil
}

var conditional = []Route{
	{Pattern: "/x"},
	{Pattern: "/x", Headers: map[string]string{"X-Version": "2"}},
	{Pattern: "/x", Headers: map[string]string{"X-Version": "3"}},
	{Pattern: "/x", Headers: map[string]string{"X-Version": "2"}, Query: map[string]string{"beta": "1"}},
	{Pattern: "/only", Headers: map[string]string{"X-Empty": ""}, Methods: []string{"GET"}},
	{Pattern: "/q", Query: map[string]string{"v": "1"}},
	{Pattern: "/q", Query: map[string]string{"v": "2"}},
	{Pattern: "/q", Query: map[string]string{"a b": "c&d", "e": ""}},
}

func TestMoreConditionsAreMoreSpecific(t *testing.T) {
	check(t, conditional, nil,
		"GET /x: 0",
		"GET /x?beta=1: 0",
		"GET /only: 404",
		"POST /only: 404",
		"GET /q: 404",
		"GET /q?v=1: 5",
		"GET /q?x&v=2: 6",
		// Who repeats a parameter gets the conditions that sort first.
		"GET /q?v=2&v=1: 5",
		"GET /q?a+b=c%26d&e: 7",
		"GET /q?e=&%61%20b=c%26d&v=1: 7",
		"GET /q?e=x&a+b=c%26d&e=: 7",
		"GET /q?a+b=c%26d: 404",
	)
	check(t, conditional, fields{"x-version": "2", "X-EMPTY": ""},
		"GET /x: 1",
		"GET /x?beta=1: 3",
		"GET /x?beta=2: 1",
		"GET /x?b%65ta=%31: 3",
		"GET /only: 4",
		"POST /only: 405 GET,HEAD",
	)
	check(t, conditional, fields{"X-Version": "20"}, "GET /x: 0")
}

func TestIgnoreHeadersTakesHeaderConditionsAsFulfilled(t *testing.T) {
	table := build(t, slices.Clone(conditional)...)
	for ask, want := range map[string]string{
		"GET /x":        "1",
		"GET /x?beta=1": "3",
		"GET /only":     "4",
		"PUT /only":     "405 GET,HEAD",
		"GET /q":        "404",
	} {
		r := request(ask)
		r.IgnoreHeaders = true
		if got := outcome(table, r); got != want {
			t.Errorf("%s: got %s, want %s", ask, got, want)
		}
	}
}

func TestListenersRestrict(t *testing.T) {
	table := build(t,
		Route{Pattern: "/x"},
		Route{Pattern: "/x", Listeners: []string{"secure", "internal"}},
		Route{Pattern: "/metrics", Listeners: []string{"internal"}, Methods: []string{"GET"}},
	)
	for _, tt := range []struct{ listener, ask, want string }{
		{"plain", "GET /x", "0"},
		{"secure", "GET /x", "1"},
		{"internal", "GET /x", "1"},
		{"internal", "GET /metrics", "2"},
		{"internal", "POST /metrics", "405 GET,HEAD"},
		{"secure", "GET /metrics", "404"},
		{"plain", "POST /metrics", "404"},
		{"", "GET /metrics", "404"},
	} {
		r := request(tt.ask)
		r.Listener = tt.listener
		if got := outcome(table, r); got != tt.want {
			t.Errorf("%s on %q: got %s, want %s", tt.ask, tt.listener, got, tt.want)
		}
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	routes := slices.Clone(conditional)
	routes = append(routes,
		Route{Pattern: "/users/{id}/posts/{post}", Hosts: []string{"*.example.com"}, Methods: []string{"GET"}},
		Route{Pattern: "/files/{path...}", Methods: []string{"GET"}},
	)
	table := build(t, routes...)
	asks := []*Request{
		request("GET //api.example.com/users/7/posts/3"),
		request("POST //api.example.com/users/7/posts/3"),
		request("GET //api.example.com/users/7/posts"),
		request("GET /files/a/b/c"),
		request("GET /x?beta=1"),
		request("GET /none"),
	}
	header := fixedField("2")
	hits := 0
	n := testing.AllocsPerRun(100, func() {
		// As the gateway does it: everything but the bytes is on the stack.
		var space [4]Param
		params := Params(space[:0])
		for _, r := range asks {
			m := table.Match(&Request{Method: r.Method, Host: r.Host, Path: r.Path, Query: r.Query, Header: &header}, &params)
			if m.Found {
				hits += 1 + len(params)
			}
		}
	})
	if n != 0 || hits == 0 {
		t.Errorf("%v allocations, want none (%d)", n, hits)
	}
}

// fixedField is the value of any header field.
type fixedField []byte

func (f *fixedField) Get([]byte) []byte { return *f }

func TestParamsAreOverwritten(t *testing.T) {
	table := build(t, Route{Pattern: "/a/{x}/{y}"}, Route{Pattern: "/b/{z}"}, Route{Pattern: "/c"})
	p := make(Params, 0, 1)
	for _, tt := range []struct{ ask, want string }{
		{"GET /a/1/2", "x=1 y=2"},
		{"GET /b/3", "z=3"},
		{"GET /c", ""},
		{"GET /a/1", ""},
	} {
		table.Match(request(tt.ask), &p)
		var got []string
		for _, v := range p {
			got = append(got, v.Name+"="+string(v.Value))
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s: got %q, want %q", tt.ask, s, tt.want)
		}
	}
	table.Match(request("GET /a/1/2"), &p)
	if string(p.Get("y")) != "2" || p.Get("z") != nil {
		t.Errorf("Get finds %q and %q", p.Get("y"), p.Get("z"))
	}
}

// countedFields counts how often each field is asked for and has none.
type countedFields map[string]int

func (c countedFields) Get(name []byte) []byte {
	c[string(name)]++
	return nil
}

// TestSearchEntersANodeOnce makes tables in which every segment can be taken in
// two ways and no route holds, so that a search goes everywhere. Each route has
// a condition of its own on a header, which counts the visits to its node.
func TestSearchEntersANodeOnce(t *testing.T) {
	for name, choices := range map[string][]string{
		"literal and parameter": {"a", "{%}"},
		"three ways":            {"a", "{%}", "a{%}", "{%}a"},
	} {
		t.Run(name, func(t *testing.T) {
			var routes []Route
			patterns := []string{""}
			for len(patterns)*len(choices) <= 8192 {
				var longer []string
				for _, p := range patterns {
					id := len(routes)
					routes = append(routes, Route{ID: id, Pattern: p + "/{rest...}", Headers: map[string]string{"X-" + strconv.Itoa(id): "1"}})
					for _, c := range choices {
						longer = append(longer, p+"/"+strings.ReplaceAll(c, "%", "p"+strconv.Itoa(strings.Count(p, "/"))))
					}
				}
				patterns = longer
			}
			table, conflicts := New(routes)
			if len(conflicts) > 0 {
				t.Fatal(conflicts[0])
			}
			for _, path := range []string{strings.Repeat("/a", 12), strings.Repeat("/aaa", 12), strings.Repeat("/a", 50_000), strings.Repeat("/", 50_000)} {
				visits := countedFields{}
				if m := table.Match(&Request{Method: "GET", Path: []byte(path), Header: visits}, new(Params)); m.Found {
					t.Fatalf("%.20s: matched", path)
				}
				for field, n := range visits {
					if n > 1 {
						t.Fatalf("%.20s: the node of %s was entered %d times", path, field, n)
					}
				}
			}
		})
	}
}
