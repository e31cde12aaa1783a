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
// A body that turns out to be too large is not stored. What has come then stays only as
// long as one of its readers needs it, and when the slowest of them is max_object behind,
// the others wait for it: the server cuts clients that take nothing.
type stream struct {
	src    exchange.Body // of the request that leads
	length int64         // exchange.Unknown: only its end tells
	most   int64         // more is not stored
	done   func(body []byte, err error)
	room   *room

	mu      sync.Mutex
	b       []byte
	begin   int64         // where b begins in the body; 0 while it is stored
	err     error         // io.EOF behind a whole body
	busy    bool          // somebody is at it
	wake    chan struct{} // closed when something has changed; nil: nobody waits
	passing bool          // it is not stored
	readers []*reader
	closed  bool  // the leader has gone, and nobody can follow
	held    int64 // of room
}

// reader is one who reads a stream.
type reader struct {
	s  *stream
	at int64
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

// next returns the next piece, and waits for it when there is none. gone ends the waiting;
// nil: nothing does.
func (r *reader) next(gone <-chan struct{}) ([]byte, error) {
	s := r.s
	s.mu.Lock()
	for {
		if have := s.begin + int64(len(s.b)) - r.at; have > 0 {
			piece := s.b[int64(len(s.b))-have:]
			r.at += have
			var err error
			if s.err == io.EOF {
				err = io.EOF
			}
			s.trim()
			s.mu.Unlock()
			return piece, err
		}
		if err := s.err; err != nil {
			s.mu.Unlock()
			return nil, err
		}
		if !s.busy && !s.full() {
			s.busy = true
			s.mu.Unlock()
			s.take()
			s.mu.Lock()
			continue
		}
		wake := s.waiting()
		s.mu.Unlock()
		select {
		case <-wake:
		case <-gone:
			return nil, errLeft
		}
		s.mu.Lock()
	}
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

// full reports whether the slowest reader has to read first. The lock is held.
func (s *stream) full() bool { return s.passing && int64(len(s.b)) >= s.most }

// trim forgets what all have read of a body that is not stored. The lock is held.
func (s *stream) trim() {
	if !s.passing {
		return
	}
	end := s.begin + int64(len(s.b))
	for _, r := range s.readers {
		end = min(end, r.at)
	}
	if n := end - s.begin; n > 0 {
		s.b, s.begin = s.b[n:], end
		if len(s.b) == 0 {
			s.b = nil // pieces that were handed out are not written over
		}
		s.changed()
	}
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
func (r *reader) ready() bool {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	return r.at < s.begin+int64(len(s.b)) || s.err != nil || !s.busy && !s.full() && s.src.Ready()
}

// leave is the end of a reader. The lock is held.
func (r *reader) leave() {
	s := r.s
	if i := slices.Index(s.readers, r); i >= 0 {
		s.readers = slices.Delete(s.readers, i, i+1)
	}
	s.trim()
}

// follow returns the body for another request; nil: it cannot be had any more.
func (s *stream) follow(x *exchange.Exchange) exchange.Body {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.passing || s.err == nil && s.closed || s.err != nil && s.err != io.EOF {
		return nil
	}
	r := &follower{reader: reader{s: s}, departure: newDeparture()}
	s.readers = append(s.readers, &r.reader)
	x.OnCancel(r)
	return r
}

// follower reads a stream that another request leads.
type follower struct {
	*departure
	reader
}

// Next implements exchange.Body.
func (r *follower) Next() ([]byte, error) { return r.next(r.c) }

// Ready implements exchange.Body.
func (r *follower) Ready() bool { return r.ready() }

// Close implements exchange.Body.
func (r *follower) Close() error {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.leave()
	return nil
}

// leader reads the stream for the request that leads. Its Close reads the rest when others
// wait for it.
type leader struct {
	reader
	x     *exchange.Exchange
	stop  exchange.Canceler // of the upstream's
	whole bool              // the rest is read though nobody waits: the client needed only the head
	late  atomic.Bool       // it has taken too long
	ended bool
}

// lead returns the body for the request that leads.
func (s *stream) lead(x *exchange.Exchange) *leader {
	l := &leader{reader: reader{s: s}, x: x, stop: x.Canceler()}
	s.readers = append(s.readers, &l.reader)
	x.OnCancel(l)
	return l
}

// Next implements exchange.Body.
func (r *leader) Next() ([]byte, error) { return r.next(nil) }

// Ready implements exchange.Body.
func (r *leader) Ready() bool { return r.ready() }

// Close implements exchange.Body.
func (r *leader) Close() error {
	if r.ended {
		return nil
	}
	r.ended = true
	if r.wanted() {
		r.complete()
	}
	s := r.s
	s.mu.Lock()
	s.closed = true
	for s.busy { // somebody is at it: it is not to be closed under them
		wake := s.waiting()
		s.mu.Unlock()
		<-wake
		s.mu.Lock()
	}
	if s.err == nil {
		s.err = errGone
		s.finish(errGone)
	}
	r.leave()
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
	for err := error(nil); err == nil && r.wanted(); {
		_, err = r.next(over)
	}
	if !bound.Stop() {
		<-over
	}
}

// wanted reports whether the rest of the body is for anybody. If it is not, nobody can
// follow any more.
func (r *leader) wanted() bool {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || r.late.Load() {
		return false
	}
	if len(s.readers) > 1 || r.whole && !s.passing {
		return true
	}
	s.closed = s.closed || r.ended
	return false
}

// Cancel implements exchange.Canceler: the client has gone, or it takes too long. Others
// may still wait.
func (r *leader) Cancel() {
	if !r.wanted() && r.stop != nil {
		r.stop.Cancel()
	}
}

var (
	_ exchange.Body = (*follower)(nil)
	_ exchange.Body = (*leader)(nil)
)
