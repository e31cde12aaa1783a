package limit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/limit/meter"
	"github.com/sluice-gateway/sluice/internal/store"
)

var errUnknown = fmt.Errorf("%w: no answer", store.ErrUnavailable)

// TestPostsAreCountedOnceAtMost posts what was counted while the store was away.
func TestPostsAreCountedOnceAtMost(t *testing.T) {
	for name, c := range map[string]struct {
		end   func(try int) (done bool, err error)
		left  int // of 100, 50 of which were used meanwhile
		tries int
	}{
		"done":                          {func(int) (bool, error) { return true, nil }, 50, 1},
		"done, and nobody knows":        {func(int) (bool, error) { return true, errUnknown }, 50, 1},
		"not done, and nobody knows":    {func(int) (bool, error) { return false, errUnknown }, 100, 1},
		"not done, for three times":     {func(try int) (bool, error) { return try > 3, orNil(try <= 3, store.ErrNotDone) }, 50, 4},
		"not done ever":                 {func(int) (bool, error) { return false, store.ErrNotDone }, 100, postTries},
		"another's key":                 {func(int) (bool, error) { return false, store.ErrKey }, 100, 1},
		"not done, then nobody knows":   {func(try int) (bool, error) { return try > 1, [...]error{store.ErrNotDone, errUnknown}[min(try, 2)-1] }, 50, 2},
		"not done, then another's then": {func(try int) (bool, error) { return false, [...]error{store.ErrNotDone, store.ErrKey}[min(try, 2)-1] }, 100, 2},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				_, rigs, links := gateways(t, 2, &config.File{}, scoped("exact", limited("fixed_window", "100/h", nil)))
				r, link := rigs[0], links[0]
				link.set(false)
				if n := r.admitted(100, "acme"); n != 50 {
					t.Fatalf("%d admitted meanwhile", n)
				}
				var tries atomic.Int64
				link.endWith(func(store.Charge) (bool, error) { return c.end(int(tries.Add(1))) })
				link.set(true)
				time.Sleep(20 * time.Second)
				if n := int(tries.Load()); n != c.tries {
					t.Errorf("posted %d times, want %d", n, c.tries)
				}
				if n := rigs[1].admitted(200, "acme"); n != c.left {
					t.Errorf("%d are left, want %d", n, c.left)
				}
			})
		})
	}
}

func orNil(fails bool, err error) error {
	if fails {
		return err
	}
	return nil
}

func TestAKeyThatCannotBePostedStopsNoOther(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, rigs, links := gateways(t, 2, &config.File{}, scoped("exact", limited("fixed_window", "100/h", nil)))
		r, link := rigs[0], links[0]
		link.endWith(func(c store.Charge) (bool, error) {
			if strings.Contains(c.Key, "poison") {
				return false, store.ErrKey
			}
			return true, nil
		})
		for round := range 3 {
			link.set(false)
			r.admitted(3, "poison")
			for i := range 300 { // more than a call has
				r.admitted(3, fmt.Sprint("client-", i))
			}
			link.set(true)
			time.Sleep(2 * time.Second)
			before := link.posts.Load()
			time.Sleep(5 * time.Second)
			if n := link.posts.Load() - before; n != 0 {
				t.Errorf("%d calls for nothing", n)
			}
			for _, i := range []int{0, 150, 299} {
				x := request(fmt.Sprint("client-", i))
				if err := rigs[1].ask(x); err != nil {
					t.Fatal(err)
				}
				if left := 100 - 4*(round+1); x.Limits[0].Remaining != int64(left) {
					t.Errorf("client %d: %d left, want %d", i, x.Limits[0].Remaining, left)
				}
			}
		}
		if log := r.log.String(); strings.Count(log, "is not a limit's") != 1 || strings.Contains(log, "poison") {
			t.Error(log)
		}
	})
}

// atWork has n requests at work and returns how they end.
func atWork(t *testing.T, r *rig, n int) []func() {
	t.Helper()
	var all []func()
	for range n {
		x := request("acme")
		if err := r.ask(x); err != nil {
			t.Fatal(err)
		}
		all = append(all, func() { release(x) })
	}
	return all
}

func slotsOf(n int64) *config.RateLimit {
	return limited("concurrency", "", func(c *config.RateLimit) { c.Limit, c.Scope = pointer(n), "exact" })
}

// TestSlotsInDoubtAreRepaired has calls of which nobody knows what became of them.
func TestSlotsInDoubtAreRepaired(t *testing.T) {
	for _, done := range []bool{true, false} {
		for _, fail := range []int{1, 2, 7} {
			for _, keep := range []int64{0, 3} {
				t.Run(fmt.Sprintf("done %v, %d times, %d stay", done, fail, keep), func(t *testing.T) {
					bubble(t, func(t *testing.T) { repaired(t, done, fail, keep) })
				})
			}
		}
	}
}

func repaired(t *testing.T, done bool, fail int, keep int64) {
	m, rigs, links := gateways(t, 2, &config.File{}, slotsOf(8))
	link := links[0]
	all := atWork(t, rigs[0], int(keep)+1)
	atWork(t, rigs[1], 2)
	var n atomic.Int64
	link.endWith(func(store.Charge) (bool, error) {
		if int(n.Add(1)) <= fail {
			return done, errUnknown
		}
		return true, nil
	})
	if rigs[0].admitted(1, "acme") != 1 {
		t.Error("on_fault did not decide about a take that was late")
	}
	all[0]()
	began := time.Now()
	for int(n.Load()) <= fail || m.slotsHeld() != keep+2 {
		if time.Sleep(50 * time.Millisecond); time.Since(began) > time.Duration(fail+1)*time.Second {
			t.Fatalf("%d slots are held, want %d", m.slotsHeld(), keep+2)
		}
	}
	// What was given up is executed at last.
	m.mu.Lock()
	for key := range m.slots {
		link.slots(key, 1)
	}
	m.mu.Unlock()
	time.Sleep(2 * time.Second)
	if got := m.slotsHeld(); got != keep+2 {
		t.Errorf("%d slots are held behind a late call, want %d", got, keep+2)
	}
	// Nothing is repaired for ever.
	for _, end := range all[1:] {
		end()
	}
	time.Sleep(5 * time.Second)
	before := link.posts.Load()
	time.Sleep(5 * time.Second)
	p := rigs[0].e.poster
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := link.posts.Load() - before; n != 0 || len(p.slots) != 0 {
		t.Errorf("%d calls for nothing, %d keys are remembered", n, len(p.slots))
	}
}

// TestATakeDuringARepairIsCounted has a take begin between a repair's snapshot and its
// execution, and another give back.
func TestATakeDuringARepairIsCounted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m, rigs, links := gateways(t, 1, &config.File{}, slotsOf(10))
		r, link := rigs[0], links[0]
		all := atWork(t, r, 3)
		link.endWith(func(store.Charge) (bool, error) { link.end = nil; return true, errUnknown })
		var between atomic.Int64
		during := func(charges []store.Charge) {
			if charges[0].Whole && between.Add(1) <= 2 {
				all = append(all, atWork(t, r, 1)...)
				all[len(all)-2]()
			}
		}
		link.during.Store(&during)
		all[0]()
		time.Sleep(900 * time.Millisecond)
		if got := m.slotsHeld(); got != 2 || between.Load() < 2 {
			t.Errorf("%d slots are held, want 2; %d times a take came between", got, between.Load())
		}
	})
}

func TestSlotsAreCountedAgainWhenTheStoreHasForgottenThem(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m, rigs, links := gateways(t, 1, &config.File{}, slotsOf(4))
		atWork(t, rigs[0], 3)
		links[0].set(false)
		m.mu.Lock()
		clear(m.slots)
		m.mu.Unlock()
		links[0].set(true)
		time.Sleep(time.Second)
		if got := m.slotsHeld(); got != 3 {
			t.Errorf("%d slots are held, want 3", got)
		}
	})
}

func TestSlotsOfAKeyThatIsAnothers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m, rigs, links := gateways(t, 1, &config.File{}, slotsOf(4))
		all := atWork(t, rigs[0], 3)
		links[0].endWith(func(store.Charge) (bool, error) { return false, store.ErrKey })
		all[0]()
		time.Sleep(5 * time.Second)
		links[0].endWith(nil) // somebody has put it right
		time.Sleep(1500 * time.Millisecond)
		if got := m.slotsHeld(); got != 2 {
			t.Errorf("%d slots are held, want 2", got)
		}
	})
}

func TestOneBadLeaseFailsAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newMiddle(1)
		l := m.link("a")
		bad := &badLease{link: l}
		leased := scoped("leased", tokens("10000/s", 20000))
		leased.OnFault = "closed"
		r := newRig(t, Options{Shared: bad}, &config.File{}, leased)
		r.admitted(1, "poison") // a cold key needs no lease
		for range 2000 {
			time.Sleep(time.Millisecond)
			if n := r.admitted(2, "good"); n != 2 {
				t.Fatalf("%d of 2 admitted", n)
			}
			if n := r.admitted(1, "poison"); n != 0 {
				t.Fatal("admitted by a lease that nobody granted")
			}
		}
	})
}

// badLease is a store in which one client's keys are another's.
type badLease struct{ *link }

func (b *badLease) Take(ctx context.Context, charges []store.Charge, out []meter.Verdict) error {
	if strings.Contains(charges[0].Key, "poison") {
		return store.ErrKey
	}
	return b.link.Take(ctx, charges, out)
}

func (b *badLease) Settle(ctx context.Context, in []store.Settlement, out []store.Grant) error {
	err := b.link.Settle(ctx, in, out)
	for i := range in {
		if strings.Contains(in[i].Key, "poison") {
			out[i] = store.Grant{Err: store.ErrKey}
			err = errors.Join(err, store.ErrKey)
		}
	}
	return err
}

func TestWhatAgesIsNotGivenBackBesides(t *testing.T) {
	l, err := meter.New(meter.FixedWindow, 10, time.Minute, meter.Options{})
	if err != nil {
		t.Fatal(err)
	}
	at := begins.UnixNano()
	for wait, want := range map[time.Duration]int64{0: -5, 59 * time.Second: -5, time.Minute: 0} {
		if got := (owed{limit: &l, cost: -5, at: at}).aged(at + int64(wait)); got != want {
			t.Errorf("%d are given back after %v, want %d", got, wait, want)
		}
	}
}
