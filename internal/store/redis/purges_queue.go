package redis

import (
	"strings"
	"sync"

	"github.com/sluice-gateway/sluice/internal/store"
)

// The queue of Invalidate: a set of URIs, and of wider purges in which too many of them
// were put together. What is in it is hidden from Get. A name that is put in again while
// it is being recorded stays, because of its turn.

const (
	maxWaiting = 4096 // URIs; more become prefixes
	maxOrigins = 64   // prefixes; more become everything
	maxBatch   = 128  // purges recorded at once
)

type queue struct {
	mu       sync.Mutex
	uris     map[string]uint64 // → turn
	prefixes map[string]uint64
	all      uint64 // turn; 0: no
	turn     uint64
	wake     chan struct{} // of one: there is something
}

func newQueue() *queue {
	return &queue{uris: map[string]uint64{}, prefixes: map[string]uint64{}, wake: make(chan struct{}, 1)}
}

// put adds URIs, and reports whether they had to be put together.
func (q *queue) put(uris []string) (collapsed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.turn++
	for _, u := range uris {
		switch _, there := q.uris[u]; {
		case len(u) > store.MaxPurgeName:
			q.prefixes[origin(u)] = q.turn
			collapsed = true
		case there || len(q.uris) < maxWaiting:
			q.uris[u] = q.turn
		default:
			for old := range q.uris {
				q.prefixes[origin(old)] = q.turn
			}
			clear(q.uris)
			q.prefixes[origin(u)] = q.turn
			collapsed = true
		}
	}
	if len(q.prefixes) > maxOrigins {
		clear(q.prefixes)
		clear(q.uris)
		q.all, collapsed = q.turn, true
	}
	notify(q.wake)
	return collapsed
}

// origin is the part of a URI that ends with the first slash behind the authority.
func origin(uri string) string {
	at := strings.Index(uri, "://")
	if at < 0 {
		at = 0
	} else {
		at += len("://")
	}
	if n := strings.IndexByte(uri[at:], '/'); n >= 0 && at+n < store.MaxPurgeName {
		return uri[:at+n+1]
	}
	return uri[:min(len(uri), at)]
}

// has reports whether a URI is being purged.
func (q *queue) has(uri string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.all != 0 || q.uris[uri] != 0 {
		return true
	}
	for p := range q.prefixes {
		if strings.HasPrefix(uri, p) {
			return true
		}
	}
	return false
}

// batch is some of what waits, and the turn to give to done when it is recorded.
func (q *queue) batch() (p []store.Purge, turn uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.all != 0 {
		p = append(p, store.Purge{Kind: store.PurgeAll})
	}
	for name := range q.prefixes {
		p = append(p, store.Purge{Kind: store.PurgePrefix, Name: name})
	}
	for name := range q.uris {
		if len(p) >= maxBatch {
			break
		}
		p = append(p, store.Purge{Kind: store.PurgeURI, Name: name})
	}
	return p, q.turn
}

// done removes what was recorded, and reports whether more waits.
func (q *queue) done(p []store.Purge, turn uint64) (more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range p {
		from := q.uris
		switch p[i].Kind {
		case store.PurgeAll:
			if q.all <= turn {
				q.all = 0
			}
			continue
		case store.PurgePrefix:
			from = q.prefixes
		}
		if from[p[i].Name] <= turn {
			delete(from, p[i].Name)
		}
	}
	return q.all != 0 || len(q.prefixes)+len(q.uris) > 0
}
