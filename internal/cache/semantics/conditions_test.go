package semantics_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/cache/semantics"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

func TestConditionsOfARequest(t *testing.T) {
	table := []struct{ lines, want string }{
		{"", ""},
		{"Host: a|Accept: b/c|If: x", ""},
		{"If-None-Match: \"a\"", "any conditional"},
		{"if-none-match: *", "any conditional"},
		{"If-None-Match:", "any conditional"},
		{"If-None-Match: \"a\"|If-None-Match: \"b\"", "any conditional"},
		{"If-None-Match: \"a\"|If-None-Match: \"b\"|If-None-Match: \"c\"", "any origin conditional"},
		{"If-Modified-Since: " + date(0), "any conditional"},
		{"If-Modified-Since: x", "any"},
		{"If-Modified-Since: " + date(0) + "|If-Modified-Since: " + date(0), "any"},
		{"If-Modified-Since: x|If-Modified-Since: " + date(0), "any"},
		{"If-Match: \"a\"", "any origin"},
		{"If-Match: *|If-None-Match: \"a\"", "any origin conditional"},
		{"If-Unmodified-Since: " + date(0), "any origin"},
		{"if-unmodified-since: x", "any origin"},
		{"Range: bytes=0-", "any range"},
		{"Range: x", "any range"},
		{"If-Range: \"a\"", "any"},
		{"Range: bytes=0-|If-Range: \"a\"", "any range"},
		{"Range: bytes=0-|If-None-Match: \"a\"", "any conditional range"},
	}
	each(t, table, func(t *testing.T, row struct{ lines, want string }) {
		h := header(row.lines)
		c, some := semantics.ReadConditions(h)
		var got []string
		for _, f := range []struct {
			set  bool
			word string
		}{{some, "any"}, {c.ForOrigin(), "origin"}, {c.Conditional(), "conditional"}, {c.HasRange(), "range"}} {
			if f.set {
				got = append(got, f.word)
			}
		}
		if s := strings.Join(got, " "); s != row.want {
			t.Errorf("%q: %q, want %q", row.lines, s, row.want)
		}
		semantics.StripConditions(h)
		c, _ = semantics.ReadConditions(h)
		if c.Conditional() || c.HasRange() || h.Has(exchange.IfNoneMatch) || h.Get([]byte("If-Range")) != nil {
			t.Errorf("%q: conditions are left", row.lines)
		}
	})
}

// RFC 9111 §4.3.2, RFC 9110 §13.1.2, §13.1.3.
func TestNotModified(t *testing.T) {
	table := []struct {
		stored, request string
		want            bool
	}{
		{"ETag: \"a\"", "", false},
		{"ETag: \"a\"", "If-None-Match: \"a\"", true},
		{"ETag: \"a\"", "If-None-Match: \"b\"", false},
		{"ETag: \"a\"", "If-None-Match: \"A\"", false},
		{"ETag: \"a\"", "If-None-Match: W/\"a\"", true},
		{"ETag: W/\"a\"", "If-None-Match: W/\"a\"", true},
		{"ETag: W/\"a\"", "If-None-Match: \"a\"", true},
		{"ETag: W/\"a\"", "If-None-Match: W/\"b\"", false},
		{"ETag: \"a\"", "If-None-Match: w/\"a\"", false},
		{"ETag: \"a\"", "If-None-Match: W\"a\"", false},
		{"ETag: \"a\"", "If-None-Match: W\\\"a\"", false},
		{"ETag: w/\"a\"", "If-None-Match: \"a\"", false},
		{"ETag: \"a\"", "If-None-Match: \"a\", \"b\", \"c\"", true},
		{"ETag: \"b\"", "If-None-Match: \"a\", \"b\", \"c\"", true},
		{"ETag: \"c\"", "If-None-Match: \"a\", \"b\", \"c\"", true},
		{"ETag: \"c\"", "If-None-Match: \"a\",\"b\",W/\"c\"", true},
		{"ETag: \"c\"", "If-None-Match: , \"a\" ,, \"c\" ,", true},
		{"ETag: \"d\"", "If-None-Match: \"a\", \"b\", \"c\"", false},
		{"ETag: \"b\"", "If-None-Match: \"a\"|If-None-Match: \"b\"", true},
		{"ETag: \"a, b\"", "If-None-Match: \"a, b\"", true},
		{"ETag: \"a, b\"", "If-None-Match: \"x\", \"a, b\"", true},
		{"ETag: \"b\"", "If-None-Match: \"a, \"b\"", false},
		{"ETag: \"a\\\"", "If-None-Match: \"a\\\"", true},
		{"ETag: \"a\\\"", "If-None-Match: \"a\\\", \"b\"", true},
		{"ETag: \"\"", "If-None-Match: \"\"", true},
		{"ETag: \"\"", "If-None-Match:", false},
		{"ETag: \"\xe9\"", "If-None-Match: \"\xe9\"", true},
		{"ETag: \"\xe9\"", "If-None-Match: \"x\", W/\"\xe9\"", true},
		{"ETag: a", "If-None-Match: a", true}, // no quotes on either side
		{"ETag: a", "If-None-Match: b, a", true},
		{"ETag: a", "If-None-Match: \"a\"", false},
		{"ETag: \"a\"", "If-None-Match: a", false},
		{"ETag: \"a\"", "If-None-Match: \"a", false},
		{"ETag: \"a\"", "If-None-Match: \"a\"b", false},
		{"ETag: \"a\"", "If-None-Match: W/", false},
		{"ETag: W/", "If-None-Match: W/", false},
		{"ETag:", "If-None-Match: \"a\"", false},
		// "*" stands for whatever is there, but only alone.
		{"ETag: \"a\"", "If-None-Match: *", true},
		{"", "If-None-Match: *", true},
		{"ETag: \"a\"", "If-None-Match: *, \"b\"", false},
		{"ETag: \"a\"", "If-None-Match: \"*\"", false},
		{"ETag: \"a\"", "If-None-Match: **", false},
		// If-Modified-Since only without If-None-Match.
		{"ETag: \"a\"|Last-Modified: " + date(0), "If-None-Match: \"b\"|If-Modified-Since: " + date(0), false},
		{"ETag: \"a\"|Last-Modified: " + date(0), "If-None-Match: \"a\"|If-Modified-Since: " + date(-9), true},
		{"Last-Modified: " + date(0), "If-None-Match: \"a\"|If-Modified-Since: " + date(0), false},
		{"Last-Modified: " + date(0), "If-None-Match:|If-Modified-Since: " + date(0), false},
		{"Last-Modified: " + date(0), "If-Modified-Since: " + date(0), true},
		{"Last-Modified: " + date(0), "If-Modified-Since: " + date(9), true},
		{"Last-Modified: " + date(0), "If-Modified-Since: " + date(-1), false},
		{"Last-Modified: " + date(0), "If-Modified-Since: " + arrived.Format("Monday, 02-Jan-06 15:04:05 GMT"), true},
		{"Last-Modified: " + date(0), "If-Modified-Since: " + arrived.Format("Mon Jan _2 15:04:05 2006"), true},
		{"Last-Modified: " + date(0), "If-Modified-Since: " + strings.Replace(date(0), "GMT", "UTC", 1), false},
		{"Last-Modified: " + date(0), "If-Modified-Since: " + date(0) + ", " + date(0), false},
		{"Last-Modified: " + date(0), "If-Modified-Since: " + date(0) + "|If-Modified-Since: " + date(0), false},
		{"Last-Modified: " + date(0), "If-Modified-Since:", false},
		// Without Last-Modified the Date counts.
		{"Date: " + date(0), "If-Modified-Since: " + date(0), true},
		{"Date: " + date(0), "If-Modified-Since: " + date(-1), false},
		{"Date: " + date(0) + "|Last-Modified: x", "If-Modified-Since: " + date(0), true},
		{"Date: " + date(0) + "|Last-Modified: " + date(-9), "If-Modified-Since: " + date(-9), true},
		{"", "If-Modified-Since: " + date(0), false},
		// The others decide nothing.
		{"ETag: \"a\"", "If-Match: \"a\"", false},
		{"ETag: \"a\"", "If-Range: \"a\"", false},
	}
	each(t, table, func(t *testing.T, row struct {
		stored, request string
		want            bool
	},
	) {
		c, _ := semantics.ReadConditions(header(row.request))
		v := semantics.ReadValidators(header(row.stored))
		if got := c.NotModified(&v); got != row.want {
			t.Errorf("stored %q, asked with %q: %v", row.stored, row.request, got)
		}
	})
}

// RFC 9110 §14.1.2, §14.2. The stored response has 100 bytes.
func TestRanges(t *testing.T) {
	const whole, none = "whole", "416"
	table := []struct{ value, want string }{
		{"bytes=0-0", "0-1"},
		{"bytes=0-9", "0-10"},
		{"bytes=10-19", "10-20"},
		{"bytes=0-99", "0-100"},
		{"bytes=0-100", "0-100"},
		{"bytes=0-999999", "0-100"},
		{"bytes=0-99999999999999999999999999", "0-100"},
		{"bytes=99-99", "99-100"},
		{"bytes=99-", "99-100"},
		{"bytes=0-", "0-100"},
		{"bytes=50-", "50-100"},
		{"bytes=-1", "99-100"},
		{"bytes=-50", "50-100"},
		{"bytes=-100", "0-100"},
		{"bytes=-101", "0-100"},
		{"bytes=-99999999999999999999999999", "0-100"},
		{"BYTES=0-9", "0-10"},
		{"Bytes=0-9", "0-10"},
		{"bytes= 0-9", "0-10"},
		{"bytes=0-9 ", "0-10"},
		{"bytes=0-9,", "0-10"},
		{"bytes=,0-9", "0-10"},
		{"bytes=000-009", "0-10"},
		{"bytes=100-", none},
		{"bytes=100-100", none},
		{"bytes=100-200", none},
		{"bytes=99999999999999999999999999-", none},
		{"bytes=99999999999999999999999999-99999999999999999999999999", none},
		{"bytes=-0", none},
		{"bytes=-000", none},
		// Several, which need not be honoured.
		{"bytes=0-9,20-29", whole},
		{"bytes=0-9, -1", whole},
		{"bytes=0-9,x", whole},
		{"bytes=200-,0-9", whole},
		// Not well-formed: the field is invalid and ignored.
		{"", whole},
		{"bytes", whole},
		{"bytes=", whole},
		{"bytes=,", whole},
		{"bytes=-", whole},
		{"bytes=--1", whole},
		{"bytes=9", whole},
		{"bytes=9-1", whole},
		{"bytes=200-100", whole},
		{"bytes=a-b", whole},
		{"bytes=0-b", whole},
		{"bytes=a-9", whole},
		{"bytes=0 - 9", whole},
		{"bytes=0-9-", whole},
		{"bytes=0--9", whole},
		{"bytes=+0-9", whole},
		{"bytes=0-9.5", whole},
		{"bytes=0x0-9", whole},
		{"bytes=*", whole},
		{"bytes 0-9", whole},
		{"bytes:0-9", whole},
		{"bytes=\"0-9\"", whole},
		{"=0-9", whole},
		{"0-9", whole},
		// Other units.
		{"byte=0-9", whole},
		{"bytess=0-9", whole},
		{"items=0-9", whole},
		{"none", whole},
		// Twice.
		{"bytes=0-9|Range: bytes=0-9", whole},
	}
	each(t, table, func(t *testing.T, row struct{ value, want string }) {
		if got := part("Range: "+row.value, "", 100); got != row.want {
			t.Errorf("%q: %s, want %s", row.value, got, row.want)
		}
	})
	each(t, []struct{ value, want string }{
		{"bytes=0-", none}, {"bytes=0-0", none}, {"bytes=-0", none}, {"bytes=-1", whole}, {"bytes=1-0", whole},
	}, func(t *testing.T, row struct{ value, want string }) {
		if got := part("Range: "+row.value, "", 0); got != row.want {
			t.Errorf("%q of nothing: %s, want %s", row.value, got, row.want)
		}
	})
}

// part is the part of a stored response with those fields that a request gets.
func part(request, stored string, size int64) string {
	c, _ := semantics.ReadConditions(header(request))
	v := semantics.ReadValidators(header(stored))
	switch from, to, p := c.Part(&v, size); p {
	case semantics.Partial:
		return fmt.Sprintf("%d-%d", from, to)
	case semantics.Unsatisfiable:
		return "416"
	}
	return "whole"
}

// RFC 9110 §13.1.5.
func TestIfRange(t *testing.T) {
	const holds, fails = "0-10", "whole"
	table := []struct{ stored, request, want string }{
		{"ETag: \"a\"", "If-Range: \"a\"", holds},
		{"ETag: \"a\"", "if-range: \"a\"", holds},
		{"ETag: \"a\"", "If-Range: \"b\"", fails},
		{"ETag: W/\"a\"", "If-Range: W/\"a\"", fails},
		{"ETag: \"a\"", "If-Range: W/\"a\"", fails},
		{"ETag: W/\"a\"", "If-Range: \"a\"", fails},
		{"", "If-Range: \"a\"", fails},
		{"ETag: \"a\"", "If-Range: a", fails},
		{"ETag: a", "If-Range: a", fails},
		{"ETag: \"a\"", "If-Range:", fails},
		{"ETag: \"a\"", "If-Range: *", fails},
		{"ETag: \"a\"", "If-Range: \"b\", \"a\"", fails},
		{"ETag: \"a\"", "If-Range: \"a\"|If-Range: \"a\"", fails},
		{"Last-Modified: " + date(-1) + "|Date: " + date(0), "If-Range: " + date(-1), holds},
		{"Last-Modified: " + date(0) + "|Date: " + date(0), "If-Range: " + date(0), fails}, // a weak validator
		{"Last-Modified: " + date(-9), "If-Range: " + date(-9), fails},
		{"Last-Modified: " + date(-9) + "|Date: " + date(0), "If-Range: " + date(-8), fails},
		{"Last-Modified: " + date(-9) + "|Date: " + date(0), "If-Range: " + date(-10), fails},
		{"Date: " + date(0), "If-Range: " + date(0), fails},
		{"Last-Modified: " + date(-9) + "|Date: " + date(0), "If-Range: x", fails},
		{"Last-Modified: " + date(-9) + "|Date: " + date(0), "If-Range: Thu, 01 Jan 1970 00:00:00 GMT", fails},
		{"Date: " + date(0), "If-Range: Thu, 01 Jan 1970 00:00:00 GMT", fails},
	}
	each(t, table, func(t *testing.T, row struct{ stored, request, want string }) {
		if got := part(row.request+"|Range: bytes=0-9", row.stored, 100); got != row.want {
			t.Errorf("stored %q, asked with %q: %s, want %s", row.stored, row.request, got, row.want)
		}
		if got := part(row.request, row.stored, 100); got != "whole" {
			t.Errorf("%q without Range: %s", row.request, got)
		}
	})
	// One that fails hides a range that cannot be satisfied, too (§13.2.2).
	if got := part("Range: bytes=200-|If-Range: \"b\"", "ETag: \"a\"", 100); got != "whole" {
		t.Errorf("a range behind the end with an If-Range that fails: %s", got)
	}
}
