package config

import "strings"

// where says what stands before a value on its line.
type where uint8

const (
	afterDash where = iota // or nothing: a block may begin here
	afterKey               // a block must begin on a line of its own
)

// blockNode reads the value that begins at or after the next byte and is indented
// deeper than parent (§8.2). A list may stand at the column of its key. When there
// is none, it is null.
func (p *yamlParser) blockNode(parent int, w where) *node {
	defer func() { p.depth-- }()
	none := p.node(nullKind)
	if !p.enter() {
		return none
	}
	anchor, asked := "", p.line
	for {
		p.skip()
		inline := p.line == asked
		if p.eof() || p.fresh() && p.tabbed() {
			break
		}
		column := p.indent()
		if !inline && column <= parent && !(w == afterKey && column == parent && p.isDash()) {
			break
		}
		if p.text[p.off] == '&' {
			if anchor != "" {
				p.fail("is a second anchor for one value: remove it")
				break
			}
			p.off++
			anchor, asked = p.anchorName(), p.line
			continue
		}
		confined := inline && (w == afterKey || anchor != "" || strings.IndexByte(p.text[p.bol:p.off], '\t') >= 0)
		n := p.valueAt(parent, column, confined)
		if anchor != "" {
			if n.kind == aliasKind {
				p.failAt(n.line, n.col, "is an alias with an anchor of its own: remove one of them")
			}
			n.anchor = anchor
		}
		return n
	}
	none.anchor = anchor
	return none
}

// valueAt reads the value at the next byte. No list or mapping may begin there
// when it is confined to the line of its key.
func (p *yamlParser) valueAt(parent, column int, confined bool) *node {
	switch c := p.text[p.off]; {
	case c == '*':
		n := p.alias()
		p.notAKey()
		return n
	case c == '!':
		p.fail("is a YAML tag, which has no use here: remove it, or put the text in quotes")
		return p.node(nullKind)
	case p.isDash():
		if confined {
			p.fail("begins a list behind its key: begin it on a line of its own")
			return p.node(nullKind)
		}
		return p.blockSequence(column)
	case c == '?' && p.blankAt(1):
		p.fail("begins a key that is not a single value, which has no use here: write a name and a colon")
		return p.node(nullKind)
	case c == '|' || c == '>':
		return p.blockScalar(parent)
	case c == '[' || c == '{':
		n := p.flowNode()
		p.notAKey()
		return n
	}
	n, isKey := p.keyOrScalar(parent)
	switch {
	case !isKey:
		return n
	case confined:
		p.fail(`holds a colon and a space: put the text in quotes, or begin the block on a line of its own`)
		return n
	}
	return p.blockMapping(column, n)
}

// isDash reports whether the next byte begins an item of a list.
func (p *yamlParser) isDash() bool { return p.peek(0) == '-' && p.blankAt(1) }

// isColon reports whether the next byte ends a key.
func (p *yamlParser) isColon() bool { return p.peek(0) == ':' && p.blankAt(1) }

// notAKey fails when a colon makes a key of what is not a single value.
func (p *yamlParser) notAKey() {
	off := p.off
	for p.peek(0) == ' ' || p.peek(0) == '\t' {
		p.off++
	}
	if p.isColon() {
		p.fail("would make a key of what stands before it: keys are names")
		return
	}
	p.off = off
}

// keyOrScalar reads a key, up to its colon, or a text or number.
func (p *yamlParser) keyOrScalar(parent int) (n *node, isKey bool) {
	c := p.text[p.off]
	if c == '"' || c == '\'' {
		line := p.line
		n = p.quoted()
		off := p.off
		for p.peek(0) == ' ' || p.peek(0) == '\t' {
			p.off++
		}
		if p.isColon() {
			if p.line != line {
				p.failAt(n.line, n.col, "is a key over several lines: write it on one")
			}
			return n, true
		}
		p.off = off
		return n, false
	}
	return p.plain(parent, false)
}

// blockMapping reads the mapping whose keys stand at a column (§8.2.2), from the
// colon of the first.
func (p *yamlParser) blockMapping(column int, key *node) *node {
	n := &node{kind: mappingKind, line: key.line, col: key.col, size: 1}
	for {
		if !p.eof() {
			p.off++ // the colon
		}
		n.entries = append(n.entries, entry{key, p.blockNode(column, afterKey)})
		if !p.nextAt(column) {
			return n
		}
		switch c := p.text[p.off]; {
		case p.isDash():
			p.fail("is an item of a list among the keys of a block: check its indentation")
			return n
		case c == '&' || c == '*' || c == '!' || c == '[' || c == '{' || c == '|' || c == '>' || c == '?' && p.blankAt(1):
			p.fail("is not a key: write a name and a colon")
			return n
		}
		var isKey bool
		if key, isKey = p.keyOrScalar(column); !isKey {
			p.failAt(key.line, key.col, "is not a key: write a name, a colon and a space")
			return n
		}
	}
}

// blockSequence reads the list whose dashes stand at a column (§8.2.1).
func (p *yamlParser) blockSequence(column int) *node {
	n := p.node(sequenceKind)
	for {
		line, col := p.place()
		p.off++ // the dash
		item := p.blockNode(column, afterDash)
		item.dashLine, item.dashCol = line, col
		n.items = append(n.items, item)
		if !p.nextAt(column) || !p.isDash() {
			return n
		}
	}
}

// nextAt goes to the next value and reports whether it stands at a column. It
// fails when it stands deeper, or behind a value that has ended.
func (p *yamlParser) nextAt(column int) bool {
	line := p.line
	p.skip()
	switch {
	case p.eof():
		return false
	case p.line == line && !p.fresh() && p.text[p.off] == '#':
		p.fail("is a # without a space before it: put one there for a comment, or the text in quotes")
		return false
	case p.line == line && !p.fresh():
		p.fail("stands behind a value that has ended: put the whole text in quotes, or begin a new line")
		return false
	case p.tabbed():
		return false
	case p.indent() > column:
		p.fail("is indented deeper than what it belongs to, which stands at column %d", column+1)
		return false
	}
	return p.indent() == column
}
