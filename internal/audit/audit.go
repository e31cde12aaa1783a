// Package audit keeps the log of who changed what and who was refused: a file that
// is only appended to, a line of JSON for each event, each line chained to the one
// before by a hash.
//
// # The way of an event
//
//	Note, Write, Commit → queue (bounded) → one goroutine → file, fsync → Commit returns
//
// Nobody but Commit waits. Lines are written in groups: what came within groupDelay,
// or at once when a Commit waits, goes out with one write and one fsync. A group
// whose write fails is taken back off the file and tried again every retryDelay, so
// the file holds whole groups, in order.
//
// # The chain
//
// See line for what a line is, Chain for what makes lines a chain, and file for how
// it goes on over restarts, torn ends and several files.
package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

const (
	// groupDelay is how long an event waits at most for others that go to disk with it.
	groupDelay = 50 * time.Millisecond
	// retryDelay is how often a write that failed is tried again.
	retryDelay = time.Second
	// slowDisk is after how long a group counts as failed for as long as it takes.
	slowDisk = 3 * time.Second
	// orderDelay is how long a change of the log's configuration waits for the disk.
	orderDelay = 5 * time.Second
	// maxQueue bounds the events that wait, beside a group of as many that is being
	// written: at most 3 KiB each, so 12 MiB while the disk stands still.
	maxQueue = 2048
	// maxRefusals bounds the lines of refused requests in a second: 0.5 MB/s. What is
	// beyond is counted, and a line says how many.
	maxRefusals = 1000
	// rotateAt is the size in bytes at which a file gives way to the next.
	rotateAt = 100 << 20
)

// An Event is one line. What is empty is left out. It never holds a secret.
type Event struct {
	Kind    string         // what happened: auth.refused, auth.forbidden, admin.<method path>, config.swap, audit.*
	Actor   string         // who: a client's id, or how somebody came to the admin API
	Key     string         // the name of the key that was used
	Address netip.Addr     // from where
	Request string         // the request id
	API     string         // of the route
	Route   string         // by name
	Target  string         // what it was done to: GET /users, or an admin resource
	Status  int            // of the answer
	Reason  string         // why, for an operator
	Detail  map[string]any // more, as JSON has it; at most maxDetail bytes of it
}

// Options are what a Log is made with.
type Options struct {
	File      string               // relative to Dir; empty: nothing is written until a Prepare names one
	Dir       string               // what File is relative to
	OnFault   string               // open or closed; empty: open
	Log       *slog.Logger         // nil: nothing is logged
	Telemetry *telemetry.Telemetry // nil: nothing is counted
	Now       func() time.Time     // nil: time.Now
	RotateAt  int64                // bytes; 0: 100 MiB
}

// Log is the audit log. Its methods are called from any goroutine. A nil *Log does
// nothing, and every method can be called on it.
type Log struct {
	log   *slog.Logger
	dir   string
	now   func() time.Time
	count counts

	on      atomic.Bool // there is a file
	closed  atomic.Bool // on_fault is closed
	failing atomic.Bool // the last write failed
	full    atomic.Bool // the queue is
	left    budget
	current atomic.Pointer[string] // path of the file

	mu      sync.Mutex
	queue   []*entry
	lost    int       // events for which there was no room
	since   time.Time // when the first of them was lost
	leftOut int       // refusals beyond maxRefusals
	ended   bool

	wake    chan struct{}      // something is queued
	urgent  chan struct{}      // somebody waits for it
	orders  chan func(*writer) // run between groups, by the goroutine that writes
	stop    chan struct{}
	done    chan struct{}
	closing sync.Once
}

// entry is an event that waits.
type entry struct {
	Event
	detail json.RawMessage // Event.Detail
	at     time.Time
	done   chan error // of a Commit, with room for its one answer; nil: nobody waits
}

// newEntry takes what it keeps of an event.
func newEntry(e Event, at time.Time) *entry {
	n := &entry{Event: e, at: at, detail: encodeDetail(e.Detail)}
	n.Detail = nil
	n.clip()
	return n
}

// Errors of Commit.
var (
	errClosed = errors.New("audit: the log is closed")
	errQueue  = errors.New("audit: the log cannot be written, and its queue is full")
)

// Open opens the log and starts to write. A file that is there goes on; one that was
// torn by a crash is repaired. A disk that is full is no error: it is logged, and
// on_fault holds until there is room. Everything else that keeps the file from being
// written is one, and says what to do. The log must be closed.
func Open(o Options) (*Log, error) {
	l := &Log{
		log: o.Log, dir: o.Dir, now: o.Now,
		wake: make(chan struct{}, 1), urgent: make(chan struct{}, 1), orders: make(chan func(*writer)),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.now == nil {
		l.now = time.Now
	}
	l.closed.Store(o.OnFault == "closed")
	size := o.RotateAt
	if size == 0 {
		size = rotateAt
	}
	w := &writer{l: l, rotateAt: size}
	if o.File != "" {
		w.path = l.path(o.File)
		switch f, err := openFile(w.path); {
		case err == nil:
			w.use(f)
		case isFull(err):
			l.current.Store(&w.path)
			w.fail(err)
		default:
			return nil, err
		}
		l.on.Store(true)
	}
	if o.Telemetry != nil {
		l.register(o.Telemetry)
	}
	go w.run()
	if o.File != "" {
		l.Write(Event{Kind: kindStarted})
	}
	return l, nil
}

// Write queues an event. It never waits. When there is no room the event is lost,
// and counted: a line says how many, once there can be lines again.
func (l *Log) Write(e Event) {
	if l == nil || !l.on.Load() || isRefusal(e.Kind) && !l.admit() {
		return
	}
	_ = l.put(newEntry(e, l.now())) // what is lost is counted
}

// Commit queues an event and returns nil when its line is on disk. When that cannot
// be, the error says why with on_fault closed; with on_fault open it is nil, and the
// event waits or is lost as one of Write. The context's end counts as a
// failure.
func (l *Log) Commit(ctx context.Context, e Event) error {
	if l == nil || !l.on.Load() {
		return nil
	}
	n := newEntry(e, l.now())
	answer := make(chan error, 1)
	n.done = answer
	err := l.put(n)
	if err == nil {
		tell(l.urgent)
		select {
		case err = <-answer:
		case <-ctx.Done():
			err = fmt.Errorf("audit: the line is not on disk yet: %w", ctx.Err())
		}
	}
	if !l.closed.Load() {
		return nil
	}
	return err
}

// Healthy reports whether events can be written as far as is known. With on_fault closed
// requests are refused while they cannot (see Specs).
func (l *Log) Healthy() bool {
	return l == nil || !l.failing.Load() && !l.full.Load()
}

// Reopen has the log look, soon, whether its file is still the one that its name stands
// for, and begin a new one when it is not: rotation by renaming. That is looked at before
// each group, too.
func (l *Log) Reopen() {
	if l != nil {
		tell(l.urgent)
	}
}

// Close writes what waits, as long as ctx allows. What comes behind it is not
// written.
func (l *Log) Close(ctx context.Context) error {
	if l == nil {
		return nil
	}
	l.closing.Do(func() { close(l.stop) })
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("audit: what waits could not be written: %w", ctx.Err())
	}
}

// put queues an entry. The error says that there was no room.
func (l *Log) put(n *entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return errClosed
	}
	if len(l.queue) >= maxQueue {
		if l.lost == 0 {
			l.since = n.at
		}
		l.lost++
		l.count.lost.Add(1)
		l.full.Store(true)
		return errQueue
	}
	l.queue = append(l.queue, n)
	tell(l.wake)
	return nil
}

// admit takes one line from the budget of refusals, and counts it when that is empty.
func (l *Log) admit() bool {
	if l.left.take(l.now().Unix()) {
		return true
	}
	l.count.leftOut.Add(1)
	l.mu.Lock()
	l.leftOut++
	l.mu.Unlock()
	return false
}

// budget is a number of lines for each second.
type budget struct {
	second, left atomic.Int64
}

// take takes one of a second. Of two seconds that overlap the later one wins; what
// comes late shares its budget.
func (b *budget) take(second int64) bool {
	if now := b.second.Load(); second > now && b.second.CompareAndSwap(now, second) {
		b.left.Store(maxRefusals)
	}
	return b.left.Load() > 0 && b.left.Add(-1) >= 0
}

// isRefusal reports whether lines of a kind are bounded: anybody can cause them.
func isRefusal(kind string) bool { return strings.HasPrefix(kind, "auth.") }

func tell(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is told already
	}
}

// Change is a configuration of the log that is not in force yet. It must be committed
// or discarded. A nil *Change changes nothing.
type Change struct {
	l      *Log
	next   *file // nil: the file stays
	off    bool
	closed bool
}

// Prepare opens what c names; nil: no log. The error says what keeps its file from
// being written; then nothing has changed.
func (l *Log) Prepare(c *config.Audit) (*Change, error) {
	if l == nil {
		return nil, nil
	}
	if c == nil || c.File == "" {
		return &Change{l: l, off: true}, nil
	}
	ch := &Change{l: l, closed: c.OnFault == "closed"}
	path := l.path(c.File)
	if now := l.current.Load(); now != nil && *now == path {
		return ch, nil
	}
	var err error
	if ch.next, err = openFile(path); err != nil {
		return nil, err
	}
	return ch, nil
}

// Commit puts the change in force. why is the line about it: it is the last in the
// former file, or among the first in the new one when there was none. What was queued before
// is in the former file, and what comes behind it in the new one, whose first line
// names the former. When the disk does not answer for orderDelay the log stays with the former
// file, and that is logged.
func (c *Change) Commit(why Event) {
	if c == nil {
		return
	}
	was := c.l.on.Load()
	c.l.Write(why)
	c.l.closed.Store(c.closed)
	if !c.off && c.next == nil {
		return
	}
	if !c.l.order(func(w *writer) { w.swap(c.next) }) {
		c.l.log.Error("the audit log stays as it was: it is closed, or its disk does not answer")
		c.Discard()
		return
	}
	if !was {
		c.l.Write(why)
	}
}

// Discard gives back what the change holds.
func (c *Change) Discard() {
	if c != nil && c.next != nil {
		c.next.close()
	}
}

// order runs f between two groups and waits for it; false: the log is closed, or has
// been busy for orderDelay.
func (l *Log) order(f func(*writer)) bool {
	late := time.NewTimer(orderDelay)
	defer late.Stop()
	ran := make(chan struct{})
	select {
	case l.orders <- func(w *writer) { defer close(ran); f(w) }:
		<-ran
		return true
	case <-l.done:
	case <-late.C:
	}
	return false
}
