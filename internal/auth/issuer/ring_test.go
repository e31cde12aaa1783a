package issuer

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth/jose"
	"github.com/sluice-gateway/sluice/internal/store"
)

// published is the key set that a server publishes, as others read it.
func published(t *testing.T, s *Server) []jose.Key {
	t.Helper()
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	body := s.Keys().Body
	if err := json.Unmarshal(body, &set); err != nil {
		t.Fatal(err)
	}
	if len(set.Keys) == 0 {
		return nil
	}
	if strings.Contains(string(body), `"d"`) {
		t.Fatalf("private halves are published: %s", body)
	}
	keys, err := jose.ParseKeys(body)
	if err != nil || len(keys) != len(set.Keys) {
		t.Fatalf("%d of %d keys: %v", len(keys), len(set.Keys), err)
	}
	return keys
}

// Two gateways sign for 65 days. A verifier elsewhere reads the key set once a day;
// the other gateway sees each token at once and when it is nearly at its end. None is
// ever refused.
func TestKeysAreReplacedWithoutARefusedToken(t *testing.T) {
	for _, algorithm := range []string{"ES256", "EdDSA"} {
		t.Run(algorithm, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { replaceKeys(t, algorithm) }) })
	}
}

func replaceKeys(t *testing.T, algorithm string) {
	const days, step, rest = 65, 29 * time.Minute, 5 * time.Hour
	m := newMemory(time.Now)
	o := settings(somePeople())
	o.Algorithm = algorithm
	i1, s1 := gateway(t, m, time.Now, o)
	_, s2 := gateway(t, m, time.Now, o)
	rules := jose.Rules{Issuer: issuerURL, Audience: []string{issuerURL}, Algorithms: []string{algorithm}, Types: []string{"at+jwt"}}
	var elsewhere jose.Keys
	var read time.Time
	kids := map[string]int{}
	old := map[*Server]string{}
	tokens := 0
	for end := time.Now().Add(days * 24 * time.Hour); time.Now().Before(end); time.Sleep(step) {
		if tokens%4 == 0 {
			time.Sleep(rest)
			clear(old)
		}
		if time.Since(read) >= 24*time.Hour {
			elsewhere, read = published(t, s1), time.Now()
		}
		for s, other := range map[*Server]*Server{s1: s2, s2: s1} {
			token, _, err := s.sign(&Client{ID: "acme", Key: "k1"}, nil, newName(), time.Now())
			if err != nil {
				t.Fatal(err)
			}
			v, err := rules.Verify(token, elsewhere, time.Now())
			if err != nil {
				t.Fatalf("%v before the end: a verifier with a day old key set refuses: %v", time.Until(end), err)
			}
			for _, token := range []string{string(token), old[s]} {
				if token == "" {
					continue
				}
				if err := usable(other, token, time.Now()); err != nil {
					t.Fatalf("%v before the end: the other gateway refuses: %v", time.Until(end), err)
				}
			}
			old[s] = string(token)
			kids[v.KeyID]++
			tokens++
		}
	}
	t.Logf("%d tokens of %d keys", tokens, len(kids))
	if len(kids) != 3 || len(m.keys(keyPrefix)) > 2 || len(i1.ring.now.Load().all) > 2 {
		t.Errorf("%d keys, of which %v are recorded", len(kids), m.keys(keyPrefix))
	}
}

// With a lifetime of 40 days tokens outlast the turn of two keys.
func TestAKeyStaysAsLongAsWhatItHasSigned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(time.Now)
		o := settings(somePeople())
		_, short := gateway(t, m, time.Now, o)
		o.AccessTTL = 40 * 24 * time.Hour
		_, long := gateway(t, m, time.Now, o)
		token := first(t, long, "k1").access
		for day := range 40 {
			if err := usable(short, token, time.Now()); err != nil {
				t.Fatalf("day %d: %v", day, err)
			}
			time.Sleep(24 * time.Hour)
		}
		if err := usable(short, token, time.Now()); err == nil {
			t.Error("it holds for ever")
		}
	})
}

func TestGatewaysThatStartTogetherHaveOneKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(time.Now)
		var all []*Server
		done := make(chan *Server)
		o := settings(somePeople())
		for range 8 {
			i := New(Options{})
			i.Keep(m)
			t.Cleanup(func() { _ = i.Close(context.Background()) })
			go func() {
				s, err := i.Serve(o)
				if err != nil {
					t.Error(err)
				}
				done <- s
			}()
		}
		for range 8 {
			all = append(all, <-done)
		}
		if n := m.keys(keyPrefix); len(n) != 1 {
			t.Fatalf("they have made %v", n)
		}
		for _, s := range all {
			if err := usable(all[0], first(t, s, "k1").access, time.Now()); err != nil {
				t.Error(err)
			}
			s.Close()
		}
	})
}

// A change of the algorithm leaves what the old keys have signed.
func TestAnotherAlgorithm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(time.Now)
		o := settings(somePeople())
		i, s := gateway(t, m, time.Now, o)
		token := first(t, s, "k1").access
		o.Algorithm = "EdDSA"
		next, err := i.Serve(o)
		if err != nil {
			t.Fatal(err)
		}
		defer next.Close()
		s.Close()
		if err := usable(next, token, time.Now()); err != nil {
			t.Errorf("the token from before: %v", err)
		}
		if err := usable(s, first(t, next, "k1").access, time.Now()); err != nil {
			t.Errorf("the token from after: %v", err)
		}
		if n := len(published(t, next)); n != 2 {
			t.Errorf("%d keys", n)
		}
		time.Sleep(33 * 24 * time.Hour)
		for _, k := range published(t, next) {
			if k.Algorithm != "EdDSA" {
				t.Errorf("a key of %s is still there", k.Algorithm)
			}
		}
	})
}

// The store loses everything, then comes back with the state of an hour ago.
func TestAStoreThatWasPutBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(time.Now)
		o := settings(somePeople())
		_, s := gateway(t, m, time.Now, o)
		revokedToken, kept := first(t, s, "k1"), first(t, s, "k1")
		before := m.records
		m.mu.Lock()
		m.records = map[string]store.Record{}
		for k, r := range before {
			m.records[k] = r
		}
		m.mu.Unlock()
		if r := s.Revoke(t.Context(), ask("k1", "token="+revokedToken.access)); r.Status != 200 {
			t.Fatal(r)
		}
		for name, old := range map[string]map[string]store.Record{"nothing": {}, "an hour ago": before} {
			m.mu.Lock()
			m.records = old
			m.mu.Unlock()
			m.tell()
			time.Sleep(2 * time.Second)
			_, fresh := gateway(t, m, time.Now, o) // another gateway, which knows only the store
			for who, g := range map[string]*Server{"this gateway": s, "a new one": fresh} {
				if err := usable(g, kept.access, time.Now()); err != nil {
					t.Errorf("%s: %s refuses a good token: %v", name, who, err)
				}
				if err := usable(g, revokedToken.access, time.Now()); err == nil {
					t.Errorf("%s: %s accepts a revoked token", name, who)
				}
			}
			if a := refresh(t, fresh, "k1", revokedToken.refresh); a.code != "invalid_grant" {
				t.Errorf("%s: what was revoked can be refreshed: %+v", name, a)
			}
		}
	})
}

// A gateway that started while the store was empty has made another key of the same
// number. The older gateway signs with that from now on, and knows its own for the sake
// of the tokens that there are.
func TestTwoKeysOfOneNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(time.Now)
		o := settings(somePeople())
		i, s := gateway(t, m, time.Now, o)
		before := first(t, s, "k1").access
		synctest.Wait() // it has heard of its own records: they are gone for the other alone
		m.mu.Lock()
		m.records = map[string]store.Record{}
		m.mu.Unlock()
		_, fresh := gateway(t, m, time.Now, o)
		for range 3 {
			m.tell()
			time.Sleep(2 * time.Second)
			after := first(t, s, "k1").access
			for name, token := range map[string]string{"before": before, "after": after} {
				if err := usable(s, token, time.Now()); err != nil {
					t.Errorf("the token from %s: %v", name, err)
				}
			}
			if err := usable(fresh, after, time.Now()); err != nil {
				t.Errorf("the other gateway: %v", err)
			}
			if n := len(published(t, s)); n != 2 {
				t.Errorf("%d keys", n)
			}
		}
		if err := i.tend(t.Context(), map[string]time.Duration{"ES256": 48 * time.Hour}); err != nil {
			t.Error(err)
		}
		if n := m.keys(keyPrefix); len(n) != 1 {
			t.Errorf("records %v", n)
		}
	})
}

// What was verified once is looked at for as long as it is used: the key that has
// signed it may end, also after the records were read again.
func TestAVerifiedTokenEndsWithTheKeyThatHasSignedIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(time.Now)
		i, s := gateway(t, m, time.Now, settings(somePeople()))
		a, err := s.Verify([]byte(first(t, s, "k1").access), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := i.ring.load(t.Context(), m, time.Now(), i.log); err != nil {
			t.Fatal(err)
		}
		if err := s.Live(a); err != nil {
			t.Fatal(err)
		}
		if err := i.ring.sweep(t.Context(), m, nil, time.Now().Add(100*24*time.Hour)); err != nil {
			t.Fatal(err)
		}
		if err := s.Live(a); err != errKeyGone {
			t.Error(err)
		}
	})
}

func TestADamagedKeyIsLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(time.Now)
		o := settings(somePeople())
		_, s := gateway(t, m, time.Now, o)
		token := first(t, s, "k1").access
		good := m.records[keyPrefix+"ES256.1"].Value
		for name, value := range map[string]string{
			"no JSON": "x", "no key": `{"kid":"a","alg":"ES256","number":7}`,
			"another number":    string(good),
			"another algorithm": strings.ReplaceAll(strings.ReplaceAll(string(good), "ES256", "RS256"), `"number":1`, `"number":7`),
		} {
			key := keyPrefix + "ES256.7"
			if name == "another algorithm" {
				key = keyPrefix + "RS256.7"
			}
			m.records[key] = store.Record{Key: key, Value: []byte(value), Version: 1}
			_, fresh := gateway(t, m, time.Now, o)
			if err := usable(fresh, token, time.Now()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if n := len(published(t, fresh)); n != 1 {
				t.Errorf("%s: %d keys", name, n)
			}
			delete(m.records, key)
		}
	})
}

// counting counts how often all keys are read.
type counting struct {
	*memory
	reads atomic.Int64
}

func (c *counting) All(ctx context.Context, prefix string, yield func(store.Record) bool) error {
	if prefix == keyPrefix {
		c.reads.Add(1)
	}
	return c.memory.All(ctx, prefix, yield)
}

func TestForgedKeyIDsCauseOneReadInACooldown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counting{memory: newMemory(time.Now)}
		i := New(Options{})
		i.Keep(c)
		o := settings(somePeople())
		s, err := i.Serve(o)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { s.Close(); _ = i.Close(t.Context()) }()
		_, other := gateway(t, nil, time.Now, o)
		forged := first(t, other, "k1").access
		from := c.reads.Load()
		for n := range 10_000 {
			if err := usable(s, forged, time.Now()); err == nil || isAway(err) {
				t.Fatal(err)
			}
			if n%1000 == 999 {
				time.Sleep(100 * time.Millisecond)
			}
		}
		if n := c.reads.Load() - from; n > 2 {
			t.Errorf("%d reads in one second", n)
		}
		// A key that another gateway has made a moment ago is found, though nobody has told.
		time.Sleep(cooldown)
		k, err := newKey("ES256", 2, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if err := i.ring.write(t.Context(), c, k, 0); err != nil {
			t.Fatal(err)
		}
		if keys, err := i.Keys(k.id); len(keys) != 1 || err != nil {
			t.Errorf("%v, %v", keys, err)
		}
	})
}

func TestOfflineNothingIsMade(t *testing.T) {
	m := newMemory(time.Now)
	i := New(Options{Offline: true})
	i.Keep(m)
	s, err := i.Serve(settings(somePeople()))
	if err != nil {
		t.Fatal(err)
	}
	if n := m.keys(""); len(n) != 0 {
		t.Errorf("%v", n)
	}
	if _, err := s.Verify([]byte("a.b.c"), time.Now()); !isAway(err) {
		t.Error(err)
	}
	s.Close()
	if err := i.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if !slices.Equal(i.servers, nil) {
		t.Error("a server is left")
	}
}
