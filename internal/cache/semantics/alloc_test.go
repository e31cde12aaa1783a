//go:build !race

package semantics_test

import (
	"testing"

	"github.com/sluice-gateway/sluice/internal/cache/semantics"
)

const browser = "Host: a.example|User-Agent: Mozilla/5.0 (X11; Linux)|Accept: text/html, application/xml;q=0.9, */*;q=0.8|" +
	"Accept-Language: en-GB, en;q=0.5|Accept-Encoding: gzip, br|Cache-Control: max-age=0, no-store|X-Foo: a , \"b\"|X-Foo: c|" +
	"If-None-Match: \"x\", W/\"y\"|If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT|Range: bytes=0-9|If-Range: \"y\""

// What is done for every request allocates nothing.
func TestNoAllocations(t *testing.T) {
	request := header(browser)
	noCache := header("Pragma: no-cache")
	stored := header("ETag: \"y\"|Last-Modified: " + date(-9) + "|Date: " + date(0))
	v := semantics.ReadValidators(stored)
	c, _ := semantics.ReadConditions(request)
	buf := make([]byte, 0, 1024)
	query := []byte("b=%2f&a=1&%61=2&c&utm=1")
	only := []string{"a", "c"}
	rfc850 := []byte("Sunday, 06-Nov-94 08:49:37 GMT")
	for name, f := range map[string]func(){
		"ReadAsk":        func() { _ = semantics.ReadAsk(request) },
		"ReadAsk pragma": func() { _ = semantics.ReadAsk(noCache) },
		"ReadConditions": func() { _, _ = semantics.ReadConditions(request) },
		"ReadValidators": func() { _ = semantics.ReadValidators(stored) },
		"AppendVariant": func() {
			_ = semantics.AppendVariant(buf, "accept,accept-encoding,accept-language,cookie,x-foo", request)
		},
		"AppendQuery":      func() { _ = semantics.AppendQuery(buf, query, nil) },
		"AppendQuery only": func() { _ = semantics.AppendQuery(buf, query, only) },
		"AppendDate":       func() { _ = semantics.AppendDate(buf, 784111777) },
		"ParseDate":        func() { _, _ = semantics.ParseDate(rfc850) },
		"NotModified":      func() { _ = c.NotModified(&v) },
		"Part":             func() { _, _, _ = c.Part(&v, 100) },
		"Age":              func() { _ = semantics.Age(v.Date, v.LastModified) },
		"Freshens":         func() { _ = semantics.Freshens(&v, stored) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// Judging an ordinary response allocates nothing either; Vary and lists of
// fields are copied.
func TestJudgeAllocatesOnlyWhatItReturns(t *testing.T) {
	a := answer("", "Cache-Control: max-age=60, stale-while-revalidate=9|ETag: \"a\"|Age: 7|Content-Type: a/b")
	r := semantics.Rules{TTL: 60, MaxTTL: 600}
	if n := testing.AllocsPerRun(100, func() { _ = semantics.Judge(&r, a) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkHit(b *testing.B) {
	request := header(browser)
	v := semantics.ReadValidators(header("ETag: \"z\"|Last-Modified: " + date(-9) + "|Date: " + date(0)))
	buf := make([]byte, 0, 1024)
	query := []byte("page=3&sort=name&q=gateway")
	b.Run("ReadAsk", func(b *testing.B) {
		for b.Loop() {
			_ = semantics.ReadAsk(request)
		}
	})
	b.Run("ReadConditions", func(b *testing.B) {
		for b.Loop() {
			_, _ = semantics.ReadConditions(request)
		}
	})
	c, _ := semantics.ReadConditions(request)
	b.Run("NotModified", func(b *testing.B) {
		for b.Loop() {
			_ = c.NotModified(&v)
		}
	})
	b.Run("AppendVariant", func(b *testing.B) {
		for b.Loop() {
			_ = semantics.AppendVariant(buf, "accept-encoding", request)
		}
	})
	b.Run("AppendQuery", func(b *testing.B) {
		for b.Loop() {
			_ = semantics.AppendQuery(buf, query, nil)
		}
	})
}

func BenchmarkJudge(b *testing.B) {
	a := answer("", "Cache-Control: max-age=60, stale-while-revalidate=9|ETag: \"a\"|Age: 7|Content-Type: a/b|Vary: Accept-Encoding")
	r := semantics.Rules{TTL: 60, MaxTTL: 600}
	for b.Loop() {
		_ = semantics.Judge(&r, a)
	}
}
