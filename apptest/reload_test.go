package apptest

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// reloadConfig is a config that answers /version with n, and changes with n
// everything that may change: routes come and go, targets gain weights, limits move.
func reloadConfig(n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `
listeners: [{name: plain, address: "@PLAIN@"}]
admin: {address: "@ADMIN@", pprof: true}
limits: {request_timeout: %ds}
log: {access: {output: none}}
upstreams:
  o: {targets: [{url: "http://@ORIGIN@", weight: %d}], timeout: %ds}
  version: {respond: {status: 200, body: "version %d"}}
`, 20+n%7, 1+n%3, 10+n%5, n)
	for i := range n % 20 {
		fmt.Fprintf(&b, "  extra%d: {targets: [\"http://127.0.0.1:1\", \"http://@ORIGIN@\"], balance: round_robin}\n", i)
	}
	b.WriteString("routes:\n  - {name: version, path: /version, upstream: version}\n  - {name: all, path: \"/{rest...}\", upstream: o}\n")
	for i := range n % 20 {
		fmt.Fprintf(&b, "  - {name: extra-%d-%d, path: \"/extra/%d/{id}\", upstream: extra%d, ip: {allow: [10.0.0.0/8]}}\n", n, i, i, i)
	}
	return b.String()
}

// broken are ways to spoil a config; each must be refused whole.
var broken = []func(string) string{
	func(c string) string { return c + "unknown_key: 1\n" },
	func(c string) string { return strings.Replace(c, "upstream: version", "upstream: nobody", 1) },
	func(c string) string { return strings.Replace(c, "request_timeout: ", "request_timeout: soon #", 1) },
	func(c string) string { return c + "  - {name: all, path: /twice, upstream: o}\n" },
	func(c string) string { return c + "  - {name: again, path: \"/{rest...}\", upstream: o}\n" },
	func(c string) string { return c + "\t: : [\n" },
	func(c string) string {
		return strings.Replace(c, "listeners: [", `listeners: [{name: tls, address: "127.0.0.1:0", tls: {certificates: [{cert: none.crt, key: none.key}]}}, `, 1)
	},
}

// TestReloads changes the config thousands of times under load, half of the
// times to a broken one: no request fails, each good config is served from the
// moment it is accepted, no broken one leaves a trace, and neither memory nor
// goroutines grow.
func TestReloads(t *testing.T) {
	e := newEcho(t)
	g := start(t, setup{config: reloadConfig(0), vars: map[string]string{"ORIGIN": e.addr()}})
	load := newCrowd(t)
	load.add(3, func(_ int, k *caller) (bool, error) {
		a, err := k.call("GET", "/status/200", "", "")
		return true, wholly(a, err)
	}, g.addr("PLAIN"))
	var version atomic.Int64 // the last that was accepted
	load.add(1, func(_ int, k *caller) (bool, error) {
		least := version.Load()
		a, err := k.call("POST", "/version", "", "body")
		if err != nil {
			return true, err
		}
		got, err := strconv.ParseInt(strings.TrimPrefix(a.body, "version "), 10, 64)
		if a.status != 200 || err != nil || got < least {
			return true, fmt.Errorf("status %d, %q, want version %d or later", a.status, a.body, least)
		}
		return true, nil
	}, g.addr("PLAIN"))

	reloads := rounds(500, 10_000)
	var before footprint
	for n := 1; n <= reloads; n++ {
		if n == reloads/5 {
			before = g.footprint()
		}
		if n%2 == 0 {
			spoil := broken[n/2%len(broken)]
			if resp, body := g.putConfig(spoil(reloadConfig(n))); resp.StatusCode != http.StatusUnprocessableEntity {
				t.Fatalf("broken config %d: status %d, want 422: %s", n, resp.StatusCode, body)
			}
			continue
		}
		if resp, body := g.putConfig(reloadConfig(n)); resp.StatusCode/100 != 2 {
			t.Fatalf("config %d: status %d: %s", n, resp.StatusCode, body)
		}
		version.Store(int64(n))
	}
	load.end()
	// Old snapshots may still be on their way out when the last requests end.
	var now footprint
	eventually(t, 10*time.Second, func() error {
		now = g.footprint()
		if now.heap > before.heap+before.heap/4+(4<<20) {
			return fmt.Errorf("the heap grew from %d to %d KiB over %d reloads", before.heap>>10, now.heap>>10, reloads*4/5)
		}
		if now.goroutines > before.goroutines+10 {
			return fmt.Errorf("goroutines grew from %d to %d over %d reloads", before.goroutines, now.goroutines, reloads*4/5)
		}
		return nil
	})
	t.Logf("%d reloads: heap %d to %d KiB, goroutines %d to %d", reloads, before.heap>>10, now.heap>>10, before.goroutines, now.goroutines)
}

// putConfig replaces the running config by the admin API.
func (g *gateway) putConfig(config string, header ...string) (*http.Response, []byte) {
	g.t.Helper()
	return g.adminDo(http.MethodPut, "/v1/config", g.expand(config), append([]string{"Content-Type", "application/yaml"}, header...)...)
}

type footprint struct{ heap, goroutines int64 }

var (
	heapAlloc      = regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)$`)
	goroutineTotal = regexp.MustCompile(`^goroutine profile: total (\d+)`)
)

// footprint reads what is in use behind a garbage collection.
func (g *gateway) footprint() footprint {
	g.t.Helper()
	read := func(path string, figure *regexp.Regexp) int64 {
		status, body, err := g.adminGet(path)
		if err != nil || status != 200 {
			g.t.Fatalf("%s: %d, %v", path, status, err)
		}
		m := figure.FindSubmatch(body)
		if m == nil {
			g.t.Fatalf("%s: no %s", path, figure)
		}
		n, err := strconv.ParseInt(string(m[1]), 10, 64)
		if err != nil {
			g.t.Fatal(err)
		}
		return n
	}
	return footprint{
		heap:       read("/debug/pprof/heap?gc=1&debug=1", heapAlloc),
		goroutines: read("/debug/pprof/goroutine?debug=1", goroutineTotal),
	}
}

// served waits until the gateway answers /version with n.
func (g *gateway) served(t testing.TB, n int) {
	t.Helper()
	k := &caller{addr: g.addr("PLAIN")}
	defer k.hangUp()
	eventually(t, 10*time.Second, func() error {
		a, err := k.call("GET", "/version", "", "")
		if err == nil && a.body != fmt.Sprintf("version %d", n) {
			err = fmt.Errorf("%q is served, want version %d", a.body, n)
		}
		return err
	})
}

// TestReloadTriggers reloads by every way that a file can change.
func TestReloadTriggers(t *testing.T) {
	t.Parallel()
	e := newEcho(t)
	g := start(t, setup{config: reloadConfig(0), vars: map[string]string{"ORIGIN": e.addr()}})
	g.served(t, 0)
	path := g.configPath()
	content := func(n int) string { return g.expand(reloadConfig(n)) }

	t.Run("the file is written in place", func(t *testing.T) {
		write(t, path, content(1))
		g.served(t, 1)
	})
	t.Run("another file takes its name", func(t *testing.T) {
		write(t, path+".new", content(2))
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		g.served(t, 2)
	})
	t.Run("SIGHUP", func(t *testing.T) {
		if resp, body := g.putConfig(reloadConfig(30)); resp.StatusCode/100 != 2 {
			t.Fatalf("PUT: %d %s", resp.StatusCode, body)
		}
		g.served(t, 30)
		g.signal(syscall.SIGHUP) // the file's content replaces what was put
		g.served(t, 2)
	})
	t.Run("a broken file leaves the old config", func(t *testing.T) {
		write(t, path, content(3)+"unknown_key: 1\n")
		eventually(t, 10*time.Second, func() error {
			if ok := g.metric("sluice_config_ok"); ok != 0 {
				return fmt.Errorf("sluice_config_ok is %v, want 0", ok)
			}
			return nil
		})
		g.served(t, 2)
		if status, _, err := g.adminGet("/readyz"); err != nil || status != 200 {
			t.Errorf("readyz: %d, %v, want 200", status, err)
		}
		g.err.await(t, "the unknown key", func(s string) bool { return strings.Contains(s, "unknown_key") })
		write(t, path, content(4))
		g.served(t, 4)
		if ok := g.metric("sluice_config_ok"); ok != 1 {
			t.Errorf("sluice_config_ok is %v, want 1", ok)
		}
	})
	t.Run("a file that cannot be parsed is put right", func(t *testing.T) {
		for _, c := range []struct {
			text string
			ok   float64
		}{{"listeners: [\n", 0}, {content(4), 1}} {
			write(t, path, c.text)
			eventually(t, 10*time.Second, func() error {
				if ok := g.metric("sluice_config_ok"); ok != c.ok {
					return fmt.Errorf("sluice_config_ok is %v, want %v", ok, c.ok)
				}
				return nil
			})
		}
		g.served(t, 4)
	})
	t.Run("behind a PUT that was persisted", func(t *testing.T) {
		resp, body := g.adminDo(http.MethodPut, "/v1/config?persist=1", content(7), "Content-Type", "application/yaml")
		if resp.StatusCode/100 != 2 {
			t.Fatalf("PUT: %d %s", resp.StatusCode, body)
		}
		g.served(t, 7)
		write(t, path, content(8))
		g.served(t, 8)
	})
	t.Run("a file comes to match an include", func(t *testing.T) {
		write(t, path, "include: [more/*.yaml]\n"+content(9))
		g.served(t, 9)
		k := &caller{addr: g.addr("PLAIN")}
		defer k.hangUp()
		for _, c := range []struct {
			do   func()
			want string
		}{
			{func() {
				write(t, filepath.Join(g.dir, "more", "new.yaml"), "routes: [{path: /from-the-include, upstream: version}]\n")
			}, "version 9"},
			{func() {
				if err := os.Remove(filepath.Join(g.dir, "more", "new.yaml")); err != nil {
					t.Fatal(err)
				}
			}, ""},
		} {
			c.do()
			eventually(t, 10*time.Second, func() error {
				a, err := k.call("GET", "/from-the-include", "", "")
				if err == nil && (a.body == "version 9") != (c.want != "") {
					err = fmt.Errorf("%q is served", a.body)
				}
				return err
			})
		}
	})
	t.Run("a symbolic link is swapped", func(t *testing.T) {
		// As Kubernetes does with mounted ConfigMaps.
		for _, n := range []int{5, 6} {
			write(t, filepath.Join(g.dir, fmt.Sprint("data", n), "sluice.yaml"), content(n))
		}
		link := func(n int) {
			if err := os.Symlink(filepath.Join(fmt.Sprint("data", n), "sluice.yaml"), path+".link"); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".link", path); err != nil {
				t.Fatal(err)
			}
		}
		link(5)
		g.served(t, 5)
		link(6)
		g.served(t, 6)
		// What is persisted goes to the file that the link stands for.
		if resp, body := g.adminDo(http.MethodPut, "/v1/config?persist=1", content(10), "Content-Type", "application/yaml"); resp.StatusCode/100 != 2 {
			t.Fatalf("PUT: %d %s", resp.StatusCode, body)
		}
		g.served(t, 10)
		if at, err := os.Readlink(path); err != nil || at != filepath.Join("data6", "sluice.yaml") {
			t.Errorf("the link is %q now, %v", at, err)
		}
	})
}

// TestReloadKeepsConnections changes listeners and routes under open
// connections and a request at work.
func TestReloadKeepsConnections(t *testing.T) {
	t.Parallel()
	e := newEcho(t)
	g := start(t, setup{config: reloadConfig(0), vars: map[string]string{"ORIGIN": e.addr()}})
	kept := &caller{addr: g.addr("PLAIN")}
	defer kept.hangUp()
	if a, err := kept.call("GET", "/status/200", "", ""); wholly(a, err) != nil {
		t.Fatal(a, err)
	}
	before := kept.c
	var replied atomic.Pointer[answer]
	done := make(chan error, 1)
	go func() {
		k := &caller{addr: g.addr("PLAIN")}
		defer k.hangUp()
		a, err := k.call("GET", "/gate/reload?head", "X-Case: reload\r\n", "")
		replied.Store(a)
		done <- err
	}()
	eventually(t, 10*time.Second, func() error {
		if e.count("reload") == 0 {
			return errNotYet
		}
		return nil
	})
	more := strings.Replace(reloadConfig(1), "listeners: [", `listeners: [{name: second, address: "@SECOND@"}, `, 1)
	if resp, body := g.putConfig(more); resp.StatusCode/100 != 2 {
		t.Fatalf("PUT: %d %s", resp.StatusCode, body)
	}
	second := &caller{addr: g.addr("SECOND")}
	defer second.hangUp()
	if a, err := second.call("GET", "/version", "", ""); err != nil || a.body != "version 1" {
		t.Errorf("on the listener that was added: %v, %v", a, err)
	}
	if resp, body := g.putConfig(reloadConfig(2)); resp.StatusCode/100 != 2 {
		t.Fatalf("PUT: %d %s", resp.StatusCode, body)
	}
	eventually(t, 5*time.Second, func() error {
		k := &caller{addr: g.addr("SECOND")}
		defer k.hangUp()
		if _, err := k.call("GET", "/version", "", ""); err == nil {
			return fmt.Errorf("the listener that was removed still answers")
		}
		return nil
	})
	if a, err := kept.call("GET", "/version", "", ""); err != nil || a.body != "version 2" || kept.c != before {
		t.Errorf("on the connection that was kept: %v, %v", a, err)
	}
	close(e.opened("reload"))
	if err := <-done; err != nil || replied.Load().body != "first half, second half" {
		t.Errorf("the request at work: %v, %v", replied.Load(), err)
	}
	// A listener that cannot be had changes nothing.
	blocked := strings.Replace(reloadConfig(3), "listeners: [", fmt.Sprintf(`listeners: [{name: taken, address: %q}, `, e.addr()), 1)
	if resp, body := g.putConfig(blocked); resp.StatusCode != http.StatusUnprocessableEntity || !bytes.Contains(body, []byte("address already in use")) {
		t.Errorf("a taken address: %d %s, want 422 and the reason", resp.StatusCode, body)
	}
	if a, err := kept.call("GET", "/version", "", ""); err != nil || a.body != "version 2" {
		t.Errorf("after a refused config: %v, %v", a, err)
	}
}
