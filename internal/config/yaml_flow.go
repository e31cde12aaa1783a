package config

// flowNode reads a collection in brackets (§7.4). Its lines may be indented in any way.
func (p *yamlParser) flowNode() *node {
	defer func() { p.depth-- }()
	if !p.enter() {
		return p.node(nullKind)
	}
	if p.text[p.off] == '[' {
		return p.flowSequence()
	}
	return p.flowMapping()
}

func (p *yamlParser) flowSequence() *node {
	n := p.node(sequenceKind)
	n.flow = true
	p.off++
	for p.flowNext(n, ']') {
		item := p.flowValue()
		p.skip()
		if p.flowColon(item) {
			// [a: b] is a list of one mapping.
			if !item.canBeKey() {
				p.failAt(item.line, item.col, "is not a key: write a name and a colon")
			}
			item.kind = scalarKind
			pair := &node{kind: mappingKind, flow: true, line: item.line, col: item.col, size: 1}
			pair.entries = []entry{{item, p.flowPairValue()}}
			pair.endLine, pair.endCol = p.place()
			item = pair
		}
		n.items = append(n.items, item)
		if !p.flowComma(n, ']') {
			break
		}
	}
	return n
}

func (p *yamlParser) flowMapping() *node {
	n := p.node(mappingKind)
	n.flow = true
	p.off++
	for p.flowNext(n, '}') {
		key := p.flowValue()
		if !key.canBeKey() {
			p.failAt(key.line, key.col, "is not a key: write a name and a colon")
			break
		}
		key.kind = scalarKind
		p.skip()
		value := p.node(nullKind)
		if p.flowColon(key) {
			value = p.flowPairValue()
		}
		n.entries = append(n.entries, entry{key, value})
		if !p.flowComma(n, '}') {
			break
		}
	}
	return n
}

// canBeKey reports whether a value is a single one. A word that stands for nothing
// is a name as a key.
func (n *node) canBeKey() bool {
	return n.anchor == "" && (n.kind == scalarKind || n.kind == nullKind && n.text != "")
}

// flowNext goes to the next item of a collection and reports whether there is one.
// It takes the closing bracket.
func (p *yamlParser) flowNext(n *node, closing byte) bool {
	p.skip()
	switch {
	case p.eof():
		p.unclosed(n, closing)
		return false
	case p.text[p.off] == closing:
		n.endLine, n.endCol = p.place()
		p.off++
		return false
	case p.text[p.off] == ',':
		p.fail("is a comma with nothing before it: remove it")
		return false
	}
	return true
}

// flowComma goes behind the comma after an item and reports whether there is one.
// It takes the closing bracket.
func (p *yamlParser) flowComma(n *node, closing byte) bool {
	p.skip()
	switch {
	case p.eof():
		p.unclosed(n, closing)
	case p.text[p.off] == ',':
		p.off++
		return true
	case p.text[p.off] == closing:
		n.endLine, n.endCol = p.place()
		p.off++
	case p.off > 0 && p.text[p.off] == '{' && p.text[p.off-1] == '$':
		p.off--
		p.fail(`begins a variable within %c %c, where it needs quotes: write "${NAME}"`, p.opening(closing), closing)
	case p.text[p.off] == ':':
		p.fail("is a colon behind a value: put the text in quotes, or a comma before its key")
	default:
		p.fail("needs a comma or %c before it", closing)
	}
	return false
}

func (p *yamlParser) opening(closing byte) byte {
	if closing == ']' {
		return '['
	}
	return '{'
}

func (p *yamlParser) unclosed(n *node, closing byte) {
	p.failAt(n.line, n.col, "bracket is never closed: add a "+string(closing))
}

// flowColon takes the colon that makes a key of the value before it. Behind
// quotes it needs no space (§7.4.2).
func (p *yamlParser) flowColon(key *node) bool {
	if p.peek(0) != ':' {
		return false
	}
	if key.style == plainStyle && !p.blankAt(1) && !flowSign(p.peek(1)) {
		return false
	}
	p.off++
	return true
}

// flowPairValue reads the value behind a colon, which may be missing.
func (p *yamlParser) flowPairValue() *node {
	p.skip()
	if p.eof() || flowSign(p.text[p.off]) && p.text[p.off] != '[' && p.text[p.off] != '{' {
		return p.node(nullKind)
	}
	return p.flowValue()
}

// flowValue reads a value within brackets.
func (p *yamlParser) flowValue() *node {
	anchor := ""
	if p.text[p.off] == '&' {
		p.off++
		anchor = p.anchorName()
		p.skip()
		if p.eof() || flowSign(p.text[p.off]) && p.text[p.off] != '[' && p.text[p.off] != '{' {
			n := p.node(nullKind)
			n.anchor = anchor
			return n
		}
	}
	var n *node
	switch c := p.text[p.off]; {
	case c == '[' || c == '{':
		n = p.flowNode()
	case c == '"' || c == '\'':
		n = p.quoted()
	case c == '*':
		n = p.alias()
	case c == '!':
		p.fail("is a YAML tag, which has no use here: remove it, or put the text in quotes")
		n = p.node(nullKind)
	case c == '?' && p.blankAt(1):
		p.fail("begins a key that is not a single value, which has no use here: write a name and a colon")
		n = p.node(nullKind)
	default:
		n, _ = p.plain(-1, true)
	}
	if anchor != "" {
		n.anchor = anchor
	}
	return n
}

// flowSign reports whether a byte separates or brackets flow collections.
func flowSign(c byte) bool {
	switch c {
	case ',', '[', ']', '{', '}':
		return true
	}
	return false
}
