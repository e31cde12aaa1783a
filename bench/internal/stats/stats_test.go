package stats

import (
	"math"
	"reflect"
	"testing"
)

func TestSummaryIsMedianAndSpread(t *testing.T) {
	cases := []struct {
		in   []float64
		want Summary
	}{
		{[]float64{3}, Summary{N: 1, Median: 3, Min: 3, Max: 3}},
		{[]float64{9, 1}, Summary{N: 2, Median: 5, Min: 1, Max: 9}},
		{[]float64{5, 1, 9, 2, 7}, Summary{N: 5, Median: 5, Min: 1, Max: 9}},
		{[]float64{4, 1, 3, 2}, Summary{N: 4, Median: 2.5, Min: 1, Max: 4}},
	}
	for _, c := range cases {
		before := append([]float64(nil), c.in...)
		if got := Of(c.in); got != c.want {
			t.Errorf("%v: %+v, want %+v", c.in, got, c.want)
		}
		if !reflect.DeepEqual(before, c.in) {
			t.Errorf("the list %v was changed to %v", before, c.in)
		}
	}
	if s := Of(nil); s.N != 0 || !math.IsNaN(s.Median) {
		t.Errorf("nothing: %+v, want NaN", s)
	}
}

func TestRatiosArePairByPair(t *testing.T) {
	// The machine was twice as slow in the second round: the ratio did not change.
	got := Ratios([]Pair{{12, 10}, {24, 20}, {13, 10}, {1, 0}})
	if want := (Summary{N: 3, Median: 1.2, Min: 1.2, Max: 1.3}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestShareIsKnownToTwiceTheRootOfItsHits(t *testing.T) {
	for _, c := range []struct {
		part, all      int64
		figure, margin float64
	}{
		{99, 4000, 0.99, 0.2}, // a minute on one core
		{24, 100, 9.6, 4},
		{0, 400, 0, 0.2}, // none is not certainly nothing
	} {
		got := Share(c.part, c.all, 40)
		want := Summary{N: int(c.all), Median: c.figure, Min: c.figure - c.margin, Max: c.figure + c.margin, Margin: c.margin}
		if math.Abs(got.Median-want.Median) > 1e-9 || math.Abs(got.Margin-want.Margin) > 1e-9 || got.N != want.N || got.Min != got.Median-got.Margin || got.Max != got.Median+got.Margin {
			t.Errorf("%d of %d: %+v, want %+v", c.part, c.all, got, want)
		}
	}
	if s := Share(0, 0, 40); s.N != 0 || !math.IsNaN(s.Median) {
		t.Errorf("of no samples: %+v, want NaN", s)
	}
}
