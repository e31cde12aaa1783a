package config

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// This is a parser for the part of YAML 1.2 that a configuration has a use for. It
// turns a text into nodes that know their places, and collects the comments. Left
// out, and refused with words that say so, are tags, directives, keys that are not
// single values, and several documents in one file. All else is read as the
// specification says: blocks and flows, the five kinds of scalars with their
// folding, anchors, aliases, comments. Section numbers are those of YAML 1.2.2.
//
// It is our own because a parser was needed that takes linear time on any input,
// knows the column of every value and comment, and reads a colon within { } as
// YAML 1.2 does: {targets: [http://127.0.0.1:9001]}. It calls itself once a level
// of nesting, which is bounded by maxDepth. After an error it jumps to the end of
// the text, so that everything unwinds as at the end of a file; the first error is
// the one that counts.
//
//	yaml.go         documents, white space, comments
//	yaml_block.go   lists and mappings by indentation
//	yaml_flow.go    [ ] and { }
//	yaml_scalar.go  plain, quoted and literal texts

// comment is a comment of a source: its text without the #.
type comment struct {
	line, col int
	text      string
}

// syntaxError is what is wrong with a text, and where.
type syntaxError struct {
	line, col int
	message   string
}

// yamlParser reads one text.
type yamlParser struct {
	text string
	off  int // of the next byte
	line int // of off, from 1
	bol  int // the offset at which the line begins

	// The last place that was asked for. Columns are counted in characters, from there on.
	markOff, markCol, markBol int

	depth    int
	comments []comment
	err      *syntaxError
}

// parseYAML parses a text that holds one document, without byte order mark,
// carriage returns and control characters. The root is nil when there is nothing
// but comments.
func parseYAML(text string) (root *node, comments []comment, err *syntaxError) {
	p := &yamlParser{text: text, line: 1, markBol: -1}
	p.oneDocument()
	root = p.blockNode(-1, afterDash)
	p.skip()
	if !p.eof() {
		p.fail("does not belong to what stands before it: check its indentation, or put the text in quotes")
	}
	if p.err != nil {
		return nil, nil, p.err
	}
	if root.kind == nullKind && root.text == "" && root.anchor == "" {
		root = nil
	}
	return root, p.comments, nil
}

// oneDocument blanks the marks of the document (§9.1), so that lines and columns
// stay as they are, and refuses a second one.
func (p *yamlParser) oneDocument() {
	var blanked []byte
	begun, ended := false, false
	line := 0
	for at := 0; at < len(p.text); {
		line++
		end := p.lineEnd(at)
		row := p.text[at:end]
		content := strings.TrimLeft(row, " \t")
		switch {
		case content == "" || content[0] == '#':
		case row[0] == '%' && !begun:
			p.failAt(line, 1, "is a YAML directive, which has no use here: remove the line")
			return
		case isMark(row):
			if rest := strings.TrimLeft(row[3:], " \t"); rest != "" && rest[0] != '#' {
				p.failAt(line, 5, "stands behind the mark of a document: put it on a line of its own")
				return
			}
			ended = ended || begun
			begun = true
			if blanked == nil {
				blanked = []byte(p.text)
			}
			copy(blanked[at:], "   ")
		case ended:
			p.failAt(line, 1, "begins a second document: one file holds one, remove the --- or move it to a file of its own")
			return
		default:
			begun = true
		}
		at = end + 1
	}
	if blanked != nil {
		p.text = string(blanked)
	}
}

// isMark reports whether a line begins or ends a document.
func isMark(row string) bool {
	return (strings.HasPrefix(row, "---") || strings.HasPrefix(row, "...")) &&
		(len(row) == 3 || row[3] == ' ' || row[3] == '\t')
}

// lineEnd is the offset at which the line of another one ends.
func (p *yamlParser) lineEnd(from int) int {
	if i := strings.IndexByte(p.text[from:], '\n'); i >= 0 {
		return from + i
	}
	return len(p.text)
}

func (p *yamlParser) eof() bool { return p.off >= len(p.text) }

// peek is the byte some way ahead, or 0 at the end.
func (p *yamlParser) peek(ahead int) byte {
	if p.off+ahead < len(p.text) {
		return p.text[p.off+ahead]
	}
	return 0
}

// blankAt reports whether white space or the end comes some way ahead.
func (p *yamlParser) blankAt(ahead int) bool {
	switch p.peek(ahead) {
	case ' ', '\t', '\n':
		return true
	}
	return p.off+ahead >= len(p.text)
}

// indent is the number of bytes before the next one on its line. Before anything
// that begins a block there are only spaces and dashes.
func (p *yamlParser) indent() int { return p.off - p.bol }

// newline takes a line end.
func (p *yamlParser) newline() {
	p.off++
	p.line++
	p.bol = p.off
}

// place is the line and column of the next byte.
func (p *yamlParser) place() (line, col int) {
	if p.markBol != p.bol || p.off < p.markOff {
		p.markBol, p.markOff, p.markCol = p.bol, p.bol, 1
	}
	p.markCol += utf8.RuneCountInString(p.text[p.markOff:p.off])
	p.markOff = p.off
	return p.line, p.markCol
}

// fail notes an error at the next byte and jumps to the end.
func (p *yamlParser) fail(format string, args ...any) {
	line, col := p.place()
	p.failAt(line, col, fmt.Sprintf(format, args...))
}

func (p *yamlParser) failAt(line, col int, message string) {
	if p.err == nil {
		p.err = &syntaxError{line, col, message}
	}
	p.off = len(p.text)
	p.bol = p.off
}

// skip takes white space, line ends and comments.
func (p *yamlParser) skip() {
	for !p.eof() {
		if p.rest() {
			p.newlineOrEnd()
			continue
		}
		return
	}
}

func (p *yamlParser) newlineOrEnd() {
	if !p.eof() {
		p.newline()
	}
}

// rest takes white space and a comment, and reports whether the line ends there.
func (p *yamlParser) rest() bool {
	for !p.eof() {
		switch c := p.text[p.off]; {
		case c == ' ' || c == '\t':
			p.off++
		case c == '\n':
			return true
		case c == '#' && (p.off == p.bol || p.text[p.off-1] == ' ' || p.text[p.off-1] == '\t'):
			p.comment()
			return true
		default:
			return false
		}
	}
	return true
}

// comment takes a comment up to the end of its line.
func (p *yamlParser) comment() {
	line, col := p.place()
	end := p.lineEnd(p.off)
	p.comments = append(p.comments, comment{line, col, strings.TrimRight(p.text[p.off+1:end], " \t")})
	p.off = end
}

// fresh reports whether only white space stands before the next byte on its line.
func (p *yamlParser) fresh() bool {
	return strings.Trim(p.text[p.bol:p.off], " \t") == ""
}

// tabbed fails when a tab indents the line, and reports whether it did.
func (p *yamlParser) tabbed() bool {
	i := strings.IndexByte(p.text[p.bol:p.off], '\t')
	if i < 0 {
		return false
	}
	p.off = p.bol + i
	p.fail("is a tab where spaces belong: indent with spaces")
	return true
}

// enter goes down a level and reports whether that is not too deep.
func (p *yamlParser) enter() bool {
	p.depth++
	if p.depth > maxDepth && !p.eof() {
		p.fail("is nested deeper than %d levels", maxDepth)
	}
	return p.depth <= maxDepth
}

// node begins a node at the next byte.
func (p *yamlParser) node(k kind) *node {
	line, col := p.place()
	return &node{kind: k, line: line, col: col, size: 1}
}
