package config

import (
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/token"
)

// In { } the parser's scanner takes every colon for the end of a key, so that
// {targets: [http://127.0.0.1:9001]} would hold a mapping of a host to a port. By
// YAML 1.2 (§7.3.3) a colon that a plain character follows belongs to the text.
// mendColons puts such texts together again before the tokens are parsed:
//
//	String "http://127.0.0.1" · ":" · Integer "9001"  →  String "http://127.0.0.1:9001"
//	"[" · ":" · Integer "8080"                        →  "[" · String ":8080"
//
// A colon that a quote or another sign follows directly is reported, as people
// and parsers read it in different ways.

func (p *treeParser) mendColons(tokens token.Tokens) (token.Tokens, bool) {
	mended := false
	out := make([]*token.Token, 0, len(tokens))
	depth := 0
	for i := 0; i < len(tokens); i++ {
		t := tokens[i]
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth--
		case token.MappingValueType:
			if depth == 0 || i+1 == len(tokens) || !adjacent(t, ":", tokens[i+1]) {
				break
			}
			before, next := last(out), tokens[i+1]
			begins := before == nil || isFlowSign(before)
			continues := before != nil && isPlain(before) && adjacent(before, before.Value, t)
			if !begins && !continues || isFlowSign(next) {
				break
			}
			if !isPlain(next) || strings.Contains(next.Value, ": ") {
				p.fail(t.Position.Line, t.Position.Column, "is a colon that could end a key or not: put a space after it, or the whole text in quotes")
				return nil, false
			}
			joined := token.String(":"+next.Value, ":"+next.Origin, t.Position)
			if continues {
				joined = token.String(before.Value+joined.Value, before.Origin+joined.Origin, before.Position)
				out = out[:len(out)-1]
			}
			out = append(out, joined)
			mended = true
			i++
			continue
		}
		out = append(out, t)
	}
	if !mended {
		return tokens, true
	}
	var linked token.Tokens
	for _, t := range out {
		t.Prev, t.Next = nil, nil
		linked.Add(t)
	}
	return linked, true
}

func last(ts []*token.Token) *token.Token {
	if len(ts) == 0 {
		return nil
	}
	return ts[len(ts)-1]
}

// adjacent reports whether b begins where the text of a ends.
func adjacent(a *token.Token, text string, b *token.Token) bool {
	return a.Position.Line == b.Position.Line &&
		a.Position.Column+utf8.RuneCountInString(text) == b.Position.Column
}

// isFlowSign reports whether a token opens, closes or separates flow collections.
func isFlowSign(t *token.Token) bool {
	switch t.Type {
	case token.MappingStartType, token.MappingEndType, token.SequenceStartType, token.SequenceEndType, token.CollectEntryType:
		return true
	}
	return false
}

// isPlain reports whether a token is a text or number without quotes.
func isPlain(t *token.Token) bool {
	switch t.Type {
	case token.StringType, token.BoolType, token.NullType, token.InfinityType, token.NanType,
		token.IntegerType, token.BinaryIntegerType, token.OctetIntegerType, token.HexIntegerType, token.FloatType:
		return true
	}
	return false
}
