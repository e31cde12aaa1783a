package semantics_test

import (
	"math"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/cache/semantics"
)

// RFC 9111 §4.2.3 and §5.1. The wanted age is that at the response's arrival.
func TestAgeOfAResponse(t *testing.T) {
	table := []struct {
		lines string
		delay time.Duration
		want  time.Duration
	}{
		{"", 0, 0},
		{"Age: 0", 0, 0},
		{"Age: 60", 0, time.Minute},
		{"Age: 060", 0, time.Minute},
		{"Age: 60", 2500 * time.Millisecond, 62500 * time.Millisecond},
		{"", 2500 * time.Millisecond, 2500 * time.Millisecond},
		{"Age: 60", -time.Second, time.Minute}, // the clock was set back
		{"Date: " + date(-90), 0, 90 * time.Second},
		{"Date: " + date(-90) + "|Age: 60", 0, 90 * time.Second},
		{"Date: " + date(-30) + "|Age: 60", 0, 60 * time.Second},
		{"Date: " + date(-60) + "|Age: 60", time.Second, 61 * time.Second},
		{"Date: " + date(90), 0, 0},
		{"Date: " + date(90) + "|Age: 60", 0, time.Minute},
		{"Date: x", 0, 0},
		{"Date: x|Age: 60", 0, time.Minute},
		{"Date: Mon, 01 Jan 0001 00:00:00 GMT", 0, semantics.Forever * time.Second},
		// Not a number of seconds: ignored.
		{"Age:", 0, 0},
		{"Age: abc", 0, 0},
		{"Age: -60", 0, 0},
		{"Age: +60", 0, 0},
		{"Age: 60.0", 0, 0},
		{"Age: 60.5", 0, 0},
		{"Age: a60", 0, 0},
		{"Age: 60a", 0, 0},
		{"Age: 6 0", 0, 0},
		{"Age: 60;foo=bar", 0, 0},
		{"Age: \"60\"", 0, 0},
		{"Age: 0x10", 0, 0},
		// The first member of a list counts.
		{"Age: 60, 0", 0, time.Minute},
		{"Age: 0, 60", 0, 0},
		{"Age: 60 , 90", 0, time.Minute},
		{"Age: , 60", 0, time.Minute},
		{"Age: 60|Age: 90", 0, time.Minute},
		{"Age: 0|Age: 60", 0, 0},
		{"Age:|Age: 60", 0, time.Minute},
		{"Age: abc, 60", 0, 0},
		{"Age: abc|Age: 60", 0, 0},
		// Too large (§1.2.2).
		{"Age: 2147483647", 0, 2147483647 * time.Second},
		{"Age: 2147483648", 0, semantics.Forever * time.Second},
		{"Age: 2147483649", 0, semantics.Forever * time.Second},
		{"Age: 99999999999999999999999999999", 0, semantics.Forever * time.Second},
		{"Age: 99999999999999999999999999999", time.Hour, semantics.Forever * time.Second},
	}
	each(t, table, func(t *testing.T, row struct {
		lines string
		delay time.Duration
		want  time.Duration
	},
	) {
		a := answer("", row.lines)
		a.Header.Add([]byte("Cache-Control"), []byte("max-age=60"))
		a.Requested = a.Received.Add(-row.delay)
		v := semantics.Judge(&semantics.Rules{}, a)
		if got := time.Duration(arrived.UnixNano() - v.Born); got != row.want {
			t.Errorf("%q after %v: %v, want %v", row.lines, row.delay, got, row.want)
		}
		if got, want := semantics.Age(v.Born, arrived.UnixNano()), int64(row.want/time.Second); got != want {
			t.Errorf("%q after %v: Age %d, want %d", row.lines, row.delay, got, want)
		}
	})
}

// The apparent age is in whole seconds: a response that comes within the second
// of its Date has none.
func TestApparentAgeIsInWholeSeconds(t *testing.T) {
	a := answer("", "Cache-Control: max-age=1")
	a.Received = arrived.Add(999 * time.Millisecond)
	a.Requested = a.Received
	if v := semantics.Judge(&semantics.Rules{}, a); v.Born != a.Received.UnixNano() {
		t.Errorf("it was born %v ago", time.Duration(a.Received.UnixNano()-v.Born))
	}
}

func TestAge(t *testing.T) {
	const second = int64(time.Second)
	each(t, []struct{ born, now, want int64 }{
		{0, 0, 0},
		{0, second - 1, 0},
		{0, second, 1},
		{0, 2*second - 1, 1},
		{second, 0, 0},
		{-5 * second, 5 * second, 10},
		{0, math.MaxInt64, semantics.Forever},
		{math.MinInt64, math.MaxInt64, semantics.Forever},
		{math.MaxInt64, math.MinInt64, 0},
		{math.MinInt64, 0, semantics.Forever},
		{math.MinInt64, math.MinInt64, 0},
	}, func(t *testing.T, row struct{ born, now, want int64 }) {
		if got := semantics.Age(row.born, row.now); got != row.want {
			t.Errorf("Age(%d, %d) = %d, want %d", row.born, row.now, got, row.want)
		}
	})
}
