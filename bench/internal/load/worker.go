//go:build linux

package load

import (
	"io"
	"runtime"
	"time"
	"unsafe"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// worker is one thread's share of a run: its connections, its epoll set and its
// part of the schedule.
type worker struct {
	run   *Run
	epoll int
	conns []*conn
	buf   []byte
	asked int // requests begun, which tells the next one of the target's list

	paced    bool // open loop
	schedule schedule
	idle     queue // open loop: slots without a request, longest idle first

	latency    *hdrhistogram.Histogram
	lag        *hdrhistogram.Histogram
	reconnects uint64
	_          [64]byte // the tally is read by another core
	tally      tally
}

// slot is the place of one request at a time on a connection: the connection
// itself in HTTP/1.1, one of its streams in HTTP/2.
type slot struct {
	conn   *conn
	busy   bool
	due    int64 // when the request should have been sent
	sent   int64 // when it was
	since  int64 // idle: since when
	noBody bool  // HEAD

	stream uint32 // HTTP/2
	status int
	length int64
}

func newWorker(r *Run, i int) (*worker, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	w := &worker{run: r, epoll: fd, buf: make([]byte, 64<<10), latency: newHistogram(), lag: newHistogram()}
	w.asked = len(r.target.Requests) / r.plan.Threads * i
	if r.plan.Rate > 0 {
		w.paced = true
		w.schedule = newSchedule(r.plan.Rate, i, r.plan.Threads)
	}
	return w, nil
}

// open adds a connection. It is called before loop runs.
func (w *worker) open() error {
	c := &conn{w: w, index: int32(len(w.conns))}
	c.slots = make([]slot, max(1, w.run.target.Streams))
	for i := range c.slots {
		c.slots[i].conn = c
	}
	if err := c.open(); err != nil {
		return err
	}
	w.conns = append(w.conns, c)
	for i := range c.slots {
		w.idle.push(&c.slots[i])
	}
	return nil
}

func (w *worker) close() {
	for _, c := range w.conns {
		c.close()
	}
	if w.epoll >= 0 {
		unix.Close(w.epoll)
		w.epoll = -1
	}
}

// Longest wait for something to happen, so that a stop and timeouts are noticed.
const tick = 20 * time.Millisecond

// loop asks until the run is stopped and what it recorded has been answered. The
// thread is the worker's own and ends with it, since its timer slack and cores
// are changed.
func (w *worker) loop() {
	runtime.LockOSThread()
	w.tune()
	events := make([]unix.EpollEvent, 256)
	now := w.now()
	if !w.paced {
		for i := range w.conns {
			w.refill(w.conns[i], now)
		}
	}
	nextCheck := now + int64(tick)
	var giveUp int64
	for {
		wait := int64(tick)
		if w.paced {
			wait = w.dispatch(wait)
		}
		n := w.wait(events, wait)
		for i := range events[:n] {
			w.conns[events[i].Fd].ready(events[i].Events)
		}
		if now = w.now(); now >= nextCheck {
			nextCheck = now + int64(tick)
			w.expire(now)
			if w.run.stopping.Load() {
				if giveUp == 0 {
					giveUp = now + int64(w.run.plan.Timeout)
				}
				if w.settled(now) {
					return
				}
				if now > giveUp {
					w.abandon()
					return
				}
			}
		}
	}
}

// tune sets the thread's cores and makes its waits end on time: the usual slack
// of 50 µs is as long as a whole exchange.
func (w *worker) tune() {
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	if len(w.run.plan.CPUs) > 0 {
		var set unix.CPUSet
		for _, cpu := range w.run.plan.CPUs {
			set.Set(cpu)
		}
		_ = unix.SchedSetaffinity(0, &set)
	}
}

func (w *worker) now() int64 { return int64(time.Since(w.run.began)) }

// wait waits for events, in nanoseconds (Linux 5.11).
func (w *worker) wait(events []unix.EpollEvent, ns int64) int {
	ts := unix.NsecToTimespec(max(0, ns))
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(w.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)),
		uintptr(unsafe.Pointer(&ts)), 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// dispatch sends what is due while there are idle slots and tells how long the
// next arrival is away.
func (w *worker) dispatch(longest int64) int64 {
	for {
		now := w.now()
		if w.run.stopping.Load() && w.schedule.next() >= w.run.to {
			return longest
		}
		s := w.usable()
		if s == nil {
			return longest
		}
		due, ok := w.schedule.take(now)
		if !ok {
			return min(longest, w.schedule.next()-now)
		}
		w.idle.pop()
		// With a slot idle since before it was due, lateness is ours. One that
		// became idle later was waited for.
		if w.recorded(due) && s.since <= due {
			_ = w.lag.RecordValue(max(1, now-due))
		}
		s.conn.begin(s, due, now)
		s.conn.flush()
	}
}

// usable brings an idle slot whose connection takes requests to the front of the
// queue; nil: there is none.
func (w *worker) usable() *slot {
	for range w.idle.len() {
		s := w.idle.pop()
		if s.conn.usable() {
			w.idle.unpop(s)
			return s
		}
		w.idle.push(s)
	}
	return nil
}

func (w *worker) recorded(due int64) bool { return due >= w.run.from && due < w.run.to }

// request is the next one of the target's list.
func (w *worker) request() *Request {
	list := w.run.target.Requests
	r := list[w.asked%len(list)]
	w.asked++
	return r
}

// refill gives every idle slot of a connection a request (closed loop).
func (w *worker) refill(c *conn, now int64) {
	for i := range c.slots {
		if !c.slots[i].busy {
			c.begin(&c.slots[i], now, now)
		}
	}
	c.flush()
}

// complete ends a request whose answer has been read.
func (w *worker) complete(s *slot, status int, length int64) {
	now := w.now()
	s.busy = false
	switch {
	case status != w.run.target.Status:
		w.tally.status.Add(1)
	case w.run.target.Length >= 0 && length != w.run.target.Length:
		w.tally.length.Add(1)
	default:
		w.tally.ok.Add(1)
		w.tally.bytes.Add(uint64(length))
		if w.recorded(s.due) {
			_ = w.latency.RecordValue(min(max(1, now-s.due), maxLatency))
		}
	}
	if w.paced {
		s.since = now
		w.idle.push(s)
		return
	}
	if !w.run.stopping.Load() && s.conn.usable() {
		s.conn.begin(s, now, now)
	}
}

// fail ends every request on a connection that is lost and opens it again.
func (w *worker) fail(c *conn, err error) {
	lost := false
	for i := range c.slots {
		s := &c.slots[i]
		if !s.busy {
			continue
		}
		s.busy, lost = false, true
		switch {
		case err == errTimeout:
			w.tally.timeout.Add(1)
		case err == io.EOF || isReset(err):
			w.tally.closed.Add(1)
		default:
			w.tally.framing.Add(1)
		}
		if w.paced {
			s.since = w.now()
			w.idle.push(s)
		}
	}
	if !lost {
		w.reconnects++
	}
	w.reopen(c)
}

// reopen replaces a connection. When the server cannot be reached that is an
// error, and expire tries again.
func (w *worker) reopen(c *conn) {
	c.close()
	if w.run.stopping.Load() && (!w.paced || w.schedule.next() >= w.run.to) {
		return
	}
	if err := c.open(); err != nil {
		w.tally.connect.Add(1)
		return
	}
	if !w.paced {
		w.refill(c, w.now())
	}
}

// expire ends requests that take too long and tries lost connections again.
func (w *worker) expire(now int64) {
	for _, c := range w.conns {
		if c.socket == nil {
			w.reopen(c)
			continue
		}
		for i := range c.slots {
			if s := &c.slots[i]; s.busy && now-s.sent > int64(w.run.plan.Timeout) {
				w.fail(c, errTimeout)
				break
			}
		}
	}
}

// settled tells that nothing recorded is under way or still to be sent.
func (w *worker) settled(now int64) bool {
	if w.paced && w.schedule.next() < min(now, w.run.to) {
		return false
	}
	for _, c := range w.conns {
		for i := range c.slots {
			if s := &c.slots[i]; s.busy && w.recorded(s.due) {
				return false
			}
		}
	}
	return true
}

// abandon counts as timed out what was due within the window and is not answered.
func (w *worker) abandon() {
	for _, c := range w.conns {
		for i := range c.slots {
			if s := &c.slots[i]; s.busy && w.recorded(s.due) {
				w.tally.timeout.Add(1)
			}
		}
	}
	if !w.paced {
		return
	}
	for {
		due, ok := w.schedule.take(w.run.to - 1)
		if !ok {
			return
		}
		if w.recorded(due) {
			w.tally.timeout.Add(1)
		}
	}
}

// queue is a ring of slots, first in first out, so that an open loop uses all
// connections in turn.
type queue struct {
	ring []*slot
	head int
	n    int
}

func (q *queue) len() int { return q.n }

func (q *queue) push(s *slot) {
	if q.n == len(q.ring) {
		bigger := make([]*slot, max(16, 2*q.n))
		for i := range q.n {
			bigger[i] = q.ring[(q.head+i)%len(q.ring)]
		}
		q.ring, q.head = bigger, 0
	}
	q.ring[(q.head+q.n)%len(q.ring)] = s
	q.n++
}

// unpop puts back what was popped last.
func (q *queue) unpop(s *slot) {
	q.head = (q.head + len(q.ring) - 1) % len(q.ring)
	q.ring[q.head] = s
	q.n++
}

// pop takes the slot that was pushed first. The queue is not empty.
func (q *queue) pop() *slot {
	s := q.ring[q.head]
	q.ring[q.head] = nil
	q.head = (q.head + 1) % len(q.ring)
	q.n--
	return s
}
