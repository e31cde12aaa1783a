package apptest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// auditSecrets are what must never be in an audit log.
var auditSecrets = []string{"acme-key-written-out", "guest-key-written-out", "guessed-key-number-one", "in-the-query", "adm1n-t0ken-of-this-test", "wr0ng-admin-token"}

const auditConfig = `
listeners: [{name: plain, address: "@PLAIN@"}]
admin: {address: "@ADMIN@", token: "adm1n-t0ken-of-this-test"}
log: {access: {output: none}}
audit: {file: trail/audit.jsonl, on_fault: @FAULT@}
upstreams: {hello: {respond: {status: 200, body: hello}}}
clients:
  - {id: acme, keys: [{name: laptop, value: acme-key-written-out}]}
  - {id: guest, keys: [{name: phone, value: guest-key-written-out}]}
authenticators:
  keys: {api_key: {from: ["header:X-Api-Key", "query:api_key"]}}
routes:
  - {name: users, path: /users, upstream: hello, auth: [keys]}
  - {name: inside, path: /inside, upstream: hello, auth: [keys], ip: {allow: [10.0.0.0/8]}}
`

// audited starts a gateway with an audit log.
func audited(t *testing.T, onFault string) *gateway {
	t.Helper()
	return start(t, setup{config: auditConfig, vars: map[string]string{"FAULT": onFault}})
}

// askWith asks for a path with a key and returns the status.
func (g *gateway) askWith(key, path string) int {
	g.t.Helper()
	req, err := http.NewRequest("GET", "http://"+g.addr("PLAIN")+path, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("X-Api-Key", key)
	}
	res, err := g.admin.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// putComment replaces the configuration with itself, with a comment that makes it another.
func (g *gateway) putComment(comment, token string) int {
	g.t.Helper()
	res, _ := g.adminDo("PUT", "/v1/config", g.expand(g.setup.config)+"\n# "+comment+"\n", "Content-Type", "application/yaml", "Authorization", "Bearer "+token)
	return res.StatusCode
}

// trail are the lines of the audit log, and where they stand.
type trailLine struct {
	Kind, Actor, Key, Address, Request, Route, Target, Reason string
	Seq, Status                                               int
	Detail                                                    map[string]any
}

func (g *gateway) trail(names ...string) []trailLine {
	g.t.Helper()
	var all []trailLine
	for _, name := range append(names, "audit.jsonl") {
		text, err := os.ReadFile(filepath.Join(g.dir, "trail", name))
		if err != nil {
			g.t.Fatal(err)
		}
		for _, secret := range auditSecrets {
			if strings.Contains(string(text), secret) {
				g.t.Errorf("%s holds the secret %q", name, secret)
			}
		}
		for line := range strings.Lines(string(text)) {
			var l trailLine
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				g.t.Fatalf("%s: %v", line, err)
			}
			all = append(all, l)
		}
	}
	return all
}

// verifyAudit runs sluice audit verify on files of the log.
func (g *gateway) verifyAudit(names ...string) (stdout, stderr string, code int) {
	g.t.Helper()
	args := []string{"audit", "verify"}
	for _, name := range names {
		args = append(args, filepath.Join("trail", name))
	}
	cmd := exec.Command(sluice(g.t, false), args...)
	cmd.Dir = g.dir
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(out), string(exit.Stderr), exit.ExitCode()
	}
	if err != nil {
		g.t.Fatal(err)
	}
	return string(out), "", 0
}

func (g *gateway) wantWhole(names ...string) {
	g.t.Helper()
	if out, errs, code := g.verifyAudit(names...); code != 0 || !strings.Contains(out, "each follows the one before it") {
		g.t.Fatalf("audit verify %v: exit %d, %s%s", names, code, out, errs)
	}
}

func TestTheAuditLogSaysWhoDidWhat(t *testing.T) {
	g := audited(t, "open")
	for _, c := range []struct {
		key, path string
		status    int
	}{
		{"acme-key-written-out", "/users", 200},
		{"guessed-key-number-one", "/users", 401},
		{"", "/users?api_key=in-the-query", 401},
		{"", "/users", 401},
		{"guest-key-written-out", "/inside", 403},
	} {
		if got := g.askWith(c.key, c.path); got != c.status {
			t.Errorf("%q %q: %d, want %d", c.key, c.path, got, c.status)
		}
	}
	if got := g.putComment("one", "adm1n-t0ken-of-this-test"); got != 200 {
		t.Errorf("PUT: %d", got)
	}
	if got := g.putComment("two", "wr0ng-admin-token"); got != 401 {
		t.Errorf("PUT with a wrong token: %d", got)
	}
	write(t, g.configPath(), g.expand(g.setup.config)+"# three\n")
	eventually(t, 10*time.Second, func() error {
		for _, l := range g.trail() {
			if l.Kind == "config.swap" && l.Detail["source"] == "file" && l.Detail["from"] != nil {
				return nil
			}
		}
		return errors.New("the reload is not in the audit log")
	})
	g.stop()
	g.wantWhole("audit.jsonl")
	var got []string
	for i, l := range g.trail() {
		if l.Seq != i+1 {
			t.Errorf("line %d has the number %d", i+1, l.Seq)
		}
		if strings.HasPrefix(l.Kind, "auth.") && (l.Address != "127.0.0.1" || l.Request == "" || l.Reason == "") {
			t.Errorf("%+v", l)
		}
		if l.Status == 403 && (l.Key != "phone" || l.Route != "inside" || !strings.Contains(l.Reason, "ip.allow")) {
			t.Errorf("%+v", l)
		}
		got = append(got, strings.TrimSpace(fmt.Sprint(l.Kind, " ", l.Actor, " ", l.Target, " ", l.Status)))
	}
	want := []string{
		"admin.PUT /v1/config token /v1/config 0",
		"admin.PUT /v1/config token /v1/config 200",
		"audit.opened   0",
		"audit.started   0",
		"audit.stopped   0",
		"auth.refused  GET /users 401",
		"auth.refused  GET /users 401",
		"auth.refused  GET /users 401",
		"auth.forbidden guest GET /inside 403",
		"auth.refused  PUT /v1/config 401",
		"config.swap   0",
		"config.swap   0",
		"config.swap   0",
	}
	for i := range want {
		want[i] = strings.TrimSpace(want[i])
	}
	slices.Sort(got) // what different connections do has no order
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// One flipped byte is named.
	path := filepath.Join(g.dir, "trail", "audit.jsonl")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[strings.Index(string(text), "auth.forbidden")]++
	write(t, path, string(text))
	line := strings.Count(string(text[:strings.Index(string(text), "buth.forbidden")]), "\n") + 1
	_, errs, code := g.verifyAudit("audit.jsonl")
	if code != 1 || !strings.Contains(errs, fmt.Sprintf("audit.jsonl:%d: this line was changed", line)) || strings.Count(errs, "\n") != 1 {
		t.Errorf("a flipped byte in line %d: exit %d, %s", line, code, errs)
	}
	if _, errs, code := g.verifyAudit(); code != 2 {
		t.Errorf("without a file: exit %d, %s", code, errs)
	}
}

func TestTheAuditLogSurvivesKills(t *testing.T) {
	g := audited(t, "open")
	acknowledged := 0
	for round := range 5 {
		stop, done := make(chan struct{}), make(chan struct{})
		go func() { // refused requests, as fast as they come
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
				}
				res, err := http.Get("http://" + g.addr("PLAIN") + "/users")
				if err == nil {
					_ = res.Body.Close()
				}
			}
		}()
		for i := range 3 {
			if got := g.putComment(fmt.Sprint(round, i), "adm1n-t0ken-of-this-test"); got != 200 {
				t.Errorf("PUT: %d", got)
			}
			acknowledged++
		}
		g.kill()
		close(stop)
		<-done
		http.DefaultClient.CloseIdleConnections()
		if err := g.launch(); err != nil {
			t.Fatal(err)
		}
	}
	g.stop()
	g.wantWhole("audit.jsonl")
	intents := 0
	for _, l := range g.trail() {
		if l.Kind == "admin.PUT /v1/config" && l.Detail["stage"] == "intent" {
			intents++
		}
	}
	if intents != acknowledged {
		t.Errorf("%d changes are in the log, %d were acknowledged", intents, acknowledged)
	}
}

func TestAFullAuditDiskFollowsOnFault(t *testing.T) {
	for fault, status := range map[string]int{"open": 200, "closed": 503} {
		g := audited(t, fault)
		trail := filepath.Join(g.dir, "trail")
		g.stop()
		if err := syscall.Mount("none", trail, "tmpfs", 0, "size=64k,mode=700"); err != nil {
			t.Logf("no small disk: %v", err) // only root can; internal/audit sees the same from below
			return
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(trail, syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		if err := g.launch(); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(trail, "ballast"), strings.Repeat("x", 50<<10))
		eventually(t, 30*time.Second, func() error {
			g.askWith("", "/users")
			if g.auditOK() {
				return errors.New("it is not full")
			}
			return nil
		})
		if got := g.askWith("acme-key-written-out", "/users"); got != status {
			t.Errorf("%s: a request is %d, want %d", fault, got, status)
		}
		if got := g.putComment("while it is full", "adm1n-t0ken-of-this-test"); got != status {
			t.Errorf("%s: a change is %d, want %d", fault, got, status)
		}
		if !strings.Contains(g.err.String(), "the audit log cannot be written") || !strings.Contains(g.err.String(), "no space left on device") {
			t.Errorf("%s: the log does not say so: %s", fault, g.err.String())
		}
		if err := os.Remove(filepath.Join(trail, "ballast")); err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, func() error {
			if !g.auditOK() {
				return errors.New("it does not recover")
			}
			return nil
		})
		if got := g.askWith("acme-key-written-out", "/users"); got != 200 {
			t.Errorf("%s: with room again, a request is %d", fault, got)
		}
		g.stop()
		g.wantWhole("audit.jsonl")
	}
}

// auditOK is what the metric says.
func (g *gateway) auditOK() bool {
	g.t.Helper()
	_, body := g.adminDo("GET", "/metrics", "", "Authorization", "Bearer adm1n-t0ken-of-this-test")
	return strings.Contains(string(body), "\nsluice_audit_ok 1\n")
}

func TestTheAuditLogIsRotatedBySignal(t *testing.T) {
	g := audited(t, "open")
	g.askWith("", "/users")
	trail := filepath.Join(g.dir, "trail")
	eventually(t, 10*time.Second, func() error {
		if n := len(g.trail()); n < 4 {
			return fmt.Errorf("%d lines", n)
		}
		return nil
	})
	if err := os.Rename(filepath.Join(trail, "audit.jsonl"), filepath.Join(trail, "audit.jsonl.1")); err != nil {
		t.Fatal(err)
	}
	g.signal(syscall.SIGHUP)
	eventually(t, 10*time.Second, func() error {
		_, err := os.Stat(filepath.Join(trail, "audit.jsonl"))
		return err
	})
	g.askWith("", "/users")
	g.stop()
	g.wantWhole("audit.jsonl.1", "audit.jsonl")
	if out, errs, code := g.verifyAudit("audit.jsonl"); code != 0 || !strings.Contains(out, "are in earlier files") {
		t.Errorf("the new file alone: exit %d, %s%s", code, out, errs)
	}
	if _, errs, code := g.verifyAudit("audit.jsonl", "audit.jsonl.1"); code != 1 || !strings.Contains(errs, "audit.jsonl.1:1:") {
		t.Errorf("in the wrong order: exit %d, %s", code, errs)
	}
}
