package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Values may hold references: ${NAME} and ${NAME:-default} to the environment,
// ${file:path} to a file, and $${ for the two characters ${. They are expanded in
// the parsed scalars, so that what a variable holds can never become YAML. As in
// a shell, the default is taken when the variable is unset or empty, and it ends
// at the first }. What is expanded is never shown in a diagnostic.

// maxExpanded bounds what all expansions of a configuration may produce.
const maxExpanded = 16 << 20

// reference is one ${…} of a text: text[start:end].
type reference struct {
	start, end int
	escape     bool   // $${
	file       string // of ${file:path}
	name       string // of ${NAME…}
	def        string // of ${NAME:-def}
	hasDef     bool
	bad        bool // ${ that is none of these
}

// nextReference finds the first reference at or after a position.
func nextReference(text string, from int) (r reference, found bool) {
	for i := from; i+1 < len(text); i++ {
		if text[i] != '$' {
			continue
		}
		if strings.HasPrefix(text[i:], "$${") {
			return reference{start: i, end: i + 3, escape: true}, true
		}
		if text[i+1] != '{' {
			continue
		}
		return parseReference(text, i), true
	}
	return reference{}, false
}

func parseReference(text string, start int) reference {
	r := reference{start: start, end: start + 2, bad: true}
	length := strings.IndexByte(text[start:], '}')
	if length < 0 {
		r.end = len(text)
		return r
	}
	r.end = start + length + 1
	inside := text[start+2 : r.end-1]
	if file, ok := strings.CutPrefix(inside, "file:"); ok {
		r.file, r.bad = file, strings.TrimSpace(file) == ""
		return r
	}
	r.name, r.def, r.hasDef = strings.Cut(inside, ":-")
	r.bad = !variableName(r.name)
	return r
}

func variableName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c == '_' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || i > 0 && c >= '0' && c <= '9') {
			return false
		}
	}
	return s != ""
}

// canonical is the reference without its default: what References lists.
func (r reference) canonical() string {
	if r.file != "" {
		return "${file:" + r.file + "}"
	}
	return "${" + r.name + "}"
}

// References lists the references of a document, ${NAME} and ${file:path}, each
// once, sorted and without defaults. A document that cannot be parsed has none.
func References(src []byte) []string {
	t := parseTree(&source{text: string(src)}, true, func(Diagnostic) {})
	seen := map[string]bool{}
	walk(t.root, func(n *node) {
		for r, ok := nextReference(n.text, 0); ok; r, ok = nextReference(n.text, r.end) {
			if !r.escape && !r.bad {
				seen[r.canonical()] = true
			}
		}
	})
	var out []string
	for r := range seen {
		out = append(out, r)
	}
	slices.Sort(out)
	return out
}

// walk calls f with every scalar value below a node, once, aliases not followed.
func walk(n *node, f func(*node)) {
	if n == nil {
		return
	}
	if n.kind == scalarKind {
		f(n)
	}
	for _, e := range n.entries {
		walk(e.value, f)
	}
	for _, item := range n.items {
		walk(item, f)
	}
}

// expandTree expands all values below a node in place. A value that cannot be
// expanded is reported and broken.
func (l *loader) expandTree(src *source, n *node, p path) {
	switch {
	case n == nil || n.expanded:
	case n.kind == scalarKind:
		l.expandScalar(src, n, p)
	default:
		for i := range n.entries {
			l.expandTree(src, n.entries[i].value, p.key(n.entries[i].key.text))
		}
		for i, item := range n.items {
			l.expandTree(src, item, p.index(i))
		}
	}
}

func (l *loader) expandScalar(src *source, n *node, p path) {
	r, found := nextReference(n.text, 0)
	if !found {
		return
	}
	n.raw, n.expanded = n.text, true
	var out strings.Builder
	done := 0
	for ; found; r, found = nextReference(n.raw, done) {
		out.WriteString(n.raw[done:r.start])
		value, code, problem := l.resolve(src, n, r)
		if problem != "" {
			n.kind = brokenKind
			l.report(src, n, p, code, problem)
			return
		}
		out.WriteString(value)
		done = r.end
	}
	out.WriteString(n.raw[done:])
	n.text = out.String()
	if l.expandedBytes += len(n.text); l.expandedBytes > maxExpanded {
		n.text, n.kind = "", brokenKind
		l.report(src, n, p, "config.too_large", fmt.Sprintf("brings what is expanded to over %d MiB, use fewer or smaller files", maxExpanded>>20))
	}
}

// resolve finds what a reference stands for.
func (l *loader) resolve(src *source, n *node, r reference) (value, code, problem string) {
	switch {
	case r.escape:
		return "${", "", ""
	case r.bad:
		return "", "config.bad_variable", "holds a ${ that is no variable: write ${NAME}, ${NAME:-default} or ${file:path}, or $${ for the characters themselves"
	case r.file != "":
		n.hidden = true
		contents, err := l.readFile(l.locate(src, r.file))
		if err != nil {
			return "", "config.unreadable", fmt.Sprintf("${file:%s} cannot be read: %s", r.file, fileProblem(err))
		}
		text := strings.TrimSuffix(strings.TrimSuffix(string(contents), "\n"), "\r")
		if strings.ContainsRune(text, 0) {
			return "", "config.unreadable", fmt.Sprintf("${file:%s} is not a text file", r.file)
		}
		return text, "", ""
	}
	v, set := l.env.Lookup(r.name)
	switch {
	case set && v != "" || set && !r.hasDef:
		return v, "", ""
	case r.hasDef:
		return r.def, "", ""
	}
	return "", "config.unset_variable", fmt.Sprintf("the variable %s is not set: set it, or give a default with ${%s:-default}", r.name, r.name)
}

// locate makes a path that stands in a source absolute.
func (l *loader) locate(src *source, name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(filepath.Dir(src.path), name)
}
