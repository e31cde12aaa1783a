package cache

import (
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// stream is a body that is stored while it comes, and read by all who wait for it. It has
// no goroutine of its own: whoever needs the next piece, and finds nobody at it, takes it
// from the upstream. So a slow client, the one whose request leads included, holds up
// nobody else.
//
// Others get the head at once only when the body's length is known to be small enough.
// Otherwise they wait for the end, and take pieces meanwhile. A body that turns out to be
// too large is then the leader's alone, and they go by themselves.
type stream struct {
	src    exchange.Body // of the request that leads
	length int64         // exchange.Unknown: only its end tells
	most   int64         // more is not stored
	done   func(body []byte, err error)
	room   *room
	leader *leader

	mu      sync.Mutex
	b       []byte
	begin   int64         // where b begins in the body; 0 while it is stored
	err     error         // io.EOF behind a whole body
	busy    bool          // somebody is at it
	wake    chan struct{} // closed when something has changed; nil: nobody waits
	passing bool          // it is not stored: only the leader reads on
	readers []*follower
	closed  bool  // the leader has gone, and nobody can follow
	stops   int   // calls of the leader's exchange under way
	held    int64 // of room
}

// finishWithin bounds how long the rest of a body is read for others once the client that
// led has gone.
const finishWithin = 30 * time.Second

var (
	errTooLarge = errors.New("cache: the body is larger than cache.max_object, or there is no room for it")
	errLeft     = &exchange.Error{Code: exchange.ClientGone, Side: exchange.Client}
	errShort    = &exchange.Error{Code: exchange.BadUpstreamResponse, Side: exchange.Upstream, Detail: "The upstream's response ended early."}
	errGone     = &exchange.Error{Code: exchange.UpstreamUnavailable, Side: exchange.Upstream, Detail: "The request that fetched the response was given up."}
)

// next returns what stands behind at, and waits for it when there is nothing. gone ends
// the waiting.
func (s *stream) next(at *int64, gone <-chan struct{}) ([]byte, error) {
	s.mu.Lock()
	for {
		if have := s.begin + int64(len(s.b)) - *at; have > 0 {
			piece := s.b[int64(len(s.b))-have:]
			*at += have
			var err error
			if s.err == io.EOF {
				err = io.EOF
			}
			s.mu.Unlock()
			return piece, err
		}
		if err := s.err; err != nil {
			s.mu.Unlock()
			return nil, err
		}
		if s.passing { // the leader has read all there is
			s.begin, s.b = *at, nil
		}
		if !s.step(gone, nil) {
			s.mu.Unlock()
			return nil, errLeft
		}
	}
}

// step takes a piece from the upstream, or waits for who does. It is false when gone or
// late ended that. The lock is held before and behind it.
func (s *stream) step(gone <-chan struct{}, late <-chan time.Time) bool {
	if !s.busy {
		s.busy = true
		s.mu.Unlock()
		s.take()
		s.mu.Lock()
		return true
	}
	wake := s.waiting()
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-wake:
		return true
	case <-gone:
	case <-late:
	}
	return false
}

// take takes one piece from the upstream. The caller has set busy.
func (s *stream) take() {
	piece, err := s.src.Next()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = false
	if !s.passing && (int64(len(s.b)+len(piece)) > s.most || !s.hold(int64(len(piece)))) {
		s.passing = true
		s.finish(errTooLarge)
	}
	s.b = append(s.b, piece...)
	if err == io.EOF && s.length >= 0 && s.begin+int64(len(s.b)) != s.length {
		err = errShort
	}
	if err != nil {
		s.err = err
		s.finish(err)
	}
	s.changed()
}

// waiting returns what is closed at the next change. The lock is held.
func (s *stream) waiting() chan struct{} {
	if s.wake == nil {
		s.wake = make(chan struct{})
	}
	return s.wake
}

// changed wakes who waits. The lock is held.
func (s *stream) changed() {
	if s.wake != nil {
		close(s.wake)
		s.wake = nil
	}
}

// finish says once how it went. The lock is held.
func (s *stream) finish(err error) {
	if s.done != nil {
		s.done(s.b, err)
		s.done = nil
		s.room.give(s.held)
	}
}

// room bounds the memory of bodies that are being stored.
type room struct{ used, limit atomic.Int64 }

// leastRoom is how much there is however little memory the cache has.
const leastRoom = 64 << 20

func (r *room) take(n int64) bool {
	if r.used.Add(n) <= max(r.limit.Load(), leastRoom) {
		return true
	}
	r.used.Add(-n)
	return false
}

func (r *room) give(n int64) { r.used.Add(-n) }

// hold takes room for n bytes more. The lock is held.
func (s *stream) hold(n int64) bool {
	if s.held >= n+int64(len(s.b)) {
		return true // it was taken for the whole
	}
	if !s.room.take(n) {
		return false
	}
	s.held += n
	return true
}

// ready reports whether next returns without waiting.
func (s *stream) ready(at int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return at < s.begin+int64(len(s.b)) || s.err != nil || !s.busy && s.src.Ready()
}

// wanted reports whether the rest of the body is for anybody but the leader's client. The
// lock is held.
func (s *stream) wanted() bool {
	if s.err != nil || s.leader.late.Load() || s.passing {
		return false
	}
	return s.leader.whole || slices.ContainsFunc(s.readers, func(r *follower) bool { return !r.gone })
}

// forsaken reports whether nobody is left who wants the rest. The lock is held.
func (s *stream) forsaken() bool {
	return s.err == nil && !s.closed && s.leader.gone && !s.wanted()
}

// join lets another request in; nil: there is nothing to be had any more.
func (s *stream) join(x *exchange.Exchange) *follower {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.passing || s.err == nil && s.closed || s.err != nil && s.err != io.EOF {
		return nil
	}
	r := &follower{s: s, departure: newDeparture()}
	s.readers = append(s.readers, r)
	x.OnCancel(r)
	return r
}

// follower is another request that waits for the body or reads it.
type follower struct {
	*departure
	s    *stream
	at   int64
	gone bool
}

// Next implements exchange.Body.
func (r *follower) Next() ([]byte, error) { return r.s.next(&r.at, r.c) }

// Ready implements exchange.Body.
func (r *follower) Ready() bool { return r.s.ready(r.at) }

// help takes pieces until the body is whole, or not for storing. It is false when the
// client has gone, or it is late.
func (r *follower) help(late <-chan time.Time) bool {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.err == nil && !s.passing && !s.closed {
		if !s.step(r.c, late) {
			return false
		}
	}
	return true
}

// Cancel implements exchange.Canceler: the client has gone.
func (r *follower) Cancel() {
	r.departure.Cancel()
	r.leave(false)
}

// Close implements exchange.Body.
func (r *follower) Close() error {
	r.leave(true)
	return nil
}

// leave is the end of a follower. The last one whose leader has gone too ends the fetch.
func (r *follower) leave(remove bool) {
	s := r.s
	s.mu.Lock()
	r.gone = true
	if i := slices.Index(s.readers, r); remove && i >= 0 {
		s.readers = slices.Delete(s.readers, i, i+1)
	}
	if !s.forsaken() {
		s.mu.Unlock()
		return
	}
	s.stops++ // Close waits: the exchange is the leader's until then
	s.mu.Unlock()
	s.leader.x.Cancel()
	s.mu.Lock()
	s.stops--
	s.changed()
	s.mu.Unlock()
}

// leader reads the stream for the request that leads. Its Close reads the rest when others
// wait for it.
type leader struct {
	*departure
	s     *stream
	x     *exchange.Exchange
	stop  exchange.Canceler // of the upstream's
	at    int64
	whole bool        // the rest is read though nobody waits: the client needed only the head
	late  atomic.Bool // it has taken too long
	gone  bool
	ended bool
}

// lead returns the body for the request that leads.
func (s *stream) lead(x *exchange.Exchange) *leader {
	s.leader = &leader{departure: newDeparture(), s: s, x: x, stop: x.Canceler()}
	x.OnCancel(s.leader)
	return s.leader
}

// Next implements exchange.Body.
func (r *leader) Next() ([]byte, error) { return r.s.next(&r.at, r.c) }

// Ready implements exchange.Body.
func (r *leader) Ready() bool { return r.s.ready(r.at) }

// Cancel implements exchange.Canceler: the client has gone, or all have, or it takes too
// long.
func (r *leader) Cancel() {
	r.departure.Cancel()
	s := r.s
	s.mu.Lock()
	r.gone = true
	stop := !s.wanted()
	s.mu.Unlock()
	if stop && r.stop != nil {
		r.stop.Cancel()
	}
}

// Close implements exchange.Body.
func (r *leader) Close() error {
	if r.ended {
		return nil
	}
	r.ended = true
	s := r.s
	s.mu.Lock()
	r.gone = true
	if s.wanted() {
		s.mu.Unlock()
		r.complete()
		s.mu.Lock()
	}
	s.closed = true
	for s.busy || s.stops > 0 { // not under the hands of somebody
		wake := s.waiting()
		s.mu.Unlock()
		<-wake
		s.mu.Lock()
	}
	if s.err == nil {
		s.err = errGone
		s.finish(errGone)
	}
	s.changed()
	s.mu.Unlock()
	return s.src.Close()
}

// complete reads the rest while somebody waits for it.
func (r *leader) complete() {
	over := make(chan struct{})
	bound := time.AfterFunc(finishWithin, func() {
		defer close(over)
		r.late.Store(true)
		r.x.Cancel()
	})
	s := r.s
	s.mu.Lock()
	for s.wanted() && s.step(over, nil) {
	}
	s.mu.Unlock()
	if !bound.Stop() {
		<-over
	}
}

var (
	_ exchange.Body = (*follower)(nil)
	_ exchange.Body = (*leader)(nil)
)
