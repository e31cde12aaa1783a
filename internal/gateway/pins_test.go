package gateway

import (
	"errors"
	"sync"
	"testing"
)

func TestPinsAreIdleWhenEveryUseHasLeft(t *testing.T) {
	var p pins
	if !p.idle() {
		t.Error("fresh pins are in use")
	}
	p.enter(3)
	p.enter(3 + pinStripes)
	p.enter(70)
	p.leave(3)
	if p.idle() {
		t.Error("idle with two users")
	}
	p.leave(3)
	p.leave(70)
	if !p.idle() {
		t.Error("in use without users")
	}
}

type resource struct{ closed int }

func (r *resource) Close() error { r.closed++; return nil }

func TestTheRegistryClosesWithTheLastReference(t *testing.T) {
	var reg registry[*resource]
	made := 0
	create := func() (*resource, error) { made++; return &resource{}, nil }
	a, _ := reg.acquire("k", create)
	b, _ := reg.acquire("k", create)
	if a != b || made != 1 {
		t.Fatalf("made %d", made)
	}
	if err := reg.release("k"); err != nil || a.closed != 0 {
		t.Fatalf("closed %d times with a user left, %v", a.closed, err)
	}
	if err := reg.release("k"); err != nil || a.closed != 1 {
		t.Fatalf("closed %d times, %v", a.closed, err)
	}
	if err := reg.release("k"); err == nil {
		t.Error("one release too many went unnoticed")
	}
	if c, _ := reg.acquire("k", create); c == a || made != 2 {
		t.Error("a closed value was given out")
	}
}

func TestTheRegistryKeepsNothingOfAFailure(t *testing.T) {
	var reg registry[*resource]
	bad := errors.New("bad")
	if _, err := reg.acquire("k", func() (*resource, error) { return nil, bad }); !errors.Is(err, bad) {
		t.Fatalf("got %v", err)
	}
	if v, err := reg.acquire("k", func() (*resource, error) { return &resource{}, nil }); v == nil || err != nil {
		t.Errorf("got %v, %v", v, err)
	}
}

func BenchmarkPins(b *testing.B) {
	var p pins
	var mu sync.Mutex
	next := uint32(0)
	b.RunParallel(func(pb *testing.PB) {
		mu.Lock()
		shard := next
		next++
		mu.Unlock()
		for pb.Next() {
			p.enter(shard)
			p.leave(shard)
		}
	})
}
