package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// The decoder fills the document's types from a tree, by their tags. It goes on
// after every problem, leaving what it could not read empty, so that one run finds
// them all. What it leaves empty stays silent in the later checks, which look at
// the tree to tell an absent key from a bad one.

type decoder struct {
	l    *loader
	src  *source
	path path
}

// report adds a problem at a node; the message follows the path.
func (d *decoder) report(n *node, code, format string, args ...any) {
	d.l.report(d.src, n, d.path, code, fmt.Sprintf(format, args...))
}

// value decodes a node into a value that can be set.
func (d *decoder) value(v reflect.Value, n *node, r *rules) {
	if n.kind == brokenKind {
		d.blank(v)
		return
	}
	if d.special(v, n, r) {
		return
	}
	if n.kind == nullKind {
		d.report(n, "config.bad_type", "is empty, %s", emptyHint(v.Type()))
		d.blank(v)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		d.value(p.Elem(), n, r)
		v.Set(p)
	case reflect.Struct:
		d.structure(v, n)
	case reflect.Slice:
		d.list(v, n, r)
	case reflect.Map:
		d.mapping(v, n, r)
	default:
		d.scalar(v, n, r)
	}
}

// blank gives a pointer to a struct something to point to, so that what names it finds it.
func (d *decoder) blank(v reflect.Value) {
	if v.Kind() == reflect.Pointer && v.Type().Elem().Kind() == reflect.Struct && !isScalar(v.Type()) {
		v.Set(reflect.New(v.Type().Elem()))
	}
}

// emptyHint says what to write instead of nothing.
func emptyHint(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t.Kind() == reflect.Slice || t == authType:
		return "write [] for none or remove the key"
	case t.Kind() == reflect.Map || t.Kind() == reflect.Struct && !isScalar(t):
		return "write {} for a block of defaults or remove the key"
	case t.Kind() == reflect.String:
		return `write "" for an empty text or remove the key`
	}
	return "give it a value or remove the key"
}

// structure decodes a mapping into a struct; nil gives the defaults.
func (d *decoder) structure(v reflect.Value, n *node) {
	plan := d.l.plan(v.Type())
	if n != nil && n.kind == scalarKind {
		if short := shortForm(v.Type()); short != "" {
			f := plan.field(short)
			d.defaults(v, plan, nil)
			d.value(v.Field(f.index), n, &f.rules)
			return
		}
	}
	if n != nil && n.kind != mappingKind {
		d.report(n, "config.bad_type", "is %s where a block of keys belongs, such as %s: …", n.what(), plan.keys[0])
		return
	}
	d.defaults(v, plan, n)
	if n == nil {
		return
	}
	for _, e := range n.entries {
		d.path = d.path.key(e.key.text)
		if f := plan.field(e.key.text); f == nil {
			d.unknownKey(e.key, plan)
		} else if first := f.given(n); first.key != e.key {
			d.report(e.key, "config.duplicate", "%q means the same as %q on line %d: keep one", e.key.text, first.key.text, first.key.line)
		} else {
			d.value(v.Field(f.index), e.value, &f.rules)
		}
		d.path = d.path.up()
	}
	d.needed(plan, n)
}

// unknownKey complains of a key that a block does not have.
func (d *decoder) unknownKey(key *node, plan *structPlan) {
	hint := suggest(key.text, plan.keys, "keys here")
	if name, _, found := strings.Cut(key.text, ":"); found && plan.field(name) != nil {
		hint = "put a space after the colon: " + name + ": …"
	}
	if outer := strings.Split(d.path.String(), "."); (len(outer) == 3 || len(outer) == 4) && outer[0] == "authenticators" && (key.text == "join" || key.text == "forward") {
		hint = "it stands beside " + outer[2] + ", not in it: {" + outer[2] + ": {…}, " + key.text + ": …}"
	}
	d.report(key, "config.unknown_key", "unknown key %s, %s", quote(key.text), hint)
}

// needed complains of keys that must be given and are not, or are empty.
func (d *decoder) needed(plan *structPlan, n *node) {
	for i := range plan.fields {
		f := &plan.fields[i]
		if !f.need {
			continue
		}
		d.path = d.path.key(f.key)
		e := f.given(n)
		switch {
		case e == nil:
			d.report(n, "config.missing", "is missing, add %s: …", f.key)
		case e.value.kind == scalarKind && e.value.text == "",
			e.value.kind == sequenceKind && len(e.value.items) == 0:
			d.report(e.value, "config.missing", "is empty and must not be, give it a value")
		}
		d.path = d.path.up()
	}
}

// defaults fills the fields of a struct that a mapping does not give.
func (d *decoder) defaults(v reflect.Value, plan *structPlan, n *node) {
	for i := range plan.fields {
		f := &plan.fields[i]
		if f.given(n) != nil {
			continue
		}
		field := v.Field(f.index)
		switch {
		case f.isDef:
			field.Set(d.l.defaultOf(d, v.Type(), f, field.Type()))
		case field.Kind() == reflect.Struct && !isScalar(field.Type()):
			d.structure(field, nil)
		}
	}
}

// list decodes a sequence. Where the items may be single values, one of them may
// stand for a list of one.
func (d *decoder) list(v reflect.Value, n *node, r *rules) {
	elem := v.Type().Elem()
	switch {
	case n.kind == sequenceKind:
		out := reflect.MakeSlice(v.Type(), len(n.items), len(n.items))
		for i, item := range n.items {
			d.path = d.path.index(i)
			if item.kind == scalarKind && item.text == "" && r != nil && (r.check != "" || len(r.enum) > 0) {
				d.report(item, "config.bad_value", "%s is empty, give it a value or remove the item", item.subject())
			} else {
				d.value(out.Index(i), item, r)
			}
			d.path = d.path.up()
		}
		v.Set(out)
	case n.kind == scalarKind && (isScalar(elem) || shortForm(elem) != ""):
		out := reflect.MakeSlice(v.Type(), 1, 1)
		d.value(out.Index(0), n, r)
		v.Set(out)
	default:
		hint := `begin each item with "- "`
		if n.kind == mappingKind && n.flow {
			hint = "put it into [ ]"
		}
		d.report(n, "config.bad_type", "is %s where a list belongs, %s", n.what(), hint)
	}
}

// mapping decodes a mapping with free keys.
func (d *decoder) mapping(v reflect.Value, n *node, r *rules) {
	if n.kind != mappingKind {
		d.report(n, "config.bad_type", "is %s where a block of names and values belongs, such as name: …", n.what())
		return
	}
	out := reflect.MakeMapWithSize(v.Type(), len(n.entries))
	folded := map[string]*node{}
	for _, e := range n.entries {
		d.path = d.path.key(e.key.text)
		key := e.key.text
		if r != nil && r.keys != "" {
			checked, code, problem := d.check(r.keys, e.key, key)
			if problem != "" {
				d.report(e.key, code, "%s %s", quote(key), problem)
				d.path = d.path.up()
				continue
			}
			key = checked
			if strings.HasSuffix(r.keys, "header") {
				if first := folded[strings.ToLower(key)]; first != nil {
					d.report(e.key, "config.duplicate", "%s is the same header as %s on line %d: keep one", quote(key), quote(first.text), first.line)
				}
				folded[strings.ToLower(key)] = e.key
			}
		}
		item := reflect.New(v.Type().Elem()).Elem()
		values := rules{}
		if r != nil {
			values = rules{enum: r.enum, min: r.min, max: r.max, check: r.check}
		}
		d.value(item, e.value, &values)
		out.SetMapIndex(reflect.ValueOf(key), item)
		d.path = d.path.up()
	}
	v.Set(out)
}

// what says what a node is, for messages about wrong types.
func (n *node) what() string {
	if n.kind != scalarKind {
		return n.kind.String()
	}
	switch n.scalarType() {
	case intType, floatType:
		return "a number"
	case boolType:
		return "a truth value"
	default:
		return "a text"
	}
}

// subject is how a message names a scalar: the text as it was written, without
// what ${…} stand for, or the words "the value" when it may be a secret.
func (n *node) subject() string {
	switch {
	case n.hidden:
		return "the value"
	case n.expanded:
		return quote(n.raw)
	default:
		return quote(n.text)
	}
}

// quote puts a text in quotes and cuts it short.
func quote(s string) string {
	const longest = 60
	if len(s) > longest {
		cut := longest
		for cut > 0 && s[cut]&0xc0 == 0x80 {
			cut--
		}
		s = s[:cut] + "…"
	}
	return fmt.Sprintf("%q", s)
}

// plan returns the tags of a type, read once per load.
func (l *loader) plan(t reflect.Type) *structPlan {
	p := l.plans[t]
	if p == nil {
		p = planOf(t)
		l.plans[t] = p
	}
	return p
}

// defaultKey names a default of a load.
type defaultKey struct {
	owner reflect.Type
	index int
}

// defaultOf reads a default from its tag, once per load. Slices and pointers in it
// are shared by all that have it, as nothing changes after the load.
func (l *loader) defaultOf(d *decoder, owner reflect.Type, f *fieldPlan, t reflect.Type) reflect.Value {
	k := defaultKey{owner, f.index}
	if v, ok := l.defaults[k]; ok {
		return v
	}
	v := reflect.New(t).Elem()
	n := defaultNode(f.def, t)
	src := l.sources[0]
	l.expandTree(src, n, d.path)
	(&decoder{l: l, src: src, path: d.path.clone().key(f.key)}).value(v, n, &f.rules)
	l.defaults[k] = v
	return v
}

// defaultNode is the tree of a default.
func defaultNode(text string, t reflect.Type) *node {
	if t.Kind() != reflect.Slice {
		n := &node{kind: scalarKind, text: text, size: 1}
		if t.Kind() == reflect.String {
			n.style = doubleStyle
		}
		return n
	}
	n := &node{kind: sequenceKind, flow: true, size: 1}
	for _, item := range strings.Split(text, ", ") {
		n.items = append(n.items, &node{kind: scalarKind, style: doubleStyle, text: item, size: 1})
	}
	return n
}

// keysOf are the keys of a map, sorted.
func keysOf[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
