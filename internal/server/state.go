package server

import (
	"runtime"
	"sync/atomic"
)

// A connection's own goroutine does all its work. Two others may touch it: the
// sweeper, which tells an exchange that its client has gone, and a drain, which
// shortens the wait of an idle connection. state is how they keep out of each
// other's way without a lock on the request path:
//
//	idle    waits for a request and holds no slot
//	busy    has a slot; its exchange may be cancelled
//	held    was busy or idle, and another goroutine looks at it this moment
//	poked   idle, and a drain or the sweeper has set the deadline of its wait
//	tunnel  joined to an upstream
//	handed  served by net/http, as HTTP/2
//	gone    closed
//
// Only the connection's goroutine leaves idle for busy and the other way; only
// others enter held, from idle or busy, and put back what was there (or poked).
// While it is held the goroutine waits to change its state, at most for the few
// instructions that the other one needs. Each way from idle to busy has a number,
// so that the sweeper sees how long one and the same has lasted without a clock
// on the request path.
type state struct{ v atomic.Uint64 }

const (
	idle uint64 = iota
	busy
	held
	poked
	tunnelled
	handed
	gone

	stateMask = 7
	stateStep = 8
)

// wake goes from idle to busy. It reports whether a drain has poked: then the
// deadline of reads is not what the connection believes.
func (s *state) wake() (wasPoked bool) {
	for {
		v := s.v.Load()
		switch v & stateMask {
		case held:
			runtime.Gosched()
		default:
			if s.v.CompareAndSwap(v, v&^stateMask+stateStep|busy) {
				return v&stateMask == poked
			}
		}
	}
}

// leave goes to another state. What others did before is visible, and they touch
// the connection no more as a busy one.
func (s *state) leave(to uint64) {
	for {
		v := s.v.Load()
		if v&stateMask == held {
			runtime.Gosched()
			continue
		}
		if s.v.CompareAndSwap(v, v&^stateMask|to) {
			return
		}
	}
}

// hold keeps the connection in the state from while the caller looks at it. When
// it reports true the caller calls release.
func (s *state) hold(from uint64) bool { return s.change(from, held) }

// release ends a hold.
func (s *state) release(to uint64) { s.v.Store(s.v.Load()&^stateMask | to) }

// change goes from one state to another, and reports whether it was in the first.
func (s *state) change(from, to uint64) bool {
	v := s.v.Load()
	return v&stateMask == from && s.v.CompareAndSwap(v, v&^stateMask|to)
}
