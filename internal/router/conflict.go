package router

import (
	"fmt"
	"maps"
	"math/bits"
	"net/url"
	"slices"
	"strings"
)

// Conflicts. Patterns of different shape are never equally specific for a path
// that both match, so only routes at the same end of the same tree can be in
// conflict. There, two are when they are alike in being restricted to listeners
// and in listing methods, share a listener and a method, have the same number
// of conditions, and no header or query parameter of which they want different
// values.
//
// The routes of an end are split by listener, method and number of conditions,
// then by the value of any name that all in the group have a condition on:
// different values cannot conflict. What is left with nothing to split by is
// alike in every condition, which is a conflict of each with the first, or has
// no name common to all and is compared pair by pair. So thousands of routes
// that differ in a header's value cost no more than as many paths would.

func (b *builder) findConflicts(routes []*compiled, set *hostSet) {
	type kind struct {
		restricted, listed bool
		conds              int
	}
	groups := map[kind][]*compiled{}
	for _, c := range routes {
		k := kind{c.listeners != 0, c.methods != 0, len(c.conds)}
		groups[k] = append(groups[k], c)
	}
	for _, group := range groups {
		for _, sharing := range split(group, func(c *compiled) uint64 { return c.listeners }) {
			for _, same := range split(sharing, func(c *compiled) uint64 { return c.methods }) {
				b.compare(same, nil, set)
			}
		}
	}
}

// split returns for each bit the routes that have it; those of a group without
// bits stay together.
func split(group []*compiled, set func(*compiled) uint64) [][]*compiled {
	if len(group) < 2 {
		return nil
	}
	var all uint64
	for _, c := range group {
		all |= set(c)
	}
	if all == 0 {
		return [][]*compiled{group}
	}
	var parts [][]*compiled
	for ; all != 0; all &= all - 1 {
		bit := all & -all
		var part []*compiled
		for _, c := range group {
			if set(c)&bit != 0 {
				part = append(part, c)
			}
		}
		parts = append(parts, part)
	}
	return parts
}

// compare reports the conflicts in a group of routes that share everything but
// conditions, of which they have the same number. done are the conditions that
// all of them have in common.
func (b *builder) compare(group []*compiled, done []condition, set *hostSet) {
	if len(group) < 2 {
		return
	}
	if len(done) == len(group[0].conds) {
		for _, c := range group[1:] {
			b.report(group[0], c, set)
		}
		return
	}
	for _, d := range group[0].conds {
		if slices.ContainsFunc(done, d.sameName) || !allHave(group, d) {
			continue
		}
		byValue := map[string][]*compiled{}
		for _, c := range group {
			value := c.conds[slices.IndexFunc(c.conds, d.sameName)].value
			byValue[value] = append(byValue[value], c)
		}
		for _, value := range slices.Sorted(maps.Keys(byValue)) {
			b.compare(byValue[value], append(slices.Clip(done), d), set)
		}
		return
	}
	for j, c := range group {
		for _, first := range group[:j] {
			if compatible(first.conds, c.conds) {
				b.report(first, c, set)
				break
			}
		}
	}
}

func (c condition) sameName(o condition) bool { return compareConditions(c, o) == 0 }

func allHave(group []*compiled, d condition) bool {
	for _, c := range group {
		if !slices.ContainsFunc(c.conds, d.sameName) {
			return false
		}
	}
	return true
}

// compatible reports whether one request can fulfil both lists of conditions
// without repeating a query parameter.
func compatible(a, b []condition) bool {
	for len(a) > 0 && len(b) > 0 {
		switch order := compareConditions(a[0], b[0]); {
		case order < 0:
			a = a[1:]
		case order > 0:
			b = b[1:]
		case a[0].value != b[0].value:
			return false
		default:
			a, b = a[1:], b[1:]
		}
	}
	return true
}

// pair is a conflict that was found while the table was not finished.
type pair struct {
	first, second *compiled
	set           *hostSet
}

func (b *builder) report(x, y *compiled, set *hostSet) {
	if b.order[x.id] > b.order[y.id] {
		x, y = y, x
	}
	if x.id == y.id || b.reported[[2]int{x.id, y.id}] {
		return
	}
	b.reported[[2]int{x.id, y.id}] = true
	b.pairs = append(b.pairs, pair{x, y, set})
}

// explain makes a Conflict of every pair.
func (b *builder) explain() {
	for _, p := range b.pairs {
		ex := b.tie(p)
		b.conflicts = append(b.conflicts, Conflict{
			A: p.first.id, B: p.second.id,
			Reason: fmt.Sprintf("%s and %s are equally specific for %s: give one of them another host, path or method, or one more condition",
				p.first.pattern, p.second.pattern, ex.Method),
			Example: ex.String(),
		})
	}
}

// tie returns an example for a pair; if it finds one, an example that the
// finished table does not give to a third route.
func (b *builder) tie(p pair) example {
	for _, filler := range []string{"x", "1", "any", "some-value"} {
		for _, rest := range []string{filler, filler + "/" + filler, filler + "/" + filler + "/" + filler} {
			ex := b.example(p, filler, rest)
			if m := b.t.Match(ex.request(), new(Params)); m.Found && (m.ID == p.first.id || m.ID == p.second.id) {
				return ex
			}
		}
	}
	return b.example(p, "x", "x")
}

// example is a request that two routes match.
type example struct {
	Listener, Method, Host, Path string
	Headers, Query               []condition
}

// example makes one with the given values for parameters.
func (b *builder) example(p pair, filler, remainder string) example {
	x, y := p.first, p.second
	ex := example{Method: "GET", Host: p.set.hosts[0]}
	if name, ok := strings.CutPrefix(ex.Host, "*."); ok {
		ex.Host = "any." + name
	}
	if common := x.methods & y.methods; common&bitGet == 0 && common != 0 {
		ex.Method = b.t.methodName(bits.TrailingZeros64(common))
	}
	if common := x.listeners & y.listeners; common != 0 {
		ex.Listener = b.t.listeners[bits.TrailingZeros64(common)]
	}
	for i := range x.segments {
		s := &x.segments[i]
		switch s.kind {
		case literal:
			ex.Path += "/" + s.text
		case mixed:
			ex.Path += "/" + s.text + filler + s.suffix
		case param:
			ex.Path += "/" + filler
		case rest:
			ex.Path += "/" + remainder
		}
	}
	all := append(slices.Clone(x.conds), y.conds...)
	slices.SortStableFunc(all, compareConditions)
	for _, c := range slices.CompactFunc(all, condition.sameName) {
		if c.header {
			ex.Headers = append(ex.Headers, c)
		} else {
			ex.Query = append(ex.Query, c)
		}
	}
	return ex
}

func (ex example) request() *Request {
	return &Request{
		Listener: ex.Listener, Method: ex.Method, Host: []byte(ex.Host), Path: []byte(ex.Path),
		Query: []byte(strings.TrimPrefix(ex.query(), "?")), Header: ex,
	}
}

// Get returns a header field of the example.
func (ex example) Get(name []byte) []byte {
	for _, c := range ex.Headers {
		if strings.EqualFold(c.name, string(name)) {
			return append([]byte{}, c.value...)
		}
	}
	return nil
}

// String writes it for people: GET http://host/path?query with Name: value on
// listener name.
func (ex example) String() string {
	var s strings.Builder
	s.WriteString(ex.Method + " ")
	if ex.Host != "" {
		s.WriteString("http://" + ex.Host)
	}
	s.WriteString(ex.Path)
	s.WriteString(ex.query())
	for i, c := range ex.Headers {
		s.WriteString([]string{" with ", ", "}[min(i, 1)] + c.name + ": " + c.value)
	}
	if ex.Listener != "" {
		s.WriteString(" on listener " + ex.Listener)
	}
	return s.String()
}

func (ex example) query() string {
	var s strings.Builder
	for i, c := range ex.Query {
		s.WriteString([]string{"?", "&"}[min(i, 1)] + url.QueryEscape(c.name) + "=" + url.QueryEscape(c.value))
	}
	return s.String()
}
