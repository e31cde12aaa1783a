package semantics_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/cache/semantics"
)

func TestCanonicalQuery(t *testing.T) {
	table := []struct{ query, want string }{
		{"", ""},
		{"&", ""},
		{"&&&", ""},
		{"a", "a"},
		{"a=", "a="},
		{"=", "="},
		{"=a", "=a"},
		{"a=1", "a=1"},
		{"a=1&b=2", "a=1&b=2"},
		{"b=2&a=1", "a=1&b=2"},
		{"&b=2&&a=1&", "a=1&b=2"},
		{"c&b&a", "a&b&c"},
		{"a=2&a=1", "a=2&a=1"},
		{"b=1&a=2&b=0&a=1", "a=2&a=1&b=1&b=0"},
		{"a=1&a&a=", "a=1&a&a="},
		{"aa=1&a=2", "a=2&aa=1"},
		{"a-=1&a=2", "a=2&a-=1"},
		{"A=1&a=2", "A=1&a=2"},
		{"a=1=2", "a=1=2"},
		{"a=1;b=2", "a=1;b=2"},
		{"b=1;a=2&a=1", "a=1&b=1;a=2"},
		{"a?b=1", "a?b=1"},
		// Percent-encodings.
		{"a=%2f", "a=%2F"},
		{"a=%2F", "a=%2F"},
		{"a=/", "a=/"},
		{"a=%41%7e%2D%5f%2e%30", "a=A~-_.0"},
		{"%61=1", "a=1"},
		{"b=1&%61=2", "a=2&b=1"},
		{"a=%26&b=%3D", "a=%26&b=%3D"},
		{"a%3d=1", "a%3D=1"},
		{"a=%20", "a=%20"},
		{"a=+", "a=+"},
		{"a=%2b", "a=%2B"},
		{"a=%C3%a9", "a=%C3%A9"},
		{"a=\xc3\xa9", "a=\xc3\xa9"},
		{"a=%2541", "a=%2541"},
		{"a=%25%34%31", "a=%2541"},
		{"a=%00", "a=%00"},
		// A parameter with a "%" too much is not touched.
		{"a=%", "a=%"},
		{"a=%4", "a=%4"},
		{"a=%zz", "a=%zz"},
		{"a=%%411", "a=%%411"},
		{"a=%2f%", "a=%2f%"},
		{"a=%2f%&b=%2f", "a=%2f%&b=%2F"},
		{"b=%2f&a=%4", "a=%4&b=%2F"},
	}
	each(t, table, func(t *testing.T, row struct{ query, want string }) {
		got := string(semantics.AppendQuery([]byte("key&"), []byte(row.query), nil))
		if got != "key&"+row.want {
			t.Errorf("%q: %q, want %q", row.query, got, row.want)
		}
	})
}

func TestCanonicalQueryOfChosenParameters(t *testing.T) {
	table := []struct {
		only        []string
		query, want string
	}{
		{[]string{}, "a=1&b=2", ""},
		{[]string{"page"}, "", ""},
		{[]string{"page"}, "page=1", "page=1"},
		{[]string{"page"}, "a=1&page=2&b=3", "page=2"},
		{[]string{"page"}, "a=1&b=3", ""},
		{[]string{"page"}, "page", "page"},
		{[]string{"page"}, "page=2&page=1", "page=2&page=1"},
		{[]string{"page", "a"}, "page=2&a=1&b=0", "a=1&page=2"},
		{[]string{"page"}, "p%61ge=1", "page=1"},
		{[]string{"page"}, "pages=1&pag=2&xpage=3&pagex", ""},
		{[]string{"a b"}, "a+b=1&a%20b=2&a=3", "a%20b=2&a+b=1"},
		{[]string{"a.b"}, "a.b=1", "a.b=1"},
		{[]string{"a=b"}, "a%3db=1&a=b", "a%3Db=1"},
		{[]string{"é"}, "%c3%a9=1&e=2", "%C3%A9=1"},
		// What some upstream might read as one of them is part of the key.
		{[]string{"page"}, "Page=1", "Page=1"},
		{[]string{"PAGE"}, "page=1", "page=1"},
		{[]string{"page"}, "page[]=1", "page[]=1"},
		{[]string{"page"}, "page%5B%5d=1", "page%5B%5D=1"},
		{[]string{"page[]"}, "page[]=1", "page[]=1"},
		{[]string{"page"}, "page%00x=1", "page%00x=1"},
		{[]string{"page"}, "%20page=1", "%20page=1"},
		{[]string{"page"}, "++page=1", "++page=1"},
		{[]string{"page"}, "page%20=1", ""},
		{[]string{"a_b"}, "a.b=1&a+b=2&a%2eb=3&a%5fb=4&ab=5", "a+b=2&a.b=1&a.b=3&a_b=4"},
		{[]string{"page"}, "x=1;page=2", "x=1;page=2"},
		{[]string{"page"}, "x;y", "x;y"},
		{[]string{"page"}, "pa%ge=1", "pa%ge=1"},
		{[]string{"page"}, "x=%zz", ""},
	}
	each(t, table, func(t *testing.T, row struct {
		only        []string
		query, want string
	},
	) {
		got := string(semantics.AppendQuery(nil, []byte(row.query), row.only))
		if got != row.want {
			t.Errorf("%q of %q: %q, want %q", row.only, row.query, got, row.want)
		}
	})
}

func TestQueryOfManyParameters(t *testing.T) {
	list := make([]string, 257)
	for i := range list {
		list[i] = fmt.Sprintf("p%03d=%%2f", 999-i)
	}
	all := strings.Join(list, "&")
	if got := string(semantics.AppendQuery([]byte("k"), []byte(all), nil)); got != "k"+all {
		t.Error("more than 256 parameters are not as received")
	}
	if got := string(semantics.AppendQuery(nil, []byte(all), []string{"p999"})); got != all {
		t.Error("more than 256 parameters are not as received when some are chosen")
	}
	got := string(semantics.AppendQuery(nil, []byte(strings.Join(list[1:], "&&")), nil))
	if !strings.HasPrefix(got, "p743=%2F&p744=") || !strings.HasSuffix(got, "&p998=%2F") || len(got) != len(all)-9 {
		t.Errorf("256 parameters: %q", got)
	}
}
