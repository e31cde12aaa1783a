package redis

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

const (
	beatEvery = time.Second
	beatLife  = 3 * time.Second // of a gateway that is not heard of
	patience  = time.Second     // of heartbeats and the first half of probes
	// Probes come at this distance while the breaker is open.
	probeMin, probeMax = 100 * time.Millisecond, 300 * time.Millisecond
)

// keep is the client's goroutine in the background: it connects, sends heartbeats
// while the breaker is closed and probes while it is open. first is closed after
// the first attempt.
func (c *Client) keep(first chan struct{}) {
	away := false // and the log knows
	for c.stopped.Err() == nil {
		err := c.probe()
		if err == nil {
			c.breaker.restore()
			if away {
				away = false
				c.log.Info("redis is available again", "peers", c.Peers())
			}
		}
		if first != nil {
			close(first)
			first = nil
		}
		if err == nil {
			err = c.beats()
		}
		if c.stopped.Err() != nil {
			return
		}
		if !away {
			away = true
			c.log.Warn("redis is unavailable", "error", c.redact(err))
		}
		c.sleep(probeMin + rand.N(probeMax-probeMin))
	}
}

// beats sends heartbeats until the breaker opens, and returns why it did, or until
// the client is closed.
func (c *Client) beats() error {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.stopped.Done():
			return nil
		case <-c.breaker.tripped:
			return c.breaker.reason()
		case <-tick.C:
			n, err := c.beat(c.stopped, beatLife, patience)
			if err == nil {
				c.peers.Store(n)
			} else if c.stopped.Err() == nil {
				c.breaker.open(err)
			}
		}
	}
}

// probe finds out whether calls would work now: connected, written to, and within
// the budget. A cluster is asked for the slot of the last call that failed, too.
func (c *Client) probe() error {
	if c.client.Load() == nil {
		client, err := rueidis.NewClient(c.option)
		if err != nil {
			return err
		}
		c.cluster.Store(client.Mode() == rueidis.ClientModeCluster)
		c.client.Store(&client)
	}
	for _, wait := range []time.Duration{patience, c.budget} { // the first one connects
		n, err := c.beat(c.stopped, beatLife, wait)
		if err != nil {
			return err
		}
		// Right behind a restart the others have not been heard of yet.
		c.peers.Store(max(n, c.peers.Load()))
		if err := c.touch(wait); err != nil {
			return err
		}
	}
	return nil
}

// beat says that this gateway is alive for life, or with 0 that it leaves, and
// returns how many are.
func (c *Client) beat(ctx context.Context, life, wait time.Duration) (int64, error) {
	k := c.calls.get()
	k.op = OpMembers
	k.add(memberScript, []string{c.prefix + "members"}, "", c.gateway, number(life.Milliseconds()))
	err := c.do(ctx, k, wait)
	n := int64(0)
	if err == nil {
		n = max(k.replies[0].n, 1)
	}
	c.calls.release(k, err)
	return n, err
}

// touch writes, to no effect, into the slot of the last call that failed.
func (c *Client) touch(wait time.Duration) error {
	key := c.suspect.Load()
	if key == nil || !c.cluster.Load() {
		return nil
	}
	k := c.calls.get()
	k.op = OpMembers
	k.add(nil, []string{*key + ":probe"})
	err := c.do(c.stopped, k, wait)
	c.calls.release(k, err)
	return err
}

// sleep waits for d, or until the client is closed.
func (c *Client) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.stopped.Done():
	}
}

// redact is an error's text without the password, whoever put it there.
func (c *Client) redact(err error) string {
	if c.secret == "" {
		return err.Error()
	}
	return strings.ReplaceAll(err.Error(), c.secret, "***")
}
