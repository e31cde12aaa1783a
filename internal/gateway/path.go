package gateway

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/router"
)

// pathTemplate is the `request.path` of a route: literal text and the route's
// own parameters. A parameter goes in as it stood in the canonical path, that is
// encoded segment by segment, so that a value can never become a new segment.
type pathTemplate struct {
	parts []pathPart
	size  int // of the literals
}

type pathPart struct {
	literal string
	param   int // index of the parameter, when literal is empty
}

// parsePathTemplate compiles text. params are the names in the route's pattern,
// in order; `{id}` and `{params.id}` are the same.
func parsePathTemplate(text string, params []string) (*pathTemplate, error) {
	if !strings.HasPrefix(text, "/") {
		return nil, fmt.Errorf("%q must begin with /", text)
	}
	if err := checkLiteral(text); err != nil {
		return nil, err
	}
	t := &pathTemplate{}
	for rest := text; rest != ""; {
		open := strings.IndexByte(rest, '{')
		if open < 0 {
			open = len(rest)
		}
		if open > 0 {
			t.parts = append(t.parts, pathPart{literal: rest[:open]})
			t.size += open
			rest = rest[open:]
			continue
		}
		end := strings.IndexByte(rest, '}')
		if end < 0 {
			return nil, fmt.Errorf("%q has a { without its }", text)
		}
		name := strings.TrimPrefix(strings.TrimSuffix(rest[1:end], "..."), "params.")
		i := index(params, name)
		if i < 0 {
			return nil, fmt.Errorf("{%s} is not a parameter of the route's path%s", rest[1:end], known(params))
		}
		t.parts = append(t.parts, pathPart{param: i})
		rest = rest[end+1:]
	}
	return t, nil
}

var parameter = regexp.MustCompile(`\{[^{}]*\}`)

// checkLiteral refuses text whose literal part is not in canonical form, which
// the upstream would see unlike what the config says.
func checkLiteral(text string) error {
	plain := parameter.ReplaceAllString(text, "p")
	canonical, err := router.Canonicalize(nil, []byte(plain), router.PathOptions{})
	if err != nil {
		return fmt.Errorf("%q: %w", text, err)
	}
	if string(canonical) != plain {
		return fmt.Errorf("%q is not canonical, its plain text would be %q", text, canonical)
	}
	return nil
}

func index(names []string, name string) int {
	for i := range names {
		if names[i] == name {
			return i
		}
	}
	return -1
}

func known(params []string) string {
	if len(params) == 0 {
		return "; it has none"
	}
	return "; it has {" + strings.Join(params, "}, {") + "}"
}

// expand writes the path into the exchange's scratch memory, in canonical form:
// an empty rest parameter leaves no empty segment. Values that join to a dot
// segment are refused, since it would lead out of the place that the template
// means.
func (t *pathTemplate) expand(x *exchange.Exchange, params router.Params) ([]byte, error) {
	n := t.size
	for i := range t.parts {
		if t.parts[i].literal == "" {
			n += len(params[t.parts[i].param].Value)
		}
	}
	b := x.Scratch(n)[:0]
	for i := range t.parts {
		if p := &t.parts[i]; p.literal != "" {
			b = append(b, p.literal...)
		} else {
			b = append(b, params[p.param].Value...)
		}
	}
	if router.HasDotSegment(b) {
		return nil, errDotSegment
	}
	// The options admit what the parameters may hold: the route was checked.
	return router.Canonicalize(x.Scratch(n)[:0], b, router.PathOptions{KeepEncodedSlash: true, KeepParameters: true})
}

var errDotSegment = errors.New("its parameters make a dot segment in the path for the upstream")
