package apptest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
)

// keysConfig is a route for keys, with a client of its own; @STATE@ says where those
// of the admin API are kept.
const keysConfig = `
listeners: [{name: plain, address: "@PLAIN@"}]
admin: {address: "@ADMIN@"}
state: @STATE@
log: {access: {output: none}}
limits: {auth_failures: {rate: 1000000/s, burst: 1000000, per: [global]}}
roles: {reader: {permissions: ["users:read"]}}
clients: [{id: declared, keys: [{name: main, value: a-key-that-the-file-declares}]}]
authenticators: {keys: {api_key: {from: ["header:X-Api-Key", "query:api_key"]}}}
upstreams: {ok: {respond: {status: 200, body: ok}}}
routes:
  - {name: open, path: /open, auth: [], upstream: ok}
  - {name: all, path: "/{rest...}", auth: [keys], upstream: ok}
`

func onRedis(r *redistest.Server) setup {
	return setup{config: keysConfig, vars: map[string]string{"STATE": fmt.Sprintf("{redis: {addresses: %s, timeout: 2s}}", redisList(r.Addr()))}}
}

// admitted is the status of a request with a key.
func (g *gateway) admitted(key string) int {
	g.t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+g.addr("PLAIN")+"/x", nil)
	if err != nil {
		g.t.Fatal(err)
	}
	req.Header.Set("X-Api-Key", key)
	resp, err := g.admin.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func (g *gateway) awaitAdmitted(key string, status int, within time.Duration) {
	g.t.Helper()
	eventually(g.t, within, func() error {
		if got := g.admitted(key); got != status {
			return fmt.Errorf("the key is answered %d, want %d", got, status)
		}
		return nil
	})
}

type madeKey struct{ ID, Key, Client string }

// makeKey makes a key of a client that there is.
func (g *gateway) makeKey(client string) madeKey {
	g.t.Helper()
	resp, body := g.adminDo("POST", "/v1/keys", fmt.Sprintf(`{"client": %q}`, client), "Content-Type", "application/json")
	var k madeKey
	if err := json.Unmarshal(body, &k); err != nil || resp.StatusCode != 201 || k.Client != client {
		g.t.Fatalf("POST /v1/keys: %d %s", resp.StatusCode, body)
	}
	return k
}

// revoke asks for a revocation and returns the status of the answer.
func (g *gateway) revoke(id string) int {
	g.t.Helper()
	resp, _ := g.adminDo("DELETE", "/v1/keys/"+id, "")
	return resp.StatusCode
}

// TestRevocationReachesAllGateways has four gateways on one Redis see keys that one of
// them makes and revokes: within one second of the acknowledgement.
func TestRevocationReachesAllGateways(t *testing.T) {
	r := redistest.Start(t)
	var all []*gateway
	for range 4 {
		all = append(all, start(t, onRedis(r)))
	}
	if resp, body := all[0].adminDo("POST", "/v1/clients", `{"id": "acme", "roles": ["reader"]}`, "Content-Type", "application/json"); resp.StatusCode != 201 {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	var worst time.Duration
	for i := range 20 {
		by := all[i%len(all)]
		client := "acme"
		if i%2 == 1 {
			client = "declared"
		} else {
			for _, g := range all { // the client too is everywhere
				eventually(t, 5*time.Second, func() error {
					if status, body, err := g.adminGet("/v1/clients/acme"); err != nil || status != 200 {
						return fmt.Errorf("%d %s %w", status, body, err)
					}
					return nil
				})
			}
		}
		k := by.makeKey(client)
		if got := by.admitted(k.Key); got != 200 {
			t.Fatalf("the gateway that made a key answers it %d", got)
		}
		for _, g := range all {
			g.awaitAdmitted(k.Key, 200, 5*time.Second)
		}
		if got := by.revoke(k.ID); got != 204 {
			t.Fatalf("the revocation is answered %d", got)
		}
		acknowledged := time.Now()
		if got := by.admitted(k.Key); got != 401 {
			t.Errorf("the gateway that revoked a key answers it %d", got)
		}
		for _, g := range all {
			g.awaitAdmitted(k.Key, 401, 5*time.Second)
		}
		worst = max(worst, time.Since(acknowledged))
	}
	t.Logf("the last of four gateways refused a revoked key at most %v after the acknowledgement, of 20", worst)
	if worst > time.Second {
		t.Errorf("a revocation was seen by all only after %v, want at most 1 s", worst)
	}
}

// TestRevocationNeedsTheStore takes Redis away: a revocation is not acknowledged, known
// keys go on, and nothing revoked comes back when gateway and Redis do.
func TestRevocationNeedsTheStore(t *testing.T) {
	r := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	g := start(t, onRedis(r))
	gone, stays := g.makeKey("declared"), g.makeKey("declared")
	if got := g.revoke(gone.ID); got != 204 {
		t.Fatalf("the revocation is answered %d", got)
	}
	r.Kill()
	if got := g.revoke(stays.ID); got != 503 {
		t.Errorf("without Redis a revocation is answered %d, want 503", got)
	}
	if a, b := g.admitted(stays.Key), g.admitted(gone.Key); a != 200 || b != 401 {
		t.Errorf("without Redis a known key is answered %d, a revoked one %d", a, b)
	}
	g.stop()
	// A gateway that starts now knows nobody but those of its file.
	blind := start(t, onRedis(r))
	for key, want := range map[string]int{gone.Key: 503, stays.Key: 503, "a-key-that-the-file-declares": 200, "slk_no": 401, gone.Key[:66] + "!": 401} {
		if got := blind.admitted(key); got != want {
			t.Errorf("%.8s… is answered %d by a gateway that has never seen Redis, want %d", key, got, want)
		}
	}
	r.Restart()
	blind.awaitAdmitted(stays.Key, 200, 20*time.Second)
	eventually(t, 20*time.Second, func() error { // 503 until all is read; never 200
		got := blind.admitted(gone.Key)
		if got == 200 {
			t.Fatal("a revoked key is accepted when Redis is back")
		}
		if got != 401 {
			return fmt.Errorf("a revoked key is answered %d when Redis is back", got)
		}
		return nil
	})
	eventually(t, 20*time.Second, func() error {
		if got := blind.revoke(stays.ID); got != 204 {
			return fmt.Errorf("the revocation is answered %d", got)
		}
		return nil
	})
	if got := blind.admitted(stays.Key); got != 401 {
		t.Errorf("a revoked key is answered %d", got)
	}
}

// TestKeysOutliveTheGateway keeps keys in state.dir: through an end and a kill.
func TestKeysOutliveTheGateway(t *testing.T) {
	s := setup{config: keysConfig, vars: map[string]string{"STATE": "{dir: " + t.TempDir() + "/state}"}}
	g := start(t, s)
	gone, stays := g.makeKey("declared"), g.makeKey("declared")
	if got := g.revoke(gone.ID); got != 204 {
		t.Fatalf("the revocation is answered %d", got)
	}
	if a, b := g.admitted(stays.Key), g.admitted(gone.Key); a != 200 || b != 401 {
		t.Errorf("at once: %d and %d", a, b)
	}
	g.kill()
	g = start(t, s)
	if a, b := g.admitted(stays.Key), g.admitted(gone.Key); a != 200 || b != 401 {
		t.Errorf("after a kill: %d and %d", a, b)
	}
	g.stop()
	g = start(t, s)
	if a, b := g.admitted(stays.Key), g.admitted(gone.Key); a != 200 || b != 401 {
		t.Errorf("after an end: %d and %d", a, b)
	}
}

// TestKeysCommand makes, rotates and revokes keys as an operator does.
func TestKeysCommand(t *testing.T) {
	g := start(t, setup{config: strings.Replace(keysConfig, `{address: "@ADMIN@"}`, `{address: "@ADMIN@", token: t0ken}`, 1), vars: map[string]string{"STATE": "{dir: state}"}})
	cli := func(ok bool, args ...string) string {
		t.Helper()
		cmd := exec.Command(sluice(t, false), append([]string{"keys"}, args...)...)
		cmd.Env = append(cmd.Environ(), "SLUICE_ADMIN_URL="+g.adminURL(""), "SLUICE_ADMIN_TOKEN=t0ken")
		out, err := cmd.CombinedOutput()
		if (err == nil) != ok {
			t.Fatalf("sluice keys %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	var made, next madeKey
	if err := json.Unmarshal([]byte(cli(true, "create", "--client", "declared", "--name", "ci", "--json")), &made); err != nil {
		t.Fatal(err)
	}
	if got := g.admitted(made.Key); got != 200 {
		t.Errorf("a new key is answered %d", got)
	}
	if out := cli(true, "list"); !strings.Contains(out, made.ID) || !strings.Contains(out, "config:declared/main") || strings.Contains(out, made.Key) {
		t.Errorf("list:\n%s", out)
	}
	if err := json.Unmarshal([]byte(cli(true, "rotate", made.ID, "--overlap", "0", "--json")), &next); err != nil {
		t.Fatal(err)
	}
	if a, b := g.admitted(made.Key), g.admitted(next.Key); a != 401 || b != 200 {
		t.Errorf("rotated without overlap, the old key is answered %d, the new one %d", a, b)
	}
	cli(true, "revoke", next.ID)
	if got := g.admitted(next.Key); got != 401 {
		t.Errorf("a revoked key is answered %d", got)
	}
	if out := cli(true, "show", next.ID); !strings.Contains(out, "revoked") {
		t.Errorf("show:\n%s", out)
	}
	if out := cli(false, "revoke", "config:declared/main"); !strings.Contains(out, "change it there (409 conflict)") {
		t.Errorf("revoking a declared key:\n%s", out)
	}
	if out := cli(false, "list", "--token", "wrong"); !strings.Contains(out, "SLUICE_ADMIN_TOKEN") {
		t.Errorf("a wrong token:\n%s", out)
	}
}

// TestRefusedKeysAreToldNothing compares what is answered for all that is wrong with a
// key: it is the same but for the request id.
func TestRefusedKeysAreToldNothing(t *testing.T) {
	g := start(t, setup{config: keysConfig, vars: map[string]string{"STATE": "{dir: state}"}})
	revoked := g.makeKey("declared")
	g.revoke(revoked.ID)
	disabled := g.makeKey("declared")
	if resp, body := g.adminDo("PATCH", "/v1/keys/"+disabled.ID, `{"enabled": false}`, "Content-Type", "application/json"); resp.StatusCode != 200 {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	seen := map[string]string{}
	for _, key := range []string{"", revoked.Key, disabled.Key, "slk_", "nobody's", revoked.Key[:66] + "!", "none"} {
		req, err := http.NewRequest(http.MethodGet, "http://"+g.addr("PLAIN")+"/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		if key != "none" {
			req.Header.Set("X-Api-Key", key)
		}
		resp, err := g.admin.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var p map[string]any
		err = json.NewDecoder(resp.Body).Decode(&p)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != 401 || p["code"] != "unauthenticated" {
			t.Errorf("%.8q: %d %v %v", key, resp.StatusCode, p, err)
		}
		delete(p, "instance")
		b, err := json.Marshal([]any{p, resp.Header.Values("WWW-Authenticate"), resp.Header.Values("Content-Type")})
		if err != nil {
			t.Fatal(err)
		}
		seen[string(b)] = key
	}
	if len(seen) != 1 {
		t.Errorf("answers differ: %q", seen)
	}
}
