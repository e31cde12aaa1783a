//go:build linux

package trial

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/bench/internal/attribution"
	"github.com/sluice-gateway/sluice/bench/internal/gateways"
)

// profiling is a proxy whose limiter is, for the sake of the test, its client of the
// origin.
func profiling(path string) func(s *gateways.Setup) gateways.Command {
	return func(s *gateways.Setup) gateways.Command {
		c := proxy(s)
		if s.Profile {
			c.Profile = "http://" + s.Listen + path
			c.Limiter = &attribution.Part{Packages: []string{"net/http"}, Except: []string{"net/http.(*conn).readRequest"}, Request: []string{"net/http/httputil"}}
		}
		return c
	}
}

func TestLimitIsProfiledAfterTheRounds(t *testing.T) {
	b := bench(t, "limit-local", "forward")
	b.Rounds, b.Profile = 1, 1200*time.Millisecond
	b.Gateways = []gateways.Gateway{&stub{name: "base", command: profiling(profilePath)}, &stub{name: "rival", command: profiling(profilePath)}}
	got, err := b.Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	nothingRuns(t)
	for _, s := range got {
		for i, g := range s.Gateways {
			if limited := s.Name == "limit-local" && i == 0; g.Failed != "" || (len(g.Profiles) == 1) != limited {
				t.Fatalf("%s of %s: %d profiles, failed %q; want one of the base with a limit", g.Name, s.Name, len(g.Profiles), g.Failed)
			}
			for _, p := range g.Profiles {
				if p.Requests == 0 || p.CPU < 1 || p.Samples < 10 || p.Request == 0 || p.Beside == 0 || p.Part() >= p.Samples || p.Seen() > 1.5 {
					t.Errorf("%+v", p)
				}
			}
		}
	}
}

func TestProfileThatDoesNotComeIsAFailure(t *testing.T) {
	b := bench(t, "limit-local")
	b.Rounds, b.Profile = 1, time.Second
	b.Gateways = []gateways.Gateway{&stub{name: "base", command: profiling("/metrics")}}
	got, err := b.Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	nothingRuns(t)
	if g := got[0].Gateways[0]; !strings.Contains(g.Failed, "profile cannot be read") || len(g.Profiles) != 0 {
		t.Errorf("failed %q with profiles %+v", g.Failed, g.Profiles)
	}
}

func TestOnlyLimitsByThemselvesAreAttributed(t *testing.T) {
	var names []string
	for _, s := range Scenarios() {
		if s.Attributed() {
			names = append(names, s.Name)
		}
	}
	if got, want := strings.Join(names, " "), "limit-local limit-leased limit-exact"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
