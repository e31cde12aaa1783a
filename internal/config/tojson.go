package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// ToJSON writes a YAML document as JSON of at most some limit of bytes, with its
// keys in their order. Anchors and merges are resolved; comments are lost.
func ToJSON(text []byte, limit int) ([]byte, error) {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, err
	}
	w := jsonWriter{limit: limit, anchors: map[string]ast.Node{}, targets: map[ast.Node]ast.Node{}}
	var root ast.Node
	for _, doc := range file.Docs {
		if doc.Body != nil {
			root = doc.Body
			break
		}
	}
	if root == nil {
		return []byte("null\n"), nil
	}
	ast.Walk(&w, root)
	if err := w.value(root); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, w.out, "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// jsonWriter writes a parsed document.
type jsonWriter struct {
	out     []byte
	limit   int
	anchors map[string]ast.Node   // as of the node that is visited
	targets map[ast.Node]ast.Node // what each alias stands for
	depth   int
}

// Visit finds what aliases stand for, in the order of the document: a name may be
// given anew.
func (w *jsonWriter) Visit(n ast.Node) ast.Visitor {
	switch n := n.(type) {
	case *ast.AnchorNode:
		w.anchors[n.Name.GetToken().Value] = n.Value
	case *ast.AliasNode:
		w.targets[n] = w.anchors[n.Value.GetToken().Value]
	}
	return w
}

// maxNesting is more than any configuration has: an anchor may hold
// an alias to itself, and a few aliases can stand for very much.
const (
	maxNesting = 100
)

func (w *jsonWriter) value(n ast.Node) error {
	if w.depth++; w.depth > maxNesting || len(w.out) > w.limit {
		return errors.New("it is nested too deeply, or too large")
	}
	defer func() { w.depth-- }()
	switch n := n.(type) {
	case *ast.AnchorNode:
		return w.value(n.Value)
	case *ast.AliasNode:
		if t := w.targets[n]; t != nil {
			return w.value(t)
		}
	case *ast.MappingNode:
		return w.mapping(n)
	case *ast.SequenceNode:
		w.out = append(w.out, '[')
		for i, item := range n.Values {
			if i > 0 {
				w.out = append(w.out, ',')
			}
			if err := w.value(item); err != nil {
				return err
			}
		}
		w.out = append(w.out, ']')
		return nil
	case *ast.InfinityNode, *ast.NanNode:
		return w.scalar(n.GetToken().Value) // JSON has no such number
	case *ast.LiteralNode:
		return w.scalar(n.Value.Value)
	case ast.ScalarNode:
		return w.scalar(n.GetValue())
	}
	return fmt.Errorf("it holds a %s that JSON has nothing for", strings.ToLower(n.Type().String()))
}

func (w *jsonWriter) mapping(n *ast.MappingNode) error {
	w.out = append(w.out, '{')
	for i, e := range w.entries(n, 0) {
		if i > 0 {
			w.out = append(w.out, ',')
		}
		if err := w.scalar(jsonKey(e)); err != nil {
			return err
		}
		w.out = append(w.out, ':')
		if err := w.value(e.Value); err != nil {
			return err
		}
	}
	w.out = append(w.out, '}')
	return nil
}

// entries are the keys of a mapping, and behind them those that << brings and
// that it does not have.
func (w *jsonWriter) entries(n *ast.MappingNode, depth int) []*ast.MappingValueNode {
	var own, merges []*ast.MappingValueNode
	seen := map[string]bool{}
	for _, e := range n.Values {
		if _, merge := e.Key.(*ast.MergeKeyNode); merge {
			merges = append(merges, e)
		} else if !seen[jsonKey(e)] {
			seen[jsonKey(e)] = true
			own = append(own, e)
		}
	}
	for _, m := range merges {
		for _, from := range w.merged(m.Value, depth) {
			for _, e := range w.entries(from, depth+1) {
				if !seen[jsonKey(e)] {
					seen[jsonKey(e)] = true
					own = append(own, e)
				}
			}
		}
	}
	return own
}

// merged are the mappings that a << names.
func (w *jsonWriter) merged(n ast.Node, depth int) []*ast.MappingNode {
	if depth > maxNesting {
		return nil
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		return []*ast.MappingNode{n}
	case *ast.AnchorNode:
		return w.merged(n.Value, depth+1)
	case *ast.AliasNode:
		return w.merged(w.targets[n], depth+1)
	case *ast.SequenceNode:
		var all []*ast.MappingNode
		for _, item := range n.Values {
			all = append(all, w.merged(item, depth+1)...)
		}
		return all
	}
	return nil
}

func jsonKey(e *ast.MappingValueNode) string {
	if s, ok := e.Key.(*ast.StringNode); ok {
		return s.Value
	}
	return e.Key.GetToken().Value
}

func (w *jsonWriter) scalar(v any) error {
	if f, ok := v.(float64); ok && (math.IsInf(f, 0) || math.IsNaN(f)) {
		v = fmt.Sprint(f)
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	w.out = append(w.out, bytes.TrimSuffix(out.Bytes(), []byte("\n"))...)
	return nil
}

// Included lists the patterns of a document's include, as they are written. One
// that cannot be parsed has none: whoever parses it next says why.
func Included(text []byte) []string {
	var head struct {
		Include any `yaml:"include"`
	}
	if yaml.Unmarshal(text, &head) != nil {
		return nil
	}
	switch v := head.Include.(type) {
	case nil:
		return nil
	case []any:
		patterns := make([]string, len(v))
		for i, p := range v {
			patterns[i] = fmt.Sprint(p)
		}
		return patterns
	default:
		return []string{fmt.Sprint(v)}
	}
}

// locate finds where a document has a reference, as line and column from 1, the
