package auth

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/store"
)

// keyOn is what authenticators of keys make of a key under a configuration with these
// clients: with join, without, and where there are no authenticators, of which all say
// the same but that the last lets nobody in particular pass.
func (d *desk) keyOn(text, id string, clients ...config.Client) string {
	d.t.Helper()
	answers := map[string]bool{}
	for _, join := range []bool{true, false} {
		k, r := keysOf(d.t, d.engine, &config.File{Clients: clients}, &config.Authenticator{Join: &join})
		x := asking("", "X-Api-Key", text)
		who, err := k.check(x, k.find(x), false)
		if err != nil {
			answers[exchange.AsError(err).Code.String()] = true
		} else {
			answers[who.ID] = true
		}
		if r.live(id) != (err == nil) {
			d.t.Errorf("live says %v of a key that is answered %v", r.live(id), err)
		}
		_ = r.release()
	}
	f, err := d.engine.newAuthenticate(&config.Route{}, &policy.Env{File: &config.File{Clients: clients}})
	if err != nil {
		d.t.Fatal(err)
	}
	x := withKey(text)
	if err := f.Request(x); err != nil {
		d.t.Error(err)
	}
	if x.Caller != nil {
		answers[x.Caller.ID] = true
	} else {
		answers["unauthenticated"] = true
	}
	if len(answers) != 1 {
		d.t.Errorf("not all say the same: %v", answers)
	}
	for a := range answers {
		return a
	}
	return ""
}

func (d *desk) orphan(id string) bool {
	d.t.Helper()
	k, err := d.Key(d.t.Context(), id)
	if err != nil {
		d.t.Fatal(err)
	}
	return k.Orphan
}

// A key that was made for a client of the file is nobody's once the client has left the
// file. Who makes another client of that id does not get it; the file can bring it back.
func TestAKeyHasNobodyOnceItsClientIsGone(t *testing.T) {
	c := &cabinet{}
	d := gatewayOn(t, c, at(noon)).start()
	acme := config.Client{ID: "acme"}
	old, text, err := d.CreateKey(t.Context(), Key{Client: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(when string, d *desk, id, text, want string, orphan bool, clients ...config.Client) {
		t.Helper()
		if got := d.keyOn(text, id, clients...); got != want {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
		if got := d.orphan(id); got != orphan {
			t.Errorf("%s: orphan %v", when, got)
		}
	}
	expect("while it is declared", d, old.ID, text, "acme", true, acme)
	expect("when it has left the file", d, old.ID, text, "unauthenticated", true)

	made, newer := d.issue(Key{Client: "acme"}) // makes the client, too
	next, rotated, _, err := d.RotateKey(t.Context(), old.ID, time.Hour)
	if err != nil {
		t.Fatal(err) // the admin API refuses it; if it comes to it, it must not help
	}
	other := gatewayOn(t, c, at(noon)).start() // has read all records anew
	defer other.close()
	d.changed(nil)
	for name, g := range map[string]*desk{"here": d, "elsewhere": other} {
		expect("another of that id was made, "+name, g, old.ID, text, "unauthenticated", true)
		expect("its successor, "+name, g, next.ID, rotated, "unauthenticated", true)
		expect("a key of the other, "+name, g, made.ID, newer, "acme", false)
		expect("declared again, "+name, g, old.ID, text, "acme", true, acme)
		expect("declared over the other, "+name, g, made.ID, newer, "acme", false, acme)
	}
	if err := d.RevokeKey(t.Context(), old.ID); err != nil {
		t.Fatal(err)
	}
	expect("revoked", d, old.ID, text, "unauthenticated", true, acme)
	if err := d.DeleteClient(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{old.ID, next.ID, made.ID} {
		if k, err := d.Key(t.Context(), id); err != nil || k.RevokedAt.IsZero() {
			t.Errorf("of a client that was deleted: %+v, %v", k, err)
		}
	}
	d.close()
}

// A key that another gateway makes while its client is deleted is revoked by nobody. The
// next client of that id does not get it.
func TestAKeyThatMissedItsClientsEnd(t *testing.T) {
	c := &cabinet{}
	d := gatewayOn(t, c, at(noon)).start()
	defer d.close()
	d.issue(Key{Client: "acme"})
	first, _ := d.names.get("acme")
	rec, text, err := d.newKey(Key{Client: "acme"}, first.birth)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.DeleteClient(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	d.drawer.put(storeRecord(rec))
	d.changed([]string{keyPrefix + rec.ID})
	if got := d.keyOn(text, rec.ID); got != "unauthenticated" {
		t.Errorf("without a client: %s", got)
	}
	d.issue(Key{Client: "acme"})
	second, _ := d.names.get("acme")
	if got := d.keyOn(text, rec.ID); got != "unauthenticated" || first.birth == second.birth || first.birth == "" {
		t.Errorf("with the next client: %s; born %q and %q", got, first.birth, second.birth)
	}
	if _, err := d.ChangeClient(t.Context(), "acme", func(c *config.Client) error { c.Permissions = []string{"a"}; return nil }); err != nil {
		t.Fatal(err)
	}
	if third, _ := d.names.get("acme"); third.birth != second.birth {
		t.Error("a client that is changed is another")
	}
}

// Records of before there were births are of one client and its keys.
func TestRecordsWithoutABirthHoldTogether(t *testing.T) {
	c := &cabinet{}
	d := gatewayOn(t, c, at(noon)).start()
	defer d.close()
	k, text := d.issue(Key{Client: "acme"})
	for _, key := range []string{clientPrefix + "acme", keyPrefix + k.ID} {
		r, err := d.drawer.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		var v map[string]any
		if err := json.Unmarshal(r.Value, &v); err != nil || v["birth"] == "" {
			t.Fatal(v, err)
		}
		delete(v, "birth")
		r.Value, _ = json.Marshal(v)
		d.drawer.put(r)
	}
	d.changed(nil)
	if got := d.keyOn(text, k.ID); got != "acme" || d.orphan(k.ID) {
		t.Errorf("%s, orphan %v", got, d.orphan(k.ID))
	}
}

// A key whose client cannot be read may be a good one.
func TestAKeyWhoseClientCannotBeReadIsNotRefusedForGood(t *testing.T) {
	d := gatewayOn(t, &cabinet{}, at(noon)).start()
	defer d.close()
	_, text, err := d.CreateKey(t.Context(), Key{Client: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	k, r := keysOf(t, d.engine, &config.File{}, &config.Authenticator{})
	defer func() { _ = r.release() }()
	d.drawer.fail(store.ErrUnavailable)
	d.changed([]string{clientPrefix + "acme"})
	x := asking("", "X-Api-Key", text)
	if _, err := k.check(x, k.find(x), false); codeOf(err) != "dependency_unavailable" {
		t.Error(err)
	}
	d.drawer.fail(nil)
	d.changed(nil)
	if _, err := k.check(x, k.find(x), false); codeOf(err) != "unauthenticated" {
		t.Error(err)
	}
}

// Tokens hang on the key that they were granted to, and so on its client.
func TestTokensEndWithTheClientOfTheirKey(t *testing.T) {
	records := new(cabinet)
	drawer := records.open(t)
	defer drawer.close()
	o := openOffice(t, issuing(), drawer, time.Now)
	d := o.engine.Directory()
	if _, err := d.CreateClient(t.Context(), config.Client{ID: "bolt", Permissions: []string{"users:read"}}); err != nil {
		t.Fatal(err)
	}
	k, text, err := d.CreateKey(t.Context(), Key{Client: "bolt"})
	if err != nil {
		t.Fatal(err)
	}
	p := o.grant(k.ID, text)
	if who, _, _ := o.use(p.Access); who != "bolt" {
		t.Fatal(who)
	}
	// It goes without its keys, as one does that leaves the file.
	if _, err := drawer.Apply(context.Background(), []store.Change{{Key: clientPrefix + "bolt", If: store.Always}}); err != nil {
		t.Fatal(err)
	}
	if who := o.becomes(p.Access, "unauthenticated"); who != "unauthenticated" {
		t.Errorf("the client is gone: %s", who)
	}
	if _, err := d.CreateClient(t.Context(), config.Client{ID: "bolt", Permissions: []string{"users:read"}}); err != nil {
		t.Fatal(err)
	}
	if who, _, _ := o.use(p.Access); who != "unauthenticated" {
		t.Errorf("another has its id: %s", who)
	}
	for _, got := range []posted{
		o.post("/oauth/token", k.ID, text, "grant_type=client_credentials"),
		o.post("/oauth/token", k.ID, text, "grant_type=refresh_token", "refresh_token="+p.Refresh),
	} {
		if got.Error == "" || got.Access != "" {
			t.Errorf("there are still tokens: %+v", got)
		}
	}
}
