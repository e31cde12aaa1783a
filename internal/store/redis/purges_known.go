package redis

import (
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/store"
)

// What a gateway knows of purges: the log's life, the number below which nothing is valid,
// the prefixes purged, and the last maxRecent purges of URIs and tags. These have marks
// in Redis, too; the memory is for the moments in which those lag behind or are lost (a
// failover, an eviction). It is fed by the watcher, before anybody is told.

const (
	maxRecent   = 10_000
	maxPrefixes = 1024 // as lua/purge.lua has it
	// heardLife is after how long without news a gateway is out of date: others wait 10 s
	// for it, so by then nothing may come out of Redis here.
	heardLife = 3 * time.Second
	// pruneAfter is after how many µs of numbers a prefix concerns no object any more.
	pruneAfter = uint64(25 * time.Hour / time.Microsecond)
)

// purged is a purge and its number.
type purged struct {
	number uint64
	store.Purge
}

type purgedName struct {
	kind store.PurgeKind // PurgeURI or PurgeTag
	hash hash16
}

type recentPurge struct {
	name   purgedName
	number uint64
}

type knowledge struct {
	mu        sync.RWMutex
	life      string // "": nothing is known
	heard     time.Time
	all       uint64   // what has a lower stamp is not valid
	prefixes  []purged // by number
	recent    map[purgedName]uint64
	order     []recentPurge // a ring, once it is full
	next      int
	forgotten uint64 // of purges up to it, those of URIs and tags may be missing in recent
}

func newKnowledge() *knowledge { return &knowledge{recent: map[purgedName]uint64{}} }

// current reports whether the purges that others take for applied here are known.
func (k *knowledge) current() bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.life != "" && time.Since(k.heard) < heardLife
}

// learn adds what a question asked at sent has told.
func (k *knowledge) learn(n *told, sent time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.heard = sent
	if n.state == newsKeys {
		for i := range n.purges {
			k.add(&n.purges[i])
		}
		return
	}
	if n.life != k.life {
		clear(k.recent)
		k.order, k.next = nil, 0
	}
	k.life, k.prefixes = n.life, n.purges
	k.all = max(k.all, n.all)
	k.forgotten = max(k.forgotten, n.version)
}

func (k *knowledge) add(p *purged) {
	switch p.Kind {
	case store.PurgeAll:
		k.all = max(k.all, p.number)
	case store.PurgePrefix:
		k.addPrefix(p)
	default:
		k.remember(recentPurge{purgedName{p.Kind, hashOf(p.Name)}, p.number})
	}
}

func (k *knowledge) addPrefix(p *purged) {
	kept := k.prefixes[:0]
	for _, q := range k.prefixes {
		if q.Name != p.Name && q.number+pruneAfter > p.number {
			kept = append(kept, q)
		}
	}
	clear(k.prefixes[len(kept):])
	if len(kept) >= maxPrefixes {
		k.all = max(k.all, kept[0].number)
		kept = append(kept[:0], kept[1:]...)
	}
	k.prefixes = append(kept, *p)
}

func (k *knowledge) remember(p recentPurge) {
	k.recent[p.name] = p.number
	if len(k.order) < maxRecent {
		k.order = append(k.order, p)
		return
	}
	old := &k.order[k.next]
	if k.recent[old.name] == old.number {
		delete(k.recent, old.name)
	}
	k.forgotten = max(k.forgotten, old.number)
	*old = p
	k.next = (k.next + 1) % maxRecent
}

// valid reports whether no purge that is known makes invalid what has this stamp.
func (k *knowledge) valid(life string, stamp uint64, uri string, tags []hash16) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return life == k.life && k.allows(stamp, uri, tags)
}

// open reports whether what has this stamp may be put, and the life it belongs to: nothing
// may be known or have been forgotten that concerns it.
func (k *knowledge) open(stamp uint64, uri string, tags []hash16) (life string, ok bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.life, k.life != "" && stamp != 0 && stamp < maxStamp && stamp >= k.forgotten && k.allows(stamp, uri, tags)
}

func (k *knowledge) allows(stamp uint64, uri string, tags []hash16) bool {
	if stamp < k.all || k.recent[purgedName{store.PurgeURI, hashOf(uri)}] > stamp {
		return false
	}
	for _, t := range tags {
		if k.recent[purgedName{store.PurgeTag, t}] > stamp {
			return false
		}
	}
	for i := len(k.prefixes) - 1; i >= 0 && k.prefixes[i].number > stamp; i-- {
		if strings.HasPrefix(uri, k.prefixes[i].Name) {
			return false
		}
	}
	return true
}
