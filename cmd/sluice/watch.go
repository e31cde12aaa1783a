package main

import (
	"crypto/sha256"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Editors write files in place, by rename, and in pieces; orchestrators swap a
// symbolic link two folders up. So the folders of all files are watched, and
// those of the links on the way; any event there starts a short quiet period,
// after which the content decides: only a file that reads differently counts.

// patience bounds the quiet period: in a folder where something happens all the
// time, such as a log that is written, the files are read all the same.
const patience = time.Second

// quietPeriod is how long nothing must happen in the folders before the files
// are read: an editor that writes in several steps is through by then.
const quietPeriod = 100 * time.Millisecond

// watcher tells when one of a set of files reads differently.
type watcher struct {
	events  *fsnotify.Watcher
	log     *slog.Logger
	files   map[string][sha256.Size]byte // by path, as given
	dirs    map[string]bool
	recheck chan struct{}
}

func newWatcher(log *slog.Logger) (*watcher, error) {
	events, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	return &watcher{events: events, log: log, dirs: map[string]bool{}, recheck: make(chan struct{}, 1)}, nil
}

// reading tells that the files are about to be read: what they hold now is what
// counts as known. What changes from now on, be it while they are read, differs.
func (w *watcher) reading() {
	for f := range w.files {
		w.files[f] = digest(f)
	}
}

// set replaces the files that are watched. Those that were watched before keep
// what reading found. The others were read for the first time, which began at
// since; one that was written in between counts as changed.
func (w *watcher) set(files []string, since time.Time) {
	known := w.files
	w.files = make(map[string][sha256.Size]byte, len(files))
	want := map[string]bool{}
	for _, f := range files {
		sum, ok := known[f]
		if !ok && !writtenBetween(f, since, time.Now()) {
			sum = digest(f)
		}
		w.files[f] = sum
		if sum != digest(f) {
			select {
			case w.recheck <- struct{}{}:
			default: // it is told already
			}
		}
		for _, d := range foldersOf(f) {
			want[d] = true
		}
	}
	for d := range want {
		if !w.dirs[d] {
			if err := w.events.Add(d); err != nil {
				w.log.Warn("cannot watch a folder; use SIGHUP to reload", "folder", d, "error", err)
				delete(want, d)
			}
		}
	}
	for d := range w.dirs {
		if !want[d] {
			_ = w.events.Remove(d) // it is gone, or about to be of no interest
		}
	}
	w.dirs = want
}

// tickOfFiles is more than the clock behind the times of files may be late: the
// system takes them from its last tick, up to 10 ms ago.
const tickOfFiles = 20 * time.Millisecond

func writtenBetween(file string, from, to time.Time) bool {
	info, err := os.Stat(file)
	return err == nil && !info.ModTime().Before(from.Add(-tickOfFiles)) && !info.ModTime().After(to)
}

// foldersOf lists the folders in which a change can change what f reads: that
// of f, and that of everything a symbolic link on the way points to.
func foldersOf(f string) []string {
	folders := []string{filepath.Dir(f)}
	for range 32 { // more links than any system follows
		target, err := os.Readlink(f)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(f), target)
		}
		f = target
		folders = append(folders, filepath.Dir(f))
	}
	if real, err := filepath.EvalSymlinks(filepath.Dir(folders[0])); err == nil {
		folders = append(folders, real)
	}
	if real, err := filepath.EvalSymlinks(f); err == nil {
		folders = append(folders, filepath.Dir(real))
	}
	return folders
}

// run calls changed, on its own goroutine, after a file came to read
// differently, until done is closed.
func (w *watcher) run(done <-chan struct{}, changed chan<- struct{}) {
	quiet := time.NewTimer(time.Hour)
	quiet.Stop()
	defer quiet.Stop()
	var began time.Time // when the first event came that nobody has looked into
	stir := func() {
		now := time.Now()
		if began.IsZero() {
			began = now
		}
		quiet.Reset(min(quietPeriod, max(patience-now.Sub(began), 0)))
	}
	for {
		select {
		case <-done:
			return
		case _, ok := <-w.events.Events:
			if !ok {
				return
			}
			stir()
		case err, ok := <-w.events.Errors:
			if !ok {
				return
			}
			w.log.Warn("watching files", "error", err)
			stir() // events may have been lost
		case <-w.recheck:
			stir()
		case <-quiet.C:
			began = time.Time{}
			select {
			case changed <- struct{}{}:
			case <-done:
				return
			}
		}
	}
}

// differs reports whether a file reads differently than at the last set.
func (w *watcher) differs() bool {
	for f, was := range w.files {
		if digest(f) != was {
			return true
		}
	}
	return false
}

func (w *watcher) close() error { return w.events.Close() }

// digest is zero for a file that cannot be read.
func digest(file string) (sum [sha256.Size]byte) {
	f, err := os.Open(file)
	if err != nil {
		return sum
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return [sha256.Size]byte{}
	}
	h.Sum(sum[:0])
	return sum
}
