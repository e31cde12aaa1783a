package cache

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/cache/object"
	"github.com/sluice-gateway/sluice/internal/store"
)

// Level 2 is written behind the requests. What does not fit into the queue is dropped: the
// next request for it fetches it again.

const (
	maxJobs     = 1024
	maxJobBytes = 32 << 20
	writers     = 4
)

// job is an object to write, or a lead to end.
type job struct {
	object *object.Object // nil: only lock is to be released
	ttl    time.Duration
	stamp  uint64
	tags   []string
	lock   store.ObjectKey // zero: none
	pass   time.Duration
}

func (j *job) size() int64 {
	if j.object == nil {
		return 0
	}
	return int64(j.object.Weight())
}

type writer struct {
	e      *Engine
	jobs   chan job
	bytes  atomic.Int64
	work   sync.WaitGroup
	closed atomic.Bool
	stop   chan struct{}
}

func newWriter(e *Engine) *writer {
	w := &writer{e: e, jobs: make(chan job, maxJobs), stop: make(chan struct{})}
	for range writers {
		w.work.Go(w.run)
	}
	return w
}

// put queues an object.
func (w *writer) put(j job) {
	n := j.size()
	if w.closed.Load() || w.bytes.Add(n) > maxJobBytes {
		w.bytes.Add(-n)
		w.e.stats.second[secondDropped].Add(1)
		return // a lead ends by itself
	}
	select {
	case w.jobs <- j:
	default:
		w.bytes.Add(-n)
		w.e.stats.second[secondDropped].Add(1)
	}
}

// release queues the end of a lead.
func (w *writer) release(k store.ObjectKey, pass time.Duration) { w.put(job{lock: k, pass: pass}) }

func (w *writer) run() {
	for {
		select {
		case j := <-w.jobs:
			w.do(w.e.ctx, j)
		case <-w.stop:
			return
		}
	}
}

func (w *writer) do(ctx context.Context, j job) {
	defer w.bytes.Add(-j.size())
	lead := j.lock != store.ObjectKey{}
	if j.object == nil {
		w.count(w.e.objects.Release(ctx, j.lock, j.pass), false)
		return
	}
	write := func(o *object.Object) {
		k := store.ObjectKey{URI: o.URI, Variant: o.Key}
		err := w.e.objects.Put(ctx, k, store.Stored{
			Value: o.Append(nil), TTL: j.ttl, Stamp: j.stamp, Tags: j.tags, Lead: lead && k == j.lock,
		})
		w.count(err, true)
		lead = lead && (k != j.lock || err != nil)
	}
	write(j.object)
	if j.object.Spec != "" {
		write(w.e.directory(j.object))
	}
	if lead {
		w.count(w.e.objects.Release(ctx, j.lock, 0), false)
	}
}

func (w *writer) count(err error, put bool) {
	switch {
	case err != nil:
		w.e.stats.second[secondError].Add(1)
	case put:
		w.e.stats.second[secondPut].Add(1)
	}
}

// drain writes what is queued, as long as ctx allows, and ends the writers.
func (w *writer) drain(ctx context.Context) {
	if w.closed.Swap(true) {
		return
	}
	close(w.stop)
	w.work.Wait()
	for ctx.Err() == nil {
		select {
		case j := <-w.jobs:
			w.do(ctx, j)
		default:
			return
		}
	}
}
