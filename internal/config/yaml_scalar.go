package config

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// anchorName reads the name of an anchor or alias (§6.9.2). Of the signs that YAML
// admits in it, only those are taken that all parsers agree on.
func (p *yamlParser) anchorName() string {
	start := p.off
	for !p.blankAt(0) && !flowSign(p.peek(0)) {
		if !anchorSign(p.peek(0)) {
			p.fail("cannot stand in the name of an anchor, which has letters, digits and _-. only: put the text in quotes")
			return ""
		}
		p.off++
	}
	if p.off == start {
		p.fail("needs a name behind it, or quotes around the text")
		return ""
	}
	return p.text[start:p.off]
}

func anchorSign(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.'
}

func (p *yamlParser) alias() *node {
	n := p.node(aliasKind)
	p.off++
	n.text = p.anchorName()
	return n
}

// plain reads a text or number without quotes (§7.3.3). In a block it may go on
// in lines that are indented deeper than parent, and a colon may show that it is a
// key; then the next byte is that colon.
func (p *yamlParser) plain(parent int, flow bool) (n *node, isKey bool) {
	n = p.node(scalarKind)
	if !p.plainBegins(flow) {
		return n, false
	}
	end, isKey := p.plainLine(flow)
	first := p.text[p.off:end]
	p.off = end
	if isKey && !flow {
		n.text = strings.TrimRight(first, " \t")
		return n, true
	}
	n.text = strings.TrimRight(first, " \t")
	p.off -= len(first) - len(n.text)
	if !isKey {
		p.plainGoesOn(n, parent, flow)
	}
	if isNull(n.text) {
		n.kind = nullKind
	}
	return n, false
}

// isNull reports whether a text without quotes stands for nothing.
func isNull(s string) bool {
	switch s {
	case "~", "null", "Null", "NULL":
		return true
	}
	return false
}

// plainBegins reports whether a plain text can begin with the next byte, and
// fails when it cannot.
func (p *yamlParser) plainBegins(flow bool) bool {
	c := p.text[p.off]
	switch c {
	case '-', '?', ':':
		// Parsers differ on what begins with a ? within brackets.
		if !p.blankAt(1) && !(flow && (flowSign(p.peek(1)) || c == '?')) {
			return true
		}
		if c == ':' {
			p.fail("is a colon without a key before it")
			return false
		}
	case '#':
		p.fail("is a # without a space before it: put one there for a comment, or the text in quotes")
		return false
	case ',', '[', ']', '{', '}', '&', '*', '!', '|', '>', '\'', '"', '%', '@', '`':
	default:
		return true
	}
	p.fail("cannot begin a text with %q: put the text in quotes", string(c))
	return false
}

// plainLine finds the end of a plain text on its line, without taking it, and
// whether the colon of a key ends it.
func (p *yamlParser) plainLine(flow bool) (end int, isKey bool) {
	for end = p.off; end < len(p.text); end++ {
		switch c := p.text[end]; c {
		case '\n':
			return end, false
		case ':':
			next := byte('\n')
			if end+1 < len(p.text) {
				next = p.text[end+1]
			}
			if next == ' ' || next == '\t' || next == '\n' || flow && flowSign(next) {
				return end, true
			}
		case '#':
			if end > p.off && (p.text[end-1] == ' ' || p.text[end-1] == '\t') {
				return end, false
			}
		case ',', '[', ']', '{', '}':
			if flow {
				return end, false
			}
		}
	}
	return end, false
}

// plainGoesOn adds the lines that a plain text goes on in. One line end becomes a
// space, of several the first is left out (§6.5).
func (p *yamlParser) plainGoesOn(n *node, parent int, flow bool) {
	var b strings.Builder
	for {
		ends, next, bol := p.foldTo(p.off)
		if ends == 0 || next == len(p.text) || p.text[next] == '#' {
			break
		}
		spaces := len(p.text[bol:next]) - len(strings.TrimLeft(p.text[bol:next], " "))
		if !flow && spaces <= parent || flow && flowSign(p.text[next]) {
			break
		}
		if flow && p.text[next] == ':' && (next+1 == len(p.text) || strings.IndexByte(" \t\n,[]{}", p.text[next+1]) >= 0) {
			break
		}
		if b.Len() == 0 {
			b.WriteString(n.text)
		}
		p.line, p.bol, p.off = p.line+ends, bol, next
		end, isKey := p.plainLine(flow)
		if isKey && !flow {
			p.fail("looks like a key within the text that begins on line %d: check its indentation, or put the text in quotes", n.line)
			break
		}
		line := strings.TrimRight(p.text[next:end], " \t")
		writeFold(&b, ends)
		b.WriteString(line)
		p.off = next + len(line)
		if isKey {
			break
		}
	}
	if b.Len() > 0 {
		n.text = b.String()
	}
}

// foldTo looks over the white space from an offset on: how many line ends it
// holds, where it ends, and where the line there begins.
func (p *yamlParser) foldTo(from int) (ends, next, bol int) {
	for next = from; next < len(p.text); next++ {
		switch p.text[next] {
		case '\n':
			ends++
			bol = next + 1
		case ' ', '\t':
		default:
			return ends, next, bol
		}
	}
	return ends, next, bol
}

func writeFold(b *strings.Builder, ends int) {
	if ends == 1 {
		b.WriteByte(' ')
		return
	}
	for range ends - 1 {
		b.WriteByte('\n')
	}
}

// quoted reads a text in single or double quotes (§7.3.1, §7.3.2).
func (p *yamlParser) quoted() *node {
	n := p.node(scalarKind)
	quote := p.text[p.off]
	n.style = singleStyle
	if quote == '"' {
		n.style = doubleStyle
	}
	p.off++
	var b strings.Builder
	for {
		if p.eof() {
			p.failAt(n.line, n.col, "quote is never closed: add a "+string(quote))
			return n
		}
		switch c := p.text[p.off]; {
		case c == quote && quote == '\'' && p.peek(1) == '\'':
			b.WriteByte('\'')
			p.off += 2
		case c == quote:
			p.off++
			n.text = b.String()
			return n
		case c == '\\' && quote == '"':
			p.escape(&b)
		case c == '\n' || c == ' ' || c == '\t':
			p.quotedSpace(&b)
		default:
			b.WriteByte(c)
			p.off++
		}
	}
}

// quotedSpace takes white space within quotes: what stands around a line end is
// left out, the line end folded.
func (p *yamlParser) quotedSpace(b *strings.Builder) {
	ends, next, bol := p.foldTo(p.off)
	if ends == 0 {
		b.WriteString(p.text[p.off:next])
		p.off = next
		return
	}
	p.line, p.bol, p.off = p.line+ends, bol, next
	writeFold(b, ends)
}

// escape takes a \ and what it stands for (§5.7).
func (p *yamlParser) escape(b *strings.Builder) {
	c := p.peek(1)
	switch c {
	case '\n':
		// The line goes on without a space.
		ends, next, bol := p.foldTo(p.off + 1)
		p.line, p.bol, p.off = p.line+ends, bol, next
		for range ends - 1 {
			b.WriteByte('\n')
		}
		return
	case 'x':
		p.codePoint(b, 2)
		return
	case 'u':
		p.codePoint(b, 4)
		return
	case 'U':
		p.codePoint(b, 8)
		return
	}
	r := rune(-1)
	switch c {
	case '0':
		r = 0
	case 'a':
		r = '\a'
	case 'b':
		r = '\b'
	case 't', '\t':
		r = '\t'
	case 'n':
		r = '\n'
	case 'v':
		r = '\v'
	case 'f':
		r = '\f'
	case 'r':
		r = '\r'
	case 'e':
		r = 0x1b
	case ' ', '"', '/', '\\':
		r = rune(c)
	case 'N':
		r = 0x85
	case '_':
		r = 0xa0
	case 'L':
		r = 0x2028
	case 'P':
		r = 0x2029
	}
	if r < 0 {
		p.fail(`begins no escape that there is: write \\ for a backslash, or use single quotes`)
		return
	}
	b.WriteRune(r)
	p.off += 2
}

// codePoint takes an escape by number. Two halves of a surrogate pair, as JSON
// writes them, make one character.
func (p *yamlParser) codePoint(b *strings.Builder, digits int) {
	r, ok := p.hex(p.off+2, digits)
	if ok && digits == 4 && utf16.IsSurrogate(r) && strings.HasPrefix(p.text[p.off+6:], `\u`) {
		if low, ok := p.hex(p.off+8, 4); ok {
			if both := utf16.DecodeRune(r, low); both != utf8.RuneError {
				b.WriteRune(both)
				p.off += 12
				return
			}
		}
	}
	if !ok || !utf8.ValidRune(r) {
		p.fail("is not an escape of a character: write \\x and 2, \\u and 4 or \\U and 8 hex digits")
		return
	}
	b.WriteRune(r)
	p.off += 2 + digits
}

func (p *yamlParser) hex(at, digits int) (rune, bool) {
	if at+digits > len(p.text) {
		return 0, false
	}
	n, err := strconv.ParseUint(p.text[at:at+digits], 16, 32)
	return rune(n), err == nil && n <= utf8.MaxRune
}

// blockScalar reads a literal (|) or folded (>) text (§8.1).
func (p *yamlParser) blockScalar(parent int) *node {
	n := p.node(scalarKind)
	n.style = literalStyle
	folded := p.text[p.off] == '>'
	p.off++
	chomp, explicit := p.blockHeader()
	if !p.blankAt(0) || !p.rest() {
		p.fail("does not belong behind | or >: the text begins on the next line")
		return n
	}
	p.newlineOrEnd()
	width := 0
	if explicit > 0 {
		width = max(parent, 0) + explicit
	}
	n.text = p.blockLines(parent, width, folded, chomp)
	return n
}

// blockHeader reads what may stand behind | and >: how the text ends, and how deep
// it is indented (§8.1.1).
func (p *yamlParser) blockHeader() (chomp byte, explicit int) {
	for {
		switch c := p.peek(0); {
		case (c == '+' || c == '-') && chomp == 0:
			chomp = c
		case c >= '1' && c <= '9' && explicit == 0:
			explicit = int(c - '0')
		default:
			return chomp, explicit
		}
		p.off++
	}
}

// blockLines reads the lines of a literal or folded text and joins them. A width
// of 0 is found from the first line that is not blank.
func (p *yamlParser) blockLines(parent, width int, folded bool, chomp byte) string {
	var b strings.Builder
	lead := false       // a line end is due before the next line
	blanks := 0         // blank lines before the next line
	deepBefore := false // the line before begins with white space
	known := width > 0  // the indentation
	deepest := 0        // of blank lines before it is known
	for !p.eof() {
		end := p.lineEnd(p.off)
		row := p.text[p.off:end]
		spaces := len(row) - len(strings.TrimLeft(row, " "))
		blank := spaces == len(row)
		if !known && !blank {
			if spaces <= max(parent, 0) {
				break
			}
			width, known = spaces, true
			if deepest > width {
				p.fail("is indented less than the blank lines before it: take their spaces away")
				return ""
			}
		}
		switch {
		case !known:
			deepest = max(deepest, spaces)
		case blank && spaces <= width:
		case spaces < width:
			return chomped(&b, lead, blanks, chomp)
		default:
			blank = false
		}
		if blank {
			blanks++
		} else {
			row = row[width:]
			deep := row[0] == ' ' || row[0] == '\t'
			joinLines(&b, folded && !deepBefore && !deep, lead, blanks)
			b.WriteString(row)
			lead, blanks, deepBefore = true, 0, deep
		}
		p.off = end
		if p.eof() {
			// The last line has no end.
			if blank {
				blanks--
			} else {
				lead = false
			}
			break
		}
		p.newline()
	}
	return chomped(&b, lead, blanks, chomp)
}

// joinLines writes what stands between two lines of a block text.
func joinLines(b *strings.Builder, fold, lead bool, blanks int) {
	switch {
	case !lead:
	case !fold:
		b.WriteByte('\n')
	case blanks == 0:
		b.WriteByte(' ')
	}
	for range blanks {
		b.WriteByte('\n')
	}
}

// chomped ends a block text: without its last line ends (-), with all of them (+),
// or with one.
func chomped(b *strings.Builder, lead bool, blanks int, chomp byte) string {
	if chomp != '-' && lead {
		b.WriteByte('\n')
	}
	if chomp == '+' {
		for range blanks {
			b.WriteByte('\n')
		}
	}
	return b.String()
}
