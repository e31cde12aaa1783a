package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/bench/internal/stats"
	"github.com/sluice-gateway/sluice/internal/limit/meter"
)

// The model beside reality. -real measures four gateways and keeps what they did
// in real.json; the document is made of that, and of the same rates played in the
// model, whether or not anything was measured this time.

//go:embed real.json
var kept []byte

// measured is one run of -real.
type measured struct {
	Commit  string    `json:"commit"`
	Date    time.Time `json:"date"`
	CPU     string    `json:"cpu"`
	Cores   int       `json:"cores"`
	Kernel  string    `json:"kernel"`
	Redis   string    `json:"redis"` // version
	Seconds float64   `json:"seconds"`
	Shares  []float64 `json:"shares"` // of the traffic, by gateway
	Cases   []*trial  `json:"cases"`
}

// trial is one limit under one load.
type trial struct {
	Limit   limit     `json:"limit"`
	Offered float64   `json:"offered"` // of the limit
	Runs    []outcome `json:"runs"`
}

// limit is a token bucket with a burst of one second.
type limit struct {
	Name      string  `json:"name"`
	Rate      int64   `json:"rate"` // requests/s
	Scope     string  `json:"scope"`
	Overshoot float64 `json:"overshoot"` // per cent; leased only
}

// outcome is what one run showed.
type outcome struct {
	Asked    []int64 `json:"asked"` // by gateway, and …
	Admitted []int64 `json:"admitted"`
	Exact    int64   `json:"exact"` // what one exact bucket admits of the same requests
	Over     float64 `json:"over"`  // above the limit in the worst interval, share of the capacity; see above
	Calls    int64   `json:"calls"` // scripts that Redis ran
	Trip     float64 `json:"trip"`  // median round trip of the gateways' calls, ms
	Lag      float64 `json:"lag"`   // by how much requests were sent late, ms: the worst gateway's 99th percentile
	Latency  float64 `json:"latency"`
	Used     float64 `json:"used"`   // cores: gateways, Redis and load
	Others   float64 `json:"others"` // cores: everything else on the machine
}

func sum(list []int64) (n int64) {
	for _, v := range list {
		n += v
	}
	return n
}

// admitted is the share of the requests that was admitted.
func (o *outcome) admitted() float64 { return float64(sum(o.Admitted)) / float64(sum(o.Asked)) }

func (o *outcome) missed() float64 {
	return float64(max(o.Exact-sum(o.Admitted), 0)) / float64(max(o.Exact, 1))
}
func (o *outcome) calls() float64 { return float64(o.Calls) / float64(sum(o.Asked)) }

// gateway is the share of its own requests that a gateway admitted.
func (o *outcome) gateway(i int) float64 { return float64(o.Admitted[i]) / float64(o.Asked[i]) }

// median is that of a figure of all runs.
func (t *trial) median(figure func(*outcome) float64) float64 {
	var all []float64
	for i := range t.Runs {
		all = append(all, figure(&t.Runs[i]))
	}
	return stats.Of(all).Median
}

// most is the largest of a figure of all runs.
func (t *trial) most(figure func(*outcome) float64) float64 {
	var all []float64
	for i := range t.Runs {
		all = append(all, figure(&t.Runs[i]))
	}
	return stats.Of(all).Max
}

// play plays the trial in the model, with the round trip that was measured.
func (t *trial) play(m *measured) (*outcome, error) {
	trip := t.median(func(o *outcome) float64 { return o.Trip })
	r, err := newModel(scenario{
		gateways: len(m.Shares), limit: t.Limit.Rate, slack: t.Limit.Overshoot / 100, exact: t.Limit.Scope == "exact",
		trip: time.Duration(trip * float64(time.Millisecond)), length: time.Duration(m.Seconds * float64(time.Second)),
		clients: 1, rate: t.Offered * float64(t.Limit.Rate), seed: 1, shares: m.Shares,
	})
	if err != nil {
		return nil, err
	}
	r.run()
	c := r.clients[0]
	o := &outcome{
		Exact: c.exact, Calls: r.settled + r.taken + r.posted, Trip: trip,
		Over: c.level.top/float64(r.meter.Capacity) - 1,
	}
	for _, g := range r.gateways {
		o.Asked = append(o.Asked, g.asked)
		o.Admitted = append(o.Admitted, g.admitted)
	}
	return o, nil
}

// bucket is the limit as an exact one.
func (l *limit) bucket() (meter.Limit, error) {
	return meter.New(meter.TokenBucket, l.Rate, time.Second, meter.Options{Burst: l.Rate})
}

// asked is the requests that were sent to one gateway: at an even rate from began on.
type asked struct {
	began int64 // ns
	rate  float64
	n     int64
}

// exactly is how many of the requests to all gateways one bucket admits, asked
// about each when it was due.
func exactly(l meter.Limit, all []asked) (admitted int64) {
	var cell meter.Cell
	done := make([]int64, len(all))
	for {
		first, at := -1, int64(0)
		for i, a := range all {
			if done[i] == a.n {
				continue
			}
			if due := a.began + int64(float64(done[i])/a.rate*1e9); first < 0 || due < at {
				first, at = i, due
			}
		}
		if first < 0 {
			return admitted
		}
		done[first]++
		if v, _ := l.Take(&cell, at, 1); v.OK {
			admitted++
		}
	}
}

// count is what had become of all requests at a time.
type count struct {
	at       int64 // ns
	admitted int64
	flying   int64 // sent, and not answered
}

// above is by how much what was admitted between any two counts exceeds what the
// bucket allows in that time, as far as is certain: whatever was under way at the
// first one may have been decided before it. It is a share of the capacity,
// negative when it never came up to it.
func above(l *limit, counts []count) float64 {
	least := 0.0
	worst := -float64(l.Rate)
	for i, c := range counts {
		line := float64(l.Rate) * float64(c.at-counts[0].at) / 1e9
		if i > 0 {
			worst = max(worst, float64(c.admitted)-line-least-float64(l.Rate))
		}
		if before := float64(c.admitted+c.flying) - line; i == 0 || before < least {
			least = before
		}
	}
	return worst / float64(l.Rate)
}

const besideHead = "## Beside four real gateways"

const besideText = besideHead + `

` + "`cd bench && go run ./limitsim -real`" + ` starts a Redis and four gateways on one machine, and sends one client's requests to them at an even rate,
whether or not answers come: seven tenths to the first gateway, a tenth to each other one, %.0f s a run. The limits are token buckets with a
burst of one second. The gateways answer by themselves. The model plays the same rates with the round trip that the gateways measured.

`

// read parses what -real has kept.
func read(text []byte) (*measured, error) {
	m := &measured{}
	if err := json.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("real.json: %w", err)
	}
	return m, nil
}

// section is the document's part about the real run; nothing when there was none.
func (m *measured) section() (string, error) {
	if len(m.Cases) == 0 {
		return "", nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, besideText, m.Seconds)
	b.WriteString("| limit | offered | | admitted | first gateway | others | above | falsely refused | scripts a request | round trip |\n" +
		"|---|--:|---|--:|--:|--:|--:|--:|--:|--:|\n")
	latency := func(o *outcome) float64 { return o.Latency }
	used, most, others, lag := 0.0, -1.0, 0.0, 0.0
	worst, latencies := &outcome{}, [2]float64{} // of leases above the limit; and the 99th percentiles, least and median, of the slowest case
	for _, t := range m.Cases {
		played, err := t.play(m)
		if err != nil {
			return "", err
		}
		name := fmt.Sprintf("%s/s %s", thousands(t.Limit.Rate), t.Limit.Scope)
		if t.Limit.Overshoot > 0 {
			name += fmt.Sprintf(", %g%%", t.Limit.Overshoot)
		}
		t.row(&b, name, "real", t.median)
		(&trial{Limit: t.Limit, Offered: t.Offered, Runs: []outcome{*played}}).row(&b, "", "model", func(f func(*outcome) float64) float64 { return f(played) })
		used = max(used, t.median(func(o *outcome) float64 { return o.Used }))
		most = max(most, t.most(func(o *outcome) float64 { return o.Over }))
		others = max(others, t.most(func(o *outcome) float64 { return o.Others }))
		lag = max(lag, t.median(func(o *outcome) float64 { return o.Lag }))
		if l := t.median(latency); l > latencies[1] {
			latencies = [2]float64{-t.most(func(o *outcome) float64 { return -o.Latency }), l}
		}
		for i := range t.Runs {
			if o := &t.Runs[i]; t.Offered > 1 && t.Limit.Scope == "leased" && o.missed() >= worst.missed() {
				worst = o
			}
		}
	}
	fmt.Fprintf(&b, besideNotes, len(m.Cases[0].Runs), m.Cores, m.CPU, m.Kernel, m.Redis, m.Commit, m.Date.UTC().Format("2 January 2006"),
		used, m.Cores, others, lag, latencies[1], latencies[0], 100*most, worst.Others, -100*worst.Over, 100*worst.missed())
	return b.String(), nil
}

func (t *trial) row(b *strings.Builder, name, who string, figure func(func(*outcome) float64) float64) {
	offered := ""
	if name != "" {
		offered = fmt.Sprintf("%g ×", t.Offered)
	}
	rest := figure(func(o *outcome) float64 {
		return float64(sum(o.Admitted[1:])) / float64(sum(o.Asked[1:]))
	})
	over := "–"
	if t.Offered > 1 {
		over = fmt.Sprintf("%+.2f%%", 100*figure(func(o *outcome) float64 { return o.Over }))
	}
	fmt.Fprintf(b, "| %s | %s | %s | %.2f%% | %.1f%% | %.1f%% | %s | %.2f%% | %.2f%% | %.2f ms |\n", name, offered, who,
		100*figure((*outcome).admitted), 100*figure(func(o *outcome) float64 { return o.gateway(0) }), 100*rest,
		over, 100*figure((*outcome).missed), 100*figure((*outcome).calls),
		figure(func(o *outcome) float64 { return o.Trip }))
}

const besideNotes = `
Medians of %d runs, on %d cores of %s (Linux %s, Redis %s, commit %s, %s). Gateways, Redis and load share the cores, and used at
most %.2f of %d; other work on the machine used up to %.2f. The rates are chosen so that the cores carry 1.5 times the limit; with each request
a script they are full at 9,000/s, so the exact limit is smaller. In the case that
suffered most 99%% of the requests were sent within %.1f ms of their time, and 99%% of those admitted were answered within %.0f ms (within %.0f ms in the
best of its runs, so what else the machine does decides that).

- *Admitted* is the share of all requests, then of those to the first gateway and to the others.
- *Above* is as above. Of the real gateways it is what is certain from outside, where a request was decided at some time between
  question and answer; the most in any run was %+.2f%%.
- *Falsely refused* is by how many fewer were admitted than one exact bucket admits of the same requests, asked when they were due.
- *Scripts* are Redis's own count. The *round trip* is the gateways' own median, from the call to its answer.

Where the two differ, and what both show:

- Real gateways run a few scripts more: each sends a heartbeat a second, which the model leaves out. Above the limit, exact runs a few less: a
  refusal is remembered until the moment it names.
- Real gateways stay a little further below the limit with leases. In part that is how it is seen, since what is under way is left out. And the
  model's round trips vary by a factor of two, while real programs also wait for a core; a gateway that waits for units admits nothing. What
  fills the bucket meanwhile is admitted later, and what would overfill it is lost. So it grows with what else runs: the worst run, beside
  others that used %.2f cores, stayed %.1f%% below and falsely refused %.2f%%.
- Leases favour gateways with little traffic: what they ask for is nearly always there, and the first gateway, which asks for
  most, bears the refusals. The model has the same.
- Exactly decided, a unit is whose request comes first once it is there. The model's even arrivals meet the even refill in a
  fixed rhythm, and the round trip settles who comes first; in reality jitter mixes the order. So the first gateway's part differs, and the sum does not.
`
