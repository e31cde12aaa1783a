//go:build linux

package load

import (
	"crypto/tls"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a server in the given protocol and gives a target that expects
// status 200 and "hello".
func serve(t *testing.T, proto string, h http.HandlerFunc) Target {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = proto == "h2"
	if proto == "http1" {
		srv.Start()
	} else {
		srv.StartTLS()
	}
	t.Cleanup(srv.Close)
	target := Target{
		Addr:     netip.MustParseAddrPort(srv.Listener.Addr().String()),
		Requests: []*Request{NewRequest("GET", "https", "example.com", "/", []string{"Accept: */*"}, nil)},
		Status:   200, Length: 5,
	}
	switch proto {
	case "tls":
		target.TLS = &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}
	case "h2":
		target.TLS = &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}
		target.Streams = 3
	}
	return target
}

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }

func run(t *testing.T, target Target, plan Plan) Result {
	t.Helper()
	res, err := Do(target, plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestClosedLoopRecordsEveryAnswerOfTheWindow(t *testing.T) {
	for _, proto := range []string{"http1", "tls", "h2"} {
		t.Run(proto, func(t *testing.T) {
			var served atomic.Uint64
			target := serve(t, proto, func(w http.ResponseWriter, r *http.Request) { served.Add(1); hello(w, r) })
			res := run(t, target, Plan{Conns: 4, Threads: 2, Window: 200 * time.Millisecond})
			if res.Errors.Total() != 0 || res.OK == 0 || res.Recorded == 0 || res.Recorded > int64(res.OK) {
				t.Errorf("ok %d, recorded %d, errors %s; want only right answers", res.OK, res.Recorded, res.Errors)
			}
			if res.Bytes != 5*res.OK {
				t.Errorf("%d bytes in %d answers, want 5 each", res.Bytes, res.OK)
			}
			// The last answer of each slot may not have been waited for.
			if n := served.Load(); n < res.OK || n > res.OK+12 {
				t.Errorf("server answered %d, load counted %d", n, res.OK)
			}
		})
	}
}

func TestOpenLoopSendsWhatTheScheduleSays(t *testing.T) {
	for _, proto := range []string{"http1", "tls", "h2"} {
		t.Run(proto, func(t *testing.T) {
			target := serve(t, proto, hello)
			res := run(t, target, Plan{Conns: 4, Threads: 2, Rate: 500, Warm: 100 * time.Millisecond, Window: 400 * time.Millisecond})
			if res.Recorded != 200 || res.Errors.Total() != 0 {
				t.Errorf("recorded %d, errors %s; want the 200 requests due in the window", res.Recorded, res.Errors)
			}
		})
	}
}

func TestStallIsChargedToEveryRequestItHeldUp(t *testing.T) {
	var n atomic.Uint64
	target := serve(t, "http1", func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 100 {
			stall := time.NewTimer(300 * time.Millisecond)
			<-stall.C
		}
		hello(w, r)
	})
	res := run(t, target, Plan{Conns: 1, Rate: 1000, Window: time.Second})
	if res.Recorded != 1000 || res.Errors.Total() != 0 {
		t.Fatalf("recorded %d, errors %s; want 1000", res.Recorded, res.Errors)
	}
	// 300 of the 1000 were due during the stall, and waited for 150 ms on average.
	held := 0
	for _, b := range res.Latency.Distribution() {
		if b.From > int64(50*time.Millisecond) {
			held += int(b.Count)
		}
	}
	if held < 200 {
		t.Errorf("%d requests waited for more than 50 ms, want the 250 that were due that much before the end of the stall", held)
	}
	if p := res.Latency.Max(); p < int64(290*time.Millisecond) {
		t.Errorf("max %v, want the whole stall", time.Duration(p))
	}
}

func TestWrongAnswersAreErrors(t *testing.T) {
	cases := []struct {
		name string
		h    http.HandlerFunc
		is   func(Errors) uint64
	}{
		{"status", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "hell", 500) }, func(e Errors) uint64 { return e.Status }},
		{"length", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hell") }, func(e Errors) uint64 { return e.Length }},
		{"closed", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, func(e Errors) uint64 { return e.Closed }},
		{"timeout", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, func(e Errors) uint64 { return e.Timeout }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			target := serve(t, "http1", c.h)
			plan := Plan{Conns: 2, Window: 150 * time.Millisecond}
			if c.name == "timeout" {
				plan.Timeout = 50 * time.Millisecond
			}
			res := run(t, target, plan)
			if res.OK != 0 || res.Recorded != 0 || c.is(res.Errors) == 0 || c.is(res.Errors) != res.Errors.Total() {
				t.Errorf("ok %d, recorded %d, errors %s", res.OK, res.Recorded, res.Errors)
			}
		})
	}
}

func TestUploadIsSentWhole(t *testing.T) {
	const size = 3 << 20
	var short atomic.Uint64
	target := serve(t, "http1", func(w http.ResponseWriter, r *http.Request) {
		if n, err := io.Copy(io.Discard, r.Body); n != size || err != nil {
			short.Add(1)
		}
		hello(w, r)
	})
	target.Requests = []*Request{NewRequest("POST", "http", "example.com", "/up", nil, make([]byte, size))}
	res := run(t, target, Plan{Conns: 3, Window: 200 * time.Millisecond})
	if res.OK == 0 || res.Errors.Total() != 0 {
		t.Errorf("ok %d, errors %s", res.OK, res.Errors)
	}
	// Those under way when the run stops are cut.
	if n := short.Load(); n > 3 {
		t.Errorf("%d bodies came in part", n)
	}
}

func TestRequestsAreAskedInTurn(t *testing.T) {
	var a, b atomic.Int64
	target := serve(t, "http1", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/a":
			a.Add(1)
		case "/b":
			b.Add(1)
		}
		hello(w, r)
	})
	target.Requests = []*Request{
		NewRequest("GET", "http", "example.com", "/a", nil, nil),
		NewRequest("GET", "http", "example.com", "/b", nil, nil),
	}
	res := run(t, target, Plan{Conns: 4, Window: 100 * time.Millisecond})
	if d := math.Abs(float64(a.Load() - b.Load())); res.OK == 0 || d > 4 {
		t.Errorf("/a %d, /b %d; want the same", a.Load(), b.Load())
	}
}

func TestConnectionsThatTheServerClosesAreReplaced(t *testing.T) {
	target := serve(t, "http1", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		hello(w, r)
	})
	res := run(t, target, Plan{Conns: 2, Window: 100 * time.Millisecond})
	if res.OK < 3 || res.Errors.Total() != 0 || res.Reconnects < res.OK-2 {
		t.Errorf("ok %d, reconnects %d, errors %s", res.OK, res.Reconnects, res.Errors)
	}
}

func TestServerThatIsNotThereIsAnErrorAtStart(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(ln.Addr().String())
	ln.Close()
	target := Target{Addr: addr, Requests: []*Request{NewRequest("GET", "http", "x", "/", nil, nil)}}
	if _, err := Start(target, Plan{Conns: 1}); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("error %v, want connection refused", err)
	}
}

func TestScheduleInterleavesWorkersWithoutDrift(t *testing.T) {
	const rate, workers = 3000.0, 3
	for k := range workers {
		s := newSchedule(rate, k, workers)
		for i := range int64(100_000) {
			want := int64((float64(i)*workers + float64(k)) * 1e9 / rate)
			if got := s.next(); got < want-1 || got > want+1 {
				t.Fatalf("worker %d, arrival %d: due at %d, want %d", k, i, got, want)
			}
			if _, ok := s.take(s.next() - 1); ok {
				t.Fatalf("worker %d, arrival %d was handed out before it was due", k, i)
			}
			if due, ok := s.take(s.next()); !ok || due < want-1 || due > want+1 {
				t.Fatalf("worker %d, arrival %d: took %d, %v", k, i, due, ok)
			}
		}
	}
}

func TestQueueIsFirstInFirstOut(t *testing.T) {
	var q queue
	slots := make([]slot, 50)
	for i := range slots {
		q.push(&slots[i])
		if i%3 == 2 { // wrap around while growing
			q.push(q.pop())
		}
	}
	first := q.pop()
	q.unpop(first)
	seen := map[*slot]bool{}
	for i := 0; q.len() > 0; i++ {
		s := q.pop()
		if i == 0 && s != first {
			t.Error("unpop did not put the slot back to the front")
		}
		seen[s] = true
	}
	if len(seen) != len(slots) {
		t.Errorf("%d different slots came out, want %d", len(seen), len(slots))
	}
}
