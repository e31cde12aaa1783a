package apptest

import (
	"slices"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/limit/meter"
)

// What a limit must have done with requests is known from when they were decided,
// and of that a client knows only that it was between sent and got. So counts here
// are ranges: the least and the most that an exact limiter can have admitted.

// plausible is how many of one client's shots, in order, l may admit. Admissions
// of a limit that is always asked for more than it gives depend on the time
// between the first request and the last, so those are taken as near together and
// as far apart as can be, besides all early and all late.
func plausible(l meter.Limit, shots []shot) (least, most int) {
	least = len(shots)
	half := len(shots) / 2
	for _, late := range [][2]bool{{false, false}, {true, true}, {false, true}, {true, false}} {
		var c meter.Cell
		n := 0
		for i := range shots {
			at := shots[i].sent
			if i < half && late[0] || i >= half && late[1] {
				at = shots[i].got
			}
			if v, _ := l.Take(&c, at, l.Scale); v.OK {
				n++
			}
		}
		least, most = min(least, n), max(most, n)
	}
	return least, most
}

// span is when a shot was decided, and one admitted.
type span struct{ sent, got int64 }

func admissions(shots []shot) []span {
	var all []span
	for i := range shots {
		if s := &shots[i]; s.admitted() {
			all = append(all, span{s.sent, s.got})
		}
	}
	slices.SortFunc(all, func(a, b span) int { return int(a.got - b.got) })
	return all
}

// overshoot is by how many requests admissions exceed a bucket's promise, capacity
// + rate × time in any stretch of time, as far as is certain: a request belongs to
// a stretch when it was sent and answered within it. Stretches begin on a grid.
func overshoot(shots []shot, capacity, perSecond float64) float64 {
	all := admissions(shots)
	if len(all) == 0 {
		return 0
	}
	begin := all[0].sent
	for _, s := range all {
		begin = min(begin, s.sent)
	}
	end := all[len(all)-1].got
	grid := max(10*time.Millisecond.Nanoseconds(), (end-begin)/1000)
	worst := -capacity
	for from := begin; from < end; from += grid {
		n := 0
		first, _ := slices.BinarySearchFunc(all, from, func(s span, t int64) int { return int(s.got - t) })
		for _, s := range all[first:] {
			if s.sent < from {
				continue
			}
			n++
			worst = max(worst, float64(n)-capacity-perSecond*float64(s.got-from)/1e9)
		}
	}
	return worst
}

// within counts the shots that were certainly admitted in [from, to), and those
// that may have been.
func within(shots []shot, from, to int64) (least, most int) {
	for i := range shots {
		s := &shots[i]
		if !s.admitted() || s.got < from || s.sent >= to {
			continue
		}
		most++
		if s.sent >= from && s.got < to {
			least++
		}
	}
	return least, most
}

// exactly is how many of the shots one counter asked about each would admit: the
// lesser of what it would do when they were sent and when they were answered.
func exactly(l meter.Limit, shots []shot) int {
	count := func(at func(*shot) int64) int {
		all := slices.Clone(shots)
		slices.SortStableFunc(all, func(a, b shot) int { return int(at(&a) - at(&b)) })
		var c meter.Cell
		n := 0
		for i := range all {
			if v, _ := l.Take(&c, at(&all[i]), l.Scale); v.OK {
				n++
			}
		}
		return n
	}
	return min(count(func(s *shot) int64 { return s.sent }), count(func(s *shot) int64 { return s.got }))
}

func limitOf(t testing.TB, a meter.Algorithm, n int64, per time.Duration, o meter.Options) meter.Limit {
	t.Helper()
	l, err := meter.New(a, n, per, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestOvershoot checks the measure itself.
func TestOvershoot(t *testing.T) {
	at := func(ms ...int64) []shot {
		var all []shot
		for _, m := range ms {
			all = append(all, shot{sent: m * 1e6, got: m*1e6 + 1, status: 200})
		}
		return all
	}
	even := []int64{0, 0, 0, 0, 0} // a full bucket of 5, then 10/s
	for i := range int64(50) {
		even = append(even, 100*(i+1))
	}
	if got := overshoot(at(even...), 5, 10); got > 0.01 {
		t.Errorf("what a bucket admits exceeds it by %v", got)
	}
	if got := overshoot(at(append(even, 5000, 5000, 5000)...), 5, 10); got < 2.9 || got > 3.1 {
		t.Errorf("three more exceed it by %v", got)
	}
	wide := at(even...)
	for range 3 {
		wide = append(wide, shot{sent: 4e9, got: 6e9, status: 200})
	}
	if got := overshoot(wide, 5, 10); got > 0.01 {
		t.Errorf("three that may have been decided later exceed it for certain by %v", got)
	}
	if least, most := within(wide, 4e9-1, 5e9+5); least != 11 || most != 14 {
		t.Errorf("%d to %d in the last second, want 11 to 14", least, most)
	}
}
