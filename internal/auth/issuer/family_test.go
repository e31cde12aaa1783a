package issuer

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-gateway/sluice/internal/store"
)

func TestRefreshTokensAreReadExactly(t *testing.T) {
	token := newRefresh(newName())
	if name, ok := parseRefresh(token); !ok || name != token[4:30] || len(token) != refreshLen {
		t.Fatalf("%q", token)
	}
	for i := range token {
		for _, c := range "A2_g\x00" {
			if changed := token[:i] + string(c) + token[i+1:]; changed != token {
				if _, ok := parseRefresh(changed); ok {
					t.Errorf("%q is taken for %q", changed, token)
				}
			}
		}
	}
	for _, other := range []string{"", "slr_", token[1:], token[:len(token)-1], token + "0", strings.ToLower(token)} {
		if _, ok := parseRefresh(other); ok {
			t.Errorf("%q is read", other)
		}
	}
}

// Of requests with the same token that overlap, on two gateways, one gets tokens, and
// the family goes on.
func TestOneRefreshWins(t *testing.T) {
	clock := newClock()
	m := newMemory(clock.now)
	_, s1 := gateway(t, m, clock.now, settings(somePeople()))
	_, s2 := gateway(t, m, clock.now, settings(somePeople()))
	for range 50 {
		tokens := first(t, s1, "k1")
		both := make(chan struct{})
		var n atomic.Int32
		m.applied = func() { // nobody writes before both have read
			if n.Add(1) == 2 {
				close(both)
			}
			<-both
		}
		var got [2]answer
		var wait sync.WaitGroup
		for i, s := range []*Server{s1, s2} {
			wait.Go(func() { got[i] = refresh(t, s, "k1", tokens.refresh) })
		}
		wait.Wait()
		m.applied = nil
		won, lost := got[0], got[1]
		if lost.status == 200 {
			won, lost = lost, won
		}
		if won.status != 200 || lost.status != 400 || lost.code != "invalid_grant" {
			t.Fatalf("%+v and %+v", won, lost)
		}
		if a := refresh(t, s2, "k1", won.refresh); a.status != 200 {
			t.Fatalf("the winner's token: %+v", a)
		}
		if err := usable(s1, won.access, clock.now()); err != nil {
			t.Fatal(err)
		}
	}
}

// However they come, of many requests with one token not more than one gets tokens.
func TestNeverTwoRefreshesOfOneToken(t *testing.T) {
	clock := clockAt(time.Now())
	file, err := store.OpenFile(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	})
	i := New(Options{Now: clock.now})
	i.Keep(file)
	file.Watch(i.Changed)
	s, err := i.Serve(settings(somePeople()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.Close(); _ = i.Close(context.Background()) }()
	for range 20 {
		tokens := first(t, s, "k1")
		if tokens.refresh == "" {
			t.Fatal("nothing was recorded")
		}
		var won atomic.Int32
		var wait sync.WaitGroup
		for range 8 {
			wait.Go(func() {
				if a := refresh(t, s, "k1", tokens.refresh); a.status == 200 {
					won.Add(1)
				}
			})
		}
		wait.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d have got tokens", won.Load())
		}
		if a := refresh(t, s, "k1", tokens.refresh); a.code != "invalid_grant" {
			t.Fatalf("used again: %+v", a)
		}
		if err := usable(s, tokens.access, clock.now()); err == nil {
			t.Fatal("the family outlives the second use of a refresh token")
		}
	}
	// What is in the file says nothing that could be used.
	tokens := first(t, s, "k1")
	if err := file.All(context.Background(), "", func(r store.Record) bool {
		if strings.Contains(string(r.Value), tokens.refresh[30:80]) {
			t.Errorf("record %s has the token in it", r.Key)
		}
		return true
	}); err != nil {
		t.Error(err)
	}
}

// A gateway that is started again knows what was revoked, and signs with the same key.
func TestANewProcessGoesOn(t *testing.T) {
	clock := clockAt(time.Now())
	dir := t.TempDir()
	var before, dead answer
	var jwks string
	for run := range 2 {
		file, err := store.OpenFile(dir)
		if err != nil {
			t.Fatal(err)
		}
		i := New(Options{Now: clock.now})
		i.Keep(file)
		file.Watch(i.Changed)
		s, err := i.Serve(settings(somePeople()))
		if err != nil {
			t.Fatal(err)
		}
		if run == 0 {
			before, dead, jwks = first(t, s, "k1"), first(t, s, "k1"), string(s.Keys().Body)
			if r := s.Revoke(context.Background(), ask("k1", "token="+dead.access)); r.Status != 200 {
				t.Fatal(r)
			}
		} else {
			if err := usable(s, before.access, clock.now()); err != nil || string(s.Keys().Body) != jwks {
				t.Errorf("other keys: %v", err)
			}
			if err := usable(s, dead.access, clock.now()); err == nil {
				t.Error("what was revoked is back")
			}
			if a := refresh(t, s, "k1", dead.refresh); a.status == 200 {
				t.Error("what was revoked can be refreshed")
			}
			if a := refresh(t, s, "k1", before.refresh); a.status != 200 {
				t.Errorf("%+v", a)
			}
		}
		s.Close()
		if err := i.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	}
}

// modelFamily is what a family must be.
type modelFamily struct {
	key     string
	refresh []string // all there were; the last one holds
	until   time.Time
	access  []string
	ends    []time.Time
	ended   bool
}

// Families on two gateways are what a simple model says, whatever is done in
// whichever order.
func TestFamiliesAreAsTheModelSays(t *testing.T) {
	counts := map[string]int{}
	rapid.Check(t, func(r *rapid.T) {
		clock := newClock()
		m := newMemory(clock.now)
		p := somePeople()
		o := settings(p)
		o.RefreshTTL = 3 * time.Hour
		var servers []*Server
		for range 2 {
			i := New(Options{Now: clock.now})
			i.Keep(m)
			m.Watch(i.Changed)
			s, err := i.Serve(o)
			if err != nil {
				r.Fatal(err)
			}
			defer func() { s.Close(); _ = i.Close(context.Background()) }()
			servers = append(servers, s)
		}
		var families []*modelFamily
		add := func(f *modelFamily, a answer) {
			f.refresh, f.access = append(f.refresh, a.refresh), append(f.access, a.access)
			f.until, f.ends = clock.now().Add(o.RefreshTTL), append(f.ends, clock.now().Add(o.AccessTTL))
		}
		server := func() *Server { return rapid.SampledFrom(servers).Draw(r, "server") }
		some := func() *modelFamily {
			if len(families) == 0 {
				r.Skip()
			}
			return rapid.SampledFrom(families).Draw(r, "family")
		}
		said := func(q answer) string { return fmt.Sprint(q.status, " ", q.code) }
		r.Repeat(map[string]func(*rapid.T){
			"grant": func(r *rapid.T) {
				f := &modelFamily{key: rapid.SampledFrom([]string{"k1", "k2", "k3"}).Draw(r, "key")}
				a := read(t, server().Token(context.Background(), ask(f.key, "grant_type=client_credentials")))
				want := "200 "
				if p.dead[f.key] {
					want = "401 invalid_client"
				}
				if said(a) != want {
					r.Fatalf("%+v, want %s", a, want)
				}
				if a.status == 200 {
					add(f, a)
					families = append(families, f)
				}
				counts["grant"]++
			},
			"refresh": func(r *rapid.T) {
				f := some()
				at := rapid.IntRange(0, len(f.refresh)-1).Draw(r, "token")
				if rapid.Bool().Draw(r, "latest") {
					at = len(f.refresh) - 1
				}
				key := f.key
				if rapid.IntRange(0, 9).Draw(r, "by another") == 0 {
					key = rapid.SampledFrom([]string{"k1", "k2", "k3"}).Draw(r, "key")
				}
				a := refresh(t, server(), key, f.refresh[at])
				want := "200 "
				switch {
				case p.dead[key]:
					want = "401 invalid_client"
				case key != f.key || f.ended || !clock.now().Before(f.until):
					want = "400 invalid_grant"
				case at != len(f.refresh)-1:
					want, f.ended = "400 invalid_grant", true
					counts["reuse"]++
				}
				if said(a) != want {
					r.Fatalf("%+v, want %s", a, want)
				}
				if a.status == 200 {
					add(f, a)
					counts["refresh"]++
				}
			},
			"revoke": func(r *rapid.T) {
				f := some()
				if p.dead[f.key] {
					r.Skip()
				}
				all := append([]string{f.refresh[len(f.refresh)-1]}, f.access...)
				at := rapid.IntRange(0, len(all)-1).Draw(r, "token")
				a := read(t, server().Revoke(context.Background(), ask(f.key, "token="+all[at])))
				if a.status != 200 {
					r.Fatalf("%+v", a)
				}
				if at == 0 && clock.now().Before(f.until) || at > 0 && clock.now().Before(f.ends[at-1]) {
					f.ended = true
				}
				counts["revoke"]++
			},
			"wait": func(r *rapid.T) {
				clock.move(time.Duration(rapid.IntRange(1, 90).Draw(r, "minutes")) * time.Minute)
			},
			"kill": func(r *rapid.T) {
				if rapid.IntRange(0, 9).Draw(r, "really") == 0 {
					p.kill(rapid.SampledFrom([]string{"k1", "k2"}).Draw(r, "key"))
				}
			},
			"": func(r *rapid.T) {
				for _, f := range families {
					for i, token := range f.access {
						good := !f.ended && !p.dead[f.key] && clock.now().Before(f.ends[i])
						for at, s := range servers {
							if err := usable(s, token, clock.now()); (err == nil) != good {
								r.Fatalf("gateway %d, access token %d of a family of %s: %v, want good: %v", at, i, f.key, err, good)
							}
						}
					}
				}
			},
		})
	})
	t.Log(counts)
	for _, what := range []string{"grant", "refresh", "reuse", "revoke"} {
		if counts[what] == 0 {
			t.Errorf("no %s was tried", what)
		}
	}
}
