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
	w.set([]string{file}, nil)
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

func TestAChangeBehindTheLoadIsNotTakenForKnown(t *testing.T) {
	dir := t.TempDir()
	old, next, link := filepath.Join(dir, "old"), filepath.Join(dir, "new"), filepath.Join(dir, "link")
	put(t, old, "old")
	put(t, next, "new")
	if err := os.Symlink("old", link); err != nil {
		t.Fatal(err)
	}
	w, err := newWatcher(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	loaded := contents{}
	if b, err := loaded.read(link); string(b) != "old" || err != nil {
		t.Fatalf("%q, %v", b, err)
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("new", link); err != nil { // to a file that was written long ago
		t.Fatal(err)
	}
	w.learn(loaded)
	w.set([]string{link}, nil)
	if !w.differs() {
		t.Error("it went unseen")
	}
	select {
	case <-w.recheck:
	default:
		t.Error("nobody is told to look")
	}
}

func TestABadFileThatIsPutRightDiffers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	put(t, file, "good")
	w, _ := watching(t, file)
	for _, content := range []string{"bad", "good"} {
		put(t, file, content)
		if !w.differs() {
			t.Fatalf("%s: it went unseen", content)
		}
		loaded := contents{}
		_, _ = loaded.read(file)
		w.learn(loaded)
		if w.differs() {
			t.Fatalf("%s: it is not taken for known", content)
		}
	}
}

func TestAFileThatComesToMatchAPatternIsAChange(t *testing.T) {
	dir := t.TempDir()
	main := filepath.Join(dir, "f")
	put(t, main, "main")
	w, err := newWatcher(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	w.set([]string{main}, []string{filepath.Join(dir, "*.yaml")})
	if w.differs() {
		t.Fatal("it differs before anything has changed")
	}
	put(t, filepath.Join(dir, "new.yaml"), "routes: []")
	if !w.differs() {
		t.Error("it went unseen")
	}
	w.reading()
	if w.differs() {
		t.Error("it is not taken for known")
	}
}
