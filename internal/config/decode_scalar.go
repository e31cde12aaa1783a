package config

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// scalarType is what a single value is by YAML 1.2's core schema.
type scalarType uint8

const (
	textType scalarType = iota
	intType
	floatType
	boolType
)

// scalarType tells numbers and truth values from texts. What ${…} brought is
// always a text, and so is what stands in quotes.
func (n *node) scalarType() scalarType {
	if n.style != plainStyle || n.expanded {
		return textType
	}
	return typeOfText(n.text)
}

func typeOfText(s string) scalarType {
	switch s {
	case "true", "True", "TRUE", "false", "False", "FALSE":
		return boolType
	case ".nan", ".NaN", ".NAN":
		return floatType
	}
	number := strings.TrimLeft(s, "+-")
	if len(s)-len(number) > 1 || number == "" {
		return textType
	}
	switch {
	case leadingDigits(number) == number:
		return intType
	case strings.HasPrefix(number, "0x") && len(number) > 2 && strings.Trim(number[2:], "0123456789abcdefABCDEF") == "",
		strings.HasPrefix(number, "0o") && len(number) > 2 && strings.Trim(number[2:], "01234567") == "":
		return intType
	case number == ".inf" || number == ".Inf" || number == ".INF":
		return floatType
	}
	if strings.Trim(number, "0123456789.eE+-") != "" || strings.Trim(number, ".eE+-") == "" {
		return textType
	}
	if c := number[0]; c != '.' && (c < '0' || c > '9') {
		return textType
	}
	if _, err := strconv.ParseFloat(number, 64); err != nil && !strings.Contains(err.Error(), "range") {
		return textType
	}
	return floatType
}

var (
	authType     = reflect.TypeFor[Auth]()
	useType      = reflect.TypeFor[RateLimitUse]()
	targetType   = reflect.TypeFor[Target]()
	weightedType = reflect.TypeFor[WeightedName]()
	secretType   = reflect.TypeFor[Secret]()
)

// isScalar reports whether a type is read from a single value.
func isScalar(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t {
	case reflect.TypeFor[Duration](), reflect.TypeFor[Size](), reflect.TypeFor[Rate](), reflect.TypeFor[Percent](),
		reflect.TypeFor[Expression](), secretType, reflect.TypeFor[netip.Prefix](), reflect.TypeFor[time.Time]():
		return true
	}
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int64:
		return true
	}
	return false
}

// shortForm is the key that a single value stands for where a block of the type
// belongs, or "-" when the type has a form of its own; "" when it has none.
func shortForm(t reflect.Type) string {
	switch t {
	case targetType:
		return "url"
	case weightedType:
		return "name"
	case useType:
		return "-"
	}
	return ""
}

// special decodes the types that read themselves.
func (d *decoder) special(v reflect.Value, n *node, r *rules) bool {
	switch p := v.Addr().Interface().(type) {
	case *Duration:
		parsed(d, p, n, "a duration", "config.bad_duration", ParseDuration, func(a, b Duration) bool { return a.Duration < b.Duration }, r)
	case *Size:
		parsed(d, p, n, "a size", "config.bad_size", ParseSize, func(a, b Size) bool { return a.Bytes < b.Bytes }, r)
	case *Rate:
		parsed(d, p, n, "a rate", "config.bad_rate", ParseRate, nil, r)
	case *Percent:
		parsed(d, p, n, "a percentage", "config.bad_percentage", ParsePercent, func(a, b Percent) bool { return a.Of < b.Of }, r)
	case *netip.Prefix:
		parsed(d, p, n, "a network", "config.bad_network", parsePrefix, nil, r)
	case *time.Time:
		parsed(d, p, n, "a time", "config.bad_time", parseTime, nil, r)
	case *Expression:
		if d.single(n, "a number or an expression") {
			p.Text = n.text
		}
	case *Secret:
		n.hidden = true
		if d.single(n, "a text") && d.isText(n) {
			*p = Secret{n.text}
		}
	case *any:
		*p = d.free(n)
	case *JSONSchema:
		d.schema(p, n)
	case *RateLimitUse:
		d.rateLimitUse(p, n)
	case *Auth:
		d.auth(p, n)
	default:
		return false
	}
	return true
}

// single reports whether a node is a single value, and complains when it is not.
func (d *decoder) single(n *node, want string) bool {
	switch n.kind {
	case scalarKind:
		return true
	case nullKind:
		d.report(n, "config.bad_type", "is empty, give it a value or remove the key")
	default:
		d.report(n, "config.bad_type", "is %s where %s belongs", n.what(), want)
	}
	return false
}

// parsed decodes a scalar that has a notation of its own, and its bounds.
func parsed[T any](d *decoder, p *T, n *node, what, code string, parse func(string) (T, error), less func(a, b T) bool, r *rules) {
	if !d.single(n, what) {
		return
	}
	v, err := parse(n.text)
	switch {
	case err != nil && n.expanded:
		d.report(n, code, "%s does not hold %s: what it stands for cannot be read as one", n.subject(), what)
		return
	case err != nil:
		d.report(n, code, "%s %s", n.subject(), err)
		return
	}
	if r != nil && less != nil {
		if low, err := parse(r.min); err == nil && r.min != "" && less(v, low) {
			d.report(n, "config.out_of_range", "%s is too small, the smallest is %s", n.subject(), r.min)
			return
		}
		if high, err := parse(r.max); err == nil && r.max != "" && less(high, v) {
			d.report(n, "config.out_of_range", "%s is too large, the largest is %s", n.subject(), r.max)
			return
		}
	}
	*p = v
}

func parseTime(text string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return t, problem("is not a time, try 2027-01-31T00:00:00Z")
	}
	return t, nil
}

// problem is an error that is a phrase of a message.
type problem string

func (p problem) Error() string { return string(p) }

// isText reports whether a single value is a text, and complains when it is a
// number or a truth value, which YAML would have read differently.
func (d *decoder) isText(n *node) bool {
	if n.scalarType() == textType {
		return true
	}
	if n.hidden {
		d.report(n, "config.bad_type", "is %s where a text belongs, put it in quotes", n.what())
	} else {
		d.report(n, "config.bad_type", "%s is %s where a text belongs, put it in quotes: %q", n.text, n.what(), n.text)
	}
	return false
}

// scalar decodes texts, truth values and whole numbers.
func (d *decoder) scalar(v reflect.Value, n *node, r *rules) {
	if r == nil {
		r = &rules{}
	}
	switch v.Kind() {
	case reflect.String:
		if d.single(n, "a text") && (takesNumbers(r.enum) || d.isText(n)) {
			d.text(v, n, r)
		}
	case reflect.Bool:
		if d.single(n, "true or false") {
			d.truth(v, n)
		}
	case reflect.Int, reflect.Int64:
		if d.single(n, "a whole number") {
			d.number(v, n, r)
		}
	default:
		panic("config: no decoding for " + v.Type().String())
	}
}

// takesNumbers reports whether an enumeration has values that look like numbers.
func takesNumbers(enum []string) bool {
	for _, e := range enum {
		if e == "STATUS" {
			return true
		}
	}
	return false
}

func (d *decoder) text(v reflect.Value, n *node, r *rules) {
	text := n.text
	if len(r.enum) > 0 && text != "" && !allows(r.enum, text) {
		d.report(n, "config.bad_value", "%s is not a value here, %s", n.subject(), suggest(shown(n), r.enum, "values"))
		return
	}
	if r.check != "" && text != "" {
		checked, code, trouble := d.check(r.check, n, text)
		if trouble != "" {
			d.report(n, code, "%s %s", n.subject(), trouble)
			return
		}
		text = checked
	}
	v.SetString(text)
}

// shown is the text of a node that a suggestion may be made from.
func shown(n *node) string {
	if n.hidden || n.expanded {
		return ""
	}
	return n.text
}

func (d *decoder) truth(v reflect.Value, n *node) {
	if n.style != plainStyle && !n.expanded {
		d.report(n, "config.bad_type", "%s is a text where true or false belongs, remove the quotes", n.subject())
		return
	}
	switch n.text {
	case "true", "True", "TRUE":
		v.SetBool(true)
	case "false", "False", "FALSE":
		v.SetBool(false)
	default:
		d.report(n, "config.bad_type", "%s is neither true nor false, write one of these", n.subject())
	}
}

func (d *decoder) number(v reflect.Value, n *node, r *rules) {
	if n.style != plainStyle && !n.expanded {
		d.report(n, "config.bad_type", "%s is a text where a whole number belongs, remove the quotes", n.subject())
		return
	}
	i, err := strconv.ParseInt(n.text, 10, 64)
	if err != nil {
		if typeOfText(n.text) == intType && leadingDigits(n.text) == n.text {
			d.report(n, "config.out_of_range", "%s is too large a number", n.subject())
			return
		}
		d.report(n, "config.bad_type", "%s is not a whole number, write digits only, such as 100", n.subject())
		return
	}
	low, err := strconv.ParseInt(r.min, 10, 64)
	if err == nil && i < low {
		d.report(n, "config.out_of_range", "%s is too small, the smallest is %d", n.subject(), low)
		return
	}
	high, err := strconv.ParseInt(r.max, 10, 64)
	if err == nil && i > high || v.OverflowInt(i) {
		d.report(n, "config.out_of_range", "%s is too large, the largest is %s", n.subject(), r.max)
		return
	}
	v.SetInt(i)
}

// free decodes a value of any shape: texts, int64, float64, bool, nil, []any and map[string]any.
func (d *decoder) free(n *node) any {
	switch n.kind {
	case mappingKind:
		out := make(map[string]any, len(n.entries))
		for _, e := range n.entries {
			d.path = d.path.key(e.key.text)
			out[e.key.text] = d.free(e.value)
			d.path = d.path.up()
		}
		return out
	case sequenceKind:
		out := make([]any, len(n.items))
		for i, item := range n.items {
			d.path = d.path.index(i)
			out[i] = d.free(item)
			d.path = d.path.up()
		}
		return out
	case scalarKind:
		return d.freeScalar(n)
	default:
		return nil
	}
}

func (d *decoder) freeScalar(n *node) any {
	switch n.scalarType() {
	case boolType:
		return n.text[0] == 't' || n.text[0] == 'T'
	case intType:
		digits, base := n.text, 10
		if sign := strings.TrimLeft(digits, "+-"); strings.HasPrefix(sign, "0x") || strings.HasPrefix(sign, "0o") {
			base = 0
		}
		if i, err := strconv.ParseInt(digits, base, 64); err == nil {
			return i
		}
		return json.Number(strings.TrimPrefix(digits, "+"))
	case floatType:
		f, err := strconv.ParseFloat(strings.TrimPrefix(n.text, "+"), 64)
		if err != nil || f != f || f > 1.7976931348623157e308 || f < -1.7976931348623157e308 {
			d.report(n, "config.bad_value", "%s is not a number that JSON can hold", n.subject())
			return nil
		}
		return f
	default:
		return n.text
	}
}
