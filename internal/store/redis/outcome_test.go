package redis

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/limit/meter"
	"github.com/sluice-gateway/sluice/internal/store"
	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
)

// many are charges of one unit to n keys, in as many slots, with names of their own.
func many(l *meter.Limit, n int) (charges []store.Charge, out []error) {
	for i := range n {
		charges = append(charges, store.Charge{Key: fmt.Sprintf("k:{%d}", i), Limit: l, Cost: 1})
	}
	return charges, make([]error, n)
}

func TestAKeyThatFailsFailsAlone(t *testing.T) {
	server := redistest.Start(t)
	c := dial(t, faulty(), server.Addr())
	server.Do("RPUSH", "sluice:k:{7}", "x")           // another type
	server.Do("SET", "sluice:k:{40}", "not a number") // another's text
	server.Do("SET", "sluice:k:{50}:l", "x")          // another type beside it
	bucket := newLimit(t, meter.TokenBucket, 100, time.Hour)
	bucket.Capacity = 100
	for _, l := range []*meter.Limit{newLimit(t, meter.FixedWindow, 100, time.Hour), bucket} {
		for i := range 100 {
			if i != 7 && i != 40 {
				server.Do("DEL", fmt.Sprintf("sluice:k:{%d}", i))
			}
		}
		charges, out := many(l, 100)
		if err := c.Post(t.Context(), charges, out); !errors.Is(err, store.ErrKey) {
			t.Fatal(err)
		}
		in, grants := make([]store.Settlement, len(charges)), make([]store.Grant, len(charges))
		for i := range in {
			in[i] = store.Settlement{Key: charges[i].Key, Limit: l, Need: 1, Ask: 10}
		}
		if err := c.Settle(t.Context(), in, grants); !errors.Is(err, store.ErrKey) {
			t.Fatal(err)
		}
		for i := range out {
			bad := i == 7 || i == 40
			if errors.Is(out[i], store.ErrKey) != bad || !bad && out[i] != nil {
				t.Errorf("%d is posted: %v", i, out[i])
			}
			if bad = bad || i == 50; errors.Is(grants[i].Err, store.ErrKey) != bad || bad != (grants[i].Granted == 0) || !bad && grants[i].Level != 89 {
				t.Errorf("%d is settled: %+v", i, grants[i])
			}
		}
	}
	if !c.Up() {
		t.Error("single keys opened the breaker")
	}
}

// TestWhatIsSurelyNotDone has posts that the server refuses, and such as it gets and
// does not answer.
func TestWhatIsSurelyNotDone(t *testing.T) {
	server := redistest.Start(t)
	c := dial(t, faulty(), server.Addr())
	l := newLimit(t, meter.FixedWindow, 100, time.Hour)
	charges, out := many(l, 40)
	check := func(what string, sure bool) {
		t.Helper()
		err := c.Post(context.Background(), charges, out)
		if err == nil || errors.Is(err, store.ErrNotDone) != sure || errors.Is(err, store.ErrKey) {
			t.Errorf("%s: %v", what, err)
		}
		for i, err := range out {
			if !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrNotDone) != sure || errors.Is(err, store.ErrKey) {
				t.Fatalf("%s: %d: %v", what, i, err)
			}
		}
		if n := len(server.Do("KEYS", "sluice:k:*").([]any)); sure && n > 0 {
			t.Errorf("%s: %d were done", what, n)
		}
	}
	server.Do("CONFIG", "SET", "maxmemory", "1")
	check("OOM", true)
	server.Do("CONFIG", "SET", "maxmemory", "0")
	server.Do("REPLICAOF", "127.0.0.1", "1")
	check("READONLY", true)
	server.Do("REPLICAOF", "NO", "ONE")
	server.Do("ACL", "SETUSER", "default", "-evalsha")
	check("NOPERM", true)
	down(t, pushed(t, c, charges))
	check("an open breaker", true)
	server.Do("ACL", "SETUSER", "default", "+evalsha")
	up(t, c)
	server.Stop()
	if err := c.Post(t.Context(), charges, out); errors.Is(err, store.ErrNotDone) || out[3] != err {
		t.Errorf("frozen: %v, %v", err, out[3])
	}
	server.Cont()
	within(t, time.Second, "executed late", func() bool { return len(server.Do("KEYS", "sluice:k:*").([]any)) == 40 })
	server.Kill()
	within(t, recovery, "not connected", func() bool {
		err := c.Post(t.Context(), charges, out)
		return errors.Is(err, store.ErrNotDone) && !errors.Is(err, errOpen)
	})
}

// pushed posts until the breaker is open.
func pushed(t *testing.T, c *Client, charges []store.Charge) *Client {
	t.Helper()
	within(t, time.Second, "down", func() bool {
		_ = c.Post(context.Background(), charges, make([]error, len(charges)))
		return !c.Up()
	})
	return c
}

func TestWholeIsCountedOnce(t *testing.T) {
	server := redistest.Start(t)
	c := dial(t, faulty(), server.Addr())
	l := newLimit(t, meter.Concurrency, 10, 0)
	mustTake(t, c, "k", l)
	for _, n := range []int64{3, 3, 5, 0, 2} {
		if err := post(c, store.Charge{Key: "k", Limit: l, Cost: n, Whole: true}); err != nil {
			t.Fatal(err)
		}
		if v := mustTake(t, c, "k", l); v.Remaining != 9-n {
			t.Fatalf("%d are held: %+v", n, v)
		}
	}
}

func TestAClusterPostsWhatItCan(t *testing.T) {
	cluster := redistest.StartCluster(t)
	c := dial(t, faulty(), cluster.Addrs()...)
	l := newLimit(t, meter.FixedWindow, 100, time.Hour)
	charges, out := many(l, 12)
	lost := cluster.Owner(charges[0].Key)
	lost.Do("ACL", "SETUSER", "default", "-evalsha")
	if err := c.Post(t.Context(), charges, out); !errors.Is(err, store.ErrNotDone) {
		t.Fatal(err)
	}
	done := 0
	for i := range charges {
		bad := cluster.Owner(charges[i].Key) == lost
		if errors.Is(out[i], store.ErrNotDone) != bad || !bad && out[i] != nil {
			t.Errorf("%d: %v", i, out[i])
		}
		if !bad {
			done++
		}
	}
	if done == 0 || done == len(charges) {
		t.Errorf("%d of %d were done", done, len(charges))
	}
}
