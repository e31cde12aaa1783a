package config

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// types visits every struct of the document once.
func types(t reflect.Type, seen map[reflect.Type]bool, visit func(reflect.Type)) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		types(t.Elem(), seen, visit)
	case reflect.Struct:
		if seen[t] || t.PkgPath() != reflect.TypeFor[File]().PkgPath() || isScalar(t) {
			return
		}
		seen[t] = true
		visit(t)
		for i := range t.NumField() {
			if f := t.Field(i); f.IsExported() {
				types(f.Type, seen, visit)
			}
		}
	}
}

func TestEveryFieldIsDocumentedAndEveryBlockIsSmall(t *testing.T) {
	docs := comments()
	n := 0
	types(reflect.TypeFor[File](), map[reflect.Type]bool{}, func(s reflect.Type) {
		if docs[s.Name()] == "" {
			t.Errorf("%s has no doc comment", s.Name())
		}
		if s.NumField() >= 30 {
			t.Errorf("%s has %d fields, fewer than 30 are allowed", s.Name(), s.NumField())
		}
		for i := range s.NumField() {
			f := s.Field(i)
			if !f.IsExported() {
				continue
			}
			n++
			if docs[s.Name()+"."+f.Name] == "" {
				t.Errorf("%s.%s has no doc comment", s.Name(), f.Name)
			}
			if key := f.Tag.Get("yaml"); key != "" && !strings.EqualFold(strings.ReplaceAll(key, "_", ""), f.Name) {
				t.Errorf("%s.%s has the key %s", s.Name(), f.Name, key)
			}
		}
	})
	if n < 200 {
		t.Errorf("only %d fields were seen", n)
	}
}

// The tags are read when a configuration is loaded: a bad one would be found late.
func TestEveryTagIsUnderstood(t *testing.T) {
	l := newLoader(testEnv())
	src := l.addSource("test.yaml", nil)
	types(reflect.TypeFor[File](), map[reflect.Type]bool{}, func(s reflect.Type) {
		plan := planOf(s)
		for i := range plan.fields {
			f := &plan.fields[i]
			if f.isDef {
				l.defaultOf(&decoder{l: l, src: src}, s, f, s.Field(f.index).Type)
			}
			for _, check := range []string{f.rules.check, f.rules.keys} {
				switch check {
				case "", "file", "place", "output":
				default:
					checkText(check, "x") // panics when there is none
				}
			}
		}
	})
	if len(l.problems) > 0 {
		t.Error(l.problems)
	}
}

// schemaChecker checks a value against the keywords that Schema uses.
type schemaChecker struct {
	root map[string]any
}

func (c *schemaChecker) valid(schema, v any) bool {
	s := schema.(map[string]any)
	for keyword, arg := range s {
		switch keyword {
		case "$ref":
			name := strings.TrimPrefix(arg.(string), "#/$defs/")
			if !c.valid(c.root["$defs"].(map[string]any)[name], v) {
				return false
			}
		case "anyOf", "oneOf":
			n := 0
			for _, choice := range arg.([]any) {
				if c.valid(choice, v) {
					n++
				}
			}
			if n == 0 || keyword == "oneOf" && n != 1 {
				return false
			}
		case "type":
			if !typed(arg, v) {
				return false
			}
		case "enum":
			if !slices.ContainsFunc(arg.([]any), func(e any) bool { return reflect.DeepEqual(e, v) }) {
				return false
			}
		case "const":
			if !reflect.DeepEqual(arg, v) {
				return false
			}
		case "pattern":
			if text, ok := v.(string); ok && !regexp.MustCompile(arg.(string)).MatchString(text) {
				return false
			}
		case "minimum", "maximum":
			if n, ok := v.(float64); ok && (keyword == "minimum" && n < arg.(float64) || keyword == "maximum" && n > arg.(float64)) {
				return false
			}
		case "required":
			if m, ok := v.(map[string]any); ok && slices.ContainsFunc(arg.([]any), func(k any) bool { return !has(m, k.(string)) }) {
				return false
			}
		case "items":
			if list, ok := v.([]any); ok && slices.ContainsFunc(list, func(item any) bool { return !c.valid(arg, item) }) {
				return false
			}
		case "additionalProperties":
			if m, ok := v.(map[string]any); ok && !c.members(s, arg, m) {
				return false
			}
		case "$schema", "title", "description", "default", "properties", "$defs":
		default:
			panic("the schema uses " + keyword)
		}
	}
	return true
}

func has(m map[string]any, k string) bool { _, ok := m[k]; return ok }

// members checks the members of an object, known ones and others.
func (c *schemaChecker) members(s map[string]any, others any, m map[string]any) bool {
	properties, _ := s["properties"].(map[string]any)
	for k, v := range m {
		schema := properties[k]
		if schema == nil {
			if others == false {
				return false
			}
			schema = others
		}
		if !c.valid(schema, v) {
			return false
		}
	}
	return true
}

func typed(want, v any) bool {
	if several, ok := want.([]any); ok {
		return slices.ContainsFunc(several, func(w any) bool { return typed(w, v) })
	}
	switch v := v.(type) {
	case string:
		return want == "string"
	case bool:
		return want == "boolean"
	case float64:
		return want == "number" || want == "integer" && v == float64(int64(v))
	case []any:
		return want == "array"
	case map[string]any:
		return want == "object"
	}
	return want == "null"
}

func TestSchemaAdmitsGoodConfigurationsAndRefusesMistakes(t *testing.T) {
	c := &schemaChecker{}
	if err := json.Unmarshal(Schema(), &c.root); err != nil {
		t.Fatal(err)
	}
	admits := func(name string) bool {
		t.Helper()
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text, err := ToJSON(src, 1<<20)
		if err != nil {
			t.Fatal(name, err)
		}
		var v any
		if err := json.Unmarshal(text, &v); err != nil {
			t.Fatal(err)
		}
		return c.valid(c.root, v)
	}
	names, err := filepath.Glob(filepath.Join("testdata", "good", "*.yaml"))
	if err != nil || len(names) == 0 {
		t.Fatal("there are no cases")
	}
	for _, name := range names {
		if !admits(name) {
			t.Errorf("%s is refused", name)
		}
	}
	for _, name := range []string{
		"unknown_key_at_the_top", "unknown_key_in_a_block", "unknown_key_in_a_route", "type_text_for_number", "type_float_for_number",
		"type_number_for_text", "type_text_for_truth", "type_block_for_list", "type_list_for_block", "type_list_for_text", "type_text_for_block",
		"bad_duration", "bad_size", "bad_rate", "bad_percentage_values", "out_of_range", "bad_enumeration", "missing_address",
		"missing_targets", "conflict_targets_and_respond", "empty_value", "limits_that_do_not_fit", "unknown_key_mode_on_cache",
	} {
		if admits(filepath.Join("testdata", "bad", name+".yaml")) {
			t.Errorf("%s is admitted", name)
		}
	}
}

// Every code of this package is in the manual, and some mistake of testdata/bad shows it.
func TestEveryCodeIsDocumentedAndShown(t *testing.T) {
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	shown, err := filepath.Glob(filepath.Join("testdata", "bad", "*.want"))
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	for _, name := range shown {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		said.Write(text)
	}
	used := map[string]bool{}
	quoted := regexp.MustCompile(`"(config\.[a-z_]+)"`)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") || name == "reference.go" {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range quoted.FindAllStringSubmatch(string(text), -1) {
			used[m[1]] = true
		}
	}
	if len(used) < 25 {
		t.Fatalf("only %d codes were seen", len(used))
	}
	for code := range used {
		if !slices.ContainsFunc(codes[:], func(c [2]string) bool { return c[0] == code }) {
			t.Errorf("%s is not in the manual", code)
		}
		switch code {
		case "config.too_large", "config.too_many":
			continue // shown by TestWhatIsTooLargeIsRefused
		}
		if !strings.Contains(said.String(), "("+code+")") {
			t.Errorf("no case of testdata/bad shows %s", code)
		}
	}
	if !slices.IsSortedFunc(codes[:], func(a, b [2]string) int { return strings.Compare(a[0], b[0]) }) {
		t.Error("the codes of the manual are not sorted")
	}
}

func TestWhatIsNotSupportedExists(t *testing.T) {
	for _, pattern := range notSupported {
		rest, isRoute := strings.CutPrefix(pattern, "ROUTE.")
		owner := reflect.TypeFor[File]()
		if isRoute {
			owner = reflect.TypeFor[Route]()
		}
		for step := range strings.SplitSeq(rest, ".") {
			step, _, _ = strings.Cut(step, "=")
			for owner.Kind() == reflect.Pointer {
				owner = owner.Elem()
			}
			if step == "*" {
				owner = owner.Elem()
				continue
			}
			f := planOf(owner).field(step)
			if f == nil {
				t.Errorf("%s: there is no key %s", pattern, step)
				break
			}
			owner = owner.Field(f.index).Type
		}
	}
}
