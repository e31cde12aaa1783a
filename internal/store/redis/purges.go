package redis

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/store"
)

// Purges in Redis: a log in one slot that lua/purges.lua describes, and marks beside the
// objects (objects.go). A purge is recorded in the log, which gives it a number, then what
// it names is marked with that number, then it is waited until all gateways have
// applied it. How they hear of it is in purges_watch.go. The calls go over the client's
// connection and count for its breaker, as those for records do.

const (
	purgeWait  = 2 * time.Second
	purgeCall  = time.Second // of it, one call at most
	purgeBytes = 256 << 10   // recorded at once
	// sureLife is how long what was purged counts as known behind a look. Others wait for a
	// gateway that is not heard of for longer than that (lua/laggards.lua).
	sureLife    = 6 * time.Second
	retryPurges = 250 * time.Millisecond
)

var (
	_ store.Purges  = (*Purges)(nil)
	_ store.Assured = (*Purges)(nil)
)

// Purges is store.Purges on a Client.
type Purges struct {
	c     *Client
	known *knowledge
	queue *queue
	count *events
	stamp atomic.Uint64
	wake  chan struct{} // of one: something may have been purged
	told  atomic.Bool   // the log knows that purges cannot be read
	began time.Time     // what sure counts from
	sure  atomic.Int64  // until when what was purged is known, ns
}

// Stamp implements store.Purges.
func (p *Purges) Stamp() uint64 { return p.stamp.Load() }

// Sure implements store.Assured.
func (p *Purges) Sure(now time.Time) bool {
	until := p.sure.Load()
	return until == 0 || int64(now.Sub(p.began)) < until || !p.c.Up()
}

// heard notes that what was purged until sent is known.
func (p *Purges) heard(sent time.Time) { p.sure.Store(int64(sent.Sub(p.began) + sureLife)) }

// Purge implements store.Purges.
func (p *Purges) Purge(ctx context.Context, list []store.Purge) error {
	if len(list) > store.MaxPurges {
		return fmt.Errorf("redis: %d purges at once, %d are the most", len(list), store.MaxPurges)
	}
	for i := range list {
		if n := len(list[i].Name); n > store.MaxPurgeName || list[i].Kind > store.PurgeAll {
			return fmt.Errorf("redis: purge %d of kind %d has a name of %d bytes, %d are the most", i, list[i].Kind, n, store.MaxPurgeName)
		}
	}
	if len(list) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, purgeWait)
	defer cancel()
	last, err := p.record(ctx, list)
	if err == nil {
		err = p.confirmed(ctx, last)
	}
	if err != nil {
		p.count.add(Unconfirmed)
		return err
	}
	p.count.add(Purged)
	return nil
}

// record writes purges to the log and marks what they name. It returns the last number.
func (p *Purges) record(ctx context.Context, list []store.Purge) (last uint64, err error) {
	for len(list) > 0 {
		var packed []byte
		n := 0
		for n < len(list) && n < maxBatch && (n == 0 || len(packed)+len(list[n].Name) < purgeBytes) {
			packed = appendField(append(packed, byte(list[n].Kind)), list[n].Name)
			n++
		}
		text, err := p.call(ctx, purgeScript, string(packed))
		if err != nil {
			return 0, err
		}
		if len(text) != 8 || double(text, 0) <= 0 {
			return 0, errReply
		}
		first := uint64(double(text, 0))
		notify(p.wake)
		if err := p.mark(ctx, first, list[:n]); err != nil {
			return 0, err
		}
		last, list = first+uint64(n)-1, list[n:]
	}
	return last, nil
}

// mark writes the numbers of purges, first and those behind it, to what they name.
func (p *Purges) mark(ctx context.Context, first uint64, list []store.Purge) error {
	k := p.c.calls.get()
	k.op = OpPurges
	for i := range list {
		h, key := hashOf(list[i].Name), ""
		switch list[i].Kind {
		case store.PurgeURI:
			key = p.c.uriSlot(h) + ":m"
		case store.PurgeTag:
			key = p.c.tagKey(h)
		default:
			continue
		}
		k.add(markScript, []string{key}, number(int64(first)+int64(i)))
	}
	if len(k.commands) == 0 {
		p.c.calls.put(k)
		return nil
	}
	_, err := p.ask(ctx, k)
	return err
}

// confirmed waits until every gateway has applied the purges up to number.
func (p *Purges) confirmed(ctx context.Context, last uint64) error {
	laggards := ""
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		text, err := p.call(ctx, laggardsScript, packLaggards(last, p.c.gateway))
		switch {
		case err != nil && laggards == "":
			return err
		case err == nil && text == "":
			return nil
		case err == nil:
			laggards = text
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-p.c.stopped.Done():
			wait.Stop()
			return errClosed
		case <-ctx.Done():
			wait.Stop()
			return fmt.Errorf("%w: these gateways have not applied the purge: %s", store.ErrUnavailable, laggards)
		}
	}
}

// call runs a script on the log of purges.
func (p *Purges) call(ctx context.Context, s *script, arg string) (string, error) {
	k := p.c.calls.get()
	k.op = OpPurges
	k.add(s, p.keys(), p.c.now(), newLife(), arg)
	return p.ask(ctx, k)
}

// ask makes a call and releases it; the text is that of its first command.
func (p *Purges) ask(ctx context.Context, k *call) (string, error) {
	var err error
	if p.c.stopped.Err() == nil { // or else it is the last attempt, whatever the breaker says
		err = p.c.allow(OpPurges)
	}
	if err == nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", store.ErrNotDone, ctx.Err())
	}
	if err != nil {
		p.c.calls.put(k)
		return "", err
	}
	err = p.c.ask(ctx, k, purgeCall)
	text := ""
	if err == nil {
		text = k.replies[0].text
	}
	p.c.calls.release(k, err)
	if err == errLate {
		err = errSlow
	}
	return text, err
}

// keys are those of the log, in the order of the scripts. The second one is also the
// channel on which purges are told.
func (p *Purges) keys() []string {
	at := p.c.prefix + "{cache}:"
	return []string{at + "head", at + "log", at + "prefixes", at + "seen"}
}

// newLife is an id for a life of the log: lifeSize bytes.
func newLife() string {
	var b [lifeSize / 2]byte
	_, _ = rand.Read(b[:]) // never an error
	return hex.EncodeToString(b[:])
}

// Invalidate implements store.Purges.
func (p *Purges) Invalidate(uris []string) {
	if len(uris) == 0 {
		return
	}
	p.count[Invalidated].Add(uint64(len(uris)))
	if p.queue.put(uris) {
		p.count.add(Collapsed)
	}
}

// invalidate records what Invalidate was told, until the client is closed, and then once
// more what is left.
func (p *Purges) invalidate() {
	for p.c.stopped.Err() == nil {
		select {
		case <-p.c.stopped.Done():
		case <-p.queue.wake:
			for more := true; more && p.c.stopped.Err() == nil; {
				list, turn := p.queue.batch()
				if len(list) == 0 {
					break
				}
				if _, err := p.record(p.c.stopped, list); err != nil {
					p.c.sleep(retryPurges)
					continue
				}
				more = p.queue.done(list, turn)
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveWait)
	defer cancel()
	for more := true; more; {
		list, turn := p.queue.batch()
		if len(list) == 0 {
			return
		}
		if _, err := p.record(ctx, list); err != nil {
			return // the objects are as old as those of a gateway that has ended
		}
		more = p.queue.done(list, turn)
	}
}

// packApplied is the argument of lua/applied.lua.
func packApplied(known int64, life, gateway string) string {
	b := appendDouble(make([]byte, 0, 8+4+len(life)+4+len(gateway)), known)
	b = appendField(b, life)
	return string(appendField(b, gateway))
}

// packLaggards is the argument of lua/laggards.lua.
func packLaggards(number uint64, gateway string) string {
	return string(appendField(appendDouble(make([]byte, 0, 8+4+len(gateway)), int64(number)), gateway))
}
