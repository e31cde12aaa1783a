package config

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// seed adds all configurations of testdata, and some of odd shapes.
func seed(f *testing.F) {
	f.Helper()
	names, err := filepath.Glob(filepath.Join("testdata", "*", "*.yaml"))
	if err != nil || len(names) == 0 {
		f.Fatal("there are no seeds")
	}
	for _, name := range names {
		src, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	for _, s := range []string{
		"a: &a [*a]\n", "a: &a {<<: *a}\n", "- - - - x\n", "a: |2\n   x\n", "a: >+\n\n  x\n\n\n", "a: '''\n", "? ? ?\n", "a: !<x> y\n",
		"log: {level: info\n", "\ufeff", "\r\n\r", "a:\n\n\n\n# x\n  # y\nb: 1", "a: \"\\x00\\u2028\\U0010FFFF\"\n", "{a: [b, {c: d}, e: f]}", "x: {a:b}\n",
		"a: {\n # x\n}\n", "a: [\n # x\n]\n# y", "a: # x\n  b # y\n", "a: &x\n  b: 1\nc: *x\n", "a: - b\n", "a: {? b : c}\n", "log: {access: {redact: \n[a]}}",
	} {
		f.Add([]byte(s))
	}
}

// noFiles is an environment without files, in which every variable has a value.
func noFiles() Env {
	return Env{
		Lookup:   func(name string) (string, bool) { return "value of " + name, true },
		ReadFile: func(string) ([]byte, error) { return nil, os.ErrNotExist },
		Now:      testEnv().Now,
	}
}

func FuzzParse(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, src []byte) {
		if bytes.Contains(src, []byte("include")) {
			return // would read patterns on disk
		}
		file, ds := Parse("fuzz.yaml", src, noFiles())
		rows := strings.Count(string(src), "\n") + 2
		for i, d := range ds {
			if d.Line < 0 || d.Line > rows || d.Line > 0 && d.Col < 1 {
				t.Errorf("the place of %q is not in the document", d)
			}
			if i > 0 && d.order == ds[i-1].order && d.Line < ds[i-1].Line {
				t.Errorf("%q stands after %q", d, ds[i-1])
			}
			checkDiagnostic(t, d)
		}
		if file == nil {
			if ds.Err() == nil {
				t.Error("there is neither a file nor an error")
			}
			return
		}
		for _, d := range ds {
			if again := file.Diagnose(d.Path, d.Code, "%s", d.Message); d.Line > 0 && again.Line == 0 {
				t.Errorf("Diagnose(%q) has no place", d.Path)
			}
		}
		Mask(src)
		Masks(src)
		References(src)
	})
}

func FuzzFormat(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, src []byte) {
		if bytes.Contains(src, []byte("include")) {
			return
		}
		var problems Diagnostics
		parseTree(&source{name: "fuzz", text: string(src)}, true, func(d Diagnostic) { problems = append(problems, d) })
		out, err := Format(src)
		if err != nil {
			if problems.Err() == nil {
				t.Fatalf("a document that can be parsed cannot be formatted: %v\n%s", err, src)
			}
			return
		}
		again, err := Format(out)
		if err != nil || !bytes.Equal(again, out) {
			t.Fatalf("formatting twice changes it (%v)\nfrom:\n%s\nonce:\n%s\ntwice:\n%s", err, src, out, again)
		}
		before, ds1 := Parse("fuzz.yaml", src, noFiles())
		after, ds2 := Parse("fuzz.yaml", out, noFiles())
		if (before == nil) != (after == nil) {
			t.Fatalf("formatting changes whether it loads: %v, %v", ds1, ds2)
		}
		if before == nil {
			return
		}
		if a, b := messages(ds1), messages(ds2); !slices.Equal(a, b) {
			t.Fatalf("formatting changes the diagnostics:\n%s\n%s\nfrom:\n%s\nto:\n%s", a, b, src, out)
		}
		before.doc, after.doc = nil, nil
		if !reflect.DeepEqual(before, after) {
			t.Fatalf("formatting changes the meaning of\n%s\nto\n%s", src, out)
		}
	})
}

// messages are the paths and codes of diagnostics, sorted. What they advise may
// depend on how the document is written.
func messages(ds Diagnostics) []string {
	var out []string
	for _, d := range ds {
		out = append(out, d.Path+" "+d.Code)
	}
	slices.Sort(out)
	return out
}

// What a variable holds becomes the value and nothing else.
func FuzzExpansionIsNeverYAML(f *testing.F) {
	for _, v := range environment {
		f.Add(v)
	}
	f.Add("x\ny: z")
	f.Add("${SECRET}")
	f.Add("*a &b !c")
	f.Fuzz(func(t *testing.T, v string) {
		src := []byte("upstreams:\n  a: {respond: {body: \"<${V}>\"}}\n  b: {respond: {body: '${V}'}}\n  c:\n    respond:\n      body: ${V}\n" +
			"routes:\n  - {path: /, upstream: a}\n")
		env := noFiles()
		env.Lookup = func(name string) (string, bool) { return v, name == "V" || name == "SLUICE_ADMIN_TOKEN" }
		file, ds := Parse("fuzz.yaml", src, env)
		if err := ds.Err(); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"a": "<" + v + ">", "b": v, "c": v} {
			if got := file.Upstreams[name].Respond.Body; got != want {
				t.Errorf("%s: %q became %q", name, want, got)
			}
		}
		if len(file.Upstreams) != 3 || len(file.Routes) != 1 {
			t.Errorf("%q added blocks", v)
		}
	})
}
