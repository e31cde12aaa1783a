package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/bbolt"
	"pgregory.net/rapid"
)

func open(t testing.TB, dir string) *File {
	t.Helper()
	f, err := OpenFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil && !strings.HasSuffix(err.Error(), "closed") {
			t.Error(err)
		}
	})
	return f
}

func save(t testing.TB, f *File, q ...Quota) {
	t.Helper()
	if err := f.SaveQuotas(q); err != nil {
		t.Fatal(err)
	}
}

func all(t testing.TB, f *File) []Quota {
	t.Helper()
	var got []Quota
	if err := f.Quotas(func(q Quota) bool { got = append(got, q); return true }); err != nil {
		t.Fatal(err)
	}
	return got
}

func refused(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that says %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

func TestWhatIsSavedIsThereAfterReopening(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "state")
	f := open(t, dir)
	save(t, f, Quota{"b", 20_000, 7}, Quota{"a", -1, 1 << 62}, Quota{"b", 20_001, 8})
	save(t, f, Quota{"c", 0, 0})
	if err := f.DropQuotas([]string{"c", "never there"}); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	want := []Quota{{"a", -1, 1 << 62}, {"b", 20_001, 8}}
	if got := all(t, open(t, dir)); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for path, mode := range map[string]os.FileMode{"": 0o700, ownerName: 0o600, fileName: 0o600} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v, want %v", path, info.Mode(), err, mode)
		}
	}
}

func TestAQuotaIsReadByItsKey(t *testing.T) {
	f := open(t, t.TempDir())
	save(t, f, Quota{"acme", 1, 2})
	for key, want := range map[string]bool{"acme": true, "acm": false, "acme2": false, "": false} {
		q, ok, err := f.Quota(key)
		if ok != want || err != nil || ok && q != (Quota{"acme", 1, 2}) {
			t.Errorf("%q: %v %v %v", key, q, ok, err)
		}
	}
}

func TestABadKeySavesNothing(t *testing.T) {
	f := open(t, t.TempDir())
	refused(t, f.SaveQuotas([]Quota{{"good", 1, 1}, {"", 1, 1}}), "was not changed", `quota ""`, "key required")
	refused(t, f.SaveQuotas([]Quota{{"good", 1, 1}, {strings.Repeat("k", 40_000), 1, 1}}), "key too large")
	if got := all(t, f); len(got) != 0 {
		t.Errorf("%v was saved", got)
	}
	save(t, f, Quota{"good", 1, 1})
}

func TestQuotasAreYieldedWhileTheyChange(t *testing.T) {
	f := open(t, t.TempDir())
	const n = 3*maxRead + 5
	var q []Quota
	for i := range n {
		q = append(q, Quota{fmt.Sprintf("key%06d", i), int64(i), 1})
	}
	save(t, f, q...)
	seen := 0
	err := f.Quotas(func(got Quota) bool {
		if got != q[seen] {
			t.Fatalf("%d: %v, want %v", seen, got, q[seen])
		}
		if seen%1000 == 0 { // behind it, and it itself: the rest stays
			if err := f.DropQuotas([]string{got.Key, q[seen/2].Key}); err != nil {
				t.Fatal(err)
			}
		}
		seen++
		return seen < n-1
	})
	if err != nil || seen != n-1 {
		t.Errorf("%d yielded, %v", seen, err)
	}
}

func TestAgainstAMap(t *testing.T) {
	root := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		dir := filepath.Join(root, fmt.Sprint(n))
		f, err := OpenFile(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		want := map[string]Quota{}
		key := rapid.StringN(1, 4, 40)
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				keys := rapid.SliceOf(key).Draw(t, "keys")
				if err := f.DropQuotas(keys); err != nil && !slices.Contains(keys, "") {
					t.Fatal(err)
				}
				for _, k := range keys {
					delete(want, k)
				}
			case 1:
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
				if f, err = OpenFile(dir); err != nil {
					t.Fatal(err)
				}
			default:
				var q []Quota
				for _, k := range rapid.SliceOf(key).Draw(t, "keys") {
					q = append(q, Quota{k, rapid.Int64().Draw(t, "index"), rapid.Int64().Draw(t, "count")})
					want[k] = q[len(q)-1]
				}
				if err := f.SaveQuotas(q); err != nil {
					t.Fatal(err)
				}
			}
			got := map[string]Quota{}
			if err := f.Quotas(func(q Quota) bool { got[q.Key] = q; return true }); err != nil {
				t.Fatal(err)
			}
			if len(got) != len(want) {
				t.Fatalf("got %v, want %v", got, want)
			}
			for k, q := range want {
				if got[k] != q {
					t.Fatalf("%q: got %v, want %v", k, got[k], q)
				}
			}
		}
	})
}

func TestASecondOwnerIsTurnedAway(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	host, _ := os.Hostname()
	_, err := OpenFile(dir)
	refused(t, err, "state in "+dir+" is used by sluice pid "+fmt.Sprint(os.Getpid())+" on host "+host, "; stop it or give this gateway its own state.dir")
	if err := os.WriteFile(filepath.Join(dir, ownerName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = OpenFile(dir)
	refused(t, err, "is used by another sluice; stop it")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
}

func TestAClosedFileSaysSo(t *testing.T) {
	f := open(t, t.TempDir())
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	refused(t, f.SaveQuotas([]Quota{{"a", 1, 1}}), "is closed")
	_, _, err := f.Quota("a")
	refused(t, err, "is closed")
}

func TestAFolderOpenToOthersIsRepairedOrRefused(t *testing.T) {
	chmod := func(path string, mode os.FileMode) {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	f := open(t, dir)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	chmod(dir, 0o755)
	chmod(filepath.Join(dir, fileName), 0o644)
	f = open(t, dir)
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, fileName): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "letters"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	chmod(dir, 0o755)
	_, err := OpenFile(dir)
	refused(t, err, "open to others (mode 755) and holds other files, such as letters", "folder of its own, for example "+dir+"/sluice", "chmod 700")
	chmod(dir, 0o700)
	open(t, dir)
}

func TestWhatIsNoFolderIsRefused(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := OpenFile(file)
	refused(t, err, "is not a folder")
	_, err = OpenFile(filepath.Join(file, "state"))
	refused(t, err, "state.dir", "not a directory")

	state := open(t, filepath.Join(dir, "state"))
	if err := state.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(state.path), os.Symlink(file, state.path)); err != nil {
		t.Fatal(err)
	}
	_, err = OpenFile(filepath.Join(dir, "state"))
	refused(t, err, "is not a plain file")
}

func TestALaterFormatIsRefused(t *testing.T) {
	dir := t.TempDir()
	change := func(do func(tx *bbolt.Tx) error) {
		db, err := bbolt.Open(filepath.Join(dir, fileName), 0o600, nil)
		if err == nil {
			err = errors.Join(db.Update(do), db.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	change(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("other")); return err })
	_, err := OpenFile(dir)
	refused(t, err, "is not a state of sluice")
	change(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucket(quotasBucket); err != nil {
			return err
		}
		b, err := tx.CreateBucket(metaBucket)
		if err != nil {
			return err
		}
		return b.Put(formatKey, binary.BigEndian.AppendUint32(nil, 2))
	})
	_, err = OpenFile(dir)
	refused(t, err, "has format 2, this sluice knows 1", "state.dir")
}

func TestALeftoverOfMakingTheFileIsNoObstacle(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileName+newSuffix), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	save(t, open(t, dir), Quota{"a", 1, 1})
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("%v %v", entries, err)
	}
}

func TestNothingIsWrittenBehindAFailedSync(t *testing.T) {
	f := open(t, t.TempDir())
	save(t, f, Quota{"a", 1, 1})
	f.fail(errors.New("input/output error"))
	refused(t, f.SaveQuotas([]Quota{{"a", 1, 2}}), "not written any more: input/output error; restart")
	if q, ok, err := f.Quota("a"); !ok || err != nil || q.Count != 1 {
		t.Errorf("%v %v %v", q, ok, err)
	}
	f.failed.Store(nil)
}

func TestAFileThatShrinksUnderneathIsAnErrorNotACrash(t *testing.T) {
	f := open(t, t.TempDir())
	save(t, f, many(5000)...)
	if err := os.Truncate(f.path, 8192); err != nil {
		t.Fatal(err)
	}
	refused(t, f.Quotas(func(Quota) bool { return true }), "was not read: reading it failed: runtime error")
	refused(t, f.SaveQuotas([]Quota{{"a", 1, 2}}), "not written any more")
}

func TestManyGoroutines(t *testing.T) {
	f := open(t, t.TempDir())
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 20 {
				if err := f.SaveQuotas([]Quota{{fmt.Sprintf("%d/%d", i, j), 1, int64(j)}}); err != nil {
					t.Error(err)
				}
				if q, ok, err := f.Quota(fmt.Sprintf("%d/%d", i, j)); !ok || err != nil || q.Count != int64(j) {
					t.Error(q, ok, err)
				}
				if err := f.Quotas(func(Quota) bool { return true }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(all(t, f)); n != 80 {
		t.Errorf("%d quotas", n)
	}
}

// many returns quotas with keys like those of the limit room.
func many(n int) []Quota {
	q := make([]Quota, n)
	for i := range q {
		q[i] = Quota{fmt.Sprintf("c:keys/client-%06d:standard.day", i), 20_700, int64(i)}
	}
	rand.Shuffle(n, func(i, j int) { q[i], q[j] = q[j], q[i] })
	return q
}

func BenchmarkSave100000(b *testing.B) {
	dir := b.TempDir()
	f := open(b, dir)
	q := many(100_000)
	for b.Loop() {
		for i := range q {
			q[i].Count++
		}
		save(b, f, q...)
	}
	info, err := os.Stat(filepath.Join(dir, fileName))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(info.Size())/1e6, "MB")
}

func BenchmarkSave1000Of100000(b *testing.B) {
	f := open(b, b.TempDir())
	q := many(100_000)
	save(b, f, q...)
	for b.Loop() {
		part := q[rand.IntN(99_000):][:1000]
		for i := range part {
			part[i].Count++
		}
		save(b, f, part...)
	}
}

func BenchmarkOpenAndLoad100000(b *testing.B) {
	dir := b.TempDir()
	f := open(b, dir)
	save(b, f, many(100_000)...)
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		f := open(b, dir)
		if n := len(all(b, f)); n != 100_000 {
			b.Fatal(n)
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
