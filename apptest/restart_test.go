package apptest

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/gatetest"
)

// killable is an origin that can be killed, started again, and asked how often
// it got each POST.
type killable interface {
	address() string
	kill()
	run()
	// counts returns how often each id came. all says that none can be missing:
	// nginx writes its log behind the reply, and may be killed between the two.
	counts(t testing.TB) (n map[string]int, all bool)
}

// TestUpstreamRestart kills an origin under load and starts it again: the errors
// are problem documents and come only while it is away, all is well within a
// second, and no POST reaches the origin twice, retries or not.
func TestUpstreamRestart(t *testing.T) {
	t.Run("nginx", func(t *testing.T) { restart(t, killableNginx{startNginx(t)}) })
	// nginx counts when it has answered; this one counts when a request comes in,
	// so a POST that is repeated after a reset shows too.
	t.Run("origin that counts on arrival", func(t *testing.T) {
		k := &killableOrigin{}
		k.Origin = gatetest.NewOrigin(t, func(p *gatetest.Peer) {
			for {
				s, err := p.Next()
				if err != nil || p.Send(gatetest.Text("counted "+s.Method)) != nil {
					return
				}
			}
		})
		restart(t, k)
	})
}

// sample is one request of the load.
type sample struct {
	began, ended time.Time
	post         string // its id, of a POST
	status       int
	code         string
	err          error
}

func restart(t *testing.T, o killable) {
	g := start(t, setup{
		config: `
listeners: [{name: plain, address: "@PLAIN@"}]
admin: {address: "@ADMIN@"}
log: {access: {output: none}}
upstreams: {o: {targets: ["http://@ORIGIN@"], retry: {attempts: 2, on: [connect, reset, 502, 503, 504], budget: 20%}}}
routes: [{name: all, path: "/{rest...}", upstream: o}]
`,
		vars: map[string]string{"ORIGIN": o.address()},
	})
	var mu sync.Mutex
	var samples []sample
	serial := 0
	load := newCrowd(t)
	load.add(8, func(worker int, k *caller) (bool, error) {
		s := sample{began: time.Now()}
		method, header := "GET", ""
		if worker%2 == 0 {
			mu.Lock()
			serial++
			s.post = fmt.Sprintf("id-%d", serial)
			mu.Unlock()
			method, header = "POST", "X-Unique: "+s.post+"\r\n"
		}
		a, err := k.call(method, "/count", header, "")
		s.ended, s.err = time.Now(), err
		if err == nil {
			s.status, s.code = a.status, a.code
		}
		mu.Lock()
		samples = append(samples, s)
		mu.Unlock()
		return true, nil
	}, g.addr("PLAIN"))

	type outage struct{ killed, back time.Time }
	var outages []outage
	for range 2 {
		load.reach(500)
		var out outage
		out.killed = time.Now()
		o.kill()
		load.reach(500)
		o.run()
		out.back = time.Now()
		outages = append(outages, out)
		eventually(t, 20*time.Second, func() error {
			mu.Lock()
			defer mu.Unlock()
			if last := samples[len(samples)-1].began; last.Sub(out.back) < 1500*time.Millisecond {
				return errNotYet
			}
			return nil
		})
	}
	load.end()

	// The last moment at which an error of an outage may begin is a second after
	// its end; one that began before may end later.
	excused := func(s sample) bool {
		for _, out := range outages {
			if s.ended.After(out.killed) && s.began.Before(out.back.Add(time.Second)) {
				return true
			}
		}
		return false
	}
	failed := 0
	for _, s := range samples {
		switch {
		case s.err != nil:
			t.Errorf("%s: %v", s.began.Format(time.StampMilli), s.err)
		case s.status == 200:
		case s.status != 502 && s.status != 503 || s.code != "upstream_unavailable":
			t.Errorf("status %d, code %q", s.status, s.code)
		case !excused(s):
			t.Errorf("status %d from %s to %s, while the origin was there", s.status, s.began.Format(time.StampMilli), s.ended.Format(time.StampMilli))
		default:
			failed++
		}
	}
	t.Logf("%d calls, %d failed while the origin was away", len(samples), failed)
	if failed == 0 {
		t.Error("no call failed: the origin was never away")
	}
	for _, out := range outages {
		recovered := time.Duration(-1)
		for _, s := range samples {
			if s.status == 200 && s.began.After(out.back) {
				if d := s.ended.Sub(out.back); recovered < 0 || d < recovered {
					recovered = d
				}
			}
		}
		t.Logf("first reply %v after the origin came back", recovered)
		if recovered < 0 || recovered > time.Second {
			t.Errorf("the first reply came %v after the origin was back, want within 1 s", recovered)
		}
	}
	got, all := o.counts(t)
	for _, s := range samples {
		if s.post == "" {
			continue
		}
		if n := got[s.post]; n > 1 || n == 0 && all && s.status == 200 {
			t.Errorf("POST %s: status %d, and the origin got it %d times", s.post, s.status, n)
		}
	}
}

type killableNginx struct{ *nginx }

func (k killableNginx) address() string { return k.addr }

func (k killableNginx) counts(t testing.TB) (map[string]int, bool) {
	f, err := os.Open(k.path("ids.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := map[string]int{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		id, _, _ := strings.Cut(lines.Text(), " ")
		n[id]++
	}
	return n, false
}

type killableOrigin struct{ *gatetest.Origin }

func (k *killableOrigin) address() string { return k.Addr }
func (k *killableOrigin) kill()           { k.Stop() }

func (k *killableOrigin) run() {
	if err := k.Restart(); err != nil {
		panic(err)
	}
}

func (k *killableOrigin) counts(testing.TB) (map[string]int, bool) {
	n := map[string]int{}
	for _, s := range k.Requests() {
		n[s.Header.Get("X-Unique")]++
	}
	return n, true
}
