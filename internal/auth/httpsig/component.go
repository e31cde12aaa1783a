package httpsig

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/dunglas/httpsfv"
)

// component is what a signature covers: a derived component, or a field.
type component struct {
	id   string // as it stands in the signature base: "@query-param";name="a"
	name string
	kind valueKind
	of   string // the name of the query parameter, or of the dictionary member
}

type valueKind uint8

const (
	plainValue  valueKind = iota
	strictValue           // ;sf: parsed and written again
	memberValue           // ;key: one member of a dictionary
	bytesValue            // ;bs: each field as bytes
	paramValue            // @query-param
)

// derived are the components that are no fields (RFC 9421 §2.2), but @query-param.
// @status is of responses alone.
var derived = map[string]func(m *Message) (string, error){
	"@method":         func(m *Message) (string, error) { return m.Method, nil },
	"@scheme":         func(m *Message) (string, error) { return m.Scheme, nil },
	"@authority":      authority,
	"@target-uri":     targetURI,
	"@request-target": func(m *Message) (string, error) { return requestTarget(m), nil },
	"@path":           func(m *Message) (string, error) { return path(m), nil },
	"@query":          func(m *Message) (string, error) { return "?" + string(m.Query), nil },
}

// parseRequired reads a component of the configuration.
func parseRequired(text string) (component, error) {
	if !strings.HasPrefix(text, `"`) {
		name, rest, _ := strings.Cut(text, ";")
		text = `"` + name + `"`
		if rest != "" {
			text += ";" + rest
		}
	}
	item, err := httpsfv.UnmarshalItem([]string{text})
	if err != nil {
		return component{}, fmt.Errorf("%s is no component, write it as @method, content-digest or @query-param;name=\"id\"", text)
	}
	c, err := newComponent(item)
	if err != nil {
		return component{}, fmt.Errorf("component %s %w", text, err)
	}
	return c, nil
}

// components reads the list of a signature.
func components(items []httpsfv.Item) ([]component, error) {
	all := make([]component, 0, len(items))
	seen := make(map[component]bool, len(items))
	for _, item := range items {
		c, err := newComponent(item)
		if err != nil {
			return nil, fmt.Errorf("component %.128q %w", fmt.Sprint(item.Value), err)
		}
		same := c
		same.id = "" // the order of parameters makes no other component
		if seen[same] {
			return nil, fmt.Errorf("component %s is there twice", c.id)
		}
		seen[same] = true
		all = append(all, c)
	}
	return all, nil
}

func newComponent(item httpsfv.Item) (component, error) {
	name, ok := item.Value.(string)
	if !ok {
		return component{}, errors.New("is no string")
	}
	id, err := httpsfv.Marshal(item)
	if err != nil {
		return component{}, err
	}
	c := component{id: id, name: name}
	if strings.HasPrefix(name, "@") {
		return c, c.derive(item.Params)
	}
	if !fieldName(name) {
		return component{}, errors.New("is no name of a field in lower case")
	}
	return c, c.field(item.Params)
}

// derive reads the parameters of a derived component: only @query-param has one.
func (c *component) derive(list *httpsfv.Params) error {
	names := list.Names()
	if c.name != "@query-param" {
		switch {
		case derived[c.name] == nil:
			return errors.New("is no derived component of a request")
		case len(names) > 0:
			return fmt.Errorf("has the parameter %s, which it cannot have", names[0])
		}
		return nil
	}
	value, _ := list.Get("name")
	name, ok := value.(string)
	if !ok || len(names) != 1 {
		return errors.New("needs one parameter, the name of a query parameter")
	}
	c.kind, c.of = paramValue, name
	return nil
}

// field reads the parameters of a field (RFC 9421 §2.1).
func (c *component) field(list *httpsfv.Params) error {
	for _, name := range list.Names() {
		value, _ := list.Get(name)
		kind := plainValue
		switch name {
		case "sf":
			kind = strictValue
		case "bs":
			kind = bytesValue
		case "key":
			kind = memberValue
		default:
			return fmt.Errorf("has the parameter %s, which is not for fields of a request", name)
		}
		if member, ok := value.(string); kind == memberValue && ok {
			c.of = member
		} else if kind == memberValue || value != true {
			return fmt.Errorf("has a parameter %s of the wrong type", name)
		}
		switch {
		case c.kind == plainValue:
			c.kind = kind
		case c.kind == bytesValue || kind == bytesValue:
			return errors.New("has bs together with sf or key")
		default:
			c.kind = memberValue // sf says nothing that key does not
		}
	}
	return nil
}

// fieldName reports whether s is a field name (RFC 9110 §5.1) without upper case.
func fieldName(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

var (
	errAbsent = errors.New("there is no such field")
	errKind   = errors.New("whether it is a list, a dictionary or an item is not known here: cover it without ;sf")
)

// maxParsed is how long a field may be of which a part or the strict form is covered.
const maxParsed = 4 << 10

// value is what stands behind the id in the signature base.
func (c *component) value(m *Message) (string, error) {
	if c.kind == paramValue {
		return queryParam(m.Query, c.of)
	}
	if from := derived[c.name]; from != nil {
		return from(m)
	}
	values := m.Fields(c.name)
	if len(values) == 0 {
		return "", errAbsent
	}
	if c.kind == strictValue || c.kind == memberValue {
		n := 0
		for _, v := range values {
			n += len(v)
		}
		if n > maxParsed { // it is parsed once for each component, before any signature is known to hold
			return "", fmt.Errorf("it is longer than the %d bytes that are read of a structured field", maxParsed)
		}
	}
	switch c.kind {
	case strictValue:
		return strict(c.name, values)
	case memberValue:
		return member(values, c.of)
	case bytesValue:
		return wrapped(values), nil
	}
	var b strings.Builder
	for i, v := range values {
		if i > 0 {
			b.WriteString(", ")
		}
		b.Write(bytes.Trim(v, " \t"))
	}
	return b.String(), nil
}

// wrapped is every value as a byte sequence (RFC 9421 §2.1.3).
func wrapped(values [][]byte) string {
	var b strings.Builder
	for i, v := range values {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteByte(':')
		b.WriteString(base64.StdEncoding.EncodeToString(bytes.Trim(v, " \t")))
		b.WriteByte(':')
	}
	return b.String()
}

// member is one member of a field that is a dictionary (RFC 9421 §2.1.2).
func member(values [][]byte, name string) (string, error) {
	lines, _ := texts(values)
	d, err := httpsfv.UnmarshalDictionary(lines)
	if err != nil {
		return "", errors.New("it is no dictionary")
	}
	v, ok := d.Get(name)
	if !ok {
		return "", errors.New("the dictionary has no such member")
	}
	switch v := v.(type) {
	case httpsfv.Item:
		return httpsfv.Marshal(v)
	case httpsfv.InnerList:
		return httpsfv.Marshal(v)
	}
	return "", errKind
}

// structured are fields whose type is known (RFC 9651 and the registry of HTTP field
// names), for ;sf.
var structured = map[string]func(lines []string) (httpsfv.StructuredFieldValue, error){
	"accept-signature":     asDictionary,
	"available-dictionary": asItem,
	"cache-status":         asList,
	"cdn-cache-control":    asDictionary,
	"client-cert":          asItem,
	"client-cert-chain":    asList,
	"content-digest":       asDictionary,
	"idempotency-key":      asItem,
	"priority":             asDictionary,
	"proxy-status":         asList,
	"repr-digest":          asDictionary,
	"signature":            asDictionary,
	"signature-input":      asDictionary,
	"want-content-digest":  asDictionary,
	"want-repr-digest":     asDictionary,
}

func asDictionary(lines []string) (httpsfv.StructuredFieldValue, error) {
	return httpsfv.UnmarshalDictionary(lines)
}

func asList(lines []string) (httpsfv.StructuredFieldValue, error) {
	return httpsfv.UnmarshalList(lines)
}

func asItem(lines []string) (httpsfv.StructuredFieldValue, error) {
	return httpsfv.UnmarshalItem(lines)
}

// strict is a structured field as RFC 9651 §4.1 writes it.
func strict(name string, values [][]byte) (string, error) {
	parse := structured[name]
	if parse == nil {
		return "", errKind
	}
	lines, _ := texts(values)
	v, err := parse(lines)
	if err != nil {
		return "", errors.New("it is not as its type demands")
	}
	return httpsfv.Marshal(v)
}

// authority is the host in lower case, without the scheme's own port (RFC 9110
// §4.2.3).
func authority(m *Message) (string, error) {
	a := strings.ToLower(string(m.Authority))
	if m.Scheme == "https" {
		a = strings.TrimSuffix(a, ":443")
	} else {
		a = strings.TrimSuffix(a, ":80")
	}
	a = strings.TrimSuffix(a, ":")
	if a == "" {
		return "", errors.New("the request names no host")
	}
	return a, nil
}

// targetURI is the whole URI, its authority as that of @authority.
func targetURI(m *Message) (string, error) {
	a, err := authority(m)
	if err != nil {
		return "", err
	}
	return m.Scheme + "://" + a + pathAndQuery(m), nil
}

func requestTarget(m *Message) string {
	if len(m.Target) > 0 {
		return string(m.Target)
	}
	return pathAndQuery(m)
}

func path(m *Message) string {
	if len(m.Path) == 0 {
		return "/"
	}
	return string(m.Path)
}

func pathAndQuery(m *Message) string {
	if !m.HasQuery {
		return path(m)
	}
	return path(m) + "?" + string(m.Query)
}

var (
	errNoParam   = errors.New("the query does not have it")
	errTwoParams = errors.New("the query has it twice: cover @query")
	errNotUTF8   = errors.New("its value is not UTF-8: cover @query")
)

// queryParam is the value of the one query parameter whose name, encoded, is name
// (RFC 9421 §2.2.8).
func queryParam(query []byte, name string) (string, error) {
	value, found := "", false
	for pair := range bytes.SplitSeq(query, []byte("&")) {
		if len(pair) == 0 {
			continue
		}
		n, v, _ := bytes.Cut(pair, []byte("="))
		if encode(formDecode(n)) != name {
			continue
		}
		if found {
			return "", errTwoParams
		}
		decoded := formDecode(v)
		if !utf8.Valid(decoded) {
			return "", errNotUTF8
		}
		value, found = encode(decoded), true
	}
	if !found {
		return "", errNoParam
	}
	return value, nil
}

// formDecode decodes application/x-www-form-urlencoded (URL standard §5.1): what is
// no percent encoding stays as it is.
func formDecode(s []byte) []byte {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '+':
			out = append(out, ' ')
		case c == '%' && i+2 < len(s) && unhex[s[i+1]] > 0 && unhex[s[i+2]] > 0:
			out = append(out, (unhex[s[i+1]]-1)<<4|(unhex[s[i+2]]-1))
			i += 2
		default:
			out = append(out, c)
		}
	}
	return out
}

// unhex is the value of a hex digit and one; 0: it is none.
var unhex = func() (t [256]byte) {
	for i, c := range "0123456789abcdef" {
		t[c] = byte(i + 1)
	}
	for i, c := range "ABCDEF" {
		t[c] = byte(i + 11)
	}
	return t
}()

// encode writes every byte but letters, digits and *-._ as %XX (the URL standard's
// application/x-www-form-urlencoded set, a space being %20).
func encode(s []byte) string {
	var b strings.Builder
	for _, c := range s {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("*-._", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
