package config

import (
	"reflect"
	"strings"
)

// A configuration is shown and taken back by the admin API. What is shown is the
// document as it was written, with ${…} unexpanded and literal secrets as ***.
// Secrets are the values of Secret fields, the defaults of variables in them, and
// the values of headers that carry credentials by their names. Comments are left
// out, as a line that was commented out may hold a secret too.

// Mask returns a document that can be shown: see above. Apart from that it is in
// canonical form. A document that is not YAML is an error with the places.
func Mask(src []byte) ([]byte, error) {
	var problems Diagnostics
	t := parseTree(&source{name: "config", text: string(src)}, true, func(d Diagnostic) { problems = append(problems, d) })
	if err := problems.Err(); err != nil {
		return nil, err
	}
	if t.root != nil {
		shapes{}.mask(t.root, reflect.TypeFor[File](), "")
	}
	return []byte(writeTree(t, false)), nil
}

// mask masks what is secret below a node. The type is that of the field it is
// for, nil where any shape is allowed; keys is the check of the keys around it.
func (s shapes) mask(n *node, t reflect.Type, keys string) {
	switch n.kind {
	case aliasKind:
		// What is no secret where it is defined may be one here.
		s.mask(n.target, t, keys)
	case scalarKind:
		if t == secretType {
			n.text, n.style = maskText(n.text), maskStyle(n)
		}
	case sequenceKind:
		for _, item := range n.items {
			s.mask(item, s.below(t, nil), keys)
		}
	case mappingKind:
		plan := s.plan(t)
		for _, e := range n.entries {
			if e.key.text == "<<" {
				s.maskMerged(e.value, t, keys)
				continue
			}
			if t != nil && t.Kind() == reflect.Map && strings.HasSuffix(keys, "header") && carriesCredentials(e.key.text) {
				s.mask(e.value, secretType, "")
				continue
			}
			below := ""
			if plan != nil {
				if f := plan.field(e.key.text); f != nil {
					below = f.rules.keys
				}
			}
			s.mask(e.value, s.below(t, e.key), below)
		}
	}
}

// maskMerged masks what << brings into a block: blocks of the same type.
func (s shapes) maskMerged(n *node, t reflect.Type, keys string) {
	if n.kind == sequenceKind {
		for _, item := range n.items {
			s.mask(item, t, keys)
		}
		return
	}
	s.mask(n, t, keys)
}

// carriesCredentials reports whether a header's values are secrets, by its name.
func carriesCredentials(name string) bool {
	name = strings.ToLower(name)
	for _, word := range [...]string{"authorization", "cookie", "token", "secret", "password", "api-key", "apikey"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}

// maskText masks what is literal in a secret and keeps its references.
func maskText(text string) string {
	var b strings.Builder
	done := 0
	for done < len(text) {
		r, found := nextReference(text, done)
		if !found || r.start > done || r.escape || r.bad {
			return mask
		}
		if r.hasDef && r.def != "" {
			b.WriteString("${" + r.name + ":-" + mask + "}")
		} else {
			b.WriteString(text[r.start:r.end])
		}
		done = r.end
	}
	return b.String()
}

// maskStyle is how a masked text is written: *** needs quotes.
func maskStyle(n *node) style {
	if n.text == mask || n.style == literalStyle {
		return doubleStyle
	}
	return n.style
}

// Masks lists the paths of the values of a document that hold *** where a secret
// was masked. Such a document was shown by Mask and cannot be used as it is.
func Masks(src []byte) []string {
	var found []string
	t := parseTree(&source{text: string(src)}, false, func(Diagnostic) {})
	if t.root != nil {
		findMasks(t.root, nil, &found)
	}
	return found
}

func findMasks(n *node, p path, found *[]string) {
	if n.kind == scalarKind && (n.text == mask || strings.Contains(n.text, ":-"+mask+"}")) {
		*found = append(*found, p.String())
	}
	for _, e := range n.entries {
		findMasks(e.value, p.key(e.key.text), found)
	}
	for i, item := range n.items {
		findMasks(item, p.index(i), found)
	}
}
