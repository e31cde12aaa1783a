package store

import (
	"context"
	"time"
)

// Bounds of Objects and Purges.
const (
	MaxObject     = 8 << 20        // bytes of one value
	MaxObjectLife = 24 * time.Hour // a longer TTL counts as this
	MaxObjectTags = 128            // of one value
	MaxPurgeName  = 16 << 10       // bytes
	MaxPurges     = 1000           // of one Purge
)

// ObjectKey names a value.
type ObjectKey struct {
	URI     string // what PurgeURI and PurgePrefix compare
	Variant string // the whole key; one URI has as many values as there are variants
}

// Turn says who fetches what is not there.
type Turn uint8

// The turns.
const (
	Lead Turn = iota // the caller: it ends its lead with Put or Release
	Wait             // another gateway does, or has done so a moment ago: Get may find it soon
	Pass             // what comes is not kept: fetch without waiting
)

// Stored is a value to keep.
type Stored struct {
	Value []byte        // up to MaxObject; not changed until Put returns
	TTL   time.Duration // at most MaxObjectLife counts; below a millisecond nothing is kept
	// Stamp is Purges.Stamp as it was before anybody was asked for the value.
	Stamp uint64
	Tags  []string // what PurgeTag compares, up to MaxObjectTags
	Lead  bool     // Put also ends the caller's lead
}

// Objects keeps values for some time and may lose them at any moment. A Get never
// returns a value that is older than a purge of which Purges.Purge has returned nil.
// Methods may be called from any goroutine. After an error, which is an ErrUnavailable
// (or says that an argument is beyond its bounds), what was asked may be done, or be
// done later, if it is no ErrNotDone. The purges must be watched, see Purges.
type Objects interface {
	// Get returns the value, the caller's own; nil when there is none that is valid. It
	// waits as long as state.redis.timeout says.
	Get(ctx context.Context, k ObjectKey) (value []byte, err error)
	// Lead asks whose turn it is to fetch, and if it is the caller's, tells others to
	// wait, for at most d. It waits as long as Get does. Behind an error nobody leads.
	Lead(ctx context.Context, k ObjectKey, d time.Duration) (Turn, error)
	// Put keeps a value. One that a purge has overtaken is not kept: that is no error.
	// It waits for a second at most.
	Put(ctx context.Context, k ObjectKey, s Stored) error
	// Release ends the caller's lead without a value. For pass, if that is more than 0,
	// others are told Pass. It waits for a second at most.
	Release(ctx context.Context, k ObjectKey, pass time.Duration) error
}

// PurgeKind is what a Purge names.
type PurgeKind uint8

// The kinds.
const (
	PurgeURI    PurgeKind = iota // all variants of the URI
	PurgeTag                     // all that have the tag
	PurgePrefix                  // all whose URI begins so
	PurgeAll
)

// String is the kind's name in logs.
func (k PurgeKind) String() string {
	switch k {
	case PurgeURI:
		return "uri"
	case PurgeTag:
		return "tag"
	case PurgePrefix:
		return "prefix"
	default:
		return "all"
	}
}

// Purge makes values invalid.
type Purge struct {
	Kind PurgeKind
	Name string // up to MaxPurgeName; of PurgeAll it says nothing
}

// Purges are told to all gateways, in one order. Methods may be called from any
// goroutine.
type Purges interface {
	// Stamp is the number of the last purge that Watch's f has returned for; 0: none is
	// known yet, what has this stamp is not kept. It never falls, and may jump.
	Stamp() uint64
	// Purge records purges, up to MaxPurges, and returns nil when every gateway has
	// applied them: its f has returned, and nothing older comes out of Objects. A
	// gateway that has not been heard of for 10 seconds is not waited for. Otherwise it
	// is an ErrUnavailable after 2 seconds at most; the purges may be recorded then.
	Purge(ctx context.Context, p []Purge) error
	// Invalidate purges URIs soon and returns at once; this gateway's Get finds nothing
	// of them until others find nothing either. When more wait than can be remembered,
	// all of their origins is purged instead.
	Invalidate(uris []string)
	// Watch has f called, one call at a time, in a goroutine of the store's: with each
	// purge once, in order, this gateway's own included; or with nil when anything may
	// have been purged. It is called once, before the store is used.
	Watch(f func(p []Purge))
}

// Assured are Purges that tell whether what they have told is all that was purged.
type Assured interface {
	// Sure reports whether what was purged up to a few seconds ago is known; or cannot be,
	// because the store is away, and then nobody can have purged anything either. A gateway
	// that stood still, and for which others have not waited, is not sure. It never waits.
	Sure(now time.Time) bool
}
