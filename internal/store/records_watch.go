package store

import (
	"slices"
	"sync"
)

// maxNews is how many changed keys wait for the watcher. More are "any".
const maxNews = 10_000

// watcher tells who watches the records of a File what has changed, in a goroutine
// of its own, so that a slow one keeps nobody from writing.
type watcher struct {
	mu      sync.Mutex
	watched bool
	keys    []string
	all     bool
	wake    chan struct{} // of one: there is news
	stop    chan struct{}
	stopped sync.Once
	done    sync.WaitGroup
}

func (w *watcher) init() {
	w.wake, w.stop = make(chan struct{}, 1), make(chan struct{})
}

func (w *watcher) watch(f func(keys []string)) {
	w.mu.Lock()
	w.watched = true
	w.mu.Unlock()
	w.done.Go(func() {
		for {
			select {
			case <-w.stop:
				return
			case <-w.wake:
			}
			if keys, any := w.take(); any {
				f(keys)
			}
		}
	})
}

// take returns the news, nil for all.
func (w *watcher) take() (keys []string, any bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	keys, all := w.keys, w.all
	w.keys, w.all = nil, false
	if all {
		return nil, true
	}
	slices.Sort(keys)
	return slices.Compact(keys), len(keys) > 0
}

// tell notes that the records of changes have changed.
func (w *watcher) tell(changes []Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !w.watched || w.all:
		return
	case len(w.keys)+len(changes) > maxNews:
		w.keys, w.all = nil, true
	default:
		for i := range changes {
			w.keys = append(w.keys, changes[i].Key)
		}
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// close waits for the call under way, and for no more.
func (w *watcher) close() {
	w.stopped.Do(func() { close(w.stop) })
	w.done.Wait()
}
