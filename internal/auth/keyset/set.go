package keyset

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth/jose"
)

// Set is the keys of one place. It is a jose.Source, and safe for use by many
// goroutines.
type Set struct {
	registry *Registry
	place    Place
	users    int // of registry.mu
	state    atomic.Pointer[state]
	changes  atomic.Uint64 // how often the keys became others
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup // fetches

	mu      sync.Mutex
	closed  bool
	flight  *flight
	started time.Time // when the last fetch began
	failed  error     // why the last fetch brought nothing; nil: it did
	misses  int       // fetches that failed since one did not
	timer   *time.Timer
	unknown map[string]time.Time // kids that a fetch did not bring, and when

	// Of the fetch that runs.
	found   string // where the discovery document says that the keys are
	foundAt time.Time
}

// state is the keys as they were fetched. It does not change.
type state struct {
	keys     []jose.Key
	byID     map[string][]jose.Key
	nameless []jose.Key
	print    string // equal for equal keys
	stale    time.Time
}

// flight is a fetch that runs; done is closed behind it, when err has been set.
type flight struct {
	done chan struct{}
	err  error
}

var _ jose.Source = (*Set)(nil)

// Place is where the keys come from.
func (s *Set) Place() Place { return s.place }

// Changes counts how often the keys became others than they were. What was verified
// before the latest change must be verified again.
func (s *Set) Changes() uint64 { return s.changes.Load() }

// Keys returns the candidates for a kid. It waits for a fetch, at most Wait, when
// there are no keys yet, or none with the kid and the cooldown is over. Keys without
// an id are candidates for every kid that is not known.
func (s *Set) Keys(kid string) ([]jose.Key, error) {
	now := s.registry.now()
	if keys, ok := s.known(kid, now); ok {
		return keys, nil
	}
	keys, f, begun, err := s.ask(kid, now)
	if f == nil {
		return keys, err
	}
	patience := time.NewTimer(Wait)
	defer patience.Stop()
	select {
	case <-f.done:
	case <-patience.C:
		return nil, fmt.Errorf("%w: they are being fetched for longer than %v", jose.ErrUnavailable, Wait)
	}
	if f.err != nil {
		return nil, unavailable(f.err)
	}
	keys, ok := s.known(kid, now)
	if !ok && begun { // a fetch that ran already may have been answered before there was such a key
		s.miss(kid, now)
	}
	return keys, nil
}

func unavailable(err error) error { return fmt.Errorf("%w: %w", jose.ErrUnavailable, err) }

// known returns the candidates as far as they are here; ok is false where only a fetch
// could tell.
func (s *Set) known(kid string, now time.Time) (keys []jose.Key, ok bool) {
	st := s.state.Load()
	switch {
	case st == nil || now.After(st.stale):
		return nil, false
	case kid == "":
		return st.keys, true
	}
	if keys = st.byID[kid]; keys == nil {
		keys = st.nameless
	}
	return keys, keys != nil
}

// ask returns the fetch that may tell about a kid, and begins it when it is time.
// Where no fetch is to be waited for, it returns the candidates, of which there may be
// none, or the error that says that it cannot be told.
func (s *Set) ask(kid string, now time.Time) (keys []jose.Key, f *flight, begun bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight != nil {
		return nil, s.flight, false, nil
	}
	if keys, ok := s.known(kid, now); ok { // a fetch has ended meanwhile
		return keys, nil, false, nil
	}
	missed, remembered := s.unknown[kid]
	wait := s.failed == nil && remembered && now.Sub(missed) < unknownFor
	if !wait && now.Sub(s.started) >= Cooldown && !s.registry.offline && !s.closed {
		return nil, s.begin(now), true, nil
	}
	if s.failed != nil {
		return nil, nil, false, unavailable(s.failed)
	}
	if st := s.state.Load(); st == nil || now.After(st.stale) {
		return nil, nil, false, jose.ErrUnavailable
	}
	return nil, nil, false, nil
}

// miss notes that a fetch did not bring a kid.
func (s *Set) miss(kid string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.unknown) >= maxUnknown {
		clear(s.unknown)
	}
	s.unknown[kid] = now
}

// refresh begins a fetch when none runs.
func (s *Set) refresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight == nil && !s.closed {
		s.begin(s.registry.now())
	}
}

// begin starts a fetch. s.mu is held.
func (s *Set) begin(now time.Time) *flight {
	f := &flight{done: make(chan struct{})}
	s.flight, s.started = f, now
	s.running.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, Timeout)
		defer cancel()
		keys, fresh, err := s.fetch(ctx)
		s.end(f, keys, fresh, err)
	})
	return f
}

// end takes over what a fetch brought, and sets the time of the next.
func (s *Set) end(f *flight, keys []jose.Key, fresh time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(f.done)
	f.err, s.flight = err, nil
	if s.closed {
		return
	}
	before := s.failed
	s.failed = err
	var next time.Duration
	if err != nil {
		s.registry.failed.Add(1)
		s.misses++
		next = min(Cooldown<<min(s.misses-1, 10), maxRetry)
		next += rand.N(next / 4)
		if before == nil || s.misses == 1 {
			s.registry.log.Warn("the keys of a token issuer cannot be fetched; those that are known go on", "place", s.place.String(), "error", err)
		}
	} else {
		s.registry.fetched.Add(1)
		s.misses = 0
		s.take(keys, fresh)
		next = fresh*3/4 - rand.N(fresh/8)
	}
	s.schedule(next)
}

// later has the first fetch begin after a while.
func (s *Set) later(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.schedule(d)
}

// schedule sets the time of the next fetch that no token asks for. s.mu is held.
func (s *Set) schedule(d time.Duration) {
	if s.timer == nil {
		s.timer = time.AfterFunc(d, s.refresh)
	} else {
		s.timer.Reset(d)
	}
}

// take makes keys those of the set.
func (s *Set) take(keys []jose.Key, fresh time.Duration) {
	st := &state{keys: keys, byID: map[string][]jose.Key{}, print: fingerprint(keys), stale: s.registry.now().Add(fresh + MaxStale)}
	for _, k := range keys {
		if k.ID == "" {
			st.nameless = append(st.nameless, k)
		} else {
			st.byID[k.ID] = append(st.byID[k.ID], k)
		}
	}
	old := s.state.Swap(st)
	if old != nil && old.print == st.print {
		return
	}
	s.changes.Add(1)
	clear(s.unknown)
	s.registry.log.Info("the keys of a token issuer are here", "place", s.place.String(), "keys", len(keys))
}

// fingerprint is equal for equal keys, in whatever order they are.
func fingerprint(keys []jose.Key) string {
	lines := make([]string, 0, len(keys))
	for i := range keys {
		lines = append(lines, fmt.Sprintf("%q %q %s", keys[i].ID, keys[i].Algorithm, keys[i].Thumbprint()))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// close ends what runs.
func (s *Set) close() {
	s.mu.Lock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	s.cancel()
	s.running.Wait()
}

// String names the place, for the log.
func (p Place) String() string { return cmp.Or(p.URL, p.Issuer) }

// Quiet returns a source of what is known by now, that fetches nothing and waits for
// nothing.
func (s *Set) Quiet() jose.Source { return quiet{s} }

type quiet struct{ set *Set }

func (q quiet) Keys(kid string) ([]jose.Key, error) {
	keys, ok := q.set.known(kid, q.set.registry.now())
	if !ok {
		return nil, fmt.Errorf("%w: nobody is asked", jose.ErrUnavailable)
	}
	return keys, nil
}
