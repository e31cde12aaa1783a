package expr

import (
	"encoding/json"
	"maps"
	"reflect"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// view is an exchange as an expression sees it, for one evaluation. Nothing is
// read from the exchange before it is asked for.
type view struct {
	x                                  *exchange.Exchange
	headers, query, params, attributes table
}

func newView() *view {
	v := &view{}
	v.headers = table{v: v, find: (*view).header, fill: (*view).allHeaders}
	v.query = table{v: v, find: (*view).queryValue, fill: (*view).allQuery}
	v.params = table{v: v, find: (*view).param, fill: (*view).allParams}
	v.attributes = table{v: v, find: (*view).attribute, fill: (*view).allAttributes}
	return v
}

func (v *view) reset() {
	v.x = nil
	v.headers.full, v.query.full, v.params.full, v.attributes.full = nil, nil, nil, nil
}

// noClaims is what claims holds for nobody known, and without a token.
var noClaims = types.NewStringInterfaceMap(types.DefaultTypeAdapter, map[string]any{})

// ResolveName returns a variable.
func (v *view) ResolveName(name string) (any, bool) {
	switch name {
	case "client", "request":
		return v, true // the type of the expression tells which
	case "params":
		return &v.params, true
	case "claims":
		return v.claims(), true
	case "now":
		return types.Timestamp{Time: v.x.Start}, true
	}
	return nil, false
}

// claims are those of the caller.
func (v *view) claims() any {
	if v.x.Caller == nil || len(v.x.Caller.Claims) == 0 {
		return noClaims
	}
	return types.NewStringInterfaceMap(numbers{types.DefaultTypeAdapter}, v.x.Caller.Claims)
}

// numbers makes numbers of JSON what they are: an int where they are whole and fit,
// a double else.
type numbers struct{ types.Adapter }

func (n numbers) NativeToValue(value any) ref.Val {
	switch v := value.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return types.Int(i)
		}
		f, err := v.Float64()
		if err != nil {
			return types.NewErr("the number %s is too large", v)
		}
		return types.Double(f)
	case []any:
		return types.NewDynamicList(n, v)
	case map[string]any:
		return types.NewStringInterfaceMap(n, v)
	}
	return n.Adapter.NativeToValue(value)
}

// Parent is nil: there is nothing behind an exchange.
func (v *view) Parent() cel.Activation { return nil }

func (v *view) clientID() any {
	if v.x.Caller == nil {
		return ""
	}
	return v.x.Caller.ID
}

func (v *view) clientPlan() any {
	if v.x.Caller == nil {
		return ""
	}
	return v.x.Caller.Plan
}

func (v *view) clientRoles() any {
	if v.x.Caller == nil {
		return []string(nil)
	}
	return v.x.Caller.Roles
}

func (v *view) clientPermissions() any {
	if v.x.Caller == nil {
		return []string(nil)
	}
	return v.x.Caller.Permissions
}

func (v *view) routePath() any {
	if v.x.Route == nil {
		return ""
	}
	return v.x.Route.Pattern
}

func (v *view) ip() any {
	if !v.x.Client.IsValid() {
		return ""
	}
	return v.x.Client.String()
}

func (v *view) attribute(name string) (string, bool) {
	if v.x.Caller == nil {
		return "", false
	}
	value, ok := v.x.Caller.Attributes[name]
	return value, ok
}

func (v *view) allAttributes(m map[string]string) {
	if v.x.Caller != nil {
		maps.Copy(m, v.x.Caller.Attributes)
	}
}

func (v *view) param(name string) (string, bool) {
	for i := range v.x.Params {
		if p := &v.x.Params[i]; p.Name == name {
			return string(p.Value), true
		}
	}
	return "", false
}

func (v *view) allParams(m map[string]string) {
	for _, p := range v.x.Params {
		m[p.Name] = string(p.Value)
	}
}

// header joins all fields of a name in lower case: with commas, and cookies as
// RFC 9113 §8.2.3 says.
func (v *view) header(name string) (string, bool) {
	if hasUpper(name) {
		return "", false
	}
	var buffer [64]byte
	wanted := append(buffer[:0], name...)
	h, id := &v.x.Request.Header, exchange.Lookup(wanted)
	var first []byte
	var more []byte
	n := 0
	for i := range h.Len() {
		f := h.At(i)
		if f.ID != id || id == exchange.Other && !exchange.EqualFold(f.Name, wanted) {
			continue
		}
		switch n++; n {
		case 1:
			first = f.Value
			continue
		case 2:
			more = append(more, first...)
		}
		more = append(append(more, separator(name)...), f.Value...)
	}
	if n > 1 {
		return string(more), true
	}
	return string(first), n > 0
}

func (v *view) allHeaders(m map[string]string) {
	h := &v.x.Request.Header
	joined := map[string][]byte{} // of which there are several
	for i := range h.Len() {
		f := h.At(i)
		name := strings.ToLower(string(f.Name))
		value, again := m[name]
		if !again {
			m[name] = string(f.Value)
			continue
		}
		if joined[name] == nil {
			joined[name] = []byte(value)
		}
		joined[name] = append(append(joined[name], separator(name)...), f.Value...)
	}
	for name, value := range joined {
		m[name] = string(value)
	}
}

func separator(name string) string {
	if name == "cookie" {
		return "; "
	}
	return ", "
}

func hasUpper(name string) bool {
	for i := range len(name) {
		if 'A' <= name[i] && name[i] <= 'Z' {
			return true
		}
	}
	return false
}

// table is a map of the exchange. Looking a key up reads nothing else; only what
// needs all of it makes a map.
type table struct {
	v    *view
	find func(*view, string) (string, bool)
	fill func(*view, map[string]string)
	full traits.Mapper
}

func (t *table) all() traits.Mapper {
	if t.full == nil {
		m := map[string]string{}
		t.fill(t.v, m)
		t.full = types.NewStringStringMap(types.DefaultTypeAdapter, m)
	}
	return t.full
}

func (t *table) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return nil, false
	}
	value, ok := t.find(t.v, string(name))
	if !ok {
		return nil, false
	}
	return types.String(value), true
}

func (t *table) Get(key ref.Val) ref.Val {
	if value, ok := t.Find(key); ok {
		return value
	}
	return types.ValOrErr(key, "no such key: %v", key)
}

func (t *table) Contains(key ref.Val) ref.Val {
	_, ok := t.Find(key)
	return types.Bool(ok)
}

// ConvertToNative makes a Go value; nothing in here asks for one.
func (t *table) ConvertToNative(typ reflect.Type) (any, error) { return t.all().ConvertToNative(typ) }

func (t *table) Size() ref.Val                      { return t.all().Size() }
func (t *table) Iterator() traits.Iterator          { return t.all().Iterator() }
func (t *table) Equal(other ref.Val) ref.Val        { return t.all().Equal(other) }
func (t *table) ConvertToType(typ ref.Type) ref.Val { return t.all().ConvertToType(typ) }
func (t *table) Type() ref.Type                     { return types.MapType }
func (t *table) Value() any                         { return t.all().Value() }

var (
	_ cel.Activation = (*view)(nil)
	_ traits.Mapper  = (*table)(nil)
)
