package iam

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// ARNs have six components with colons between them; the last may have colons too:
//
//	arn:partition:service:region:account:resource
//
// Each is compared for itself. The resource of an API is ID/STAGE/METHOD/PATH, and a
// * in it reaches over slashes.

const components = 6

// splitARN cuts a text into at most six components. Colons in a variable are its own.
func splitARN(text string) []string {
	var all []string
	inside, from := false, 0
	for i := 0; i < len(text) && len(all) < components-1; i++ {
		switch {
		case strings.HasPrefix(text[i:], "${"):
			inside = true
		case text[i] == '}':
			inside = false
		case text[i] == ':' && !inside:
			all = append(all, text[from:i])
			from = i + 1
		}
	}
	return append(all, text[from:])
}

var errARN = errors.New("is no ARN: write arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE")

// compileARN reads the ARN of a condition.
func compileARN(text string, with syntax) ([]pattern, error) {
	parts := splitARN(text)
	if len(parts) != components {
		return nil, fmt.Errorf("%q %w", text, errARN)
	}
	return compileAll(parts, with)
}

func compileAll(parts []string, with syntax) ([]pattern, error) {
	all := make([]pattern, len(parts))
	for i, text := range parts {
		var err error
		if all[i], err = compile(text, with); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// matchARN compares the ARN of a request.
func matchARN(want []pattern, q *Request, text string) bool {
	for i := range want {
		part := text
		if i < len(want)-1 {
			var ok bool
			if part, text, ok = strings.Cut(text, ":"); !ok {
				return false
			}
		}
		if !match(&want[i], q, part) {
			return false
		}
	}
	return true
}

// resource is one pattern of a Resource or NotResource.
type resource struct {
	every bool // *
	// head are the components behind `arn` and before the resource. Of an ARN that
	// ends early in a *, the last of head is compared with all the rest, and there are
	// no tails.
	head  []pattern
	early bool
	// own is the resource; of the short form it begins with the slash behind the id.
	own   pattern
	short bool
	// tails are what own can be behind an id that is not known.
	tails []pattern
}

const shortForm = "execute-api:/"

// compileResource reads a pattern. Variables may stand only behind the fifth colon.
func compileResource(text string, with syntax) (r resource, err error) {
	if text == "*" {
		return resource{every: true}, nil
	}
	if strings.HasPrefix(text, shortForm) {
		r.short = true
		r.own, err = compile(text[len(shortForm)-1:], with)
		return r, err
	}
	parts := splitARN(text)
	if parts[0] != "arn" || len(parts) < components && !strings.HasSuffix(text, "*") {
		return r, fmt.Errorf("%q is no resource: write *, execute-api:/STAGE/METHOD/PATH or arn:aws:execute-api:REGION:ACCOUNT:API/STAGE/METHOD/PATH", text)
	}
	r.early = len(parts) < components
	head := parts[1:min(len(parts), components-1)]
	for _, part := range head {
		if with&variables != 0 && strings.Contains(part, "${") {
			return r, fmt.Errorf("%q has a variable before the fifth colon, where none may be", text)
		}
	}
	if r.head, err = compileAll(head, with&wildcards); err != nil || r.early {
		return r, err
	}
	if r.own, err = compile(parts[components-1], with); err != nil {
		return r, err
	}
	r.tails = behindID(r.own)
	return r, nil
}

// behindID returns what a pattern can be behind an id that may be any text without a
// slash, as far as that can begin with a slash.
func behindID(p pattern) []pattern {
	var all []pattern
	for i, one := range p.parts {
		rest := pattern{parts: p.parts[i:]}
		switch one.kind {
		case many:
			all = append(all, rest)
		case literal:
			if before, _, ok := strings.Cut(one.text, "/"); ok {
				if i == 0 && before == "" {
					return all // an id is never empty
				}
				rest.parts = append([]part{{text: one.text[len(before):]}}, p.parts[i+1:]...)
				return append(all, rest)
			}
		default: // a character or a value, which could be the slash
			if i > 0 {
				all = append(all, rest)
			}
		}
	}
	return all
}

// target is the Resource of a request, cut once for all statements.
type target struct {
	head [components - 2][]byte // partition, service, region, account
	rest [components - 2][]byte // what begins with each of head
	own  []byte                 // ID/STAGE/METHOD/PATH; short: /STAGE/METHOD/PATH
	kind targetKind
}

type targetKind uint8

const (
	noTarget targetKind = iota // only * is that
	shortTarget
	fullTarget
)

var colon = []byte(":")

func targetOf(text []byte) (t target) {
	if rest, ok := bytes.CutPrefix(text, []byte(shortForm)); ok {
		t.kind, t.own = shortTarget, text[len(text)-len(rest)-1:]
		return t
	}
	rest, ok := bytes.CutPrefix(text, []byte("arn:"))
	for i := range t.head {
		t.rest[i] = rest
		if !ok {
			return t
		}
		t.head[i], rest, ok = bytes.Cut(rest, colon)
	}
	if ok {
		t.kind, t.own = fullTarget, rest
	}
	return t
}

const service = "execute-api"

// matches reports whether t is one of the pattern's resources.
func (r *resource) matches(q *Request, t *target) bool {
	switch {
	case r.every:
		return true
	case t.kind == noTarget:
		return false
	case r.short && t.kind == shortTarget:
		return match(&r.own, q, t.own)
	case r.short:
		slash := bytes.IndexByte(t.own, '/')
		return string(t.head[1]) == service && slash > 0 && match(&r.own, q, t.own[slash:])
	case t.kind == shortTarget:
		return r.matchesShort(q, t)
	}
	for i := range r.head {
		part := t.head[i]
		if r.early && i == len(r.head)-1 {
			return match(&r.head[i], q, t.rest[i])
		}
		if !match(&r.head[i], q, part) {
			return false
		}
	}
	return match(&r.own, q, t.own)
}

// matchesShort compares an ARN with a resource of which partition, region, account
// and API are not known: they are whatever the ARN says.
func (r *resource) matchesShort(q *Request, t *target) bool {
	if len(r.head) > 1 && !match(&r.head[1], q, service) {
		return false
	}
	if r.early {
		return true
	}
	for i := range r.tails {
		if match(&r.tails[i], q, t.own) {
			return true
		}
	}
	return false
}
