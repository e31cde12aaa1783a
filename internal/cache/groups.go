package cache

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/store"
)

// groups are the cache groups that responses have invalidated (RFC 9875 §3), until all
// gateways know of it. Until then nothing that has one of them is taken from level 2. It is
// tried again for as long as it takes; when too many wait, everything is purged instead.
type groups struct {
	e    *Engine
	some atomic.Bool // any wait
	wake chan struct{}

	mu      sync.Mutex
	pending map[string]uint64 // tag → number of the last wish
	wishes  uint64
	all     uint64 // number of the wish for everything; 0: none
}

const (
	maxGroups  = 4096
	groupFirst = 100 * time.Millisecond // pause behind a failure; doubled each time
	groupMost  = 2 * time.Second
)

func newGroups(e *Engine) *groups {
	return &groups{e: e, wake: make(chan struct{}, 1), pending: map[string]uint64{}}
}

// start begins to tell, once there is somebody to tell.
func (g *groups) start() { g.e.work.Go(g.run) }

// add wishes tags purged, soon.
func (g *groups) add(tags []store.Purge) {
	if len(tags) == 0 {
		return
	}
	g.mu.Lock()
	g.wishes++
	for _, t := range tags {
		g.pending[t.Name] = g.wishes
	}
	if len(g.pending) > maxGroups {
		clear(g.pending)
		g.all = g.wishes
	}
	g.some.Store(true)
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// hides reports whether one of the tags is being purged.
func (g *groups) hides(tags []string) bool {
	if !g.some.Load() {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.all > 0 || slices.ContainsFunc(tags, func(t string) bool { return g.pending[t] > 0 })
}

func (g *groups) run() {
	for pause := groupFirst; ; {
		list, upTo := g.wished()
		if len(list) > 0 {
			if err := g.e.purges.Purge(g.e.ctx, list); err == nil {
				g.done(list, upTo)
				pause = groupFirst
				continue
			}
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-g.e.ctx.Done():
				timer.Stop()
				return
			}
			pause = min(2*pause, groupMost)
			continue
		}
		select {
		case <-g.wake:
		case <-g.e.ctx.Done():
			return
		}
	}
}

// wished is what waits, as much as goes at once, and the number of the last wish.
func (g *groups) wished() (list []store.Purge, upTo uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all > 0 {
		return []store.Purge{{Kind: store.PurgeAll}}, g.wishes
	}
	for t := range g.pending {
		if len(list) == store.MaxPurges {
			break
		}
		list = append(list, store.Purge{Kind: store.PurgeTag, Name: t})
	}
	return list, g.wishes
}

// done takes out what was purged, but for what was wished again meanwhile.
func (g *groups) done(list []store.Purge, upTo uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	drop := func(tag string) {
		if g.pending[tag] <= upTo {
			delete(g.pending, tag)
		}
	}
	for _, p := range list {
		if p.Kind == store.PurgeTag {
			drop(p.Name)
			continue
		}
		for tag := range g.pending {
			drop(tag)
		}
		if g.all <= upTo {
			g.all = 0
		}
	}
	g.some.Store(len(g.pending) > 0 || g.all > 0)
}
