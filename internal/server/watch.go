package server

import (
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// watcher sees when files of identities change. It watches folders, not files,
// since a file is usually replaced rather than written: by rename, or by a
// symbolic link that is turned to another folder, in which case the change is in
// the folder that holds the link. So for every link on the way to a file the
// folder of the link is watched too.
type watcher struct {
	log  *slog.Logger
	fs   *fsnotify.Watcher
	done chan struct{}

	mu   sync.Mutex
	ids  []*identity
	dirs map[string]bool
}

// settleTime is how long files must have been left alone before they are read:
// a certificate and its key are two files that change one after the other.
const settleTime = 100 * time.Millisecond

// newWatcher starts. Where the system has no way to watch files, certificates
// are reloaded with the configuration only.
func newWatcher(log *slog.Logger) *watcher {
	w := &watcher{log: log, done: make(chan struct{}), dirs: map[string]bool{}}
	fs, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn("certificates are not watched, reload the configuration to change them", "cause", err)
		close(w.done)
		return w
	}
	w.fs = fs
	go w.run()
	return w
}

// watch makes ids the ones that are kept up to date.
func (w *watcher) watch(ids []*identity) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ids = ids
	w.rearm()
}

// rearm brings the watched folders in line with where the files are now.
func (w *watcher) rearm() {
	if w.fs == nil {
		return
	}
	want := map[string]bool{}
	for _, id := range w.ids {
		for _, f := range id.files() {
			foldersOf(f, want, 0)
		}
	}
	for d := range w.dirs {
		if !want[d] {
			_ = w.fs.Remove(d) // it may have gone by itself
			delete(w.dirs, d)
		}
	}
	for d := range want {
		// Adding one again is harmless, and needed when it was replaced.
		if err := w.fs.Add(d); err != nil {
			w.log.Warn("a folder of certificates cannot be watched", "folder", d, "cause", err)
			continue
		}
		w.dirs[d] = true
	}
}

// maxLinks bounds the links that are followed, as the system's own limit does.
const maxLinks = 40

// foldersOf adds to dirs the folders in which a change can change what path
// leads to.
func foldersOf(path string, dirs map[string]bool, links int) {
	path = filepath.Clean(path)
	dirs[filepath.Dir(path)] = true
	for at := path; links < maxLinks; at = filepath.Dir(at) {
		if to, err := os.Readlink(at); err == nil {
			dirs[filepath.Dir(at)] = true
			if !filepath.IsAbs(to) {
				to = filepath.Join(filepath.Dir(at), to)
			}
			rest, err := filepath.Rel(at, path)
			if err == nil {
				foldersOf(filepath.Join(to, rest), dirs, links+1)
			}
			return
		}
		if at == filepath.Dir(at) {
			return
		}
	}
}

func (w *watcher) run() {
	defer close(w.done)
	settled := time.NewTimer(settleTime)
	settled.Stop()
	defer settled.Stop()
	for {
		select {
		case e, ok := <-w.fs.Events:
			if !ok {
				return
			}
			if e.Op != fsnotify.Chmod {
				settled.Reset(settleTime)
			}
		case err, ok := <-w.fs.Errors:
			if !ok {
				return
			}
			// Events may have been lost, so look at everything.
			w.log.Warn("watching certificates", "cause", err)
			settled.Reset(settleTime)
		case <-settled.C:
			w.reload()
		}
	}
}

func (w *watcher) reload() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range w.ids {
		id.reload(w.log)
	}
	w.rearm()
}

// close stops.
func (w *watcher) close() {
	if w.fs != nil {
		_ = w.fs.Close() // nothing is lost with it
	}
	<-w.done
}
