package redis

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-gateway/sluice/internal/limit/meter"
	"github.com/sluice-gateway/sluice/internal/store"
	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
)

// The scripts against internal/limit/meter: random limits and histories with a
// clock that also stands still and steps back, by several gateways, compared field
// by field. Each history's commands are sent together, then its answers are
// compared in order.

// history collects commands, and what must come back.
type history struct {
	c     *Client
	now   int64 // Unix ns, whole µs
	calls []*call
	check []func(k *call) string
	trace []string // of the steps, for who has to find out
	fast  bool     // Take asks the fast script first: then a step's answer decides what is sent
}

// at makes the commands as of the history's time and gateway.
func (h *history) add(op func(*call), check func(*call) string, format string, args ...any) {
	h.trace = append(h.trace, fmt.Sprintf("%d %d %s: ", len(h.calls), h.now, h.c.gateway)+fmt.Sprintf(format, args...))
	k := h.c.calls.get()
	op(k)
	for i := range k.commands {
		if m := &k.commands[i]; m.full != nil && !h.fast {
			m.script, m.full = m.full, nil
		}
	}
	h.calls = append(h.calls, k)
	h.check = append(h.check, check)
}

func (h *history) take(gateway string, charges []store.Charge, want []meter.Verdict) {
	h.c.gateway = gateway
	h.add(func(k *call) { h.c.charge(k, &takeScripts, charges, len(charges), true) }, func(k *call) string {
		got := make([]meter.Verdict, len(charges))
		if err := readVerdicts(k, charges, got); err != nil {
			return err.Error()
		}
		for i := range got {
			if got[i] != want[i] {
				return fmt.Sprintf("Take %+v of %+v\nLua %+v\nGo  %+v", charges[i], *charges[i].Limit, got[i], want[i])
			}
		}
		return ""
	}, "take %+v: %+v", charges, want)
}

func (h *history) post(gateway string, charge store.Charge) {
	h.c.gateway = gateway
	h.add(func(k *call) { h.c.charge(k, &postScripts, []store.Charge{charge}, maxKeys, false) }, func(k *call) string { return k.replies[0].text }, "post %+v", charge)
}

func (h *history) settle(gateway string, s store.Settlement, want meter.Granted) {
	h.c.gateway = gateway
	h.add(func(k *call) { h.c.settlements(k, []store.Settlement{s}) }, func(k *call) string {
		var got [1]store.Grant
		if err := readGrants(k, []store.Settlement{s}, got[:]); err != nil {
			return err.Error()
		}
		if g := got[0]; (meter.Granted{Granted: g.Granted, Level: g.Level, Reset: g.Reset, Valid: g.Valid, Retry: g.Retry}) != want {
			return fmt.Sprintf("Settle %+v of %+v\nLua %+v\nGo  %+v", s, *s.Limit, g, want)
		}
		return ""
	}, "settle %+v: %+v", s, want)
}

// send executes the history and compares.
func (h *history) send(t *rapid.T) {
	all, client := &call{}, *h.c.client.Load()
	for _, k := range h.calls {
		all.commands = append(all.commands, k.commands...)
		all.replies = append(all.replies, k.replies...)
	}
	if h.fast {
		for i := range all.commands {
			all.replies[i] = once(client, &all.commands[i])
		}
	} else {
		together(client, all)
	}
	n := 0
	for i, k := range h.calls {
		n += copy(k.replies, all.replies[n:])
		for _, r := range k.replies {
			if r.err != nil {
				t.Fatalf("step %d: %v", i, r.err)
			}
		}
		if diff := h.check[i](k); diff != "" {
			t.Fatalf("step %d: %s\n%s", i, diff, strings.Join(h.trace[max(i-30, 0):i+1], "\n"))
		}
		h.c.calls.put(k)
	}
}

var keys atomic.Int64 // a new key for every history

func twin(t *testing.T, f func(t *rapid.T, h *history, key string)) {
	server := redistest.Start(t)
	// One without a heartbeat, that changes its name and time with every step.
	c := &Client{prefix: "sluice:"}
	c.client.Store(dial(t, Options{}, server.Addr()).client.Load())
	for _, all := range []scripts{takeScripts, postScripts, settleScripts} {
		for _, s := range []*script{all.bucket, all.window, all.log, all.slots, all.all} {
			server.Do("SCRIPT", "LOAD", s.text) // or else the first histories run out of order
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		h := &history{c: c, now: rapid.Int64Range(0, 20*365*86400).Draw(t, "start")*int64(time.Second) + meter.Epoch}
		c.now = func() string { return strconv.FormatInt(h.now/1000, 10) }
		c.wall = func() int64 { return h.now }
		f(t, h, fmt.Sprintf("t:{%d}", keys.Add(1)))
		h.send(t)
	})
}

// drawLimit is any limit of the algorithms.
func drawLimit(t *rapid.T, algorithms ...meter.Algorithm) *meter.Limit {
	for {
		a := rapid.SampledFrom(algorithms).Draw(t, "algorithm")
		n := rapid.OneOf(rapid.Int64Range(1, 20), rapid.Int64Range(1, 5000), rapid.Int64Range(1, 1<<40)).Draw(t, "n")
		per := rapid.OneOf(
			rapid.SampledFrom([]time.Duration{time.Second, 90 * time.Second, time.Minute, time.Hour, 7 * time.Second, 24 * time.Hour, time.Millisecond}),
			rapid.Custom(func(t *rapid.T) time.Duration {
				return time.Duration(rapid.Int64Range(1, 86400*1000*1000).Draw(t, "µs")) * time.Microsecond
			})).Draw(t, "per")
		o := meter.Options{Scale: rapid.SampledFrom([]int64{1, 1, 1000}).Draw(t, "scale")}
		switch {
		case a <= meter.LeakyBucket && rapid.Bool().Draw(t, "with burst"):
			o.Burst = rapid.Int64Range(1, 3000).Draw(t, "burst")
		case a == meter.FixedWindow && rapid.IntRange(0, 3).Draw(t, "with period") == 0:
			o.Period = rapid.SampledFrom([]meter.Period{meter.Day, meter.Week, meter.Month}).Draw(t, "period")
		}
		if a == meter.LeakyBucket && rapid.Bool().Draw(t, "with queue") {
			o.Queue = rapid.Int64Range(1, 100).Draw(t, "queue")
		}
		if l, err := meter.New(a, n, per, o); err == nil {
			return &l
		}
	}
}

// drawStep is how far the clock goes, in whole µs, as suits the limit.
func drawStep(t *rapid.T, l *meter.Limit) int64 {
	spread := int64(max(l.Spread(), time.Second)) / 1000
	unit := max(spread*l.Scale/max(l.Capacity, 1), 1)
	us := rapid.OneOf(
		rapid.Just(int64(0)),
		rapid.Int64Range(0, 2*unit),
		rapid.Int64Range(0, 2*unit),
		rapid.Int64Range(0, spread/2),
		rapid.Int64Range(0, 1500000),
		rapid.Custom(func(t *rapid.T) int64 {
			if rapid.IntRange(0, 4).Draw(t, "far") > 0 {
				return 0
			}
			return rapid.Int64Range(-3*spread, 3*spread).Draw(t, "by")
		}),
	).Draw(t, "step")
	return us * 1000
}

func drawCost(t *rapid.T, l *meter.Limit) int64 {
	return rapid.OneOf(
		rapid.Just(l.Scale), rapid.Just(l.Scale),
		rapid.Int64Range(0, 2*l.Scale),
		rapid.Int64Range(0, l.Capacity/3+1),
		rapid.Int64Range(0, l.Capacity+l.Queue+2),
	).Draw(t, "cost")
}

// pool is a meter.Pool and when its leases are over, to know when nothing is left.
type pool struct {
	meter.Pool
	l      *meter.Limit
	key    string
	leases map[string]lease
}

type lease struct{ expiry, sent int64 }

// forget makes a pool that holds nothing a new one, and has Redis forget the key,
// as it does by itself, but at a time of its own.
func (p *pool) forget(h *history) {
	now := h.now
	for g, own := range p.leases {
		if p.l.Den > 0 && own.expiry <= now {
			delete(p.leases, g)
		}
	}
	if p.l.Den == 0 || len(p.leases) > 0 {
		return
	}
	v := p.Peek(p.l, now, 0) // looking, too, has it leak
	h.take("a", []store.Charge{{Key: p.key, Limit: p.l}}, []meter.Verdict{v})
	if v.Reset == 0 {
		p.Pool = meter.Pool{}
		h.add(func(k *call) { k.add(nil, []string{h.c.prefix + p.key, h.c.prefix + p.key + ":l"}) }, func(*call) string { return "" }, "forget %s", p.key)
	}
}

func TestTwinOfPool(t *testing.T) {
	algorithms := []meter.Algorithm{meter.TokenBucket, meter.LeakyBucket, meter.FixedWindow, meter.SlidingWindow}
	gateways := []string{"a", "b", "c"}
	twin(t, func(t *rapid.T, h *history, key string) {
		h.fast = rapid.IntRange(0, 2).Draw(t, "fast") == 0
		pools := make([]*pool, rapid.IntRange(1, 3).Draw(t, "keys"))
		for i := range pools {
			pools[i] = &pool{l: drawLimit(t, algorithms...), key: fmt.Sprint(key, i), leases: map[string]lease{}}
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			p := rapid.SampledFrom(pools).Draw(t, "key")
			by := drawStep(t, p.l)
			if by < 0 {
				for _, p := range pools {
					p.forget(h)
				}
			}
			h.now = max(h.now+by, meter.Epoch)
			for _, p := range pools {
				for g, own := range p.leases {
					p.leases[g] = lease{min(own.expiry, h.now+int64(meter.Lifetime)), own.sent}
				}
			}
			g := rapid.SampledFrom(gateways).Draw(t, "gateway")
			switch op := rapid.IntRange(0, 9).Draw(t, "operation"); {
			case op < 4 || op < 8 && p.l.Queue > 0:
				charge(t, h, g, pools)
			case op < 5:
				cost := rapid.Int64Range(-p.l.Capacity-1, 2*p.l.Capacity+1).Draw(t, "cost")
				p.Post(p.l, h.now, cost)
				h.post(g, store.Charge{Key: p.key, Limit: p.l, Cost: cost})
			case p.l.Queue == 0:
				settle(t, h, g, p)
			}
		}
	})
}

// charge takes from all pools or none.
func charge(t *rapid.T, h *history, g string, pools []*pool) {
	var charges []store.Charge
	var want []meter.Verdict
	fits := true
	for _, p := range pools {
		c := store.Charge{Key: p.key, Limit: p.l, Cost: drawCost(t, p.l)}
		v := p.Peek(p.l, h.now, c.Cost)
		charges, want = append(charges, c), append(want, v)
		fits = fits && v.OK
	}
	if fits {
		for i, p := range pools {
			want[i] = p.Take(p.l, h.now, charges[i].Cost)
		}
	}
	h.take(g, charges, want)
}

func settle(t *rapid.T, h *history, g string, p *pool) {
	units := rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, p.l.Scale), rapid.Int64Range(0, p.l.Capacity/4+1), rapid.Int64Range(0, p.l.Capacity+1))
	s := meter.Settle{
		Hold: units.Draw(t, "hold"), Give: units.Draw(t, "give"), Need: units.Draw(t, "need"),
		Slack: rapid.OneOf(rapid.Just(int64(0)), rapid.Just(p.l.Capacity/100), rapid.Just(p.l.Capacity/20), units).Draw(t, "slack"),
	}
	s.Ask = s.Need + units.Draw(t, "extra")
	if rapid.Bool().Draw(t, "with sent") { // in order, or overtaken
		s.Sent = h.now/1000 - rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, 2_000_000)).Draw(t, "late")
	}
	want := p.Settle(p.l, h.now, g, s)
	if own := p.leases[g]; s.Sent == 0 || own.expiry <= h.now || own.sent < s.Sent { // it changes anything
		delete(p.leases, g)
		if s.Hold+want.Granted > 0 {
			p.leases[g] = lease{h.now + int64(meter.Lifetime), s.Sent}
		}
	}
	h.settle(g, store.Settlement{Key: p.key, Limit: p.l, Hold: s.Hold, Give: s.Give, Need: s.Need, Ask: s.Ask, Slack: s.Slack, Sent: s.Sent}, want)
}

func TestTwinOfSlidingLog(t *testing.T) {
	twin(t, func(t *rapid.T, h *history, key string) {
		l := drawLimit(t, meter.SlidingLog)
		cell, latest := new(meter.Cell), int64(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			by := drawStep(t, l)
			switch used := l.Used(cell, h.now); {
			case by >= 0:
			case used >= 2*l.Capacity:
				by = 0
			case used > 0:
				// The cell knows the latest time it was asked at, the script that of the last
				// charge, as it writes nothing when it refuses. They are the same now.
				l.Force(cell, h.now, 1)
				h.post("a", store.Charge{Key: key, Limit: l, Cost: 1})
			default:
				cell = new(meter.Cell)
				h.add(func(k *call) { k.add(nil, []string{h.c.prefix + key}) }, func(*call) string { return "" }, "forget")
			}
			h.now = max(h.now+by, meter.Epoch)
			late := h.now < latest
			latest = max(latest, h.now)
			cost := drawCost(t, l)
			switch op := rapid.IntRange(0, 9).Draw(t, "operation"); {
			case op == 0:
				posted := rapid.Int64Range(0, 2*l.Capacity+1).Draw(t, "posted")
				l.Force(cell, h.now, posted)
				h.post("a", store.Charge{Key: key, Limit: l, Cost: posted})
			case op == 1 && !late: // taken and given back at once
				v, _ := l.Take(cell, h.now, cost)
				h.take("a", []store.Charge{{Key: key, Limit: l, Cost: cost}}, []meter.Verdict{v})
				if v.OK {
					l.Refund(cell, h.now, cost)
					h.post("a", store.Charge{Key: key, Limit: l, Cost: -cost})
				}
			default:
				v, _ := l.Take(cell, h.now, cost)
				h.take("a", []store.Charge{{Key: key, Limit: l, Cost: cost}}, []meter.Verdict{v})
			}
		}
	})
}

func TestTwinOfConcurrency(t *testing.T) {
	const life = 10 * time.Second
	type own struct{ units, expiry int64 }
	twin(t, func(t *rapid.T, h *history, key string) {
		l := drawLimit(t, meter.Concurrency)
		all := map[string]*own{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			h.now += rapid.OneOf(rapid.Int64Range(0, 1000), rapid.Int64Range(0, 12_000_000)).Draw(t, "step") * 1000
			g := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "gateway")
			if all[g] == nil {
				all[g] = &own{}
			}
			used := int64(0)
			for name, o := range all {
				if name == g || o.expiry > h.now {
					used += o.units
				}
				if name != g && o.expiry+6*int64(life) < h.now {
					o.units = 0
				}
			}
			charge := store.Charge{Key: key, Limit: l, Cost: drawCost(t, l)}
			if rapid.Bool().Draw(t, "post") {
				charge.Cost = rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(-l.Capacity, l.Capacity)).Draw(t, "posted")
				if charge.Whole = rapid.IntRange(0, 3).Draw(t, "whole") == 0; charge.Whole {
					all[g].units = 0
				}
				*all[g] = own{max(all[g].units+charge.Cost, 0), h.now + int64(life)}
				h.post(g, charge)
				continue
			}
			left := l.Capacity - used
			v := meter.Verdict{OK: charge.Cost == 0 || charge.Cost <= left, Remaining: max(left, 0)}
			switch {
			case v.OK && charge.Cost > 0:
				v.Remaining = max(left-charge.Cost, 0)
				*all[g] = own{all[g].units + charge.Cost, h.now + int64(life)}
			case v.OK:
			case charge.Cost > l.Capacity:
				v.Retry = meter.Never
			default:
				v.Retry = time.Second
			}
			h.take(g, []store.Charge{charge}, []meter.Verdict{v})
		}
	})
}
