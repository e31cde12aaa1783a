package config

import (
	"bytes"
	_ "embed"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// referenceHead is what the manual says besides the keys.
//
//go:embed reference_head.md
var referenceHead string

// codes are the codes of diagnostics and what each means.
var codes = [...][2]string{
	{"config.admin_without_token", "the admin API could be reached from other machines without a token"},
	{"config.audit", "an audit log that cannot be written"},
	{"config.bad_address", "a text that is no `host:port`"},
	{"config.bad_certificate", "a certificate, key or authority that cannot be used"},
	{"config.bad_duration", "a text that is no duration"},
	{"config.bad_header", "a header name or value that HTTP does not admit"},
	{"config.bad_host", "a text that is no host"},
	{"config.bad_method", "a text that is no HTTP method"},
	{"config.bad_name", "a name with characters that names cannot have"},
	{"config.bad_network", "a text that is no network or address"},
	{"config.bad_path", "a text that is no path"},
	{"config.bad_percentage", "a text that is no percentage"},
	{"config.bad_rate", "a text that is no rate"},
	{"config.bad_route", "a route that the router cannot take"},
	{"config.bad_size", "a text that is no size"},
	{"config.bad_time", "a text that is no time"},
	{"config.bad_type", "a value of another type than the key has"},
	{"config.bad_url", "a text that is no URL, or one that cannot be used there"},
	{"config.bad_value", "a value that the key does not have"},
	{"config.bad_variable", "a `${` that begins no reference"},
	{"config.conflict", "two keys that cannot stand together"},
	{"config.duplicate", "something given twice"},
	{"config.expired_certificate", "a certificate that has run out (a warning)"},
	{"config.foreign_reference", "a document given to the admin API that refers to what the gateway's own file does not"},
	{"config.include_cycle", "an included file that includes others, or a file that includes itself"},
	{"config.listen", "an address that cannot be listened on"},
	{"config.log", "a log that cannot be written"},
	{"config.masked", "`***` in place of a secret"},
	{"config.missing", "something that must be given"},
	{"config.needs_restart", "a change that cannot be made while the gateway runs"},
	{"config.no_audience", "a `jwt` that looks at no audience (a warning)"},
	{"config.no_match", "a pattern of `include` that matches no file (a warning)"},
	{"config.no_routes", "a configuration without routes (a warning)"},
	{"config.not_allowed_here", "a key that belongs in another place"},
	{"config.not_supported", "something that the gateway cannot do yet"},
	{"config.out_of_range", "a number beyond its bounds"},
	{"config.policy", "a policy that cannot be made of its keys"},
	{"config.state", "a `state.dir` that cannot be used"},
	{"config.syntax", "text that is not YAML, or YAML that has no use here"},
	{"config.too_large", "more than is read: 16 MiB a file, 64 MiB and 10,000 files in all, 2,000,000 values"},
	{"config.too_many", "more than 1,000 problems, of which the others are not listed"},
	{"config.unknown_key", "a key that does not exist there"},
	{"config.unknown_reference", "the name of something that is not defined"},
	{"config.unreadable", "a file that cannot be read"},
	{"config.unset_variable", "a variable without value and default"},
	{"config.upstream", "an upstream that cannot be made of its keys"},
	{"config.variable_in_key", "a variable in a key"},
}

// manual is the reference manual as it is written.
type manual struct {
	bytes.Buffer
	comments map[string]string
	places   map[reflect.Type]string // where a block was met first
	later    []section
}

// section is a block of the document that has its own table of keys.
type section struct {
	path string // of the first place where it stands
	t    reflect.Type
}

// Reference returns the manual of the document's keys, in Markdown: docs/config.md.
func Reference() []byte {
	m := &manual{comments: comments(), places: map[reflect.Type]string{}}
	m.WriteString(referenceHead)
	m.WriteString("\n## Keys of the file\n\n")
	m.table("", reflect.TypeFor[File]())
	// Sections are written depth first, each block after the one that it stands in.
	for len(m.later) > 0 {
		s := m.later[0]
		rest := m.later[1:]
		m.later = nil
		fmt.Fprintf(m, "\n### `%s`\n\n%s\n\n", s.path, about(s.t, m.comments))
		m.table(s.path, s.t)
		m.later = append(m.later, rest...)
	}
	m.WriteString("\n## Codes of problems\n\n| code | means |\n|---|---|\n")
	for _, c := range codes {
		fmt.Fprintf(m, "| `%s` | %s |\n", c[0], c[1])
	}
	return m.Bytes()
}

// about is the doc comment of a type without the type's name.
func about(t reflect.Type, comments map[string]string) string {
	text := comments[t.Name()]
	text = strings.TrimPrefix(text, t.Name()+" ")
	for _, verb := range [...]string{"is ", "are "} {
		text = strings.TrimPrefix(text, verb)
	}
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[size:]
}

// table writes the keys of a block and notes the blocks below it.
func (m *manual) table(path string, t reflect.Type) {
	plan := planOf(t)
	if len(plan.fields) == 0 {
		m.WriteString("It has no keys: write `{}`.\n")
		return
	}
	m.WriteString("| key | value | default | |\n|---|---|---|---|\n")
	for i := range plan.fields {
		f := &plan.fields[i]
		field := t.Field(f.index)
		below := path
		if below != "" {
			below += "."
		}
		below += f.key
		text := m.comments[t.Name()+"."+f.name]
		if f.also != "" {
			text += fmt.Sprintf(" May be written `%s` too.", f.also)
		}
		if unsupported(below) {
			text += " **Not supported yet.**"
		}
		text += bounds(&f.rules)
		fmt.Fprintf(m, "| `%s` | %s | %s | %s |\n", f.key, m.kindOf(below, field.Type, &f.rules), defaultOf(f), escape(text))
	}
}

// unsupported reports whether the table of supported.go lists a key.
func unsupported(path string) bool {
	stripped := strings.NewReplacer("[]", ".*", "NAME", "*").Replace(path)
	for _, pattern := range notSupported {
		if rest, isRoute := strings.CutPrefix(pattern, "ROUTE."); isRoute {
			for _, place := range routePlaces {
				if stripped == place+"."+rest {
					return true
				}
			}
		}
		if stripped == pattern {
			return true
		}
	}
	return false
}

func bounds(r *rules) string {
	switch {
	case r.min != "" && r.max != "":
		return fmt.Sprintf(" From %s to %s.", r.min, r.max)
	case r.min != "" && r.min != "0":
		return fmt.Sprintf(" At least %s.", r.min)
	}
	return ""
}

func defaultOf(f *fieldPlan) string {
	switch {
	case f.need:
		return "must be given"
	case !f.isDef:
		return ""
	}
	return "`" + f.def + "`"
}

// escape makes a text fit into a cell.
func escape(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// kindOf describes the values of a key, and notes the blocks among them.
func (m *manual) kindOf(path string, t reflect.Type, r *rules) string {
	t = deref(t)
	if len(r.enum) > 0 && (t.Kind() == reflect.String || t.Kind() == reflect.Slice) {
		words := make([]string, len(r.enum))
		for i, e := range r.enum {
			words[i] = "`" + e + "`"
		}
		text := strings.Join(words, " ")
		if t.Kind() == reflect.Slice {
			text = "list of " + text
		}
		return text
	}
	if name := scalarName(t, r.check); name != "" {
		return name
	}
	switch t.Kind() {
	case reflect.Slice:
		return "list of " + plural(m.kindOf(path+"[]", t.Elem(), &rules{check: r.check}))
	case reflect.Map:
		if t.Elem().Kind() == reflect.String {
			return "block of names and texts"
		}
		if t.Elem().Kind() == reflect.Interface {
			return "block of names and values"
		}
		return "block of names, each " + m.kindOf(path+".NAME", t.Elem(), &rules{})
	case reflect.Interface:
		return "anything"
	}
	switch t {
	case authType:
		return "list of names, or [block](#" + anchor(m.note(path, t)) + ")"
	case useType:
		return "name or [block](#" + anchor(m.note(path, reflect.TypeFor[RateLimit]())) + ")"
	}
	where := m.note(path, t)
	if short := shortForm(t); short != "" {
		return "`" + short + "` or [block](#" + anchor(where) + ")"
	}
	return "[block](#" + anchor(where) + ")"
}

func plural(s string) string {
	switch s {
	case "text", "network", "number", "file", "URL", "address", "host", "method", "header":
		return strings.Replace(s+"s", "addresss", "addresses", 1)
	}
	return strings.Replace(s, "[block]", "[blocks]", 1)
}

// note puts a block on the list of sections, once, and returns where it stands.
func (m *manual) note(path string, t reflect.Type) string {
	if first, known := m.places[t]; known {
		return first
	}
	m.places[t] = path
	m.later = append(m.later, section{path, t})
	return path
}

// anchor is the link target that Markdown gives to a heading.
func anchor(path string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(path) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' || r == '-' {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// scalarName is what the manual calls a type of single values.
func scalarName(t reflect.Type, check string) string {
	switch t {
	case reflect.TypeFor[Duration]():
		return "duration"
	case reflect.TypeFor[Size]():
		return "size"
	case reflect.TypeFor[Rate]():
		return "rate"
	case reflect.TypeFor[Percent]():
		return "percentage"
	case reflect.TypeFor[netip.Prefix]():
		return "network"
	case reflect.TypeFor[time.Time]():
		return "time"
	case reflect.TypeFor[Expression]():
		return "number or expression"
	case secretType:
		return "secret"
	case reflect.TypeFor[JSONSchema]():
		return "JSON Schema or file"
	}
	switch t.Kind() {
	case reflect.String:
		switch check {
		case "file", "host", "method", "header":
			return check
		case "place", "output":
			return "file name"
		case "url", "credential_url", "target":
			return "URL"
		case "address", "host_port":
			return "address"
		case "slash", "base_path", "route_path":
			return "path"
		}
		return "text"
	case reflect.Bool:
		return "`true` `false`"
	case reflect.Int, reflect.Int64:
		return "number"
	}
	return ""
}
