package telemetry

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

func TestJSONStrings(t *testing.T) {
	for in, want := range map[string]string{
		"":                              `""`,
		"plain /text?a=b 12345678":      `"plain /text?a=b 12345678"`,
		`say "hi" \ bye`:                `"say \"hi\" \\ bye"`,
		"a\nb\r\tc\x00d\x1b[31m\x7f":    `"a\u000ab\u000d\u0009c\u0000d\u001b[31m\u007f"`,
		"héllo wörld, größe":            `"héllo wörld, größe"`,
		"bad\xff\xc3":                   `"bad\ufffd\ufffd"`,
		"\xed\xa0\x80":                  `"\ufffd\ufffd\ufffd"`, // a surrogate is no UTF-8
		"c1\u0085\u009b\u00a0":          "\"c1\\u0085\\u009b\u00a0\"",
		"line\u2028para\u2029\ufffd":    "\"line\\u2028para\\u2029\ufffd\"",
		"1234567\"12345678\\123\x7f567": `"1234567\"12345678\\123\u007f567"`,
		"12345678é12345678":             `"12345678é12345678"`,
		"\x1f 1234567":                  `"\u001f 1234567"`,
		"1234567\x20\x21\x7e\x7d":       `"1234567 !~}"`,
	} {
		if got := string(appendJSONString(nil, []byte(in))); got != want {
			t.Errorf("%q is written %s, want %s", in, got, want)
		}
	}
}

func TestPlainLenFindsTheFirstByteThatIsNot(t *testing.T) {
	for n := range 40 {
		for at := range n {
			v := bytes.Repeat([]byte("~"), n)
			for c := range 256 {
				v[at] = byte(c)
				want := n
				if c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
					want = at
				}
				if got := plainLen(v); got != want {
					t.Fatalf("plainLen of %q with %#x at %d is %d, want %d", v, c, at, got, want)
				}
			}
		}
	}
}

func TestMillis(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.000", 999: "0.000", 1000: "0.001", 1234567: "1.234", time.Hour: "3600000.000", -5: "0.000", 12 * time.Millisecond: "12.000",
	} {
		if got := string(appendMillis(nil, d)); got != want {
			t.Errorf("%d ns is %s ms, want %s", d, got, want)
		}
	}
}

// hostile makes an exchange of which everything a client controls is from fuzzing.
func hostile(id, host, path, query, agent, ref []byte, method string) *exchange.Exchange {
	x := &exchange.Exchange{
		Conn: &exchange.Conn{Peer: netip.MustParseAddrPort("[2001:db8::1]:1")}, Start: begun, ID: id,
		Client: netip.MustParseAddr("2001:db8::1"), Route: &exchange.Route{Name: string(host), API: string(path)},
		Usage: exchange.Usage{Name: string(agent), Target: string(query), Attempts: 1},
	}
	x.Request.Method, x.Request.Host, x.Request.Path, x.Request.Query = method, host, path, query
	x.Request.Header.AddID(exchange.UserAgent, agent)
	x.Request.Header.Add([]byte("Referer"), ref)
	return x
}

// unsafeRune reports what must not reach a terminal or split a line.
func unsafeRune(r rune) bool { return unicode.IsControl(r) || r == 0x2028 || r == 0x2029 }

func FuzzJSONLine(f *testing.F) {
	f.Add([]byte("id"), []byte("h"), []byte("/p"), []byte("a=b&api_key=1"), []byte("curl"), []byte("/r?token=1"), "GET")
	f.Add([]byte("\"}\n{\""), []byte("\x00\xff"), []byte("\u2028\\"), []byte("%61pi_key=\""), []byte("\x1b[2J\x9b"), []byte("\r\n"), "\n")
	f.Fuzz(func(t *testing.T, id, host, path, query, agent, ref []byte, method string) {
		x := hostile(id, host, path, query, agent, ref, method)
		b := newBatch()
		b.add(x, newAccessOptions(config.AccessLog{Format: "json"}), time.Second, time.Second)
		line := new(formatter).append(nil, b, &b.entries[0])
		body, ok := bytes.CutSuffix(line, []byte("\n"))
		if !ok || bytes.ContainsFunc(body, unsafeRune) || !utf8.Valid(body) {
			t.Fatalf("not one clean line: %q", line)
		}
		var rec struct{ ID, Method, Path, Query string }
		d := json.NewDecoder(bytes.NewReader(body))
		if err := d.Decode(&rec); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if d.More() {
			t.Fatalf("more than one document: %s", line)
		}
		if want := strings.ToValidUTF8(method, "�"); utf8.ValidString(method) && rec.Method != want {
			t.Fatalf("method %q is read back as %q", method, rec.Method)
		}
		if utf8.Valid(path) && len(path) <= textLimits[textPath] && rec.Path != string(path) {
			t.Fatalf("path %q is read back as %q", path, rec.Path)
		}
	})
}

func FuzzCombinedLine(f *testing.F) {
	f.Add([]byte("/p"), []byte("a=b&api_key=1"), []byte("curl"), []byte("/r?token=1"), "GET")
	f.Add([]byte("\" 200 5 \""), []byte("\x00\xff\n"), []byte("\x1b[2J\x9b"), []byte("\r\n"), "\n")
	shape := regexp.MustCompile(`^2001:db8::1 - - \[04/Mar/2026:05:06:07 \+0000\] "[^"]*" 0 0 "[^"]+" "[^"]+"$`)
	f.Fuzz(func(t *testing.T, path, query, agent, ref []byte, method string) {
		x := hostile(nil, nil, path, query, agent, ref, method)
		b := newBatch()
		b.add(x, newAccessOptions(config.AccessLog{Format: "combined"}), time.Second, time.Second)
		line := new(formatter).append(nil, b, &b.entries[0])
		body, ok := bytes.CutSuffix(line, []byte("\n"))
		if !ok || !shape.Match(body) || bytes.ContainsFunc(body, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
			t.Fatalf("not one clean line: %q", line)
		}
	})
}

// FuzzQueryMasking checks that no value of a credential is left, against a
// reader that splits and unescapes the slow way.
func FuzzQueryMasking(f *testing.F) {
	f.Add([]byte("a=b&api_key=1&c"))
	f.Add([]byte("%61%70i_key=secret&&=&api_key=a=b"))
	f.Fuzz(func(t *testing.T, q []byte) {
		r := newRedaction(nil)
		got := strings.Split(string(r.appendQuery(nil, q)), "&")
		want := strings.Split(string(q), "&")
		if len(got) != len(want) {
			t.Fatalf("%q became %q", want, got)
		}
		for i, pair := range want {
			name, value, ok := strings.Cut(pair, "=")
			_, hide := r.params[slowUnescape(name)]
			expected := pair
			if ok && value != "" && hide {
				expected = name + "=***"
			}
			if got[i] != expected {
				t.Fatalf("%q became %q, want %q", pair, got[i], expected)
			}
		}
	})
}

func slowUnescape(name string) string {
	escape := regexp.MustCompile(`%[0-9a-fA-F]{2}`)
	name = strings.ReplaceAll(name, "+", " ")
	name = escape.ReplaceAllStringFunc(name, func(e string) string {
		return string([]byte{unhex(e[1])<<4 | unhex(e[2])})
	})
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r | 0x20
		}
		return r
	}, name)
}
