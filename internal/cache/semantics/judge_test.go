package semantics_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/cache/semantics"
)

// describe is a verdict in one line: its lifetime and what is not as usual.
func describe(v semantics.Verdict) string {
	if !v.Store {
		return "no: " + v.Why
	}
	out := []string{fmt.Sprint(v.Lifetime)}
	for _, flag := range []struct {
		set  bool
		word string
	}{
		{!v.Explicit, "unsaid"},
		{v.NoCache, "no-cache"},
		{v.MustRevalidate, "must"},
		{v.Open, "open"},
		{v.StaleWhileRevalidate != 0, fmt.Sprint("swr=", v.StaleWhileRevalidate)},
		{v.StaleIfError != 0, fmt.Sprint("sie=", v.StaleIfError)},
		{v.Drop != nil, "drop=" + strings.Join(v.Drop, ",")},
	} {
		if flag.set {
			out = append(out, flag.word)
		}
	}
	return strings.Join(out, " ")
}

type judged struct{ request, response, want string }

func judge(t *testing.T, r semantics.Rules, table []judged) {
	t.Helper()
	each(t, table, func(t *testing.T, row judged) {
		v := semantics.Judge(&r, answer(row.request, row.response))
		if got := describe(v); got != row.want {
			t.Errorf("%q, %q:\n got %s\nwant %s", row.request, row.response, got, row.want)
		}
	})
}

// RFC 9111 §3: which responses may be stored.
func TestStorability(t *testing.T) {
	const (
		method     = "no: the method is not cached"
		status     = "no: the status is not stored"
		noStore    = "no: the response has no-store"
		private    = "no: the response is private"
		part       = "no: the response is a part"
		vary       = "no: Vary has *, or cannot be read"
		auth       = "no: the request has Authorization"
		cookie     = "no: the request has Cookie"
		setCookie  = "no: the response has Set-Cookie"
		unsaid     = "no: nothing says how long it is fresh"
		unmeant    = "no: the status is not understood, and must-understand is there"
		unverified = "no: each use needs validation, and there is no validator"
		stale      = "no: it is stale, and there is no validator"
	)
	judge(t, semantics.Rules{}, []judged{
		// Methods.
		{"GET", "Cache-Control: max-age=60", "60"},
		{"QUERY", "Cache-Control: max-age=60", "60"},
		{"HEAD", "Cache-Control: max-age=60", method},
		{"POST", "Cache-Control: max-age=60", method},
		{"POST", "Cache-Control: max-age=60|Content-Location: /", method},
		{"PUT", "Cache-Control: max-age=60", method},
		{"OPTIONS", "Cache-Control: max-age=60", method},
		{"get", "Cache-Control: max-age=60", method},
		{"PROPFIND", "Cache-Control: max-age=60", method},
		// Statuses.
		{"=100", "Cache-Control: max-age=60", status},
		{"=101", "Cache-Control: max-age=60", status},
		{"=103", "Cache-Control: max-age=60", status},
		{"=200", "Cache-Control: max-age=60", "60"},
		{"=201", "Cache-Control: max-age=60", "60"},
		{"=203", "Cache-Control: max-age=60", "60"},
		{"=204", "Cache-Control: max-age=60", "60"},
		{"=206", "Cache-Control: max-age=60", status},
		{"=299", "Cache-Control: max-age=60", "60"},
		{"=301", "Cache-Control: max-age=60", "60"},
		{"=302", "Cache-Control: max-age=60", "60"},
		{"=303", "Cache-Control: max-age=60", "60"},
		{"=304", "Cache-Control: max-age=60", status},
		{"=307", "Cache-Control: max-age=60", "60"},
		{"=308", "Cache-Control: max-age=60", "60"},
		{"=400", "Cache-Control: max-age=60", "60"},
		{"=401", "Cache-Control: max-age=60", "60"},
		{"=403", "Cache-Control: max-age=60", "60"},
		{"=404", "Cache-Control: max-age=60", "60"},
		{"=410", "Cache-Control: max-age=60", "60"},
		{"=412", "Cache-Control: max-age=60", status},
		{"=416", "Cache-Control: max-age=60|Content-Range: bytes */9", status},
		{"=417", "Cache-Control: max-age=60", status},
		{"=428", "Cache-Control: max-age=60", status},
		{"=429", "Cache-Control: max-age=60", status},
		{"=431", "Cache-Control: max-age=60", status},
		{"=499", "Cache-Control: max-age=60", "60"},
		{"=500", "Cache-Control: max-age=60", "60"},
		{"=502", "Cache-Control: max-age=60", "60"},
		{"=503", "Cache-Control: max-age=60", "60"},
		{"=504", "Cache-Control: max-age=60", "60"},
		{"=511", "Cache-Control: max-age=60", status},
		{"=599", "Cache-Control: max-age=60", "60"},
		{"=600", "Cache-Control: max-age=60", status},
		{"=999", "Cache-Control: max-age=60", status},
		{"", "Cache-Control: max-age=60|Content-Range: bytes 0-1/2", part},
		{"", "Cache-Control: max-age=60|content-range: bytes 0-1/2", part},
		// no-store, in the response and the request (§5.2.2.5, §5.2.1.5).
		{"", "Cache-Control: no-store", noStore},
		{"", "Cache-Control: No-Store", noStore},
		{"", "Cache-Control: NO-STORE, max-age=60", noStore},
		{"", "Cache-Control: max-age=60|Cache-Control: no-store", noStore},
		{"", "Cache-Control: max-age=60, no-store", noStore},
		{"", "Cache-Control: no-store=1, max-age=60", noStore},
		{"", "Cache-Control: no-store=\"\", max-age=60", noStore},
		{"", "Cache-Control: no-store foo, max-age=60", noStore},
		{"", "Cache-Control: no-store ,max-age=60", noStore},
		{"", "Cache-Control: ,, no-store", noStore},
		{"", "Cache-Control: public, no-store, max-age=60", noStore},
		{"", "Cache-Control: a=\"no-store\", max-age=60", "60"},
		{"", "Cache-Control: a=\"x, no-store\", max-age=60", "60"},
		{"", "Cache-Control: a=\"x\\\", no-store\", max-age=60", "60"},
		{"", "Cache-Control: a=\"x, no-store, max-age=60", noStore},
		{"", "Cache-Control: no-storage, max-age=60", "60"},
		{"", "Cache-Control: x-no-store, max-age=60", "60"},
		{"no-store", "Cache-Control: max-age=60", "no: the request has no-store"},
		{"no-store auth", "Cache-Control: max-age=60, public", "no: the request has no-store"},
		// must-understand (§5.2.2.3).
		{"", "Cache-Control: must-understand, no-store, max-age=60", "60"},
		{"", "Cache-Control: no-store, must-understand, max-age=60", "60"},
		{"", "Cache-Control: must-understand, max-age=60", "60"},
		{"=404", "Cache-Control: must-understand, no-store, max-age=60", "60"},
		{"=505", "Cache-Control: must-understand, no-store, max-age=60", "60"},
		{"=226", "Cache-Control: must-understand, no-store, max-age=60", unmeant},
		{"=226", "Cache-Control: must-understand, max-age=60", unmeant},
		{"=299", "Cache-Control: must-understand, max-age=60", unmeant},
		{"=306", "Cache-Control: must-understand, max-age=60", unmeant},
		{"=418", "Cache-Control: must-understand, max-age=60", unmeant},
		{"=599", "Cache-Control: must-understand, no-store, max-age=60", unmeant},
		{"", "Cache-Control: must-understand=1, no-store, max-age=60", noStore},
		{"=299", "Cache-Control: must-understand=1, max-age=60", unmeant},
		{"", "Cache-Control: must-understand, no-store", unsaid},
		{"", "Cache-Control: must-understand, private, max-age=60", private},
		{"no-store", "Cache-Control: must-understand, no-store, max-age=60", "no: the request has no-store"},
		// private (§5.2.2.7).
		{"", "Cache-Control: private", private},
		{"", "Cache-Control: private, max-age=60", private},
		{"", "Cache-Control: Private, max-age=60", private},
		{"", "Cache-Control: private, s-maxage=60", private},
		{"", "Cache-Control: private, public, max-age=60", private},
		{"", "Cache-Control: private=\"\", max-age=60", private},
		{"", "Cache-Control: private=\" , \", max-age=60", private},
		{"", "Cache-Control: private=\"a b\", max-age=60", private},
		{"", "Cache-Control: private=\"a, (b)\", max-age=60", private},
		{"", "Cache-Control: private=, max-age=60", private},
		{"", "Cache-Control: private!, max-age=60", "60"}, // a token of its own
		{"", "Cache-Control: private x, max-age=60", private},
		{"", "Cache-Control: private=\"X-A\", max-age=60", "60 drop=x-a"},
		{"", "Cache-Control: private=X-A, max-age=60", "60 drop=x-a"},
		{"", "Cache-Control: private=\"X-A, x-b ,,X-C\", max-age=60", "60 drop=x-a,x-b,x-c"},
		{"", "Cache-Control: private=\"X-A\", private, max-age=60", private},
		{"", "Cache-Control: private, private=\"X-A\", max-age=60", private},
		{"", "Cache-Control: private=\"X-A\", no-cache=\"X-B\", max-age=60", "60 drop=x-a,x-b"},
		// no-cache (§5.2.2.4).
		{"", "Cache-Control: no-cache", unverified},
		{"", "Cache-Control: no-cache, max-age=60", unverified},
		{"", "Cache-Control: no-cache|ETag: \"a\"", "0 unsaid no-cache swr=-1 sie=-1"},
		{"", "Cache-Control: no-cache, max-age=60|ETag: \"a\"", "60 no-cache swr=-1 sie=-1"},
		{"", "Cache-Control: No-Cache, max-age=60|ETag: W/\"a\"", "60 no-cache swr=-1 sie=-1"},
		{"", "Cache-Control: no-cache, max-age=60|Last-Modified: " + date(-99), "60 no-cache swr=-1 sie=-1"},
		{"", "Cache-Control: no-cache, max-age=60|Last-Modified: 0", unverified},
		{"", "Cache-Control: no-cache=\"X-A\", max-age=60", "60 drop=x-a"},
		{"", "Cache-Control: no-cache=\"\", max-age=60|ETag: \"a\"", "60 no-cache swr=-1 sie=-1"},
		{"", "Cache-Control: no-cache=\"a b\", max-age=60|ETag: \"a\"", "60 no-cache swr=-1 sie=-1"},
		{"", "Cache-Control: no-cache=\"X-A\", no-cache, max-age=60|ETag: \"a\"", "60 no-cache swr=-1 sie=-1 drop=x-a"},
		{"", "Cache-Control: no-cache|ETag: \"a\"|Cache-Control: private=\"etag\"", unverified},
		{"", "Pragma: no-cache|Cache-Control: max-age=60", "60"},
		{"", "Pragma: no-cache|Expires: " + date(60), "60"},
		// Vary (§4.1).
		{"", "Cache-Control: max-age=60|Vary: *", vary},
		{"", "Cache-Control: max-age=60|Vary: Accept, *", vary},
		{"", "Cache-Control: max-age=60|Vary: Accept|Vary: *", vary},
		{"", "Cache-Control: max-age=60|Vary: a b", vary},
		{"", "Cache-Control: max-age=60|Vary: Accept", "60"},
		{"", "Cache-Control: max-age=60|Vary:", "60"},
		// Authorization (§3.5).
		{"auth", "Cache-Control: max-age=60", auth},
		{"auth", "Expires: " + date(60), auth},
		{"auth", "Cache-Control: max-age=60, public", "60 open"},
		{"auth", "Cache-Control: s-maxage=60", "60 must open swr=-1 sie=-1"},
		{"auth", "Cache-Control: s-maxage=0|ETag: \"a\"", "0 must open swr=-1 sie=-1"},
		{"auth", "Cache-Control: max-age=60, must-revalidate", "60 must open swr=-1 sie=-1"},
		{"auth", "Cache-Control: max-age=60, proxy-revalidate", auth},
		{"auth", "Cache-Control: max-age=60, no-cache|ETag: \"a\"", auth},
		{"auth", "Cache-Control: max-age=60, public=1", auth},
		{"auth", "Cache-Control: max-age=60, public x", auth},
		{"auth", "Cache-Control: max-age=60, s-maxage=x", auth},
		{"auth", "Cache-Control: max-age=60, s-maxage", auth},
		{"auth", "Cache-Control: max-age=60, s-maxage=9, s-maxage=x", auth},
		{"auth", "Cache-Control: max-age=60, immutable", auth},
		{"auth", "Cache-Control: max-age=60, public, a=\"", auth},
		{"auth", "Cache-Control: max-age=60|Vary: Authorization", auth},
		// Cookie of a request, which counts as Authorization does.
		{"cookie", "Cache-Control: max-age=60", cookie},
		{"cookie", "Cache-Control: max-age=60, must-revalidate", cookie},
		{"cookie", "Cache-Control: max-age=60, public", "60 open"},
		{"cookie", "Cache-Control: s-maxage=60", "60 must open swr=-1 sie=-1"},
		{"cookie", "Cache-Control: max-age=60|Vary: Accept, Cookie", "60"},
		{"cookie", "Cache-Control: max-age=60|Vary: X-Cookie", cookie},
		{"cookie auth", "Cache-Control: max-age=60, must-revalidate", cookie},
		{"cookie auth", "Cache-Control: max-age=60, must-revalidate|Vary: cookie", "60 must open swr=-1 sie=-1"},
		{"", "Cache-Control: max-age=60, must-revalidate", "60 must swr=-1 sie=-1"},
		// Set-Cookie.
		{"", "Cache-Control: max-age=60|Set-Cookie: a=b", setCookie},
		{"", "Cache-Control: no-cache|ETag: \"a\"|Set-Cookie: a=b", setCookie},
		{"", "Cache-Control: max-age=60, public|Set-Cookie: a=b", "60 open"},
		{"", "Cache-Control: s-maxage=60|Set-Cookie: a=b", "60 must open swr=-1 sie=-1"},
		{"", "Cache-Control: max-age=60, private=\"Set-Cookie\"|Set-Cookie: a=b", "60 drop=set-cookie"},
		{"", "Cache-Control: max-age=60, no-cache=\"set-cookie\"|Set-Cookie: a=b", "60 drop=set-cookie"},
		{"", "Cache-Control: max-age=60, no-cache=\"set-cookie2\"|Set-Cookie: a=b", setCookie},
		{"", "Sluice-Cache-Control: max-age=60|Set-Cookie: a=b", "60"},
		// What would be of no use.
		{"", "", unsaid},
		{"", "ETag: \"a\"", unsaid},
		{"", "Last-Modified: " + date(-99), unsaid},
		{"", "Cache-Control: must-revalidate|ETag: \"a\"", unsaid},
		{"", "Cache-Control: public", "no: nothing says how long it is fresh, and there is no validator"},
		{"", "Cache-Control: public|ETag: \"a\"", "0 unsaid open"},
		{"", "Cache-Control: max-age=0", stale},
		{"", "Cache-Control: max-age=0|ETag: \"a\"", "0"},
		{"", "Cache-Control: max-age=0|Last-Modified: " + date(-99), "0"},
		{"", "Cache-Control: max-age=0, stale-while-revalidate=9", "0 swr=9"},
		{"", "Cache-Control: max-age=0, stale-if-error=9", "0 sie=9"},
		{"", "Cache-Control: max-age=60|Age: 99", "60"},
		{"", "Cache-Control: max-age=60, must-revalidate|Age: 99", stale},
		{"", "Cache-Control: s-maxage=60|Age: 99|ETag: \"a\"", "60 must open swr=-1 sie=-1"},
		{"", "Expires: 0", stale},
		{"", "Expires: 0|ETag: \"a\"", "0"},
	})
}

// RFC 9111 §5.2, §4.2.1: how directives are read.
func TestDirectives(t *testing.T) {
	// Each has a validator, so that what is stale is stored.
	table := []struct{ directives, want string }{
		{"max-age=60", "60"},
		{"MAX-AGE=60", "60"},
		{"Max-Age=60", "60"},
		{"max-age=\"60\"", "60"},
		{"max-age=\"6\\0\"", "60"},
		{"max-age=\"\"", "0"},
		{"max-age=\" 60\"", "0"},
		{"max-age=\"60 \"", "0"},
		{"max-age='60'", "0"},
		{"max-age=060", "60"},
		{"max-age=00000000000000000060", "60"},
		{"max-age=0", "0"},
		{"max-age=-60", "0"},
		{"max-age=+60", "0"},
		{"max-age=60.0", "0"},
		{"max-age=60.5", "0"},
		{"max-age=6e1", "0"},
		{"max-age=0x60", "0"},
		{"max-age=a60", "0"},
		{"max-age=60a", "0"},
		{"max-age=60s", "0"},
		{"max-age=60;foo=bar", "0"},
		{"max-age=60 foo", "0"},
		{"max-age= 60", "0"},
		{"max-age =60", "0"},
		{"max-age = 60", "0"},
		{"max-age=", "0"},
		{"max-age", "0"},
		{"max-age, public", "0 open"},
		{"max-age:60", "0"},
		{"max-age==60", "0"},
		{"max-age=60=60", "0"},
		{"max-age=\"60\"0", "0"},
		{"max-age=\"60", "0 swr=-1 sie=-1"},
		{"max-age=60\"", "0 swr=-1 sie=-1"},
		{"max-age=60,", "60"},
		{",max-age=60", "60"},
		{" , ,\t, max-age=60 , ,", "60"},
		{"max-age=60 ", "60"},
		{"max-age=2147483647", "2147483647"},
		{"max-age=2147483648", "2147483648"},
		{"max-age=2147483649", "2147483648"},
		{"max-age=99999999999999999999999999", "2147483648"},
		{"max-age=\"99999999999999999999999999\"", "2147483648"},
		// Several.
		{"max-age=60, max-age=60", "60"},
		{"max-age=60, max-age=9", "9"},
		{"max-age=9, max-age=60", "9"},
		{"max-age=60, max-age=0", "0"},
		{"max-age=0, max-age=60", "0"},
		{"max-age=60, max-age=a", "0"},
		{"max-age=a, max-age=60", "0"},
		{"max-age=60, MAX-AGE=9", "9"},
		{"max-age=60|max-age=9", "9"},
		{"max-age=9|max-age=60", "9"},
		{"max-age=60|public", "60 open"},
		{"|max-age=60", "60"},
		{"max-age=60|no-cache", "60 no-cache swr=-1 sie=-1"},
		// Others around.
		{"foo, max-age=60", "60"},
		{"foo=bar, max-age=60", "60"},
		{"foo=\"bar\", max-age=60", "60"},
		{"foo=\"max-age=9\", max-age=60", "60"},
		{"max-age=60, foo=\"max-age=9\"", "60"},
		{"foo=\"a, max-age=9, b\", max-age=60", "60"},
		{"max-age=60, foo=\"a\\\"b, max-age=9\"", "60"},
		{"max-age=60, foo=\"a\\\\\", max-age=9", "9"},
		{"max-age=60, foo=\"bar", "0 swr=-1 sie=-1"},
		{"foo=\"bar, max-age=60", "0 swr=-1 sie=-1"},
		{"foo=\"bar|max-age=60", "0 swr=-1 sie=-1"},
		{"foo=bar\"baz, max-age=60", "0 swr=-1 sie=-1"},
		{"foo bar, max-age=60", "60"},
		{"@, max-age=60", "60"},
		{"=, max-age=60", "60"},
		{"=60, max-age=60", "60"},
		{"\"max-age=9\", max-age=60", "60"},
		{"(a, b), max-age=60", "60"},
		{"max-age=60, immutable", "60"},
		{"max-age=60, immutable=1", "60"},
		{"max-age=60, no-transform", "60"},
		{"xmax-age=9, max-age=60", "60"},
		{"max-agex=9, max-age=60", "60"},
		{"max_age=9, max-age=60", "60"},
		{"\xffmax-age=9, max-age=60", "60"},
		// s-maxage before max-age before Expires (§4.2.1).
		{"s-maxage=60", "60 must open swr=-1 sie=-1"},
		{"s-maxage=60, max-age=9", "60 must open swr=-1 sie=-1"},
		{"max-age=9, s-maxage=60", "60 must open swr=-1 sie=-1"},
		{"max-age=60, s-maxage=0", "0 must open swr=-1 sie=-1"},
		{"max-age=60, s-maxage=a", "0 must swr=-1 sie=-1"},
		{"max-age=60, s-maxage", "0 must swr=-1 sie=-1"},
		{"max-age=a, s-maxage=60", "60 must open swr=-1 sie=-1"},
		{"S-MaxAge=60", "60 must open swr=-1 sie=-1"},
		{"s-maxage=\"60\"", "60 must open swr=-1 sie=-1"},
		{"s-max-age=60, max-age=9", "9"},
		{"s-maxage=60, s-maxage=9", "9 must open swr=-1 sie=-1"},
		// Revalidation (§5.2.2.2, §5.2.2.8).
		{"max-age=60, must-revalidate", "60 must swr=-1 sie=-1"},
		{"max-age=60, proxy-revalidate", "60 must swr=-1 sie=-1"},
		{"max-age=60, must-revalidate=1", "60 must swr=-1 sie=-1"},
		{"max-age=60, must-revalidate foo", "60 must swr=-1 sie=-1"},
		{"max-age=60, a=\"must-revalidate\"", "60"},
		// RFC 5861.
		{"max-age=60, stale-while-revalidate=9", "60 swr=9"},
		{"max-age=60, stale-while-revalidate=\"9\"", "60 swr=9"},
		{"max-age=60, stale-while-revalidate", "60"},
		{"max-age=60, stale-while-revalidate=a", "60"},
		{"max-age=60, stale-while-revalidate=-9", "60"},
		{"max-age=60, stale-while-revalidate=9, stale-while-revalidate=8", "60 swr=8"},
		{"max-age=60, stale-if-error=9", "60 sie=9"},
		{"max-age=60, Stale-If-Error=9, stale-while-revalidate=8", "60 swr=8 sie=9"},
		{"max-age=60, stale-if-error=9, must-revalidate", "60 must swr=-1 sie=-1"},
		{"max-age=60, stale-if-error=9, proxy-revalidate", "60 must swr=-1 sie=-1"},
		{"max-age=60, stale-if-error=9, no-cache", "60 no-cache swr=-1 sie=-1"},
		{"s-maxage=60, stale-while-revalidate=9", "60 must open swr=9 sie=-1"},
		{"s-maxage=60, stale-if-error=9", "60 must open swr=-1 sie=9"},
		{"s-maxage=60, stale-while-revalidate=9, must-revalidate", "60 must open swr=-1 sie=-1"},
	}
	each(t, table, func(t *testing.T, row struct{ directives, want string }) {
		lines := "ETag: \"a\"|Cache-Control: " + strings.ReplaceAll(row.directives, "|", "|Cache-Control: ")
		v := semantics.Judge(&semantics.Rules{}, answer("", lines))
		if got := describe(v); got != row.want {
			t.Errorf("%s:\n got %s\nwant %s", row.directives, got, row.want)
		}
	})
}
