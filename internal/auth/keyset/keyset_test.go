package keyset

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/internal/auth/jose"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// issuer is an HTTP server that publishes keys, over pipes, so that it lives in the
// fake time of a bubble.
type issuer struct {
	server http.Server
	conns  chan net.Conn
	done   chan struct{}

	mu      sync.Mutex
	keys    []string
	handler http.HandlerFunc // instead of the keys
	down    bool
	cache   string
	fetches []time.Time
}

func newIssuer(t *testing.T) *issuer {
	i := &issuer{conns: make(chan net.Conn), done: make(chan struct{})}
	i.server.Handler = i
	var serving sync.WaitGroup
	serving.Go(func() { _ = i.server.Serve(i) })
	t.Cleanup(func() {
		_ = i.server.Close()
		serving.Wait()
	})
	return i
}

func (i *issuer) Accept() (net.Conn, error) {
	select {
	case c := <-i.conns:
		return c, nil
	case <-i.done:
		return nil, net.ErrClosed
	}
}
func (i *issuer) Addr() net.Addr { return &net.TCPAddr{} }
func (i *issuer) Close() error {
	close(i.done)
	return nil
}

func (i *issuer) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	i.mu.Lock()
	down := i.down
	if down {
		i.fetches = append(i.fetches, time.Now())
	}
	i.mu.Unlock()
	if down {
		return nil, errors.New("connection refused")
	}
	client, server := net.Pipe()
	select {
	case i.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fetches = append(i.fetches, time.Now())
	if i.handler != nil {
		i.handler(w, r)
		return
	}
	if i.cache != "" {
		w.Header().Set("Cache-Control", i.cache)
	}
	w.Header().Set("Connection", "close")
	fmt.Fprintf(w, `{"keys":[%s]}`, strings.Join(i.keys, ","))
}

func (i *issuer) publish(signers ...*jose.Signer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = nil
	for _, s := range signers {
		k, err := s.JWK()
		if err != nil {
			panic(err)
		}
		i.keys = append(i.keys, string(k))
	}
}

func (i *issuer) set(f func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	f()
}

func (i *issuer) fetched() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.fetches)
}

// closest is the least time between two fetches.
func (i *issuer) closest() time.Duration {
	i.mu.Lock()
	defer i.mu.Unlock()
	least := time.Duration(1<<63 - 1)
	for j := 1; j < len(i.fetches); j++ {
		least = min(least, i.fetches[j].Sub(i.fetches[j-1]))
	}
	return least
}

func (i *issuer) registry(t *testing.T) *Registry {
	r := New(Options{Transport: &http.Transport{DialContext: i.dial, DisableKeepAlives: true}})
	t.Cleanup(func() { _ = r.Close() })
	return r
}

var place = Place{URL: "http://127.0.0.1/jwks"}

func signer(t testing.TB) *jose.Signer {
	t.Helper()
	s, err := jose.NewSigner("EdDSA")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// bubble runs a test in fake time, with an issuer that publishes one key, whose set
// was fetched.
func bubble(t *testing.T, f func(t *testing.T, i *issuer, s *Set, key *jose.Signer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		i, key := newIssuer(t), signer(t)
		i.publish(key)
		s := i.registry(t).Acquire(place)
		synctest.Wait()
		f(t, i, s, key)
	})
}

func expect(t *testing.T, s jose.Source, kid string, n int, want error) {
	t.Helper()
	keys, err := s.Keys(kid)
	if len(keys) != n || !errors.Is(err, want) {
		t.Errorf("%d keys for %q, %v; want %d, %v", len(keys), kid, err, n, want)
	}
}

func TestKeysAreThere(t *testing.T) {
	bubble(t, func(t *testing.T, i *issuer, s *Set, key *jose.Signer) {
		expect(t, s, key.ID(), 1, nil)
		expect(t, s, "", 1, nil)
		expect(t, s.Quiet(), key.ID(), 1, nil)
		expect(t, s.Quiet(), "unknown", 0, jose.ErrUnavailable)
		if i.fetched() != 1 || s.Changes() != 1 {
			t.Errorf("%d fetches, %d changes, want one of each", i.fetched(), s.Changes())
		}
	})
}

// 10,000 forged ids, at once and one after the other, cost one fetch each cooldown.
func TestForgedIDsCostOneFetch(t *testing.T) {
	bubble(t, func(t *testing.T, i *issuer, s *Set, key *jose.Signer) {
		time.Sleep(Cooldown)
		var all sync.WaitGroup
		for n := range 10_000 {
			all.Go(func() { expect(t, s, fmt.Sprint("forged ", n), 0, nil) })
		}
		all.Wait()
		for n := range 10_000 {
			expect(t, s, fmt.Sprint("more ", n), 0, nil)
			expect(t, s, key.ID(), 1, nil)
		}
		if i.fetched() != 2 {
			t.Errorf("%d fetches, want the first and one", i.fetched())
		}
		for n := range 6000 { // ten minutes, ten a second
			time.Sleep(100 * time.Millisecond)
			expect(t, s, fmt.Sprint("later ", n), 0, nil)
		}
		if n := i.fetched(); n < 50 || n > 62 || i.closest() < Cooldown {
			t.Errorf("%d fetches in ten minutes, %v the closest; want one each %v", n, i.closest(), Cooldown)
		}
		if len(s.unknown) > maxUnknown {
			t.Errorf("%d ids are kept", len(s.unknown))
		}
	})
}

// An id that a fetch did not bring causes no other for a while.
func TestAnUnknownIDIsRemembered(t *testing.T) {
	bubble(t, func(t *testing.T, i *issuer, s *Set, _ *jose.Signer) {
		for range 119 {
			time.Sleep(time.Second)
			expect(t, s, "forged", 0, nil)
		}
		if i.fetched() != 5 { // the first, at 10 s, and each 30 s from then on
			t.Errorf("%d fetches in two minutes, want 5", i.fetched())
		}
	})
}

// Keys change under load, announced or not, and no token of the issuer is refused.
func TestRotationRefusesNobody(t *testing.T) {
	for _, c := range []struct {
		name   string
		ahead  time.Duration // that the next key is published before it signs
		forged bool          // tokens of unknown keys come in between
	}{{"not announced", 0, false}, {"announced", 15 * time.Second, true}} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, i *issuer, s *Set, key *jose.Signer) {
				var current atomic.Pointer[jose.Signer]
				current.Store(key)
				stop := make(chan struct{})
				var load sync.WaitGroup
				var verified atomic.Int64
				for w := range 20 {
					load.Go(func() {
						for n := 0; ; n++ {
							select {
							case <-stop:
								return
							case <-time.After(500 * time.Millisecond):
							}
							if c.forged {
								_, _ = s.Keys(fmt.Sprint("forged ", w, n))
							}
							kid := current.Load().ID()
							if keys, err := s.Keys(kid); len(keys) != 1 || err != nil {
								t.Errorf("a valid token is refused: %v", err)
							}
							verified.Add(1)
						}
					})
				}
				for range 20 {
					time.Sleep(7 * time.Minute)
					next := signer(t)
					i.publish(current.Load(), next)
					time.Sleep(c.ahead)
					current.Store(next)
					time.Sleep(time.Minute)
					i.publish(next)
				}
				close(stop)
				load.Wait()
				if i.closest() < Cooldown {
					t.Errorf("two fetches are only %v apart", i.closest())
				}
				t.Logf("%d tokens in %d rotations, %d fetches", verified.Load(), 20, i.fetched())
			})
		})
	}
}

func TestTheIssuerIsDownForAnHour(t *testing.T) {
	bubble(t, func(t *testing.T, i *issuer, s *Set, key *jose.Signer) {
		i.set(func() { i.down = true })
		before := i.fetched()
		for range 3600 {
			time.Sleep(time.Second)
			expect(t, s, key.ID(), 1, nil)
		}
		n := i.fetched() - before
		if n > 12 || n == 0 {
			t.Errorf("it is asked %d times in an hour", n)
		}
		next := signer(t)
		expect(t, s, next.ID(), 0, jose.ErrUnavailable)
		i.set(func() { i.down = false })
		i.publish(next)
		time.Sleep(Cooldown)
		expect(t, s, next.ID(), 1, nil)
		expect(t, s, key.ID(), 0, nil)
		if s.Changes() != 2 {
			t.Errorf("%d changes, want 2", s.Changes())
		}
	})
}

// Beyond MaxStale nothing is known any more.
func TestKeysAreNotStaleForEver(t *testing.T) {
	bubble(t, func(t *testing.T, i *issuer, s *Set, key *jose.Signer) {
		i.set(func() { i.down = true })
		time.Sleep(defaultFresh + MaxStale - time.Minute)
		expect(t, s, key.ID(), 1, nil)
		time.Sleep(2 * time.Minute)
		expect(t, s, key.ID(), 0, jose.ErrUnavailable)
		i.set(func() { i.down = false })
		time.Sleep(maxRetry * 2)
		expect(t, s, key.ID(), 1, nil)
	})
}

func TestNoKeysYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, key := newIssuer(t), signer(t)
		i.publish(key)
		i.set(func() { i.down = true })
		s := i.registry(t).Acquire(place)
		synctest.Wait()
		for range 5 {
			expect(t, s, key.ID(), 0, jose.ErrUnavailable)
			expect(t, s, "", 0, jose.ErrUnavailable)
		}
		if i.fetched() != 1 {
			t.Errorf("%d fetches, want 1", i.fetched())
		}
		i.set(func() { i.down = false })
		time.Sleep(Cooldown) // then a request asks again
		expect(t, s, key.ID(), 1, nil)
	})
}

// A key that is asked for while its fetch ends is found, however close that is.
func TestAKeyIsFoundAsItComes(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			i, key := newIssuer(t), signer(t)
			i.publish(key)
			s := i.registry(t).Acquire(place)
			var all sync.WaitGroup
			for range 16 {
				all.Go(func() {
					for range 50 {
						expect(t, s, key.ID(), 1, nil)
					}
				})
			}
			all.Wait()
		})
	}
}

// A request does not wait longer than Wait, and the fetch goes on.
func TestASlowIssuer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, key := newIssuer(t), signer(t)
		jwk, _ := key.JWK()
		i.handler = func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(4 * time.Second):
				fmt.Fprintf(w, `{"keys":[%s]}`, jwk)
			case <-r.Context().Done():
			}
		}
		s := i.registry(t).Acquire(place)
		start := time.Now()
		expect(t, s, key.ID(), 0, jose.ErrUnavailable)
		if took := time.Since(start); took != Wait {
			t.Errorf("it waits %v, want %v", took, Wait)
		}
		expect(t, s, key.ID(), 0, jose.ErrUnavailable)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		expect(t, s, key.ID(), 1, nil)
	})
}

func TestFreshness(t *testing.T) {
	for _, c := range []struct {
		cache       string
		least, most int // fetches in a day, the first included
	}{
		// The next fetch is after 5/8 to 6/8 of the freshness.
		{"", 32, 40},
		{"max-age=3600", 32, 40},
		{"public, MAX-AGE=\"7200\"", 16, 21},
		{"max-age=1", 380, 465},
		{"no-store", 380, 465},
		{"max-age=31536000", 2, 2},
		{"max-age=-5", 380, 465},
		{"max-age=abc", 32, 40},
		{"max-age=99999999999999999999", 32, 40},
	} {
		synctest.Test(t, func(t *testing.T) {
			i := newIssuer(t)
			i.publish(signer(t))
			i.cache = c.cache
			s := i.registry(t).Acquire(place)
			time.Sleep(24 * time.Hour)
			synctest.Wait()
			if n := i.fetched(); n < c.least || n > c.most {
				t.Errorf("%q: %d fetches in a day, want %d to %d", c.cache, n, c.least, c.most)
			}
			if s.Changes() != 1 {
				t.Errorf("%q: the same keys are %d changes", c.cache, s.Changes())
			}
		})
	}
}

func TestRepliesThatAreNotTaken(t *testing.T) {
	reply := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	jwk, _ := signer(t).JWK()
	good := `{"keys":[` + string(jwk) + `]}`
	shared := `{"kty":"oct","k":"` + strings.Repeat("A", 43) + `"}`
	discovery := func(issuer, at string) string { return `{"issuer":"` + issuer + `","jwks_uri":"` + at + `"}` }
	const mine = "http://localhost/realm/"
	for _, c := range []struct {
		name     string
		place    Place
		document http.HandlerFunc // for discovery
		keys     http.HandlerFunc
		want     string // empty: it is taken
	}{
		{"a key set", place, nil, reply(200, good), ""},
		{"404", place, nil, reply(404, good), "answers 404"},
		{"204", place, nil, reply(204, ""), "answers 204"},
		{"a redirect", place, nil, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1/other", http.StatusFound)
		}, "answers 302"},
		{"HTML", place, nil, reply(200, "<html>"), "no object"},
		{"an empty set", place, nil, reply(200, `{"keys":[]}`), "no usable key"},
		{"a secret", place, nil, reply(200, `{"keys":[`+shared+`]}`), "no usable key"},
		{"a secret beside a key", place, nil, reply(200, `{"keys":[`+shared+`,`+string(jwk)+`]}`), ""},
		{"a member twice", place, nil, reply(200, `{"keys":[],"keys":[`+string(jwk)+`]}`), "twice"},
		{"1 MiB", place, nil, reply(200, good+strings.Repeat(" ", maxReply-len(good))), ""},
		{"more than 1 MiB", place, nil, reply(200, good+strings.Repeat(" ", maxReply-len(good)+1)), "longer than"},
		{"discovery", Place{Issuer: mine}, reply(200, discovery(mine, "http://127.0.0.1/jwks")), reply(200, good), ""},
		{"discovery of another issuer", Place{Issuer: mine}, reply(200, discovery("http://localhost/realm", "http://127.0.0.1/jwks")), reply(200, good), "is of the issuer"},
		{"discovery without keys", Place{Issuer: mine}, reply(200, `{"issuer":"`+mine+`"}`), reply(200, good), "no URL"},
		{"discovery of plain text", Place{Issuer: mine}, reply(200, discovery(mine, "http://idp.example/jwks")), reply(200, good), "not https"},
		{"discovery of a file", Place{Issuer: mine}, reply(200, discovery(mine, "file:///etc/passwd")), reply(200, good), "no URL"},
		{"discovery of an odd scheme", Place{Issuer: mine}, reply(200, discovery(mine, "ftp://localhost/jwks")), reply(200, good), "not https"},
		{"discovery with a user", Place{Issuer: mine}, reply(200, discovery(mine, "http://a:b@127.0.0.1/jwks")), reply(200, good), "no URL"},
		{"discovery that is no JSON", Place{Issuer: mine}, reply(200, `x`), reply(200, good), "invalid character"},
		{"discovery that is not there", Place{Issuer: mine}, reply(404, ``), reply(200, good), "answers 404"},
	} {
		synctest.Test(t, func(t *testing.T) {
			i := newIssuer(t)
			i.handler = func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Connection", "close")
				switch r.URL.Path {
				case "/jwks":
					c.keys(w, r)
				case "/realm/.well-known/openid-configuration":
					c.document(w, r)
				default:
					t.Errorf("%s: it asks for %s", c.name, r.URL.Path)
				}
			}
			s := i.registry(t).Acquire(c.place)
			keys, err := s.Keys("")
			if c.want == "" && (err != nil || len(keys) != 1) || c.want != "" && (!errors.Is(err, jose.ErrUnavailable) || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%s: %d keys, %v, want %q", c.name, len(keys), err, c.want)
			}
		})
	}
}

func TestWhereKeysMayBe(t *testing.T) {
	for _, c := range []struct {
		keys, issuer string
		ok           bool
	}{
		{"https://idp.example/jwks", "https://idp.example", true},
		{"https://keys.example/jwks", "https://idp.example", true},
		{"https://keys.example/jwks", "http://localhost:9", true},
		{"http://localhost/jwks", "http://127.0.0.1:9", true},
		{"http://[::1]/jwks", "http://localhost", true},
		{"http://localhost/jwks", "https://idp.example", false}, // nobody outside points to this machine
		{"http://idp.example/jwks", "https://idp.example", false},
		{"http://localhost.evil.example/jwks", "http://localhost", false},
		{"//idp.example/jwks", "https://idp.example", false},
		{"/jwks", "https://idp.example", false},
		{"", "https://idp.example", false},
	} {
		if err := trusted(c.keys, c.issuer); (err == nil) != c.ok {
			t.Errorf("%s of %s: %v", c.keys, c.issuer, err)
		}
	}
}

// A set lives as long as somebody uses it.
func TestASetIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, key := newIssuer(t), signer(t)
		i.publish(key)
		r := i.registry(t)
		first := r.Acquire(place)
		synctest.Wait()
		second := r.Acquire(place)
		r.Release(first)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		n := i.fetched()
		if first != second || n < 20 {
			t.Errorf("after %d fetches, shared %v", n, first == second)
		}
		r.Release(second)
		time.Sleep(24 * time.Hour)
		if i.fetched() != n {
			t.Errorf("it is fetched %d times more, for nobody", i.fetched()-n)
		}
		if third := r.Acquire(place); third == first {
			t.Error("a set that was closed is used again")
		}
	})
}

// A configuration that is only tried out fetches nothing; one that stays has the keys
// before anybody asks, and at once when somebody does.
func TestATrialFetchesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, key := newIssuer(t), signer(t)
		i.publish(key)
		r := New(Options{Settle: time.Second, Transport: &http.Transport{DialContext: i.dial}})
		s := r.Acquire(place)
		time.Sleep(time.Second - 1)
		r.Release(s)
		time.Sleep(time.Hour)
		if i.fetched() != 0 {
			t.Errorf("%d fetches of a set that was let go", i.fetched())
		}
		s = r.Acquire(place)
		time.Sleep(time.Second)
		synctest.Wait()
		if keys, err := s.Quiet().Keys(""); i.fetched() != 1 || len(keys) != 1 {
			t.Errorf("a set that stays: %d fetches, %d keys, %v", i.fetched(), len(keys), err)
		}
		r.Release(s)
		s = r.Acquire(place)
		expect(t, s, "", 1, nil)
		time.Sleep(Cooldown)
		if i.fetched() != 2 {
			t.Errorf("%d fetches for a token that comes first, want one and no other behind it", i.fetched()-1)
		}
		r.Release(s)
		_ = r.Close()
	})
}

func TestNothingIsFetchedOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		r := New(Options{Offline: true, Transport: &http.Transport{DialContext: i.dial}})
		s := r.Acquire(place)
		for range 5 {
			expect(t, s, "", 0, jose.ErrUnavailable)
			expect(t, s, "any", 0, jose.ErrUnavailable)
			time.Sleep(time.Hour)
		}
		if i.fetched() != 0 {
			t.Errorf("%d fetches", i.fetched())
		}
		_ = r.Close()
	})
}
