package server

import "sync"

// registry is a set of things that live long and are looked at now and then: the
// open connections of a listener, the open streams of HTTP/2. It is split, so
// that thousands of connections that come and go do not wait for one lock.
type registry[T any] struct{ parts [registryParts]part[T] }

// registryParts is about the number of cores of a small server: a part is locked
// for some nanoseconds, twice in the life of a connection.
const registryParts = 8

type part[T any] struct {
	mu   sync.Mutex
	in   map[*T]struct{}
	done chan struct{} // closed when the part becomes empty; nil: nobody waits
	_    [40]byte      // a part has a cache line to itself
}

// add puts t in. shard picks the part, and must be the same for remove.
func (r *registry[T]) add(t *T, shard uint32) {
	p := &r.parts[shard%registryParts]
	p.mu.Lock()
	if p.in == nil {
		p.in = map[*T]struct{}{}
	}
	p.in[t] = struct{}{}
	p.mu.Unlock()
}

// remove takes t out, if it is in, and reports whether it was.
func (r *registry[T]) remove(t *T, shard uint32) bool {
	p := &r.parts[shard%registryParts]
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, in := p.in[t]; !in {
		return false
	}
	delete(p.in, t)
	if len(p.in) == 0 && p.done != nil {
		close(p.done)
		p.done = nil
	}
	return true
}

// len is the number of members.
func (r *registry[T]) len() int {
	n := 0
	for i := range r.parts {
		p := &r.parts[i]
		p.mu.Lock()
		n += len(p.in)
		p.mu.Unlock()
	}
	return n
}

// each calls f for every member, one part after the other, with the part locked:
// f must neither wait nor add nor remove.
func (r *registry[T]) each(f func(*T)) {
	for i := range r.parts {
		p := &r.parts[i]
		p.mu.Lock()
		for t := range p.in {
			f(t)
		}
		p.mu.Unlock()
	}
}

// empty returns a channel that is closed when a part that had members has none
// any more, nil when there are no members at all.
func (r *registry[T]) empty() <-chan struct{} {
	for i := range r.parts {
		p := &r.parts[i]
		p.mu.Lock()
		if len(p.in) > 0 {
			if p.done == nil {
				p.done = make(chan struct{})
			}
			done := p.done
			p.mu.Unlock()
			return done
		}
		p.mu.Unlock()
	}
	return nil
}
