package auth

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-gateway/sluice/internal/store"
)

// openRecords is the embedded store, in a directory of its own.
func openRecords(t testing.TB) *store.File {
	t.Helper()
	f, err := store.OpenFile(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestUsedOnce(t *testing.T) {
	const now = 1_700_000_000
	one, two := usedKey{1}, usedKey{2}
	var u usedOnce
	u.begin(time.Unix(now-100, 0))
	u.begin(time.Unix(now, 0)) // only the first counts
	for _, c := range []struct {
		name                string
		key                 usedKey
		created, until, now int64
		dry                 bool
		want                error
	}{
		{"explained", one, now, now + 60, now, true, nil},
		{"first", one, now, now + 60, now, false, nil},
		{"again", one, now, now + 60, now, false, errUsed},
		{"again, explained", one, now, now + 60, now, true, errUsed},
		{"again, later", one, now, now + 60, now + 59, false, errUsed},
		{"another", two, now, now + 60, now, false, nil},
		{"behind its time", one, now, now + 160, now + 60, false, nil},
		{"from before the process", usedKey{3}, now - 101, now + 60, now, false, errTooOld},
		{"from its first second", usedKey{3}, now - 100, now + 60, now, false, errTooOld},
		{"from its second second", usedKey{3}, now - 99, now + 60, now, false, nil},
	} {
		if err := u.take(t.Context(), c.key, c.created, c.until, c.now, c.dry); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestUsedOnceByAllGateways(t *testing.T) {
	now := time.Now().Unix()
	records := openRecords(t)
	var a, b usedOnce
	for _, u := range []*usedOnce{&a, &b} {
		u.begin(time.Unix(now, 0))
		u.keep(records)
	}
	if err := a.take(t.Context(), usedKey{1}, now-50, now+60, now, false); err != nil {
		t.Errorf("from before the process, when that is written down: %v", err)
	}
	if err := b.take(t.Context(), usedKey{1}, now-50, now+60, now, false); !errors.Is(err, errUsed) {
		t.Errorf("by the other: %v", err)
	}
	r, err := records.Get(t.Context(), "once/01000000000000000000000000000000")
	if err != nil || r.Expires.Unix() != now+60 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := records.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.take(t.Context(), usedKey{2}, now, now+60, now, false); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("while the store is away: %v", err)
	}
	a.keep(openRecords(t))
	if err := a.take(t.Context(), usedKey{2}, now, now+60, now, false); err != nil {
		t.Errorf("tried again: %v", err)
	}
}

func TestUsedOnceIsBounded(t *testing.T) {
	now := time.Now().Unix()
	var u usedOnce
	key := func(i int) (k usedKey) {
		k[0] = 7
		binary.BigEndian.PutUint32(k[1:], uint32(i))
		return k
	}
	for i := range usedMost {
		if err := u.take(t.Context(), key(i), now, now+60, now, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := u.take(t.Context(), key(usedMost), now, now+60, now, false); !errors.Is(err, errUsedFull) {
		t.Errorf("one more: %v", err)
	}
	u.keep(openRecords(t))
	if err := u.take(t.Context(), key(usedMost), now, now+60, now, false); err != nil {
		t.Errorf("one more, when it is written down: %v", err)
	}
	if err := u.take(t.Context(), key(usedMost), now, now+60, now, false); !errors.Is(err, errUsed) {
		t.Errorf("that one again: %v", err)
	}
	if err := u.take(t.Context(), key(usedMost+1), now+60, now+120, now+60, false); err != nil || len(u.shards[7].until) != 1 {
		t.Errorf("later: %v, %d are kept", err, len(u.shards[7].until))
	}
}

func TestUsedOnceTogether(t *testing.T) {
	const now = 1_700_000_000
	var u usedOnce
	var taken atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 1000 {
				if u.take(context.Background(), usedKey{byte(i), byte(i >> 8)}, now, now+60, now, false) == nil {
					taken.Add(1)
				}
			}
		})
	}
	all.Wait()
	if taken.Load() != 1000 {
		t.Errorf("%d of 1,000 were taken", taken.Load())
	}
}

// Against a map that forgets nothing too early and nothing too late.
func TestUsedOnceIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var u usedOnce
		model := map[usedKey]int64{}
		now := int64(1_700_000_000)
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			now += rapid.Int64Range(0, 3).Draw(t, "later")
			key := usedKey{1, rapid.Byte().Draw(t, "key")}
			until := now + rapid.Int64Range(1, 20).Draw(t, "holds")
			err := u.take(context.Background(), key, now, until, now, false)
			if seen := now < model[key]; seen != errors.Is(err, errUsed) {
				t.Fatalf("%v at %d: %v", key, now, err)
			} else if !seen {
				model[key] = until
			}
		}
	})
}
