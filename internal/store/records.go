package store

import (
	"context"
	"errors"
	"time"
)

// Errors of Records. Test with errors.Is. Everything else that is wrong is an
// ErrUnavailable, or names a record that is damaged.
var (
	// ErrNoRecord says that there is no record of that key.
	ErrNoRecord = errors.New("store: no such record")
	// ErrConflict says that a record is not of the version that a Change demands.
	// Nothing was changed.
	ErrConflict = errors.New("store: the record has changed")
)

// Record is a small thing that must not be lost: a client, a key, a family of
// refresh tokens, a key of the token issuer.
type Record struct {
	Key     string // kind/id, 1 to 512 bytes
	Value   []byte // up to 64 KiB
	Version int64  // of this record; every change of any record has a higher one
	Expires time.Time
}

// Always is the If of a Change that is made whatever there is.
const Always = -1

// Change puts one record in place of what is there, or removes it.
type Change struct {
	Key     string
	Value   []byte    // nil: the record is removed
	Expires time.Time // behind it the record is not there any more; zero: never
	If      int64     // the Version that must be there; 0: none may be there; Always
}

// Records keeps records, in the embedded file (File) or in Redis (store/redis).
// Its methods may be called from any goroutine. They are for administration and
// the issue of tokens: nothing that is decided for every request waits for them.
type Records interface {
	// Get returns a record, or ErrNoRecord.
	Get(ctx context.Context, key string) (Record, error)
	// Apply makes all changes or none, and returns the version of them all. When the
	// error is nil they outlast a crash of this process; for Redis see docs/redis.md.
	// After an ErrUnavailable that is no ErrNotDone nobody knows whether they were made.
	Apply(ctx context.Context, changes []Change) (version int64, err error)
	// All yields every record whose key begins with prefix, in no order, until yield
	// returns false. It may miss or show what changes meanwhile.
	All(ctx context.Context, prefix string, yield func(Record) bool) error
	// Watch has f called, one call at a time, in a goroutine of the store's, soon after
	// records have changed, by this gateway or by another: with their keys, or with nil
	// when any may have changed (f then reads All again). f may call the other methods.
	// There is one watcher; it is set before the store is used.
	Watch(f func(keys []string))
}
