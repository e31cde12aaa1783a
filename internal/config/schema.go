package config

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"
)

//go:generate go run ./generate comments
//go:generate go run ./generate reference

// comments.json holds the doc comments of the document's types and fields, by
// "Type" and "Type.Field". The folder generate writes it from the source.
//
//go:embed comments.json
var commentsJSON []byte

// comments reads comments.json.
func comments() map[string]string {
	var out map[string]string
	if err := json.Unmarshal(commentsJSON, &out); err != nil {
		panic("config: comments.json: " + err.Error())
	}
	return out
}

// object is a JSON object that keeps its order.
type object []member

type member struct {
	name  string
	value any
}

// MarshalJSON writes the members in their order.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// schemaWriter collects the definitions of a schema.
type schemaWriter struct {
	comments map[string]string
	defs     object
	done     map[string]bool
}

// Schema returns the JSON Schema (2020-12) of the document, for editors. What
// needs more than one value to be checked, it does not say.
func Schema() []byte {
	w := &schemaWriter{comments: comments(), done: map[string]bool{}}
	root := w.structure(reflect.TypeFor[File]())
	root[0].value = "The configuration of a Sluice gateway, as docs/config.md explains it."
	head := object{
		{"$schema", "https://json-schema.org/draft/2020-12/schema"},
		{"title", "Sluice configuration"},
	}
	head = append(head, root...)
	head = append(head, member{"$defs", w.defs})
	raw, err := json.Marshal(head)
	if err != nil {
		panic("config: schema: " + err.Error())
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		panic("config: schema: " + err.Error())
	}
	out.WriteByte('\n')
	return out.Bytes()
}

// define adds a definition once and returns a reference to it.
func (w *schemaWriter) define(name string, make func() object) object {
	if !w.done[name] {
		w.done[name] = true
		i := len(w.defs)
		w.defs = append(w.defs, member{name, nil})
		w.defs[i].value = make()
	}
	return object{{"$ref", "#/$defs/" + name}}
}

// structure is the schema of a struct.
func (w *schemaWriter) structure(t reflect.Type) object {
	plan := planOf(t)
	var properties object
	var required []string
	for i := range plan.fields {
		f := &plan.fields[i]
		field := t.Field(f.index)
		value := w.value(field.Type, &f.rules)
		if doc := w.comments[t.Name()+"."+f.name]; doc != "" {
			value = append(object{{"description", doc}}, value...)
		}
		if f.isDef {
			value = append(value, member{"default", defaultJSON(f.def, field.Type)})
		}
		properties = append(properties, member{f.key, value})
		if f.also != "" {
			properties = append(properties, member{f.also, value})
		}
		if f.need {
			required = append(required, f.key)
		}
	}
	out := object{{"type", "object"}, {"additionalProperties", false}}
	out = append(object{{"description", about(t, w.comments)}}, out...)
	if len(properties) > 0 {
		out = append(out, member{"properties", properties})
	}
	if len(required) > 0 {
		out = append(out, member{"required", required})
	}
	if choice := exclusive(t); choice != nil {
		var one []object
		for _, key := range choice {
			one = append(one, object{{"required", []string{key}}})
		}
		out = append(out, member{"oneOf", one})
	}
	return out
}

// exclusive lists the keys of which a struct has exactly one.
func exclusive(t reflect.Type) []string {
	switch t {
	case reflect.TypeFor[Upstream]():
		return []string{"targets", "lambda", "respond"}
	case reflect.TypeFor[ClientKey]():
		return []string{"hash", "value"}
	case reflect.TypeFor[Authenticator]():
		var kinds []string
		for _, key := range planOf(t).keys {
			if key != "join" && key != "forward" {
				kinds = append(kinds, key)
			}
		}
		return kinds
	}
	return nil
}

// value is the schema of a field.
func (w *schemaWriter) value(t reflect.Type, r *rules) object {
	t = deref(t)
	if s := w.special(t); s != nil {
		return s
	}
	switch t.Kind() {
	case reflect.Struct:
		ref := w.define(t.Name(), func() object { return w.structure(t) })
		if short := shortForm(t); short != "" {
			return anyOf(object{{"type", "string"}}, ref)
		}
		return ref
	case reflect.Slice:
		item := w.value(t.Elem(), r)
		list := object{{"type", "array"}, {"items", item}}
		if isScalar(t.Elem()) || shortForm(t.Elem()) != "" {
			return anyOf(list, item)
		}
		return list
	case reflect.Map:
		values := rules{}
		if r != nil {
			values = rules{enum: r.enum, check: r.check}
		}
		return object{{"type", "object"}, {"additionalProperties", w.value(t.Elem(), &values)}}
	case reflect.Bool:
		return anyOf(object{{"type", "boolean"}}, w.variable())
	case reflect.Int, reflect.Int64:
		number := object{{"type", "integer"}}
		for _, bound := range [...]struct{ name, text string }{{"minimum", r.min}, {"maximum", r.max}} {
			if n, err := strconv.ParseInt(bound.text, 10, 64); err == nil {
				number = append(number, member{bound.name, n})
			}
		}
		return anyOf(number, w.variable())
	case reflect.String:
		return w.text(r)
	default:
		return object{}
	}
}

// text is the schema of a text, with the values that it may have.
func (w *schemaWriter) text(r *rules) object {
	if r == nil || len(r.enum) == 0 {
		return object{{"type", "string"}}
	}
	var words []string
	var patterns []string
	var choices []object
	for _, e := range r.enum {
		word, rest, open := strings.Cut(e, ":")
		switch {
		case e == "STATUS":
			choices = append(choices, object{{"type", "integer"}, {"minimum", 400}, {"maximum", 599}})
		case open && rest == strings.ToUpper(rest):
			patterns = append(patterns, word)
		default:
			words = append(words, e)
		}
	}
	if len(patterns) > 0 {
		choices = append([]object{{{"type", "string"}, {"pattern", "^(" + strings.Join(patterns, "|") + "):."}}}, choices...)
	}
	if len(words) > 0 {
		choices = append([]object{{{"enum", words}}}, choices...)
	}
	return anyOf(append(choices, w.variable())...)
}

// special is the schema of the types that read themselves.
func (w *schemaWriter) special(t reflect.Type) object {
	notation := func(name, description, pattern string, zero bool) object {
		return w.define(name, func() object {
			choices := []object{{{"type", "string"}, {"pattern", pattern}}}
			if zero {
				choices = append(choices, object{{"const", 0}})
			}
			return append(object{{"description", description}}, anyOf(append(choices, w.variable())...)...)
		})
	}
	switch t {
	case reflect.TypeFor[Duration]():
		return notation("duration", "A length of time: 500ms, 5s, 1h, 7d, or 0.", `^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h|d))+)$`, true)
	case reflect.TypeFor[Size]():
		return notation("size", "A number of bytes: 512B, 64KiB, 10MiB, 1GiB, or 0.", `^(0|[0-9]+(B|KiB|MiB|GiB))$`, true)
	case reflect.TypeFor[Rate]():
		return notation("rate", "A number in a time: 100/s, 5000/h, 300/90s.", `^[0-9]+/[0-9]*(s|m|h|d)$`, false)
	case reflect.TypeFor[Percent]():
		return notation("percentage", "A share: 20%, 0.5%.", `^[0-9]+(\.[0-9]*)?%$`, false)
	case reflect.TypeFor[netip.Prefix]():
		return w.define("network", func() object {
			return object{{"description", "A network or an address: 10.0.0.0/8, 2001:db8::/32, 192.0.2.1."}, {"type", "string"}}
		})
	case reflect.TypeFor[time.Time]():
		return object{{"type", "string"}, {"description", "A time: 2027-01-31T00:00:00Z."}}
	case reflect.TypeFor[Expression]():
		return object{{"type", []string{"string", "number"}}}
	case secretType:
		return w.define("secret", func() object {
			return object{{"description", "A secret, best as ${NAME} or ${file:path}. It is never shown."}, {"type", "string"}}
		})
	case reflect.TypeFor[JSONSchema]():
		return w.define("schema", func() object {
			return object{{"description", about(t, w.comments)}, {"type", []string{"string", "object", "boolean"}}}
		})
	case useType:
		limit := w.define("RateLimit", func() object { return w.structure(reflect.TypeFor[RateLimit]()) })
		return anyOf(object{{"type", "string"}}, limit)
	case authType:
		name := object{{"type", "string"}}
		names := object{{"type", "array"}, {"items", name}}
		use := anyOf(object{{"type", "array"}, {"items", anyOf(name, names)}}, name)
		long := w.define("Auth", func() object {
			out := w.structure(authType)
			return append(out, member{"required", []string{"use"}})
		})
		return anyOf(use, long)
	}
	if t == reflect.TypeFor[[][]string]() {
		name := object{{"type", "string"}}
		return object{{"type", "array"}, {"items", anyOf(name, object{{"type", "array"}, {"items", name}})}}
	}
	return nil
}

// variable is a text that holds ${…}, which may stand for a value of any type.
func (w *schemaWriter) variable() object {
	return w.define("variable", func() object {
		return object{
			{"description", "A reference to the environment, ${NAME} or ${NAME:-default}, or to a file, ${file:path}."},
			{"type", "string"},
			{"pattern", `\$\{`},
		}
	})
}

// anyOf is a choice, or the one thing to choose from.
func anyOf(choices ...object) object {
	if len(choices) == 1 {
		return choices[0]
	}
	return object{{"anyOf", choices}}
}

// defaultJSON is a default as a JSON value.
func defaultJSON(text string, t reflect.Type) any {
	t = deref(t)
	switch {
	case t.Kind() == reflect.Slice:
		return strings.Split(text, ", ")
	case t.Kind() == reflect.Bool:
		return text == "true"
	case t.Kind() == reflect.Int || t.Kind() == reflect.Int64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err == nil {
			return n
		}
	}
	return text
}
