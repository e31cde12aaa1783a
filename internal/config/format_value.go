package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// flow writes a collection on one line. A nil type leaves the keys as they stand.
func (l *layout) flow(n *node, t reflect.Type) string {
	var b strings.Builder
	anchor := func(n *node) {
		if n.anchor != "" {
			b.WriteString("&" + n.anchor + " ")
		}
	}
	if n.kind == sequenceKind {
		b.WriteByte('[')
		for i, item := range n.items {
			if i > 0 {
				b.WriteString(", ")
			}
			anchor(item)
			b.WriteString(l.flowValue(item, l.shapes.below(t, nil)))
		}
		b.WriteByte(']')
		return b.String()
	}
	entries := slices.Clone(n.entries)
	if plan := l.shapes.plan(t); plan != nil && !l.keep {
		rank := func(e entry) int {
			for i := range plan.fields {
				if f := &plan.fields[i]; f.key == e.key.text || f.also != "" && f.also == e.key.text {
					return i
				}
			}
			return len(plan.fields)
		}
		slices.SortStableFunc(entries, func(a, b entry) int { return rank(a) - rank(b) })
	}
	b.WriteByte('{')
	for i, e := range entries {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(l.shapes.key(e.key, n, t))
		b.WriteByte(':')
		value := l.flowValue(e.value, l.shapes.below(t, e.key))
		if value != "" || e.value.anchor != "" {
			b.WriteByte(' ')
		}
		anchor(e.value)
		b.WriteString(value)
	}
	b.WriteByte('}')
	return b.String()
}

func (l *layout) flowValue(n *node, t reflect.Type) string {
	switch {
	case n.kind == mappingKind || n.kind == sequenceKind:
		return l.flow(n, t)
	case n.kind == nullKind && n.text == "":
		return "null"
	default:
		return scalarText(n, true)
	}
}

// key is a key of a mapping as it is to be written: in the first of its
// two spellings, unless both are there.
func (s shapes) key(key, owner *node, t reflect.Type) string {
	if plan := s.plan(t); plan != nil {
		for i := range plan.fields {
			if f := &plan.fields[i]; f.also != "" && f.also == key.text && owner.get(f.key) == nil {
				return f.key
			}
		}
	}
	return keyText(key)
}

// shapes knows which keys stand where in the document. It is a memory of plans,
// made for one run of formatting or masking.
type shapes map[reflect.Type]*structPlan

// plan is the plan of a type whose keys are known, else nil.
func (s shapes) plan(t reflect.Type) *structPlan {
	if t == nil {
		return nil
	}
	p, known := s[t]
	if known {
		return p
	}
	switch {
	case t == useType:
		p = planOf(reflect.TypeFor[RateLimit]())
	case t.Kind() == reflect.Struct && !isScalar(t) && t != reflect.TypeFor[JSONSchema]():
		p = planOf(t)
	}
	s[t] = p
	return p
}

// below is the type of the value of a key, or of an item; nil where any shape is allowed.
func (s shapes) below(t reflect.Type, key *node) reflect.Type {
	if t == nil {
		return nil
	}
	if key != nil {
		if plan := s.plan(t); plan != nil {
			owner := t
			if t == useType {
				owner = reflect.TypeFor[RateLimit]()
			}
			if f := plan.field(key.text); f != nil {
				return deref(owner.Field(f.index).Type)
			}
			return nil
		}
	}
	if key != nil && t.Kind() == reflect.Map || key == nil && t.Kind() == reflect.Slice {
		return deref(t.Elem())
	}
	return nil
}

func deref(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// isLiteral reports whether a text is written as a | block.
func isLiteral(n *node) bool {
	if n.style != literalStyle {
		return false
	}
	body := strings.TrimSuffix(n.text, "\n")
	if body == "" || strings.HasSuffix(body, "\n") || strings.ContainsAny(body[:1], " \t\n#") {
		return false
	}
	for line := range strings.SplitSeq(body, "\n") {
		if strings.TrimRight(line, " \t") != line || strings.HasPrefix(line, "\t") {
			return false
		}
	}
	return printable(strings.ReplaceAll(body, "\n", ""))
}

// printable reports whether a text needs no escapes.
func printable(s string) bool {
	for _, r := range s {
		if r == '\t' || r != ' ' && !unicode.IsPrint(r) || r == utf8.RuneError {
			return false
		}
	}
	return true
}

// scalarText writes a single value on one line, in the quotes that it had unless
// it needs others there. In a flow, and as a key, more characters need quotes.
func scalarText(n *node, flow bool) string {
	switch n.kind {
	case aliasKind:
		return "*" + n.text
	case nullKind:
		return n.text
	}
	switch n.style {
	case plainStyle:
		if typeOfText(n.text) != textType || n.text == "<<" || plainSafe(n.text, flow) {
			return n.text
		}
	case singleStyle:
		if printable(n.text) {
			return "'" + strings.ReplaceAll(n.text, "'", "''") + "'"
		}
	}
	return doubleQuoted(n.text)
}

// keyText writes a key, without quotes where it can.
func keyText(n *node) string {
	switch {
	case n.style == plainStyle && n.text == "<<":
		return n.text
	case plainSafe(n.text, true) && !strings.Contains(n.text, ":"):
		return n.text
	case n.style == plainStyle && strings.Contains(n.text, ":"):
		return doubleQuoted(n.text)
	}
	return scalarText(n, true)
}

// plainSafe reports whether a text can stand without quotes and is a text then.
// It is stricter than YAML.
func plainSafe(s string, flow bool) bool {
	if s == "" || !printable(s) || strings.TrimSpace(s) != s || typeOfText(s) != textType {
		return false
	}
	switch s {
	case "~", "null", "Null", "NULL", "<<", "-", "?", ":", "---", "...", "=":
		return false
	}
	first, _ := utf8.DecodeRuneInString(s)
	if strings.ContainsRune("?,[]{}#&*!|>'\"%@`", first) || strings.HasPrefix(s, "- ") || strings.HasPrefix(s, "--") || strings.HasPrefix(s, "..") {
		return false
	}
	if strings.Contains(s, ": ") || strings.Contains(s, " #") || strings.HasSuffix(s, ":") {
		return false
	}
	if !flow {
		return first != ':' || len(s) > 1 && s[1] != ':'
	}
	return !strings.ContainsAny(s, ",[]{}") && first != ':' && !strings.Contains(s, "::") && !strings.Contains(s, ":\"") && !strings.Contains(s, ":'")
}

// doubleQuoted writes a text in double quotes.
func doubleQuoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == ' ' || unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08X`, r)
		default:
			fmt.Fprintf(&b, `\u%04X`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func width(s string) int { return utf8.RuneCountInString(s) }

// sameMeaning reports whether two trees hold the same, whatever the order of keys and the quotes.
func (s shapes) sameMeaning(a, b *node, t reflect.Type) bool {
	if a == nil || b == nil {
		return (a == nil || len(a.entries) == 0) == (b == nil || len(b.entries) == 0)
	}
	if a.kind != b.kind || a.anchor != b.anchor || len(a.entries) != len(b.entries) || len(a.items) != len(b.items) {
		return false
	}
	switch a.kind {
	case nullKind:
		return true
	case scalarKind:
		return a.text == b.text && (a.style == plainStyle && typeOfText(a.text) != textType) == (b.style == plainStyle && typeOfText(b.text) != textType)
	case aliasKind:
		return a.text == b.text
	}
	for i := range a.items {
		if !s.sameMeaning(a.items[i], b.items[i], s.below(t, nil)) {
			return false
		}
	}
	theirs := make(map[string]*node, len(b.entries))
	for _, e := range b.entries {
		theirs[e.key.text] = e.value
	}
	for _, e := range a.entries {
		other := theirs[e.key.text]
		if plan := s.plan(t); plan != nil && other == nil {
			if f := plan.field(e.key.text); f != nil {
				other = theirs[f.key]
			}
		}
		if other == nil || !s.sameMeaning(e.value, other, s.below(t, e.key)) {
			return false
		}
	}
	return true
}

// lettersOf counts the letters of some comments, to see that none is lost when
// they move or come to stand behind one another.
func lettersOf(comments []comment) [256]int {
	var n [256]int
	for _, c := range comments {
		for i := range len(c.text) {
			if b := c.text[i]; b != '#' && b != ' ' && b != '\t' {
				n[b]++
			}
		}
	}
	return n
}
