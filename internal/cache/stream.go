package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/cache/object"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// stream is a body that is stored while it comes, and read by all who wait for it. It was
// detached from the exchange whose request led to it: a goroutine of its own takes it from
// the upstream, so that no client, slow or gone, holds up another. It ends when the body
// does, when nobody wants the rest, or when the upstream has been silent for too long.
//
// Others get the head at once only when the body's length is known to be small enough.
// Otherwise they wait for the end. A body that turns out to be too large is the leader's
// alone, piece by piece as it takes them, and the others go by themselves.
type stream struct {
	e      *Engine
	src    exchange.Body
	carry  *exchange.Exchange // whose src is
	length int64              // exchange.Unknown: only its end tells
	most   int64              // more is not stored
	done   func(body []byte, err error)
	whole  bool // it is read to its end though nobody waits: the client needed only the head

	mu      sync.Mutex
	b       []byte
	begin   int64         // where b begins in the body; 0 while it is stored
	err     error         // io.EOF behind a whole body
	wake    chan struct{} // closed when something has changed; nil: nobody waits
	passing bool          // it is not stored: only the leader reads on
	users   int           // who read, or wait for the end
	doomed  bool          // there were none, and it was given up
	held    int64         // of the engine's room
	last    time.Time     // when the last piece came

	trailer []exchange.Field // behind io.EOF

	after func() // run's: what is to be said once the lock is given back
}

const (
	// silence is how long an upstream may send nothing of a body that is stored.
	silence = 30 * time.Second
	// stalled is after how long of silence nobody else is led to a body any more.
	stalled = time.Second
)

var (
	errTooLarge = errors.New("cache: the body is larger than cache.max_object")
	errNoRoom   = errors.New("cache: there is no room for the body")
	errLeft     = &exchange.Error{Code: exchange.ClientGone, Side: exchange.Client}
	errShort    = &exchange.Error{Code: exchange.BadUpstreamResponse, Side: exchange.Upstream, Detail: "The upstream's response ended early."}
	errGone     = &exchange.Error{Code: exchange.UpstreamUnavailable, Side: exchange.Upstream, Detail: "The request that fetched the response was given up."}
)

// detach takes the body of x's response over, of which begun has been read. It reports false
// when that cannot be, and has changed nothing then.
func (s *stream) detach(x *exchange.Exchange, begun []byte) bool {
	body, ok := x.Response.Body.(exchange.Detacher)
	if !ok {
		return false
	}
	if s.carry, ok = s.e.carriers.Get().(*exchange.Exchange); !ok {
		s.carry = &exchange.Exchange{}
	}
	if !body.Detach(s.carry) {
		s.e.carriers.Put(s.carry)
		return false
	}
	s.src, s.b, s.length, s.last = body, begun, x.Response.ContentLength, time.Now()
	return true
}

// run takes the body to its end. It runs in a goroutine of the engine's.
func (s *stream) run() {
	quiet := time.AfterFunc(silence, s.carry.Cancel)
	halt := context.AfterFunc(s.e.ctx, s.carry.Cancel)
	defer func() {
		p := recover()
		s.mu.Lock()
		if p != nil {
			s.e.log.Error("a panic while a body was stored", "panic", fmt.Sprint(p))
		}
		if s.err == nil {
			s.end(errGone)
		}
		s.mu.Unlock()
		s.tell()
		_ = s.src.Close()
		if quiet.Stop() && halt() && p == nil { // or else somebody may still hold it
			s.carry.Reset()
			s.e.carriers.Put(s.carry)
		}
	}()
	s.tell()
	for {
		piece, err := s.src.Next()
		if !s.passing {
			quiet.Reset(silence)
		} else {
			quiet.Stop() // as without a cache
		}
		last := s.add(piece, err)
		s.tell()
		if last != nil {
			s.mu.Lock()
			s.err = last
			s.changed()
			s.mu.Unlock()
			return
		}
		if !s.goesOn() {
			return
		}
	}
}

// tell says how it went, when it has been decided.
func (s *stream) tell() {
	if after := s.after; after != nil {
		s.after = nil
		after()
	}
}

// add takes what has come. What it returns is the end of the stream: readers see it once it
// has been told how it went, so that who asks again finds what was stored.
func (s *stream) add(piece []byte, err error) (last error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = time.Now()
	if !s.passing {
		if int64(len(s.b)+len(piece)) > s.most {
			s.pass(errTooLarge)
		} else if !s.hold(int64(len(piece))) {
			s.pass(errNoRoom)
		}
	}
	s.b = append(s.b, piece...)
	if err == io.EOF && s.length >= 0 && s.begin+int64(len(s.b)) != s.length {
		err = errShort
	}
	if err != nil {
		if t := &s.carry.Response.Trailer; err == io.EOF && t.Len() > 0 {
			s.trailer = object.CopyFields(t, func(*exchange.Field) bool { return true })
		}
		s.finish(err)
		return err
	}
	s.changed()
	return nil
}

// goesOn reports whether more is wanted. It waits for a leader that is behind with a body
// that is not stored.
func (s *stream) goesOn() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.passing && s.err == nil && len(s.b) >= window && s.users > 0 {
		wake := s.waiting()
		s.mu.Unlock()
		<-wake
		s.mu.Lock()
	}
	if s.err == nil && s.users == 0 && (!s.whole || s.passing) {
		s.doomed = true
	}
	return s.err == nil && !s.doomed
}

// window is how far a leader may be behind with a body that is not stored.
const window = 256 << 10

// pass ends the storing. The lock is held.
func (s *stream) pass(why error) {
	s.passing = true
	s.finish(why)
}

// end ends the stream. The lock is held.
func (s *stream) end(err error) {
	s.err = err
	s.finish(err)
	s.changed()
}

// finish has it said once how it went. The lock is held.
func (s *stream) finish(err error) {
	if done, body := s.done, s.b; done != nil {
		s.done = nil
		s.e.room.give(s.held)
		s.after = func() { done(body, err) }
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
	if !s.e.room.take(n) {
		return false
	}
	s.held += n
	return true
}

// enter notes one more who wants the body; false: it cannot be had any more.
func (s *stream) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.passing || s.err != nil && s.err != io.EOF || s.stands() {
		return false
	}
	s.users++
	return true
}

// leave is the end of enter. When nobody wants the rest, the fetch ends.
func (s *stream) leave() {
	s.mu.Lock()
	s.users--
	stop := s.err == nil && s.users == 0 && (!s.whole || s.passing)
	s.changed()
	if stop {
		s.doomed = true
		s.carry.Cancel() // it is the stream's until err is set, which needs the lock
	}
	s.mu.Unlock()
}

// stands reports whether the rest does not come, or not for long. The lock is held.
func (s *stream) stands() bool { return s.err == nil && (s.doomed || time.Since(s.last) > stalled) }

// stuck is stands for who has not the lock.
func (s *stream) stuck() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stands()
}

// reader is the body of a response that is read from a stream.
type reader struct {
	*departure
	s      *stream
	x      *exchange.Exchange
	at     int64
	leads  bool
	closed bool
}

// open returns the body for x; the caller has entered.
func (s *stream) open(x *exchange.Exchange, leads bool) *reader {
	r := &reader{departure: newDeparture(), s: s, x: x, leads: leads}
	x.OnCancel(r)
	return r
}

// Next implements exchange.Body.
func (r *reader) Next() ([]byte, error) {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if have := s.begin + int64(len(s.b)) - r.at; have > 0 && r.at >= s.begin {
			piece := s.b[int64(len(s.b))-have:]
			r.at += have
			if r.leads {
				r.x.Usage.BytesIn += have
			}
			if s.passing { // nobody else reads it
				s.begin, s.b = r.at, nil
				s.changed()
			}
			if s.err == io.EOF {
				r.end()
				return piece, io.EOF
			}
			return piece, nil
		}
		if s.err != nil {
			r.end()
			return nil, s.err
		}
		if s.passing && !r.leads {
			return nil, errGone
		}
		wake, began, left := s.waiting(), time.Now(), false
		s.mu.Unlock()
		select {
		case <-wake:
		case <-r.c:
			left = true
		}
		r.x.Usage.Waited += time.Since(began)
		s.mu.Lock()
		if left {
			return nil, errLeft
		}
	}
}

// end gives the request that led the trailer. It is not stored.
func (r *reader) end() {
	if r.leads && r.s.err == io.EOF {
		for _, f := range r.s.trailer {
			r.x.Response.Trailer.Append(f)
		}
	}
}

// Ready implements exchange.Body.
func (r *reader) Ready() bool {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	return r.at < s.begin+int64(len(s.b)) || s.err != nil
}

// Close implements exchange.Body.
func (r *reader) Close() error {
	if !r.closed {
		r.closed = true
		r.s.leave()
	}
	return nil
}

var _ exchange.Body = (*reader)(nil)
