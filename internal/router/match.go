package router

// The table in memory, and the search in it.
//
// Every set of hosts that share all their routes has one tree; so have the
// routes of any host. A tree is a radix tree whose letters are path segments:
// an edge is one literal segment, or a run of them where nothing branches, and
// a node may also have edges for segments with a parameter. Nodes, edges and
// routes lie in flat arrays and point at each other by index (0 is none), so a
// table is a handful of allocations, without pointers for the collector to
// follow.
//
//	/users/{id}          0 ─"users"─ 1 ─{}─ 2 (routes)
//	/users/me            1 ─"me"─ 3 (routes)
//	/files/{p...}        0 ─"files"─ 4 (rest: routes)
//
// The search goes depth first, at each node in the order of specificity:
// literal, mixed segments, {name}, {name...}. The first route found is
// therefore the most specific by path; within a node the routes are sorted by
// the remaining parts (listener, method, conditions), so the first that holds
// wins as a whole. A dead end goes back to the last node with an alternative.
//
// # Bound
//
// A node has one parent and stands at one depth, {name...} has no children, and
// an edge consumes whole segments: there is one way to each node, so no search
// enters a node twice. A search costs at most one visit to each node whose
// pattern the path begins with, never more than the table has, and nothing for
// segments behind the deepest node; it cannot grow exponentially with the path.

// onlyEnd marks a reference to a node that has nothing but routes that end
// there: what is left of it is the index of the first of those in
// Table.entries, and there is no node at all.
const onlyEnd = 1 << 31

// node is where a pattern may branch or end. It fills one cache line, so that a
// node with one or two literal edges costs no other.
type node struct {
	few   [2]edge // its literal edges when there are at most two
	edges uint32  // else the first of them: a hash table of size slots
	size  uint32  // a power of two, or 0
	mixed uint32  // first of its mixed edges, up to the one marked last
	param uint32  // node behind {name}
	leaf  uint32  // first of the routes that end here
	rest  uint32  // first of the routes that end here with {name...}
	_     [2]uint32
}

// edge is a literal edge; there is none when child is 0.
type edge struct {
	key   uint64 // of the label's first segment
	child uint32
	label uint32 // index in Table.labels; or wholeKey and a length: the label is the key
}

const wholeKey = 1 << 31

// mixedEdge is a segment with literal text around its parameter. The edges of
// a node are sorted by specificity.
type mixedEdge struct {
	prefix, suffix string
	child          uint32
	last           bool
}

// entry is a route at the end of a pattern. The entries of one end are sorted
// by specificity. Half a cache line.
type entry struct {
	methods   uint64 // bit set of Table.methods
	listeners uint64 // bit set of Table.listeners, 0: every one
	id        int
	conds     uint32 // first of its conditions, 0: none; with lastEntry in the last of a list
	names     uint32 // of its parameters, index in Table.names
}

const lastEntry = 1 << 31

// allow is what e adds to an Allow list.
func (e *entry) allow() uint64 {
	if e.methods == anyMethod {
		return usualMethods
	}
	return e.methods
}

// condition wants a header or a query parameter to have a value. Those of one
// route follow each other up to the one marked last.
type condition struct {
	name, value string
	field       []byte // name, of a header condition
	header      bool
	last        bool
}

// Table is an immutable set of routes.
type Table struct {
	nodes   []node
	edges   []edge
	mixed   []mixedEdge
	entries []entry
	conds   []condition
	names   [][]string
	labels  []string

	exact uint32 // node whose literal edges are hosts and lead to the roots of trees
	wild  uint32 // the same for the name behind "*."
	any   uint32 // root of the tree of any host

	methods   []string // by bit, from firstCustom
	listeners []string // by bit
	allow     map[uint64][]string
}

// maxParams is how many parameters a pattern may have. It bounds the memory of
// a search, so that all of it is on the stack.
const maxParams = 16

// span is a part of the path.
type span struct{ from, to uint32 }

// search is the state of one Match. It holds no pointer that a search changes,
// so that the caller's Params can stay on the caller's stack.
type search struct {
	t        *Table
	r        *Request
	path     []byte
	method   uint64 // its bit
	listener uint64 // its bit, 0 when no route names it
	// collect: go everywhere, accept nothing and gather allow.
	collect bool
	other   bool // a route was passed over for its method
	allow   uint64
	params  [maxParams]span // those of the way to the current node, and older ones behind
}

// Match finds the route of r and its parameters, for which p's memory is used.
// It does not allocate when p has room for the parameters (or the route has
// none), except when it has to join an Allow list out of several nodes.
func (t *Table) Match(r *Request, p *Params) Match {
	*p = (*p)[:0]
	if len(r.Path) == 0 || r.Path[0] != '/' {
		return Match{}
	}
	s := search{t: t, r: r, path: r.Path, method: t.methodBit(r.Method)}
	if len(t.listeners) > 0 {
		s.listener = t.listenerBit(r.Listener)
	}
	exact, wild := t.hosts(r.Host)
	e := s.roots(exact, wild)
	if e == nil {
		if !s.other {
			return Match{}
		}
		s.collect = true
		s.roots(exact, wild)
		return Match{Allow: t.allowList(s.allow)}
	}
	if names := t.names[e.names]; len(names) > 0 {
		if cap(*p) < len(names) {
			*p = make(Params, len(names))
		}
		*p = (*p)[:len(names)]
		for i, name := range names {
			v := s.params[i]
			(*p)[i] = Param{Name: name, Value: r.Path[v.from:v.to]}
		}
	}
	return Match{ID: e.id, Found: true}
}

// hosts returns the roots of the trees for a host: its own, and its wildcard's.
func (t *Table) hosts(host []byte) (exact, wild uint32) {
	if n := len(host); n > 0 && host[n-1] == '.' {
		host = host[:n-1]
	}
	if t.exact != 0 {
		exact = t.root(&t.nodes[t.exact], host)
	}
	if t.wild != 0 {
		for i, c := range host {
			if c == '.' {
				if i > 0 {
					wild = t.root(&t.nodes[t.wild], host[i+1:])
				}
				break
			}
		}
	}
	return exact, wild
}

// root follows the edge of a host node whose label is the whole host.
func (t *Table) root(n *node, host []byte) uint32 {
	end, key := scan(host, 0)
	if end != len(host) || end == 0 {
		return 0
	}
	child, _ := t.follow(n, host, 0, end, key)
	return child
}

// roots searches the trees of a request, the most specific host first.
func (s *search) roots(exact, wild uint32) *entry {
	for _, root := range [...]uint32{exact, wild, s.t.any} {
		if root != 0 {
			if e := s.walk(root, 1, 0); e != nil {
				return e
			}
		}
	}
	return nil
}

// walk searches below node n. at is where the next segment begins in the path,
// len(path)+1 when there is none; depth is how many parameters there are on the
// way to n.
func (s *search) walk(n uint32, at, depth int) *entry {
	t, path := s.t, s.path
	for {
		if n&onlyEnd != 0 {
			if at > len(path) {
				return s.pick(n &^ onlyEnd)
			}
			return nil
		}
		nd := &t.nodes[n]
		if at > len(path) {
			return s.end(nd, depth)
		}
		end, key := scan(path, at)
		child, next := t.follow(nd, path, at, end, key)
		if nd.mixed|nd.param|nd.rest == 0 {
			if child == 0 {
				return nil
			}
			n, at = child, next
			continue
		}
		if child != 0 {
			if e := s.walk(child, next, depth); e != nil {
				return e
			}
		}
		if nd.mixed != 0 {
			if e := s.mixed(nd, at, end, depth); e != nil {
				return e
			}
		}
		if nd.param != 0 && end > at {
			s.params[depth] = span{uint32(at), uint32(end)}
			if nd.rest == 0 {
				n, at, depth = nd.param, end+1, depth+1
				continue
			}
			if e := s.walk(nd.param, end+1, depth+1); e != nil {
				return e
			}
		}
		if nd.rest == 0 {
			return nil
		}
		s.params[depth] = span{uint32(at), uint32(len(path))}
		return s.pick(nd.rest)
	}
}

// end is walk at the end of the path.
func (s *search) end(nd *node, depth int) *entry {
	if nd.leaf != 0 {
		if e := s.pick(nd.leaf); e != nil {
			return e
		}
	}
	if nd.rest == 0 {
		return nil
	}
	s.params[depth] = span{uint32(len(s.path)), uint32(len(s.path))}
	return s.pick(nd.rest)
}

// follow finds the literal edge that the path takes from at, where a segment
// with that key reaches to end, and where the next segment begins behind the
// edge. The child is 0 when there is none.
func (t *Table) follow(nd *node, path []byte, at, end int, key uint64) (child uint32, next int) {
	if nd.size == 0 {
		for i := range nd.few {
			if e := &nd.few[i]; e.key == key && e.child != 0 {
				if child, next := t.take(e, path, at, end); child != 0 {
					return child, next
				}
			}
		}
		return 0, 0
	}
	// The table is never full, so the search comes to a free slot.
	for i := slot(key, nd.size); ; i = (i + 1) & (nd.size - 1) {
		e := &t.edges[nd.edges+i]
		if e.child == 0 {
			return 0, 0
		}
		if e.key == key {
			if child, next := t.take(e, path, at, end); child != 0 {
				return child, next
			}
		}
	}
}

// take compares the whole label of an edge whose key fits.
func (t *Table) take(e *edge, path []byte, at, end int) (child uint32, next int) {
	if e.label&wholeKey != 0 {
		if uint32(end-at) != e.label&^wholeKey {
			return 0, 0
		}
		return e.child, end + 1
	}
	label := t.labels[e.label]
	stop := at + len(label)
	if stop > len(path) || string(path[at:stop]) != label || stop < len(path) && path[stop] != '/' {
		return 0, 0
	}
	return e.child, stop + 1
}

// mixed tries the mixed edges of a node for the segment path[at:end].
func (s *search) mixed(nd *node, at, end, depth int) *entry {
	seg := s.path[at:end]
	for i := nd.mixed; ; i++ {
		m := &s.t.mixed[i]
		if from, to := len(m.prefix), len(seg)-len(m.suffix); to > from &&
			string(seg[:from]) == m.prefix && string(seg[to:]) == m.suffix && !insidePercent(seg, to) {
			s.params[depth] = span{uint32(at + from), uint32(at + to)}
			if e := s.walk(m.child, end+1, depth+1); e != nil {
				return e
			}
		}
		if m.last {
			return nil
		}
	}
}

// insidePercent reports whether a percent-encoding reaches over seg[at].
func insidePercent(seg []byte, at int) bool {
	return seg[at-1] == '%' && at < len(seg) || at > 1 && seg[at-2] == '%' && at < len(seg)
}

// pick returns the first of the entries from i that holds, nil without one.
func (s *search) pick(i uint32) *entry {
	for ; ; i++ {
		e := &s.t.entries[i]
		switch {
		case e.listeners != 0 && e.listeners&s.listener == 0:
		case s.collect:
			if s.holds(e) {
				s.allow |= e.allow()
			}
		case e.methods&s.method == 0:
			s.other = true
		case s.holds(e):
			return e
		}
		if e.conds&lastEntry != 0 {
			return nil
		}
	}
}

// holds reports whether the conditions of e are fulfilled.
func (s *search) holds(e *entry) bool {
	first := e.conds &^ lastEntry
	return first == 0 || s.fulfilled(s.t.conds[first:])
}

// fulfilled checks conditions up to the one marked last.
func (s *search) fulfilled(conds []condition) bool {
	for i := range conds {
		c := &conds[i]
		switch {
		case !c.header:
			if !queryHas(s.r.Query, c.name, c.value) {
				return false
			}
		case s.r.IgnoreHeaders:
		case s.r.Header == nil:
			return false
		default:
			if v := s.r.Header.Get(c.field); v == nil || string(v) != c.value {
				return false
			}
		}
		if c.last {
			break
		}
	}
	return true
}
