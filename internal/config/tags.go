package config

import (
	"reflect"
	"strings"
)

// The tags of the fields of the document's types drive everything: decoding, the
// checks of single values, the schema and the reference manual.
//
//	yaml:"name"      the key
//	also:"name"      a second spelling of the key, read but never written
//	default:"text"   the value when the key is absent, as it would be written; lists
//	                 are separated by ", "
//	need:"true"      the key must be given
//	enum:"a|b|c:X"   the values allowed; one with capital letters after a colon stands for
//	                 any text after it, and STATUS for a status from 400 to 599
//	min:"1" max:"9"  bounds, in the notation of the type
//	check:"name"     a check of each text in the field, see values.go
//	keys:"name"      the same for the keys of a map
//
// A field without a default is empty when its key is absent. A field that is a
// struct is always there, with the defaults of its own fields; one that is a
// pointer to a struct is nil until its key is given.

// structPlan is what the tags of a struct say.
type structPlan struct {
	fields []fieldPlan
	keys   []string // canonical spellings, in order
}

// fieldPlan is what the tags of a field say.
type fieldPlan struct {
	name  string // Go name
	index int
	key   string
	also  string
	def   string
	isDef bool // def is given
	need  bool
	rules rules
}

// rules are the checks of a value, or of each value of a list or map.
type rules struct {
	enum     []string
	min, max string
	check    string
	keys     string
}

// planOf reads the tags of a struct type.
func planOf(t reflect.Type) *structPlan {
	p := &structPlan{}
	for i := range t.NumField() {
		f := t.Field(i)
		key := f.Tag.Get("yaml")
		if key == "" {
			continue
		}
		def, isDef := f.Tag.Lookup("default")
		field := fieldPlan{
			name: f.Name, index: i, key: key, also: f.Tag.Get("also"),
			def: def, isDef: isDef, need: f.Tag.Get("need") != "",
			rules: rules{
				min: f.Tag.Get("min"), max: f.Tag.Get("max"),
				check: f.Tag.Get("check"), keys: f.Tag.Get("keys"),
			},
		}
		if e := f.Tag.Get("enum"); e != "" {
			field.rules.enum = strings.Split(e, "|")
		}
		p.fields = append(p.fields, field)
		p.keys = append(p.keys, key)
	}
	return p
}

// field finds the field that a key stands for.
func (p *structPlan) field(key string) *fieldPlan {
	for i := range p.fields {
		if f := &p.fields[i]; f.key == key || f.also == key && key != "" {
			return f
		}
	}
	return nil
}

// given finds the value of a field in a mapping, under either spelling.
func (f *fieldPlan) given(n *node) *entry {
	if f.also == "" {
		return n.find(f.key)
	}
	return n.find(f.key, f.also)
}

// allows reports whether a text is one of the values of an enumeration.
func allows(enum []string, text string) bool {
	for _, e := range enum {
		if e == text {
			return true
		}
		if e == "STATUS" && len(text) == 3 && text >= "400" && text <= "599" && leadingDigits(text) == text {
			return true
		}
		word, rest, open := strings.Cut(e, ":")
		if open && rest != "" && rest == strings.ToUpper(rest) &&
			strings.HasPrefix(text, word+":") && len(text) > len(word)+1 {
			return true
		}
	}
	return false
}
