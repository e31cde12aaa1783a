package router

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The oracle decides about one route at a time, from the route as it was
// written and the request as text, sharing nothing with the table but the
// names of the types. A rank is a list of numbers, compared from the left;
// greater is more specific.

type verdict struct {
	matches    bool
	but4Method bool // everything but the method matches
	rank       []int
	params     string
	order      []string
}

func judge(r *Route, q *Request) verdict {
	host, ok := judgeHost(r.Hosts, string(q.Host))
	if !ok {
		return verdict{}
	}
	path, params, ok := judgePath(r.Pattern, string(q.Path))
	if !ok {
		return verdict{}
	}
	rank := append([]int{host}, path...)
	switch {
	case len(r.Listeners) == 0:
		rank = append(rank, 0)
	case slices.Contains(r.Listeners, q.Listener):
		rank = append(rank, 1)
	default:
		return verdict{}
	}
	if !judgeConditions(r, q) {
		return verdict{}
	}
	v := verdict{but4Method: true, params: params, order: conditionOrder(r)}
	method := 0
	switch {
	case q.Method == "TRACE" || q.Method == "CONNECT":
		return v
	case slices.Contains(r.Methods, q.Method):
		method = 2
	case q.Method == "HEAD" && slices.Contains(r.Methods, "GET"):
		method = 1
	case len(r.Methods) > 0:
		return v
	}
	v.matches, v.rank = true, append(rank, method, len(r.Headers)+len(r.Query))
	return v
}

func judgeHost(hosts []string, host string) (rank int, ok bool) {
	if len(hosts) == 0 {
		return 0, true
	}
	best := 0
	for _, h := range hosts {
		if base, wild := strings.CutPrefix(h, "*."); wild {
			if label, parent, _ := strings.Cut(host, "."); label != "" && parent == base {
				best = max(best, 1)
			}
		} else if h == host {
			best = 2
		}
	}
	return best, best > 0
}

// judgePath ranks each segment of the pattern by four numbers: its kind, and
// for a mixed one the lengths of its text. A pattern that ends where the path
// does ranks above {name...} that takes nothing.
func judgePath(pattern, path string) (rank []int, params string, ok bool) {
	if !strings.HasPrefix(path, "/") {
		return nil, "", false
	}
	ps, ss := strings.Split(pattern, "/")[1:], strings.Split(path, "/")[1:]
	for i, p := range ps {
		if strings.HasSuffix(p, "...}") {
			value := strings.Join(ss[min(i, len(ss)):], "/")
			return append(rank, 0, 0, 0), params + " " + strings.Trim(p, "{.}") + "=" + value, i <= len(ss)
		}
		if i >= len(ss) {
			return nil, "", false
		}
		open, end := strings.IndexByte(p, '{'), strings.IndexByte(p, '}')
		if open < 0 {
			if p != ss[i] {
				return nil, "", false
			}
			rank = append(rank, 3, 0, 0)
			continue
		}
		value, ok := between(p[:open], p[end+1:], ss[i])
		if !ok {
			return nil, "", false
		}
		params += " " + p[open+1:end] + "=" + value
		kind := 1
		if open > 0 || end < len(p)-1 {
			kind = 2
		}
		rank = append(rank, kind, open, len(p)-end-1)
	}
	return append(rank, 9, 0, 0), params, len(ps) == len(ss)
}

// between takes prefix and suffix off a segment, character by character, where
// a percent-encoding is one character.
func between(prefix, suffix, segment string) (string, bool) {
	chars := func(s string) (list []string) {
		for i := 0; i < len(s); {
			n := 1
			if s[i] == '%' {
				n = 3
			}
			list, i = append(list, s[i:i+n]), i+n
		}
		return list
	}
	pre, suf, seg := chars(prefix), chars(suffix), chars(segment)
	n := len(seg) - len(suf)
	if n <= len(pre) || !slices.Equal(seg[:len(pre)], pre) || !slices.Equal(seg[n:], suf) {
		return "", false
	}
	return strings.Join(seg[len(pre):n], ""), true
}

func judgeConditions(r *Route, q *Request) bool {
	for name, want := range r.Headers {
		if q.IgnoreHeaders {
			continue
		}
		if q.Header == nil {
			return false
		}
		if v := q.Header.Get([]byte(name)); v == nil || string(v) != want {
			return false
		}
	}
	values, err := url.ParseQuery(string(q.Query))
	if err != nil {
		panic(err)
	}
	for name, want := range r.Query {
		if !slices.Contains(values[name], want) {
			return false
		}
	}
	return true
}

func conditionOrder(r *Route) (list []string) {
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		list = append(list, "header", strings.ToLower(name), r.Headers[name])
	}
	for _, name := range slices.Sorted(maps.Keys(r.Query)) {
		list = append(list, "query", name, r.Query[name])
	}
	return list
}

// exempt reports whether two routes want different values of one query
// parameter, or of a header when those are ignored.
func exempt(a, b *Route, ignoreHeaders bool) bool {
	for name, value := range a.Headers {
		if other, ok := b.Headers[name]; ok && other != value && ignoreHeaders {
			return true
		}
	}
	for name, value := range a.Query {
		if other, ok := b.Query[name]; ok && other != value {
			return true
		}
	}
	return false
}

// answer is what the oracle expects, in the form of outcome.
func answer(t *rapid.T, routes []Route, q *Request) string {
	var best *Route
	var won verdict
	allow := map[string]bool{}
	for i := range routes {
		r := &routes[i]
		v := judge(r, q)
		if v.but4Method {
			for _, m := range r.Methods {
				allow[m] = true
			}
			if slices.Contains(r.Methods, "GET") {
				allow["HEAD"] = true
			}
			if len(r.Methods) == 0 {
				for _, m := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
					allow[m] = true
				}
			}
		}
		if !v.matches {
			continue
		}
		order := 1
		if best != nil {
			order = slices.Compare(v.rank, won.rank)
			if order == 0 {
				if !exempt(r, best, q.IgnoreHeaders) {
					t.Fatalf("an unseen conflict: %+v and %+v for %s", *best, *r, show(q))
				}
				order = slices.Compare(won.order, v.order)
			}
		}
		if order > 0 {
			best, won = r, v
		}
	}
	switch {
	case best != nil:
		return fmt.Sprint(best.ID, won.params)
	case len(allow) > 0:
		return "405 " + strings.Join(slices.Sorted(maps.Keys(allow)), ",")
	}
	return "404"
}

func show(q *Request) string {
	return fmt.Sprintf("%s %s %s ?%s on %q ignoring headers: %t", q.Method, q.Host, q.Path, q.Query, q.Listener, q.IgnoreHeaders)
}

var (
	texts  = []string{"a", "b", "ab", "a.json", "a%20", "a%200", "longer-than-eight-bytes", "longer-than-eight-bytes-too"}
	others = []string{"c", "abb", "axb", "ab.json", "a%20b", "a%20%200", ".json", "0"}
	hosts  = []string{"h.com", "x.h.com", "*.h.com", "*.x.h.com"}
)

// chance is true once in n times. (rapid prefers small numbers, so small n come
// true more often than that.)
func chance(t *rapid.T, n int, label string) bool {
	return rapid.Uint32().Draw(t, label)%uint32(n) == 0
}

func pick[T any](t *rapid.T, list []T, label string) T {
	return list[rapid.Uint32().Draw(t, label)%uint32(len(list))]
}

func drawRoute(t *rapid.T, id int) Route {
	r := Route{ID: id}
	for i := range pick(t, []int{0, 1, 1, 2, 2, 2, 3, 4}, "segments") {
		switch pick(t, []int{0, 0, 0, 0, 1, 1, 1, 2}, "kind") {
		case 0:
			r.Pattern += "/" + pick(t, texts[:2+id%len(texts[2:])], "text")
		case 1:
			r.Pattern += fmt.Sprintf("/{p%d}", i)
		default:
			prefix := pick(t, []string{"", "a", "ab", "a%20", "a."}, "prefix")
			suffix := pick(t, []string{"", "b", "0", ".json", "n"}, "suffix")
			r.Pattern += fmt.Sprintf("/%s{p%d}%s", prefix, i, suffix)
		}
	}
	switch pick(t, []int{0, 0, 0, 0, 1, 2}, "end") {
	case 1:
		r.Pattern += "/{rest...}"
	case 2:
		r.Pattern += "/"
	}
	if r.Pattern == "" {
		r.Pattern = "/"
	}
	r.Methods = pick(t, [][]string{nil, nil, nil, {"GET"}, {"GET"}, {"POST"}, {"HEAD"}, {"GET", "POST"}, {"PURGE"}}, "methods")
	if chance(t, 3, "hosted") {
		r.Hosts = rapid.SliceOfNDistinct(rapid.SampledFrom(hosts), 1, 2, rapid.ID).Draw(t, "hosts")
	}
	if chance(t, 5, "restricted") {
		r.Listeners = pick(t, [][]string{{"one"}, {"two"}, {"one", "two"}}, "listeners")
	}
	if chance(t, 4, "header conditions") {
		r.Headers = rapid.MapOfN(rapid.SampledFrom([]string{"X-A", "X-B"}), rapid.SampledFrom([]string{"1", "2"}), 1, 2).Draw(t, "headers")
	}
	if chance(t, 4, "query conditions") {
		r.Query = rapid.MapOfN(rapid.SampledFrom([]string{"q", "ü&"}), rapid.SampledFrom([]string{"1", " +"}), 1, 2).Draw(t, "query")
	}
	return r
}

// drawRequest makes a request near one of the routes: each of its parts fits
// the route, or is anything.
func drawRequest(t *rapid.T, routes []Route) *Request {
	r := pick(t, routes, "near")
	q := &Request{
		Method:        pick(t, []string{"GET", "HEAD", "POST", "PURGE", "OPTIONS", "TRACE", "LOCK"}, "method"),
		Listener:      pick(t, []string{"one", "two", "three"}, "listener"),
		Host:          []byte(pick(t, []string{"", "h.com", "x.h.com", "y.h.com", "z.x.h.com", "other.org"}, "host")),
		IgnoreHeaders: chance(t, 10, "ignore"),
	}
	if len(r.Methods) > 0 && !chance(t, 3, "other method") {
		q.Method = pick(t, r.Methods, "own method")
	}
	if len(r.Hosts) > 0 && !chance(t, 3, "other host") {
		q.Host = []byte(strings.Replace(pick(t, r.Hosts, "own host"), "*", pick(t, []string{"x", "y"}, "label"), 1))
	}
	q.Path = []byte(drawPath(t, r.Pattern))
	query := rapid.SliceOfN(rapid.SampledFrom([]string{"q=1", "q", "%71=%31", "q=+%2B", "%c3%bc%26=1", "ü%26=%20%2b", ""}), 0, 3).Draw(t, "query")
	headers := rapid.MapOfN(rapid.SampledFrom([]string{"x-a", "x-b"}), rapid.SampledFrom([]string{"1", "2", "3"}), 0, 2).Draw(t, "headers")
	if !chance(t, 3, "other conditions") {
		for name, value := range r.Query {
			query = append(query, url.QueryEscape(name)+"="+url.QueryEscape(value))
		}
		for name, value := range r.Headers {
			headers[strings.ToLower(name)] = value
		}
	}
	slices.Sort(query)
	q.Query = []byte(strings.Join(query, "&"))
	if len(headers) > 0 {
		q.Header = fields(headers)
	}
	return q
}

func drawPath(t *rapid.T, pattern string) string {
	value := func() string { return pick(t, append(others, texts...), "value") }
	var path string
	for segment := range strings.SplitSeq(pattern[1:], "/") {
		open, end := strings.IndexByte(segment, '{'), strings.IndexByte(segment, '}')
		switch {
		case strings.HasSuffix(segment, "...}"):
			for range pick(t, []int{0, 1, 2}, "remainder") {
				path += "/" + value()
			}
		case chance(t, 8, "other segment"):
			path += "/" + value()
		case open >= 0:
			path += "/" + segment[:open] + value() + segment[end+1:]
		default:
			path += "/" + segment
		}
	}
	if path == "" || chance(t, 10, "slash") && path[len(path)-1] != '/' {
		path += "/"
	}
	return path
}

// sound takes the later route out of every reported conflict until there are
// none, checking each report on the way.
func sound(t *rapid.T, routes []Route) ([]Route, *Table) {
	for {
		table, conflicts := New(routes)
		if len(conflicts) == 0 {
			return routes, table
		}
		drop := map[int]bool{}
		for _, c := range conflicts {
			if c.B < 0 {
				t.Fatalf("a good route was refused: %+v", c)
			}
			checkExample(t, routes, c)
			drop[c.B] = true
		}
		routes = slices.DeleteFunc(slices.Clone(routes), func(r Route) bool { return drop[r.ID] })
	}
}

// checkExample reads the example of a conflict back and asks the oracle whether
// both routes match it, and are equally specific.
func checkExample(t *rapid.T, routes []Route, c Conflict) {
	q := readExample(c.Example)
	var ranks [][]int
	for _, id := range []int{c.A, c.B} {
		r := &routes[slices.IndexFunc(routes, func(r Route) bool { return r.ID == id })]
		v := judge(r, q)
		if !v.matches {
			t.Fatalf("%+v does not match the example %q", *r, c.Example)
		}
		ranks = append(ranks, v.rank)
	}
	if !slices.Equal(ranks[0], ranks[1]) {
		t.Fatalf("no conflict: %q has ranks %v", c.Example, ranks)
	}
}

func readExample(s string) *Request {
	s, listener, _ := strings.Cut(s, " on listener ")
	s, list, _ := strings.Cut(s, " with ")
	q := request(strings.Replace(s, "http:", "", 1))
	q.Listener = listener
	header := fields{}
	for field := range strings.SplitSeq(list, ", ") {
		name, value, _ := strings.Cut(field, ": ")
		header[name] = value
	}
	q.Header = header
	return q
}

func compareWithOracle(t *rapid.T) {
	var routes []Route
	for id := range rapid.IntRange(1, 16).Draw(t, "routes") {
		r := drawRoute(t, id)
		if id > 0 && chance(t, 3, "same path") {
			r.Pattern = strings.ReplaceAll(pick(t, routes, "as").Pattern, "{p", "{again")
		}
		routes = append(routes, r)
	}
	routes, table := sound(t, routes)
	shuffled := rapid.Permutation(routes).Draw(t, "order")
	other, _ := New(shuffled)
	for range 20 {
		q := drawRequest(t, routes)
		want := answer(t, routes, q)
		if got := outcome(table, q); got != want {
			t.Fatalf("%s: got %q, want %q", show(q), got, want)
		}
		if got := outcome(other, q); got != want {
			t.Fatalf("%s: in another order %q, want %q", show(q), got, want)
		}
	}
}

func TestMatchAgreesWithALinearMatcher(t *testing.T) { rapid.Check(t, compareWithOracle) }

func FuzzMatch(f *testing.F) { f.Fuzz(rapid.MakeFuzz(compareWithOracle)) }
