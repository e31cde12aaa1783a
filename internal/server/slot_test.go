package server

import "testing"

func TestWhatIsFoundOutAboutAClientDoesNotStickToItsSlot(t *testing.T) {
	s := New(&still{}, Options{})
	defer s.Close()
	for range 100 { // the pool does not always give back what it was given last
		c := &conn{server: s, slot: s.getSlot()}
		c.slot.x.Reset()
		c.slot.x.Cancel() // the sweeper, behind the end of the exchange
		c.free()
		next := s.getSlot()
		if next.x.Canceled() {
			t.Fatal("the next client is taken for gone")
		}
		s.freeSlot(next)
	}
}
