package config

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// A document is a tree of nodes, of four kinds, that know their place. The parser
// (yaml.go) makes it; here its aliases and merges are resolved. Everything after
// that (expansion, decoding, formatting, masking) works on the tree.
//
// Aliases that together stand for more than maxNodes values are refused, so that
// a small file cannot grow large.

// Bounds on what is read.
const (
	maxSource = 16 << 20  // bytes of one file
	maxTotal  = 64 << 20  // bytes of all files together
	maxNodes  = 2_000_000 // values of one document, aliases followed
	maxDepth  = 64        // blocks and lists within one another
)

type kind uint8

const (
	nullKind kind = iota
	scalarKind
	mappingKind
	sequenceKind
	aliasKind  // only in trees made for formatting
	brokenKind // reported already: present, but to be passed over
)

// String is what the kind is called in messages.
func (k kind) String() string {
	switch k {
	case nullKind:
		return "empty"
	case mappingKind:
		return "a block of keys"
	case sequenceKind:
		return "a list"
	default:
		return "a single value"
	}
}

type style uint8

const (
	plainStyle style = iota
	singleStyle
	doubleStyle
	literalStyle // | and >
)

// node is a value of a document.
type node struct {
	kind  kind
	style style // of scalars
	flow  bool  // of collections: [a, b] and {a: b}
	// expanded says that text came out of ${…}, and raw is how it was written.
	expanded bool
	// hidden says that text holds the contents of a file and must not be shown.
	hidden bool

	// The place for diagnostics: of a value in a mapping, that of its key. In trees made
	// for formatting: where the value itself begins.
	line, col       int
	endLine, endCol int // of flow collections: the closing bracket
	dashLine        int // of items of block lists, in trees made for formatting: the dash
	dashCol         int

	text    string // of scalars
	raw     string
	anchor  string
	target  *node // of aliases
	entries []entry
	index   map[string]int // where a key is in entries, when they are many
	items   []*node
	// size is how many values it holds, itself included and aliases followed.
	size int
}

// entry is a key and its value. The value's place may be in another mapping,
// when it was merged in with <<.
type entry struct {
	key   *node
	value *node
}

// get finds the value of a key.
func (n *node) get(keys ...string) *node {
	if e := n.find(keys...); e != nil {
		return e.value
	}
	return nil
}

func (n *node) find(keys ...string) *entry {
	if n == nil || n.kind != mappingKind {
		return nil
	}
	if n.index != nil {
		for _, k := range keys {
			if i, ok := n.index[k]; ok {
				return &n.entries[i]
			}
		}
		return nil
	}
	for i := range n.entries {
		for _, k := range keys {
			if n.entries[i].key.text == k {
				return &n.entries[i]
			}
		}
	}
	return nil
}

// source is a file that was read.
type source struct {
	name  string // for messages
	path  string // absolute
	order int    // among the files, in the order they were read
	text  string
}

// tree is a parsed source.
type tree struct {
	root     *node  // a mapping; nil when the document is empty or damaged
	text     string // the source with its line ends made alike
	comments []comment
	aliases  bool // whether there are anchors or aliases
}

// resolver turns the nodes of a source into its tree.
type resolver struct {
	src *source
	// literal keeps aliases and merges as they stand, for Format.
	literal bool
	anchors map[string]*node
	aliases bool
	path    path
	report  func(Diagnostic)
}

// parseTree parses a source and reports what is wrong with it. A tree that comes
// with reports may lack what they speak of.
func parseTree(src *source, literal bool, report func(Diagnostic)) tree {
	r := &resolver{src: src, literal: literal, anchors: map[string]*node{}, report: report}
	text, ok := r.clean(src.text)
	if !ok {
		return tree{}
	}
	root, comments, err := parseYAML(text)
	if err != nil {
		r.fail(err.line, err.col, "this "+err.message)
		return tree{}
	}
	t := tree{text: text, comments: comments}
	if root == nil {
		return t
	}
	switch {
	case root.kind != mappingKind:
		r.fail(root.line, root.col, fmt.Sprintf("this is %s where a block of keys belongs: begin with listeners: or upstreams:", root.what()))
		return t
	case root.anchor != "":
		r.fail(root.line, root.col, "this names the whole file &"+root.anchor+", which nothing in it can use: remove the anchor")
		return t
	}
	root = r.resolve(root)
	t.aliases = r.aliases
	if root.size > maxNodes {
		r.report(r.at(root, "config.too_large", fmt.Sprintf("stands for more than %d values, write less with aliases", maxNodes)))
		return t
	}
	t.root = root
	return t
}

func (r *resolver) at(n *node, code, message string) Diagnostic {
	return Diagnostic{
		File: r.src.name, order: r.src.order, Line: n.line, Col: n.col,
		Path: r.path.String(), Message: message, Code: code,
	}
}

func (r *resolver) fail(line, col int, message string) {
	r.report(Diagnostic{
		File: r.src.name, order: r.src.order, Line: line, Col: col,
		Path: r.path.String(), Message: message, Code: "config.syntax",
	})
}

// clean normalises line ends, takes off a byte order mark and refuses bytes that
// no configuration needs.
func (r *resolver) clean(text string) (string, bool) {
	if len(text) > maxSource {
		r.report(Diagnostic{
			File: r.src.name, order: r.src.order, Code: "config.too_large",
			Message: fmt.Sprintf("is larger than %d MiB, split it with include", maxSource>>20),
		})
		return "", false
	}
	text = strings.TrimPrefix(text, "\ufeff")
	text = strings.ReplaceAll(text, "\r\n", "\n")
	line, start := 1, 0
	for i, c := range text {
		switch {
		case c == '\n':
			line, start = line+1, i+1
		case c == utf8.RuneError && !strings.HasPrefix(text[i:], "\ufffd"):
			r.fail(line, 1+utf8.RuneCountInString(text[start:i]), "this is not UTF-8, save the file as UTF-8")
			return "", false
		case c < ' ' && c != '\t', c == 0x7f, c == 0x85, c == 0x2028, c == 0x2029, c == '\ufeff':
			r.fail(line, 1+utf8.RuneCountInString(text[start:i]),
				fmt.Sprintf("this is the control character U+%04X, take it out or write it as \"\\u%04X\" in double quotes", c, c))
			return "", false
		}
	}
	return text, true
}

// resolve completes a node and everything below it.
func (r *resolver) resolve(n *node) *node {
	switch n.kind {
	case mappingKind:
		r.mapping(n)
	case sequenceKind:
		for i, item := range n.items {
			r.path = r.path.index(i)
			item = r.resolve(item)
			n.items[i] = item
			n.size = addSize(n.size, item.size)
			r.path = r.path.up()
		}
	case aliasKind:
		n = r.alias(n)
	}
	if n.anchor != "" && n.kind != aliasKind {
		r.aliases = true
		r.anchors[n.anchor] = n
	}
	return n
}

// mapping resolves the entries of a mapping, drops those given twice, and adds
// what << brings.
func (r *resolver) mapping(n *node) {
	seen := make(map[string]*node, len(n.entries))
	var merges []*node
	kept := n.entries[:0]
	for _, e := range n.entries {
		key := e.key
		r.path = r.path.key(key.text)
		isMerge := key.text == "<<" && key.style == plainStyle && !r.literal
		switch first := seen[key.text]; {
		case first != nil:
			r.report(r.at(key, "config.duplicate", fmt.Sprintf("%q is given twice, first on line %d: keep one", key.text, first.line)))
		case !r.literal && strings.Contains(key.text, "${"):
			r.report(r.at(key, "config.variable_in_key", "variables are not expanded in keys, only in values"))
		default:
			shared := e.value.kind == aliasKind
			e.value = r.resolve(e.value)
			if !shared && !r.literal {
				e.value.line, e.value.col = key.line, key.col
			}
			seen[key.text] = key
			n.size = addSize(n.size, e.value.size)
			if isMerge {
				merges = append(merges, e.value)
			} else {
				kept = append(kept, e)
			}
		}
		r.path = r.path.up()
	}
	n.entries = kept
	for _, m := range merges {
		r.merge(n, m, seen)
	}
	if len(n.entries) > 32 {
		n.index = make(map[string]int, len(n.entries))
		for i, e := range n.entries {
			n.index[e.key.text] = i
		}
	}
}

// merge adds what << brings to a mapping: keys that it does not have already.
func (r *resolver) merge(out, m *node, seen map[string]*node) {
	switch m.kind {
	case brokenKind:
	case mappingKind:
		for _, e := range m.entries {
			if seen[e.key.text] == nil {
				seen[e.key.text] = e.key
				out.entries = append(out.entries, e)
			}
		}
	case sequenceKind:
		for _, item := range m.items {
			if item.kind != mappingKind && item.kind != brokenKind {
				r.fail(item.line, item.col, "cannot be merged with <<, only blocks of keys can")
				continue
			}
			r.merge(out, item, seen)
		}
	default:
		r.fail(m.line, m.col, "cannot be merged with <<, only a block of keys or a list of them can")
	}
}

// alias finds what an alias stands for.
func (r *resolver) alias(n *node) *node {
	r.aliases = true
	target := r.anchors[n.text]
	if target == nil {
		r.report(r.at(n, "config.unknown_reference",
			fmt.Sprintf("there is no anchor &%s before it; if it is a text, put it in quotes: \"*%s\"", n.text, n.text)))
		n.kind = brokenKind
		return n
	}
	if !r.literal {
		return target
	}
	n.target, n.size = target, target.size
	return n
}

// addSize adds without overflow: what is over maxNodes stays just over it.
func addSize(a, b int) int { return min(a+b, maxNodes+1) }
