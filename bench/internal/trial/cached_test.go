//go:build linux

package trial

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/bench/internal/load"
)

// cachedScenario is the one without keys and limits.
func cachedScenario(t *testing.T) *Scenario {
	t.Helper()
	for _, s := range Scenarios() {
		if s.Name == "hit" {
			return &s
		}
	}
	t.Fatal("there is no scenario of hits")
	return nil
}

func TestProbeTellsAHitByTheSerial(t *testing.T) {
	sc := cachedScenario(t)
	serials := map[string]func(n int) string{
		"":                      func(int) string { return "one" },
		"the one before it \"1": func(n int) string { return fmt.Sprint(n) },
		`has X-Serial ""`:       func(int) string { return "" },
	}
	for want, serial := range serials {
		n := 0
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			n++
			w.Header().Set(serialField, serial(n))
			fmt.Fprint(w, sc.expected())
		}))
		err := probe(sc, s.Listener.Addr().String())
		s.Close()
		switch {
		case want == "" && err != nil:
			t.Errorf("a hit: %v", err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%v, want %s", err, want)
		}
		if n != 2 {
			t.Errorf("asked %d times, want 2", n)
		}
	}
}

func TestOriginLetsBeStoredAndCounts(t *testing.T) {
	sp := newSpawner()
	defer sp.close()
	sc := cachedScenario(t)
	o, err := startOrigin(context.Background(), sp, bench(t).Nginx, t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer o.stop()
	_, addr := o.of(sc)
	before, err := asked(addr)
	if err != nil {
		t.Fatal(err)
	}
	// The origin itself is no cache.
	if err := probe(sc, addr); err == nil || !strings.Contains(err.Error(), "to come from the cache") {
		t.Errorf("%v, want that two answers differ", err)
	}
	resp, err := http.Get("http://" + addr + sc.paths()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Cache-Control"); got != "public, max-age=3600" {
		t.Errorf("Cache-Control is %q", got)
	}
	http.DefaultClient.CloseIdleConnections()
	if after, err := asked(addr); err != nil || after-before != 4 {
		t.Errorf("%d requests were counted (%v), want two of the probe, one more and the question itself", after-before, err)
	}
}

func TestRequestsThatReachTheOriginSpoilAWindowOfHits(t *testing.T) {
	at := func(ok, asked uint64) reading { return reading{count: load.Counters{OK: ok}, asked: asked} }
	for _, c := range []struct {
		cached bool
		asked  uint64 // at the end; 100 at the beginning
		fails  bool
	}{
		{true, 101, false}, {true, 100, false}, {true, 111, false}, {true, 112, true}, {false, 5000, false},
	} {
		s := &subject{cached: c.cached}
		err := s.allCached(at(1000, 100), at(11_000, c.asked))
		if (err != nil) != c.fails {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestCountIsReadFromStubStatus(t *testing.T) {
	const status = "Active connections: 1 \nserver accepts handled requests\n 3 4 57 \nReading: 0 Writing: 1 Waiting: 0 \n"
	if n, err := parseCount(strings.NewReader(status)); n != 57 || err != nil {
		t.Errorf("%d, %v; want 57", n, err)
	}
	for _, bad := range []string{"", "404", "server accepts handled requests\n1 2\n", "server accepts handled requests\n"} {
		if n, err := parseCount(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is read as %d", bad, n)
		}
	}
}
