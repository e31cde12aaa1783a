package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// watching starts a watcher on one file and returns how it tells.
func watching(t *testing.T, file string) (*watcher, <-chan struct{}) {
	t.Helper()
	w, err := newWatcher(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	w.set([]string{file}, time.Now().Add(time.Hour)) // what was written before does not count
	done, stopped := make(chan struct{}), make(chan struct{})
	changed := make(chan struct{})
	go func() { defer close(stopped); w.run(done, changed) }()
	t.Cleanup(func() { close(done); <-stopped; _ = w.close() })
	return w, changed
}

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAChangeIsToldHoweverItIsMade(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, dir string){
		"in place": func(t *testing.T, dir string) { put(t, filepath.Join(dir, "real", "f"), "new") },
		"by rename": func(t *testing.T, dir string) {
			put(t, filepath.Join(dir, "real", "g"), "new")
			if err := os.Rename(filepath.Join(dir, "real", "g"), filepath.Join(dir, "real", "f")); err != nil {
				t.Fatal(err)
			}
		},
		"by a swapped link": func(t *testing.T, dir string) {
			if err := os.Mkdir(filepath.Join(dir, "other"), 0o700); err != nil {
				t.Fatal(err)
			}
			put(t, filepath.Join(dir, "other", "f"), "new")
			if err := os.Symlink("other", filepath.Join(dir, "next")); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(dir, "next"), filepath.Join(dir, "current")); err != nil {
				t.Fatal(err)
			}
		},
		"by removal": func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "real", "f")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "real"), 0o700); err != nil {
				t.Fatal(err)
			}
			put(t, filepath.Join(dir, "real", "f"), "old")
			if err := os.Symlink("real", filepath.Join(dir, "current")); err != nil {
				t.Fatal(err)
			}
			w, changed := watching(t, filepath.Join(dir, "current", "f"))
			change(t, dir)
			select {
			case <-changed:
			case <-time.After(20 * time.Second):
				t.Fatal("nobody was told")
			}
			if !w.differs() {
				t.Error("the file is taken for unchanged")
			}
		})
	}
}

func TestWhatIsWrittenAgainIsNoChange(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	put(t, file, "same")
	w, changed := watching(t, file)
	put(t, file, "same")
	select {
	case <-changed:
	case <-time.After(20 * time.Second):
		t.Fatal("the write went unseen")
	}
	if w.differs() {
		t.Error("the same content is taken for a change")
	}
}

func TestAWriteWhileTheFileWasReadCounts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	began := time.Now().Add(-time.Minute)
	put(t, file, "newer than what was read")
	w, err := newWatcher(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	w.set([]string{file}, began)
	if !w.differs() {
		t.Error("it went unseen")
	}
}

func TestAChangeBehindTheReadingIsNotTakenForKnown(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "old"), "old")
	put(t, filepath.Join(dir, "new"), "new")
	link := filepath.Join(dir, "link")
	if err := os.Symlink("old", link); err != nil {
		t.Fatal(err)
	}
	w, _ := watching(t, link)
	w.reading()
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("new", link); err != nil { // a file that was written long ago
		t.Fatal(err)
	}
	w.set([]string{link}, time.Now().Add(time.Hour))
	if !w.differs() {
		t.Error("it went unseen")
	}
}
