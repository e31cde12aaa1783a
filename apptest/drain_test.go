package apptest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/gatetest"
)

const drainConfig = `
listeners: [{name: plain, address: "@PLAIN@"}]
admin: {address: "@ADMIN@"}
limits: {drain_delay: %s, drain_timeout: %s}
log: {access: {output: none}}
upstreams: {o: {targets: ["http://@ORIGIN@"]}}
routes: [{name: all, path: "/{rest...}", upstream: o}]
`

func rounds(short, full int) int {
	if *long {
		return full
	}
	return short
}

// TestDrainLosesNothing stops a gateway under load as an orchestrator does:
// behind a balancer that looks at /readyz and sends nobody there any more once
// that says 503. Not one request may fail.
func TestDrainLosesNothing(t *testing.T) {
	t.Parallel()
	for range rounds(4, 100) {
		e := newEcho(t)
		g := start(t, setup{config: fmt.Sprintf(drainConfig, "300ms", "10s"), vars: map[string]string{"ORIGIN": e.addr()}})
		var unready atomic.Bool
		load := newCrowd(t)
		load.add(8, func(_ int, k *caller) (bool, error) { // keep-alive, told to go by Connection: close
			a, err := k.call("GET", "/status/200", "", "")
			return err == nil && !a.close, wholly(a, err)
		}, g.addr("PLAIN"))
		load.add(4, func(_ int, k *caller) (bool, error) { // a connection for each request
			if unready.Load() {
				return false, nil
			}
			a, err := k.call("POST", "/status/200", "", "body")
			k.hangUp()
			return err == nil, wholly(a, err)
		}, g.addr("PLAIN"))
		h2 := gatetest.NewClient(gatetest.Drivers[3], g.addr("PLAIN"), nil)
		load.add(4, func(int, *caller) (bool, error) {
			if unready.Load() {
				return false, nil
			}
			r, err := h2.Do(context.Background(), gatetest.Message{Method: "POST", Host: "a.test", Target: "/status/200", Body: "body"})
			if err != nil {
				return false, err
			}
			return true, wholly(&answer{status: r.Status, body: r.Body}, nil)
		}, "")
		var held sync.WaitGroup // requests that are at work all through the drain delay
		for i := range 8 {
			held.Go(func() {
				k := &caller{addr: g.addr("PLAIN")}
				defer k.hangUp()
				target, want := "/gate/drain", "second half"
				if i%2 == 0 {
					target, want = "/gate/drain?head", "first half, second half"
				}
				if a, err := k.call("GET", target, "X-Case: held\r\n", ""); err != nil || a.body != want {
					t.Errorf("held request: %v, %v", a, err)
				}
			})
		}
		eventually(t, 10*time.Second, func() error {
			if e.count("held") < 8 {
				return errNotYet
			}
			return nil
		})
		load.reach(200)
		g.signal(syscall.SIGTERM)
		eventually(t, 5*time.Second, func() error {
			status, _, err := g.adminGet("/readyz")
			if err != nil {
				return stop{err}
			}
			if status != http.StatusServiceUnavailable {
				return fmt.Errorf("readyz says %d", status)
			}
			return nil
		})
		unready.Store(true)
		load.wg.Wait() // all leave by themselves: none is cut off, none is kept
		if g.hasEnded() {
			t.Error("the gateway ended with requests at work")
		}
		close(e.opened("drain"))
		held.Wait()
		h2.CloseIdleConnections()
		g.waitExit(10 * time.Second)
		load.report()
	}
}

func wholly(a *answer, err error) error {
	switch {
	case err != nil:
		return err
	case a.status != 200 || a.body != "origin says 200":
		return fmt.Errorf("status %d, %s", a.status, a.body)
	}
	return nil
}

// TestDrainWithoutDelay stops a gateway under load at once. A client may then
// find its connection closed under a request (RFC 9112 §9.3.1), but what has
// reached the origin is answered.
func TestDrainWithoutDelay(t *testing.T) {
	t.Parallel()
	for range rounds(4, 100) {
		o := gatetest.NewOrigin(t, gatetest.Answer(func(s *gatetest.Seen) string { return gatetest.Text("took " + s.Header.Get("X-Unique")) }))
		g := start(t, setup{config: fmt.Sprintf(drainConfig, "0s", "10s"), vars: map[string]string{"ORIGIN": o.Addr}})
		var serial atomic.Int64
		var mu sync.Mutex
		unanswered := map[string]error{}
		load := newCrowd(t)
		load.add(12, func(worker int, k *caller) (bool, error) {
			id := fmt.Sprint(serial.Add(1))
			a, err := k.call("POST", "/x", "X-Unique: "+id+"\r\n", "body")
			if worker%2 == 0 {
				k.hangUp()
			}
			if err != nil {
				mu.Lock()
				unanswered[id] = err
				mu.Unlock()
				return !errors.Is(err, errDial), nil
			}
			if a.status != 200 || a.body != "took "+id {
				return false, fmt.Errorf("status %d, %s", a.status, a.body)
			}
			return true, nil
		}, g.addr("PLAIN"))
		load.reach(300)
		g.signal(syscall.SIGTERM)
		g.waitExit(15 * time.Second)
		load.end()
		for _, s := range o.Requests() {
			if err := unanswered[s.Header.Get("X-Unique")]; err != nil {
				t.Errorf("request %s reached the origin and had no answer: %v", s.Header.Get("X-Unique"), err)
			}
		}
		o.Stop()
	}
}

// TestDrainTimeout ends a gateway whose requests never end.
func TestDrainTimeout(t *testing.T) {
	t.Parallel()
	e := newEcho(t)
	g := start(t, setup{config: fmt.Sprintf(drainConfig, "0s", "500ms"), vars: map[string]string{"ORIGIN": e.addr()}})
	failed := make(chan error, 1)
	go func() {
		k := &caller{addr: g.addr("PLAIN")}
		defer k.hangUp()
		_, err := k.call("GET", "/hang", "X-Case: cut\r\n", "")
		failed <- err
	}()
	eventually(t, 10*time.Second, func() error {
		if e.count("cut") == 0 {
			return errNotYet
		}
		return nil
	})
	began := time.Now()
	g.signal(syscall.SIGTERM)
	select {
	case <-g.ended:
	case <-time.After(10 * time.Second):
		t.Fatal("still there 10 s after SIGTERM, with drain_timeout 500ms")
	}
	if d := time.Since(began); d < 400*time.Millisecond || d > 3*time.Second {
		t.Errorf("ended after %v, want about 500 ms", d)
	}
	<-failed // a reply that says so, or a closed connection
}

// TestDrainDelay keeps accepting, and says it is not ready, for drain_delay.
func TestDrainDelay(t *testing.T) {
	t.Parallel()
	e := newEcho(t)
	g := start(t, setup{config: fmt.Sprintf(drainConfig, "700ms", "5s"), vars: map[string]string{"ORIGIN": e.addr()}})
	idle := &caller{addr: g.addr("PLAIN")}
	defer idle.hangUp()
	if a, err := idle.call("GET", "/status/200", "", ""); wholly(a, err) != nil || a.close {
		t.Fatalf("%v, %v", a, err)
	}
	began := time.Now()
	g.signal(syscall.SIGTERM)
	eventually(t, 500*time.Millisecond, func() error {
		if status, _, err := g.adminGet("/readyz"); err != nil || status != 503 {
			return fmt.Errorf("readyz: %d, %w", status, err)
		}
		return nil
	})
	if status, _, err := g.adminGet("/healthz"); err != nil || status != 200 {
		t.Errorf("healthz: %d, %v, want 200: it drains, it is not ill", status, err)
	}
	fresh := &caller{addr: g.addr("PLAIN")}
	defer fresh.hangUp()
	for name, k := range map[string]*caller{"new": fresh, "kept": idle} {
		if a, err := k.call("GET", "/status/200", "", ""); wholly(a, err) != nil {
			t.Errorf("%s connection during the delay: %v, %v", name, a, err)
		}
	}
	g.waitExit(10 * time.Second)
	// The delay, a second of quiet for the idle connection, and what the race
	// detector takes at an exit.
	if d := time.Since(began); d < 650*time.Millisecond || d > 6*time.Second {
		t.Errorf("ended after %v, want about 1.7 s", d)
	}
	if c, err := net.Dial("tcp", g.addr("PLAIN")); err == nil {
		c.Close()
		t.Error("somebody still accepts")
	}
}
