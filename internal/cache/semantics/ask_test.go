package semantics_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/cache/semantics"
)

// RFC 9111 §5.2.1 and §5.4.
func TestAsk(t *testing.T) {
	table := []struct{ lines, want string }{
		{"", ""},
		{"Cache-Control:", ""},
		{"Cache-Control: foo", ""},
		{"Cache-Control: no-cache", "no-cache"},
		{"Cache-Control: NO-CACHE", "no-cache"},
		{"Cache-Control: no-cache=foo", "no-cache"},
		{"Cache-Control: no-cache foo", "no-cache"},
		{"Cache-Control: a=\"no-cache\"", ""},
		{"Cache-Control: a=\"no-cache", ""},
		{"Cache-Control: a=\"b, no-cache", "no-cache"},
		{"Cache-Control: no-store", "no-store"},
		{"Cache-Control: no-store, no-cache", "no-cache no-store"},
		{"Cache-Control: foo|Cache-Control: no-store", "no-store"},
		{"Cache-Control: only-if-cached", "only-if-cached"},
		{"Cache-Control: Only-If-Cached, max-age=9", "only-if-cached max-age=9"},
		{"Cache-Control: max-age=9", "max-age=9"},
		{"Cache-Control: max-age=0", "max-age=0"},
		{"Cache-Control: max-age=\"9\"", "max-age=9"},
		{"Cache-Control: max-age=9, max-age=8", "max-age=8"},
		{"Cache-Control: max-age=8, max-age=9", "max-age=8"},
		{"Cache-Control: max-age=8|Cache-Control: max-age=9", "max-age=8"},
		{"Cache-Control: max-age", "max-age=0"},
		{"Cache-Control: max-age=x", "max-age=0"},
		{"Cache-Control: max-age=-1", "max-age=0"},
		{"Cache-Control: max-age= 9", "max-age=0"},
		{"Cache-Control: max-age=9.5", "max-age=0"},
		{"Cache-Control: max-age=9x, max-age=8", "max-age=0"},
		{"Cache-Control: max-age=99999999999999999999", "max-age=2147483648"},
		{"Cache-Control: s-maxage=9", ""},
		{"Cache-Control: min-fresh=9", "min-fresh=9"},
		{"Cache-Control: min-fresh=8, min-fresh=9", "min-fresh=9"},
		{"Cache-Control: min-fresh", ""},
		{"Cache-Control: min-fresh=x", ""},
		{"Cache-Control: max-stale=9", "max-stale=9"},
		{"Cache-Control: max-stale", "max-stale=2147483648"},
		{"Cache-Control: max-stale, max-stale=9", "max-stale=9"},
		{"Cache-Control: max-stale=9, max-stale", "max-stale=9"},
		{"Cache-Control: max-stale=9, max-stale=0", "max-stale=0"},
		{"Cache-Control: max-stale=", ""},
		{"Cache-Control: max-stale=x", ""},
		{"Cache-Control: max-stale 9", ""},
		{"Cache-Control: stale-if-error=9", "stale-if-error=9"},
		{"Cache-Control: stale-if-error=9, stale-if-error=8", "stale-if-error=8"},
		{"Cache-Control: stale-if-error", ""},
		{"Cache-Control: stale-while-revalidate=9", ""},
		{"Cache-Control: max-age=1, max-stale=2, min-fresh=3, stale-if-error=4", "max-age=1 min-fresh=3 max-stale=2 stale-if-error=4"},
		// Pragma.
		{"Pragma: no-cache", "no-cache"},
		{"pragma: No-Cache", "no-cache"},
		{"Pragma: foo, no-cache", "no-cache"},
		{"Pragma: foo|Pragma: no-cache", "no-cache"},
		{"Pragma: foo=\"no-cache\"", ""},
		{"Pragma: foo", ""},
		{"Pragma: no-store", ""},
		{"Pragma: max-age=0", ""},
		{"Pragma: no-cache|Cache-Control: max-age=9", "max-age=9"},
		{"Pragma: no-cache|Cache-Control: foo", ""},
		{"Pragma: no-cache|Cache-Control:", ""},
	}
	each(t, table, func(t *testing.T, row struct{ lines, want string }) {
		a := semantics.ReadAsk(header(row.lines))
		var got []string
		for _, f := range []struct {
			set  bool
			word string
		}{
			{a.NoCache, "no-cache"},
			{a.NoStore, "no-store"},
			{a.OnlyIfCached, "only-if-cached"},
			{a.MaxAge != semantics.Absent, fmt.Sprint("max-age=", a.MaxAge)},
			{a.MinFresh != semantics.Absent, fmt.Sprint("min-fresh=", a.MinFresh)},
			{a.MaxStale != semantics.Absent, fmt.Sprint("max-stale=", a.MaxStale)},
			{a.StaleIfError != semantics.Absent, fmt.Sprint("stale-if-error=", a.StaleIfError)},
		} {
			if f.set {
				got = append(got, f.word)
			}
		}
		if s := strings.Join(got, " "); s != row.want {
			t.Errorf("%q: %q, want %q", row.lines, s, row.want)
		}
	})
}
