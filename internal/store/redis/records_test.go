package redis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/store"
	"github.com/sluice-gateway/sluice/internal/store/recordtest"
	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
)

func TestRecordsAgainstAMap(t *testing.T) {
	server := redistest.Start(t)
	client := dial(t, Options{}, server.Addr()).client.Load()
	n := 0
	recordtest.Check(t, func(now func() time.Time) store.Records {
		n++
		if n%100 == 0 {
			server.Do("FLUSHALL")
		}
		// One without a heartbeat, that changes its time with every step.
		c := &Client{prefix: fmt.Sprintf("sluice%d:", n), now: func() string { return number(now().UnixMicro()) }}
		c.client.Store(client)
		c.breaker.up.Store(true)
		return c
	})
}

// put makes one record whatever there is.
func put(t testing.TB, r store.Records, key, value string) int64 {
	t.Helper()
	v, err := r.Apply(context.Background(), []store.Change{{Key: key, Value: []byte(value), If: store.Always}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func list(t testing.TB, r store.Records, prefix string) map[string]string {
	t.Helper()
	got := map[string]string{}
	if err := r.All(t.Context(), prefix, func(r store.Record) bool { got[r.Key] = string(r.Value); return true }); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestManyRecordsComeInPages(t *testing.T) {
	c := dial(t, Options{}, redistest.Start(t).Addr())
	want := map[string]string{}
	var changes []store.Change
	for i := range 900 {
		key := fmt.Sprintf("client/%04d", i)
		want[key] = key
		changes = append(changes, store.Change{Key: key, Value: []byte(key), If: 0})
	}
	for part := range slices.Chunk(changes, store.MaxChanges) {
		if _, err := c.Apply(t.Context(), part); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 12 { // above the size of a page
		key := fmt.Sprintf("client/big%d", i)
		want[key] = strings.Repeat("x", store.MaxRecordValue)
		put(t, c, key, want[key])
	}
	put(t, c, "clienu/", "behind it")
	put(t, c, "client", "before it")
	got := list(t, c, "client/")
	for key, value := range want {
		if got[key] != value {
			t.Fatalf("%s: %.20q", key, got[key])
		}
	}
	if len(got) != len(want) || len(list(t, c, "")) != len(want)+2 {
		t.Errorf("%d records, want %d", len(got), len(want))
	}
	n := 0
	if err := c.All(t.Context(), "", func(store.Record) bool { n++; return n < 300 }); err != nil || n != 300 {
		t.Error(n, err)
	}
}

func TestOfManyWhoDemandAVersionOneWins(t *testing.T) {
	server := redistest.Start(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	seen := map[int64]bool{}
	for i := range 4 {
		c := dial(t, Options{Gateway: fmt.Sprint(i)}, server.Addr())
		wg.Go(func() {
			for range 100 {
				r, err := c.Get(t.Context(), "family/1")
				if err != nil && !errors.Is(err, store.ErrNoRecord) {
					t.Error(err)
					return
				}
				v, err := c.Apply(t.Context(), []store.Change{{Key: "family/1", Value: append(r.Value, 'x'), If: r.Version}})
				mu.Lock()
				switch {
				case err == nil && !seen[v]:
					won++
					seen[v] = true
				case !errors.Is(err, store.ErrConflict):
					t.Error(v, err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	got := list(t, dial(t, Options{}, server.Addr()), "")["family/1"]
	if len(got) != won || won < 100 {
		t.Errorf("%d changes of %d are kept", len(got), won)
	}
	t.Logf("%d of 400 have won", won)
}

// heard is what a watcher was told.
type heard struct {
	mu  sync.Mutex
	at  map[string]time.Time
	any int
}

func watch(c *Client) *heard {
	h := &heard{at: map[string]time.Time{}}
	c.Watch(func(keys []string) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if keys == nil {
			h.any++
		}
		for _, k := range keys {
			h.at[k] = time.Now()
		}
	})
	return h
}

func (h *heard) of(key string) (time.Time, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at, ok := h.at[key]
	return at, ok
}

func (h *heard) all() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.any
}

// tell has n records changed, one after the other, and returns how long it took
// until all watchers knew, sorted.
func tell(t *testing.T, from *Client, watchers []*heard, n int) []time.Duration {
	t.Helper()
	var took []time.Duration
	for i := range n {
		key := fmt.Sprintf("key/%d-%d", time.Now().UnixNano(), i)
		put(t, from, key, "revoked")
		begun := time.Now()
		for j, h := range watchers {
			within(t, 5*time.Second, fmt.Sprintf("heard by %d", j), func() bool { _, ok := h.of(key); return ok })
			at, _ := h.of(key)
			took = append(took, at.Sub(begun))
		}
	}
	slices.Sort(took)
	return took
}

func TestFourGatewaysHearOfAChangeWithinASecond(t *testing.T) {
	for name, test := range map[string]struct {
		start func(t *testing.T) (o Options, addrs []string)
	}{
		"single": {func(t *testing.T) (Options, []string) { return Options{}, []string{redistest.Start(t).Addr()} }},
		"sentinel": {func(t *testing.T) (Options, []string) {
			return Options{Config: &config.Redis{Sentinel: redistest.MasterName}}, redistest.StartSentinel(t).Addrs()
		}},
		"cluster": {func(t *testing.T) (Options, []string) { return Options{}, redistest.StartCluster(t).Addrs() }},
		"without messages": {func(t *testing.T) (Options, []string) {
			s := redistest.Start(t)
			s.Do("ACL", "SETUSER", "default", "resetchannels", "-subscribe", "-publish")
			return Options{}, []string{s.Addr()}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			o, addrs := test.start(t)
			var clients []*Client
			var watchers []*heard
			for i := range 4 {
				one := o
				if o.Config != nil {
					copied := *o.Config
					one.Config = &copied
				}
				one.Gateway = fmt.Sprint(i)
				c := dial(t, one, addrs...)
				clients, watchers = append(clients, c), append(watchers, watch(c))
			}
			for _, h := range watchers {
				within(t, 5*time.Second, "told of the beginning", func() bool { return h.all() > 0 })
			}
			took := tell(t, clients[0], watchers, 20)
			t.Logf("heard after %v (median), %v (worst of %d)", took[len(took)/2], took[len(took)-1], len(took))
			if took[len(took)-1] > time.Second {
				t.Errorf("a gateway heard of a change only after %v", took[len(took)-1])
			}
		})
	}
}

func TestAChangeIsHeardOfThoughTheConnectionIsLost(t *testing.T) {
	server := redistest.Start(t)
	writer, c := dial(t, Options{}, server.Addr()), dial(t, Options{Gateway: "reader"}, server.Addr())
	h := watch(c)
	within(t, 5*time.Second, "told of the beginning", func() bool { return h.all() > 0 })
	for i := range 5 {
		subscribed := func() bool { return server.Do("PUBSUB", "NUMSUB", c.recordKeys()[0]).([]any)[1] == int64(1) }
		within(t, 5*time.Second, "subscribed", subscribed)
		told := h.all()
		for _, line := range strings.Split(server.Do("CLIENT", "LIST").(string), "\n") {
			if strings.Contains(line, "name=sluice-reader") {
				server.Do("CLIENT", "KILL", "ID", strings.TrimPrefix(strings.Fields(line)[0], "id="))
			}
		}
		key := fmt.Sprintf("key/%d", i)
		put(t, writer, key, "revoked")
		within(t, time.Second, "heard", func() bool { _, ok := h.of(key); return ok || h.all() > told })
	}
}

func TestAWatcherEndsThoughRedisIsFrozen(t *testing.T) {
	server := redistest.Start(t)
	c := dial(t, Options{}, server.Addr())
	h := watch(c)
	within(t, 5*time.Second, "told of the beginning", func() bool { return h.all() > 0 })
	server.Stop()
	defer server.Cont()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := c.Close(ctx); err != nil {
		t.Error(err)
	}
	if _, err := c.Apply(t.Context(), []store.Change{{Key: "key/1", If: store.Always}}); !errors.Is(err, store.ErrNotDone) {
		t.Error(err)
	}
}

func TestRecordsWhileRedisIsAway(t *testing.T) {
	server := redistest.Start(t)
	c := dial(t, Options{}, server.Addr())
	h := watch(c)
	within(t, 2*time.Second, "told of the beginning", func() bool { return h.all() == 1 })
	put(t, c, "key/1", "live")
	within(t, 2*time.Second, "heard", func() bool { _, ok := h.of("key/1"); return ok })

	server.Stop()
	begun := time.Now()
	_, err := c.Apply(t.Context(), []store.Change{{Key: "key/1", If: store.Always}})
	if took := time.Since(begun); !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrNotDone) || took > 4*time.Second {
		t.Errorf("frozen: %v after %v", err, took)
	}
	within(t, 10*time.Second, "down", func() bool { _, _ = c.Get(t.Context(), "key/1"); return !c.Up() })
	begun = time.Now()
	_, err = c.Apply(t.Context(), []store.Change{{Key: "key/1", If: store.Always}})
	if took := time.Since(begun); !errors.Is(err, store.ErrNotDone) || took > 50*time.Millisecond {
		t.Errorf("breaker open: %v after %v", err, took)
	}
	server.Cont()
	within(t, 5*time.Second, "told that anything may have changed", func() bool { return h.all() > 1 })

	server.Kill()
	within(t, 5*time.Second, "an error", func() bool {
		_, err = c.Get(t.Context(), "key/1")
		return errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrNoRecord)
	})
	if err := c.All(t.Context(), "", func(store.Record) bool { return true }); !errors.Is(err, store.ErrUnavailable) {
		t.Error(err)
	}
	told := h.all()
	server.Restart() // empty
	within(t, 5*time.Second, "told that anything may have changed", func() bool { return h.all() > told })
	within(t, 5*time.Second, "seen that the records are others", func() bool { return c.Regressed() == 1 })
}

// keep copies the records as they are, to be put back.
func keep(t *testing.T, server *redistest.Server, c *Client) (putBack func()) {
	t.Helper()
	kept := map[string]string{}
	for _, key := range c.recordKeys() {
		if text, ok := server.Do("DUMP", key).(string); ok {
			kept[key] = text
		}
	}
	return func() {
		server.Do(append([]string{"DEL"}, c.recordKeys()...)...)
		for key, text := range kept {
			server.Do("RESTORE", key, "0", text)
		}
	}
}

func TestWhatIsToldOfChanges(t *testing.T) {
	server := redistest.Start(t)
	c := dial(t, Options{}, server.Addr())
	since := func(known news) news {
		t.Helper()
		n, err := c.changesSince(t.Context(), known)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	check := func(what string, known news, state byte, keys ...string) news {
		t.Helper()
		n := since(known)
		if n.state != state || !slices.Equal(distinct(n.keys), keys) {
			t.Errorf("%s: state %d and %q, want %d and %q", what, n.state, n.keys, state, keys)
		}
		return n
	}
	none := check("nothing is there", news{}, newsKeys)
	put(t, c, "a/1", "1")
	one := check("the first one", none, newsKeys, "a/1")
	check("nothing new", one, newsKeys)
	old := keep(t, server, c)
	put(t, c, "a/2/x", "2")
	put(t, c, "a/1", "3")
	put(t, c, "a/1", "4")
	four := check("three changes of two records", one, newsKeys, "a/1", "a/2/x")

	old()
	check("older ones were put in their place", four, newsOther)
	check("who did not see more finds them as they were", one, newsKeys)
	put(t, c, "a/3", "5")
	check("older ones, changed since", four, newsOther)
	check("who did not see more", one, newsKeys, "a/3")

	server.Do("FLUSHALL")
	check("none are there", four, newsOther)
	put(t, c, "a/1", "1")
	again := check("they begin anew", four, newsOther)
	if again.version <= four.version {
		t.Errorf("version %d is given again, %d was there", again.version, four.version)
	}

	for i := range 41 { // more than is kept
		var changes []store.Change
		for j := range store.MaxChanges {
			changes = append(changes, store.Change{Key: fmt.Sprintf("once/%d/%d", i, j), Value: []byte{}, If: 0, Expires: time.Now().Add(time.Hour)})
		}
		if _, err := c.Apply(t.Context(), changes); err != nil {
			t.Fatal(err)
		}
	}
	if n := server.Do("ZCARD", c.recordKeys()[3]).(int64); n > 10_000 {
		t.Errorf("%d changes are kept", n)
	}
	check("too much to be remembered", again, newsAny)
	last := since(again)
	put(t, c, "a/9", "9")
	check("one more", last, newsKeys, "a/9")
}

func TestRecordsOfWhichAPartIsMissingAreNotRead(t *testing.T) {
	server := redistest.Start(t)
	c := dial(t, Options{}, server.Addr())
	put(t, c, "key/1", "revoked")
	for i, key := range c.recordKeys()[:2] {
		putBack := keep(t, server, c)
		server.Do("DEL", key)
		_, err := c.Get(t.Context(), "key/1")
		if !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrNoRecord) || !strings.Contains(err.Error(), "records are damaged") {
			t.Errorf("without key %d: %v", i, err)
		}
		for range 30 {
			if _, err := c.Apply(t.Context(), []store.Change{{Key: "key/2", Value: []byte{}, If: 0}}); !errors.Is(err, store.ErrNotDone) {
				t.Errorf("without key %d: %v", i, err)
			}
		}
		putBack()
	}
	if !c.Up() {
		t.Error("what is wrong with records stopped all calls")
	}
	if got := list(t, c, ""); len(got) != 1 || got["key/1"] != "revoked" {
		t.Error(got)
	}
}

func TestRecordsOverAFailover(t *testing.T) {
	s := redistest.StartSentinel(t)
	o := Options{Config: &config.Redis{Sentinel: redistest.MasterName}}
	c := dial(t, o, s.Addrs()...)
	h := watch(c)
	within(t, 5*time.Second, "told of the beginning", func() bool { return h.all() > 0 })
	first := put(t, c, "key/1", "revoked")
	s.Failover()
	var r store.Record
	within(t, 10*time.Second, "working", func() bool {
		var err error
		if _, err = c.Apply(t.Context(), []store.Change{{Key: "key/2", Value: []byte("live"), If: store.Always}}); err != nil {
			return false
		}
		r, err = c.Get(t.Context(), "key/1")
		return err == nil
	})
	if string(r.Value) != "revoked" || r.Version != first {
		t.Errorf("%+v", r)
	}
	within(t, 5*time.Second, "heard", func() bool { _, ok := h.of("key/2"); return ok || h.all() > 1 })
	key := "key/3"
	put(t, c, key, "live")
	within(t, time.Second, "heard on the new master", func() bool { _, ok := h.of(key); return ok })
}

func TestRecordsMoveWithTheirSlot(t *testing.T) {
	cluster := redistest.StartCluster(t)
	c := dial(t, Options{}, cluster.Addrs()...)
	h := watch(c)
	within(t, 5*time.Second, "told of the beginning", func() bool { return h.all() > 0 })
	put(t, c, "key/1", "live")
	cluster.MoveSlot(c.recordKeys()[0])
	within(t, 5*time.Second, "working", func() bool {
		_, err := c.Apply(t.Context(), []store.Change{{Key: "key/2", Value: []byte("live"), If: store.Always}})
		return err == nil
	})
	if got := list(t, c, "key/"); len(got) != 2 {
		t.Error(got)
	}
	within(t, 2*time.Second, "heard", func() bool { _, ok := h.of("key/2"); return ok || h.all() > 1 })
}

// TestRecordsOutliveRedis kills a Redis that keeps a log on disk while it is written
// to: what was acknowledged is there when it is back.
func TestRecordsOutliveRedis(t *testing.T) {
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	c := dial(t, Options{}, server.Addr())
	acknowledged := 0
	for n := range 10 {
		over := make(chan int)
		go func() {
			i := acknowledged
			for ; ; i++ {
				change := []store.Change{{Key: "key/1", Value: fmt.Append(nil, i+1), If: store.Always}, {Key: fmt.Sprintf("key/of/%d", i+1), Value: []byte("x"), If: store.Always}}
				if _, err := c.Apply(context.Background(), change); err != nil {
					break
				}
			}
			over <- i
		}()
		within(t, 5*time.Second, "more changes", func() bool { r, err := c.Get(t.Context(), "key/1"); return err == nil && r.Version%7 == int64(n%7) })
		server.Kill()
		acknowledged = <-over
		server.Restart()
		within(t, 5*time.Second, "up", func() bool { _, err := c.Get(t.Context(), "key/1"); return err == nil })
		got := list(t, c, "key/")
		if one := fmt.Sprint(acknowledged + 1); got["key/1"] == one && got["key/of/"+one] != "" {
			acknowledged++ // it was done, and the answer was lost
		}
		if got["key/1"] != fmt.Sprint(acknowledged) || len(got) != acknowledged+1 {
			t.Fatalf("kill %d: %s and %d records, %d were acknowledged", n, got["key/1"], len(got), acknowledged)
		}
	}
	if acknowledged < 10 {
		t.Errorf("only %d changes", acknowledged)
	}
	t.Logf("%d changes", acknowledged)
}

func TestARecordKeyOfAnotherTypeIsSeenBeforeAnythingIsWritten(t *testing.T) {
	server := redistest.Start(t)
	c := dial(t, Options{}, server.Addr())
	put(t, c, "key/1", "live")
	for i, key := range c.recordKeys() {
		putBack := keep(t, server, c)
		before := func() string {
			return fmt.Sprint(server.Do("DUMP", c.recordKeys()[(i+1)%5]), server.Do("DUMP", c.recordKeys()[(i+2)%5]))
		}
		server.Do("SET", key, "something else")
		want := before()
		_, err := c.Apply(t.Context(), []store.Change{{Key: "key/2", Value: []byte{}, If: store.Always, Expires: time.Now().Add(time.Hour)}})
		if !errors.Is(err, store.ErrNotDone) || before() != want {
			t.Errorf("key %d: %v", i, err)
		}
		putBack()
	}
	if got := list(t, c, ""); len(got) != 1 {
		t.Error(got)
	}
}

func TestAnApplyThatMayNotIsNotDone(t *testing.T) {
	server := redistest.Start(t)
	c := dial(t, Options{}, server.Addr())
	put(t, c, "key/1", "live")
	want := server.Do("HGETALL", c.recordKeys()[4])
	for _, right := range []string{"hset", "hget", "zrange", "hlen"} {
		server.Do("ACL", "SETUSER", "default", "-"+right)
		for range 5 {
			_, err := c.Apply(t.Context(), []store.Change{{Key: "key/2", Value: []byte("live"), If: store.Always}})
			if !errors.Is(err, store.ErrNotDone) || !hopeless(err) {
				t.Errorf("without %s: %v", right, err)
			}
		}
		server.Do("ACL", "SETUSER", "default", "+"+right)
	}
	if c.Stats().Opened > 0 {
		t.Error("a right that records need stopped all calls")
	}
	if got := server.Do("HGETALL", c.recordKeys()[4]); fmt.Sprint(got) != fmt.Sprint(want) || len(list(t, c, "")) != 1 {
		t.Errorf("%v, was %v", got, want)
	}
}

// TestLimitsGoOnWithoutTheRightsOfRecords: who has given rights for limits alone does
// not lose these.
func TestLimitsGoOnWithoutTheRightsOfRecords(t *testing.T) {
	server := redistest.Start(t)
	server.Do("ACL", "SETUSER", "default", "-hlen", "-zrange", "-zcount", "-publish", "-subscribe", "resetchannels")
	var log bytes.Buffer
	c := dial(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, server.Addr())
	h := watch(c)
	within(t, 10*time.Second, "asked in vain", func() bool { return c.Stats().Calls[OpRecords][Failed] > 5 })
	if s := c.Stats(); s.Opened > 0 || h.all() > 0 {
		t.Errorf("%+v", s)
	}
	server.Do("ACL", "SETUSER", "default", "+hlen", "+zrange", "+zcount")
	within(t, 2*time.Second, "told of the beginning", func() bool { return h.all() == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := c.Close(ctx); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "records in redis cannot be read"); n != 1 {
		t.Errorf("said %d times: %s", n, log.String())
	}
}

func TestWhatNoStoreTakes(t *testing.T) {
	c := dial(t, Options{}, redistest.Start(t).Addr())
	big := bytes.Repeat([]byte("x"), store.MaxRecordValue+1)
	for want, changes := range map[string][]store.Change{
		"needs a key":       {{Key: "", If: store.Always}},
		"at most 512":       {{Key: strings.Repeat("k", 513), If: store.Always}},
		"at most 65536":     {{Key: "a/b", Value: big, If: store.Always}},
		"twice at once":     {{Key: "a/b", If: store.Always}, {Key: "a/b", If: store.Always}},
		"-2 is no version":  {{Key: "a/b", If: -2}},
		"at most 256":       make([]store.Change, 257),
		"bytes of changes ": slices.Repeat([]store.Change{{Key: "a/b", Value: big[1:], If: store.Always}}, 17),
	} {
		for i := range changes {
			if len(changes) == 17 {
				changes[i].Key += fmt.Sprint(i)
			}
		}
		if _, err := c.Apply(t.Context(), changes); err == nil || errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
