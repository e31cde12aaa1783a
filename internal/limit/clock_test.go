package limit

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestTheClockGoesOnFromTheWallClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClock()
		begin := time.Now()
		if got := c.now(begin); got != begin.UnixNano() {
			t.Errorf("began at %d, want %d", got, begin.UnixNano())
		}
		time.Sleep(90 * time.Minute)
		if got := c.now(time.Now()) - c.now(begin); got != int64(90*time.Minute) {
			t.Errorf("%v went by", time.Duration(got))
		}
	})
}

func TestStepsOfTheWallClockDoNotReachTheClock(t *testing.T) {
	begin := time.Now() // with a monotonic reading
	c := clock{start: begin, wall: begin.UnixNano() - int64(time.Hour)}
	// As if the wall clock had been set forward by an hour: only what is monotonic
	// counts, from the wall clock of before.
	if got, want := c.now(begin.Add(time.Second)), begin.UnixNano()-int64(time.Hour)+int64(time.Second); got != want {
		t.Errorf("%d, want %d", got, want)
	}
	// Without a monotonic reading there is the wall clock to go by.
	plain := clock{start: time.Unix(100, 0), wall: 100e9}
	if got := plain.now(time.Unix(101, 5)); got != 101e9+5 {
		t.Errorf("%d", got)
	}
}
