package config

import (
	"fmt"
	"slices"
	"sync"
)

// document is what a File remembers of its sources, so that problems that are
// found later can still be shown in their place. After the load it keeps only
// the texts; they are parsed again when a place is asked for.
type document struct {
	parts    []part
	files    []string
	patterns []string

	again sync.Once
}

// part is one source of a configuration and how much of the joined lists it gave.
type part struct {
	src    *source
	tree   tree
	file   *File // nil after the load
	apis   int
	routes int
}

func (d *document) addPart(src *source, t tree, f *File) {
	d.parts = append(d.parts, part{src: src, tree: t, file: f, apis: len(f.APIs), routes: len(f.Routes)})
}

// finish lets go of what only the load needed.
func (d *document) finish(l *loader) {
	d.files = keysOf(l.files)
	d.patterns = l.patterns
	for i := range d.parts {
		d.parts[i].tree, d.parts[i].file = tree{}, nil
	}
}

// Files lists the absolute paths of all files that were read or are referenced:
// the file itself, included files, certificates, keys, secrets, schemas. They are
// what a watch must cover, sorted.
func (f *File) Files() []string { return slices.Clone(f.doc.files) }

// Patterns lists the absolute patterns of `include`, so that a watch can notice
// files that appear.
func (f *File) Patterns() []string { return slices.Clone(f.doc.patterns) }

// Source is the text of the main file, as it was read.
func (f *File) Source() []byte { return []byte(f.doc.parts[0].src.text) }

// References lists the references of the main file and all included ones, each
// once: see the function References.
func (f *File) References() []string {
	var out []string
	for i := range f.doc.parts {
		out = append(out, References([]byte(f.doc.parts[i].src.text))...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Diagnose makes a diagnostic for a place that a path leads to, such as
// apis[0].routes[3].path, in the numbering of the File's own lists. When the
// document does not hold the place itself, it is that of the nearest block around
// it; what a route has from the defaults of its api is found there.
func (f *File) Diagnose(at, code, format string, args ...any) Diagnostic {
	f.doc.again.Do(f.doc.parse)
	p := f.doc.find(parsePath(at))
	return Diagnostic{
		File: p.src.name, order: p.src.order, Line: p.node.line, Col: p.node.col,
		Path: p.path.String(), Message: fmt.Sprintf(format, args...), Code: code,
	}
}

// Warn is Diagnose for something that does not stop the gateway.
func (f *File) Warn(at, code, format string, args ...any) Diagnostic {
	d := f.Diagnose(at, code, format, args...)
	d.Warning = true
	return d
}

func (d *document) parse() {
	for i := range d.parts {
		d.parts[i].tree = parseTree(d.parts[i].src, false, func(Diagnostic) {})
	}
}

// place is where a path leads: to a node of a source, by its path there.
type place struct {
	src   *source
	node  *node // the nearest node that exists; never nil
	path  path
	exact bool // the node is the very one
}

// find follows a path that is numbered as the joined lists are.
func (d *document) find(p path) place {
	part, local := d.partOf(p)
	root := part.tree.root
	if root == nil {
		return place{src: part.src, node: &node{line: 1, col: 1}, path: local}
	}
	local = throughDefaults(root, local)
	out := place{src: part.src, node: root, path: local}
	for i, s := range local {
		next := out.node.step(s, local[:i])
		if next == nil {
			return out
		}
		out.node = next
	}
	out.exact = true
	return out
}

// step follows one step of a path from a node; before is the path to the node.
func (n *node) step(s step, before path) *node {
	if s.isIndex {
		return n.item(s.at)
	}
	if last, ok := before.last(); s.key == "when" && ok && last.isIndex {
		return n.get("when", "match")
	}
	return n.get(s.key)
}

// item is the i-th item of a list, or the one value that stands for a list of one.
func (n *node) item(i int) *node {
	switch {
	case n == nil:
	case n.kind == sequenceKind && i < len(n.items):
		return n.items[i]
	case n.kind == scalarKind && i == 0:
		return n
	}
	return nil
}

// length is how many items a list has that may be written as one value.
func (n *node) length() int {
	switch {
	case n == nil:
		return 0
	case n.kind == sequenceKind:
		return len(n.items)
	default:
		return 1
	}
}

// throughDefaults redirects a path to a key of a route that stands in the
// defaults of its api: apis[0].routes[3].auth to apis[0].defaults.auth. In the
// lists that add to those of the defaults, the defaults come first.
func throughDefaults(root *node, p path) path {
	if len(p) < 5 || p[0].key != "apis" || p[2].key != "routes" || p[4].isIndex {
		return p
	}
	api := root.get("apis").item(p[1].at)
	route, defaults := api.get("routes").item(p[3].at), api.get("defaults")
	keys := []string{p[4].key}
	if p[4].key == "when" {
		keys = append(keys, "match")
	}
	theirs, own := defaults.get(keys...), route.get(keys...)
	if theirs == nil {
		return p
	}
	aside := append(p[:2:2].key("defaults"), p[4:]...)
	if own == nil {
		return aside
	}
	at := 0 // the step that is an index into a joined list
	switch {
	case p[4].key == "rate_limit" && len(p) > 5:
		at = 5
	case p[4].key == "ip" && len(p) > 6:
		at, theirs = 6, theirs.get(p[5].key)
	default:
		return p
	}
	if p[at].at < theirs.length() {
		return aside
	}
	p = p.clone()
	p[at].at -= theirs.length()
	return p
}

// partOf finds the source that a path leads into, and the path there.
func (d *document) partOf(p path) (*part, path) {
	main := &d.parts[0]
	if len(p) < 2 || p[0].isIndex {
		return main, p
	}
	switch {
	case p[0].key == "upstreams":
		for i := range d.parts {
			if d.parts[i].tree.root.get("upstreams").get(p[1].key) != nil {
				return &d.parts[i], p
			}
		}
	case (p[0].key == "apis" || p[0].key == "routes") && p[1].isIndex:
		at := p[1].at
		for i := range d.parts {
			n := d.parts[i].apis
			if p[0].key == "routes" {
				n = d.parts[i].routes
			}
			if at < n {
				local := p.clone()
				local[1].at = at
				return &d.parts[i], local
			}
			at -= n
		}
	}
	return main, p
}
