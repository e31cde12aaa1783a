package upstream

import (
	"fmt"
	"math"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// endpoints makes one for each weight.
func endpoints(weights ...float64) []*endpoint {
	var all []*endpoint
	for i, w := range weights {
		e := &endpoint{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80)}
		e.name = e.addr.String()
		e.setWeight(w)
		all = append(all, e)
	}
	return all
}

var balances = []string{"p2c", "round_robin", "least_requests", "hash"}

// shares draws n times, one at a time, and returns everyone's part of them.
func shares(s *set, n int) []float64 {
	count := map[*endpoint]float64{}
	for i := range n {
		count[s.choose(&wish{key: hashOf(fmt.Append(nil, i))})]++
	}
	var parts []float64
	for _, e := range s.endpoints {
		parts = append(parts, count[e]/float64(n))
	}
	return parts
}

func TestWeightsHoldWhenIdle(t *testing.T) {
	for _, balance := range balances {
		for _, weights := range [][]float64{{1, 1}, {1, 2}, {1, 9}, {1, 1, 1, 5}, {0.5, 0.5, 1}, {3, 1.0 / 3, 1.0 / 3, 1.0 / 3}} {
			sum := 0.0
			for _, w := range weights {
				sum += w
			}
			for i, got := range shares(newSet(balance, endpoints(weights...)), 20000) {
				want := weights[i] / sum
				tolerance := 0.015 + 0.15*want // the ring's points fall at random
				if balance != "hash" {
					tolerance = 0.015
				}
				if math.Abs(got-want) > tolerance {
					t.Errorf("%s, weights %v: endpoint %d has %.3f, want %.3f", balance, weights, i, got, want)
				}
			}
		}
	}
}

// With many exchanges under way, those in flight follow the weights too.
func TestWeightsHoldUnderLoad(t *testing.T) {
	for _, balance := range []string{"p2c", "least_requests"} {
		s := newSet(balance, endpoints(1, 2, 5))
		for range 800 {
			s.choose(&wish{}).enter()
		}
		for i, want := range []float64{100, 200, 500} {
			if got := float64(s.endpoints[i].inFlight.Load()); math.Abs(got-want) > 0.1*want {
				t.Errorf("%s: endpoint %d has %v, want %v", balance, i, got, want)
			}
		}
	}
}

func TestTurnsAreSmooth(t *testing.T) {
	s := newSet("round_robin", endpoints(5, 1, 1))
	got := ""
	for range 14 {
		e := s.choose(&wish{})
		for i := range s.endpoints {
			if s.endpoints[i] == e {
				got += string(rune('a' + i))
			}
		}
	}
	check(t, "order", got, "aabacaaaabacaa")
}

// Whoever is admitted is found, and nobody else is chosen while somebody is.
func TestChoiceRespectsTheWish(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "endpoints")
		weights := rapid.SliceOfN(rapid.Float64Range(0.1, 10), n, n).Draw(t, "weights")
		all := endpoints(weights...)
		w := &wish{key: rapid.Uint64().Draw(t, "key")}
		best := levels
		quality := map[*endpoint]level{}
		for _, e := range all {
			out, tried, full := rapid.Bool().Draw(t, "out"), rapid.Bool().Draw(t, "tried"), rapid.Bool().Draw(t, "full")
			e.out.Store(out)
			if tried {
				w.tried = append(w.tried, e)
			}
			if e.limit = 1; full {
				e.enter()
			}
			switch {
			case !out && !tried && !full:
				quality[e] = idleAndWell
			case !out && !tried:
				quality[e] = well
			case !tried:
				quality[e] = untried
			case !out:
				quality[e] = triedButWell
			default:
				quality[e] = anyone
			}
			best = min(best, quality[e])
		}
		s := newSet(rapid.SampledFrom(balances).Draw(t, "balance"), all)
		for range 10 {
			e := s.choose(w)
			if e == nil || quality[e] != best {
				t.Fatalf("chose %v of level %v, want level %v", e, quality[e], best)
			}
		}
	})
}

func TestEmptySetHasNobody(t *testing.T) {
	for _, balance := range balances {
		if e := newSet(balance, nil).choose(&wish{}); e != nil {
			t.Errorf("%s chose %v", balance, e)
		}
	}
}

// No endpoint of a ring gets more than its bounded share of what is in flight, and a
// key keeps its owner as long as that has room.
func TestRingBoundsLoad(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 12).Draw(t, "endpoints")
		weights := make([]float64, n)
		sum := 0.0
		for i := range weights {
			weights[i] = float64(rapid.IntRange(1, 5).Draw(t, "weight"))
			sum += weights[i]
		}
		s := newSet("hash", endpoints(weights...))
		keys := rapid.IntRange(1, 5).Draw(t, "keys") // few keys: the worst there is
		for total := 1.0; total <= 200; total++ {
			key := hashOf(fmt.Append(nil, rapid.IntRange(1, keys).Draw(t, "key")))
			e := s.choose(&wish{key: key})
			e.enter()
			if most := math.Ceil(slack * total * e.weight() / sum); float64(e.inFlight.Load()) > most {
				t.Fatalf("%v of %v in flight on an endpoint with %v of %v of the weight", e.inFlight.Load(), total, e.weight(), sum)
			}
		}
	})
}

// When an endpoint comes, keys move only to it; when one goes, only its keys move.
func TestRingMovesFewKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 20).Draw(t, "endpoints")
		weights := make([]float64, n)
		for i := range weights {
			weights[i] = float64(rapid.IntRange(1, 4).Draw(t, "weight"))
		}
		all := endpoints(weights...)
		out := rapid.IntRange(0, n-1).Draw(t, "the one that is not always there")
		var fewer []*endpoint
		for i, e := range all {
			if i != out {
				fewer = append(fewer, e)
			}
		}
		with, without := newSet("hash", all), newSet("hash", fewer)
		for i := range 500 {
			w := &wish{key: hashOf(fmt.Append(nil, i))}
			a, b := with.choose(w), without.choose(w)
			if a != b && a != all[out] {
				t.Fatalf("key %d moved from %s to %s, neither of which came or went", i, b.name, a.name)
			}
		}
	})
}

// The owner of a key depends on the addresses alone: gateways agree, and so does
// this one after a restart.
func TestRingIsStable(t *testing.T) {
	s := newSet("hash", endpoints(1, 1, 1, 1, 1))
	got := ""
	for i := range 12 {
		e := s.choose(&wish{key: hashOf(fmt.Appendf(nil, "client-%d", i))})
		got += e.name[len("10.0.0.") : len("10.0.0.")+1]
	}
	check(t, "owners", got, "321140212041")
}

func TestManyTargetsAreCheapToSetUp(t *testing.T) {
	weights := make([]float64, 500)
	for i := range weights {
		weights[i] = float64(1 + i%1000)
	}
	all := endpoints(weights...)
	for _, balance := range balances {
		if e := newSet(balance, all).choose(&wish{}); e == nil {
			t.Error(balance)
		}
	}
	check(t, "points", len(newRing(all).points) < maxPoints*11/10, true)
}

func BenchmarkChoose(b *testing.B) {
	for _, balance := range balances {
		for _, n := range []int{2, 10, 100} {
			weights := make([]float64, n)
			for i := range weights {
				weights[i] = 1
			}
			s := newSet(balance, endpoints(weights...))
			for _, e := range s.endpoints {
				e.enter()
			}
			b.Run(fmt.Sprint(balance, "/", n), func(b *testing.B) {
				w := &wish{}
				for b.Loop() {
					w.key += 0x9e3779b97f4a7c15
					s.choose(w)
				}
			})
		}
	}
}
