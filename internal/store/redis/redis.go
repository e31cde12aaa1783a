// Package redis is the shared state of several gateways on Redis or Valkey, 7.0 or
// later: a single server, a master behind sentinels, or a cluster. It implements
// store.Shared, store.Health and store.Records (records.go), and has store.Objects and
// store.Purges beside it (objects.go, purges.go).
//
// One decision is one script and one round trip; rueidis sends together what is in
// flight at the same time. The scripts (lua/) compute what internal/limit/meter
// computes, on the server's clock, and are tested against it number for number.
//
// # Time
//
// A call waits for the budget of config.Redis.Timeout and no longer. Its command
// may still be executed later; what it then takes is counted, and what it grants
// is lost when the lease's life ends. At most maxInFlight calls are unanswered at a
// time, those given up included: a frozen server costs bounded memory.
//
// # The breaker
//
// Three calls in a row without a usable answer, or half of at least 20 in a second,
// open the breaker: calls return an error that wraps store.ErrUnavailable at once.
// In the background a probe, every 100 to 300 ms, writes as the calls do; when that
// works, and within the budget, the breaker closes. There is one breaker for all:
// a cluster without one of its masters is unavailable as soon as that shows.
//
// # Clusters
//
// What stands in {…} of a key chooses its slot. A Take whose keys lie in one slot
// is atomic. When they lie in several, each slot's part is atomic, the parts are
// sent at once, and when one refuses or fails the others are given back.
package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/store"
)

var (
	_ store.Shared = (*Client)(nil)
	_ store.Health = (*Client)(nil)
)

// Why a call was not made or not waited for. All are store.ErrUnavailable; those of
// calls that were not made are store.ErrNotDone.
var (
	errOpen   = fmt.Errorf("%w: redis does not answer, calls are not made", store.ErrNotDone)
	errBusy   = fmt.Errorf("%w: too many calls to redis wait for their answer", store.ErrNotDone)
	errLate   = fmt.Errorf("%w: redis did not answer within state.redis.timeout", store.ErrUnavailable)
	errGone   = fmt.Errorf("%w: nobody waits for redis any more", store.ErrUnavailable)
	errAway   = fmt.Errorf("%w: redis is not connected", store.ErrNotDone)
	errClosed = fmt.Errorf("%w: the client is closed", store.ErrNotDone)
	errReply  = fmt.Errorf("%w: redis gave a reply of another script", store.ErrUnavailable)
	errUndo   = fmt.Errorf("%w: what a part of a cluster has taken could not be given back", store.ErrUnavailable)
)

const (
	// firstWait is how long Dial waits for a server that does not answer.
	firstWait = time.Second
	// leaveWait is how long Close waits for leaving the members.
	leaveWait = 250 * time.Millisecond
)

// Options are what a Client is made from.
type Options struct {
	Config *config.Redis
	// Dir is where relative paths of Config.TLS begin.
	Dir string
	// Gateway names this gateway among the others: random for each start, without
	// spaces.
	Gateway string
	// Log is told when the server goes and comes. nil: nobody is.
	Log *slog.Logger
}

// Client is a connection to the shared state. All its methods but OnChange may be
// called from any goroutine.
type Client struct {
	gateway string
	prefix  string
	budget  time.Duration
	secret  string // of the configuration, to keep it out of the log
	log     *slog.Logger
	option  rueidis.ClientOption

	client  atomic.Pointer[rueidis.Client] // nil until the server was reached once
	bulk    atomic.Pointer[rueidis.Client] // for Objects; nil until they are used
	cluster atomic.Bool                    // what client turned out to be
	breaker breaker
	calls   calls
	peers   atomic.Int64
	stats   counters
	suspect atomic.Pointer[string] // the key of the last call that failed

	news   newsroom                // of records
	level2 atomic.Pointer[Objects] // of the cache; nil until there is one

	listeners []func(up bool)
	listening sync.Once

	now  func() string // '' is the server's clock; tests have one of their own
	wall func() int64  // Unix ns, for calendar periods

	stop    context.CancelFunc
	stopped context.Context
	done    sync.WaitGroup
	closed  atomic.Bool
}

// Dial starts a client. The error says what is wrong with the configuration; a
// server that cannot be reached is none: it is tried again until Close. Dial waits
// for the first answer, for a second at most.
func Dial(o Options) (*Client, error) {
	if o.Config == nil || len(o.Config.Addresses) == 0 {
		return nil, errors.New("state.redis.addresses: none are given")
	}
	c := &Client{
		gateway: o.Gateway, prefix: o.Config.Prefix, budget: o.Config.Timeout.Duration,
		secret: o.Config.Password.Reveal(), log: o.Log,
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.now = func() string { return "" }
	c.wall = func() int64 { return time.Now().UnixNano() }
	if c.budget <= 0 {
		c.budget = 5 * time.Millisecond
	}
	c.stopped, c.stop = context.WithCancel(context.Background())
	c.breaker.changed = make(chan struct{}, 1)
	c.breaker.tripped = make(chan struct{}, 1)
	c.calls.idle = make(chan struct{}, 1)
	c.news.wake = make(chan struct{}, 1)
	c.peers.Store(1)
	var err error
	if c.option, err = c.options(o); err != nil {
		c.stop()
		return nil, err
	}
	first := make(chan struct{})
	c.done.Go(func() { c.keep(first) })
	wait := time.NewTimer(firstWait)
	defer wait.Stop()
	select {
	case <-first:
	case <-wait.C:
	}
	return c, nil
}

// Close leaves the members, so that the others' shares grow at once, and ends the
// client. Calls that wait get an error. It returns the context's error when that
// ends first; the rest is then done in the background.
func (c *Client) Close(ctx context.Context) error {
	if c.closed.Swap(true) {
		return nil
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		c.stop()
		if c.Up() {
			leave, cancel := context.WithTimeout(ctx, leaveWait)
			_, _ = c.beat(leave, 0, leaveWait) // the others learn it in three seconds anyway
			cancel()
		}
		c.breaker.close()
		c.done.Wait()
		for _, p := range []*rueidis.Client{c.client.Load(), c.bulk.Load()} {
			if p != nil {
				(*p).Close()
			}
		}
		c.calls.drain()
	}()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Up reports whether calls are made: the breaker is closed.
func (c *Client) Up() bool { return c.breaker.up.Load() }

// OnChange has f called, in a goroutine of the client's, when Up has changed.
// Changes that follow each other faster than f returns may be left out in pairs.
// It must be called before the client is used by others.
func (c *Client) OnChange(f func(up bool)) {
	c.listeners = append(c.listeners, f)
	c.listening.Do(func() {
		was := c.Up()
		c.done.Go(func() { c.tell(was) })
	})
}

// tell calls the listeners until the client is closed.
func (c *Client) tell(was bool) {
	for {
		if up := c.Up(); up != was {
			was = up
			for _, f := range c.listeners {
				f(up)
			}
			continue
		}
		select {
		case <-c.breaker.changed:
		case <-c.stopped.Done():
			return
		}
	}
}

// Peers is how many gateways were alive at the last heartbeat that was answered,
// this one included.
func (c *Client) Peers() int { return int(c.peers.Load()) }
