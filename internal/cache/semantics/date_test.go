package semantics_test

import (
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/cache/semantics"
)

// RFC 9110 §5.6.7, RFC 9111 §4.2.
func TestDates(t *testing.T) {
	const example = 784111777
	table := []struct {
		text string
		want int64
	}{
		{"Sun, 06 Nov 1994 08:49:37 GMT", example},
		{"Sunday, 06-Nov-94 08:49:37 GMT", example},
		{"Sun Nov  6 08:49:37 1994", example},
		{"Sun Nov 06 08:49:37 1994", example},
		{"SUN, 06 NOV 1994 08:49:37 GMT", example},
		{"sun, 06 nov 1994 08:49:37 gmt", example},
		{"sunday, 06-nov-94 08:49:37 gmt", example},
		{"sun nov  6 08:49:37 1994", example},
		{"Mon, 06 Nov 1994 08:49:37 GMT", example}, // the wrong weekday
		{"Thu, 01 Jan 1970 00:00:00 GMT", 0},
		{"Wed, 31 Dec 1969 23:59:59 GMT", -1},
		{"Tue, 29 Feb 2028 00:00:00 GMT", time.Date(2028, 2, 29, 0, 0, 0, 0, time.UTC).Unix()},
		{"Tue, 29 Feb 2000 23:59:59 GMT", time.Date(2000, 2, 29, 23, 59, 59, 0, time.UTC).Unix()},
		{"Fri, 31 Dec 9999 23:59:59 GMT", 253402300799},
		{"Mon, 01 Jan 0001 00:00:00 GMT", time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).Unix()},
		{"Sat, 01 Jan 0000 00:00:00 GMT", time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC).Unix()},
		{"Sat, 31 Dec 2016 23:59:60 GMT", time.Date(2016, 12, 31, 23, 59, 59, 0, time.UTC).Unix()},
		{"Friday, 01-Jan-75 00:00:00 GMT", time.Date(2075, 1, 1, 0, 0, 0, 0, time.UTC).Unix()},
		{"Saturday, 01-Jan-77 00:00:00 GMT", time.Date(1977, 1, 1, 0, 0, 0, 0, time.UTC).Unix()},
		{"Friday, 31-Dec-99 23:59:59 GMT", time.Date(1999, 12, 31, 23, 59, 59, 0, time.UTC).Unix()},
		{"Saturday, 01-Jan-00 00:00:00 GMT", time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Unix()},
	}
	for _, row := range table {
		if got, ok := semantics.ParseDate([]byte(row.text)); !ok || got != row.want {
			t.Errorf("%q: %d, %v, want %d", row.text, got, ok, row.want)
		}
	}
	bad := []string{
		"", "0", "-1", "now", "784111777", "1994-11-06T08:49:37Z", "06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37",
		"Sun, 06 Nov 1994 08:49:37 UTC", "Sun, 06 Nov 1994 08:49:37 EST", "Sun, 06 Nov 1994 08:49:37 +0000", "Sun, 06 Nov 1994 08:49:37 Z",
		"Sun, 06 Nov 1994 8:49:37 GMT", "Sun, 6 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 94 08:49:37 GMT", "Sun, 06 Nov 1994 08:49 GMT",
		"Sun 06 Nov 1994 08:49:37 GMT", "Sun,06 Nov 1994 08:49:37 GMT", "Sun,  06 Nov 1994 08:49:37 GMT", "Sun, 06  Nov 1994 08:49:37 GMT",
		"Sun, 06-Nov-1994 08:49:37 GMT", "Sun, 06-Nov-94 08:49:37 GMT", "Sunday, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-1994 08:49:37 GMT",
		"Xyz, 06 Nov 1994 08:49:37 GMT", "Xyzday, 06-Nov-94 08:49:37 GMT", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 November 1994 08:49:37 GMT",
		"Sun, 00 Nov 1994 08:49:37 GMT", "Sun, 31 Nov 1994 08:49:37 GMT", "Sun, 32 Dec 1994 08:49:37 GMT", "Tue, 29 Feb 2023 00:00:00 GMT",
		"Thu, 29 Feb 2100 00:00:00 GMT", "Sunday, 29-Feb-77 00:00:00 GMT", "Sun, 06 Nov 1994 24:00:00 GMT", "Sun, 06 Nov 1994 08:60:00 GMT",
		"Sun, 06 Nov 1994 08:49:61 GMT", "Sun, 06 Nov 1994 08.49.37 GMT", "Sun, 06 Nov 1994 08:49:37.5 GMT", "Sun, 06 Nov 19x4 08:49:37 GMT",
		"Sun, 06 Nov 1994 08:49:37 GMT ", " Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMTx", "Sun, 06 Nov 1994 08:49:37  GMT",
		"Sun Nov 6 08:49:37 1994", "Sun Nov   6 08:49:37 1994", "Sun Nov  0 08:49:37 1994", "Sun Nov  6 08:49:37 1994 GMT",
		"Sun Nov 31 08:49:37 1994", "Sunday Nov  6 08:49:37 1994", "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
		"Sun, +6 Nov 1994 08:49:37 GMT", "Sun, 06 Nov -994 08:49:37 GMT", "\"Sun, 06 Nov 1994 08:49:37 GMT\"", ", 06-Nov-94 08:49:37 GMT",
	}
	for _, text := range bad {
		if got, ok := semantics.ParseDate([]byte(text)); ok {
			t.Errorf("%q is %d", text, got)
		}
	}
}

// Every date is read as it was written, in all forms.
func TestDatesOfEveryDay(t *testing.T) {
	for unix := int64(-62135596800); unix < 253402300800; unix += 86399 * 61 {
		at := time.Unix(unix, 0).UTC()
		for _, layout := range []string{"Mon, 02 Jan 2006 15:04:05 GMT", "Mon Jan _2 15:04:05 2006"} {
			if got, ok := semantics.ParseDate([]byte(at.Format(layout))); !ok || got != unix {
				t.Fatalf("%q: %d, %v, want %d", at.Format(layout), got, ok, unix)
			}
		}
		if got := string(semantics.AppendDate([]byte("x"), unix)); got != "x"+at.Format("Mon, 02 Jan 2006 15:04:05 GMT") {
			t.Fatalf("%d was written as %q", unix, got)
		}
	}
	for at := time.Date(1977, 1, 1, 0, 0, 0, 0, time.UTC); at.Year() < 2076; at = at.Add(7 * 86399 * time.Second) {
		text := at.Format("Monday, 02-Jan-06 15:04:05 GMT")
		if got, ok := semantics.ParseDate([]byte(text)); !ok || got != at.Unix() {
			t.Fatalf("%q: %d, %v, want %d", text, got, ok, at.Unix())
		}
	}
}

// The two-digit year of a response counts from its arrival.
func TestTwoDigitYearsCountFromTheResponse(t *testing.T) {
	for _, row := range []struct {
		year    int
		expires string
		fresh   bool
	}{
		{2026, "Monday, 25-Nov-75 12:00:00 GMT", true},
		{2026, "Monday, 25-Nov-76 12:00:00 GMT", true},
		{2026, "Monday, 27-Nov-76 12:00:00 GMT", false},
		{2050, "Monday, 25-Nov-99 12:00:00 GMT", true},
		{2050, "Monday, 25-Nov-49 12:00:00 GMT", false},
		{1999, "Monday, 25-Nov-00 12:00:00 GMT", true},
		{1999, "Monday, 25-Nov-98 12:00:00 GMT", false},
	} {
		a := answer("", "ETag: \"a\"|Date: x|Expires: "+row.expires)
		a.Received = time.Date(row.year, 11, 25, 13, 0, 0, 0, time.UTC)
		a.Requested = a.Received
		if v := semantics.Judge(&semantics.Rules{}, a); !v.Store || v.Lifetime > 0 != row.fresh {
			t.Errorf("in %d, %s: %s", row.year, row.expires, describe(v))
		}
	}
}
