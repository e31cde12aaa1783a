package main

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestEvenArrivalsComeInOrderAndInProportion(t *testing.T) {
	var n [4]int
	last := int64(0)
	for at, i := range evenly([]float64{700, 100, 100, 100}) {
		if at >= int64(time.Second) {
			break
		}
		if at < last {
			t.Fatalf("%d behind %d", at, last)
		}
		last = at
		n[i]++
	}
	if n != [4]int{700, 100, 100, 100} {
		t.Errorf("%v", n)
	}
}

func TestExactBucketOfSeveralGateways(t *testing.T) {
	l := &limit{Rate: 100}
	bucket, err := l.bucket()
	if err != nil {
		t.Fatal(err)
	}
	// 300 at once at the first gateway, 200 at the second over the two seconds behind it.
	all := []asked{{began: start, rate: 1e6, n: 300}, {began: start, rate: 100, n: 200}}
	// A full bucket, and what two seconds bring; the last one comes 10 ms before.
	if got := exactly(bucket, all); got < 298 || got > 300 {
		t.Errorf("%d admitted, want 299 or so", got)
	}
	if got := exactly(bucket, []asked{{began: start, rate: 90, n: 900}}); got != 900 {
		t.Errorf("%d of 900 admitted below the limit", got)
	}
}

func TestAboveIsWhatIsCertain(t *testing.T) {
	l := &limit{Rate: 100}
	second := int64(time.Second)
	tests := []struct {
		name   string
		counts []count
		want   float64
	}{
		{"a full bucket and its rate", []count{{at: 0}, {at: second, admitted: 200}, {at: 2 * second, admitted: 300}}, 0},
		{"ten more", []count{{at: 0}, {at: second, admitted: 200}, {at: 2 * second, admitted: 310}}, 0.1},
		{"ten more after a rest", []count{{at: 0}, {at: 5 * second}, {at: 6 * second, admitted: 210}}, 0.1},
		{"ten more that may be of before", []count{{at: 0}, {at: 5 * second, flying: 10}, {at: 6 * second, admitted: 210}}, 0},
		{"half of the rate, which is never near", []count{{at: 0}, {at: second, admitted: 50}}, -1},
	}
	for _, c := range tests {
		if got := above(l, c.counts); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestReadingsOfRedisGatewaysAndMachine(t *testing.T) {
	n, err := scriptCalls("# Commandstats\r\ncmdstat_evalsha:calls=12,usec=3\r\ncmdstat_eval:calls=1,usec=9\r\ncmdstat_ping:calls=70,usec=1\r\n")
	if err != nil || n != 13 {
		t.Errorf("%d scripts, %v", n, err)
	}
	trips := func(a, b, all string) map[string]float64 {
		const name = "sluice_redis_round_trips_total"
		return parseMetrics("# HELP x y\n" + name + `{le="0.0001"} ` + a + "\n" + name + `{le="0.0002"} ` + b + "\n" + name + `{le="+Inf"} ` + all + "\n")
	}
	before, after := []map[string]float64{trips("5", "5", "5")}, []map[string]float64{trips("15", "45", "45")}
	if got := medianTrip(before, after); math.Abs(got-0.000133333) > 1e-6 {
		t.Errorf("median %v, want a third of the way from 100 to 200 µs", got)
	}
	if got := medianTrip(before, before); !math.IsNaN(got) {
		t.Errorf("median of nothing: %v", got)
	}
	busy, total := cpuTimes("cpu  10 5 20 60 3 0 1 1 0 0\ncpu0 1 1 1 1\n")
	if busy != 360*time.Millisecond || total != time.Second {
		t.Errorf("%v of %v", busy, total)
	}
}

func TestSectionIsKeptApart(t *testing.T) {
	m := &measured{CPU: "a CPU", Cores: 2, Kernel: "6", Redis: "7", Commit: "c", Seconds: 1, Shares: []float64{0.7, 0.1, 0.1, 0.1}}
	run := outcome{Asked: []int64{1050, 150, 150, 150}, Admitted: []int64{1050, 140, 150, 150}, Exact: 1500, Over: -0.01, Calls: 15, Trip: 0.5}
	for _, l := range []limit{{Name: "l", Rate: 1000, Scope: "leased", Overshoot: 5}, {Name: "e", Rate: 1000, Scope: "exact"}} {
		m.Cases = append(m.Cases, &trial{Limit: l, Offered: 1.5, Runs: []outcome{run, run, run}})
	}
	section, err := m.section()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| 1,000/s leased, 5% | 1.5 × | real | 99.33% | 100.0% | 97.8% | -1.00% | 0.67% | 1.00% | 0.50 ms |\n",
		"| 1,000/s exact | 1.5 × | real |", "| model |",
	} {
		if !strings.Contains(section, want) {
			t.Errorf("no %q in\n%s", want, section)
		}
	}
	if strings.Contains(section, "%!") || strings.Contains(section, "NaN") {
		t.Error(section)
	}
	once := withSection("# Model\n\ntext\n", section)
	if again := withSection(once, section); again != once || !strings.HasPrefix(once, "# Model\n\ntext\n\n"+besideHead) {
		t.Errorf("%s", again)
	}
	if empty, err := (&measured{}).section(); empty != "" || err != nil {
		t.Errorf("%q, %v without a run", empty, err)
	}
}

func TestExactModelAsksOnceForEachRequest(t *testing.T) {
	m := &measured{Seconds: 2, Shares: []float64{0.7, 0.1, 0.1, 0.1}}
	c := &trial{Limit: limit{Rate: 1000, Scope: "exact"}, Offered: 1.5, Runs: []outcome{{Trip: 0.5}}}
	o, err := c.play(m)
	if err != nil {
		t.Fatal(err)
	}
	if o.Calls != sum(o.Asked) || sum(o.Asked) != 3000 || o.missed() > 0.01 || o.Over > 0.01 {
		t.Errorf("%+v", o)
	}
}
