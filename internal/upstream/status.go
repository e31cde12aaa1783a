package upstream

import "time"

// Status is how an upstream is now. The counts of its targets are read one after
// the other: they are close to each other in time, not of one moment.
type Status struct {
	Name    string         `json:"name"`
	Balance string         `json:"balance,omitempty"`
	Respond bool           `json:"respond,omitempty"` // a fixed answer; there are no targets
	Targets []TargetStatus `json:"targets,omitempty"`
}

// TargetStatus is one address of a target. A target whose name has no address, or
// whose weight is 0, has one entry without an address.
type TargetStatus struct {
	URL      string  `json:"url"`
	Address  string  `json:"address,omitempty"`
	Weight   float64 `json:"weight"` // a target's, divided among its addresses
	InFlight int64   `json:"in_flight"`
	Open     int     `json:"open"` // connections, idle ones and those being made too
	Idle     int     `json:"idle"`
	Waiting  int     `json:"waiting"`   // exchanges that wait for a connection
	Requests uint64  `json:"requests"`  // exchanges that were sent there, retries too
	Failures uint64  `json:"failures"`  // tries without a valid response
	Out      bool    `json:"set_aside"` // it could not be connected to
	// RetryAt is when one that is set aside is looked after next.
	RetryAt time.Time `json:"retry_at,omitzero"`
	// Error is why the last look-up of the target's name failed.
	Error string `json:"dns_error,omitempty"`
}

// Status reports on u.
func (u *Upstream) Status() Status {
	s := Status{Name: u.name, Respond: u.fixed != nil}
	if u.fixed != nil {
		return s
	}
	s.Balance = u.balance
	if s.Balance == "" {
		s.Balance = "p2c"
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, t := range u.targets {
		found := false
		for _, e := range u.set.Load().endpoints {
			if e.target == t {
				found = true
				s.Targets = append(s.Targets, e.status())
			}
		}
		if !found {
			s.Targets = append(s.Targets, TargetStatus{URL: t.url, Weight: float64(t.weight)})
		}
		if t.err != nil {
			s.Targets[len(s.Targets)-1].Error = t.err.Error()
		}
	}
	return s
}

func (e *endpoint) status() TargetStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := TargetStatus{
		URL: e.target.url, Address: e.name, Weight: e.weight(), InFlight: e.inFlight.Load(),
		Open: e.open, Idle: len(e.idle), Waiting: len(e.waiting),
		Requests: e.requests, Failures: e.failures, Out: e.out.Load(),
	}
	if s.Out {
		s.RetryAt = e.retryAt
	}
	return s
}

// requests is how many exchanges were sent to the endpoints that there are, and
// those that there were.
func (u *Upstream) requests() uint64 {
	n := u.gone.Load()
	for _, e := range u.set.Load().endpoints {
		e.mu.Lock()
		n += e.requests
		e.mu.Unlock()
	}
	return n
}
