// Package stats sums up repeated measurements: the median, and the spread from
// the least to the greatest. With seven rounds on a shared machine those say what
// a mean and a deviation would hide.
package stats

import (
	"math"
	"slices"
)

// Summary is the middle and the ends of a list of measurements.
type Summary struct {
	N      int
	Median float64
	Min    float64
	Max    float64
	// Margin says that the figure is an estimate from N samples, right to so much either
	// way 19 times in 20. 0: it is the middle of N measurements.
	Margin float64
}

// Share estimates how much of a whole belongs to a part that so many of all samples hit.
// With samples independent of each other the hits are as if counted at random, so that
// their deviation is the root of their number; one more keeps none from being certain.
func Share(part, all int64, whole float64) Summary {
	if all <= 0 {
		return Of(nil)
	}
	one := whole / float64(all)
	s := Summary{N: int(all), Median: float64(part) * one, Margin: 2 * math.Sqrt(float64(part)+1) * one}
	s.Min, s.Max = s.Median-s.Margin, s.Median+s.Margin
	return s
}

// Of sums up a list, which it does not change. Without any element everything is
// NaN.
func Of(values []float64) Summary {
	if len(values) == 0 {
		return Summary{Median: math.NaN(), Min: math.NaN(), Max: math.NaN()}
	}
	v := slices.Sorted(slices.Values(values))
	mid := len(v) / 2
	s := Summary{N: len(v), Median: v[mid], Min: v[0], Max: v[len(v)-1]}
	if len(v)%2 == 0 {
		s.Median = (v[mid-1] + v[mid]) / 2
	}
	return s
}

// Pair is two measurements made one right after the other.
type Pair struct {
	A float64 `json:"a"`
	B float64 `json:"b"`
}

// Differences sums up A less B, pair by pair.
func Differences(pairs []Pair) Summary {
	var d []float64
	for _, p := range pairs {
		d = append(d, p.A-p.B)
	}
	return Of(d)
}

// Ratios sums up A over B, pair by pair, so that what disturbs both members of a
// pair cancels out. Pairs without a positive B are left out.
func Ratios(pairs []Pair) Summary {
	var r []float64
	for _, p := range pairs {
		if p.B > 0 {
			r = append(r, p.A/p.B)
		}
	}
	return Of(r)
}
