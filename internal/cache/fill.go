package cache

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/cache/object"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/store"
)

// outcome is what became of a fill.
type outcome uint8

const (
	handedOver outcome = iota // nothing, and not because of what was asked for: another request is to lead
	kept                      // object is stored
	flowing                   // object is being stored; its body comes by the stream
	notStored                 // the response was not one to keep: each request goes by itself
	failed                    // err is the answer to all
)

// fill is one fetch of one response, for all who wait for it. It is made by who leads it.
// Fields above settled are the leader's until settled is closed, and do not change then.
type fill struct {
	e      *Engine
	key    string // where it is found; empty: nowhere
	began  time.Time
	tagged uint64 // purges of tags applied then
	stamp  uint64 // purges applied in level 1 before anything was asked
	second store.ObjectKey
	number uint64 // the same of level 2
	locked bool   // this gateway leads in level 2
	flows  bool   // a stream ends it, not the exchange

	outcome outcome
	object  *object.Object
	stream  *stream
	err     *exchange.Error

	settled chan struct{} // nil: nobody waits
	begun   chan struct{} // closed when stream is set; nil as settled is
	once    sync.Once
	over    atomic.Bool
}

func newFill(e *Engine, key string, settled chan struct{}) *fill {
	f := &fill{e: e, key: key, began: time.Now(), tagged: e.tagged.Load(), stamp: e.memory.Stamp(), settled: settled}
	if settled != nil {
		f.begun = make(chan struct{})
	}
	if e.purges != nil {
		f.number = e.purges.Stamp()
	}
	return f
}

// settle says what became of it. Only the first time counts. Who is told then and asks
// again does not find it any more, unless its body still comes.
func (f *fill) settle(o outcome, obj *object.Object, err *exchange.Error) {
	if o != flowing {
		f.end()
	}
	f.once.Do(func() {
		f.outcome, f.object, f.err = o, obj, err
		if f.settled != nil {
			close(f.settled)
		}
	})
}

// flow lets others have the body while it comes: with the head, if it is known how long it
// is; otherwise they wait for its end.
func (f *fill) flow(s *stream, o *object.Object) {
	f.stream = s
	if f.begun != nil {
		close(f.begun)
	}
	if s.length >= 0 {
		f.settle(flowing, o, nil)
	}
}

// stuck reports whether the fill is no use to who comes now: its body does not come any
// more, or its response may have been purged before it came.
func (f *fill) stuck() bool {
	select {
	case <-f.begun: // looked at first: a fill whose body comes may be settled too
		return f.stream.stuck()
	default:
	}
	select {
	case <-f.settled:
		return false
	default:
		// Which tags it will have nobody knows: if any was purged since, it may be one of them.
		return f.tagged != f.e.tagged.Load()
	}
}

// end takes it out of where it is found.
func (f *fill) end() {
	if f.settled != nil && !f.over.Swap(true) {
		f.e.flights.leave(f)
	}
}

// Release is called at the end of the exchange that leads: what was not settled by then
// is for another to fetch.
func (f *fill) Release() {
	if f.flows {
		return // the stream settles it
	}
	f.settle(handedOver, nil, nil)
	f.unlock(0)
}

// unlock ends the lead in level 2, without an object. pass: others are told for so long
// that responses are not kept.
func (f *fill) unlock(pass time.Duration) {
	if f.locked {
		f.locked = false
		f.e.writer.release(f.second, pass)
	}
}

// wait waits until the fill is settled, or x has no more time: then it returns the answer
// to that. It is false when the client has gone.
func (f *fill) wait(x *exchange.Exchange) (settled bool, late error) {
	select {
	case <-f.settled:
		return true, nil
	default:
	}
	began := time.Now()
	defer func() { x.Usage.Waited += time.Since(began) }()
	limit := waitLimit
	if !x.Deadline.IsZero() {
		limit = x.Deadline.Sub(began)
	}
	gone := newDeparture()
	if !x.OnCancel(gone) {
		return false, nil
	}
	defer x.OnCancel(nil)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	begun := f.begun
	for {
		select {
		case <-f.settled:
			return true, nil
		case <-timer.C:
			return false, tooSlow
		case <-gone.c:
			return false, nil
		case <-begun:
			begun = nil
			if f.stream.enter() { // it is brought for this one, too
				defer f.stream.leave()
			}
		}
	}
}

// tooSlow is the answer when another request has not fetched in time what this one asks for.
var tooSlow = &exchange.Error{
	Code: exchange.UpstreamTimeout, Side: exchange.Upstream, ProxyError: "connection_timeout",
	Detail: "The upstream did not answer in time the request that fetches this for all who ask.",
}

// departure tells who waits that the client has gone.
type departure struct {
	c    chan struct{} // closed then
	once sync.Once
}

func newDeparture() *departure { return &departure{c: make(chan struct{})} }

// Cancel implements exchange.Canceler.
func (d *departure) Cancel() { d.once.Do(func() { close(d.c) }) }

// flights are the fills under way, by key.
type flights struct {
	seed   maphash.Seed
	shards [64]struct {
		mu sync.Mutex
		m  map[string]*fill
		_  [48]byte
	}
}

func (s *flights) start() {
	s.seed = maphash.MakeSeed()
	for i := range s.shards {
		s.shards[i].m = map[string]*fill{}
	}
}

// join returns the fill of a key. leads says that it is new, and the caller's to lead.
// A fill that began before a purge of what it fetches is no use to who came after it.
func (s *flights) join(e *Engine, key, uri string) (f *fill, leads bool) {
	h := &s.shards[maphash.String(s.seed, key)%uint64(len(s.shards))]
	h.mu.Lock()
	defer h.mu.Unlock()
	if f := h.m[key]; f != nil && !f.stuck() && !e.overtaken(uri, f.stamp) {
		return f, false
	}
	f = newFill(e, key, make(chan struct{}))
	h.m[key] = f
	return f, true
}

// leave takes a fill out, unless another one has its place.
func (s *flights) leave(f *fill) {
	h := &s.shards[maphash.String(s.seed, f.key)%uint64(len(s.shards))]
	h.mu.Lock()
	if h.m[f.key] == f {
		delete(h.m, f.key)
	}
	h.mu.Unlock()
}

// task is what one request that was forwarded wants done with the response.
type task struct {
	*rule
	fill       *fill
	want       want
	why        string
	old        *object.Object // what may be renewed, or used instead; nil: nothing
	primary    string
	uri        string
	uriAt      int    // in primary
	at         string // where the response is expected to be stored
	mark       string // where it is noted that responses are not stored; empty: nowhere
	background bool   // nobody waits for the response
	asIs       bool   // the request goes as the client sent it, and nobody waits
}
