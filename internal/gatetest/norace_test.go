//go:build !race

package gatetest

import "testing"

// Race builds are left out: their pools drop at random what is put into them.

func TestAHitOfAKnownClientDoesNotAllocate(t *testing.T) {
	g, _ := hitNode(t)
	m := newInMemory(g, "/hit/")
	for range 4 * hitObjects { // the first time they are stored
		m.ask(t)
	}
	hits := 0
	n := testing.AllocsPerRun(2000, func() {
		m.ask(t)
		if m.x.Usage.Attempts == 0 { // Done leaves the exchange as it was
			hits++
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for each hit", n)
	}
	if hits != 2001 {
		t.Errorf("%d of 2001 were hits", hits)
	}
}
