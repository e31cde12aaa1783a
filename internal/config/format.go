package config

import (
	"cmp"
	"errors"
	"reflect"
	"slices"
	"strings"
)

// Format writes a document in its canonical form:
//
//   - two spaces of indentation, lists indented below their key
//   - keys in the order of the manual; where aliases are used, in the order they have
//   - blocks stay blocks; {…} and […] stay on one line unless they hold a comment or
//     make the line longer than lineWidth
//   - quotes stay as they are, texts over several lines become | blocks or "…"
//   - every comment stays with what it is about; runs of blank lines become one
//   - ${…} stays as it is
//
// It works on the tree and the comments of a source. Every key of a block and every
// item of a list is a slot, a thing that begins on a line of its own. The comments
// are given to slots first (attach), and written with them after the keys have been
// put in order. At the end the result is parsed again and compared, so that a
// mistake here can never change or lose anything.

// lineWidth is the longest line that {…} or […] may make.
const lineWidth = 120

// Format returns the canonical form of a document. Formatting its result again
// changes nothing. A document that is not YAML is an error with the places.
func Format(src []byte) ([]byte, error) {
	var problems Diagnostics
	report := func(d Diagnostic) { problems = append(problems, d) }
	t := parseTree(&source{name: "config", text: string(src)}, true, report)
	if len(problems) > 0 {
		problems.Sort()
		return nil, problems.Err()
	}
	out := writeTree(t, true)
	again := parseTree(&source{name: "config", text: out}, true, report)
	if len(problems) > 0 || !make(shapes).sameMeaning(t.root, again.root, reflect.TypeFor[File]()) || lettersOf(t.comments) != lettersOf(again.comments) {
		return nil, errors.New("the document uses YAML in a way that cannot be formatted without loss, write it more plainly")
	}
	return []byte(out), nil
}

// slot is a key of a block or an item of a list, with the comments given to it.
type slot struct {
	key       *node // nil for items
	owner     *node // the collection that it is in
	value     *node
	line, col int
	depth     int
	parent    *slot
	children  []*slot // of a value that is written as a block

	head, foot []remark
	tail       string // the comment behind it, with its #
	blank      bool   // a blank line stands before it
}

// remark is a comment on a line of its own.
type remark struct {
	text  string // with its #
	blank bool
}

// layout is a document on its way to its canonical form.
type layout struct {
	lines    []string
	comments []comment // not yet given to slots
	roots    []*slot
	all      []*slot // in the order of the source
	head     []remark
	foot     []remark
	keep     bool // the order of the keys
	shapes   shapes
	out      strings.Builder
}

// writeTree writes a tree, with or without its comments.
func writeTree(t tree, comments bool) string {
	l := &layout{lines: strings.Split(t.text, "\n"), keep: t.aliases, shapes: shapes{}}
	if comments {
		l.comments = t.comments
	}
	if t.root != nil {
		l.roots = l.slots(t.root, nil, 0)
	}
	l.attach()
	for i, r := range l.head {
		l.remark(r, 0, i == 0)
	}
	if len(l.head) > 0 && len(l.roots) > 0 {
		l.out.WriteString("\n")
	}
	l.block(l.roots, reflect.TypeFor[File](), 0, true)
	for i, r := range l.foot {
		l.remark(r, 0, i == 0 && l.out.Len() == 0)
	}
	if t.root != nil && len(l.roots) == 0 {
		l.out.WriteString("{}\n")
	}
	return l.out.String()
}

// slots makes the slots of a collection that is written as a block at an indentation.
func (l *layout) slots(n *node, parent *slot, indent int) []*slot {
	depth := 0
	if parent != nil {
		depth = parent.depth + 1
	}
	var out []*slot
	add := func(s *slot) {
		s.owner, s.parent, s.depth = n, parent, depth
		s.blank = s.line >= 2 && s.line-2 < len(l.lines) && strings.TrimSpace(l.lines[s.line-2]) == ""
		l.all = append(l.all, s)
		out = append(out, s)
		if l.isBlock(s.value, indent+s.prefixWidth()) {
			s.children = l.slots(s.value, s, indent+2)
		}
	}
	for _, e := range n.entries {
		add(&slot{key: e.key, value: e.value, line: e.key.line, col: e.key.col})
	}
	for _, item := range n.items {
		s := &slot{value: item, line: item.line, col: item.col}
		if item.dashLine > 0 {
			s.line, s.col = item.dashLine, item.dashCol
		}
		add(s)
	}
	return out
}

// prefixWidth is how much of a line stands before the value.
func (s *slot) prefixWidth() int {
	if s.key == nil {
		return len("- ")
	}
	return width(keyText(s.key)) + len(": ")
}

// isBlock decides whether a value is written as a block.
func (l *layout) isBlock(n *node, column int) bool {
	if n.kind != mappingKind && n.kind != sequenceKind || len(n.entries)+len(n.items) == 0 {
		return false
	}
	if !n.flow {
		return true
	}
	i, _ := slices.BinarySearchFunc(l.comments, n, func(c comment, n *node) int {
		return cmp.Or(cmp.Compare(c.line, n.line), cmp.Compare(c.col, n.col))
	})
	if i < len(l.comments) {
		if c := l.comments[i]; c.line < n.endLine || c.line == n.endLine && c.col < n.endCol {
			return true
		}
	}
	return column+width(l.flow(n, nil)) > lineWidth
}

// attach gives every comment to a slot, or to the document.
func (l *layout) attach() {
	i := 0          // the slots before i begin before the comment
	var given *slot // who got the comment before, with no slot between
	var asHead bool // as its head
	for _, c := range l.comments {
		if i < len(l.all) && l.all[i].before(c) {
			given, asHead = nil, false
		}
		for i < len(l.all) && l.all[i].before(c) {
			i++
		}
		var before, next *slot
		if i > 0 {
			before = l.all[i-1]
		}
		if i < len(l.all) {
			next = l.all[i]
		}
		text := "#" + c.text
		above := ""
		if c.line >= 2 {
			above = l.lines[c.line-2]
		}
		r := remark{text: text, blank: c.line >= 2 && strings.TrimSpace(above) == ""}
		switch {
		case before != nil && !ownLine(l.lines[c.line-1], c.col):
			if before.tail != "" {
				text = before.tail + " " + text
			}
			before.tail = text
		case before != nil && before.children == nil && before.value.line > c.line:
			before.head = append(before.head, r) // between a key and its value
		case asHead:
			given.head = append(given.head, r)
		default:
			if given == nil {
				given = before
			}
			given, asHead = l.place(r, c, given, next)
		}
	}
	l.splitHead()
}

// before reports whether a slot begins before a comment.
func (s *slot) before(c comment) bool {
	return s.line < c.line || s.line == c.line && s.col < c.col
}

// ownLine reports whether nothing but space stands before a column of a line.
func ownLine(line string, col int) bool {
	i := 1
	for _, c := range line {
		if i >= col {
			break
		}
		if c != ' ' && c != '\t' {
			return false
		}
		i++
	}
	return true
}

// place gives a comment on a line of its own to the slot after it, or, when it is
// indented deeper than that, to the innermost slot before it that it lines up
// with: the slot before or one around it. It returns who got it, and whether as
// the next one's head; what follows then goes there too or further out, so that
// comments keep their order.
func (l *layout) place(r remark, c comment, before, next *slot) (given *slot, asHead bool) {
	nextCol, nextDepth := 1, 0
	if next != nil {
		nextCol, nextDepth = next.col, next.depth
	}
	if c.col > nextCol {
		for s := before; s != nil && s.depth > nextDepth; s = s.parent {
			if s.col <= c.col {
				s.foot = append(s.foot, r)
				return s, false
			}
		}
	}
	if next != nil {
		next.head = append(next.head, r)
		return next, true
	}
	l.foot = append(l.foot, r)
	return &slot{depth: -1}, false
}

// splitHead takes what stands above a blank line at the beginning of the document
// for a word about all of it, which stays in front.
func (l *layout) splitHead() {
	if len(l.all) == 0 {
		return
	}
	first := l.all[0]
	end := 0
	for i := range first.head {
		if i+1 < len(first.head) && first.head[i+1].blank || i+1 == len(first.head) && first.blank {
			end = i + 1
		}
	}
	l.head, first.head = first.head[:end:end], first.head[end:]
}

// block writes slots, each beginning on a new line. first says that the first of
// them is the first line of its block, before which no blank line stands.
func (l *layout) block(slots []*slot, t reflect.Type, indent int, first bool) {
	for _, s := range l.ordered(slots, t) {
		for _, r := range s.head {
			l.remark(r, indent, first)
			first = false
		}
		if s.blank && !first {
			l.out.WriteString("\n")
		}
		first = false
		l.indent(indent)
		l.slot(s, t, indent)
	}
}

// ordered puts the keys of a block in the order of the manual.
func (l *layout) ordered(slots []*slot, t reflect.Type) []*slot {
	plan := l.shapes.plan(t)
	if plan == nil || l.keep {
		return slots
	}
	rank := func(s *slot) int {
		if s.key != nil {
			for i := range plan.fields {
				if f := &plan.fields[i]; f.key == s.key.text || f.also != "" && f.also == s.key.text {
					return i
				}
			}
		}
		return len(plan.fields)
	}
	out := slices.Clone(slots)
	slices.SortStableFunc(out, func(a, b *slot) int { return rank(a) - rank(b) })
	return out
}

// slot writes one slot, the indentation before it being written already.
func (l *layout) slot(s *slot, t reflect.Type, indent int) {
	value := l.shapes.below(t, s.key)
	if s.key == nil {
		l.out.WriteString("-")
	} else {
		l.out.WriteString(l.shapes.key(s.key, s.owner, t) + ":")
	}
	if s.value.anchor != "" {
		l.out.WriteString(" &" + s.value.anchor)
	}
	switch {
	case s.children == nil:
		l.single(s, value, indent)
	case s.key == nil && s.tail == "" && s.value.anchor == "" && l.bare(s.children, value):
		// - name: x
		l.out.WriteString(" ")
		children := l.ordered(s.children, value)
		l.slot(children[0], value, indent+2)
		l.block(children[1:], value, indent+2, false)
	default:
		l.tail(s)
		l.block(s.children, value, indent+2, true)
	}
	for _, r := range s.foot {
		l.remark(r, indent, false)
	}
}

// bare reports whether the first of some slots has no comment above it.
func (l *layout) bare(slots []*slot, t reflect.Type) bool {
	return len(l.ordered(slots, t)[0].head) == 0
}

// single writes a value that is no block, and ends the line.
func (l *layout) single(s *slot, t reflect.Type, indent int) {
	n := s.value
	switch {
	case n.kind == scalarKind && isLiteral(n):
		body, chomp := strings.CutSuffix(n.text, "\n")
		l.out.WriteString(" |")
		if !chomp {
			l.out.WriteString("-")
		}
		l.tail(s)
		for line := range strings.SplitSeq(body, "\n") {
			if line != "" {
				l.indent(indent + 2)
			}
			l.out.WriteString(line + "\n")
		}
		return
	case n.kind == mappingKind || n.kind == sequenceKind:
		l.out.WriteString(" " + l.flow(n, t))
	default:
		if text := scalarText(n, false); text != "" {
			l.out.WriteString(" " + text)
		}
	}
	l.tail(s)
}

// tail writes the comment behind a slot and ends the line.
func (l *layout) tail(s *slot) {
	if s.tail != "" {
		l.out.WriteString(" " + s.tail)
	}
	l.out.WriteString("\n")
}

func (l *layout) remark(r remark, indent int, first bool) {
	if r.blank && !first {
		l.out.WriteString("\n")
	}
	l.indent(indent)
	l.out.WriteString(r.text + "\n")
}

func (l *layout) indent(n int) { l.out.WriteString(strings.Repeat(" ", n)) }
