package jose

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestObjectsAreRead(t *testing.T) {
	for _, c := range []struct {
		in   string
		want map[string]any
	}{
		{`{}`, map[string]any{}},
		{" {\t\"a\" : 1 ,\r\n \"b\":[ ] } ", map[string]any{"a": 1.0, "b": []any{}}},
		{`{"":null,"t":true,"f":false}`, map[string]any{"": nil, "t": true, "f": false}},
		{`{"a":{"a":{"b":[1,[2]]}}}`, map[string]any{"a": map[string]any{"a": map[string]any{"b": []any{1.0, []any{2.0}}}}}},
		{`{"s":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é"}`, map[string]any{"s": "\"\\/\b\f\n\r\té😀é"}},
		{`{"n":[0,-0,0.5,-1e3,1E+2,1e-2,9007199254740991,9007199254740993]}`, map[string]any{
			"n": []any{0.0, math.Copysign(0, -1), 0.5, -1000.0, 100.0, 0.01, 9007199254740991.0, json.Number("9007199254740993")},
		}},
		{`{"deep":` + strings.Repeat("[", 15) + strings.Repeat("]", 15) + `}`, map[string]any{"deep": nested(15)}},
	} {
		got, err := parseObject([]byte(c.in))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %v, %v, want %v", c.in, got, err, c.want)
		}
	}
}

func nested(n int) any {
	v := []any{}
	for range n - 1 {
		v = []any{v}
	}
	return v
}

func TestObjectsAreRefused(t *testing.T) {
	for _, c := range []struct {
		in   string
		want error
	}{
		{``, errObject},
		{`null`, errObject},
		{`[]`, errObject},
		{`"a"`, errObject},
		{"\xef\xbb\xbf{}", errObject},
		{`{}{}`, errBehind},
		{`{} x`, errBehind},
		{"{}\x00", errBehind},
		{`{`, errEnd},
		{`{"a`, errEnd},
		{`{"a":`, errEnd},
		{`{"a":1`, errEnd},
		{`{"a":[1`, errEnd},
		{`{"a":"\u12`, errEnd},
		{`{"a":"\`, errString},
		{`{"a"}`, errSyntax},
		{`{"a":1,}`, errSyntax},
		{`{"a":[1,]}`, errSyntax},
		{`{,}`, errSyntax},
		{`{a:1}`, errSyntax},
		{`{'a':1}`, errSyntax},
		{`{"a":nul}`, errSyntax},
		{`{"a":NaN}`, errSyntax},
		{`{"a":Infinity}`, errSyntax},
		{`{"a":TRUE}`, errSyntax},
		{`{"a":1 2}`, errSyntax},
		{`{"a":/**/1}`, errSyntax},
		{`{"a":+1}`, errSyntax},
		{`{"a":.5}`, errSyntax},
		{`{"a":01}`, errSyntax},
		{`{"a":0x1}`, errSyntax},
		{`{"a":-}`, errNumber},
		{`{"a":1.}`, errNumber},
		{`{"a":1e}`, errNumber},
		{`{"a":1e999}`, errNumber},
		{`{"a":-1e999}`, errNumber},
		{`{"a":` + strings.Repeat("1", 65) + `}`, errNumber},
		{"{\"a\":\"\n\"}", errString},
		{"{\"a\":\"\x00\"}", errString},
		{`{"a":"\x41"}`, errString},
		{`{"a":"\u00g0"}`, errString},
		{"{\"a\":\"\\\n\"}", errString},
		{`{"a":"\ud800"}`, errSurrogate},
		{`{"a":"\udc00"}`, errSurrogate},
		{`{"a":"\ud800\u0041"}`, errSurrogate},
		{`{"a":"\ud800\ud800"}`, errSurrogate},
		{"{\"a\":\"\xff\"}", errText},
		{"{\"a\":\"\xc0\x80\"}", errText},
		{"{\"a\":\"\xed\xa0\x80\"}", errText},
		{`{"deep":` + strings.Repeat("[", 16) + strings.Repeat("]", 16) + `}`, errDeep},
		{strings.Repeat(`{"a":`, 100_000), errDeep},
	} {
		if got, err := parseObject([]byte(c.in)); err != c.want {
			t.Errorf("%.40s: got %v, %v, want %v", c.in, got, err, c.want)
		}
	}
	for _, in := range []string{`{"a":1,"a":1}`, `{"a":1,"\u0061":2}`, `{"x":{"a":1,"b":2,"a":3}}`, `{"x":[{"":1,"":1}]}`} {
		if _, err := parseObject([]byte(in)); err == nil || !strings.Contains(err.Error(), "twice") {
			t.Errorf("%s: got %v, want a member that is there twice", in, err)
		}
	}
}

// What is read is what encoding/json reads, and what is refused has a reason that
// encoding/json knows or does not look for.
func FuzzParseObject(f *testing.F) {
	for _, seed := range []string{`{"a":[1,-0.5e3,"x\u00e9\ud83d\ude00"],"b":{"c":null}}`, `{"a":1,"a":2}`, `{"a":"\ud800"}`, `{"a":9007199254740993}`, `{"a":1e999}`, "{\"a\":\"\xff\"}", ` { } `} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parseObject(data)
		var want map[string]any
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		theirs := d.Decode(&want)
		if theirs == nil && !json.Valid(data) { // there is something behind it
			theirs = errBehind
		}
		switch {
		case err == nil && theirs != nil:
			t.Fatalf("%q is read, and encoding/json refuses it: %v", data, theirs)
		case err == nil && !same(got, want):
			t.Fatalf("%q is read as %v, by encoding/json as %v", data, got, want)
		case err != nil && theirs == nil && want != nil && !stricter(data, err):
			t.Fatalf("%q is refused: %v", data, err)
		}
	})
}

// stricter reports whether an error is one of those that encoding/json does not have.
func stricter(data []byte, err error) bool {
	switch err {
	case errText:
		return !utf8.Valid(data)
	case errDeep, errNumber, errSurrogate:
		return true
	}
	return strings.Contains(err.Error(), "twice")
}

// same compares what was read with encoding/json's view of it, in which every number
// is its text.
func same(got, want any) bool {
	switch w := want.(type) {
	case json.Number:
		f, err := w.Float64()
		if n, ok := got.(json.Number); ok {
			return n == w
		}
		return err == nil && got == f
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return false
		}
		for i := range w {
			if !same(g[i], w[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok || len(g) != len(w) {
			return false
		}
		for k := range w {
			if _, there := g[k]; !there || !same(g[k], w[k]) {
				return false
			}
		}
		return true
	}
	return got == want
}
