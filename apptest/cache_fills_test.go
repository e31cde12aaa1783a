package apptest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/gatetest"
	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
)

// deaf is a client with a small window that sends a request, and reads nothing but the
// head of the answer.
func deaf(t testing.TB, addr, target string) net.Conn {
	t.Helper()
	dialer := net.Dialer{Timeout: 10 * time.Second, Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
	}}
	c, err := dialer.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reset(c) })
	if _, err := io.WriteString(c, getting(target, "")); err != nil {
		t.Fatal(err)
	}
	return c
}

func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

// followers ask for a target, all at once, and want its body whole.
type followers struct {
	t    *testing.T
	wg   sync.WaitGroup
	done chan struct{}
	hows *counter
}

func follow(t *testing.T, g *gateway, n int, target string) *followers {
	f := &followers{t: t, done: make(chan struct{}), hows: newCounter()}
	for range n {
		f.wg.Go(func() {
			k := &asker{addr: g.addr("PLAIN")}
			defer k.hangUp()
			r, err := k.get(target, "")
			if err != nil {
				t.Errorf("%s: %v", target, err)
				return
			}
			f.hows.add(r.cache())
			if got, err := unseal(r.body); r.status != 200 || err != nil || got.url != target {
				t.Errorf("%s: status %d, %v", target, r.status, err)
			}
		})
	}
	go func() {
		f.wg.Wait()
		close(f.done)
	}()
	return f
}

// within fails the test unless all have their bodies in time.
func (f *followers) within(d time.Duration) {
	f.t.Helper()
	late := time.NewTimer(d)
	defer late.Stop()
	began := time.Now()
	select {
	case <-f.done:
		f.t.Logf("all have it after %v: %v", time.Since(began).Round(time.Millisecond), f.hows.all())
	case <-late.C:
		f.t.Errorf("not all had their answers within %v", d)
		<-f.done
	}
}

// inFlight waits until the gateway has so many requests at work.
func (g *gateway) inFlight(n int) {
	g.t.Helper()
	g.awaitMetric(float64(n), "sluice_requests_in_flight")
}

// fillOrigin answers /SIZE/… with bodies of that size: /head waits for the gate "go"
// before the head, /body behind the first half. chunked and plain are its framing.
func fillOrigin(t testing.TB) *origin {
	return newOrigin(t, func(o *origin, w http.ResponseWriter, r *http.Request) {
		var size int
		if _, err := fmt.Sscanf(r.URL.Path, "/%d/", &size); err != nil {
			http.NotFound(w, r)
			return
		}
		body := seal(r.RequestURI, "*", 1, size)
		w.Header().Set("Cache-Control", "max-age=3600")
		if !strings.Contains(r.URL.Path, "/chunked") {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		}
		if strings.Contains(r.URL.Path, "/head") {
			o.wait(r, "go"+r.URL.Path)
		}
		_, _ = w.Write([]byte(body[:size/2]))
		w.(http.Flusher).Flush()
		if strings.Contains(r.URL.Path, "/body") {
			o.wait(r, "go"+r.URL.Path)
		}
		_, _ = w.Write([]byte(body[size/2:]))
	})
}

// TestCacheSlowLeader has the client whose request fetches for all read nothing, or go
// away, at each stage. Those who wait for the same object get it whole and soon.
func TestCacheSlowLeader(t *testing.T) {
	for _, shared := range []bool{false, true} {
		t.Run(map[bool]string{false: "memory", true: "with a Redis"}[shared], func(t *testing.T) {
			t.Parallel()
			o := fillOrigin(t)
			redis := ""
			if shared {
				redis = patient(redistest.Start(t).Addr())
			}
			g := start(t, caching(o, redis, "memory: 256MiB, max_object: 16MiB"))
			const n = 10
			// Who has waited in vain for 5 s asks the origin himself: its count tells.
			const soon = 15 * time.Second
			once := func(t *testing.T, target string) {
				t.Helper()
				if got := o.total(target); got != 1 {
					t.Errorf("%s: the origin was asked %d times, want once", target, got)
				}
			}
			for _, framing := range []string{"plain", "chunked"} {
				t.Run("the leader reads nothing, "+framing, func(t *testing.T) {
					target := "/6000000/" + framing + "/deaf"
					deaf(t, g.addr("PLAIN"), target)
					o.awaitTotal(t, target, 1)
					follow(t, g, 4, target).within(soon)
					once(t, target)
				})
				t.Run("the leader goes in the middle of the body, "+framing, func(t *testing.T) {
					target := "/500000/" + framing + "/body/middle"
					c := deaf(t, g.addr("PLAIN"), target)
					if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
						t.Fatal(err)
					}
					f := follow(t, g, n, target)
					g.inFlight(n + 1)
					reset(c)
					close(o.gate("go" + target))
					f.within(soon)
					once(t, target)
				})
				t.Run("the leader goes alone, "+framing, func(t *testing.T) {
					target := "/500000/" + framing + "/body/alone"
					c := deaf(t, g.addr("PLAIN"), target)
					if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
						t.Fatal(err)
					}
					reset(c)
					close(o.gate("go" + target))
					follow(t, g, n, target).within(soon)
					if got := o.total(target); got > 2 {
						t.Errorf("the origin was asked %d times", got)
					}
				})
				t.Run("the leader goes before the head, "+framing, func(t *testing.T) {
					target := "/50000/" + framing + "/head/first"
					c := deaf(t, g.addr("PLAIN"), target)
					o.awaitTotal(t, target, 1)
					f := follow(t, g, n, target)
					g.inFlight(n + 1)
					reset(c)
					// Another takes over, or the fetch goes on without him.
					_ = poll(time.Second, func() error {
						if o.total(target) < 2 {
							return errNotYet
						}
						return nil
					})
					close(o.gate("go" + target))
					f.within(soon)
					if got := o.total(target); got > 2 {
						t.Errorf("the origin was asked %d times, want twice at most", got)
					}
				})
			}
			t.Run("leaders go one after the other", func(t *testing.T) {
				const target = "/50000/plain/head/many"
				var leaders []net.Conn
				for i := range 4 {
					leaders = append(leaders, deaf(t, g.addr("PLAIN"), target))
					if i == 0 {
						o.awaitTotal(t, target, 1)
					}
				}
				g.inFlight(len(leaders))
				f := follow(t, g, n, target)
				g.inFlight(len(leaders) + n)
				for _, c := range leaders {
					reset(c)
				}
				// All who left have been noticed: those who stay are at work still.
				eventually(t, 5*time.Second, func() error {
					if got := g.metric("sluice_requests_in_flight"); got > n {
						return fmt.Errorf("%v requests at work, want %d", got, n)
					}
					return nil
				})
				close(o.gate("go" + target))
				f.within(soon)
				if got := o.total(target); got > len(leaders)+1 {
					t.Errorf("the origin was asked %d times by %d leaders and those who stayed", got, len(leaders))
				}
			})
			t.Run("the leader resets its HTTP/2 stream", func(t *testing.T) {
				const target = "/500000/plain/body/reset"
				h2 := gatetest.NewClient(gatetest.Drivers[3], g.addr("PLAIN"), nil)
				defer h2.CloseIdleConnections()
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				req, err := h2.Request(ctx, gatetest.Message{Host: "a.test", Target: target})
				if err != nil {
					t.Fatal(err)
				}
				resp, err := h2.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				f := follow(t, g, n, target)
				g.inFlight(n + 1)
				cancel()
				_ = resp.Body.Close()
				close(o.gate("go" + target))
				f.within(soon)
				once(t, target)
			})
			t.Run("one who waits goes", func(t *testing.T) {
				const target = "/500000/plain/body/follower"
				f := follow(t, g, 1, target)
				o.awaitTotal(t, target, 1)
				c := deaf(t, g.addr("PLAIN"), target)
				if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
					t.Fatal(err)
				}
				more := follow(t, g, n, target)
				g.inFlight(n + 2)
				reset(c)
				close(o.gate("go" + target))
				f.within(soon)
				more.within(soon)
				once(t, target)
			})
			t.Run("one who waits reads nothing", func(t *testing.T) {
				const target = "/6000000/plain/body/deaf"
				f := follow(t, g, 1, target)
				o.awaitTotal(t, target, 1)
				deaf(t, g.addr("PLAIN"), target)
				more := follow(t, g, 4, target)
				g.inFlight(4 + 2)
				close(o.gate("go" + target))
				f.within(soon)
				more.within(soon)
				once(t, target)
			})
		})
	}
}

// TestCacheSlowLeaderOfTooMuch has the client whose request fetches read nothing of a
// body that turns out to be too large to keep. Nobody else waits for it.
func TestCacheSlowLeaderOfTooMuch(t *testing.T) {
	o := fillOrigin(t)
	g := start(t, caching(o, "", "memory: 8MiB, max_object: 512KiB"))
	for _, framing := range []string{"plain", "chunked"} {
		for _, stage := range []string{"deaf", "body/deaf", "head/deaf"} {
			t.Run(framing+", "+stage, func(t *testing.T) {
				target := "/6000000/" + framing + "/" + stage
				deaf(t, g.addr("PLAIN"), target)
				o.awaitTotal(t, target, 1)
				f := follow(t, g, 4, target)
				if stage != "deaf" {
					_ = poll(300*time.Millisecond, func() error {
						if g.metric("sluice_requests_in_flight") < 5 {
							return errNotYet
						}
						return nil
					})
				}
				close(o.gate("go" + target))
				f.within(15 * time.Second)
			})
		}
	}
}

// TestCacheBrokenFills has the origin break off its answers: nobody gets a part for the
// whole, and no part is kept.
func TestCacheBrokenFills(t *testing.T) {
	o := newOrigin(t, func(o *origin, w http.ResponseWriter, r *http.Request) {
		body := seal(r.RequestURI, "*", 1, 50_000)
		w.Header().Set("Cache-Control", "max-age=3600")
		if strings.HasSuffix(r.URL.Path, "/plain") {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		}
		if o.total(r.RequestURI) > 1 {
			_, _ = io.WriteString(w, body)
			return
		}
		_, _ = w.Write([]byte(body[:30_000]))
		w.(http.Flusher).Flush()
		o.wait(r, "break"+r.URL.Path)
		panic(http.ErrAbortHandler)
	})
	g := start(t, caching(o, "", ""))
	for _, target := range []string{"/broken/plain", "/broken/chunked"} {
		var wg sync.WaitGroup
		whole := newCounter()
		for range 10 {
			wg.Go(func() {
				k := &asker{addr: g.addr("PLAIN")}
				defer k.hangUp()
				r, err := k.get(target, "")
				if err != nil {
					whole.add("broken off")
					return
				}
				got, err := unseal(r.body)
				if err != nil || r.status != 200 || got.url != target {
					t.Errorf("%s: a whole answer with status %d, %v", target, r.status, err)
				}
				whole.add("whole")
			})
		}
		g.inFlight(10)
		close(o.gate("break" + target))
		wg.Wait()
		t.Logf("%s: %v", target, whole.all())
		k := &asker{addr: g.addr("PLAIN")}
		k.want(t, target, "")
		if _, how := k.want(t, target, ""); how != "hit" {
			t.Errorf("%s afterwards: %s, want a hit", target, how)
		}
		k.hangUp()
	}
}
