package telemetry

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// The access log. Record copies what a line needs into a batch, under the lock
// of the stripe that the connection's shard picks: cores do not share one. One
// goroutine, woken by the first record, lets records gather for flushEvery or
// until a batch is half full, swaps each stripe's batch for an empty one, formats
// the lines and writes them in large pieces. Lines of different stripes may
// therefore be out of order by up to flushEvery.
//
// Nothing a reader of the log does reaches a request: when the writer is held up
// the batches fill, and further records are dropped and counted. When a write
// fails (a full disk) its lines are lost, counted, and logged once a minute.

const (
	// flushEvery is how long a record may wait for company.
	flushEvery = 50 * time.Millisecond
	// maxBatch is the records a stripe holds: at 100,000 requests a second on
	// two cores, 80 ms of them.
	maxBatch = 4096
	// maxText is the bytes of text a stripe holds: 256 for each record, where 200
	// are usual.
	maxText = 1 << 20
	// writePiece is how much is formatted before it is written.
	writePiece = 64 << 10
	// complainEvery is the least time between two log lines about lost records.
	complainEvery = time.Minute
)

// accessOptions are what one configuration asks for. They do not change.
type accessOptions struct {
	log       config.AccessLog
	combined  bool
	threshold uint64 // a random number below it is logged
	all       bool
	redact    redaction
}

func newAccessOptions(c config.AccessLog) *accessOptions {
	o := &accessOptions{log: c, combined: c.Format == "combined", redact: newRedaction(c.Redact)}
	switch {
	case c.Sample.Of >= 1:
		o.all = true
	case c.Sample.Of > 0:
		o.threshold = uint64(c.Sample.Of * (1 << 63) * 2)
	}
	return o
}

type accessLog struct {
	// options is nil when nothing is logged.
	options atomic.Pointer[accessOptions]
	stripes []stripe
	mask    uint32

	full   atomic.Uint64 // records dropped because a batch was full or the log closed
	failed atomic.Uint64 // records lost in failed writes

	wake  chan struct{} // a stripe is no longer empty
	hurry chan struct{} // a stripe is half full
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once

	ops    *slog.Logger
	open   opener
	mu     sync.Mutex           // of reconfigure and reopen
	output string               // what the newest sink writes to; under mu
	next   atomic.Pointer[sink] // replaces the writer's sink

	// What the writer's goroutine owns.
	sink       *sink
	spare      *batch
	out        []byte
	lines      uint64 // in out
	complained time.Time
	lost       uint64 // since then
	format     formatter
}

// stripe is the records of some connections.
type stripe struct {
	mu     sync.Mutex
	b      *batch
	closed bool
	_      [128 - 24]byte // see lineCells
}

func newAccessLog(o Options) (*accessLog, error) {
	l := &accessLog{
		wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1),
		stop: make(chan struct{}), done: make(chan struct{}),
		ops: o.Logger, spare: newBatch(),
		open: opener{dir: o.Dir, stdout: o.Stdout, stderr: o.Stderr},
	}
	n := 1
	for n < runtime.GOMAXPROCS(0) && n < maxStripes {
		n *= 2
	}
	l.stripes, l.mask = make([]stripe, n), uint32(n-1)
	for i := range l.stripes {
		l.stripes[i].b = newBatch()
	}
	var err error
	if l.sink, err = l.open.open(o.Log.Access.Output); err != nil {
		return nil, err
	}
	l.output = o.Log.Access.Output
	l.set(o.Log.Access)
	go l.run()
	return l, nil
}

func (l *accessLog) set(c config.AccessLog) {
	if c.Output == "none" || c.Output == "" || c.Sample.Of <= 0 {
		l.options.Store(nil)
		return
	}
	l.options.Store(newAccessOptions(c))
}

// record copies what the line of x needs.
func (l *accessLog) record(x *exchange.Exchange, total, own time.Duration) {
	o := l.options.Load()
	if o == nil || !o.all && rand.Uint64() >= o.threshold {
		return
	}
	s := &l.stripes[shard(x)&l.mask]
	s.mu.Lock()
	f := full
	if !s.closed {
		f = s.b.add(x, o, total, own)
	}
	s.mu.Unlock()
	switch f {
	case full:
		l.full.Add(1)
	case first:
		signal(l.wake)
	case half:
		signal(l.hurry)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// prepare opens the output of c, nil when it is the one in use.
func (l *accessLog) prepare(c config.AccessLog) (*sink, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.Output == l.output {
		return nil, nil
	}
	return l.open.open(c.Output)
}

// commit makes c current; next is what prepare returned for it.
func (l *accessLog) commit(c config.AccessLog, next *sink) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if next != nil {
		l.output = c.Output
		l.replace(next)
	}
	l.set(c)
}

func (l *accessLog) reopen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !isFile(l.output) {
		return nil
	}
	s, err := l.open.open(l.output)
	if err != nil {
		return err
	}
	l.replace(s)
	return nil
}

// replace hands an output to the writer. l.mu is held.
func (l *accessLog) replace(s *sink) {
	if unused := l.next.Swap(s); unused != nil {
		unused.close()
	}
	select {
	case <-l.stop: // the writer may have looked for the last time
		if unused := l.next.Swap(nil); unused != nil {
			unused.close()
		}
	default:
		signal(l.wake)
	}
}

func (l *accessLog) close(ctx context.Context) error {
	l.once.Do(func() { close(l.stop) })
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run is the writer.
func (l *accessLog) run() {
	defer close(l.done)
	gather := time.NewTimer(flushEvery)
	gather.Stop()
	for {
		select {
		case <-l.wake:
		case <-l.hurry:
			l.flush()
			continue
		case <-l.stop:
			l.finish()
			return
		}
		gather.Reset(flushEvery)
		select {
		case <-gather.C:
		case <-l.hurry:
		case <-l.stop:
			l.finish()
			return
		}
		l.flush()
	}
}

func (l *accessLog) finish() {
	for i := range l.stripes {
		s := &l.stripes[i]
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
	}
	l.flush()
	l.sink.close()
	if s := l.next.Swap(nil); s != nil {
		s.close()
	}
}

// flush writes everything that was recorded, and then changes to a new output
// when there is one.
func (l *accessLog) flush() {
	for i := range l.stripes {
		s := &l.stripes[i]
		s.mu.Lock()
		b := s.b
		if len(b.entries) == 0 {
			s.mu.Unlock()
			continue
		}
		s.b = l.spare
		s.mu.Unlock()
		for j := range b.entries {
			l.out = l.format.append(l.out, b, &b.entries[j])
			l.lines++
			if len(l.out) >= writePiece {
				l.write()
			}
		}
		b.reset()
		l.spare = b
	}
	l.write()
	if s := l.next.Swap(nil); s != nil {
		l.sink.close()
		l.sink = s
	}
}

func (l *accessLog) write() {
	if len(l.out) == 0 {
		return
	}
	err := l.sink.write(l.out)
	if err != nil {
		l.failed.Add(l.lines)
		l.lost += l.lines
		l.complain(err)
	}
	l.out, l.lines = l.out[:0], 0
}

func (l *accessLog) complain(err error) {
	now := time.Now()
	if !l.complained.IsZero() && now.Sub(l.complained) < complainEvery {
		return
	}
	l.ops.Error("access log cannot be written", "lost", l.lost, "cause", err)
	l.complained, l.lost = now, 0
}
