package auth

import (
	"context"
	"encoding/hex"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/store"
)

// usedOnce remembers what may be used once only, such as a signed request, until it
// would not be accepted any more for its age. The zero value remembers nothing.
//
// What this process has seen is remembered here. With Records it is written down
// there too, before it is accepted, so that neither another gateway nor this one
// behind a restart accepts it again. Without Records nobody knows what was used
// before this process began: what is that old is refused.
type usedOnce struct {
	records atomic.Pointer[store.Records] // nil: none
	since   atomic.Int64                  // Unix s; 0: nothing was asked yet
	shards  [usedShards]usedShard
}

const (
	usedShards = 64
	// usedMost is how much one shard remembers: 524,288 in all, under 50 MiB. At the
	// usual max_age of 5 minutes that is 1,700 signed requests a second.
	usedMost = 8192
	// recordTime is how long the record may take.
	recordTime = time.Second
)

type usedShard struct {
	mu    sync.Mutex
	until map[usedKey]int64 // Unix s
	sweep int               // at this length those that are over are removed
}

// usedKey is the first half of a SHA-256: to find a second request for one that was
// seen takes 2^128 tries.
type usedKey [16]byte

var (
	errUsed     = errors.New("was used before, sign every request anew, with a nonce")
	errUsedFull = errors.New("more signatures than can be remembered are in use")
	errTooOld   = errors.New("is older than this gateway, which cannot know whether it was used")
)

// begin says from when on everything is remembered, once.
func (u *usedOnce) begin(now time.Time) { u.since.CompareAndSwap(0, now.Unix()) }

// keep names the place where more than this process remembers.
func (u *usedOnce) keep(r store.Records) { u.records.Store(&r) }

// take uses a key that was made at created and is refused for its age from until on.
// The error is errUsed or errTooOld; any other says that it cannot be told now. dry
// looks at what this process has seen, and uses nothing.
func (u *usedOnce) take(ctx context.Context, key usedKey, created, until, now int64, dry bool) error {
	records := u.records.Load()
	if records == nil && created <= u.since.Load() {
		return errTooOld
	}
	s := &u.shards[key[0]%usedShards]
	if dry {
		return s.look(key, now)
	}
	if err := s.take(key, until, now); err != nil && (records == nil || !errors.Is(err, errUsedFull)) {
		return err
	}
	if records == nil {
		return nil
	}
	ctx, stop := context.WithTimeout(ctx, recordTime)
	defer stop()
	_, err := (*records).Apply(ctx, []store.Change{{
		Key: "once/" + hex.EncodeToString(key[:]), Value: []byte{'1'}, Expires: time.Unix(until, 0), If: 0,
	}})
	switch {
	case errors.Is(err, store.ErrConflict):
		return errUsed
	case err != nil:
		s.forget(key) // whether it was written down decides when it comes again
	}
	return err
}

func (s *usedShard) look(key usedKey, now int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if until, ok := s.until[key]; ok && now < until {
		return errUsed
	}
	return nil
}

func (s *usedShard) take(key usedKey, until, now int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if before, ok := s.until[key]; ok && now < before {
		return errUsed
	}
	if len(s.until) >= s.sweep {
		for k, end := range s.until {
			if now >= end {
				delete(s.until, k)
			}
		}
		s.sweep = max(64, min(2*len(s.until), usedMost))
	}
	if len(s.until) >= usedMost {
		return errUsedFull
	}
	if s.until == nil {
		s.until = map[usedKey]int64{}
	}
	s.until[key] = until
	return nil
}

func (s *usedShard) forget(key usedKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.until, key)
}
