package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// scriptCalls adds up the scripts in INFO commandstats.
func scriptCalls(text string) (n int64, err error) {
	for line := range strings.Lines(text) {
		name, rest, _ := strings.Cut(line, ":calls=")
		switch name {
		case "cmdstat_eval", "cmdstat_evalsha", "cmdstat_fcall":
			calls, _, _ := strings.Cut(rest, ",")
			v, err := strconv.ParseInt(calls, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("commandstats: %q", line)
			}
			n += v
		}
	}
	return n, nil
}

// parseMetrics reads lines of "name{labels} value".
func parseMetrics(text string) map[string]float64 {
	m := map[string]float64{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || line[0] == '#' {
			continue
		}
		if v, err := strconv.ParseFloat(line[at+1:], 64); err == nil {
			m[line[:at]] = v
		}
	}
	return m
}

// medianTrip is the median of the round trips between two readings of all
// gateways' metrics, seconds: within its bucket, which is a doubling, they are
// taken as evenly spread. NaN: there were none.
func medianTrip(before, after []map[string]float64) float64 {
	const name = `sluice_redis_round_trips_total{le="`
	counts := map[float64]float64{}
	for i := range after {
		for key, v := range after[i] {
			if le, ok := strings.CutPrefix(key, name); ok {
				bound, err := strconv.ParseFloat(strings.TrimSuffix(le, `"}`), 64)
				if err == nil {
					counts[bound] += v - before[i][key]
				}
			}
		}
	}
	half := counts[math.Inf(1)] / 2
	median := math.NaN()
	for bound, n := range counts {
		if half > 0 && n >= half && (math.IsNaN(median) || bound < median) {
			median = bound
		}
	}
	if math.IsNaN(median) || math.IsInf(median, 1) {
		return median
	}
	// What is below the bucket: the count at the next lower bound.
	below, low := 0.0, 0.0
	for bound, n := range counts {
		if bound < median && bound > low {
			low, below = bound, n
		}
	}
	return low + (median-low)*(half-below)/(counts[median]-below)
}

// cpuTimes reads the first line of /proc/stat, whose unit is 10 ms: what was used,
// and all, idle time and waits for disks included. Guests' time is in user's.
func cpuTimes(text string) (busy, total time.Duration) {
	line, _, _ := strings.Cut(text, "\n")
	for i, f := range strings.Fields(line) {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil || i > 8 {
			continue
		}
		d := time.Duration(n) * 10 * time.Millisecond
		total += d
		if i != 4 && i != 5 && i != 8 { // idle, iowait, steal
			busy += d
		}
	}
	return busy, total
}
