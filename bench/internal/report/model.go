// Package report holds what a bench run measured, as data that is kept as JSON,
// and turns it into the tables that people read.
package report

import (
	"fmt"
	"time"

	"github.com/sluice-gateway/sluice/bench/internal/attribution"
	"github.com/sluice-gateway/sluice/bench/internal/stats"
)

// Run is one run of the bench.
type Run struct {
	Commit    string     `json:"commit"` // short hash, with -dirty when the tree differs from it
	Date      time.Time  `json:"date"`
	Machine   Machine    `json:"machine"`
	Settings  Settings   `json:"settings"`
	Versions  []Version  `json:"versions"`
	Scenarios []Scenario `json:"scenarios"`
	Notes     []string   `json:"notes"`
}

// Machine is what it ran on. It has no name.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	Memory int64  `json:"memory"` // bytes
}

// Settings are how it was measured.
type Settings struct {
	Base    string        `json:"base"` // the gateway that the others are compared with
	Rounds  int           `json:"rounds"`
	Warm    time.Duration `json:"warm"`
	Window  time.Duration `json:"window"`
	Profile time.Duration `json:"profile,omitempty"` // of a limit; 0: none
	Threads int           `json:"threads"`           // of the load generator
	Pinning string        `json:"pinning"`           // in words
}

// Version is a program that took part.
type Version struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Scenario is one kind of load with so many connections.
type Scenario struct {
	Name     string    `json:"name"`
	About    string    `json:"about"`
	Conns    int       `json:"conns"`
	Streams  int       `json:"streams,omitempty"` // of HTTP/2 on each
	Gateways []Gateway `json:"gateways"`
	// CPU holds, for each rival, the base's and the rival's CPU per request in
	// µs, measured one right after the other.
	CPU map[string][]stats.Pair `json:"cpu"`
}

// Gateway is what one product did in a scenario.
type Gateway struct {
	Name   string   `json:"name"`
	Lacks  string   `json:"lacks,omitempty"`  // why it took no part
	Failed string   `json:"failed,omitempty"` // what went wrong; its figures are void
	Closed []Closed `json:"closed,omitempty"` // rounds as fast as it goes
	Open   []Open   `json:"open,omitempty"`   // rounds at a fixed rate
	// Limit is its CPU per request with the scenario's rate limit and without, in
	// µs, measured one right after the other.
	Limit []stats.Pair `json:"limit,omitempty"`
	// Profiles are windows under full load with the limit, each with its CPU profile.
	Profiles []Profile `json:"profiles,omitempty"`
}

// Profile is one window whose CPU the gateway's own profile attributes.
type Profile struct {
	Requests uint64  `json:"requests"`
	CPU      float64 `json:"cpu"` // of the gateway, µs per request, as the system accounts it
	attribution.Split
}

// Seen is for how much of the accounted CPU the samples stand.
func (p Profile) Seen() float64 { return p.Seconds * 1e6 / (p.CPU * float64(p.Requests)) }

// Attribution is what the limiter takes by all profiles of a gateway, in µs of CPU per
// request.
type Attribution struct {
	All     stats.Summary
	Request stats.Summary // while a request is served
	Beside  stats.Summary // in goroutines of its own
	Nobody  stats.Summary // not the limiter's alone: scheduler and collector
	CPU     float64       // of the whole gateway
	Seconds float64       // of CPU that was sampled
}

// Attribution sums up the profiles.
func (g *Gateway) Attribution() Attribution {
	var sum attribution.Split
	var cpu, requests float64
	for _, p := range g.Profiles {
		sum = sum.Plus(p.Split)
		cpu += p.CPU * float64(p.Requests)
		requests += float64(p.Requests)
	}
	a := Attribution{CPU: cpu / requests, Seconds: sum.Seconds}
	of := func(n int64) stats.Summary { return stats.Share(n, sum.Samples, a.CPU) }
	a.All, a.Request, a.Beside, a.Nobody = of(sum.Part()), of(sum.Request), of(sum.Beside), of(sum.Nobody)
	return a
}

// String is the figures in a line.
func (a Attribution) String() string {
	return fmt.Sprintf("%s µs of %.1f: %s in the request, %s beside it; scheduler and collector %s; %.1f s of samples",
		span(a.All, 2), a.CPU, span(a.Request, 2), span(a.Beside, 2), span(a.Nobody, 1), a.Seconds)
}

// Closed is one window of as many requests as the gateway takes.
type Closed struct {
	Requests uint64  `json:"requests"`
	Rate     float64 `json:"rate"`            // requests per second
	User     float64 `json:"user"`            // CPU of the gateway, µs per request
	System   float64 `json:"system"`          //
	LoadCPU  float64 `json:"load_cpu"`        // CPU of the generator, µs per request
	Origin   float64 `json:"origin"`          // CPU of the origin, µs per request
	Store    float64 `json:"store,omitempty"` // CPU of the Redis beside it, µs per request
	Resident int64   `json:"resident"`        // bytes, at the end of the window
	Latency  Latency `json:"latency"`         // under saturation
	Allocs   float64 `json:"allocs"`          // heap allocations per request; negative: not known
	Conns    uint64  `json:"conns_new"`       // connections that had to be opened again
}

// CPU is user and system time together, µs per request.
func (c Closed) CPU() float64 { return c.User + c.System }

// Open is one window at a fixed rate, and the same of the origin alone right
// before or after it.
type Open struct {
	Rate    float64 `json:"rate"` // requests per second
	CPU     float64 `json:"cpu"`  // of the gateway, µs per request
	Latency Latency `json:"latency"`
	Alone   Latency `json:"alone"` // the origin without a gateway
	Lag     float64 `json:"lag"`   // p99 of how late the generator sent, ms
}

// Latency is in milliseconds.
type Latency struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// Minus is the added latency, quantile by quantile.
func (l Latency) Minus(m Latency) Latency {
	return Latency{l.P50 - m.P50, l.P99 - m.P99, l.P999 - m.P999, l.Max - m.Max}
}

// Failures are the gateways that could not be measured, in words.
func (r *Run) Failures() []string {
	var out []string
	for _, s := range r.Scenarios {
		for _, g := range s.Gateways {
			if g.Failed != "" {
				out = append(out, g.Name+" in "+s.Title()+": "+g.Failed)
			}
		}
	}
	return out
}

func (s *Scenario) gateway(name string) *Gateway {
	for i := range s.Gateways {
		if g := &s.Gateways[i]; g.Name == name && g.Failed == "" && len(g.Closed) > 0 {
			return g
		}
	}
	return nil
}

// over sums up one figure of the closed rounds.
func (g *Gateway) over(figure func(Closed) float64) stats.Summary {
	var v []float64
	for _, c := range g.Closed {
		v = append(v, figure(c))
	}
	return stats.Of(v)
}

// at sums up one figure of the rounds at a fixed rate.
func (g *Gateway) at(figure func(Open) float64) stats.Summary {
	var v []float64
	for _, o := range g.Open {
		v = append(v, figure(o))
	}
	return stats.Of(v)
}
