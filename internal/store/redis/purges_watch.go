package redis

import (
	"cmp"
	"context"
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/redis/rueidis"

	"github.com/sluice-gateway/sluice/internal/store"
)

// How purges become known. Each gateway asks what was purged since the number that it has
// applied, and thereby tells that number (lua/applied.lua): when it has applied what it was
// told it asks again at once. It also asks when a message says that there is something,
// and every newsEvery without any. While the watcher is at work it is told every second
// that the gateway is there, and not further yet.

// told is what lua/applied.lua says.
type told struct {
	version uint64
	state   byte // newsKeys, newsAny or newsOther
	life    string
	all     uint64
	purges  []purged // behind newsKeys what was purged, otherwise the prefixes that are known
}

// Watch implements store.Purges.
func (p *Purges) Watch(f func(list []store.Purge)) {
	p.c.done.Go(p.subscribe)
	p.c.done.Go(p.invalidate)
	p.c.done.Go(func() {
		p.watch(f)
		p.leave()
	})
}

func (p *Purges) watch(f func(list []store.Purge)) {
	var known told
	tick := time.NewTicker(newsEvery)
	defer tick.Stop()
	for p.c.stopped.Err() == nil {
		sent := time.Now()
		n, err := p.since(&known)
		if err != nil {
			p.complain(err)
		} else {
			p.told.Store(false)
			if n.state == newsOther {
				p.count.add(Regressed)
				p.c.log.Warn("purges in redis are others than before: older ones or none; no object there is used any more", "known", known.version)
			}
			p.known.learn(&n, sent)
			any, list := n.state != newsKeys, unnumbered(n.purges)
			if any {
				list = nil
			}
			if any || len(list) > 0 {
				p.apply(f, list, &known)
			}
			again := n.version != known.version || n.life != known.life
			p.heard(sent)
			known = told{version: n.version, life: n.life}
			p.stamp.Store(max(n.version, p.stamp.Load()))
			if again {
				continue // which tells that it is applied
			}
		}
		p.c.sleep(newsPause)
		select {
		case <-p.c.stopped.Done():
		case <-p.wake:
		case <-tick.C:
		}
	}
}

// unnumbered are the purges without their numbers.
func unnumbered(from []purged) []store.Purge {
	out := make([]store.Purge, len(from))
	for i := range from {
		out[i] = from[i].Purge
	}
	return out
}

// apply has the watcher apply purges and waits for it.
func (p *Purges) apply(f func([]store.Purge), list []store.Purge, known *told) {
	over := make(chan struct{})
	p.c.done.Go(func() {
		defer close(over)
		f(list)
	})
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	for {
		select {
		case <-over:
			return
		case <-beat.C:
			_, _ = p.since(known) // what it says is asked for again
		}
	}
}

// since tells how far this gateway is, and asks what was purged since.
func (p *Purges) since(known *told) (told, error) {
	text, err := p.call(p.c.stopped, appliedScript, packApplied(int64(known.version), known.life, p.c.gateway))
	if err != nil {
		return told{}, err
	}
	return readTold(text)
}

func readTold(text string) (n told, err error) {
	r := applied{fields: fields{text: text}}
	n.version, n.state, n.life = r.number(), r.byte(), r.next()
	if n.state != newsKeys {
		n.all = r.number()
	}
	for r.text != "" && !r.bad {
		q := purged{number: r.number()}
		q.Kind = store.PurgePrefix
		if n.state == newsKeys {
			q.Kind = store.PurgeKind(r.byte())
		}
		q.Name = r.next()
		r.bad = r.bad || q.Kind > store.PurgeAll
		n.purges = append(n.purges, q)
	}
	if r.bad || n.state > newsOther || len(n.life) != lifeSize || n.version == 0 {
		return told{}, errReply
	}
	slices.SortFunc(n.purges, func(a, b purged) int { return cmp.Compare(a.number, b.number) })
	return n, nil
}

// applied reads numbers and bytes, too.
type applied struct{ fields }

func (r *applied) number() uint64 {
	if len(r.text) < 8 {
		r.bad, r.text = true, ""
		return 0
	}
	n, ok := stampOf(math.Float64frombits(binary.LittleEndian.Uint64([]byte(r.text[:8]))))
	r.bad = r.bad || !ok
	r.text = r.text[8:]
	return n
}

func (r *applied) byte() byte {
	if r.text == "" {
		r.bad = true
		return 0
	}
	b := r.text[0]
	r.text = r.text[1:]
	return b
}

// complain says what does not become better by itself.
func (p *Purges) complain(err error) {
	if hopeless(err) && !p.told.Swap(true) {
		p.c.log.Error("purges in redis cannot be read: no object there is used", "error", p.c.redact(err))
	}
}

// subscribe listens for messages until the client is closed.
func (p *Purges) subscribe() {
	channel := p.keys()[1]
	for p.c.stopped.Err() == nil {
		if at := p.c.client.Load(); at != nil && p.c.Up() {
			_ = (*at).Receive(p.c.stopped, (*at).B().Subscribe().Channel(channel).Build(), func(rueidis.PubSubMessage) {
				notify(p.wake)
			}) // whatever it was, it is tried again, and the watcher does not need it
			notify(p.wake)
		}
		p.c.sleep(resubscribe)
	}
}

// leave has nobody wait for this gateway any more. It is behind all that this gateway has
// said before.
func (p *Purges) leave() {
	k := p.c.calls.get()
	k.op = OpPurges
	k.add(appliedScript, p.keys(), p.c.now(), newLife(), packApplied(-1, "", p.c.gateway))
	p.c.calls.release(k, p.c.do(context.Background(), k, leaveWait)) // otherwise it is 10 s
}
