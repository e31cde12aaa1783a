package hostile

import (
	"bytes"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheTablesAreWhole(t *testing.T) {
	for _, tt := range []struct {
		dir   string
		load  func() ([]Case, error)
		least int
	}{
		{"requests", Cases, 500},
		{"responses", Responses, 120},
	} {
		all, err := tt.load()
		if err != nil {
			t.Fatal(err)
		}
		if len(all) < tt.least {
			t.Errorf("%d %s, at least %d were there", len(all), tt.dir, tt.least)
		}
		refused := 0
		for _, c := range all {
			if c.Want.Status != 0 {
				refused++
			}
		}
		if refused < tt.least/2 {
			t.Errorf("only %d of %d %s are refused", refused, len(all), tt.dir)
		}
		names, _ := fs.Glob(files, tt.dir+"/*")
		for _, name := range names {
			text, err := fs.ReadFile(files, name)
			if err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(text, []byte("\ncase ")); n == 0 || !strings.HasSuffix(name, ".txt") {
				t.Errorf("%s has %d cases", name, n)
			}
		}
	}
}

// one is a file system with one file of requests.
func one(text string) fs.FS {
	return fstest.MapFS{"requests/a.txt": {Data: []byte(text)}}
}

func TestLoadReadsEveryKeyOfACase(t *testing.T) {
	all, err := load(one(`# comment

case first
rfc 9112 §6.3
method HEAD
    ab\r\n
    \x20c
want forward length
body x\ty
host b.example
target /x
absent X_Key, Te
gateway 405

case second
rfc 9110 §5.5
    d
want 431 in body
`), "requests")
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 {
		t.Fatalf("%d cases", len(all))
	}
	a, b := all[0], all[1]
	if a.Name != "first" || a.Pos != "requests/a.txt:3" || a.RFC != "9112 §6.3" || a.Method != "HEAD" || string(a.Raw) != "ab\r\n c" ||
		a.Want.Framing != "length" || string(a.Want.Body) != "x\ty" || a.Want.Host != "b.example" || a.Want.Target != "/x" ||
		strings.Join(a.Want.Absent, "|") != "X_Key|Te" || a.Want.Gateway != 405 {
		t.Errorf("got %+v", a)
	}
	if b.Method != "GET" || string(b.Raw) != "d" || b.Want.Status != 431 || !b.Want.InBody || b.Want.Wait || b.Want.Framing != "" {
		t.Errorf("got %+v", b)
	}
}

func TestLoadNamesTheMistake(t *testing.T) {
	const head, tail = "case a\nrfc 9112 §1\n", "    x\nwant 400\n"
	for _, tt := range []struct{ text, want string }{
		{"", "no case in requests"},
		{"want 400\n", "requests/a.txt:1: a line outside a case"},
		{head + "    x \nwant 400\n", `requests/a.txt:3: white space at the end`},
		{head + "    x\ty\nwant 400\n", `requests/a.txt:3: white space at the end, or a tab`},
		{head + "    x\nwant 400\r\n", `requests/a.txt:4: white space at the end`},
		{head + "    \\q\nwant 400\n", "requests/a.txt:3: a backslash is followed by none of"},
		{head + "    \\x2\nwant 400\n", "requests/a.txt:3: a backslash is followed by none of"},
		{head + "    \\xzz\nwant 400\n", `requests/a.txt:3: \xzz is no byte`},
		{head + "    \\repeat{a}{b}\nwant 400\n", "requests/a.txt:3: write \\repeat{N}{text}"},
		{head + "    \\repeat{0}{b}\nwant 400\n", "requests/a.txt:3: write \\repeat{N}{text}"},
		{head + "    \\repeat{2}{b\nwant 400\n", "requests/a.txt:3: write \\repeat{N}{text}"},
		{head + "    \\repeat{9999999}{b}\nwant 400\n", "requests/a.txt:3: 1 bytes repeated 9999999 times are too many"},
		{head + "    x\nwant 200\n", `requests/a.txt:4: "200" is no verdict`},
		{head + "    x\nwant refuse\n", `requests/a.txt:4: "refuse" is no verdict`},
		{head + "    x\nwant forward all\n", `requests/a.txt:4: "all" is no framing`},
		{head + tail + "want 400\n", "requests/a.txt:5: a second verdict"},
		{head + tail + "why not\n", `requests/a.txt:5: "why" is none of`},
		{head + tail + "host\n", `requests/a.txt:5: "host" has no value`},
		{head + tail + "host a\n", `requests/a.txt:1: case "a" is not forwarded`},
		{head + "want 400\n", `requests/a.txt:1: case "a" has no message`},
		{head + "    x\n", `requests/a.txt:1: case "a" has no verdict`},
		{"case a\n" + tail, `requests/a.txt:1: case "a" has no rfc`},
		{"case a\n    x\nwant 400\n" + head + tail, `requests/a.txt:1: case "a" has no rfc`},
		{head + tail + head + tail, `requests/a.txt:5: case "a" is there already, at requests/a.txt:1`},
	} {
		fsys := one(tt.text)
		if _, err := load(fsys, "requests"); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%q:\ngot  %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

func TestUnescape(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{`abc`, "abc"},
		{`\r\n\t\\`, "\r\n\t\\"},
		{`\x00\xFF\x7fz`, "\x00\xff\x7fz"},
		{`a\repeat{3}{b\r}c`, "ab\rb\rb\rc"},
		{`\repeat{1}{}`, ""},
		{`{}`, "{}"},
	} {
		if got, err := unescape(tt.in); err != nil || string(got) != tt.want {
			t.Errorf("%s: got %q, %v", tt.in, got, err)
		}
	}
}
