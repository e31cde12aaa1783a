// Package keyset keeps the public keys of token issuers in step with where they are
// published: a JSON Web Key Set at a URL, or the one that an issuer's OpenID discovery
// document names.
//
// # A set's life
//
// A Registry has one Set for each place, however many configurations use it. The set
// is fetched when it is first acquired (Options.Settle later, or for the first token
// before that), again when three quarters of its freshness
// have passed, and at a `kid` that it does not have. At most one fetch runs, and none
// that a token asked for begins within Cooldown of the one before, whatever the tokens
// say: 10,000 forged ids cost one. Requests wait for a fetch at most Wait.
//
// While the issuer does not answer, the keys that are there go on for MaxStale past
// their freshness. What is not known then cannot be told, which is ErrUnavailable and
// not a refusal.
package keyset

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// The times of a set.
const (
	Cooldown = 10 * time.Second // from the start of one fetch to that of the next
	Wait     = 2 * time.Second  // that a request waits for a fetch
	Timeout  = 5 * time.Second  // of a fetch
	MaxStale = 24 * time.Hour   // past its freshness that a set is used

	defaultFresh = time.Hour
	minFresh     = 5 * time.Minute
	maxFresh     = 24 * time.Hour
	maxRetry     = 5 * time.Minute  // between fetches that fail
	unknownFor   = 30 * time.Second // that a kid which a fetch did not bring causes no other
)

const (
	maxReply   = 1 << 20 // bytes
	maxUnknown = 1024    // kids
)

// Place is where keys are published.
type Place struct {
	URL    string // of the key set; empty: as the discovery document of Issuer says
	Issuer string
}

// Options are what a Registry is made with.
type Options struct {
	Log *slog.Logger
	Now func() time.Time // nil: time.Now
	// Offline: nothing is fetched, and no key is ever known.
	Offline bool
	// Settle is how long a set that is new waits for its first fetch unless a token asks
	// before. A configuration that is only tried out has let go of it by then, and causes
	// none. 0: it is fetched at once.
	Settle time.Duration
	// Transport carries the requests; nil: one of its own, that uses no proxy.
	Transport http.RoundTripper
}

// Registry has the sets that are in use. It is safe for use by many goroutines.
type Registry struct {
	log     *slog.Logger
	now     func() time.Time
	offline bool
	settle  time.Duration
	client  *http.Client

	fetched, failed atomic.Uint64

	mu   sync.Mutex
	sets map[Place]*Set
}

// New makes a registry. It must be closed.
func New(o Options) *Registry {
	r := &Registry{log: o.Log, now: o.Now, offline: o.Offline, settle: o.Settle, sets: map[Place]*Set{}}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.now == nil {
		r.now = time.Now
	}
	if o.Transport == nil {
		o.Transport = newTransport()
	}
	r.client = &http.Client{Transport: o.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return r
}

// Fetches is how often keys were fetched, and how often that failed.
func (r *Registry) Fetches() (ok, failed uint64) { return r.fetched.Load(), r.failed.Load() }

// Acquire returns the set of a place, and sees to its being fetched when it is new. It must
// be released once for each time it was acquired.
func (r *Registry) Acquire(p Place) *Set {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sets[p]
	if s == nil {
		s = newSet(r, p)
		r.sets[p] = s
		switch {
		case r.offline:
		case r.settle > 0:
			s.later(r.settle)
		default:
			s.refresh()
		}
	}
	s.users++
	return s
}

// Release gives a set back. The last one ends what runs for it.
func (r *Registry) Release(s *Set) {
	r.mu.Lock()
	s.users--
	last := s.users == 0 && r.sets[s.place] == s
	if last {
		delete(r.sets, s.place)
	}
	r.mu.Unlock()
	if last {
		s.close()
	}
}

// Close ends what runs for every set.
func (r *Registry) Close() error {
	r.mu.Lock()
	sets := r.sets
	r.sets = map[Place]*Set{}
	r.mu.Unlock()
	for _, s := range sets {
		s.close()
	}
	r.client.CloseIdleConnections()
	return nil
}

var errOffline = errors.New("nothing is fetched offline")

// newSet makes a set that has no keys yet.
func newSet(r *Registry, p Place) *Set {
	s := &Set{registry: r, place: p, unknown: map[string]time.Time{}, failed: errOffline}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}
