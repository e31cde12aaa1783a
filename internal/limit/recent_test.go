package limit

import (
	"hash/maphash"
	"testing"
	"time"
)

func TestRecentKnowsWhoCameAMomentAgo(t *testing.T) {
	var r recent
	const hash = 0xabcd_0000_0000_1234
	at := func(d time.Duration) int64 { return time.Unix(1_800_000_000, 0).Add(d).UnixNano() }
	for _, c := range []struct {
		after time.Duration
		want  bool
	}{
		{0, false},
		{10 * time.Millisecond, true},
		{900 * time.Millisecond, true},
		{5 * time.Second, false},
		{5500 * time.Millisecond, true},
	} {
		if got := r.again(hash, at(c.after)); got != c.want {
			t.Errorf("after %v: %v", c.after, got)
		}
	}
	if r.again(hash^1<<60, at(6*time.Second)) {
		t.Error("another key in the same slot is taken for the first")
	}
}

func TestRecentMistakesFewKeysForKnown(t *testing.T) {
	var r recent
	seed := maphash.MakeSeed()
	now := time.Unix(1_800_000_000, 0).UnixNano()
	known := 0
	for i := range 1_000_000 {
		if r.again(maphash.Comparable(seed, i), now) {
			known++
		}
	}
	if known > 150 {
		t.Errorf("%d of a million new keys were taken for known ones", known)
	}
}

func TestRecentKnowsAThousandKeysInTurn(t *testing.T) {
	var r recent
	now := time.Unix(1_800_000_000, 0).UnixNano()
	for round := range 3 {
		for i := range uint64(1000) {
			hash := (i + 1) * 0x9e3779b97f4a7c15
			if r.again(hash^hash>>29, now) != (round > 0) {
				t.Fatalf("key %d is not what it should be in round %d", i, round)
			}
		}
	}
}
