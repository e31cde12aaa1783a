package redis

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// How changes of records become known. Apply publishes that there is one, and whoever
// hears it asks what has changed since the version that it knows. Messages are only a
// hint: the same is asked twice a second without any, so one that was lost, or the
// whole subscription, costs half a second and nothing else. The answer is from a log
// of the last 10,000 changes (lua/changes.lua).

const (
	// newsEvery is how often is asked without being told.
	newsEvery = 400 * time.Millisecond
	// newsPause is what lies between two questions at least: of many changes one after
	// the other several are heard of at once.
	newsPause = 20 * time.Millisecond
	// resubscribe is what lies between two attempts to subscribe.
	resubscribe = 500 * time.Millisecond
)

// newsroom is what the watcher has to be told.
type newsroom struct {
	wake      chan struct{} // of one: something may have changed
	regressed atomic.Uint64
	told      atomic.Bool // the log knows that they cannot be read
}

// Watch implements store.Records. f is also called, with nil, when the server is
// reached for the first time and whenever it could not be asked for a while.
func (c *Client) Watch(f func(keys []string)) {
	c.done.Go(c.subscribe)
	c.done.Go(func() { c.watch(f) })
}

// Regressed is how often the records turned out to be others than this gateway knew:
// empty, put back from older data, or without changes that were lost in a failover.
// The watcher is told nil then.
func (c *Client) Regressed() uint64 { return c.news.regressed.Load() }

// watch asks for changes and tells them, until the client is closed.
func (c *Client) watch(f func(keys []string)) {
	var known news
	any := true // what was missed cannot be told
	tick := time.NewTicker(newsEvery)
	defer tick.Stop()
	for {
		if n, err := c.changesSince(c.stopped, known); err != nil {
			any = true
			c.complain(err)
		} else {
			c.news.told.Store(false)
			if n.state == newsOther {
				c.news.regressed.Add(1)
				c.log.Warn("records in redis are others than before: older ones or none; what is known to be revoked stays so", "version", n.version, "known", known.version)
			}
			switch {
			case any || n.state != newsKeys:
				f(nil)
			case len(n.keys) > 0:
				f(distinct(n.keys))
			}
			known, any = news{version: n.version, id: n.id}, false
		}
		c.sleep(newsPause)
		select {
		case <-c.stopped.Done():
			return
		case <-c.news.wake:
		case <-tick.C:
		}
	}
}

// complain says what does not become better by itself. That the server is away is
// said elsewhere.
func (c *Client) complain(err error) {
	if hopeless(err) && !c.news.told.Swap(true) {
		c.log.Error("records in redis cannot be read", "error", c.redact(err))
	}
}

func distinct(keys []string) []string {
	slices.Sort(keys)
	return slices.Compact(keys)
}

// subscribe listens for messages until the client is closed. On the connection that
// all calls go over, they come in between the replies.
func (c *Client) subscribe() {
	channel := c.recordKeys()[0]
	for c.stopped.Err() == nil {
		if p := c.client.Load(); p != nil && c.Up() {
			_ = (*p).Receive(c.stopped, (*p).B().Subscribe().Channel(channel).Build(), func(rueidis.PubSubMessage) {
				notify(c.news.wake)
			}) // whatever it was, it is tried again, and the watcher does not need it
			notify(c.news.wake)
		}
		c.sleep(resubscribe)
	}
}
