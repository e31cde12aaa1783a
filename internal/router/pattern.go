package router

import (
	"fmt"
	"strings"
)

// # Pattern syntax
//
// A pattern begins with "/" and consists of segments:
//
//	text             matches itself
//	{name}           matches one segment, never an empty one
//	a{name}.json     matches one segment that begins and ends so, with at least
//	                 one byte (or one percent-encoded byte) between
//	{name...}        only as the last segment: the rest of the path, slashes
//	                 included, or nothing at all: /files/{p...} matches /files,
//	                 /files/ and /files/a/b
//
// A name is letters, digits, "_" and "-", begins with a letter or "_", and is
// used once in a pattern. Text is compared in canonical form: "/café" and
// "/caf%c3%a9" are the same pattern. A slash at the end counts: /a and /a/ are
// two paths. What other gateways write and this one does not (:name, *,
// {name+}, {name:regex}, ~regex) is an error that says what to write instead,
// rather than a literal that never matches.

type segmentKind uint8

const (
	literal segmentKind = iota
	mixed
	param
	rest
)

type segment struct {
	kind   segmentKind
	text   string // literal: all of it; mixed: what stands in front of the parameter
	suffix string // mixed: what stands behind it
	name   string // of the parameter
}

// ParamNames returns the names of the parameters in a pattern, in order, or
// what is wrong with the pattern.
func ParamNames(pattern string) ([]string, error) {
	segments, err := parsePattern(pattern)
	if err != nil {
		return nil, err
	}
	return paramNames(segments), nil
}

// CanonicalPattern returns a pattern with its text in canonical form, as it
// stands in the paths that match it: the length of a base path in a request is
// that of its canonical pattern, not of what the user wrote. The error is what
// is wrong with the pattern.
func CanonicalPattern(pattern string) (string, error) {
	segments, err := parsePattern(pattern)
	if err != nil {
		return "", err
	}
	var s strings.Builder
	for i := range segments {
		s.WriteByte('/')
		s.WriteString(segments[i].String())
	}
	return s.String(), nil
}

func (s *segment) String() string {
	switch s.kind {
	case literal:
		return s.text
	case rest:
		return "{" + s.name + "...}"
	}
	return s.text + "{" + s.name + "}" + s.suffix
}

func paramNames(segments []segment) []string {
	var names []string
	for i := range segments {
		if segments[i].kind != literal {
			names = append(names, segments[i].name)
		}
	}
	return names
}

func parsePattern(pattern string) ([]segment, error) {
	switch {
	case pattern == "":
		return nil, fmt.Errorf(`the path is empty, write "/" for the root`)
	case pattern[0] == '~':
		return nil, fmt.Errorf("%q is a regular expression; paths are templates such as /users/{id}", pattern)
	case pattern[0] != '/':
		return nil, fmt.Errorf(`%q must begin with "/"`, pattern)
	}
	parts := strings.Split(pattern[1:], "/")
	segments := make([]segment, 0, len(parts))
	for i, part := range parts {
		last := i == len(parts)-1
		if part == "" && !last {
			return nil, fmt.Errorf("%q has an empty segment; requests never have one, since slashes are merged", pattern)
		}
		s, err := parseSegment(part, last)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", pattern, err)
		}
		for _, other := range segments {
			if s.kind != literal && other.name == s.name {
				return nil, fmt.Errorf("%q has the parameter {%s} twice", pattern, s.name)
			}
		}
		segments = append(segments, s)
	}
	if n := len(paramNames(segments)); n > maxParams {
		return nil, fmt.Errorf("%q has %d parameters; %d is the most", pattern, n, maxParams)
	}
	return segments, nil
}

func parseSegment(part string, last bool) (segment, error) {
	open := strings.IndexByte(part, '{')
	if open < 0 {
		return parseLiteral(part)
	}
	end := strings.IndexByte(part[open:], '}')
	if end < 0 {
		return segment{}, fmt.Errorf("%q lacks a }", part)
	}
	end += open
	name, before, behind := part[open+1:end], part[:open], part[end+1:]
	if strings.ContainsRune(behind, '{') {
		return segment{}, fmt.Errorf("%q has two parameters in one segment; use one, and split its value behind the gateway", part)
	}
	name, all := strings.CutSuffix(name, "...")
	if err := checkName(name); err != nil {
		return segment{}, err
	}
	switch {
	case all && !last:
		return segment{}, fmt.Errorf("{%s...} takes the rest of the path and must come last", name)
	case all && before+behind != "":
		return segment{}, fmt.Errorf("{%s...} takes whole segments; nothing may stand beside it in %q", name, part)
	case all:
		return segment{kind: rest, name: name}, nil
	case before+behind == "":
		return segment{kind: param, name: name}, nil
	}
	prefix, err := canonicalText(before)
	if err != nil {
		return segment{}, err
	}
	suffix, err := canonicalText(behind)
	return segment{kind: mixed, text: prefix, suffix: suffix, name: name}, err
}

func parseLiteral(part string) (segment, error) {
	switch {
	case strings.HasPrefix(part, ":") && len(part) > 1:
		return segment{}, fmt.Errorf("a parameter is written {%s}, not %s", part[1:], part)
	case part == "*" || part == "**":
		return segment{}, fmt.Errorf("%q is no wildcard here; write {rest...} for the rest of the path or {name} for one segment", part)
	}
	text, err := canonicalText(part)
	if err == nil && (text == "." || text == "..") {
		err = fmt.Errorf("requests never have the segment %q, since it is resolved", text)
	}
	return segment{kind: literal, text: text}, err
}

func checkName(name string) error {
	if base, ok := strings.CutSuffix(name, "+"); ok {
		return fmt.Errorf("the rest of the path is written {%s...}, not {%s}", base, name)
	}
	if base, _, ok := strings.Cut(name, ":"); ok {
		return fmt.Errorf("{%s} takes no expression; write {%s} and check the value with validate.path", name, base)
	}
	for i := range len(name) {
		c := name[i]
		if !isLetter(c) && c != '_' && (i == 0 || !isDigit(c) && c != '-') {
			return fmt.Errorf("{%s} is no parameter name: letters, digits, _ and -, beginning with a letter", name)
		}
	}
	if name == "" {
		return fmt.Errorf("{} needs a name, such as {id}")
	}
	return nil
}

// canonicalText brings literal text of a pattern into the form that it has in
// a canonical request path. Unlike in a request, bytes that have to be encoded
// may stand there as they are: a config is written by people.
func canonicalText(text string) (string, error) {
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '%':
			d, ok := unhex(text, i)
			switch {
			case !ok:
				return "", fmt.Errorf("%q: %w", text, BadPercent)
			case d == 0:
				return "", fmt.Errorf("%q: %w", text, EncodedNUL)
			case d == '\\':
				return "", fmt.Errorf("%q: %w", text, EncodedBackslash)
			case isUnreserved(d):
				out = append(out, d)
			default:
				out = appendPercent(out, d)
			}
			i += 2
		case c == '}':
			return "", fmt.Errorf("%q has a } without a {", text)
		case c == '?' || c == '#':
			return "", fmt.Errorf("%q: a path has no %q; conditions on the query are written under when.query", text, c)
		case c < ' ' || c == 0x7F || c == '\\':
			return "", fmt.Errorf("%q: %w", text, classError(c))
		case classes[c] == plain || classes[c] == semicolon:
			out = append(out, c)
		default:
			out = appendPercent(out, c)
		}
	}
	return string(out), nil
}
