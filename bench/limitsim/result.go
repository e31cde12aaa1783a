package main

import "math"

// result is what one run showed.
type result struct {
	scenario
	Leased   bool // or the limit was too small for leases, and all was exact
	Requests int64
	Seconds  float64
	Calls    int64 // to the store: settlements, single decisions, posts
	// Over is by how much the admissions of the worst client exceeded its limit in
	// the worst interval, as a share of the capacity; negative: below it.
	Over float64
	// False is what clients near or above their limit were refused although the
	// exact limit admits it, as a share of what that admits.
	False   float64
	Busy    float64 // calls a request of clients that ask for more than half of their limit
	Classes []class
	Series  []sample
}

// class is the clients of one decade of traffic.
type class struct {
	From     float64 // requests/s of one client
	Requests int64
	Calls    int64
}

func (r *result) callsPerSecond() float64  { return float64(r.Calls) / r.Seconds }
func (r *result) callsPerRequest() float64 { return float64(r.Calls) / float64(max(r.Requests, 1)) }

// play runs a scenario.
func play(s scenario) (*result, error) {
	m, err := newModel(s)
	if err != nil {
		return nil, err
	}
	m.run()
	r := &result{scenario: s, Leased: m.leases, Seconds: s.length.Seconds(), Over: -1, Series: m.series}
	r.Calls = m.settled + m.taken + m.posted
	var exact, missed, busy, busyCalls int64
	decades := map[int]*class{}
	for _, c := range m.clients {
		if c == nil {
			continue
		}
		r.Requests += c.asked
		rate := float64(c.asked) / r.Seconds
		r.Over = max(r.Over, c.level.top/float64(m.meter.Capacity)-1)
		if rate > float64(s.limit)/2 {
			exact += c.exact
			missed += max(c.exact-c.leased, 0)
			busy += c.asked
			busyCalls += c.calls
		}
		d := int(math.Floor(math.Log10(rate)))
		if decades[d] == nil {
			decades[d] = &class{From: math.Pow10(d)}
		}
		decades[d].Requests += c.asked
		decades[d].Calls += c.calls
	}
	r.False = float64(missed) / float64(max(exact, 1))
	r.Busy = float64(busyCalls) / float64(max(busy, 1))
	for d := -3; d <= 8; d++ {
		if c := decades[d]; c != nil {
			r.Classes = append(r.Classes, *c)
		}
	}
	return r, nil
}
