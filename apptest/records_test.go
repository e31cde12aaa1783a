package apptest

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// recordKey is a key that was made through the admin API, and what is known of it.
type recordKey struct {
	id, key string
	revoked bool
	unclear bool // its revocation was under way when the gateway was killed
}

// recordKeys makes and revokes keys of one client until the gateway is gone.
type recordKeys struct {
	mu   sync.Mutex
	all  []*recordKey
	made int // of calls that were acknowledged
}

func (r *recordKeys) work(g *gateway) {
	for i := 0; ; i++ {
		status, body, err := g.adminTry("POST", "/v1/keys", `{"client": "kept"}`)
		if err != nil {
			return
		}
		var made struct{ ID, Key string }
		if err := json.Unmarshal(body, &made); status != http.StatusCreated || err != nil || made.Key == "" {
			g.t.Errorf("POST /v1/keys: %d %v", status, err)
			return
		}
		k := &recordKey{id: made.ID, key: made.Key}
		r.mu.Lock()
		r.all = append(r.all, k)
		r.made++
		r.mu.Unlock()
		if i%2 == 0 {
			continue
		}
		r.mu.Lock()
		k.unclear = true
		r.mu.Unlock()
		if status, body, err = g.adminTry("DELETE", "/v1/keys/"+k.id, ""); err != nil {
			return
		}
		if status/100 != 2 {
			g.t.Errorf("DELETE /v1/keys/%s: %d %s", k.id, status, body)
			return
		}
		r.mu.Lock()
		k.unclear, k.revoked = false, true
		r.made++
		r.mu.Unlock()
	}
}

// adminTry is adminDo for a gateway that may be killed meanwhile. The error says that
// there was no whole answer.
func (g *gateway) adminTry(method, path, body string) (status int, got []byte, err error) {
	req, err := http.NewRequest(method, g.adminURL(path), strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := g.admin.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	got, err = io.ReadAll(resp.Body)
	return resp.StatusCode, got, err
}

// TestKeysOutliveAKilledGateway kills a gateway again and again while keys are made and
// revoked. Every key that was acknowledged is there behind it, and no revoked one is.
func TestKeysOutliveAKilledGateway(t *testing.T) {
	g := start(t, setup{config: `
listeners: [{name: plain, address: "@PLAIN@"}]
admin: {address: "@ADMIN@"}
state: {dir: data}
log: {access: {output: none}}
limits: {auth_failures: {rate: 100000/s, burst: 100000}}
upstreams: {ok: {respond: {status: 200, body: ok}}}
authenticators: {keys: {api_key: {from: ["header:X-Api-Key"]}}}
routes: [{name: all, path: "/{rest...}", upstream: ok, auth: [keys]}]
`})
	if status, body, err := g.adminTry("POST", "/v1/clients", `{"id": "kept"}`); err != nil || status/100 != 2 {
		t.Fatalf("POST /v1/clients: %d %s %v", status, body, err)
	}
	var keys recordKeys
	const kills = 10
	for n := range kills {
		var work sync.WaitGroup
		for range 2 {
			work.Go(func() { keys.work(g) })
		}
		before := len(keys.snapshot())
		eventually(t, 20*time.Second, func() error {
			if len(keys.snapshot()) < before+10+rand.IntN(3) {
				return errNotYet
			}
			return nil
		})
		g.kill()
		work.Wait()
		if t.Failed() {
			return
		}
		g.again()
		for _, k := range keys.snapshot() {
			if k.unclear {
				continue
			}
			if want := map[bool]int{false: 200, true: 401}[k.revoked]; g.status(k.key) != want {
				t.Fatalf("kill %d: key %s, revoked %v, is answered with %d, want %d", n, k.id, k.revoked, g.status(k.key), want)
			}
		}
	}
	t.Logf("%d keys, %d acknowledged calls, %d kills", len(keys.all), keys.made, kills)
}

func (r *recordKeys) snapshot() []recordKey {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []recordKey
	for _, k := range r.all {
		all = append(all, *k)
	}
	return all
}

// status is what a request with the key is answered with.
func (g *gateway) status(key string) int {
	g.t.Helper()
	k := &caller{addr: g.addr("PLAIN")}
	defer k.hangUp()
	a, err := k.call("GET", "/", fmt.Sprintf("X-Api-Key: %s\r\n", key), "")
	if err != nil {
		g.t.Fatal(err)
	}
	return a.status
}
