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

func TestMatchTakesTheMostSpecificPath(t *testing.T) {
	routes := []Route{
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
	}
	for _, tt := range []struct{ path, want string }{
		{"/", "0"},
		{"/users", "1"},
		{"/users/", "404"},
		{"/users/7", "2 id=7"},
		{"/users/me", "3"},
		{"/users/7/posts", "4 id=7"},
		{"/users/me/posts", "5 rest=posts"},
		{"/users/me/", "5 rest="},
		{"/users/7/", "404"},
		{"/a/b/d", "7"},
		{"/a/b/c", "6 x=b"},
		{"/a/b/e", "404"},
		{"/files", "8 path="},
		{"/files/", "8 path="},
		{"/files/a/b/c", "8 path=a/b/c"},
		{"/files/a/index", "9 dir=a"},
		{"/files/a/index/", "8 path=a/index/"},
		{"/filesystem", "404"},
		{"/user", "404"},
		{"*", "404"},
		{"", "404"},
	} {
		for range 2 {
			table := build(t, slices.Clone(routes)...)
			if got := outcome(table, request("GET "+tt.path)); got != tt.want {
				t.Errorf("%s: got %s, want %s", tt.path, got, tt.want)
			}
		}
	}
}
