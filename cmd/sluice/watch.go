package main

import (
	"crypto/sha256"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/sluice-gateway/sluice/internal/config"
)

// Editors write files in place, by rename, and in pieces; orchestrators swap a
// symbolic link two folders up. So the folders of all files are watched, and
// those of the links on the way; any event there starts a short quiet period,
// after which the content decides: only a file that reads differently than when
// it was loaded counts, and a file that has come to match a pattern of include.

// patience bounds the quiet period: in a folder where something happens all the
// time, such as a log that is written, the files are read all the same.
const patience = time.Second

// quietPeriod is how long nothing must happen in the folders before the files
// are read: an editor that writes in several steps is through by then.
const quietPeriod = 100 * time.Millisecond

// contents are the digests of what a load has read, by absolute path; zero for a
// file that could not be read.
type contents map[string][sha256.Size]byte

// read reads a file for a load, and remembers it.
func (c contents) read(name string) ([]byte, error) {
	b, err := config.ReadFile(name)
	if err != nil {
		c[name] = [sha256.Size]byte{}
		return nil, err
	}
	c[name] = sha256.Sum256(b)
	return b, nil
}

// watcher tells when one of a set of files reads differently. All but run belongs
// to one goroutine.
type watcher struct {
	events   *fsnotify.Watcher
	log      *slog.Logger
	files    contents
	patterns map[string]string // and what matched them, one name a line
	dirs     map[string]bool
	recheck  chan struct{}
}

func newWatcher(log *slog.Logger) (*watcher, error) {
	events, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	return &watcher{
		events: events, log: log, files: contents{}, patterns: map[string]string{}, dirs: map[string]bool{}, recheck: make(chan struct{}, 1),
	}, nil
}

// reading tells that the patterns are about to be matched for a load.
func (w *watcher) reading() {
	for p := range w.patterns {
		w.patterns[p] = matches(p)
	}
}

// learn takes in what a load has read.
func (w *watcher) learn(read contents) { maps.Copy(w.files, read) }

// set replaces what is watched. The folders come first, so that whatever changes
// behind the look at the files is told of.
func (w *watcher) set(files, patterns []string) {
	want := map[string]bool{}
	for _, f := range files {
		for _, d := range foldersOf(f) {
			want[d] = true
		}
	}
	for _, p := range patterns {
		want[filepath.Dir(p)] = true
	}
	w.watch(want)
	known, matched := w.files, w.patterns
	w.files, w.patterns = make(contents, len(files)), make(map[string]string, len(patterns))
	for _, f := range files {
		sum, ok := known[f]
		if !ok {
			sum = digest(f) // it is named, and nobody has read it yet
		}
		w.files[f] = sum
	}
	for _, p := range patterns {
		names, ok := matched[p]
		if !ok {
			names = matches(p)
		}
		w.patterns[p] = names
	}
	if w.differs() {
		select {
		case w.recheck <- struct{}{}:
		default: // it is told already
		}
	}
}

// watch replaces the folders.
func (w *watcher) watch(want map[string]bool) {
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

// matches are the files that a pattern of include stands for now.
func matches(pattern string) string {
	names, err := filepath.Glob(pattern)
	if err != nil {
		return "" // the load has reported it
	}
	return strings.Join(names, "\n")
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

// differs reports whether a file reads differently than when it was loaded, or a
// pattern matches other files.
func (w *watcher) differs() bool {
	for f, was := range w.files {
		if digest(f) != was {
			return true
		}
	}
	for p, was := range w.patterns {
		if matches(p) != was {
			return true
		}
	}
	return false
}

func (w *watcher) close() error { return w.events.Close() }

// digest is zero for a file that cannot be read.
func digest(file string) [sha256.Size]byte {
	one := contents{}
	_, _ = one.read(file) // that it cannot be read is in the digest
	return one[file]
}
