package config

import (
	"regexp"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v3"
)

// The parser is held against the YAML organisation's own: a text that both accept
// has the same keys, lists and values in both.

// ours and theirs spell a tree in one way.
func ours(b *strings.Builder, n *node) {
	switch {
	case n == nil || n.kind == nullKind:
		b.WriteString("scalar:" + quoteText(textOf(n)))
	case n.kind == aliasKind:
		b.WriteString("*" + n.text)
	case n.kind == mappingKind:
		b.WriteString("{")
		for _, e := range n.entries {
			ours(b, e.key)
			b.WriteString("=")
			ours(b, e.value)
			b.WriteString(",")
		}
		b.WriteString("}")
	case n.kind == sequenceKind:
		b.WriteString("[")
		for _, item := range n.items {
			ours(b, item)
			b.WriteString(",")
		}
		b.WriteString("]")
	default:
		b.WriteString("scalar:" + quoteText(n.text))
	}
}

func textOf(n *node) string {
	if n == nil {
		return ""
	}
	return n.text
}

func theirs(b *strings.Builder, n *yaml.Node) {
	switch n.Kind {
	case yaml.DocumentNode:
		theirs(b, n.Content[0])
	case yaml.AliasNode:
		b.WriteString("*" + n.Value)
	case yaml.MappingNode:
		b.WriteString("{")
		for i := 0; i+1 < len(n.Content); i += 2 {
			theirs(b, n.Content[i])
			b.WriteString("=")
			theirs(b, n.Content[i+1])
			b.WriteString(",")
		}
		b.WriteString("}")
	case yaml.SequenceNode:
		b.WriteString("[")
		for _, item := range n.Content {
			theirs(b, item)
			b.WriteString(",")
		}
		b.WriteString("]")
	default:
		b.WriteString("scalar:" + quoteText(n.Value))
	}
}

func quoteText(s string) string { return "<" + strings.ReplaceAll(s, ">", ">>") + ">" }

// legitimate are spellings that YAML 1.2 and the other library, which is of 1.1,
// read in two ways: a colon in front of a bracket (§7.3.3: it ends the key), and
// one in the name of an anchor (§6.9.2: it belongs to it); a question mark with
// something right behind it (§7.3.3: it is plain text).
var legitimate = regexp.MustCompile(`:[,\[\]{}]|[&*][^\s]*:|\?\S`)

func FuzzAgainstYAML(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, src []byte) {
		text := string(src)
		if strings.ContainsAny(text, "\r\ufeff") || !plainText(text) || len(text) > 1<<12 {
			return // what parseYAML is not given
		}
		if legitimate.MatchString(text) {
			return
		}
		root, _, failed := parseYAML(text)
		if failed != nil || root == nil {
			return
		}
		var other yaml.Node
		if yaml.Unmarshal(src, &other) != nil || other.Kind == 0 {
			return
		}
		var a, b strings.Builder
		ours(&a, root)
		theirs(&b, &other)
		if a.String() != b.String() {
			t.Errorf("%q\nours   %s\ntheirs %s", text, a.String(), b.String())
		}
	})
}

func plainText(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		return r == '\ufffd' || r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029'
	})
}
