package semantics_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/cache/semantics"
)

// RFC 9213: the targeted field of this gateway.
func TestTargetedField(t *testing.T) {
	const (
		plain = "Cache-Control: max-age=60|ETag: \"a\"|Sluice-Cache-Control: "
		none  = "60" // the targeted field counts for nothing
	)
	table := []struct{ field, want string }{
		{"max-age=9", "9"},
		{"max-age=9, public", "9 open"},
		{"  max-age=9 ", "9"},
		{"max-age=9;a=b;c", "9"},
		{"max-age=9 , public", "9 open"},
		{"max-age=9,public", "9 open"},
		{"max-age=9\t,\tpublic", "9 open"},
		{"max-age=9, max-age=8", "8"},
		{"max-age=8, max-age=9", "9"},
		{"max-age=\"9\"", "0"}, // of the wrong type: not used as a number (§2.1)
		{"max-age=9.0", "0"},
		{"max-age=a", "0"},
		{"max-age=-9", "0"},
		{"max-age", "0"},
		{"max-age=?0, public", "0 unsaid open"},
		{"max-age=0", "0"},
		{"max-age=999999999999999", "2147483648"},
		{"s-maxage=9, max-age=8", "9 must open swr=-1 sie=-1"},
		{"no-store", "no: the response has no-store"},
		{"max-age=9, no-store", "no: the response has no-store"},
		{"max-age=9, no-store=?1", "no: the response has no-store"},
		{"max-age=9, no-store=?0", "9"},
		{"max-age=9, no-store=1", "no: the response has no-store"},
		{"private", "no: the response is private"},
		{"private=\"x-a, x-b\", max-age=9", "9 drop=x-a,x-b"},
		{"private=x-a, max-age=9", "no: the response is private"},
		{"private=(\"x-a\"), max-age=9", "no: the response is private"},
		{"no-cache, max-age=9", "9 no-cache swr=-1 sie=-1"},
		{"no-cache=\"x-a\", max-age=9", "9 drop=x-a"},
		{"must-revalidate, max-age=9", "9 must swr=-1 sie=-1"},
		{"max-age=9, stale-while-revalidate=5, stale-if-error=6", "9 swr=5 sie=6"},
		{"must-understand, no-store, max-age=9", "9"},
		{"none", "no: nothing says how long it is fresh"},
		{"max-age=9, foo=:YQ==:, bar=@1, baz=%\"a%c3\", qux=(1 2;a \"b\");c, w=1.5, *=tok/en:1", "9"},
		// Two lines are one value.
		{"max-age=9|Sluice-Cache-Control: public", "9 open"},
		{"max-age=9|Sluice-Cache-Control: max-age=8", "8"},
		// No dictionary, so as if it were not there.
		{"", none},
		{" ", none},
		{"max-age=9,", none},
		{"max-age=9, ,public", none},
		{",max-age=9", none},
		{"Max-Age=9", none},
		{"max-age =9", none},
		{"max-age= 9", none},
		{"max-age=", none},
		{"max-age=9 public", none},
		{"max-age=9;", none},
		{"max-age=9; A=1", none},
		{"max-age=9.", none},
		{"max-age=9.1234", none},
		{"max-age=1234567890123456", none},
		{"max-age=-", none},
		{"max-age=--9", none},
		{"max-age=\"9", none},
		{"max-age=\"\\9\"", none},
		{"max-age=\"\xc3\"", none},
		{"max-age=?2", none},
		{"max-age=?", none},
		{"max-age=(1 2", none},
		{"max-age=(1,2)", none},
		{"max-age=(1\"2\")", none},
		{"max-age=:a", none},
		{"max-age=:*:", none},
		{"max-age=@1.5", none},
		{"max-age=%a", none},
		{"max-age=%\"%C3\"", none},
		{"max-age=%\"a", none},
		{"&&&&&", none},
		{"max-age=9, &&&&&", none},
		{"1, max-age=9", none},
		{"max-age=9|Sluice-Cache-Control:", none},
		{"max-age=9\x00", none},
	}
	each(t, table, func(t *testing.T, row struct{ field, want string }) {
		v := semantics.Judge(&semantics.Rules{}, answer("", plain+row.field))
		if got := describe(v); got != row.want {
			t.Errorf("%s:\n got %s\nwant %s", row.field, got, row.want)
		}
	})
	judge(t, semantics.Rules{}, []judged{
		// Cache-Control and Expires are passed over (§2.2).
		{"", "Cache-Control: no-store|Sluice-Cache-Control: max-age=9", "9"},
		{"", "Cache-Control: private|Sluice-Cache-Control: max-age=9", "9"},
		{"", "Cache-Control: public|Sluice-Cache-Control: max-age=9", "9"},
		{"", "Cache-Control: stale-if-error=9|Sluice-Cache-Control: max-age=9", "9"},
		{"", "Expires: " + date(60) + "|Sluice-Cache-Control: public", "no: nothing says how long it is fresh, and there is no validator"},
		{"", "Expires: 0|Sluice-Cache-Control: max-age=9", "9"},
		{"", "Cache-Control: no-store|Sluice-Cache-Control: none", "no: nothing says how long it is fresh"},
		{"auth", "Cache-Control: public|Sluice-Cache-Control: max-age=9", "no: the request has Authorization"},
		{"auth", "Sluice-Cache-Control: max-age=9, public", "9 open"},
		// Fields for others change nothing.
		{"", "Cache-Control: max-age=60|CDN-Cache-Control: no-store", "60"},
		{"", "Cache-Control: no-store|CDN-Cache-Control: max-age=60", "no: the response has no-store"},
	})
}

func TestRules(t *testing.T) {
	unsaid := "no: nothing says how long it is fresh"
	judge(t, semantics.Rules{TTL: 300}, []judged{
		{"", "", "300 unsaid"},
		{"QUERY", "", "300 unsaid"},
		{"=203", "", "300 unsaid"},
		{"=204", "", "300 unsaid"},
		{"=300", "", "300 unsaid"},
		{"=301", "", "300 unsaid"},
		{"=404", "", "300 unsaid"},
		{"=410", "", "300 unsaid"},
		{"=201", "", unsaid},
		{"=206", "", "no: the status is not stored"},
		{"=302", "", unsaid},
		{"=308", "", unsaid},
		{"=401", "", unsaid},
		{"=405", "", unsaid},
		{"=500", "", unsaid},
		{"=503", "", unsaid},
		{"", "Cache-Control: foo", "300 unsaid"},
		{"", "Cache-Control: must-revalidate", "300 unsaid must swr=-1 sie=-1"},
		{"", "Cache-Control: public", "300 unsaid open"},
		{"", "Cache-Control: max-age=9", "9"},
		{"", "Cache-Control: max-age=x", "no: it is stale, and there is no validator"},
		{"", "Cache-Control: a=\"", "no: it is stale, and there is no validator"},
		{"", "Expires: " + date(9), "9"},
		{"", "Expires: 0", "no: it is stale, and there is no validator"},
		{"", "Cache-Control: no-store", "no: the response has no-store"},
		{"", "Cache-Control: private", "no: the response is private"},
		{"", "Cache-Control: no-cache", "no: each use needs validation, and there is no validator"},
		{"", "Cache-Control: no-cache|ETag: \"a\"", "0 unsaid no-cache swr=-1 sie=-1"},
		{"", "Sluice-Cache-Control: none", "300 unsaid"},
		{"", "Set-Cookie: a=b", "no: the response has Set-Cookie"},
		{"", "Vary: *", "no: Vary has *, or cannot be read"},
		{"auth", "", "no: the request has Authorization"},
		{"cookie", "", "no: the request has Cookie"},
		{"cookie", "Vary: Cookie", "300 unsaid"},
	})
	judge(t, semantics.Rules{TTL: 300, MaxTTL: 100}, []judged{
		{"", "", "100 unsaid"},
		{"", "Cache-Control: max-age=99", "99"},
		{"", "Cache-Control: max-age=101", "100"},
		{"", "Cache-Control: s-maxage=101", "100 must open swr=-1 sie=-1"},
		{"", "Expires: " + date(101), "100"},
		{"", "Sluice-Cache-Control: max-age=101", "100"},
	})
	judge(t, semantics.Rules{StaleWhileRevalidate: 30, StaleIfError: 600}, []judged{
		{"", "Cache-Control: max-age=9", "9 swr=30 sie=600"},
		{"", "Cache-Control: max-age=0", "0 swr=30 sie=600"},
		{"", "Cache-Control: max-age=9, stale-while-revalidate=5", "9 swr=5 sie=600"},
		{"", "Cache-Control: max-age=9, stale-while-revalidate=0", "9 sie=600"},
		{"", "Cache-Control: max-age=9, stale-if-error=x", "9 swr=30"},
		{"", "Cache-Control: max-age=9, must-revalidate", "9 must swr=-1 sie=-1"},
		{"", "Cache-Control: max-age=9, proxy-revalidate", "9 must swr=-1 sie=-1"},
		{"", "Cache-Control: s-maxage=9", "9 must open swr=-1 sie=-1"},
		{"", "Cache-Control: no-cache|ETag: \"a\"", "0 unsaid no-cache swr=-1 sie=-1"},
	})
}

// RFC 9111 §4.2.2.
func TestHeuristicFreshness(t *testing.T) {
	modified := func(ago int64) string { return "Last-Modified: " + date(-ago) }
	unsaid := "no: nothing says how long it is fresh"
	judge(t, semantics.Rules{Heuristic: 10}, []judged{
		{"", modified(1000), "100 unsaid"},
		{"", modified(1000) + "|Date: " + date(-500), "50 unsaid"},
		{"", modified(100_000_000), "86400 unsaid"},
		{"", modified(0), unsaid},
		{"", modified(-1000), unsaid},
		{"", "Last-Modified: x", unsaid},
		{"", "ETag: \"a\"", unsaid},
		{"", modified(1000) + "|Cache-Control: max-age=7", "7"},
		{"", modified(1000) + "|Cache-Control: max-age=x", "0"},
		{"", modified(1000) + "|Expires: 0", "0"},
		{"", modified(1000) + "|Cache-Control: no-cache", "0 unsaid no-cache swr=-1 sie=-1"},
		{"=203", modified(1000), "100 unsaid"},
		{"=204", modified(1000), "100 unsaid"},
		{"=300", modified(1000), "100 unsaid"},
		{"=301", modified(1000), "100 unsaid"},
		{"=308", modified(1000), "100 unsaid"},
		{"=404", modified(1000), "100 unsaid"},
		{"=405", modified(1000), "100 unsaid"},
		{"=410", modified(1000), "100 unsaid"},
		{"=414", modified(1000), "100 unsaid"},
		{"=501", modified(1000), "100 unsaid"},
		{"=201", modified(1000), unsaid},
		{"=302", modified(1000), unsaid},
		{"=400", modified(1000), unsaid},
		{"=500", modified(1000), unsaid},
		{"=599", modified(1000), unsaid},
		{"=599", modified(1000) + "|Cache-Control: public", "100 unsaid open"},
		{"=206", modified(1000) + "|Cache-Control: public", "no: the status is not stored"},
	})
	judge(t, semantics.Rules{Heuristic: 10, TTL: 7}, []judged{
		{"", modified(1000), "7 unsaid"},
		{"=405", modified(1000), "100 unsaid"},
	})
}

// RFC 9111 §5.3.
func TestExpires(t *testing.T) {
	table := []struct{ lines, want string }{
		{"Expires: " + date(60), "60"},
		{"Expires: " + date(0), "0"},
		{"Expires: " + date(-60), "0"},
		{"Expires: " + date(60) + "|Date: " + date(30), "30"},
		{"Expires: " + date(60) + "|Date: " + date(-30), "90"},
		{"Expires: " + date(60) + "|Date: x", "60"},
		{"Expires: " + date(60) + "|Cache-Control: max-age=9", "9"},
		{"Expires: 0|Cache-Control: max-age=9", "9"},
		{"Expires: 0|Cache-Control: s-maxage=9", "9 must open swr=-1 sie=-1"},
		{"Expires: " + date(60) + "|Cache-Control: max-age=0", "0"},
		{"Expires: " + date(60) + "|Cache-Control: max-age=x", "0"},
		{"Expires: " + date(60) + "|Cache-Control: public", "60 open"},
		{"Expires: " + date(60) + "|Expires: " + date(60), "60"},
		{"Expires: " + date(60) + "|Expires: " + date(9), "9"},
		{"Expires: " + date(9) + "|Expires: " + date(60), "9"},
		{"Expires: " + date(60) + "|Expires: 0", "0"},
		{"Expires: 0|Expires: " + date(60), "0"},
		{"Expires: " + date(60) + ", " + date(60), "0"},
		{"Expires: 0", "0"},
		{"Expires: -1", "0"},
		{"Expires:", "0"},
		{"Expires: now", "0"},
		{"Expires: 60", "0"},
		{"Expires: \"" + date(60) + "\"", "0"},
		{"Expires: " + strings.ToLower(date(60)), "60"},
		{"Expires: " + strings.ToUpper(date(60)), "60"},
		{"Expires: " + strings.Replace(date(60), "GMT", "UTC", 1), "0"},
		{"Expires: " + strings.Replace(date(60), "GMT", "EST", 1), "0"},
		{"Expires: " + strings.Replace(date(60), "GMT", "+0000", 1), "0"},
		{"Expires: " + strings.Replace(date(60), " GMT", "", 1), "0"},
		{"Expires: " + arrived.Add(time.Minute).Format("Mon Jan _2 15:04:05 2006"), "60"},
		{"Expires: " + arrived.Add(time.Minute).Format("Monday, 02-Jan-06 15:04:05 GMT"), "60"},
		{"Expires: Thu, 18 Aug 2050 02:01:18 GMT", fmt.Sprint(2544400878 - arrived.Unix())},
		{"Expires: Thursday, 18-Aug-50 02:01:18 GMT", fmt.Sprint(2544400878 - arrived.Unix())},
		{"Expires: Fri, 31 Dec 9999 23:59:59 GMT", fmt.Sprint(semantics.Forever)},
		{"Expires: Thu, 01 Jan 1970 00:00:00 GMT", "0"},
		{"Expires: Mon, 01 Jan 0001 00:00:00 GMT", "0"},
		{"Expires: Monday, 01-Jan-77 00:00:00 GMT", "0"}, // 1977: 2077 would be more than 50 years ahead
	}
	each(t, table, func(t *testing.T, row struct{ lines, want string }) {
		v := semantics.Judge(&semantics.Rules{}, answer("", "ETag: \"a\"|"+row.lines))
		if got := describe(v); got != row.want {
			t.Errorf("%s:\n got %s\nwant %s", row.lines, got, row.want)
		}
	})
}
