// Package ask asks services outside the gateway about credentials: the issuer of a
// token (RFC 7662), a service of one's own, or an AWS Lambda function.
//
// A Desk stands before each of them. It keeps answers, and has one call answer all
// requests that ask the same at the same time:
//
//	kept?  ── yes ──────────────────────────────→ the answer
//	  │ no
//	asked already? ── yes ── wait for that call ─→ the answer
//	  │ no
//	a place free? ── no ────────────────────────→ ErrFull
//	  │ yes
//	a call with a time limit of its own ─────────→ the answer, kept
//
// A call is made beside the request that began it, so that a client that goes away
// takes the answer from nobody else. It ends with its time limit, whatever the service
// does.
//
// No credential is kept: answers are kept under a SHA-256 of what was asked. Refusals
// are kept apart from the rest, so that whoever makes up credentials pushes no good
// answer out.
package ask

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth/verdict"
)

// Bounds of what a Desk and its calls may take.
const (
	// MaxCalls is how many calls of one Desk may be under way.
	MaxCalls = 256
	// MaxReply is the longest reply that is read, bytes.
	MaxReply = 256 << 10
	// MaxKept is the longest reply whose answer is worth keeping, bytes: with Entries
	// of them the memory that answers take is bounded.
	MaxKept = 16 << 10
	// Entries is how many answers a Desk keeps, and how many refusals besides.
	Entries = 16 << 10
)

// Errors of Ask. What a call returned comes back as it is.
var (
	// ErrFull says that as many calls as may be are under way.
	ErrFull = fmt.Errorf("%d calls are under way, no more are made at a time", MaxCalls)
	// ErrClosed says that the Desk was closed.
	ErrClosed = errors.New("the configuration that asks has ended")
)

// Key is what an answer is kept under: a digest of all that was asked.
type Key [sha256.Size]byte

// KeyOf is the key of parts that were put together with AppendPart.
func KeyOf(parts []byte) Key { return sha256.Sum256(parts) }

// AppendPart appends a part and its length, so that no two lists of parts come to the
// same bytes.
func AppendPart(b, part []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(part))), part...)
}

// Answer is what a call found out.
type Answer[V any] struct {
	Value V
	// Until is how long the answer holds. What is not after now is not kept.
	Until time.Time
	// Refusal says that the answer belongs to those that make no room for others.
	Refusal bool
}

// Call asks the service. It must not touch the exchange, which may have ended by then.
type Call[V any] func(ctx context.Context) (Answer[V], error)

// Options are what a Desk is made with.
type Options struct {
	Timeout time.Duration // of one call
	// Keep is false for a Desk that keeps nothing.
	Keep bool
	// Alone is set when an answer is for the one request that asked: no two share a call.
	Alone bool
	Now   func() time.Time
}

// Desk keeps answers and bounds calls. It is safe for use by many goroutines.
type Desk[V any] struct {
	o         Options
	good, bad *verdict.Cache[V] // nil: nothing is kept
	places    chan struct{}
	life      context.Context // of calls
	end       context.CancelFunc
	calls     sync.WaitGroup
	mu        sync.Mutex
	flights   map[Key]*flight[V]
	closed    bool
}

// flight is one call, and those who wait for it.
type flight[V any] struct {
	done  chan struct{}
	value V
	err   error
}

// NewDesk makes a desk. It must be closed.
func NewDesk[V any](o Options) *Desk[V] {
	d := &Desk[V]{o: o, places: make(chan struct{}, MaxCalls), flights: map[Key]*flight[V]{}}
	if o.Keep {
		d.good, d.bad = verdict.New[V](Entries, len(Key{})), verdict.New[V](Entries, len(Key{}))
	}
	d.life, d.end = context.WithCancel(context.Background())
	return d
}

// Kept returns an answer that is kept and holds now. It allocates nothing and takes no
// lock.
func (d *Desk[V]) Kept(key *Key) (v V, ok bool) {
	if d.good == nil {
		return v, false
	}
	now := d.o.Now().UnixNano()
	if v, ok = d.good.Get(key[:], now); ok {
		return v, true
	}
	return d.bad.Get(key[:], now)
}

// Ask returns what is kept, or what the call finds out, its own or that of another who
// asks the same. It returns when ctx ends; the call goes on for the others.
func (d *Desk[V]) Ask(ctx context.Context, key Key, call Call[V]) (V, error) {
	f, err := d.join(key, call)
	if err != nil {
		var none V
		return none, err
	}
	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
		var none V
		return none, context.Cause(ctx)
	}
}

// join returns the flight for a key: one that is under way, one that has landed, or a
// new one.
func (d *Desk[V]) join(key Key, call Call[V]) (*flight[V], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, ErrClosed
	}
	if !d.o.Alone {
		if f := d.flights[key]; f != nil {
			return f, nil
		}
	}
	// A flight that has just landed has left its answer before it left the list.
	if v, ok := d.Kept(&key); ok {
		return &flight[V]{done: landed, value: v}, nil
	}
	select {
	case d.places <- struct{}{}:
	default:
		return nil, ErrFull
	}
	f := &flight[V]{done: make(chan struct{})}
	if !d.o.Alone {
		d.flights[key] = f
	}
	d.calls.Go(func() { d.fly(f, key, call) })
	return f, nil
}

var landed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// fly makes the call and keeps its answer.
func (d *Desk[V]) fly(f *flight[V], key Key, call Call[V]) {
	ctx, end := context.WithTimeout(d.life, d.o.Timeout)
	answer, err := call(ctx)
	if err != nil && ctx.Err() == context.DeadlineExceeded {
		err = fmt.Errorf("no answer within %v", d.o.Timeout)
	}
	end()
	f.value, f.err = answer.Value, err
	if cache := d.good; cache != nil && err == nil && answer.Until.After(d.o.Now()) {
		if answer.Refusal {
			cache = d.bad
		}
		cache.Put(key[:], answer.Value, answer.Until.UnixNano())
	}
	<-d.places
	if !d.o.Alone {
		d.mu.Lock()
		delete(d.flights, key)
		d.mu.Unlock()
	}
	close(f.done)
}

// Close ends the calls that are under way and waits for them. Nothing may be asked any
// more.
func (d *Desk[V]) Close() error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.end()
	d.calls.Wait()
	return nil
}
