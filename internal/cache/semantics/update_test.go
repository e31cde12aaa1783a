package semantics_test

import (
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/cache/semantics"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// RFC 9111 §3.1.
func TestKeptFields(t *testing.T) {
	table := []struct {
		names string
		want  bool
	}{
		{"Connection Keep-Alive Proxy-Connection TE Trailer Transfer-Encoding Upgrade HTTP2-Settings", false},
		{"Proxy-Authenticate Proxy-Authorization Proxy-Authentication-Info", false},
		{"Content-Length Age Set-Cookie Set-Cookie2 X-Request-Id traceparent tracestate", false},
		{"RateLimit RateLimit-Policy RateLimit-Limit RateLimit-Remaining RateLimit-Reset ratelimit", false},
		{"Access-Control-Allow-Origin Access-Control-Allow-Credentials access-control-expose-headers", false},
		{"SET-COOKIE age proxy-authentication-INFO x-dropped X-Dropped", false},
		{"Cache-Control Sluice-Cache-Control CDN-Cache-Control Expires Pragma Date ETag Last-Modified Vary", true},
		{"Content-Type Content-Encoding Content-Language Content-Location Content-Range Content-MD5 Content-Foo", true},
		{"Content-Security-Policy Clear-Site-Data Public-Key-Pins X-Frame-Options X-XSS-Protection X-Foo", true},
		{"Retry-After Cache-Status Location Link Server Via Warning Alt-Svc WWW-Authenticate Cache-Groups", true},
		{"Access-Controlled X-RateLimit-Limit Rate Set-Cookies Surrogate-Key Allow Cookie Authorization", true},
	}
	for _, row := range table {
		for name := range strings.FieldsSeq(row.names) {
			f := exchange.Field{Name: []byte(name), ID: exchange.Lookup([]byte(name))}
			if got := semantics.Kept(&f, []string{"x-dropped"}); got != row.want {
				t.Errorf("%s: %v", name, got)
			}
			f.Hop = true
			if semantics.Kept(&f, nil) {
				t.Errorf("%s is kept, though it is hop-by-hop", name)
			}
		}
	}
}

// RFC 9111 §3.2.
func TestUpdate(t *testing.T) {
	table := []struct{ stored, update, want string }{
		{"A: 1|B: 2", "", "A: 1|B: 2"},
		{"", "A: 1", "A: 1"},
		{"A: 1|B: 2", "A: 3", "B: 2|A: 3"},
		{"A: 1|B: 2", "a: 3", "B: 2|a: 3"},
		{"A: 1|B: 2|A: 3", "A: 4", "B: 2|A: 4"},
		{"A: 1|B: 2", "A: 3|C: 5|A: 4", "B: 2|A: 3|C: 5|A: 4"},
		{"ETag: \"a\"|Date: 1|Cache-Control: max-age=1", "ETag: \"b\"|Date: 2|Cache-Control: max-age=2", "ETag: \"b\"|Date: 2|Cache-Control: max-age=2"},
		{"Expires: 1", "Expires: 2", "Expires: 2"},
		{"Content-Type: a/b", "Content-Type: c/d", "Content-Type: c/d"},
		{"Content-Location: /a", "Content-Location: /b", "Content-Location: /b"},
		{"Content-Encoding: gzip", "Content-Encoding: br", "Content-Encoding: gzip"},
		{"A: 1", "Content-Encoding: br", "A: 1"},
		{"A: 1", "Content-Range: bytes 0-1/2", "A: 1"},
		{"A: 1", "Content-Length: 0", "A: 1"},
		{"A: 1", "Age: 9|Connection: close|Keep-Alive: x|Set-Cookie: a=b|TE: x|Transfer-Encoding: chunked", "A: 1"},
		{"A: 1", "Proxy-Authenticate: x|Proxy-Authentication-Info: x|X-Request-Id: x|Access-Control-Allow-Origin: *", "A: 1"},
		{"A: 1|X-Dropped: 2", "B: 3", "A: 1|B: 3"},
		{"A: 1", "X-Dropped: 2", "A: 1"},
	}
	each(t, table, func(t *testing.T, row struct{ stored, update, want string }) {
		from := header(row.stored)
		stored := make([]exchange.Field, 0, from.Len())
		for i := range from.Len() {
			stored = append(stored, *from.At(i))
		}
		got := semantics.Update(stored, header(row.update), []string{"x-dropped"})
		var lines []string
		for _, f := range got {
			lines = append(lines, string(f.Name)+": "+string(f.Value))
		}
		if s := strings.Join(lines, "|"); s != row.want {
			t.Errorf("%q with %q: %q, want %q", row.stored, row.update, s, row.want)
		}
		for i := range from.Len() {
			if string(stored[i].Value) != string(from.At(i).Value) {
				t.Errorf("%q: the stored fields were changed", row.stored)
			}
		}
	})
	// A field that Connection named is not taken.
	h := header("A: 2")
	h.At(0).Hop = true
	one := header("A: 1")
	if got := semantics.Update([]exchange.Field{*one.At(0)}, h, nil); len(got) != 1 || string(got[0].Value) != "1" {
		t.Errorf("a hop-by-hop field was taken: %v", got)
	}
}

// RFC 9111 §4.3.4.
func TestFreshens(t *testing.T) {
	table := []struct {
		stored, update string
		want           bool
	}{
		{"ETag: \"a\"", "ETag: \"a\"", true},
		{"ETag: \"a\"", "ETag: \"b\"", false},
		{"ETag: W/\"a\"", "ETag: \"a\"", false},
		{"ETag: \"a\"", "ETag: W/\"a\"", true},
		{"ETag: W/\"a\"", "ETag: W/\"a\"", true},
		{"ETag: W/\"a\"", "ETag: W/\"b\"", false},
		{"ETag: \"a\"", "", true},
		{"Last-Modified: " + date(0), "", true},
		{"Last-Modified: " + date(0), "Last-Modified: " + date(0), true},
		{"Last-Modified: " + date(0), "Last-Modified: " + date(1), false},
		{"Last-Modified: " + date(0), "ETag: \"a\"", false},
		{"Last-Modified: " + date(0), "ETag: \"a\"|Last-Modified: " + date(0), true},
		{"ETag: \"a\"|Last-Modified: " + date(0), "ETag: \"a\"|Last-Modified: " + date(1), true},
		{"ETag: \"a\"|Last-Modified: " + date(0), "Last-Modified: " + date(1), false},
		{"ETag: \"a\"", "Last-Modified: " + date(1), true},
		{"", "", true},
		{"", "ETag: \"a\"", false},
	}
	each(t, table, func(t *testing.T, row struct {
		stored, update string
		want           bool
	},
	) {
		v := semantics.ReadValidators(header(row.stored))
		if got := semantics.Freshens(&v, header(row.update)); got != row.want {
			t.Errorf("stored %q, 304 with %q: %v", row.stored, row.update, got)
		}
	})
}

// RFC 9111 §4.3.5.
func TestAgrees(t *testing.T) {
	table := []struct {
		stored, head string
		want         bool
	}{
		{"", "", true},
		{"ETag: \"a\"", "", true},
		{"ETag: \"a\"", "ETag: \"a\"", true},
		{"ETag: \"a\"", "ETag: \"b\"", false},
		{"ETag: \"a\"", "ETag: W/\"a\"", false},
		{"", "ETag: \"a\"", false},
		{"Last-Modified: " + date(0), "Last-Modified: " + date(0), true},
		{"Last-Modified: " + date(0), "Last-Modified: " + date(1), false},
		{"Last-Modified: " + date(0), "Last-Modified: x", true},
		{"", "Last-Modified: " + date(1), false},
		{"", "Content-Length: 100", true},
		{"", "Content-Length: 99", false},
		{"", "Content-Length: x", false},
		{"ETag: \"a\"", "ETag: \"a\"|Content-Length: 99", false},
	}
	each(t, table, func(t *testing.T, row struct {
		stored, head string
		want         bool
	},
	) {
		v := semantics.ReadValidators(header(row.stored))
		if got := semantics.Agrees(&v, 100, header(row.head)); got != row.want {
			t.Errorf("stored %q, HEAD with %q: %v", row.stored, row.head, got)
		}
	})
}

// RFC 9110 §9.2.1.
func TestUnsafeMethods(t *testing.T) {
	for _, m := range strings.Fields("GET HEAD OPTIONS TRACE QUERY PROPFIND REPORT SEARCH PRI") {
		if semantics.Unsafe(m) {
			t.Errorf("%s is unsafe", m)
		}
	}
	for _, m := range strings.Fields("POST PUT DELETE PATCH CONNECT MKCOL PROPPATCH LOCK ACL get Query FOO M-SEARCH") {
		if !semantics.Unsafe(m) {
			t.Errorf("%s is safe", m)
		}
	}
}
