package cache

import (
	"context"
	"hash/maphash"
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
	jobs   [writers]chan job // a key has one of them: what is written last stays
	locks  chan job          // leads to end whose objects found no place
	bytes  atomic.Int64
	work   sync.WaitGroup
	closed atomic.Bool
	stop   chan struct{}
}

func newWriter(e *Engine) *writer {
	w := &writer{e: e, locks: make(chan job, maxJobs), stop: make(chan struct{})}
	for i := range w.jobs {
		w.jobs[i] = make(chan job, maxJobs/writers)
		w.work.Go(func() { w.run(w.jobs[i]) })
	}
	return w
}

// put queues an object.
func (w *writer) put(j job) {
	n := j.size()
	if w.bytes.Add(n) <= maxJobBytes && !w.closed.Load() {
		select {
		case w.jobs[j.place()] <- j:
			return
		default:
		}
	}
	w.bytes.Add(-n)
	if j.object != nil {
		w.e.stats.second[secondDropped].Add(1)
	}
	if (j.lock != store.ObjectKey{}) {
		select {
		case w.locks <- job{lock: j.lock, pass: j.pass}:
		default: // it ends by itself
		}
	}
}

// place is the queue of a job.
func (j *job) place() int {
	key := j.lock.URI
	if j.object != nil {
		key = j.object.URI
	}
	return int(maphash.String(seed, key) % writers)
}

var seed = maphash.MakeSeed()

// release queues the end of a lead.
func (w *writer) release(k store.ObjectKey, pass time.Duration) { w.put(job{lock: k, pass: pass}) }

func (w *writer) run(jobs chan job) {
	for {
		select {
		case j := <-jobs:
			w.do(w.e.ctx, j)
		case j := <-w.locks:
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
	write := func(o *object.Object, ttl time.Duration, tags []string) {
		k := store.ObjectKey{URI: o.URI, Variant: o.Key}
		err := w.e.objects.Put(ctx, k, store.Stored{
			Value: o.Append(nil), TTL: ttl, Stamp: j.stamp, Tags: tags, Lead: lead && k == j.lock,
		})
		w.count(err, true)
		lead = lead && (k != j.lock || err != nil)
	}
	write(j.object, j.ttl, j.tags)
	if j.object.Spec != "" {
		write(w.e.directory(j.object), store.MaxObjectLife, nil) // other variants may live longer
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
	for _, jobs := range w.jobs {
		for len(jobs) > 0 && ctx.Err() == nil {
			w.do(ctx, <-jobs)
		}
	}
}
