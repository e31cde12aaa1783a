package limit

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/store/redis"
	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
)

// onRedis is a rig on a real server, that a client of its own asks.
func onRedis(t *testing.T, server *redistest.Server, gateway string, list ...any) (*rig, *redis.Client) {
	t.Helper()
	c, err := redis.Dial(redis.Options{Gateway: gateway, Config: &config.Redis{
		Addresses: []string{server.Addr()}, Prefix: "sluice:", Timeout: config.Duration{Duration: 150 * time.Millisecond}, // tests share their cores
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
		defer stop()
		if err := c.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	eventually(t, 5*time.Second, "up", c.Up)
	return newRig(t, Options{Shared: c}, &config.File{}, list...), c
}

// eventually waits until f holds.
func eventually(t *testing.T, d time.Duration, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not %s within %s", what, d)
		}
	}
}

// keysOf are the keys in Redis that have a word in their name.
func keysOf(server *redistest.Server, word string) (all []string) {
	for _, key := range server.Do("KEYS", "*"+word+"*").([]any) {
		all = append(all, key.(string))
	}
	return all
}

// TestAFrozenRedisGivesSlotsBackOnce freezes Redis while requests end and others come.
// What was sent meanwhile is executed late.
func TestAFrozenRedisGivesSlotsBackOnce(t *testing.T) {
	server := redistest.Start(t)
	r, c := onRedis(t, server, "g0", slotsOf(4))
	for round := range 2 {
		all := atWork(t, r, 4)
		if r.admitted(1, "acme") != 0 {
			t.Fatal("5 of 4 at work")
		}
		server.Stop()
		all[0]() // while calls are made
		all[1]()
		r.admitted(1, "acme") // on_fault decides, or its take is executed late
		if round == 1 {
			eventually(t, 5*time.Second, "down", func() bool { r.admitted(1, "acme"); return !c.Up() })
		}
		all[2]()
		server.Cont()
		eventually(t, 3*time.Second, "up", c.Up)
		// One is at work. It is right within two seconds, and stays right.
		eventually(t, 2*time.Second, "counted right", func() bool { return unitsOf(t, server, "g0") == 1 })
		time.Sleep(2200 * time.Millisecond)
		more := 0
		for range 8 {
			x := request("acme")
			if r.ask(x) == nil {
				more++
				all = append(all, func() { release(x) })
			}
		}
		if more != 3 {
			t.Errorf("round %d: 1 and %d at work, want 4", round, more)
		}
		for _, end := range all[3:] {
			end()
		}
		eventually(t, 2*time.Second, "given back", func() bool { return len(keysOf(server, "acme")) == 0 })
	}
}

// unitsOf is what Redis counts for a gateway, of the one key that there is.
func unitsOf(t *testing.T, server *redistest.Server, gateway string) int64 {
	t.Helper()
	keys := keysOf(server, "acme")
	if len(keys) == 0 {
		return 0
	}
	// The units are a double; a script reads it.
	n := server.Do("EVAL", `local v = redis.call('HGET', KEYS[1], ARGV[1])
		return v and tostring((struct.unpack('<d', v))) or '0'`, "1", keys[0], gateway).(string)
	units, err := strconv.ParseInt(n, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return units
}

// TestAKeyOfAnotherTypeDoesNotMultiplyTheOthers posts what was counted here with a key
// among it that Redis cannot count at.
func TestAKeyOfAnotherTypeDoesNotMultiplyTheOthers(t *testing.T) {
	server := redistest.Start(t)
	window := scoped("exact", limited("fixed_window", "1000/h", nil))
	r, c := onRedis(t, server, "g0", window)
	r.admitted(1, "poison")
	key := keysOf(server, "poison")[0]
	server.Do("DEL", key)
	server.Do("RPUSH", key, "x")

	server.Stop()
	eventually(t, 5*time.Second, "down", func() bool { r.admitted(1, "poison"); return !c.Up() })
	for i := range 40 { // in more than one script
		if n := r.admitted(3, fmt.Sprint("client-", i)); n != 3 {
			t.Fatalf("%d of 3 admitted", n)
		}
	}
	server.Cont()
	eventually(t, 3*time.Second, "up", c.Up)
	eventually(t, 3*time.Second, "posted", func() bool { return len(keysOf(server, "client-")) == 40 })
	used := map[string]any{}
	for _, key := range keysOf(server, "client-") {
		used[key] = server.Do("GET", key)
	}
	before := c.Stats().Calls[redis.OpPost]
	time.Sleep(time.Second)
	if after := c.Stats().Calls[redis.OpPost]; after != before {
		t.Errorf("posts go on: %v, were %v", after, before)
	}
	for key, was := range used {
		if now := server.Do("GET", key); now != was {
			t.Errorf("%s: %x, was %x", key, now, was)
		}
	}
	for _, i := range []int{0, 20, 39} {
		x := request(fmt.Sprint("client-", i))
		if err := r.ask(x); err != nil || x.Limits[0].Remaining != 996 {
			t.Errorf("client %d: %v, %d left, want 996", i, err, x.Limits[0].Remaining)
		}
	}
	// Posting goes on, also for the key when it is put right.
	server.Do("DEL", key)
	if n := r.admitted(1, "poison"); n != 1 || len(keysOf(server, "poison")) != 1 {
		t.Error("the key does not count when it is put right")
	}
	if log := r.log.String(); strings.Count(log, "is not a limit's") != 1 {
		t.Error(log)
	}
}
