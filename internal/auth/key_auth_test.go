package auth

import (
	"errors"
	"hash/crc32"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth/apikey"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/store"
)

// asking is a request at noon with fields, names and values in turn.
func asking(query string, fields ...string) *exchange.Exchange {
	x := &exchange.Exchange{Conn: &exchange.Conn{}, Start: noon, Client: netip.MustParseAddr("192.0.2.1")}
	x.Request.Query, x.Request.HasQuery = []byte(query), query != ""
	for i := 0; i < len(fields); i += 2 {
		x.Request.Header.Add([]byte(fields[i]), []byte(fields[i+1]))
	}
	return x
}

func at(now time.Time) func() time.Time { return func() time.Time { return now } }

func TestKeysAreChecked(t *testing.T) {
	var c cabinet
	d := gatewayOn(t, &c, at(noon)).start()
	defer d.close()
	_, made := d.issue(Key{Client: "made", Permissions: []string{"users:*"}})
	_, forDeclared := d.issue(Key{Client: "acme"})
	revoked, revokedText := d.issue(Key{Client: "made"})
	if err := d.RevokeKey(t.Context(), revoked.ID); err != nil {
		t.Fatal(err)
	}
	orphaned, orphan := d.issue(Key{Client: "gone"})
	if _, err := d.ChangeClient(t.Context(), "made", func(c *config.Client) error {
		c.Plan, c.Permissions = "gold", []string{"users:read", "jobs:run"}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	_, misfit := d.issue(Key{Client: "misfit"})
	if _, err := d.ChangeClient(t.Context(), "misfit", func(c *config.Client) error { c.Plan = "none such"; return nil }); err != nil {
		t.Fatal(err)
	}
	inFile, hashed, past := newKey(t), newKey(t), noon
	f := &config.File{
		Plans: map[string]*config.Plan{"gold": {}},
		Clients: []config.Client{{ID: "acme", Permissions: []string{"users:read"}, Keys: []config.ClientKey{
			{Name: "own", Value: config.NewSecret(inFile)},
			{Name: "hash", Hash: hashOf(hashed)},
			{Name: "other", Value: config.NewSecret("of-another-shape-entirely")},
			{Value: config.NewSecret("of-another-shape-expired"), ExpiresAt: &past},
		}}},
	}
	k, r := keysOf(t, d.engine, f, &config.Authenticator{APIKey: &config.APIKeyAuth{From: []string{"header:X-Api-Key", "query:api_key", "cookie:key"}}})
	if _, err := d.ChangeClient(t.Context(), "gone", func(c *config.Client) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := c.drawers[0].removeOnly(clientPrefix + "gone"); err != nil {
		t.Fatal(err)
	}
	d.changed(nil)
	for _, c := range []struct {
		name, key   string
		want        string // the client, or the code of the refusal
		permissions []string
		why         string // of the refusal
	}{
		{"made here", made, "made", []string{"users:read"}, ""},
		{"made for a client of the file", forDeclared, "acme", []string{"users:read"}, ""},
		{"in the file", inFile, "acme", []string{"users:read"}, ""},
		{"its hash in the file", hashed, "acme", []string{"users:read"}, ""},
		{"of another shape", "of-another-shape-entirely", "acme", []string{"users:read"}, ""},
		{"of another shape, expired", "of-another-shape-expired", "unauthenticated", nil, "the key config:acme/3 of acme has run out, on 2026-11-25T12:00:00Z"},
		{"revoked", revokedText, "unauthenticated", nil, "the key " + revoked.ID + " of made is revoked"},
		{"of a client that is gone", orphan, "unauthenticated", nil, `the client "gone" that the key ` + orphaned.ID + ` was made for is not there any more`},
		{"of a client with a plan that there is not", misfit, "forbidden", nil, `misfit has the plan "none such", which there is not`},
		{"unknown", newKey(t), "unauthenticated", nil, "no client has this key"},
		{"of another shape, unknown", "of-another-shape-unknown", "unauthenticated", nil, "no client has this key"},
		{"empty", "", "unauthenticated", nil, "no client has this key"},
		{"a digit changed", made[:20] + "!" + made[21:], "unauthenticated", nil, "the checksum of the key is wrong"},
		{"another secret, the checksum left", made[:60] + made[61:] + "0", "unauthenticated", nil, "the checksum of the key is wrong"},
		{"another id, the checksum right", resecret(made, "slk_000000000000"+made[16:]), "unauthenticated", nil, "no client has this key"},
		{"in the file, with another id", resecret(inFile, "slk_000000000000"+inFile[16:]), "unauthenticated", nil, "no client has this key"},
		{"the prefix alone", "slk_", "unauthenticated", nil, "the checksum of the key is wrong"},
		{"without the prefix", strings.ReplaceAll(made[4:60], "_", ""), "unauthenticated", nil, "no client has this key"},
		{"its digest", hashOf(made), "unauthenticated", nil, "no client has this key"},
		{"twice", made + ", " + made, "unauthenticated", nil, "the checksum of the key is wrong"},
		{"too long", strings.Repeat("x", maxKey+1), "unauthenticated", nil, "no key is that long"},
	} {
		for _, x := range []*exchange.Exchange{
			asking("", "x-api-key", c.key),
			asking("a=1&api_key=" + strings.NewReplacer("!", "%21", ":", "%3a", ", ", "%2C+").Replace(c.key)),
			asking("", "Cookie", "a=b; key="+c.key+"; c=d"),
		} {
			found := k.find(x)
			if string(found) != c.key || found == nil {
				t.Errorf("%s: found %q", c.name, found)
			}
			for range 2 { // cold, then warm
				who, err := k.check(x, found, false)
				got, why := "", ""
				if err != nil {
					e := exchange.AsError(err)
					got, why = e.Code.String(), e.Cause.Error()
				} else if got = who.ID; !slices.Equal(who.Permissions, c.permissions) || who.Authenticator != "" {
					t.Errorf("%s: %+v", c.name, who)
				}
				if got != c.want || why != c.why {
					t.Errorf("%s: %s, %s, want %s, %s", c.name, got, why, c.want, c.why)
				}
			}
			k.strip(x)
			if x.Request.Header.GetID(exchange.XAPIKey) != nil || strings.Contains(string(x.Request.Query), "api_key") || strings.Contains(string(x.Request.Header.GetID(exchange.Cookie)), "key=") {
				t.Errorf("%s: it is forwarded", c.name)
			}
		}
	}
	if got := k.find(asking("a=b", "Accept", "*/*")); got != nil {
		t.Errorf("found %q where there is none", got)
	}
	for id, want := range map[string]bool{"config:acme/own": true, "config:acme/3": false, "config:acme/4": false, revoked.ID: false, "": false} {
		if r.live(id) != want {
			t.Errorf("%s is alive: %v", id, !want)
		}
	}
	holder, err := r.verify([]byte(made), noon)
	if err != nil || !r.live(holder.id) {
		t.Fatal(err)
	}
	if who, err := r.holder(holder); err != nil || who.ID != "made" || who.Plan != "gold" || !slices.Equal(who.Permissions, []string{"users:read"}) {
		t.Errorf("%+v, %v", who, err)
	}
}

// removeOnly takes a record away as if that were all that had been done.
func (d *drawer) removeOnly(key string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.records[key]; !ok {
		return errors.New("it was not there")
	}
	delete(d.records, key)
	return nil
}

func TestAKeyInTheAuthorizationField(t *testing.T) {
	k, _ := keysOf(t, New(Options{}), &config.File{}, &config.Authenticator{APIKey: &config.APIKeyAuth{From: []string{"header:Authorization"}}})
	for value, want := range map[string]string{"slk_1": "slk_1", "Bearer slk_1": "slk_1", "bearer  slk_1": "slk_1", "Basic c2xr": "", "ApiKey slk_1": ""} {
		if got := k.find(asking("", "Authorization", value)); string(got) != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

func TestJoinAndForwardAreHeeded(t *testing.T) {
	no, yes := false, true
	f := &config.File{Clients: []config.Client{{ID: "acme", Plan: "x", Permissions: []string{"p"}, Keys: []config.ClientKey{{Name: "n", Value: config.NewSecret("key-of-acme-in-clear")}}}}}
	k, _ := keysOf(t, New(Options{}), f, &config.Authenticator{Join: &no, Forward: &yes})
	x := asking("", "X-Api-Key", "key-of-acme-in-clear")
	who, err := k.check(x, k.find(x), false)
	if err != nil || !reflect.DeepEqual(who, &exchange.Caller{Authenticator: "keys", ID: "acme", Key: "n"}) {
		t.Errorf("%+v, %v", who, err)
	}
	if k.strip(x); x.Request.Header.GetID(exchange.XAPIKey) == nil {
		t.Error("it is not forwarded")
	}
}

func TestExplainNotesNoUse(t *testing.T) {
	d := gatewayOn(t, &cabinet{}, at(noon)).start()
	defer d.close()
	k, text := d.issue(Key{Client: "acme"})
	a, _ := keysOf(t, d.engine, &config.File{}, &config.Authenticator{})
	for _, dry := range []bool{true, false} {
		x := asking("", "X-Api-Key", text)
		if _, err := a.check(x, a.find(x), dry); err != nil {
			t.Fatal(err)
		}
		if got, err := d.Key(t.Context(), k.ID); err != nil || got.LastUsedAt.IsZero() != dry {
			t.Errorf("dry %v: used at %v, %v", dry, got.LastUsedAt, err)
		}
	}
}

// TestAChangedClientIsSeen has two configurations at once resolve the same key, as
// while one replaces the other.
func TestAChangedClientIsSeen(t *testing.T) {
	d := gatewayOn(t, &cabinet{}, at(noon)).start()
	defer d.close()
	_, text := d.issue(Key{Client: "acme"})
	plans := map[string]*config.Plan{"a": {}, "b": {}}
	var all []*keyAuth
	for range maxKnown + 2 {
		k, _ := keysOf(t, d.engine, &config.File{Plans: plans}, &config.Authenticator{})
		all = append(all, k)
	}
	for _, plan := range []string{"a", "b", ""} {
		if _, err := d.ChangeClient(t.Context(), "acme", func(c *config.Client) error { c.Plan = plan; return nil }); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			for _, k := range all {
				x := asking("", "X-Api-Key", text)
				if who, err := k.check(x, k.find(x), false); err != nil || who.Plan != plan {
					t.Errorf("%+v, %v, want the plan %q", who, err, plan)
				}
			}
		}
	}
	if err := d.DeleteClient(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	x := asking("", "X-Api-Key", text)
	if _, err := all[0].check(x, all[0].find(x), false); err == nil {
		t.Error("the client is deleted, its key is accepted")
	}
}

func TestStoredKeysCountWithoutAuthenticators(t *testing.T) {
	d := gatewayOn(t, &cabinet{}, at(noon)).start()
	defer d.close()
	k, text := d.issue(Key{Client: "acme", Name: "ci"})
	f, err := d.engine.newAuthenticate(&config.Route{}, &policy.Env{File: &config.File{}})
	if err != nil || f == nil {
		t.Fatal(f, err)
	}
	x := withKey(text)
	if err := f.Request(x); err != nil || idOf(x) != "acme" || x.Caller.Key != "ci" || x.Request.Header.GetID(exchange.XAPIKey) != nil {
		t.Errorf("%v, %+v", err, x.Caller)
	}
	if err := d.RevokeKey(t.Context(), k.ID); err != nil {
		t.Fatal(err)
	}
	x = withKey(text)
	if o := f.Explain(x); o.Reason != "nobody known: the key "+k.ID+" of acme is revoked" || f.Request(x) != nil || x.Caller != nil {
		t.Errorf("%+v, %+v", o, x.Caller)
	}
}

// A configuration without authenticators limits guessing as one with them does, and not
// who shows keys to an upstream of theirs.
func TestGuessingIsLimitedWithoutAuthenticators(t *testing.T) {
	const text = "acme-key-of-20-characters"
	declared := []config.Client{{ID: "acme", Keys: []config.ClientKey{{Value: config.NewSecret(text)}}}}
	for _, c := range []struct {
		name    string
		clients []config.Client
		guess   string
		limited bool
	}{
		{"keys of the gateway's own shape", nil, newKey(t), true},
		{"one with a wrong checksum", nil, newKey(t)[:66] + "~", true},
		{"keys of another shape where some are declared", declared, "another-key-of-20-characters", true},
		{"keys of another shape where none are", nil, "another-key-of-20-characters", false},
		{"no key", declared, "", false},
	} {
		d := gatewayOn(t, &cabinet{}, at(noon)).start()
		_, good := d.issue(Key{Client: "made"})
		f, err := d.engine.newAuthenticate(&config.Route{}, &policy.Env{File: &config.File{Clients: c.clients, Limits: config.Limits{AuthFailures: *guessing(1, time.Minute, 3, "ip")}}})
		if err != nil {
			t.Fatal(err)
		}
		ask := func(address, key string) string {
			x := withKey(key)
			if key == "" {
				x = withKey()
			}
			x.Client = netip.MustParseAddr(address)
			return codeOf(f.Request(x))
		}
		for i := range 5 {
			x := withKey(c.guess)
			x.Client = netip.MustParseAddr("192.0.2.1")
			f.Explain(x) // is no attempt
			want := ""
			if c.limited && i >= 3 {
				want = "rate_limited"
			}
			if got := ask("192.0.2.1", c.guess); got != want {
				t.Errorf("%s: guess %d is answered %q, want %q", c.name, i, got, want)
			}
		}
		want := ""
		if c.limited {
			want = "rate_limited" // before the key is looked at
		}
		if got := ask("192.0.2.1", good); got != want {
			t.Errorf("%s: a good key behind them is answered %q, want %q", c.name, got, want)
		}
		if a, b := ask("192.0.2.2", good), ask("192.0.2.1", ""); a+b != "" {
			t.Errorf("%s: another address %q, without a key %q", c.name, a, b)
		}
		d.close()
	}
}

// What may be a good key, while the store has not been read, is no guess.
func TestAKeyThatCannotBeLookedUpIsNoGuess(t *testing.T) {
	d := gatewayOn(t, &cabinet{}, at(noon))
	d.drawer.fail(store.ErrUnavailable)
	d.start()
	defer d.close()
	f, err := d.engine.newAuthenticate(&config.Route{}, &policy.Env{File: &config.File{Limits: config.Limits{AuthFailures: *guessing(1, time.Minute, 1, "ip")}}})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if err := f.Request(withKey(newKey(t))); err != nil {
			t.Error(err)
		}
	}
	if err := f.Request(withKey("slk_no")); err != nil { // that it is none can be told
		t.Error(err)
	}
	if err := f.Request(withKey("slk_no")); codeOf(err) != "rate_limited" {
		t.Error(err)
	}
}

// manyStored is a gateway with so many stored keys, and the texts of some.
func manyStored(t testing.TB, n int) (*desk, *realm, *keyAuth, []string) {
	d := gatewayOn(t, &cabinet{}, at(noon)).start()
	if _, err := d.CreateClient(t.Context(), config.Client{ID: "acme", Permissions: []string{"users:*"}}); err != nil {
		t.Fatal(err)
	}
	acme, _ := d.names.get("acme")
	var texts []string
	for range n {
		rec, text, err := d.newKey(Key{Client: "acme"}, acme.birth)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, text)
		d.drawer.put(storeRecord(rec))
	}
	d.changed(nil)
	k, r := keysOf(t, d.engine, &config.File{}, &config.Authenticator{})
	return d, r, k, texts
}

func TestAWarmKeyDoesNotAllocate(t *testing.T) {
	d, r, k, texts := manyStored(t, 100)
	defer d.close()
	x := asking("", "X-Api-Key", texts[0])
	id := texts[0][4 : 4+apikey.IDLen]
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := k.check(x, k.find(x), false); err != nil || !r.live(id) {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkKey is find and check for one of 10,000 keys. The budget is 200 ns.
func BenchmarkKey(b *testing.B) {
	d, _, k, texts := manyStored(b, 10_000)
	defer d.close()
	x := asking("", "Accept", "*/*", "X-Api-Key", texts[1])
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.check(x, k.find(x), false); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLive(b *testing.B) {
	d, r, _, texts := manyStored(b, 10_000)
	defer d.close()
	id := texts[1][4 : 4+apikey.IDLen]
	b.ReportAllocs()
	for b.Loop() {
		if !r.live(id) {
			b.Fatal()
		}
	}
}

// resecret is a key with the checksum of another text.
func resecret(key, text string) string {
	b := []byte(text[:len(key)-7] + "_000000")
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	c := crc32.Checksum(b[:len(b)-7], crc32.MakeTable(crc32.Castagnoli))
	for i := range 6 {
		b[len(b)-1-i] = digits[c%62]
		c /= 62
	}
	return string(b)
}
