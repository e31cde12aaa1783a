package issuer

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/store"
)

const (
	familyPrefix  = "family/"
	revokedPrefix = "revoked/"
)

// shards is how many parts the set of revoked families has. Each is copied to be
// changed: at 1,000 revocations a second and tokens that hold half an hour, a part
// is 7,000 names.
const shards = 256

// revoked is the families that have ended before their access tokens have, each
// with the Unix second from which on nobody needs to know. Reading takes no lock.
type revoked struct {
	seed  maphash.Seed
	mu    sync.Mutex // of those who change it
	parts [shards]atomic.Pointer[map[string]int64]
}

func (r *revoked) init() { r.seed = maphash.MakeSeed() }

func (r *revoked) part(family string) *atomic.Pointer[map[string]int64] {
	return &r.parts[maphash.String(r.seed, family)%shards]
}

func (r *revoked) has(family string) bool {
	m := r.part(family).Load()
	if m == nil {
		return false
	}
	_, ok := (*m)[family]
	return ok
}

// add notes a family until a moment.
func (r *revoked) add(family string, until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	part := r.part(family)
	next := map[string]int64{}
	if m := part.Load(); m != nil {
		if (*m)[family] >= until.Unix() {
			return
		}
		next = maps.Clone(*m)
	}
	next[family] = until.Unix()
	part.Store(&next)
}

// sweep forgets the families whose tokens have ended.
func (r *revoked) sweep(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.parts {
		m := r.parts[i].Load()
		if m == nil {
			continue
		}
		next := maps.Clone(*m)
		maps.DeleteFunc(next, func(_ string, until int64) bool { return until < now.Unix() })
		switch {
		case len(next) == 0:
			r.parts[i].Store(nil)
		case len(next) < len(*m):
			r.parts[i].Store(&next)
		}
	}
}

// all returns what is in the set.
func (r *revoked) all() map[string]int64 {
	all := map[string]int64{}
	for i := range r.parts {
		if m := r.parts[i].Load(); m != nil {
			maps.Copy(all, *m)
		}
	}
	return all
}

// end revokes a family: it cannot be refreshed from now on, and its access tokens,
// the last of which ends at last, are refused. When the error is nil it outlasts
// this process, and other gateways are about to know.
func (i *Issuer) end(ctx context.Context, family string, last time.Time) error {
	until := last.Add(slack)
	if i.records != nil {
		_, err := i.records.Apply(ctx, []store.Change{
			{Key: familyPrefix + family, If: store.Always},
			{Key: revokedPrefix + family, Value: []byte("1"), Expires: until, If: store.Always},
		})
		if err != nil {
			return fmt.Errorf("the revocation cannot be recorded: %w", err)
		}
	}
	i.revoked.add(family, until)
	return nil
}

// unsure is how long a family is taken for revoked when its record cannot be read.
const unsure = 24 * time.Hour

// learn takes over a revocation that was recorded, here or elsewhere.
func (i *Issuer) learn(ctx context.Context, family string) {
	r, err := i.records.Get(ctx, revokedPrefix+family)
	switch {
	case err == nil:
		i.revoked.add(family, r.Expires)
	case !errors.Is(err, store.ErrNoRecord):
		i.revoked.add(family, i.now().Add(unsure))
	}
}

// recall reads all revocations. One that is known and has no record any more,
// because the store was put back to an older state, is recorded again.
func (i *Issuer) recall(ctx context.Context, now time.Time) error {
	missing := i.revoked.all()
	err := i.records.All(ctx, revokedPrefix, func(r store.Record) bool {
		family := r.Key[len(revokedPrefix):]
		delete(missing, family)
		i.revoked.add(family, r.Expires)
		return true
	})
	if err != nil {
		return err
	}
	for family, until := range missing {
		if until <= now.Unix() {
			continue
		}
		if err := i.end(ctx, family, time.Unix(until, 0).Add(-slack)); err != nil {
			return err
		}
	}
	return nil
}
