package iam

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Bounds of a document. AWS admits 8 KiB for a resource policy; a Lambda authorizer
// may return a little more.
const (
	MaxSize  = 64 << 10
	maxDepth = 8
	maxFound = 20 // errors that are told of one document
)

// Error is one thing that is wrong with a document.
type Error struct {
	Line, Column int // from 1; columns are bytes
	Message      string
}

func (e *Error) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Message)
}

// node is a JSON value with its place. text is what a string, a number, true, false
// or null says.
type node struct {
	at      int
	kind    kind
	text    string
	members []member
	items   []node
}

type member struct {
	at    int
	name  string
	value node
}

type kind uint8

const (
	isObject kind = iota
	isList
	isString
	isNumber
	isBool
	isNull
)

var kindNames = [...]string{"an object", "a list", "a string", "a number", "true or false", "null"}

func (k kind) String() string { return kindNames[k] }

// reader makes nodes of a text. It is stricter than encoding/json: text is UTF-8, no
// name stands twice in an object, nothing is nested deeply.
type reader struct {
	data    []byte
	decoder *json.Decoder
}

// read returns the one value of a text.
func read(data []byte) (node, error) {
	if len(data) > MaxSize {
		return node{}, &Error{Line: 1, Column: 1, Message: fmt.Sprintf("the document has %d bytes, %d are the most", len(data), MaxSize)}
	}
	for i := 0; i < len(data); {
		c, n := utf8.DecodeRune(data[i:])
		if c == utf8.RuneError && n <= 1 {
			return node{}, fault(data, i, "this is not UTF-8")
		}
		i += n
	}
	var whole json.RawMessage
	if err := json.Unmarshal(data, &whole); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return node{}, fault(data, int(syntax.Offset)-1, "this is not JSON: "+syntax.Error())
		}
		return node{}, fault(data, 0, "this is not JSON: "+err.Error())
	}
	r := reader{data: data, decoder: json.NewDecoder(bytes.NewReader(data))}
	r.decoder.UseNumber()
	return r.value(0)
}

// fault is an Error at an offset of data.
func fault(data []byte, at int, message string) *Error {
	at = min(max(at, 0), len(data))
	before := data[:at]
	return &Error{Line: 1 + bytes.Count(before, []byte("\n")), Column: at - bytes.LastIndexByte(before, '\n'), Message: message}
}

// next returns the next token and where it begins.
func (r *reader) next() (json.Token, int, error) {
	at := int(r.decoder.InputOffset())
	for at < len(r.data) && strings.IndexByte(" \t\r\n,:", r.data[at]) >= 0 {
		at++
	}
	token, err := r.decoder.Token()
	if err != nil {
		return nil, at, fault(r.data, at, "this is not JSON: "+err.Error())
	}
	if s, ok := token.(string); ok && strings.ContainsRune(s, utf8.RuneError) {
		return nil, at, fault(r.data, at, "the string has half a character in it")
	}
	return token, at, nil
}

func (r *reader) value(depth int) (node, error) {
	token, at, err := r.next()
	if err != nil {
		return node{}, err
	}
	n := node{at: at}
	switch t := token.(type) {
	case string:
		n.kind, n.text = isString, t
	case json.Number:
		n.kind, n.text = isNumber, t.String()
	case bool:
		n.kind, n.text = isBool, fmt.Sprint(t)
	case nil:
		n.kind, n.text = isNull, "null"
	case json.Delim:
		if depth == maxDepth {
			return node{}, fault(r.data, at, fmt.Sprintf("no document needs more than %d levels", maxDepth))
		}
		if t == '{' {
			n.kind, err = isObject, r.object(&n, depth)
		} else {
			n.kind, err = isList, r.list(&n, depth)
		}
	}
	return n, err
}

func (r *reader) object(n *node, depth int) error {
	seen := map[string]bool{}
	for r.decoder.More() {
		token, at, err := r.next()
		if err != nil {
			return err
		}
		name, _ := token.(string)
		if seen[name] {
			return fault(r.data, at, fmt.Sprintf("%q is there twice", name))
		}
		seen[name] = true
		value, err := r.value(depth + 1)
		if err != nil {
			return err
		}
		n.members = append(n.members, member{at: at, name: name, value: value})
	}
	_, _, err := r.next()
	return err
}

func (r *reader) list(n *node, depth int) error {
	for r.decoder.More() {
		value, err := r.value(depth + 1)
		if err != nil {
			return err
		}
		n.items = append(n.items, value)
	}
	_, _, err := r.next()
	return err
}
