package semantics_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/cache/semantics"
)

// RFC 9110 §12.5.5, RFC 9111 §4.1.
func TestVaryOf(t *testing.T) {
	const never = "never"
	many := make([]string, 33)
	for i := range many {
		many[i] = strings.Repeat("x", i+1)
	}
	table := []struct{ lines, want string }{
		{"", ""},
		{"Vary:", ""},
		{"Vary: ,", ""},
		{"Vary: Accept-Encoding", "accept-encoding"},
		{"Vary: ACCEPT-ENCODING", "accept-encoding"},
		{"Vary: Foo, Bar", "bar,foo"},
		{"Vary: Foo,Bar", "bar,foo"},
		{"Vary: Foo , ,, Bar ,", "bar,foo"},
		{"Vary: Foo|Vary: Bar", "bar,foo"},
		{"Vary: Foo, foo, FOO", "foo"},
		{"Vary: Foo|Vary: foo", "foo"},
		{"vary: foo", "foo"},
		{"Vary: *", never},
		{"Vary: * ", never},
		{"Vary: *, *", never},
		{"Vary: Foo, *", never},
		{"Vary: *, Foo", never},
		{"Vary:|Vary: *", never},
		{"Vary: *|Vary: Foo", never},
		{"Vary: *foo", "*foo"}, // a token like any other
		{"Vary: Foo Bar", never},
		{"Vary: Foo;Bar", never},
		{"Vary: \"Foo\"", never},
		{"Vary: Foo\x80", never},
		{"Vary: " + strings.Join(many[:32], ","), strings.Join(many[:32], ",")},
		{"Vary: " + strings.Join(many, ","), never},
		{"Vary: " + strings.Repeat("foo,", 100), "foo"},
		{"Vary: " + strings.Repeat("foo,", 1000), never},
	}
	each(t, table, func(t *testing.T, row struct{ lines, want string }) {
		spec, ok := semantics.VaryOf(header(row.lines))
		if !ok {
			spec = never
		}
		if spec != row.want {
			t.Errorf("%q: %q, want %q", row.lines, spec, row.want)
		}
	})
}

// Requests of one group have one variant, and of two groups two.
func TestVariants(t *testing.T) {
	table := []struct {
		spec   string
		groups [][]string
	}{
		{"", [][]string{{"", "Foo: 1", "Accept: a/b"}}},
		{"foo", [][]string{
			{"", "Bar: 1"},
			{"Foo:", "foo:", "FOO: "},
			{"Foo: 1", "foo: 1", "Bar: 2|Foo: 1", "Foo: 1|Bar: 2"},
			{"Foo: 1, 2", "Foo: 1,2", "Foo: 1 , 2", "Foo: 1\t,\t2", "Foo: 1|Foo: 2", "foo: 1|FOO: 2", "Foo: 1|Bar: 3|Foo: 2"},
			{"Foo: 2, 1", "Foo: 2|Foo: 1"},
			{"Foo: 1 2"},
			{"Foo: 1  2"},
			{"Foo: a"},
			{"Foo: A"},
			{"Foo: \"1 , 2\""},
			{"Foo: \"1, 2\""},
			{"Foo: \"1,2\""},
			{"Foo: \"a\\\" , b\""},
			{"Foo: \"1 , 2"},
			{"Foo: 1,, 2", "Foo: 1, , 2"},
			{"Foo: 1;q=1"},
		}},
		{"bar,foo", [][]string{
			{""},
			{"Foo: 1"},
			{"Bar: 1"},
			{"Foo: 1|Bar: 1"},
			{"Foo: 1|Bar: 2"},
			{"Foo: 2|Bar: 1"},
			{"Foo: 12|Bar:"},
			{"Foo: |Bar: 12"},
			{"Foo:"},
			{"Bar:"},
			{"Foo:|Bar:"},
		}},
		{"cookie", [][]string{
			{"Cookie: a=b, c=d"},
			{"Cookie: a=b,c=d"},
			{"Cookie: a=b; c=d", "Cookie: a=b|Cookie: c=d"},
			{"Cookie: A=b; c=d"},
			{"Cookie: c=d; a=b"},
		}},
		{"user-agent", [][]string{
			{"User-Agent: x (KHTML, like Gecko)"},
			{"User-Agent: x (KHTML,like Gecko)"},
			{"User-Agent: X (KHTML, like Gecko)"},
		}},
		{"authorization", [][]string{
			{"Authorization: Digest a=b, c=d"}, {"Authorization: Digest a=b,c=d"}, {""},
		}},
		{"accept-encoding", [][]string{
			{"", "Accept: gzip"},
			{"Accept-Encoding:", "Accept-Encoding: ,"},
			{
				"Accept-Encoding: gzip", "Accept-Encoding: GZIP", "Accept-Encoding: gzip;q=1", "Accept-Encoding: gzip; Q=1.000",
				"Accept-Encoding: gzip ;q=1.", "Accept-Encoding: gzip, gzip", "Accept-Encoding: gzip, br;q=0",
				"Accept-Encoding: br;q=0.000, gzip", "Accept-Encoding: gzip|accept-encoding: br; q=0.0",
			},
			{"Accept-Encoding: gzip;q=0.5", "Accept-Encoding: gzip;q=0.50", "Accept-Encoding: gzip ; q=0.500"},
			{"Accept-Encoding: gzip;q=0.51"},
			{"Accept-Encoding: gzip;q=0.05"},
			{"Accept-Encoding: gzip, br", "Accept-Encoding: br, gzip", "Accept-Encoding: br,gzip", "Accept-Encoding: br|Accept-Encoding: gzip", "Accept-Encoding: Br , , GZip"},
			{"Accept-Encoding: gzip, br;q=0.9", "Accept-Encoding: br;q=0.9, gzip"},
			{"Accept-Encoding: br, gzip;q=0.9"},
			{"Accept-Encoding: gzip, *;q=0", "Accept-Encoding: *;q=0, gzip"},
			{"Accept-Encoding: gzip, br;q=0, *", "Accept-Encoding: *, br;q=0, gzip"},
			{"Accept-Encoding: gzip, *"},
			{"Accept-Encoding: identity;q=0, gzip", "Accept-Encoding: gzip, Identity;q=0"},
			{"Accept-Encoding: identity, gzip"},
			{"Accept-Encoding: gzip;q=0.5, gzip"}, // two weights: as received
			{"Accept-Encoding: gzip, gzip;q=0.5"},
			{"Accept-Encoding: gzip;q=2"},
			{"Accept-Encoding: gzip;q=x"},
			{"Accept-Encoding: gzip;q=1.001"},
			{"Accept-Encoding: gzip;q=0.1234"},
			{"Accept-Encoding: gzip;q=\"1\""},
			{"Accept-Encoding: gzip;x=1"},
			{"Accept-Encoding: g zip"},
		}},
		{"accept-language", [][]string{
			{"Accept-Language: en, de", "Accept-Language: de, en", "Accept-Language: DE,EN", "Accept-Language: de;q=1, en;q=1.0"},
			{"Accept-Language: en, de;q=0.5", "Accept-Language: de;q=0.5,en"},
			{"Accept-Language: de, en;q=0.5"},
			{"Accept-Language: en, en-GB;q=0", "Accept-Language: en-gb;q=0.0, EN"},
			{"Accept-Language: en"},
			{"Accept-Language: *"},
			{"Accept-Language: de-DE, de"},
		}},
		{"accept-charset", [][]string{
			{"Accept-Charset: utf-8", "Accept-Charset: UTF-8", "Accept-Charset: utf-8, latin1;q=0"},
			{"Accept-Charset: utf-8, latin1;q=0, *;q=0.1", "Accept-Charset: *;q=0.1, latin1;q=0, utf-8"},
		}},
		{"accept", [][]string{
			{
				"Accept: text/html, application/json;q=0.9", "Accept: application/json; q=0.9,TEXT/HTML",
				"Accept: application/json;q=0.900|Accept: text/html",
			},
			{"Accept: application/json, text/html;q=0.9"},
			{"Accept: text/html;level=1", "Accept: text/html ; level=1", "Accept: Text/Html;Level=1;q=1"},
			{"Accept: text/html;level=2"},
			{"Accept: text/html"},
			{"Accept: text/html;a=b;c=d", "Accept: text/html; a=b; c=d"},
			{"Accept: text/html;a=B"},
			{"Accept: text/html;a=\"b\""},
			{"Accept: text/*, text/plain;q=0", "Accept: text/plain;q=0, text/*"},
			{"Accept: text/*"},
			{"Accept: */*"},
			{"Accept: text/html;q=0.5;ext=1"},
			{"Accept: text"},
			{"Accept: text /html"},
		}},
	}
	for _, row := range table {
		seen := map[string]string{}
		for i, group := range row.groups {
			var want string
			for j, lines := range group {
				got := string(semantics.AppendVariant(nil, row.spec, header(lines)))
				if other, ok := seen[got]; ok && j == 0 {
					t.Errorf("%s: %q is the variant of %q", row.spec, lines, other)
				}
				if j == 0 {
					want = got
				} else if got != want {
					t.Errorf("%s, group %d: %q is not the variant of %q", row.spec, i, lines, group[0])
				}
				seen[got] = lines
			}
		}
	}
	if len(table) == 0 {
		t.Fatal("there are no cases")
	}
}

// What is appended leaves what was there alone, and is a function of the fields.
func TestVariantIsAppended(t *testing.T) {
	h := header("Foo: |Foo: \t|Accept: a/b, c")
	bare := semantics.AppendVariant(nil, "accept,foo", h)
	got := semantics.AppendVariant([]byte("key \t"), "accept,foo", h)
	if !bytes.Equal(got, append([]byte("key \t"), bare...)) {
		t.Errorf("%q is not %q behind the key", got, bare)
	}
}

// More members than are put in order are taken as received.
func TestVariantOfManyMembers(t *testing.T) {
	list := make([]string, 40)
	for i := range list {
		list[i] = strings.Repeat("a", 40-i)
	}
	one := semantics.AppendVariant(nil, "accept-encoding", header("Accept-Encoding: "+strings.Join(list, ", ")))
	other := semantics.AppendVariant(nil, "accept-encoding", header("Accept-Encoding: "+strings.Join(list, ",")))
	if !bytes.Equal(one, other) {
		t.Error("white space makes two variants")
	}
	list[0], list[1] = list[1], list[0]
	if bytes.Equal(one, semantics.AppendVariant(nil, "accept-encoding", header("Accept-Encoding: "+strings.Join(list, ", ")))) {
		t.Error("the order does not count")
	}
}
