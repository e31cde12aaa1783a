package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
)

// ToJSON writes a YAML document as JSON of at most some limit of bytes, with its
// keys in their order. Aliases and merges are resolved; comments are lost. Numbers
// that JSON does not have become texts.
func ToJSON(text []byte, limit int) ([]byte, error) {
	var problems Diagnostics
	t := parseTree(&source{name: "config", text: string(text)}, false, func(d Diagnostic) { problems = append(problems, d) })
	if err := problems.Err(); err != nil {
		return nil, err
	}
	if t.root == nil {
		return []byte("{}\n"), nil
	}
	w := jsonWriter{limit: limit}
	w.value(t.root)
	if w.err != nil {
		return nil, w.err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, w.out, "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// jsonWriter writes a tree as JSON.
type jsonWriter struct {
	out   []byte
	limit int
	err   error
}

func (w *jsonWriter) value(n *node) {
	if w.err != nil {
		return
	}
	if len(w.out) > w.limit {
		w.err = errors.New("it is too large to be written as JSON, with all that its aliases stand for")
		return
	}
	switch n.kind {
	case mappingKind:
		w.out = append(w.out, '{')
		for i, e := range n.entries {
			w.comma(i)
			w.text(e.key.text)
			w.out = append(w.out, ':')
			w.value(e.value)
		}
		w.out = append(w.out, '}')
	case sequenceKind:
		w.out = append(w.out, '[')
		for i, item := range n.items {
			w.comma(i)
			w.value(item)
		}
		w.out = append(w.out, ']')
	case scalarKind:
		w.scalar(n)
	default:
		w.out = append(w.out, "null"...)
	}
}

func (w *jsonWriter) comma(i int) {
	if i > 0 {
		w.out = append(w.out, ',')
	}
}

// scalar writes numbers and truth values as JSON has them, and all else as text.
func (w *jsonWriter) scalar(n *node) {
	switch n.scalarType() {
	case boolType:
		w.out = strconv.AppendBool(w.out, strings.EqualFold(n.text, "true"))
		return
	case intType, floatType:
		number := strings.TrimPrefix(n.text, "+")
		if json.Valid([]byte(number)) {
			w.out = append(w.out, number...)
			return
		}
		base := 10
		if digits := strings.TrimPrefix(number, "-"); strings.HasPrefix(digits, "0x") || strings.HasPrefix(digits, "0o") {
			base = 0
		}
		if i, err := strconv.ParseInt(number, base, 64); err == nil {
			w.out = strconv.AppendInt(w.out, i, 10)
			return
		}
	}
	w.text(n.text)
}

func (w *jsonWriter) text(s string) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		w.err = err
		return
	}
	w.out = append(w.out, bytes.TrimSuffix(out.Bytes(), []byte("\n"))...)
}

// Included lists the patterns of a document's include, as they are written. One
// that cannot be parsed has none: whoever parses it next says why.
func Included(text []byte) []string {
	t := parseTree(&source{text: string(text)}, false, func(Diagnostic) {})
	list := t.root.get("include")
	var out []string
	for i := range list.length() {
		if item := list.item(i); item != nil && item.kind == scalarKind {
			out = append(out, item.text)
		}
	}
	return out
}
