package router

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"
)

// Building a table. Routes are checked and compiled one by one; a bad one is
// reported and left out. The hosts are then grouped by the set of routes that
// each has, one tree of branches (pointers and maps, easy to grow) is made for
// each distinct set, its ends are searched for conflicts, and it is laid out in
// the flat arrays of match.go. The work is linear in the routes times their
// hosts, but for the conflict search (see conflict.go).

// compiled is a checked route.
type compiled struct {
	id, index int
	pattern   string
	segments  []segment
	names     uint32
	methods   uint64 // 0: any
	listeners uint64 // 0: every one
	conds     []condition
	condsKey  string   // the conditions as text
	hosts     []string // exact names and "*.name"; empty: any
}

// branch is a node while a tree grows.
type branch struct {
	literals map[string]*branch
	mixed    map[[2]string]*branch
	param    *branch
	leaf     []*compiled
	rest     []*compiled
}

// hostSet is the hosts that share one tree.
type hostSet struct {
	hosts  []string // sorted; one empty string: any host
	routes []*compiled
	root   *branch
}

type builder struct {
	t         *Table
	conflicts []Conflict
	labels    map[string]uint32
	names     map[string]uint32
	conds     map[string]uint32
	order     map[int]int // ID to the place where it was first given
	pairs     []pair
	reported  map[[2]int]bool // by ID
}

// New makes a table of routes. Routes that are bad in themselves are left out
// of it; of two in conflict, the one given first wins. Both are reported, in
// the order of the routes: a caller that wants a sound table uses it only when
// there are no conflicts.
func New(routes []Route) (*Table, []Conflict) {
	b := &builder{
		t:      &Table{nodes: make([]node, 1), edges: make([]edge, 1), mixed: make([]mixedEdge, 1), entries: make([]entry, 1), conds: make([]condition, 1), allow: map[uint64][]string{}},
		labels: map[string]uint32{}, names: map[string]uint32{}, conds: map[string]uint32{}, order: map[int]int{}, reported: map[[2]int]bool{},
	}
	all := make([]*compiled, 0, len(routes))
	for i := range routes {
		if _, ok := b.order[routes[i].ID]; !ok {
			b.order[routes[i].ID] = i
		}
		if c := b.compile(&routes[i], i); c != nil {
			all = append(all, c)
		}
	}
	b.layout(b.hostSets(all))
	b.t.compact()
	b.explain()
	slices.SortStableFunc(b.conflicts, func(x, y Conflict) int {
		place := func(id int) int {
			if id < 0 {
				return -1
			}
			return b.order[id]
		}
		return cmp.Or(cmp.Compare(place(x.A), place(y.A)), cmp.Compare(place(x.B), place(y.B)))
	})
	return b.t, b.conflicts
}

// compact gives back what the arrays grew beyond their content.
func (t *Table) compact() {
	t.nodes, t.edges, t.mixed = slices.Clone(t.nodes), slices.Clone(t.edges), slices.Clone(t.mixed)
	t.entries, t.conds, t.labels = slices.Clone(t.entries), slices.Clone(t.conds), slices.Clone(t.labels)
}

// compile checks one route, or reports what is wrong and returns nil.
func (b *builder) compile(r *Route, index int) *compiled {
	c, bad := &compiled{id: r.ID, index: index, pattern: r.Pattern}, false
	report := func(field string, err error) {
		bad = true
		b.conflicts = append(b.conflicts, Conflict{A: r.ID, B: -1, Field: field, Reason: err.Error()})
	}
	var err error
	if c.segments, err = parsePattern(r.Pattern); err != nil {
		report("path", err)
	}
	for i, h := range r.Hosts {
		name, wild, err := parseHost(h)
		if err != nil {
			report(fmt.Sprintf("hosts[%d]", i), err)
		}
		if wild {
			name = "*." + name
		}
		c.hosts = append(c.hosts, name)
	}
	slices.Sort(c.hosts)
	c.hosts = slices.Compact(c.hosts)
	for i, l := range r.Listeners {
		bit, err := b.listener(l)
		if err != nil {
			report(fmt.Sprintf("listeners[%d]", i), err)
		}
		c.listeners |= bit
	}
	for i, m := range r.Methods {
		bit, err := b.method(m)
		if err != nil {
			report(fmt.Sprintf("methods[%d]", i), err)
		}
		c.methods |= bit
	}
	b.conditions(c, r, report)
	if bad {
		return nil
	}
	c.names = b.paramNames(c.segments)
	return c
}

func (b *builder) listener(name string) (uint64, error) {
	if bit := b.t.listenerBit(name); bit != 0 {
		return bit, nil
	}
	if len(b.t.listeners) == maxBits {
		return 0, fmt.Errorf("routes name more than %d listeners", maxBits)
	}
	b.t.listeners = append(b.t.listeners, name)
	return b.t.listenerBit(name), nil
}

func (b *builder) method(name string) (uint64, error) {
	if err := checkMethod(name); err != nil {
		return 0, err
	}
	if bit := b.t.methodBit(name); bit != bitUnnamed {
		return bit, nil
	}
	if len(b.t.methods) == maxCustom {
		return 0, fmt.Errorf("routes name more than %d methods of their own", maxCustom)
	}
	b.t.methods = append(b.t.methods, name)
	return b.t.methodBit(name), nil
}

func (b *builder) conditions(c *compiled, r *Route, report func(string, error)) {
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		value, lower := r.Headers[name], strings.ToLower(name)
		twin := slices.IndexFunc(c.conds, func(o condition) bool { return strings.ToLower(o.name) == lower })
		switch {
		case !isToken(name):
			report("headers."+name, fmt.Errorf("%q is no header name", name))
		case strings.Trim(value, " \t") != value || strings.ContainsAny(value, "\r\n\x00"):
			report("headers."+name, fmt.Errorf("%q is no header value: white space around it is not part of one, and line ends are not allowed", value))
		case twin >= 0 && c.conds[twin].value != value:
			report("headers."+name, fmt.Errorf("%s and %s are one header and cannot have two values at once", c.conds[twin].name, name))
		case twin < 0:
			c.conds = append(c.conds, condition{name: name, field: []byte(name), value: value, header: true})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Query)) {
		if name == "" {
			report("query.", fmt.Errorf("a query parameter needs a name"))
			continue
		}
		c.conds = append(c.conds, condition{name: name, value: r.Query[name]})
	}
	slices.SortFunc(c.conds, compareConditions)
	var key strings.Builder
	for _, d := range c.conds {
		fmt.Fprintf(&key, "%t%q%q", d.header, d.key(), d.value)
	}
	c.condsKey = key.String()
}

// key is the name that two conditions on the same thing have in common.
func (c condition) key() string {
	if c.header {
		return strings.ToLower(c.name)
	}
	return c.name
}

// compareConditions sorts headers before query parameters, then by name.
func compareConditions(a, b condition) int {
	if a.header != b.header {
		if a.header {
			return -1
		}
		return 1
	}
	return strings.Compare(a.key(), b.key())
}

// compareWhole is compareConditions, then by value.
func compareWhole(a, b condition) int {
	return cmp.Or(compareConditions(a, b), strings.Compare(a.value, b.value))
}

func (b *builder) paramNames(segments []segment) uint32 {
	names := paramNames(segments)
	key := strings.Join(names, "/")
	at, ok := b.names[key]
	if !ok {
		at = uint32(len(b.t.names))
		b.t.names = append(b.t.names, names)
		b.names[key] = at
	}
	return at
}

// hostSets groups the hosts by the routes that they have, in the order of their
// names, any host first.
func (b *builder) hostSets(all []*compiled) []*hostSet {
	byHost := map[string][]*compiled{}
	for _, c := range all {
		if len(c.hosts) == 0 {
			byHost[""] = append(byHost[""], c)
		}
		for _, h := range c.hosts {
			byHost[h] = append(byHost[h], c)
		}
	}
	sets, bySet := []*hostSet{}, map[string]*hostSet{}
	var key []byte
	for _, host := range slices.Sorted(maps.Keys(byHost)) {
		key = key[:0]
		for _, c := range byHost[host] {
			key = binary.AppendUvarint(key, uint64(c.index))
		}
		set := bySet[string(key)]
		if set == nil {
			set = &hostSet{routes: byHost[host], root: &branch{}}
			for _, c := range set.routes {
				set.root.add(c)
			}
			sets, bySet[string(key)] = append(sets, set), set
		}
		set.hosts = append(set.hosts, host)
	}
	return sets
}

func (n *branch) add(c *compiled) {
	for i := range c.segments {
		s := &c.segments[i]
		switch s.kind {
		case literal:
			if n.literals == nil {
				n.literals = map[string]*branch{}
			}
			n = step(n.literals, s.text)
		case mixed:
			if n.mixed == nil {
				n.mixed = map[[2]string]*branch{}
			}
			n = step(n.mixed, [2]string{s.text, s.suffix})
		case param:
			if n.param == nil {
				n.param = &branch{}
			}
			n = n.param
		case rest:
			n.rest = append(n.rest, c)
			return
		}
	}
	n.leaf = append(n.leaf, c)
}

func step[K comparable](m map[K]*branch, key K) *branch {
	n := m[key]
	if n == nil {
		n = &branch{}
		m[key] = n
	}
	return n
}

// layout writes the trees and the host nodes into the table.
func (b *builder) layout(sets []*hostSet) {
	exact, wild := map[string]uint32{}, map[string]uint32{}
	for _, set := range sets {
		root := b.node(set.root, set)
		for _, host := range set.hosts {
			if host == "" {
				b.t.any = root
			} else if name, ok := strings.CutPrefix(host, "*."); ok {
				wild[name] = root
			} else {
				exact[host] = root
			}
		}
	}
	b.t.exact, b.t.wild = b.hostNode(exact), b.hostNode(wild)
}

func (b *builder) hostNode(roots map[string]uint32) uint32 {
	if len(roots) == 0 {
		return 0
	}
	at := b.newNode()
	b.edges(at, len(roots))
	for _, host := range slices.Sorted(maps.Keys(roots)) {
		b.insert(at, host, host, roots[host])
	}
	return at
}

// node writes a branch and all below it, and returns where it is.
func (b *builder) node(n *branch, set *hostSet) uint32 {
	if len(n.literals)+len(n.mixed)+len(n.rest) == 0 && n.param == nil {
		return b.end(n.leaf, set) | onlyEnd
	}
	at := b.newNode()
	t := b.t
	b.edges(at, len(n.literals))
	for _, text := range slices.Sorted(maps.Keys(n.literals)) {
		child, label := n.literals[text], text
		for next, only := child.onlyLiteral(); only; next, only = child.onlyLiteral() {
			label += "/" + next
			child = child.literals[next]
		}
		b.insert(at, text, label, b.node(child, set))
	}
	if len(n.mixed) > 0 {
		t.nodes[at].mixed = b.mixedEdges(n.mixed, set)
	}
	if n.param != nil {
		// Not in one statement: node() may move t.nodes.
		child := b.node(n.param, set)
		t.nodes[at].param = child
	}
	t.nodes[at].leaf = b.end(n.leaf, set)
	t.nodes[at].rest = b.end(n.rest, set)
	return at
}

// onlyLiteral reports whether n is nothing but the way to one literal child.
func (n *branch) onlyLiteral() (text string, ok bool) {
	if len(n.literals) != 1 || len(n.mixed) > 0 || n.param != nil || n.leaf != nil || n.rest != nil {
		return "", false
	}
	for text := range n.literals {
		return text, true
	}
	return "", false
}

func (b *builder) mixedEdges(edges map[[2]string]*branch, set *hostSet) uint32 {
	keys := slices.SortedFunc(maps.Keys(edges), func(x, y [2]string) int {
		return cmp.Or(cmp.Compare(len(y[0]), len(x[0])), cmp.Compare(len(y[1]), len(x[1])), strings.Compare(x[0], y[0]), strings.Compare(x[1], y[1]))
	})
	at := len(b.t.mixed)
	b.t.mixed = append(b.t.mixed, make([]mixedEdge, len(keys))...)
	for i, key := range keys {
		child := b.node(edges[key], set)
		b.t.mixed[at+i] = mixedEdge{prefix: key[0], suffix: key[1], child: child, last: i == len(keys)-1}
	}
	return uint32(at)
}

// end writes the routes of one end of the tree in the order of specificity,
// and reports those in conflict.
func (b *builder) end(routes []*compiled, set *hostSet) uint32 {
	if len(routes) == 0 {
		return 0
	}
	if len(routes) > 1 {
		b.findConflicts(routes, set)
	}
	headRouted := slices.ContainsFunc(routes, func(c *compiled) bool { return c.methods&bitHead != 0 })
	type ranked struct {
		*compiled
		methods uint64
		rank    int // 0 listed, 1 HEAD served by GET, 2 any
	}
	var list []ranked
	for _, c := range routes {
		switch {
		case c.methods == 0:
			list = append(list, ranked{c, anyMethod, 2})
		case c.methods&(bitGet|bitHead) != bitGet:
			list = append(list, ranked{c, c.methods, 0})
		case headRouted:
			list = append(list, ranked{c, c.methods, 0}, ranked{c, bitHead, 1})
		default:
			// With no HEAD listed here, rank 1 holds only what the same routes have at
			// rank 0, so one entry does for both.
			list = append(list, ranked{c, c.methods | bitHead, 0})
		}
	}
	slices.SortFunc(list, func(x, y ranked) int {
		return cmp.Or(cmp.Compare(unrestricted(x.compiled), unrestricted(y.compiled)), cmp.Compare(x.rank, y.rank),
			cmp.Compare(len(y.conds), len(x.conds)), slices.CompareFunc(x.conds, y.conds, compareWhole), cmp.Compare(x.index, y.index))
	})
	at := len(b.t.entries)
	for i, r := range list {
		e := entry{methods: r.methods, listeners: r.listeners, id: r.id, names: r.names, conds: b.condition(r.compiled)}
		if i == len(list)-1 {
			e.conds |= lastEntry
		}
		b.t.entries = append(b.t.entries, e)
	}
	b.allow(b.t.entries[at:])
	return uint32(at)
}

func unrestricted(c *compiled) int {
	if c.listeners == 0 {
		return 1
	}
	return 0
}

// allow makes the list of the methods of one end ready.
func (b *builder) allow(entries []entry) {
	var set uint64
	for i := range entries {
		set |= entries[i].allow()
	}
	if _, ok := b.t.allow[set]; !ok {
		b.t.allow[set] = b.t.makeAllow(set)
	}
}

func (b *builder) condition(c *compiled) uint32 {
	if len(c.conds) == 0 {
		return 0
	}
	at, ok := b.conds[c.condsKey]
	if !ok {
		at = uint32(len(b.t.conds))
		b.t.conds = append(b.t.conds, c.conds...)
		b.t.conds[len(b.t.conds)-1].last = true
		b.conds[c.condsKey] = at
	}
	return at
}

func (b *builder) newNode() uint32 {
	b.t.nodes = append(b.t.nodes, node{})
	return uint32(len(b.t.nodes) - 1)
}

// edges makes room for n literal edges of a node: in the node, or in a hash
// table that is at most half full.
func (b *builder) edges(at uint32, n int) {
	if n <= len(b.t.nodes[at].few) {
		return
	}
	size := uint32(1) << bits.Len(uint(2*n-1))
	b.t.nodes[at].edges, b.t.nodes[at].size = uint32(len(b.t.edges)), size
	b.t.edges = append(b.t.edges, make([]edge, size)...)
}

// insert adds the edge of a node that begins with the segment text.
func (b *builder) insert(at uint32, text, label string, child uint32) {
	e := edge{key: keyOf([]byte(text)), child: child, label: wholeKey | uint32(len(text))}
	if label != text || len(text) >= short {
		e.label = b.label(label)
	}
	nd := &b.t.nodes[at]
	if nd.size == 0 {
		i := 0
		for nd.few[i].child != 0 {
			i++
		}
		nd.few[i] = e
		return
	}
	i := slot(e.key, nd.size)
	for b.t.edges[nd.edges+i].child != 0 {
		i = (i + 1) & (nd.size - 1)
	}
	b.t.edges[nd.edges+i] = e
}

func (b *builder) label(text string) uint32 {
	at, ok := b.labels[text]
	if !ok {
		at = uint32(len(b.t.labels))
		b.t.labels = append(b.t.labels, text)
		b.labels[text] = at
	}
	return at
}
