package gateway

import (
	"errors"
	"io"
	"sync"
)

// registry keeps what lives longer than a snapshot, such as connection pools: a
// block of configuration that did not change keeps its runtime over a reload.
// Each snapshot holds a reference to what it uses. It is used at load, never on
// the request path.
type registry[T io.Closer] struct {
	mu   sync.Mutex
	held map[string]*entry[T]
}

type entry[T io.Closer] struct {
	value T
	users int
}

// acquire returns the value of a key, made when there is none. Every acquire
// has its release.
func (r *registry[T]) acquire(key string, create func() (T, error)) (T, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.held[key]; ok {
		e.users++
		return e.value, nil
	}
	v, err := create()
	if err != nil {
		return v, err
	}
	if r.held == nil {
		r.held = map[string]*entry[T]{}
	}
	r.held[key] = &entry[T]{value: v, users: 1}
	return v, nil
}

// release gives a reference back and closes the value with the last one.
func (r *registry[T]) release(key string) error {
	r.mu.Lock()
	e, ok := r.held[key]
	if !ok {
		r.mu.Unlock()
		return errors.New("gateway: released more often than acquired")
	}
	e.users--
	if e.users > 0 {
		r.mu.Unlock()
		return nil
	}
	delete(r.held, key)
	r.mu.Unlock()
	return e.value.Close()
}
