package auth

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/store"
)

var errGone = fmt.Errorf("%w: no connection", store.ErrUnavailable)

func TestAKeyLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := gatewayOn(t, &cabinet{}, time.Now).start()
		defer d.close()
		k, text := d.issue(Key{Client: "acme", Name: "ci", ExpiresAt: time.Now().Add(time.Hour), Permissions: []string{"users:read"}})
		if k.ID == "" || k.Client != "acme" || k.Name != "ci" || !k.Enabled || k.CreatedAt.IsZero() || len(k.Permissions) != 1 || !strings.HasPrefix(text, "slk_"+k.ID+"_") {
			t.Errorf("made %+v", k)
		}
		check := func(want string) {
			t.Helper()
			if got := d.says(text); got != want {
				t.Errorf("the key: %s, want %s", got, want)
			}
			if d.live(k.ID) != (want == "ok") {
				t.Errorf("alive: %v", d.live(k.ID))
			}
		}
		check("ok")
		if got, err := d.EnableKey(t.Context(), k.ID, false); err != nil || got.Enabled {
			t.Errorf("disabled: %+v, %v", got, err)
		}
		check("unauthenticated")
		if got, err := d.EnableKey(t.Context(), k.ID, true); err != nil || !got.Enabled {
			t.Errorf("enabled: %+v, %v", got, err)
		}
		check("ok")
		time.Sleep(time.Hour)
		check("unauthenticated")
		if _, _, _, err := d.RotateKey(t.Context(), k.ID, 0); !errors.Is(err, ErrEnded) {
			t.Errorf("an expired key is rotated: %v", err)
		}

		k, text = d.issue(Key{Client: "acme"})
		for range 2 { // the second time does nothing
			if err := d.RevokeKey(t.Context(), k.ID); err != nil {
				t.Error(err)
			}
			check("unauthenticated")
		}
		if _, err := d.EnableKey(t.Context(), k.ID, true); !errors.Is(err, ErrEnded) {
			t.Errorf("a revoked key is enabled: %v", err)
		}
		got, err := d.Key(t.Context(), k.ID)
		if err != nil || got.RevokedAt.IsZero() || got.Enabled {
			t.Errorf("revoked: %+v, %v", got, err)
		}
		time.Sleep(tombstone + 2*time.Minute)
		if _, err := d.Key(t.Context(), k.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("after 30 days: %v", err)
		}
		check("unauthenticated")
		for what, err := range map[string]error{"revoked": d.RevokeKey(t.Context(), "nothing"), "deleted": d.DeleteClient(t.Context(), "nothing")} {
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("what there is not is %s: %v", what, err)
			}
		}
	})
}

func TestRotationOverlaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := gatewayOn(t, &cabinet{}, time.Now).start()
		defer d.close()
		born := time.Now()
		k, text := d.issue(Key{Client: "acme", Name: "ci", Permissions: []string{}, ExpiresAt: born.Add(10 * time.Hour)})
		time.Sleep(time.Hour)
		next, newText, old, err := d.RotateKey(t.Context(), k.ID, 2*time.Hour)
		if err != nil || next.Name != "ci" || next.Client != "acme" || next.Permissions == nil || !next.ExpiresAt.Equal(born.Add(11*time.Hour)) || !old.ExpiresAt.Equal(born.Add(3*time.Hour)) || next.ID == k.ID {
			t.Errorf("next %+v, old %+v, %v", next, old, err)
		}
		if _, _, _, err := d.RotateKey(t.Context(), k.ID, 0); !errors.Is(err, ErrRotated) || !strings.Contains(err.Error(), next.ID) {
			t.Errorf("rotated twice: %v", err)
		}
		time.Sleep(2*time.Hour - time.Nanosecond)
		if a, b := d.says(text), d.says(newText); a != "ok" || b != "ok" {
			t.Errorf("within the overlap: %s and %s", a, b)
		}
		time.Sleep(time.Nanosecond)
		if a, b := d.says(text), d.says(newText); a != "unauthenticated" || b != "ok" {
			t.Errorf("after the overlap: %s and %s", a, b)
		}
		// An overlap never makes a key live longer.
		if _, _, old, err = d.RotateKey(t.Context(), next.ID, 1000*time.Hour); err != nil || !old.ExpiresAt.Equal(next.ExpiresAt) {
			t.Errorf("%+v, %v", old, err)
		}
	})
}

func TestGatewaysSeeEachOthersChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c cabinet
		a, b := gatewayOn(t, &c, time.Now).start(), gatewayOn(t, &c, time.Now).start()
		defer a.close()
		defer b.close()
		k, text := a.issue(Key{Client: "acme"})
		synctest.Wait()
		if got := b.says(text); got != "ok" {
			t.Errorf("a new key: %s", got)
		}
		if _, err := b.ChangeClient(t.Context(), "acme", func(c *config.Client) error { c.Plan = "gold"; return nil }); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if got, ok := a.client("acme"); !ok || got.Plan != "gold" {
			t.Errorf("a changed client: %+v", got)
		}
		if err := b.RevokeKey(t.Context(), k.ID); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if got := a.says(text); got != "unauthenticated" {
			t.Errorf("a revoked key: %s", got)
		}
		_, text = a.issue(Key{Client: "acme"})
		synctest.Wait()
		if err := b.DeleteClient(t.Context(), "acme"); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if _, ok := a.client("acme"); ok || a.says(text) != "unauthenticated" {
			t.Errorf("a deleted client: %v, %s", ok, a.says(text))
		}
		a.issue(Key{Client: "acme"})
		if got := a.says(text); got != "unauthenticated" {
			t.Errorf("a key of a client that was deleted and made again: %s", got)
		}
		if _, err := b.CreateClient(t.Context(), config.Client{ID: "acme"}); !errors.Is(err, ErrTaken) {
			t.Errorf("the same client again: %v", err)
		}
	})
}

func TestWhileTheStoreIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c cabinet
		a := gatewayOn(t, &c, time.Now).start()
		k, text := a.issue(Key{Client: "acme"})
		a.drawer.fail(errGone)
		if err := a.RevokeKey(t.Context(), k.ID); !errors.Is(err, ErrAway) {
			t.Errorf("revoked: %v", err)
		}
		if _, _, err := a.CreateKey(t.Context(), Key{Client: "acme"}); !errors.Is(err, ErrAway) {
			t.Errorf("made: %v", err)
		}
		if got := a.says(text); got != "ok" {
			t.Errorf("a known key: %s", got)
		}
		if all, err := a.Keys(t.Context(), ""); err != nil || len(all) != 1 {
			t.Errorf("the list: %v, %v", all, err)
		}
		a.drawer.fail(nil)
		defer a.close()

		// Another starts without ever having seen the store.
		b := gatewayOn(t, &c, time.Now)
		b.drawer.fail(errGone)
		b.start()
		defer b.close()
		if got := b.says(text); got != "dependency_unavailable" {
			t.Errorf("a key that may be: %s", got)
		}
		for _, bad := range []string{text[:66] + "!", "slk_x", "of another shape, which nobody makes"} {
			if got := b.says(bad); got != "unauthenticated" {
				t.Errorf("%q: %s", bad, got)
			}
		}
		if _, err := b.Keys(t.Context(), ""); !errors.Is(err, ErrAway) {
			t.Errorf("the list of nothing read: %v", err)
		}
		if _, err := b.Clients(); !errors.Is(err, ErrAway) {
			t.Errorf("the clients of nothing read: %v", err)
		}
		b.drawer.fail(nil)
		time.Sleep(retryAtMost)
		synctest.Wait()
		if got := b.says(text); got != "ok" {
			t.Errorf("when the store is back: %s", got)
		}
		if got := b.says(newKey(t)); got != "unauthenticated" {
			t.Errorf("an unknown key: %s", got)
		}

		// What changed while it was away is found when it says that it may have.
		b.drawer.fail(errGone)
		if err := a.RevokeKey(t.Context(), k.ID); err != nil {
			t.Error(err)
		}
		b.changed(nil)
		if got := b.says(newKey(t)); got != "dependency_unavailable" {
			t.Errorf("an unknown key behind a lost change: %s", got)
		}
		b.drawer.fail(nil)
		time.Sleep(retryAtMost)
		synctest.Wait()
		if got := b.says(text); got != "unauthenticated" {
			t.Errorf("revoked while it was away: %s", got)
		}
	})
}

func TestNothingRevokedComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c cabinet
		a := gatewayOn(t, &c, time.Now).start()
		defer a.close()
		k, text := a.issue(Key{Client: "acme"})
		other, otherText := a.issue(Key{Client: "acme"})
		synctest.Wait()
		c.mu.Lock()
		old := maps.Clone(c.records)
		c.mu.Unlock()
		for _, id := range []string{k.ID, other.ID} {
			if err := a.RevokeKey(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		// A Redis takes over that has not seen the revocations: one is told of, all the
		// others are found.
		c.mu.Lock()
		c.records, c.version = maps.Clone(old), c.version-2
		c.tell([]string{keyPrefix + k.ID})
		c.mu.Unlock()
		synctest.Wait()
		c.mu.Lock()
		c.tell(nil)
		c.mu.Unlock()
		synctest.Wait()
		time.Sleep(retryAtMost)
		synctest.Wait()
		if x, y := a.says(text), a.says(otherText); x != "unauthenticated" || y != "unauthenticated" {
			t.Errorf("here they are %s and %s", x, y)
		}
		b := gatewayOn(t, &c, time.Now).start()
		defer b.close()
		if x, y := b.says(text), b.says(otherText); x != "unauthenticated" || y != "unauthenticated" {
			t.Errorf("for a gateway that starts they are %s and %s", x, y)
		}
		if n := strings.Count(a.log.String(), "forgotten that a key is revoked"); n != 2 {
			t.Errorf("it was logged %d times: %s", n, a.log)
		}
	})
}

func TestLastUseIsWrittenInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c cabinet
		a, b := gatewayOn(t, &c, time.Now).start(), gatewayOn(t, &c, time.Now).start()
		defer b.close()
		var keys []Key
		for range 3 {
			k, text := a.issue(Key{Client: "acme"})
			keys = append(keys, k)
			found, err := a.verify([]byte(text), time.Now())
			if err != nil {
				t.Fatal(err)
			}
			for range 1000 {
				found.touch(time.Now().UnixNano())
			}
		}
		used := time.Now().UTC()
		before := a.drawer.writes()
		time.Sleep(2*flushEvery + time.Second)
		synctest.Wait()
		if n := a.drawer.writes() - before; n != 1 {
			t.Errorf("3,000 uses of 3 keys were written in %d steps", n)
		}
		for _, g := range []*desk{a, b} {
			one, err := g.Key(t.Context(), keys[0].ID)
			all, err2 := g.Keys(t.Context(), "acme")
			if err != nil || err2 != nil || !one.LastUsedAt.Equal(used.Truncate(time.Second)) || len(all) != 3 || all[2].LastUsedAt != one.LastUsedAt {
				t.Errorf("%+v, %+v, %v, %v", one, all, err, err2)
			}
		}
		k, text := a.issue(Key{Client: "acme"})
		found, _ := a.verify([]byte(text), time.Now())
		found.touch(time.Now().UnixNano())
		a.close() // what is not written yet is written now
		synctest.Wait()
		if got, err := b.Key(t.Context(), k.ID); err != nil || got.LastUsedAt.IsZero() {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func TestWithoutAStoreNothingIsMade(t *testing.T) {
	d := New(Options{}).Directory()
	_, err := d.CreateClient(t.Context(), config.Client{ID: "x"})
	_, _, err2 := d.CreateKey(t.Context(), Key{Client: "x"})
	_, err3 := d.Keys(t.Context(), "")
	for _, err := range []error{err, err2, err3, d.RevokeKey(t.Context(), "x")} {
		if !errors.Is(err, ErrNoStore) {
			t.Error(err)
		}
	}
}

func TestDamagedRecordsAreNobodys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c cabinet
		a := gatewayOn(t, &c, time.Now).start()
		defer a.close()
		k, text := a.issue(Key{Client: "acme"})
		synctest.Wait()
		for _, damage := range []string{"", "{", `{"id": "another"}`, `{"id": "` + k.ID + `", "enabled": true, "fingerprint": "00"}`} {
			c.mu.Lock()
			r := c.records[keyPrefix+k.ID]
			r.Value = []byte(damage)
			c.records[r.Key] = r
			c.tell([]string{r.Key})
			c.mu.Unlock()
			synctest.Wait()
			if got := a.says(text); got != "unauthenticated" {
				t.Errorf("%s: %s", damage, got)
			}
		}
		if err := a.RevokeKey(t.Context(), k.ID); err != nil {
			t.Error(err)
		}
		if _, there := c.records[keyPrefix+k.ID]; there {
			t.Error("a damaged record outlives its revocation")
		}
	})
}

func TestTheTableIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table, model := newKeyTable(), map[[32]byte]*credential{}
		var digests [][32]byte
		for i := range rapid.IntRange(1, 40).Draw(t, "keys") {
			// Few parts and few buckets, so that they fill.
			var d [32]byte
			d[0], d[1], d[8], d[31] = byte(rapid.IntRange(0, 1).Draw(t, "part")), byte(rapid.IntRange(0, 63).Draw(t, "bucket"))<<2, byte(i/2), byte(1+i%2)
			digests = append(digests, d)
		}
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			d := rapid.SampledFrom(digests).Draw(t, "digest")
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0, 1, 2:
				c := &credential{digest: d}
				table.put(c)
				model[d] = c
			case 3:
				table.remove(&credential{digest: d})
				delete(model, d)
			case 4:
				var all []*credential
				for _, c := range model {
					all = append(all, c)
				}
				table.replace(all)
			}
			for _, d := range digests {
				c, found := table.find(&d)
				if want := model[d]; want == nil && found != 0 || want != nil && (found != 1 || c != want) {
					t.Fatalf("%x: %p, %d, want %p", d, c, found, want)
				}
			}
		}
	})
}

func TestManyKeysAreFound(t *testing.T) {
	table := newKeyTable()
	var all []*credential
	r := rand.NewChaCha8([32]byte{})
	for range 100_000 {
		c := new(credential)
		_, _ = r.Read(c.digest[:])
		all = append(all, c)
	}
	table.replace(all[:90_000])
	for _, c := range all[90_000:] {
		table.put(c)
	}
	for i, c := range all {
		if got, ok := table.find(&c.digest); ok != 1 || got != c {
			t.Fatalf("key %d is not found", i)
		}
		if i%10 == 0 {
			table.remove(c)
		}
	}
	for i, c := range all {
		if _, ok := table.find(&c.digest); ok != min(1, i%10) {
			t.Fatalf("key %d: %d", i, ok)
		}
	}
	slots := 0
	for i := range table.shards {
		slots += bucketSize * len(table.shards[i].Load().buckets)
	}
	t.Logf("90,000 keys are left in %d places", slots)
}

func TestReadersAndWriters(t *testing.T) {
	var c cabinet
	d := gatewayOn(t, &c, time.Now).start()
	defer d.close()
	_, stays := d.issue(Key{Client: "acme"})
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					runtime.Gosched() // the writer needs its turn
				}
				if got := d.says(stays); got != "ok" {
					t.Errorf("a key that stays: %s", got)
					return
				}
			}
		})
	}
	for range 30 {
		k, text := d.issue(Key{Client: "other"})
		if got := d.says(text); got != "ok" {
			t.Errorf("a new key: %s", got)
		}
		if err := d.RevokeKey(t.Context(), k.ID); err != nil {
			t.Error(err)
		}
		if got := d.says(text); got != "unauthenticated" {
			t.Errorf("a revoked key: %s", got)
		}
		d.changed(nil)
	}
	close(stop)
	readers.Wait()
}
