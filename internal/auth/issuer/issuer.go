// Package issuer is the gateway's own token issuer: an OAuth 2.0 authorization
// server (RFC 6749) whose clients are those that have an API key.
//
// # Tokens
//
// An access token is a signed JWT in the shape of RFC 9068. Whoever has the public
// keys can verify it; nothing about it is stored. A refresh token is random text
// that only this issuer understands; its hash is stored, and it is used once.
//
// # Families
//
// All tokens that come from one grant are a family: the first access and refresh
// token, and those that refreshing gave. The family's name is part of the `jti` of
// its access tokens and of its refresh tokens. It ends as a whole: when it is
// revoked, when a refresh token is used a second time, or with the API key that it
// was granted to.
//
// # Records
//
// What must outlast the process is in store.Records, and all gateways share it:
//
//	issuer/<algorithm>.<n>  the n-th signing key of an algorithm, private half included
//	family/<name>           a family that can be refreshed
//	revoked/<name>          a family that has ended before its access tokens have
//
// The families that were revoked are in memory too, so that every use of a token can
// look without waiting and without a lock. Without Records there are no refresh
// tokens, and keys and revocations hold as long as the process.
package issuer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/store"
)

// Options are what an Issuer is made with.
type Options struct {
	Log *slog.Logger     // nil: nothing is logged
	Now func() time.Time // nil: time.Now
	// Offline is for check and explain: there are no keys, and nothing runs.
	Offline bool
}

// Issuer is what outlives configurations: signing keys, and what was revoked. It is
// safe for use by many goroutines.
type Issuer struct {
	log     *slog.Logger
	now     func() time.Time
	offline bool
	records store.Records // nil: nothing is kept
	kept    atomic.Bool   // there are records, for Changed, which may come early
	ring    ring
	revoked revoked
	grants  allowance
	tending sync.Mutex // one tends at a time

	mu      sync.Mutex // of what follows, and of the beginning and end of run
	servers []*Server
	stop    context.CancelFunc // nil: run does not run
	done    chan struct{}
	closed  bool
	stale   atomic.Bool   // the records have to be read again
	read    atomic.Bool   // they have been read once: what was revoked is known
	wake    chan struct{} // for run
}

// New makes an issuer. It must be closed.
func New(o Options) *Issuer {
	i := &Issuer{log: o.Log, now: o.Now, offline: o.Offline, wake: make(chan struct{}, 1)}
	if i.log == nil {
		i.log = slog.New(slog.DiscardHandler)
	}
	if i.now == nil {
		i.now = time.Now
	}
	i.revoked.init()
	return i
}

// patience is how long one piece of work on the records may take.
const patience = time.Second

// Keep gives the issuer the place where keys and families are kept. It is called
// before anything else; only the first call counts.
func (i *Issuer) Keep(r store.Records) {
	if i.records == nil {
		i.records = r
		i.stale.Store(true)
		i.kept.Store(true)
	}
}

// Changed says which records have changed; nil: any may have. It is what a watcher
// of the records calls. Before Keep it does nothing: everything is read afterwards.
func (i *Issuer) Changed(keys []string) {
	if !i.kept.Load() {
		return
	}
	if keys == nil {
		i.again()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, key := range keys {
		switch name, isRevoked := strings.CutPrefix(key, revokedPrefix); {
		case isRevoked:
			i.learn(ctx, name)
		case strings.HasPrefix(key, keyPrefix):
			i.again()
		}
	}
}

// known reports whether it is known what was revoked.
func (i *Issuer) known() bool { return i.records == nil || i.read.Load() }

// again has the records read soon, when there is anybody who needs them.
func (i *Issuer) again() {
	i.stale.Store(true)
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

// use adds a configuration's server, and sees that there are keys for it. What goes
// wrong with the records is tried again until it goes well.
func (i *Issuer) use(s *Server) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return
	}
	i.servers = append(i.servers, s)
	if i.offline {
		return
	}
	if i.stop == nil {
		ctx, cancel := context.WithCancel(context.Background())
		i.stop, i.done = cancel, make(chan struct{})
		defer func() { go i.run(ctx, i.done) }()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := i.tend(ctx, i.lifetimes()); err != nil {
		i.log.Warn("the token issuer's keys cannot be read or made now, they are tried again", "error", err)
	}
}

// leave takes a configuration's server off.
func (i *Issuer) leave(s *Server) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for at, one := range i.servers {
		if one == s {
			i.servers = append(i.servers[:at:at], i.servers[at+1:]...)
			return
		}
	}
}

// lifetimes is the longest access token of each algorithm that is in use with keys
// of its own. The caller holds i.mu.
func (i *Issuer) lifetimes() map[string]time.Duration {
	used := map[string]time.Duration{}
	for _, s := range i.servers {
		if s.hmac == nil {
			used[s.o.Algorithm] = max(used[s.o.Algorithm], s.o.AccessTTL)
		}
	}
	return used
}

// How often run looks whether a key has to be made or removed, and how soon it tries
// again what has failed.
const (
	calm  = 5 * time.Minute
	haste = time.Second
)

// run looks after keys and revocations until ctx ends.
func (i *Issuer) run(ctx context.Context, done chan<- struct{}) {
	defer close(done)
	timer := time.NewTimer(haste)
	defer timer.Stop()
	warned := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-i.wake:
		}
		i.mu.Lock()
		used := i.lifetimes()
		i.mu.Unlock()
		once, cancel := context.WithTimeout(ctx, patience)
		err := i.tend(once, used)
		cancel()
		if err != nil && !warned && ctx.Err() == nil {
			i.log.Warn("the token issuer's keys cannot be looked after now, they are tried again", "error", err)
		}
		warned = err != nil
		if err != nil {
			timer.Reset(haste)
		} else {
			timer.Reset(calm)
		}
	}
}

// tend brings memory and records into step, makes the keys that are due and removes
// those that have ended. Where another gateway was faster it takes what that has made.
func (i *Issuer) tend(ctx context.Context, used map[string]time.Duration) error {
	i.tending.Lock()
	defer i.tending.Unlock()
	err := store.ErrConflict
	for tries := 0; tries < 4 && errors.Is(err, store.ErrConflict); tries++ {
		err = i.tendOnce(ctx, used)
	}
	return err
}

func (i *Issuer) tendOnce(ctx context.Context, used map[string]time.Duration) error {
	now := i.now()
	i.revoked.sweep(now)
	if i.records != nil && i.stale.Swap(false) {
		if err := errors.Join(i.ring.load(ctx, i.records, now, i.log), i.recall(ctx, now)); err != nil {
			i.stale.Store(true)
			return err
		}
		i.read.Store(true)
	}
	for algorithm, lifetime := range used {
		if err := i.ring.tend(ctx, i.records, algorithm, lifetime, now); err != nil {
			i.stale.Store(true)
			return fmt.Errorf("key of %s: %w", algorithm, err)
		}
	}
	return i.ring.sweep(ctx, i.records, used, now)
}

// Close ends what runs. No server of the issuer is used any more.
func (i *Issuer) Close(ctx context.Context) error {
	i.mu.Lock()
	stop, done := i.stop, i.done
	i.closed = true
	i.mu.Unlock()
	if stop == nil {
		return nil
	}
	stop()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("issuer: keys are still being looked after: %w", ctx.Err())
	}
}
