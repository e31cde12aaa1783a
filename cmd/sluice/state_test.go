package main

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/admin"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/store"
)

const (
	plain = `listeners: [{name: plain, address: "127.0.0.1:0"}]
admin: {address: "127.0.0.1:0"}
log: {access: {output: none}}
upstreams: {hello: {respond: {body: hello}}}
clients: [{id: acme, plan: gold, keys: [{value: acme-key-written-out}]}]
routes: [{name: all, path: "/{rest...}", upstream: hello}]
`
	unlimited = plain + "plans: {gold: {}}\n"
	limited   = plain + "plans: {gold: {quota: {limit: 2, period: month}}}\n"
)

// folder is where a configuration and its state are.
type folder struct {
	t   *testing.T
	dir string
}

func (f folder) parse(text string) *config.File {
	f.t.Helper()
	c, found := config.Parse(filepath.Join(f.dir, "sluice.yaml"), []byte(text), config.Env{})
	if found.Err() != nil {
		f.t.Fatal(found)
	}
	return c
}

func (f folder) start(text string) *node {
	f.t.Helper()
	n, err := start(filepath.Join(f.dir, "sluice.yaml"), f.parse(text), io.Discard, io.Discard)
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}

// stop ends a node as a drain does.
func (f folder) stop(n *node) {
	f.t.Helper()
	if err := n.close(context.Background()); err != nil {
		f.t.Error(err)
	}
	n.lastWords()
}

func (f folder) hasState() bool {
	_, err := os.Stat(filepath.Join(f.dir, "data"))
	return err == nil
}

// ask sends a request of acme and returns the status.
func (f folder) ask(n *node) int {
	f.t.Helper()
	for _, addr := range n.server.Addrs() {
		r, err := http.NewRequest("GET", "http://"+addr.String()+"/", nil)
		if err != nil {
			f.t.Fatal(err)
		}
		r.Header.Set("X-Api-Key", "acme-key-written-out")
		r.Close = true
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			f.t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	f.t.Fatal("no listener")
	return 0
}

func TestStateIsOpenedByTheFirstConfigurationThatNeedsIt(t *testing.T) {
	f := folder{t, t.TempDir()}
	n := f.start(unlimited)
	if f.hasState() {
		t.Error("state was made that nobody needs")
	}
	// What is only looked at opens nothing.
	if found, err := n.Apply(f.parse(limited), admin.Change{DryRun: true}); err != nil || found.Err() != nil || f.hasState() {
		t.Errorf("dry run: %v, %v, state %v", found, err, f.hasState())
	}
	for i, want := range []int{200, 200, 200} {
		if got := f.ask(n); got != want {
			t.Errorf("request %d without a quota: %d", i, got)
		}
	}
	if found := n.take(f.parse(limited)); found.Err() != nil || !f.hasState() {
		t.Fatalf("%v, state %v", found, f.hasState())
	}
	if got := f.ask(n); got != 200 {
		t.Errorf("with a quota of 2: %d", got)
	}
	f.stop(n)

	// The use outlives the process, and a configuration without quotas in between.
	n = f.start(limited)
	for i, want := range []int{200, 429} {
		if got := f.ask(n); got != want {
			t.Errorf("request %d after a restart: %d, want %d", i, got, want)
		}
	}
	if found := n.take(f.parse(unlimited)); found.Err() != nil || f.ask(n) != 200 {
		t.Errorf("without a quota again: %v", found)
	}
	if found := n.take(f.parse(limited)); found.Err() != nil || f.ask(n) != 429 {
		t.Errorf("with the quota back: %v", found)
	}
	f.stop(n)
}

func TestStateThatIsTakenKeepsTheOldConfiguration(t *testing.T) {
	f := folder{t, t.TempDir()}
	n := f.start(unlimited)
	defer f.stop(n)
	other, err := store.OpenFile(filepath.Join(f.dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	running := n.Running()
	found := n.take(f.parse(limited))
	if len(found) != 1 || found[0].Code != "config.state" || !strings.Contains(found[0].Message, "is used by") || n.Running() != running {
		t.Errorf("%v, changed %v", found, n.Running() != running)
	}
	if got := f.ask(n); got != 200 {
		t.Errorf("the old configuration answers %d", got)
	}
	_, err = start(filepath.Join(f.dir, "sluice.yaml"), f.parse(limited), io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "state.dir: ") || !strings.Contains(err.Error(), "is used by") {
		t.Errorf("a second start: %v", err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if found := n.take(f.parse(limited)); found.Err() != nil {
		t.Errorf("when it is free again: %v", found)
	}
}

func TestOnlyAChangeOfStateNeedsARestart(t *testing.T) {
	f := folder{t, t.TempDir()}
	shared := unlimited + "state: {redis: {addresses: [\"127.0.0.1:6379\"], password: one, tls: {enabled: false}}}\n"
	for _, c := range []struct{ was, is, want string }{
		{shared, shared, ""},
		{shared, strings.ReplaceAll(shared, "one", "two"), "state"},
		{shared, unlimited, "state"},
		{unlimited, limited, ""},
		{unlimited, strings.ReplaceAll(unlimited, "admin: {", "admin: {token: t, "), "admin"},
	} {
		if got := needsRestart(f.parse(c.was), f.parse(c.is)); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
