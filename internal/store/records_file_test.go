package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"
)

func apply(t testing.TB, f *File, changes ...Change) int64 {
	t.Helper()
	v, err := f.Apply(context.Background(), changes)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func records(t testing.TB, f *File, prefix string) []string {
	t.Helper()
	got := []string{}
	if err := f.All(context.Background(), prefix, func(r Record) bool { got = append(got, r.Key+"="+string(r.Value)); return true }); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestRecordsOfAFileWithoutAny(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	save(t, f, Quota{"acme", 1, 2})
	if _, err := f.Get(t.Context(), "client/a"); !errors.Is(err, ErrNoRecord) {
		t.Error(err)
	}
	if got := records(t, f, ""); len(got) != 0 {
		t.Error(got)
	}
	first := apply(t, f, Change{Key: "client/a", Value: []byte("1"), If: 0})
	second := apply(t, f, Change{Key: "client/a", Value: []byte("2"), If: first}, Change{Key: "client/b", Value: []byte{}, If: 0})
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f = open(t, dir)
	if got := records(t, f, ""); !slices.Equal(got, []string{"client/a=2", "client/b="}) {
		t.Error(got)
	}
	if q, ok, err := f.Quota("acme"); !ok || err != nil || q.Count != 2 {
		t.Error(q, ok, err)
	}
	f.now = func() time.Time { return time.Unix(1, 0) } // the clock is wrong behind a restart
	if third := apply(t, f, Change{Key: "client/b", If: second}); first >= second || second >= third {
		t.Errorf("versions %d, %d, %d do not grow", first, second, third)
	}
}

func TestExpiredRecordsLeaveTheFile(t *testing.T) {
	f := open(t, t.TempDir())
	now := time.Unix(1_800_000_000, 0)
	f.now = func() time.Time { return now }
	var changes []Change
	for i := range 500 {
		changes = append(changes, Change{Key: fmt.Sprintf("once/%d", i), Value: []byte("x"), If: 0, Expires: now.Add(time.Second)})
	}
	for part := range slices.Chunk(changes, MaxChanges) {
		apply(t, f, part...)
	}
	apply(t, f, Change{Key: "once/0", Value: []byte("longer"), If: Always, Expires: now.Add(time.Hour)}, Change{Key: "once/1", Value: []byte("for ever"), If: Always})
	now = now.Add(time.Second - time.Microsecond)
	if got := records(t, f, "once/"); len(got) != 500 {
		t.Errorf("%d records a moment before they expire", len(got))
	}
	now = now.Add(time.Microsecond)
	want := []string{"once/0=longer", "once/1=for ever"}
	if got := records(t, f, "once/"); !slices.Equal(got, want) {
		t.Error(got)
	}
	apply(t, f, Change{Key: "once/2", Value: []byte("again"), If: 0})
	kept := map[string]int{}
	if err := f.db.View(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{recordsBucket, expiryBucket} {
			kept[string(name)] = tx.Bucket(name).Stats().KeyN
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if kept["records"] != 3 || kept["expiry"] != 1 {
		t.Errorf("%v are kept", kept)
	}
}

func TestTheWatcherIsToldOfEveryChange(t *testing.T) {
	f := open(t, t.TempDir())
	apply(t, f, Change{Key: "before/it", Value: []byte{}, If: Always})
	told := make(chan []string)
	f.Watch(func(keys []string) {
		if _, err := f.Get(t.Context(), keys[0]); err != nil { // it may call
			t.Error(err)
		}
		told <- keys
	})
	apply(t, f, Change{Key: "b/1", Value: []byte{}, If: Always}, Change{Key: "a/1", Value: []byte{}, If: Always})
	if got := <-told; !slices.Equal(got, []string{"a/1", "b/1"}) {
		t.Error(got)
	}
	if _, err := f.Apply(t.Context(), []Change{{Key: "a/1", If: 0}}); !errors.Is(err, ErrConflict) {
		t.Error(err)
	}
	apply(t, f, Change{Key: "a/2", Value: []byte{}, If: Always})
	if got := <-told; !slices.Equal(got, []string{"a/2"}) {
		t.Error(got)
	}
}

func TestASlowWatcherKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w watcher
		w.init()
		busy, told := make(chan bool), make(chan []string, 10)
		w.watch(func(keys []string) { told <- keys; <-busy })
		w.tell([]Change{{Key: "a"}})
		synctest.Wait()
		for range 3 {
			w.tell([]Change{{Key: "c"}, {Key: "b"}})
		}
		synctest.Wait()
		busy <- true
		synctest.Wait()
		for i := range maxNews + 1 {
			w.tell([]Change{{Key: fmt.Sprint(i)}})
		}
		busy <- true
		synctest.Wait()
		close(busy)
		w.close()
		close(told)
		var got [][]string
		for keys := range told {
			got = append(got, keys)
		}
		if fmt.Sprint(got) != "[[a] [b c] []]" || got[2] != nil {
			t.Errorf("%v", got)
		}
	})
}

func TestManyApplyAtOnce(t *testing.T) {
	f := open(t, t.TempDir())
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := map[string]int{}
	for range 8 {
		wg.Go(func() {
			for i := range 25 {
				key := fmt.Sprintf("once/%d", i)
				_, err := f.Apply(t.Context(), []Change{{Key: key, Value: []byte{}, If: 0}, {Key: "last", Value: []byte(key), If: Always}})
				mu.Lock()
				if err == nil {
					won[key]++
				} else if !errors.Is(err, ErrConflict) {
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for key, n := range won {
		if n != 1 {
			t.Errorf("%s was made %d times", key, n)
		}
	}
	if got := records(t, f, "once/"); len(got) != 25 || len(won) != 25 {
		t.Errorf("%d records, %d won", len(got), len(won))
	}
}

func TestWhatAFileCannotDoNow(t *testing.T) {
	change := []Change{{Key: "key/1", Value: []byte("2"), If: Always}}
	t.Run("closed", func(t *testing.T) {
		f := open(t, t.TempDir())
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Apply(t.Context(), change); !errors.Is(err, ErrNotDone) {
			t.Error(err)
		}
		if _, err := f.Get(t.Context(), "key/1"); !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
		f.Watch(func([]string) { t.Error("told") })
	})
	t.Run("a failed sync", func(t *testing.T) {
		f := open(t, t.TempDir())
		apply(t, f, Change{Key: "key/1", Value: []byte("1"), If: 0})
		f.fail(errors.New("input/output error"))
		_, err := f.Apply(t.Context(), change)
		refused(t, err, "nothing was done", "not written any more: input/output error; restart")
		if r, err := f.Get(t.Context(), "key/1"); err != nil || string(r.Value) != "1" {
			t.Error(r, err)
		}
		f.failed.Store(nil)
	})
	t.Run("it shrinks underneath", func(t *testing.T) {
		f := open(t, t.TempDir())
		for i := range 20 {
			apply(t, f, Change{Key: fmt.Sprintf("key/%d", i), Value: bytes.Repeat([]byte("x"), 10_000), If: 0})
		}
		if err := os.Truncate(f.path, 8192); err != nil {
			t.Fatal(err)
		}
		if err := f.All(t.Context(), "", func(Record) bool { return true }); !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
		if _, err := f.Apply(t.Context(), change); !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
	})
	t.Run("nobody waits", func(t *testing.T) {
		f := open(t, t.TempDir())
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := f.Apply(gone, change); !errors.Is(err, ErrNotDone) {
			t.Error(err)
		}
		if got := records(t, f, ""); len(got) != 0 {
			t.Error(got)
		}
	})
}

func TestADamagedRecordIsNamed(t *testing.T) {
	f := open(t, t.TempDir())
	apply(t, f, Change{Key: "key/1", Value: []byte("revoked"), If: 0}, Change{Key: "key/2", Value: []byte("live"), If: 0})
	var whole []byte
	change := func(bucket []byte, do func(b *bbolt.Bucket) error) {
		t.Helper()
		if err := f.db.Update(func(tx *bbolt.Tx) error { return do(tx.Bucket(bucket)) }); err != nil {
			t.Fatal(err)
		}
	}
	change(recordsBucket, func(b *bbolt.Bucket) error { whole = bytes.Clone(b.Get([]byte("key/1"))); return nil })
	for i := range len(whole) * 8 {
		bad := bytes.Clone(whole)
		bad[i/8] ^= 1 << (i % 8)
		change(recordsBucket, func(b *bbolt.Bucket) error { return b.Put([]byte("key/1"), bad) })
		_, get := f.Get(t.Context(), "key/1")
		_, at := f.Apply(t.Context(), []Change{{Key: "key/2", If: Always}, {Key: "key/1", Value: []byte{}, If: Always}})
		for _, err := range []error{get, at, f.All(t.Context(), "", func(Record) bool { return true })} {
			refused(t, err, `the record of "key/1" is damaged`)
			if errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNoRecord) {
				t.Error(err)
			}
		}
	}
	change(recordsBucket, func(b *bbolt.Bucket) error { return b.Put([]byte("key/1"), whole) })
	// A sweep goes by the record and not by where it is listed.
	change(expiryBucket, func(b *bbolt.Bucket) error { return b.Put(expiryKey(1, []byte("key/1")), nil) })
	apply(t, f, Change{Key: "key/3", Value: []byte{}, If: 0})
	if got := records(t, f, ""); !slices.Equal(got, []string{"key/1=revoked", "key/2=live", "key/3="}) {
		t.Error(got)
	}
	change(metaBucket, func(b *bbolt.Bucket) error { return b.Put(versionKey, make([]byte, 12)) })
	_, err := f.Apply(t.Context(), []Change{{Key: "key/3", If: Always}})
	refused(t, err, `"version" is damaged`)
}

// recordsUntilFull makes records until the limit of the file's size stops it, and says
// how many.
func recordsUntilFull(dir string) error {
	signal.Ignore(syscall.SIGXFSZ)
	f, err := OpenFile(dir)
	if err != nil {
		return err
	}
	limit := syscall.Rlimit{Cur: 2 << 20, Max: 2 << 20}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	for n := 0; n < 10_000; n++ {
		_, err := f.Apply(context.Background(), []Change{{Key: fmt.Sprintf("key/%05d", n), Value: bytes.Repeat([]byte("x"), 8000), If: 0}})
		if err == nil {
			continue
		}
		if !errors.Is(err, ErrNotDone) || !strings.Contains(err.Error(), "file too large") {
			return err
		}
		// Room is made by removing.
		if _, err := f.Apply(context.Background(), []Change{{Key: "key/00000", If: Always}}); err != nil {
			return err
		}
		fmt.Println(n)
		return f.Close()
	}
	return errors.New("it is never full")
}

func TestRecordsOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	out, err := child(t, "recordsfull", dir).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var n int
	if _, err := fmt.Sscan(string(out), &n); err != nil || n < 50 {
		t.Fatalf("%s: %v", out, err)
	}
	if got := records(t, open(t, dir), ""); len(got) != n-1 || got[0][:9] != "key/00001" {
		t.Errorf("%d records are kept, want %d", len(got), n-1)
	}
}

func BenchmarkApply(b *testing.B) {
	f := open(b, b.TempDir())
	n := 0
	for b.Loop() {
		n++
		apply(b, f, Change{Key: fmt.Sprintf("key/%d", n%1000), Value: make([]byte, 300), If: Always})
	}
}

func BenchmarkApplyOf64(b *testing.B) {
	f := open(b, b.TempDir())
	b.SetParallelism(64 / runtime.GOMAXPROCS(0))
	b.RunParallel(func(p *testing.PB) {
		for n := 0; p.Next(); n++ {
			apply(b, f, Change{Key: fmt.Sprintf("key/%d", n%1000), Value: make([]byte, 300), If: Always})
		}
	})
}

func BenchmarkOpenAndReadRecords100000(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "state")
	f := open(b, dir)
	for i := range 400 {
		var changes []Change
		for j := range 250 {
			changes = append(changes, Change{Key: fmt.Sprintf("key/%012d", 250*i+j), Value: make([]byte, 300), If: 0})
		}
		apply(b, f, changes...)
	}
	for b.Loop() {
		n := 0
		if err := f.All(b.Context(), "key/", func(Record) bool { n++; return true }); err != nil || n != 100_000 {
			b.Fatal(n, err)
		}
	}
}
