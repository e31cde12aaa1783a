package router

import (
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestDecode(t *testing.T) {
	for _, tt := range []struct{ raw, path, query string }{
		{"", "", ""},
		{"plain", "plain", "plain"},
		{"a+b", "a+b", "a b"},
		{"a%20b%2Fc", "a b/c", "a b/c"},
		{"%c3%A9+%2b", "é++", "é +"},
		{"100%", "100%", "100%"},
		{"%4", "%4", "%4"},
		{"%zz%41", "%zzA", "%zzA"},
		{"%%41", "%A", "%A"},
	} {
		if got := string(Decode(nil, []byte(tt.raw))); got != tt.path {
			t.Errorf("Decode(%q) = %q, want %q", tt.raw, got, tt.path)
		}
		if got := string(DecodeQuery(nil, []byte(tt.raw))); got != tt.query {
			t.Errorf("DecodeQuery(%q) = %q, want %q", tt.raw, got, tt.query)
		}
	}
}

func TestAppendSegmentMakesOneSegmentOfAnyValue(t *testing.T) {
	for _, tt := range []struct{ value, segment, segments string }{
		{"", "", ""},
		{"a-b_c.d~e", "a-b_c.d~e", "a-b_c.d~e"},
		{"me@example.com", "me@example.com", "me@example.com"},
		{"a/b;c d", "a%2Fb%3Bc%20d", "a/b%3Bc%20d"},
		{"50%", "50%25", "50%25"},
		{"é?#", "%C3%A9%3F%23", "%C3%A9%3F%23"},
		{"\x00\r\n\\", "%00%0D%0A%5C", "%00%0D%0A%5C"},
	} {
		if got := string(AppendSegment(nil, []byte(tt.value))); got != tt.segment {
			t.Errorf("AppendSegment(%q) = %q, want %q", tt.value, got, tt.segment)
		}
		if got := string(AppendSegments(nil, []byte(tt.value))); got != tt.segments {
			t.Errorf("AppendSegments(%q) = %q, want %q", tt.value, got, tt.segments)
		}
	}
}

func TestCutQueryYieldsEveryParameter(t *testing.T) {
	var got []string
	for query := []byte("&a=1&&b&c==x=&=d&"); len(query) > 0; {
		name, value, rest, hasValue, ok := CutQuery(query)
		if ok {
			got = append(got, string(name)+"|"+string(value)+"|"+map[bool]string{true: "=", false: ""}[hasValue])
		}
		query = rest
	}
	if want := []string{"a|1|=", "b||", "c|=x=|=", "|d|="}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestQueryValueFindsTheFirstOfADecodedName(t *testing.T) {
	for _, tt := range []struct {
		query, name, want string
		ok                bool
	}{
		{"a=1&b=2&a=3", "a", "1", true},
		{"a=1&b=2", "c", "", false},
		{"a", "a", "", true},
		{"a=", "a", "", true},
		{"%61=x%20y", "a", "x%20y", true},
		{"a+b=1", "a b", "1", true},
		{"a+b=1", "a+b", "", false},
		{"a%2Bb=1", "a+b", "1", true},
		{"aa=1&a=2", "a", "2", true},
		{"", "a", "", false},
		{"&&", "", "", false},
		{"%4=1", "%4", "1", true},
	} {
		got, ok := QueryValue([]byte(tt.query), tt.name)
		if string(got) != tt.want || ok != tt.ok {
			t.Errorf("%q in %q: got %q, %t, want %q, %t", tt.name, tt.query, got, ok, tt.want, tt.ok)
		}
	}
}

// FuzzQuery compares with net/url on the queries that both understand.
func FuzzQuery(f *testing.F) {
	f.Add("a=1&b=2&a=%20", "a", "x y/é")
	f.Add("%61+%62=1", "a b", "..")
	f.Fuzz(func(t *testing.T, query, name, value string) {
		raw, ok := QueryValue([]byte(query), name)
		if values, err := url.ParseQuery(query); err == nil {
			want, found := values[name]
			if ok != found || ok && string(DecodeQuery(nil, raw)) != want[0] {
				t.Errorf("%q in %q: got %q, %t, want %q", name, query, raw, ok, want)
			}
			for _, v := range want {
				if !queryHas([]byte(query), name, v) {
					t.Errorf("%q in %q: does not have %q", name, query, v)
				}
			}
			if queryHas([]byte(query), name, value) != slices.Contains(want, value) {
				t.Errorf("%q in %q: has %q: %t", name, query, value, slices.Contains(want, value))
			}
		}
		segment := AppendSegment(nil, []byte(value))
		if got := string(Decode(nil, segment)); got != value || strings.ContainsAny(string(segment), "/;?#") {
			t.Errorf("%q encodes to %q and decodes to %q", value, segment, got)
		}
	})
}
