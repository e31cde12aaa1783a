package redis

import (
	"context"
	"flag"
	"os"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/internal/config"
)

// histories is how many random histories each script is compared with its twin
// over: go test ./internal/store/redis -run Twin -histories 100000
var histories = flag.Int("histories", 2000, "random histories for each script")

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("rapid.checks", strconv.Itoa(*histories)); err != nil {
		panic(err)
	}
	code := m.Run()
	if code == 0 {
		// Behind a change of a cluster's nodes the library leaves a timer of up to five
		// seconds, in a goroutine of its own.
		end := time.Now().Add(6 * time.Second)
		err := goleak.Find()
		for ; err != nil && time.Now().Before(end); err = goleak.Find() {
		}
		if err != nil {
			os.Stderr.WriteString(err.Error())
			code = 1
		}
	}
	os.Exit(code)
}

// dial makes a client of a server that answers.
func dial(t testing.TB, o Options, addrs ...string) *Client {
	t.Helper()
	if o.Config == nil {
		o.Config = &config.Redis{}
	}
	o.Config.Addresses = addrs
	if o.Config.Prefix == "" {
		o.Config.Prefix = "sluice:"
	}
	if o.Config.Timeout.Duration == 0 {
		o.Config.Timeout.Duration = 50 * time.Millisecond // tests share their cores
	}
	if o.Gateway == "" {
		o.Gateway = "g0"
	}
	c, err := Dial(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	within(t, 5*time.Second, "up", c.Up)
	return c
}

// within waits until f holds.
func within(t testing.TB, d time.Duration, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not %s within %s", what, d)
		}
	}
}
