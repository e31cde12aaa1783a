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

// node is where a pattern may branch or end. Half a cache line.
type node struct {
	edges uint32 // first of its literal edges: a hash table of size slots
	size  uint32 // a power of two, or 0
	mixed uint32 // first of its mixed edges, up to the one marked last
	param uint32 // node behind {name}
	leaf  uint32 // first of the routes that end here
	rest  uint32 // first of the routes that end here with {name...}
	_     [2]uint32
}

// edge is a literal edge; free when child is 0.
type edge struct {
	hash  uint32 // of the label's first segment
	child uint32
	label uint32 // offset in Table.labels
	size  uint32 // length of the label
}

// mixedEdge is a segment with literal text around its parameter. The edges of
// a node are sorted by specificity.
type mixedEdge struct {
	prefix, suffix string
	child          uint32
	last           bool
}

// entry is a route at the end of a pattern. The entries of one end are sorted
// by specificity.
type entry struct {
	methods   uint64 // bit set of Table.methods
	listeners uint64 // bit set of Table.listeners, 0: every one
	conds     uint32 // first of its conditions
	nconds    uint32
	names     uint32 // of its parameters, index in Table.names
	route     uint32 // index in Table.ids; with lastEntry in the last of a list
}

const lastEntry = 1 << 31

// allow is what e adds to an Allow list.
func (e *entry) allow() uint64 {
	if e.methods == anyMethod {
		return usualMethods
	}
	return e.methods
}

// condition wants a header or a query parameter to have a value.
type condition struct {
	name, value string
	field       []byte // name, of a header condition
	header      bool
}

// Table is an immutable set of routes.
type Table struct {
	nodes   []node
	edges   []edge
	mixed   []mixedEdge
	entries []entry
	conds   []condition
	names   [][]string
	ids     []int // of the routes, as New got them
	labels  []byte

	exact uint32 // node whose literal edges are hosts and lead to the roots of trees
	wild  uint32 // the same for the name behind "*."
	any   uint32 // root of the tree of any host

	methods   []string // by bit, from firstCustom
	listeners []string // by bit
	allow     map[uint64][]string
}

// search is the state of one Match. It lives on the stack.
type search struct {
	t        *Table
	r        *Request
	params   *Params
	method   uint64 // its bit
	listener uint64 // its bit, 0 when no route names it
	// collect: go everywhere, accept nothing and gather allow.
	collect bool
	allow   uint64
	other   bool // a route was passed over for its method
}

// Match finds the route of r and its parameters, for which p's memory is used.
// It does not allocate when p has room for the parameters, but when it has to
// join an Allow list out of several nodes.
func (t *Table) Match(r *Request, p *Params) Match {
	*p = (*p)[:0]
	if len(r.Path) == 0 || r.Path[0] != '/' {
		return Match{}
	}
	s := search{t: t, r: r, params: p, method: t.methodBit(r.Method)}
	if len(t.listeners) > 0 {
		s.listener = t.listenerBit(r.Listener)
	}
	exact, wild := t.hosts(r.Host)
	if e := s.roots(exact, wild); e != nil {
		for i, name := range t.names[e.names] {
			(*p)[i].Name = name
		}
		return Match{ID: t.ids[e.route&^lastEntry], Found: true}
	}
	*p = (*p)[:0]
	if !s.other {
		return Match{}
	}
	s.collect = true
	s.roots(exact, wild)
	*p = (*p)[:0]
	return Match{Allow: t.allowList(s.allow)}
}

// hosts returns the roots of the trees for a host: its own, and its wildcard's.
func (t *Table) hosts(host []byte) (exact, wild uint32) {
	if n := len(host); n > 0 && host[n-1] == '.' {
		host = host[:n-1]
	}
	if t.exact != 0 {
		exact = t.child(&t.nodes[t.exact], host)
	}
	if t.wild != 0 {
		for i, c := range host {
			if c == '.' {
				if i > 0 {
					wild = t.child(&t.nodes[t.wild], host[i+1:])
				}
				break
			}
		}
	}
	return exact, wild
}

// child follows the literal edge whose label is exactly key.
func (t *Table) child(n *node, key []byte) uint32 {
	if n.size == 0 {
		return 0
	}
	h, mask := hash(key), n.size-1
	for i := h; ; i++ {
		e := &t.edges[n.edges+i&mask]
		if e.child == 0 {
			return 0
		}
		if e.hash == h && string(t.labels[e.label:e.label+e.size]) == string(key) {
			return e.child
		}
		if i-h == mask {
			return 0
		}
	}
}

// roots searches the trees of a request, the most specific host first.
func (s *search) roots(exact, wild uint32) *entry {
	for _, root := range [...]uint32{exact, wild, s.t.any} {
		if root != 0 {
			*s.params = (*s.params)[:0]
			if e := s.walk(root, 1); e != nil {
				return e
			}
		}
	}
	return nil
}

// walk searches below node n. at is where the next segment begins in the path,
// len(path)+1 when there is none. When it returns nil, it may have left
// parameters behind: who tries something else afterwards cuts them off.
func (s *search) walk(n uint32, at int) *entry {
	t, path := s.t, s.r.Path
	for {
		if n&onlyEnd != 0 {
			if at > len(path) {
				return s.pick(n &^ onlyEnd)
			}
			return nil
		}
		nd := &t.nodes[n]
		if at > len(path) {
			return s.end(nd)
		}
		end, h := scan(path, at)
		child, next := uint32(0), 0
		if nd.size != 0 {
			child, next = t.follow(nd, path, at, h)
		}
		if nd.mixed|nd.param|nd.rest == 0 {
			if child == 0 {
				return nil
			}
			n, at = child, next
			continue
		}
		mark := len(*s.params)
		if child != 0 {
			if e := s.walk(child, next); e != nil {
				return e
			}
			*s.params = (*s.params)[:mark]
		}
		if nd.mixed != 0 {
			if e := s.mixed(nd, at, end); e != nil {
				return e
			}
			*s.params = (*s.params)[:mark]
		}
		if nd.param != 0 && end > at {
			*s.params = append(*s.params, Param{Value: path[at:end]})
			if nd.rest == 0 {
				n, at = nd.param, end+1
				continue
			}
			if e := s.walk(nd.param, end+1); e != nil {
				return e
			}
			*s.params = (*s.params)[:mark]
		}
		if nd.rest == 0 {
			return nil
		}
		*s.params = append(*s.params, Param{Value: path[at:]})
		return s.pick(nd.rest)
	}
}

// end is walk at the end of the path.
func (s *search) end(nd *node) *entry {
	if nd.leaf != 0 {
		if e := s.pick(nd.leaf); e != nil {
			return e
		}
	}
	if nd.rest == 0 {
		return nil
	}
	*s.params = append(*s.params, Param{Value: s.r.Path[len(s.r.Path):]})
	return s.pick(nd.rest)
}

// follow finds the literal edge that the path takes from at, where a segment
// with hash h begins, and where the next segment begins behind it.
func (t *Table) follow(nd *node, path []byte, at int, h uint32) (child uint32, next int) {
	mask := nd.size - 1
	for i := h; ; i++ {
		e := &t.edges[nd.edges+i&mask]
		if e.child == 0 {
			return 0, 0
		}
		if e.hash == h {
			stop := at + int(e.size)
			if stop <= len(path) && string(t.labels[e.label:e.label+e.size]) == string(path[at:stop]) &&
				(stop == len(path) || path[stop] == '/') {
				return e.child, stop + 1
			}
		}
		if i-h == mask {
			return 0, 0
		}
	}
}

// mixed tries the mixed edges of a node for the segment path[at:end].
func (s *search) mixed(nd *node, at, end int) *entry {
	seg, mark := s.r.Path[at:end], len(*s.params)
	for i := nd.mixed; ; i++ {
		m := &s.t.mixed[i]
		if from, to := len(m.prefix), len(seg)-len(m.suffix); to > from &&
			string(seg[:from]) == m.prefix && string(seg[to:]) == m.suffix && !insidePercent(seg, to) {
			*s.params = append(*s.params, Param{Value: seg[from:to]})
			if e := s.walk(m.child, end+1); e != nil {
				return e
			}
			*s.params = (*s.params)[:mark]
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
		case e.nconds == 0 || s.holds(e):
			return e
		}
		if e.route&lastEntry != 0 {
			return nil
		}
	}
}

// holds reports whether the conditions of e are fulfilled.
func (s *search) holds(e *entry) bool {
	conds := s.t.conds[e.conds : e.conds+e.nconds]
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
	}
	return true
}

