package cache

import (
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/cache/object"
	"github.com/sluice-gateway/sluice/internal/cache/semantics"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// Fetches that nobody waits for: of what was served stale (RFC 5861 §3), and of what is
// asked for much and about to become stale.

// The last tenth of an object's time here is when it is fetched ahead, if that time was
// aheadLeast or more, and it was asked for twice in it.
const (
	aheadLeast = 30 * time.Second
	aheadShare = 10
)

// ahead looks whether a fresh object is to be fetched already. now is Unix ns.
func (f *lookup) ahead(x *exchange.Exchange, o *object.Object, w *want, now int64) {
	stay := o.Expires() - o.Stored
	if stay < int64(aheadLeast) || o.Expires()-now > stay/aheadShare {
		return
	}
	if o.Touched.Load() == 0 {
		o.Touched.Store(1)
		return
	}
	f.refresh(x, o, w)
}

// refresh fetches o again, once, with the request that w was read from.
func (f *lookup) refresh(x *exchange.Exchange, o *object.Object, w *want) {
	if f.again == nil || o.Refreshing.Load() != 0 || !o.Refreshing.CompareAndSwap(0, 1) {
		return
	}
	select {
	case f.e.refreshes <- struct{}{}:
	default:
		o.Refreshing.Store(0) // a later request tries again
		return
	}
	fl, leads := f.e.flights.join(f.e, o.Key, o.URI)
	if !leads {
		<-f.e.refreshes
		o.Refreshing.Store(0)
		return
	}
	f.e.stats.refreshes.Add(1)
	t := &task{rule: f.rule, fill: fl, why: byStale, old: o, primary: o.Primary, uri: o.URI, uriAt: strings.Index(o.Primary, o.URI), mark: o.Key, background: true}
	t.lead(fl)
	t.want.ask, t.want.authorization, t.want.cookie = nothingAsked, w.authorization, w.cookie
	t.want.conds = true // the client's go
	f.again(x, func(y *exchange.Exchange) bool {
		y.Held = append(y.Held, fl, &refreshed{f.e, o})
		y.Request.Method = t.method(y) // of a HEAD there would be no body
		h := &y.Request.Header
		h.DelID(exchange.CacheControl) // of the client's, who does not wait
		h.Del(pragma)
		if f.shared && f.second(y, t) == fresh {
			return false
		}
		f.begin(y, t)
		return true
	})
}

var pragma = []byte("Pragma")

// nothingAsked is what a request without directives asks.
var nothingAsked = semantics.ReadAsk(&exchange.Header{})

// refreshed is held while an object is fetched again.
type refreshed struct {
	e *Engine
	o *object.Object
}

// Release implements exchange.Releaser.
func (r *refreshed) Release() {
	<-r.e.refreshes
	r.o.Refreshing.Store(0)
}
