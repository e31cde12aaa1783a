package config

import (
	"encoding/json"
	"reflect"
)

// The parts of the document that can be written in more than one way.

// rateLimitUse reads the name of a limit, or a limit in place.
func (d *decoder) rateLimitUse(u *RateLimitUse, n *node) {
	switch n.kind {
	case scalarKind:
		if d.isText(n) {
			u.Name = n.text
		}
	case mappingKind:
		u.Inline = new(RateLimit)
		d.structure(reflect.ValueOf(u.Inline).Elem(), n)
	case nullKind:
		d.report(n, "config.bad_type", "is empty, write the name of a limit or remove the item")
	default:
		d.report(n, "config.bad_type", "is %s where the name of a limit or {rate: 10/s} belongs", n.what())
	}
}

// auth reads a list of authenticators, or {use: [...], mode: ...}.
func (d *decoder) auth(a *Auth, n *node) {
	switch n.kind {
	case nullKind:
		d.report(n, "config.bad_type", "is empty, write [] for open to all or remove the key")
	case mappingKind:
		plan := d.l.plan(authType)
		if n.get("use") == nil {
			d.path = d.path.key("use")
			d.report(n, "config.missing", "is missing, add use: [ ] with the authenticators")
			d.path = d.path.up()
		}
		v := reflect.ValueOf(a).Elem()
		d.defaults(v, plan, n)
		for _, e := range n.entries {
			d.path = d.path.key(e.key.text)
			f := plan.field(e.key.text)
			switch {
			case f == nil:
				d.unknownKey(e.key, plan)
			case f.key == "use":
				a.Use = d.alternatives(e.value)
			default:
				d.value(v.Field(f.index), e.value, &f.rules)
			}
			d.path = d.path.up()
		}
	default:
		a.Mode = "enforce"
		a.Use = d.alternatives(n)
	}
}

// alternatives reads the list of an auth: names, and lists of names that must all agree.
func (d *decoder) alternatives(n *node) [][]string {
	names := func(n *node) []string {
		var out []string
		d.value(reflect.ValueOf(&out).Elem(), n, nil)
		return out
	}
	if n.kind != sequenceKind {
		return [][]string{names(n)}
	}
	out := [][]string{}
	for i, item := range n.items {
		d.path = d.path.index(i)
		if item.kind == sequenceKind && len(item.items) == 0 {
			d.report(item, "config.bad_value", "names nobody, write the names that must all agree or remove it")
		}
		out = append(out, names(item))
		d.path = d.path.up()
	}
	return out
}

// schema reads a JSON Schema: the path of its file, or the schema itself.
func (d *decoder) schema(s *JSONSchema, n *node) {
	switch {
	case n.kind == nullKind:
		d.report(n, "config.bad_type", "is empty, write a schema, the path of its file, or {} for anything")
		return
	case n.kind == scalarKind && n.scalarType() == textType:
		file, code, trouble := d.check("file", n, n.text)
		if trouble != "" {
			d.report(n, code, "%s %s", n.subject(), trouble)
		}
		s.File = file
		return
	case n.kind != mappingKind && n.scalarType() != boolType:
		d.report(n, "config.bad_type", "is %s where a schema or the path of its file belongs", n.what())
		return
	}
	raw, err := json.Marshal(d.free(n))
	if err != nil {
		d.report(n, "config.bad_value", "cannot be written as JSON: %v", err)
		return
	}
	s.Inline = raw
}
