package auth

import (
	"testing"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// asks is a request with a query and header fields, name after value.
func asks(query string, fields ...string) *exchange.Exchange {
	x := &exchange.Exchange{Conn: &exchange.Conn{}}
	x.Request.Query, x.Request.HasQuery = []byte(query), query != ""
	for i := 0; i < len(fields); i += 2 {
		x.Request.Header.Add([]byte(fields[i]), []byte(fields[i+1]))
	}
	return x
}

func TestCredentialsAreFoundInTheirPlaces(t *testing.T) {
	all := []string{"header:X-Own", "header:X-Api-Key", "query:api key", "cookie:sid"}
	for _, c := range []struct {
		name   string
		x      *exchange.Exchange
		want   string
		there  bool
		query  string // behind strip
		cookie string
	}{
		{"nowhere", asks("a=1", "Accept", "*/*"), "", false, "a=1", ""},
		{"a field without a number", asks("", "x-OWN", "k"), "k", true, "", ""},
		{"a known field", asks("", "x-api-key", "k"), "k", true, "", ""},
		{"the first place counts", asks("api+key=q", "X-Api-Key", "k"), "k", true, "", ""},
		{"an empty one is there", asks("", "X-Api-Key", ""), "", true, "", ""},
		{"twice is nobody's", asks("", "X-Api-Key", "k", "X-Api-Key", "k"), ", ", true, "", ""},
		{"a parameter, encoded", asks("a=1&api%20key=%6b%2B+&b=2"), "k+ ", true, "a=1&b=2", ""},
		{"no encoding", asks("api+key=%6"), "%", true, "", ""},
		{"a parameter without a value", asks("api+key"), "", true, "", ""},
		{"a name that is none", asks("api%2key=k&sid=1"), "", false, "api%2key=k&sid=1", ""},
		{"a cookie", asks("", "Cookie", "a=b; sid=k; c=d"), "k", true, "", "a=b; c=d"},
		{"a cookie of two fields", asks("", "Cookie", "a=b", "Cookie", "sid=k"), "k", true, "", "a=b"},
		{"two cookies", asks("", "Cookie", "sid=k;sid=l"), ", ", true, "", ""},
		{"a longer name", asks("", "Cookie", "xsid=k"), "", false, "", "xsid=k"},
	} {
		s, err := parseSources(all)
		if err != nil {
			t.Fatal(err)
		}
		v, _ := s.find(c.x)
		if string(v) != c.want || (v != nil) != c.there {
			t.Errorf("%s: %q, there %v", c.name, v, v != nil)
		}
		s.strip(c.x)
		if v, _ := s.find(c.x); v != nil {
			t.Errorf("%s: %q is still there", c.name, v)
		}
		if got := string(c.x.Request.Query); got != c.query || c.x.Request.HasQuery != (c.query != "") {
			t.Errorf("%s: the query is %q then", c.name, got)
		}
		if got := string(c.x.Request.Header.GetID(exchange.Cookie)); got != c.cookie {
			t.Errorf("%s: the cookies are %q then", c.name, got)
		}
	}
	for _, bad := range []string{"", "header", "header:", "body:x", "cookie:"} {
		if _, err := parseSources([]string{bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestFindingACredentialDoesNotAllocate(t *testing.T) {
	s, _ := parseSources([]string{"header:X-Own", "header:X-Api-Key", "query:key", "cookie:sid"})
	x := asks("a=1&b=2", "Accept", "*/*", "Cookie", "a=b; sid=k; c=d")
	if n := testing.AllocsPerRun(100, func() { s.find(x) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestSchemesOfAuthorization(t *testing.T) {
	for _, c := range []struct {
		value, want string
		ok          bool
	}{
		{"Bearer t", "t", true}, {"bearer  t", "t", true}, {"Bearer ", "", true}, {"Bearer", "", false}, {"Basic t", "", false}, {"Bearert", "", false}, {"", "", false},
	} {
		got := bearer([]byte(c.value), true)
		if string(got) != c.want || (got != nil) != c.ok {
			t.Errorf("%q: %q, %v", c.value, got, got != nil)
		}
	}
	if got := bearer([]byte("t"), false); string(got) != "t" {
		t.Errorf("a token elsewhere: %q", got)
	}
}
