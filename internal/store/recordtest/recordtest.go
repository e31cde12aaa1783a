// Package recordtest tests what is a store.Records against a map. Both of them, the
// embedded file and Redis, must do what it does, version for version.
package recordtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-gateway/sluice/internal/store"
)

// model is what records should be.
type model struct {
	kept    map[string]store.Record
	version int64
	now     int64 // Unix µs
}

// get returns a record that has not expired.
func (m *model) get(key string) (store.Record, bool) {
	r, ok := m.kept[key]
	if !ok || !r.Expires.IsZero() && r.Expires.UnixMicro() <= m.now {
		return store.Record{}, false
	}
	return r, true
}

func (m *model) apply(changes []store.Change) (int64, error) {
	for _, c := range changes {
		if r, _ := m.get(c.Key); c.If != store.Always && c.If != r.Version {
			return 0, store.ErrConflict
		}
	}
	if len(changes) == 0 {
		return 0, nil
	}
	for key := range m.kept { // what has expired goes for good, also where the clock steps back
		if _, ok := m.get(key); !ok {
			delete(m.kept, key)
		}
	}
	m.version = max(m.version+1, m.now)
	for _, c := range changes {
		if c.Value == nil {
			delete(m.kept, c.Key)
			continue
		}
		m.kept[c.Key] = store.Record{Key: c.Key, Value: c.Value, Version: m.version, Expires: c.Expires}
	}
	return m.version, nil
}

// Fresh returns records that are empty and go by now.
type Fresh func(now func() time.Time) store.Records

// Check compares random histories on what fresh makes with a map, with a clock that
// also stands still and steps back.
func Check(t *testing.T, fresh Fresh) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{kept: map[string]store.Record{}, now: 1_790_000_000_000_000}
		r := fresh(func() time.Time { return time.UnixMicro(m.now) })
		for range rapid.IntRange(1, 15).Draw(t, "steps") {
			m.now += rapid.SampledFrom([]int64{0, 1, 1000, 1_000_000, -500}).Draw(t, "passes")
			step(t, m, r)
		}
		for key := range m.kept {
			same(t, m, r, key)
		}
		for _, prefix := range []string{"", "client/", "key/", "k", "\xff"} {
			list(t, m, r, prefix)
		}
	})
}

var (
	ids    = rapid.SampledFrom([]string{"client/a", "client/b", "key/1", "key/2", "key/{x}", "once/\x00\xff", "\xff\xff", "é"})
	values = rapid.SampledFrom([][]byte{nil, {}, []byte("v"), []byte("\x00\xff\r\n"), bytes.Repeat([]byte("w"), 3000)})
)

// step makes one change, and compares what the records say of it.
func step(t *rapid.T, m *model, r store.Records) {
	var changes []store.Change
	for _, key := range rapid.SliceOfNDistinct(ids, 0, 4, rapid.ID[string]).Draw(t, "keys") {
		c := store.Change{Key: key, Value: values.Draw(t, "value"), If: store.Always}
		if d := rapid.SampledFrom([]int64{0, 0, -1, 1, 1000, 2_000_000}).Draw(t, "expires"); d != 0 {
			c.Expires = time.UnixMicro(m.now + d).UTC()
		}
		switch rapid.IntRange(0, 3).Draw(t, "if") {
		case 0:
			c.If = 0
		case 1:
			c.If = m.kept[key].Version // also of one that has expired
		}
		changes = append(changes, c)
	}
	want, wantErr := m.apply(changes)
	got, err := r.Apply(context.Background(), changes)
	if got != want || !errors.Is(err, wantErr) {
		t.Fatalf("Apply %v: %d %v, want %d %v", changes, got, err, want, wantErr)
	}
	same(t, m, r, ids.Draw(t, "key"))
}

// same compares one record.
func same(t *rapid.T, m *model, r store.Records, key string) {
	want, ok := m.get(key)
	got, err := r.Get(context.Background(), key)
	if ok != (err == nil) || !ok && !errors.Is(err, store.ErrNoRecord) || !equal(got, want) {
		t.Fatalf("Get %q: %s %v, want %s %v", key, show(got), err, show(want), ok)
	}
}

// list compares those of a prefix.
func list(t *rapid.T, m *model, r store.Records, prefix string) {
	want := map[string]bool{}
	for key := range m.kept {
		if _, ok := m.get(key); ok && strings.HasPrefix(key, prefix) {
			want[key] = true
		}
	}
	err := r.All(context.Background(), prefix, func(got store.Record) bool {
		if !want[got.Key] || !equal(got, m.kept[got.Key]) {
			t.Fatalf("All %q: %s, want %s", prefix, show(got), show(m.kept[got.Key]))
		}
		delete(want, got.Key)
		return true
	})
	if err != nil || len(want) > 0 {
		t.Fatalf("All %q: %v are missing, %v", prefix, slices.Sorted(maps.Keys(want)), err)
	}
}

func equal(a, b store.Record) bool {
	return a.Key == b.Key && bytes.Equal(a.Value, b.Value) && (a.Value == nil) == (b.Value == nil) &&
		a.Version == b.Version && a.Expires.Equal(b.Expires)
}

func show(r store.Record) string {
	return fmt.Sprintf("{%q %.20q version %d expires %v}", r.Key, r.Value, r.Version, r.Expires)
}
