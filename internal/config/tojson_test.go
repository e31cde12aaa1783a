package config_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/config"
)

func TestYAMLBecomesJSON(t *testing.T) {
	for in, want := range map[string]string{
		"z: 1\na: [1.5, true, null, ~, 'x<y&\"', .inf]\n":                   `{"z":1,"a":[1.5,true,null,null,"x<y&\"",".inf"]}`,
		"a: &x {b: 1, c: é}\nd: *x\ne: {<<: *x, c: 2}\n":                    `{"a":{"b":1,"c":"é"},"d":{"b":1,"c":"é"},"e":{"c":2,"b":1}}`,
		"a: &x {b: 1, c: 3}\ny: &y {b: 2, d: 4}\ne: {c: 5, <<: [*x, *y]}\n": `{"a":{"b":1,"c":3},"y":{"b":2,"d":4},"e":{"c":5,"b":1,"d":4}}`,
		"a: &x 1\nb: *x\nc: &x 2\nd: *x\n":                                  `{"a":1,"b":1,"c":2,"d":2}`,
		"1: {true: x}\n":                                                    `{"1":{"true":"x"}}`,
		"a: |\n  x\n  y\nb: 5s\nc: 64KiB\nd: 0x10\ne: \"${X}\"\n":           `{"a":"x\ny\n","b":"5s","c":"64KiB","d":16,"e":"${X}"}`,
		"{}": `{}`,
	} {
		got, err := config.ToJSON([]byte(in), 1<<20)
		if err != nil {
			t.Errorf("%q: %v", in, err)
			continue
		}
		var a, b any
		if json.Unmarshal(got, &a) != nil || json.Unmarshal([]byte(want), &b) != nil || !reflect.DeepEqual(a, b) ||
			strings.Join(strings.Fields(string(got)), "") != strings.Join(strings.Fields(want), "") {
			t.Errorf("%q became %s, want %s", in, got, want)
		}
	}
}

func TestADocumentOfAliasesHasABound(t *testing.T) {
	text := "a0: &a0 [x, x]\n"
	for i := range 60 {
		text += fmt.Sprintf("a%d: &a%d [*a%d, *a%d]\n", i+1, i+1, i, i)
	}
	if _, err := config.ToJSON([]byte(text), 1<<20); err == nil {
		t.Error("2^60 items were written")
	}
	if _, err := config.ToJSON([]byte("a: &a [*a]\nb: &b {<<: *b, c: 1}\nd: *d\n"), 1<<20); err == nil {
		t.Error("an alias within its own anchor was written")
	}
}

func FuzzToJSON(f *testing.F) {
	f.Add([]byte("listeners: [{address: ':8080'}]\n# c\nlog: {level: info}\n"))
	f.Add([]byte("a: &x [1, .nan, -0, \"\\ud800\"]\nb: *x\n? {c: d}\n: e\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if out, err := config.ToJSON(text, 1<<20); err == nil && !json.Valid(out) {
			t.Errorf("%q became %s", text, out)
		}
	})
}
