//go:build linux

package load

// schedule is the arrivals of one worker in an open loop at a constant rate. The
// workers' arrivals interleave evenly: of n workers, number k has the arrivals k,
// k+n, k+2n and so on of the whole rate. Times are nanoseconds from the start.
type schedule struct {
	first    float64
	interval float64
	sent     int64 // how many have been taken
}

func newSchedule(rate float64, worker, workers int) schedule {
	interval := 1e9 / rate
	return schedule{first: interval * float64(worker), interval: interval * float64(workers)}
}

// next is when the next arrival is due. It is worked out from the start, so
// rounding does not add up.
func (s *schedule) next() int64 { return int64(s.first + s.interval*float64(s.sent)) }

// take hands out the next arrival when it is due by now.
func (s *schedule) take(now int64) (due int64, ok bool) {
	due = s.next()
	if due > now {
		return 0, false
	}
	s.sent++
	return due, true
}
