package httpsig

import (
	"strings"
	"testing"

	"github.com/dunglas/httpsfv"
)

// baseOf is the base of the first signature of a message; what is wrong with it when
// there is none.
func baseOf(t testing.TB, m *Message) string {
	t.Helper()
	inputs, _, err := fields(m)
	if err != nil {
		return err.Error()
	}
	member, _ := inputs.Get(inputs.Names()[0])
	list := member.(httpsfv.InnerList)
	covered, err := components(list.Items)
	if err != nil {
		return err.Error()
	}
	base, err := signatureBase(m, covered, list)
	if err != nil {
		return err.Error()
	}
	return base
}

// The values of RFC 9421 §2.1 and §2.2, and those that are refused.
func TestValuesOfComponents(t *testing.T) {
	fields := []string{
		"Host: www.example.com", "Cache-Control: max-age=60", "Cache-Control:    must-revalidate", "X-Empty-Header:", "X-OWS-Header:   Leading and trailing whitespace.   ",
		"Example-Dict:  a=1,    b=2;x=1;y=2,   c=(a   b   c)", "Example-Header: value, with, lots", "Example-Header: of, commas",
		"Priority:  u=5 ,   i", "Cache-Status: a;hit,b", "Content-Digest: sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:", "X-Latin: caf\xe9", "X-Tab: a\tb",
		"X-Twice: a=1", "X-Twice: a=2, b=3",
	}
	for _, c := range []struct{ url, id, want string }{
		{"http://www.example.com/", `"host"`, "www.example.com"},
		{"http://www.example.com/", `"cache-control"`, "max-age=60, must-revalidate"},
		{"http://www.example.com/", `"x-empty-header"`, ""},
		{"http://www.example.com/", `"x-ows-header"`, "Leading and trailing whitespace."},
		{"http://www.example.com/", `"example-dict"`, "a=1,    b=2;x=1;y=2,   c=(a   b   c)"},
		{"http://www.example.com/", `"example-dict";key="a"`, "1"},
		{"http://www.example.com/", `"example-dict";key="b"`, "2;x=1;y=2"},
		{"http://www.example.com/", `"example-dict";key="c"`, "(a b c)"},
		{"http://www.example.com/", `"example-dict";key="d"`, `! the dictionary has no such member`},
		{"http://www.example.com/", `"example-dict";sf;key="c"`, "(a b c)"},
		{"http://www.example.com/", `"x-twice";key="a"`, "2"},
		{"http://www.example.com/", `"example-header";bs`, ":dmFsdWUsIHdpdGgsIGxvdHM=:, :b2YsIGNvbW1hcw==:"},
		{"http://www.example.com/", `"x-latin";bs`, ":Y2Fm6Q==:"},
		{"http://www.example.com/", `"x-latin"`, "! its value is not ASCII, or has control characters: cover it with ;bs"},
		{"http://www.example.com/", `"x-tab"`, "a\tb"},
		{"http://www.example.com/", `"priority";sf`, "u=5, i"},
		{"http://www.example.com/", `"cache-status";sf`, "a;hit, b"},
		{"http://www.example.com/", `"example-dict";sf`, "! " + errKind.Error()},
		{"http://www.example.com/", `"cache-control";key="x"`, "! the dictionary has no such member"},
		{"http://www.example.com/", `"x-ows-header";key="x"`, "! it is no dictionary"},
		{"http://www.example.com/", `"x-absent"`, "! there is no such field"},
		{"http://www.example.com/", `"example-header";bs;sf`, "! has bs together with sf or key"},
		{"http://www.example.com/", `"example-header";key="a";bs`, "! has bs together with sf or key"},
		{"http://www.example.com/", `"example-header";bs=?0`, "! has a parameter bs of the wrong type"},
		{"http://www.example.com/", `"example-header";key=1`, "! has a parameter key of the wrong type"},
		{"http://www.example.com/", `"example-header";tr`, "! has the parameter tr, which is not for fields of a request"},
		{"http://www.example.com/", `"example-header";req`, "! has the parameter req, which is not for fields of a request"},
		{"http://www.example.com/", `"example-header";x=1`, "! has the parameter x, which is not for fields of a request"},
		{"http://www.example.com/", `"Example-Header"`, "! is no name of a field in lower case"},
		{"http://www.example.com/", `"example header"`, "! is no name of a field in lower case"},
		{"http://www.example.com/", `""`, "! is no name of a field in lower case"},
		{"http://www.example.com/", `example-header`, "! is no string"},
		{"http://www.example.com/", `"@method"`, "POST"},
		{"http://www.example.com/", `"@method";req`, "! has the parameter req, which it cannot have"},
		{"http://www.example.com/", `"@status"`, "! is no derived component of a request"},
		{"http://www.example.com/", `"@signature-params"`, "! is no derived component of a request"},
		{"http://www.example.com/", `"@nonsense"`, "! is no derived component of a request"},
		{"https://www.example.com/path?param=value", `"@target-uri"`, "https://www.example.com/path?param=value"},
		{"HTTPS://www.example.com/path", `"@scheme"`, "https"},
		{"http://www.example.com/path", `"@scheme"`, "http"},
		{"https://WWW.Example.com:443/p", `"@authority"`, "www.example.com"},
		{"http://www.example.com:80", `"@authority"`, "www.example.com"},
		{"http://www.example.com:443/", `"@authority"`, "www.example.com:443"},
		{"https://[2001:DB8::1]:8443/", `"@authority"`, "[2001:db8::1]:8443"},
		{"https:///", `"@authority"`, "! the request names no host"},
		{"https://Example.com:443?a", `"@target-uri"`, "https://example.com/?a"},
		{"https://www.example.com/path?param=value", `"@request-target"`, "/path?param=value"},
		{"https://www.example.com/a%20b", `"@path"`, "/a%20b"},
		{"https://www.example.com", `"@path"`, "/"},
		{"https://www.example.com/path?param=value&foo=bar&baz=bat%2Dman", `"@query"`, "?param=value&foo=bar&baz=bat%2Dman"},
		{"https://www.example.com/path?queryString", `"@query"`, "?queryString"},
		{"https://www.example.com/path?", `"@query"`, "?"},
		{"https://www.example.com/path", `"@query"`, "?"},
		{"https://www.example.com/path?param=value&foo=bar&baz=batman&qux=", `"@query-param";name="baz"`, "batman"},
		{"https://www.example.com/path?param=value&foo=bar&baz=batman&qux=", `"@query-param";name="qux"`, ""},
		{"https://www.example.com/path?param=value&&qux", `"@query-param";name="qux"`, ""},
		{"https://www.example.com/parameters?var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something", `"@query-param";name="var"`, "this%20is%20a%20big%0Amultiline%20value"},
		{"https://www.example.com/parameters?var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something", `"@query-param";name="bar"`, "with%20plus%20whitespace"},
		{"https://www.example.com/parameters?var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something", `"@query-param";name="fa%C3%A7ade%22%3A%20"`, "something"},
		{"https://www.example.com/?a=%zz%4&b=~", `"@query-param";name="a"`, "%25zz%254"},
		{"https://www.example.com/?a=%zz%4&b=~", `"@query-param";name="b"`, "%7E"},
		{"https://www.example.com/?a=%FF", `"@query-param";name="a"`, "! its value is not UTF-8: cover @query"},
		{"https://www.example.com/?a=1&%61=2", `"@query-param";name="a"`, "! the query has it twice: cover @query"},
		{"https://www.example.com/?a=1", `"@query-param";name="b"`, "! the query does not have it"},
		{"https://www.example.com/?a=1", `"@query-param"`, "! needs one parameter, the name of a query parameter"},
		{"https://www.example.com/?a=1", `"@query-param";name=a`, "! needs one parameter, the name of a query parameter"},
		{"https://www.example.com/?a=1", `"@query-param";name="a";req`, "! needs one parameter, the name of a query parameter"},
	} {
		base := baseOf(t, request("POST", strings.Replace(c.url, "HTTPS", "https", 1), append(fields, "Signature-Input: s=("+c.id+")", "Signature: s=:AA==:")...))
		if want, refused := strings.CutPrefix(c.want, "! "); refused {
			if !strings.HasPrefix(base, "component ") || !strings.HasSuffix(base, want) {
				t.Errorf("%s of %s: %q, want %q", c.id, c.url, base, want)
			}
			continue
		}
		if want := c.id + ": " + c.want + "\n\"@signature-params\": (" + c.id + ")"; base != want {
			t.Errorf("%s of %s: %q, want %q", c.id, c.url, base, want)
		}
	}
}

func TestRequestTargetIsAsReceived(t *testing.T) {
	m := request("GET", "https://example.com/a", `Signature-Input: s=("@request-target")`, "Signature: s=:AA==:")
	m.Target = []byte("https://example.com/a")
	if got, want := baseOf(t, m), "\"@request-target\": https://example.com/a\n\"@signature-params\": (\"@request-target\")"; got != want {
		t.Errorf("%q", got)
	}
}

func TestComponentsTwice(t *testing.T) {
	for in, twice := range map[string]bool{
		`"a" "a"`:                                         true,
		`"a" "a";bs`:                                      false,
		`"a";key="x" "a";key="y"`:                         false,
		`"a";key="x" "a";key="x"`:                         true,
		`"a";key="x" "a";key="x";sf`:                      true,
		`"a";key="x";sf "a";sf;key="x"`:                   true,
		`"@query-param";name="a" "@query-param";name="b"`: false,
		`"@query-param";name="a" "@path" "@query-param";name="a"`: true,
	} {
		d, err := httpsfv.UnmarshalDictionary([]string{"s=(" + in + ")"})
		if err != nil {
			t.Fatal(err)
		}
		list, _ := d.Get("s")
		if _, err := components(list.(httpsfv.InnerList).Items); (err != nil) != twice {
			t.Errorf("%s: %v", in, err)
		}
	}
}
