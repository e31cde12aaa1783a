package semantics_test

import (
	"bytes"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/cache/semantics"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// What is a date here is one for net/http, and the same; two-digit years, the
// case of letters and leap seconds aside, in which they differ.
func FuzzDate(f *testing.F) {
	for _, s := range []string{
		"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
		"Sun, 06 Nov 0000 08:49:37 gmt", "Sunday, 29-Feb-00 08:49:60 GMT", "", "0",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := semantics.ParseDate([]byte(s))
		if !ok {
			if at, err := http.ParseTime(s); err == nil && at.UTC().Format(http.TimeFormat) == s {
				t.Fatalf("%q is a date", s)
			}
			return
		}
		text := strings.Replace(s, ":60 ", ":59 ", 1)
		if n := len(text); strings.EqualFold(text[n-3:], "gmt") {
			text = text[:n-3] + "GMT"
		}
		want, err := http.ParseTime(text)
		if err != nil {
			t.Fatalf("%q is none for net/http: %v", s, err)
		}
		if strings.Contains(s, "-") {
			if year := time.Unix(got, 0).UTC().Year(); year < 1976 || year > 2076 {
				t.Fatalf("%q is of %d", s, year)
			}
			want = want.AddDate(time.Unix(got, 0).UTC().Year()-want.Year(), 0, 0)
		}
		if got != want.Unix() {
			t.Fatalf("%q is %d, for net/http %d", s, got, want.Unix())
		}
	})
}

// Whatever stands in a response's fields, a verdict is within bounds; and no
// further directive that forbids is overlooked.
func FuzzJudge(f *testing.F) {
	for _, s := range []string{
		"max-age=60, private=\"a\"", "s-maxage=\"6\\0\", a=\"b", "no-store", "max-age=1, foo=\"x, no-store", "=,\"", "max-age= 1;b",
	} {
		f.Add(s, "max-age=9;a=b", "5, 6", date(60), "Accept, *")
	}
	f.Fuzz(func(t *testing.T, control, targeted, age, expires, vary string) {
		a := answer("auth", "")
		for name, value := range map[string]string{
			"Cache-Control": control, "Sluice-Cache-Control": targeted, "Age": age, "Expires": expires, "Vary": vary,
		} {
			a.Header.Add([]byte(name), []byte(strings.Trim(value, " \t")))
		}
		a.Ask = semantics.ReadAsk(a.Header)
		v := semantics.Judge(&semantics.Rules{TTL: 60, Heuristic: 10, MaxTTL: 1 << 20}, a)
		if v.Store != (v.Why == "") || v.Lifetime < 0 || v.Lifetime > 1<<20 || v.StaleWhileRevalidate < -1 ||
			v.StaleIfError > semantics.Forever || v.Store && !v.Open {
			t.Fatalf("%+v", v)
		}
		if v.Store && (v.Born > arrived.UnixNano() || semantics.Age(v.Born, arrived.UnixNano()) > semantics.Forever) {
			t.Fatalf("born %d", v.Born)
		}
		for _, d := range v.Drop {
			if d == "" || d != strings.ToLower(d) {
				t.Fatalf("drop %q", d)
			}
		}
		a.Header.DelFunc(func(f *exchange.Field) bool { return bytes.HasPrefix(f.Name, []byte("Sluice-")) })
		a.Header.Add([]byte("Cache-Control"), []byte("max-age=9, no-store"))
		v = semantics.Judge(&semantics.Rules{}, a)
		if v.Store && !strings.Contains(strings.ToLower(control), "must-understand") {
			t.Fatalf("%q hides no-store", control)
		}
	})
}

// A no-store behind anything but an open quote is seen.
func FuzzDirectives(f *testing.F) {
	f.Add("a=b c, \"d\", e=\"f\\\"\"")
	f.Fuzz(func(t *testing.T, s string) {
		a := semantics.ReadAsk(header("Cache-Control: " + strings.NewReplacer("|", "", "\"", "").Replace(s) + ", no-store"))
		if !a.NoStore {
			t.Fatalf("%q hides no-store", s)
		}
		a = semantics.ReadAsk(header("Cache-Control: x=\"" + strings.NewReplacer("|", "", "\"", "", "\\", "").Replace(s) + ", no-store\""))
		if a.NoStore {
			t.Fatalf("no-store inside of quotes counts behind %q", s)
		}
	})
}

// Variants tell the values of two requests apart as far as they differ in more
// than white space and case.
func FuzzVariant(f *testing.F) {
	f.Add("accept-encoding,foo", "gzip, br;q=0.5", "a , b", "gzip", "\"a , b")
	f.Add("accept,cookie", "a/b;c=d;q=0", "x", "*/*", "")
	f.Fuzz(func(t *testing.T, spec, a1, b1, a2, b2 string) {
		_, ok := semantics.VaryOf(header("Vary: " + strings.ReplaceAll(spec, "|", "")))
		if !ok {
			return
		}
		names := strings.Split(spec, ",")
		request := func(a, b string) *exchange.Header {
			h := new(exchange.Header)
			h.Add([]byte(names[0]), []byte(strings.Trim(a, " \t")))
			h.Add([]byte(names[len(names)-1]), []byte(strings.Trim(b, " \t")))
			return h
		}
		one := semantics.AppendVariant([]byte("key"), spec, request(a1, b1))
		if !bytes.Equal(one, semantics.AppendVariant([]byte("key"), spec, request(a1, b1))) || !bytes.HasPrefix(one, []byte("key")) {
			t.Fatal("a request has two variants")
		}
		other := semantics.AppendVariant([]byte("key"), spec, request(a2, b2))
		if strings.HasPrefix(spec, "foo,bar") && bytes.Equal(one, other) {
			squeeze := func(s string) string { return strings.NewReplacer(" ", "", "\t", "").Replace(s) }
			if squeeze(a1) != squeeze(a2) || squeeze(b1) != squeeze(b2) {
				t.Fatalf("%q and %q, %q and %q are one variant", a1, b1, a2, b2)
			}
		}
	})
}

// A part is within the response, whatever is asked for.
func FuzzConditions(f *testing.F) {
	f.Add("bytes=0-9", "\"a\"", "\"a\", W/\"b\"", date(0), int64(100))
	f.Add("bytes=-9223372036854775808", "x", "*", "", int64(0))
	f.Fuzz(func(t *testing.T, ranges, ifRange, tags, since string, size int64) {
		if size < 0 {
			return
		}
		h := new(exchange.Header)
		h.AddID(exchange.Range, []byte(ranges))
		h.AddID(exchange.IfNoneMatch, []byte(tags))
		h.AddID(exchange.IfModifiedSince, []byte(since))
		if ifRange != "" {
			h.Add([]byte("If-Range"), []byte(ifRange))
		}
		c, _ := semantics.ReadConditions(h)
		v := semantics.ReadValidators(header("ETag: \"a\"|Date: " + date(0) + "|Last-Modified: " + date(-9)))
		from, to, p := c.Part(&v, size)
		if p == semantics.Partial && (from < 0 || from >= to || to > size) || p == semantics.Whole && (from != 0 || to != size) {
			t.Fatalf("%q of %d: %d to %d", ranges, size, from, to)
		}
		if c.NotModified(&v) && tags != "*" && !strings.Contains(tags, "\"a\"") {
			t.Fatalf("%q holds \"a\"", tags)
		}
	})
}

// A canonical query is canonical, has the parameters of the first in their
// order within a name, and means the same.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"b=2&a=%2f&a", "%%411&%zz", "a;b&&=&+", "a=%C3%A9&A=%41"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, q string) {
		once := semantics.AppendQuery([]byte("key"), []byte(q), nil)
		if !bytes.HasPrefix(once, []byte("key")) {
			t.Fatal("the key was changed")
		}
		once = once[3:]
		if twice := semantics.AppendQuery(nil, once, nil); !bytes.Equal(once, twice) {
			t.Fatalf("%q, then %q", once, twice)
		}
		if len(once) > len(q) {
			t.Fatalf("%q grew to %q", q, once)
		}
		count := func(s string) (n int) {
			for p := range strings.SplitSeq(s, "&") {
				if p != "" {
					n++
				}
			}
			return n
		}
		if count(q) != count(string(once)) {
			t.Fatalf("%q has other parameters: %q", q, once)
		}
		want, err1 := url.ParseQuery(q)
		got, err2 := url.ParseQuery(string(once))
		if err1 != nil || err2 != nil {
			return
		}
		for name, values := range want {
			if !slices.Equal(values, got[name]) {
				t.Fatalf("%q and %q differ in %q", q, once, name)
			}
		}
		chosen := semantics.AppendQuery(nil, []byte(q), []string{"a"})
		if v, _ := url.ParseQuery(string(chosen)); count(q) <= 256 && !slices.Equal(v["a"], want["a"]) {
			t.Fatalf("%q: a is %q", q, v["a"])
		}
	})
}

func FuzzNames(f *testing.F) {
	f.Add("\"a\";b=1, \"c\"", "a b,c")
	f.Fuzz(func(t *testing.T, groups, tags string) {
		h := new(exchange.Header)
		h.Add([]byte("Cache-Groups"), []byte(groups))
		h.Add([]byte("Surrogate-Key"), []byte(tags))
		if g := semantics.Groups(h, []byte("Cache-Groups")); len(g) > 32 {
			t.Fatal("too many groups")
		}
		for _, s := range semantics.Tags(h, []byte("Surrogate-Key")) {
			if s == "" || len(s) > 256 || strings.ContainsAny(s, " ,\t") {
				t.Fatalf("tag %q", s)
			}
		}
	})
}
