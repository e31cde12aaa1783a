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
		{[]float64{3}, Summary{1, 3, 3, 3}},
		{[]float64{9, 1}, Summary{2, 5, 1, 9}},
		{[]float64{5, 1, 9, 2, 7}, Summary{5, 5, 1, 9}},
		{[]float64{4, 1, 3, 2}, Summary{4, 2.5, 1, 4}},
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
	if want := (Summary{3, 1.2, 1.2, 1.3}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
