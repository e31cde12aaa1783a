package redis

import "sync/atomic"

// Event is something that happened to objects or purges.
type Event uint8

// The events.
const (
	Hit         Event = iota // Get found a valid object
	Missed                   // Get found nothing
	Overtaken                // Get found what was purged
	Damaged                  // something of another form or type was found, and removed
	Led                      // Lead gave the lead
	Kept                     // Put kept an object
	Refused                  // Put did not, because of a purge
	Dropped                  // Put was not made: redis is away, or too many are under way
	Full                     // Put was refused for want of memory
	Unknown                  // Put was not answered in time
	Purged                   // a purge was applied by all
	Unconfirmed              // a purge was not, or that is not known
	Invalidated              // a URI was purged by Invalidate
	Collapsed                // too many URIs waited: their origins, or all, are purged instead
	Regressed                // purges were lost: all objects are invalid
	eventKinds
)

var eventNames = [eventKinds]string{
	"hit", "missed", "overtaken", "damaged", "led", "kept", "refused", "dropped", "full", "unknown",
	"purged", "unconfirmed", "invalidated", "collapsed", "regressed",
}

// String is the event's name as metrics have it.
func (e Event) String() string { return eventNames[e] }

type events [eventKinds]atomic.Uint64

func (e *events) add(kind Event) { e[kind].Add(1) }

// Events is how often each Event has happened, by Event; zeros without Cache.
func (c *Client) Events() [eventKinds]uint64 {
	var out [eventKinds]uint64
	if o := c.level2.Load(); o != nil {
		for i := range out {
			out[i] = o.count[i].Load()
		}
	}
	return out
}
