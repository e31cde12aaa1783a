package config

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// A document is parsed by goccy/go-yaml and turned at once into a tree of our own
// nodes, of four kinds, that know their place. Everything after that (expansion,
// decoding, formatting, masking) works on this tree and sees nothing of the parser.
//
// What is refused here, because it has no use in a configuration or lets a small
// file grow large: several documents, directives, tags, keys that are not scalars,
// control characters, nesting deeper than maxDepth, and aliases that together
// stand for more than maxNodes values.

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

// comment is a comment of a source: its text without the # and what follows it.
type comment struct {
	line, col int
	text      string
}

// treeParser turns a source into a tree.
type treeParser struct {
	src *source
	// literal keeps aliases and merges as they stand, for Format.
	literal bool
	anchors map[string]*node
	tree    tree
	path    path
	report  func(Diagnostic)
}

// parseTree parses a source and reports what is wrong with it. A tree that comes
// with reports may lack what they speak of.
func parseTree(src *source, literal bool, report func(Diagnostic)) tree {
	p := &treeParser{src: src, literal: literal, anchors: map[string]*node{}, report: report}
	text, ok := p.clean(src.text)
	if !ok {
		return tree{}
	}
	p.tree.text = text
	tokens, err := tokenize(text)
	if err != nil {
		p.fail(1, 1, "cannot be read as YAML: "+err.Error())
		return tree{}
	}
	if !p.shallow(tokens) {
		return tree{}
	}
	tokens, ok = p.mendColons(tokens)
	if !ok {
		return tree{}
	}
	for _, t := range tokens {
		if t.Type == token.CommentType {
			p.tree.comments = append(p.tree.comments, comment{
				line: t.Position.Line, col: t.Position.Column,
				text: strings.TrimRight(t.Value, " \t\r\n"),
			})
		}
	}
	file, err := parseTokens(tokens)
	if err != nil {
		p.syntax(err)
		return tree{}
	}
	body := p.body(file)
	if body == nil {
		return p.tree
	}
	root := p.convert(body, 0)
	switch {
	case root.kind == brokenKind:
	case root.kind != mappingKind:
		p.fail(root.line, root.col, fmt.Sprintf("is %s where a block of keys belongs, begin with listeners: or upstreams:", root.kind))
	case root.size > maxNodes:
		p.report(p.at(root, "config.too_large", fmt.Sprintf("stands for more than %d values, write less with aliases", maxNodes)))
	default:
		p.tree.root = root
	}
	return p.tree
}

func (p *treeParser) at(n *node, code, message string) Diagnostic {
	return Diagnostic{
		File: p.src.name, order: p.src.order, Line: n.line, Col: n.col,
		Path: p.path.String(), Message: message, Code: code,
	}
}

func (p *treeParser) fail(line, col int, message string) {
	p.report(Diagnostic{
		File: p.src.name, order: p.src.order, Line: line, Col: col,
		Path: p.path.String(), Message: message, Code: "config.syntax",
	})
}

// clean normalises line ends, takes off a byte order mark and refuses bytes that
// no configuration needs.
func (p *treeParser) clean(text string) (string, bool) {
	if len(text) > maxSource {
		p.report(Diagnostic{
			File: p.src.name, order: p.src.order, Code: "config.too_large",
			Message: fmt.Sprintf("is larger than %d MiB, split it with include", maxSource>>20),
		})
		return "", false
	}
	text = strings.TrimPrefix(text, "\ufeff")
	text = strings.ReplaceAll(text, "\r\n", "\n")
	line, start := 1, 0
	for i, r := range text {
		switch {
		case r == '\n':
			line, start = line+1, i+1
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], "\ufffd"):
			p.fail(line, 1+utf8.RuneCountInString(text[start:i]), "is not UTF-8, save the file as UTF-8")
			return "", false
		case r < ' ' && r != '\t', r == 0x7f, r == 0x85, r == 0x2028, r == 0x2029, r == '\ufeff':
			p.fail(line, 1+utf8.RuneCountInString(text[start:i]),
				fmt.Sprintf("holds the control character U+%04X, take it out or write it as \"\\u%04X\" in double quotes", r, r))
			return "", false
		}
	}
	return text, true
}

// tokenize and parseTokens call the parser, which may panic on input that it does
// not foresee; here that is an error like others.
func tokenize(text string) (tokens token.Tokens, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	return lexer.Tokenize(text), nil
}

func parseTokens(tokens token.Tokens) (file *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

// shallow refuses nesting that would exhaust the parser's stack, by the tokens
// that can open a level without a new line.
func (p *treeParser) shallow(tokens token.Tokens) bool {
	flow, inline, line := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			line, inline = t.Position.Line, 0
		}
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType, token.TagType, token.AnchorType:
			inline++
		}
		if flow > maxDepth || inline > maxDepth {
			p.fail(t.Position.Line, t.Position.Column, fmt.Sprintf("is nested deeper than %d levels", maxDepth))
			return false
		}
	}
	return true
}

// syntax reports a parse error with what most often causes it.
func (p *treeParser) syntax(err error) {
	var at interface {
		GetMessage() string
		GetToken() *token.Token
	}
	if !errors.As(err, &at) {
		p.fail(1, 1, "cannot be read as YAML: "+strings.SplitN(err.Error(), "\n", 2)[0])
		return
	}
	line, col := 1, 1
	if t := at.GetToken(); t != nil && t.Position != nil {
		line, col = max(t.Position.Line, 1), max(t.Position.Column, 1)
	}
	message, text := at.GetMessage(), lineOf(p.src.text, line)
	hint := "check indentation, brackets and quotes here and on the line before"
	switch {
	case strings.Contains(text, "${") && strings.ContainsAny(text, "{["):
		hint = `inside { } and [ ] write "${NAME}" in quotes`
	case strings.Contains(message, "tab"):
		hint = "indent with spaces"
	case strings.Contains(message, "reserved"):
		hint = "put the text in quotes"
	case strings.Contains(message, "mapping value is not allowed"):
		hint = "put a text that holds \": \" in quotes, and check the indentation"
	}
	p.fail(line, col, "is not YAML: "+message+"; "+hint)
}

func lineOf(text string, line int) string {
	for ; line > 1; line-- {
		_, text, _ = strings.Cut(text, "\n")
	}
	text, _, _ = strings.Cut(text, "\n")
	return text
}

// body is the one document of a file, or nil with or without a report.
func (p *treeParser) body(file *ast.File) ast.Node {
	var body ast.Node
	for _, doc := range file.Docs {
		switch b := doc.Body.(type) {
		case nil:
			continue
		case *ast.DirectiveNode:
			p.fail(b.Start.Position.Line, b.Start.Position.Column, "is a YAML directive, which has no use here: remove the line")
			return nil
		}
		if body != nil {
			t := doc.Body.GetToken()
			p.fail(t.Position.Line, t.Position.Column, "begins a second document: one file holds one, remove the --- or move it to a file of its own")
			return nil
		}
		body = doc.Body
	}
	return body
}

// convert turns a parsed node into one of ours.
func (p *treeParser) convert(n ast.Node, depth int) *node {
	t := n.GetToken()
	out := &node{size: 1}
	if t != nil && t.Position != nil {
		out.line, out.col = max(t.Position.Line, 1), max(t.Position.Column, 1)
	}
	if depth > maxDepth {
		return p.broken(out, fmt.Sprintf("is nested deeper than %d levels", maxDepth))
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		return p.mapping(out, n, depth)
	case *ast.SequenceNode:
		return p.sequence(out, n, depth)
	case *ast.StringNode:
		out.kind, out.text = scalarKind, n.Value
		switch t.Type {
		case token.SingleQuoteType:
			out.style = singleStyle
		case token.DoubleQuoteType:
			out.style = doubleStyle
		}
	case *ast.LiteralNode:
		out.kind, out.text, out.style = scalarKind, n.Value.Value, literalStyle
		out.line, out.col = n.Start.Position.Line, n.Start.Position.Column
	case *ast.NullNode:
		out.kind = nullKind
		if t.Type != token.ImplicitNullType {
			out.text = t.Value
		}
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		out.kind, out.text = scalarKind, t.Value
	case *ast.AnchorNode:
		return p.anchored(n, depth)
	case *ast.AliasNode:
		return p.alias(out, n)
	case *ast.TagNode:
		return p.broken(out, "is a YAML tag, which has no use here: remove "+n.Start.Value)
	default:
		return p.broken(out, "has no use in a configuration, write plain keys and values")
	}
	return out
}

// broken reports a syntax error and stands for the value that has it.
func (p *treeParser) broken(n *node, message string) *node {
	p.fail(n.line, n.col, message)
	n.kind = brokenKind
	return n
}

func (p *treeParser) mapping(out *node, n *ast.MappingNode, depth int) *node {
	out.kind, out.flow = mappingKind, n.IsFlowStyle
	if out.flow {
		out.line, out.col = n.Start.Position.Line, n.Start.Position.Column
		if n.End != nil {
			out.endLine, out.endCol = n.End.Position.Line, n.End.Position.Column
		}
	}
	seen := make(map[string]*node, len(n.Values))
	var merges []*node
	for i, v := range n.Values {
		key := p.key(v.Key)
		if key == nil {
			continue
		}
		if i == 0 && !out.flow {
			out.line, out.col = key.line, key.col
		}
		p.path = p.path.key(key.text)
		if first := seen[key.text]; first != nil {
			p.report(p.at(key, "config.duplicate", fmt.Sprintf("%q is given twice, first on line %d: keep one", key.text, first.line)))
		} else {
			value := p.convert(v.Value, depth+1)
			if _, shared := v.Value.(*ast.AliasNode); !shared && !p.literal {
				value.line, value.col = key.line, key.col
			}
			if isMerge(v.Key) && !p.literal {
				merges = append(merges, value)
			} else {
				seen[key.text] = key
				out.entries = append(out.entries, entry{key, value})
			}
			out.size = addSize(out.size, value.size)
		}
		p.path = p.path.up()
	}
	for _, m := range merges {
		p.merge(out, m, seen)
	}
	return out
}

func isMerge(k ast.MapKeyNode) bool {
	_, ok := k.(*ast.MergeKeyNode)
	return ok
}

// merge adds what << brings to a mapping: keys that it does not have already.
func (p *treeParser) merge(out, m *node, seen map[string]*node) {
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
			if item.kind != mappingKind {
				p.fail(item.line, item.col, "cannot be merged with <<, only blocks of keys can")
				continue
			}
			p.merge(out, item, seen)
		}
	default:
		p.fail(m.line, m.col, "cannot be merged with <<, only a block of keys or a list of them can")
	}
}

func (p *treeParser) key(k ast.MapKeyNode) *node {
	t := k.GetToken()
	out := &node{kind: scalarKind, line: t.Position.Line, col: t.Position.Column}
	switch k := k.(type) {
	case *ast.StringNode:
		out.text = k.Value
		switch t.Type {
		case token.SingleQuoteType:
			out.style = singleStyle
		case token.DoubleQuoteType:
			out.style = doubleStyle
		}
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.MergeKeyNode, *ast.InfinityNode, *ast.NanNode:
		out.text = t.Value
	default:
		p.fail(out.line, out.col, "is not a key, write a name and a colon")
		return nil
	}
	if strings.Contains(out.text, "${") && !p.literal {
		p.path = p.path.key(out.text)
		p.report(p.at(out, "config.variable_in_key", "variables are not expanded in keys, only in values"))
		p.path = p.path.up()
		return nil
	}
	return out
}

func (p *treeParser) sequence(out *node, n *ast.SequenceNode, depth int) *node {
	out.kind, out.flow = sequenceKind, n.IsFlowStyle
	if out.flow && n.End != nil {
		out.endLine, out.endCol = n.End.Position.Line, n.End.Position.Column
	}
	out.items = make([]*node, 0, len(n.Values))
	for i, v := range n.Values {
		p.path = p.path.index(i)
		item := p.convert(v, depth+1)
		if p.literal && i < len(n.Entries) && n.Entries[i].Start != nil {
			item.dashLine, item.dashCol = n.Entries[i].Start.Position.Line, n.Entries[i].Start.Position.Column
		}
		out.items = append(out.items, item)
		out.size = addSize(out.size, item.size)
		p.path = p.path.up()
	}
	return out
}

func (p *treeParser) anchored(n *ast.AnchorNode, depth int) *node {
	p.tree.aliases = true
	value := p.convert(n.Value, depth)
	value.anchor = n.Name.GetToken().Value
	p.anchors[value.anchor] = value
	return value
}

func (p *treeParser) alias(out *node, n *ast.AliasNode) *node {
	p.tree.aliases = true
	name := n.Value.GetToken().Value
	target := p.anchors[name]
	if target == nil {
		p.report(p.at(out, "config.unknown_reference",
			fmt.Sprintf("there is no anchor &%s before it; if it is a text, put it in quotes: \"*%s\"", name, name)))
		out.kind = brokenKind
		return out
	}
	if !p.literal {
		return target
	}
	out.kind, out.target, out.text, out.size = aliasKind, target, name, target.size
	return out
}

// addSize adds without overflow: what is over maxNodes stays just over it.
func addSize(a, b int) int { return min(a+b, maxNodes+1) }
