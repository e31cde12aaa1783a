package apptest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/gatetest"
)

// limitedGateway starts a gateway with limits of a test's own.
func limitedGateway(t *testing.T, limits string) (*gateway, *echo) {
	e := newEcho(t)
	return start(t, setup{
		config: `
listeners: [{name: plain, address: "@PLAIN@"}]
admin: {address: "@ADMIN@"}
limits: {` + limits + `}
log: {access: {output: none}}
upstreams: {o: {targets: ["http://@ORIGIN@"]}}
routes: [{name: all, path: "/{rest...}", upstream: o}]
`,
		vars: map[string]string{"ORIGIN": e.addr()},
	}), e
}

// fromAddress is a caller that dials from ip.
func fromAddress(t testing.TB, addr, ip string) *caller {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: 5 * time.Second}
	c, err := dialer.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return &caller{addr: addr, c: c, r: bufio.NewReader(c)}
}

// TestConnectionLimits refuses connections above the limits, and takes new ones
// when others have gone.
func TestConnectionLimits(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ limits, other string }{
		"per address": {"max_connections_per_ip: 3", "127.0.0.9"},
		"in all":      {"max_connections: 3", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, _ := limitedGateway(t, c.limits)
			var open []*caller
			defer func() {
				for _, k := range open {
					k.hangUp()
				}
			}()
			for range 3 {
				k := fromAddress(t, g.addr("PLAIN"), "127.0.0.8")
				open = append(open, k)
				if a, err := k.call("GET", "/status/200", "", ""); wholly(a, err) != nil {
					t.Fatal(a, err)
				}
			}
			fourth := fromAddress(t, g.addr("PLAIN"), "127.0.0.8")
			a, err := fourth.call("GET", "/status/200", "", "")
			if err == nil && a.status != 503 {
				t.Errorf("the fourth connection got %d %s", a.status, a.body)
			}
			fourth.hangUp()
			if c.other != "" {
				k := fromAddress(t, g.addr("PLAIN"), c.other)
				if a, err := k.call("GET", "/status/200", "", ""); wholly(a, err) != nil {
					t.Errorf("from another address: %v, %v", a, err)
				}
				k.hangUp()
			}
			for _, k := range open { // those that were there first go on
				if a, err := k.call("GET", "/status/200", "", ""); wholly(a, err) != nil {
					t.Errorf("a connection within the limit: %v, %v", a, err)
				}
			}
			open[0].hangUp()
			eventually(t, 5*time.Second, func() error {
				k := fromAddress(t, g.addr("PLAIN"), "127.0.0.8")
				defer k.hangUp()
				a, err := k.call("GET", "/status/200", "", "")
				return wholly(a, err)
			})
		})
	}
}

// TestAdmission refuses what is above max_in_flight and does not get its turn in
// time, and says when to come again.
func TestAdmission(t *testing.T) {
	t.Parallel()
	g, e := limitedGateway(t, "admission: {max_in_flight: 2, queue: 1, queue_timeout: 300ms}")
	var busy sync.WaitGroup
	for range 2 {
		busy.Go(func() {
			k := &caller{addr: g.addr("PLAIN")}
			defer k.hangUp()
			if a, err := k.call("GET", "/gate/admission", "X-Case: busy\r\n", ""); err != nil || a.body != "second half" {
				t.Errorf("%v, %v", a, err)
			}
		})
	}
	eventually(t, 5*time.Second, func() error {
		if e.count("busy") < 2 {
			return errNotYet
		}
		return nil
	})
	c := gatetest.NewClient(gatetest.Drivers[0], g.addr("PLAIN"), nil)
	defer c.CloseIdleConnections()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			r, err := c.Do(context.Background(), gatetest.Message{Host: "a.test", Target: "/status/200"})
			if err != nil {
				t.Error(err)
				return
			}
			code, err := gatetest.Problem(r.Status, r.Header, r.Body)
			if r.Status != 503 || code != "overloaded" || err != nil || r.Header.Get("Retry-After") == "" {
				t.Errorf("%d %s %v, Retry-After %q", r.Status, r.Body, err, r.Header.Get("Retry-After"))
			}
		})
	}
	wg.Wait()
	close(e.opened("admission"))
	busy.Wait()
	r, err := c.Do(deadline(t, 10*time.Second), gatetest.Message{Host: "a.test", Target: "/status/200"})
	if err != nil || r.Status != 200 {
		t.Errorf("when there is room again: %v, %v", r, err)
	}
}

// TestIdleTimeout closes connections that have nothing to do.
func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	g, _ := limitedGateway(t, "idle_timeout: 700ms")
	k := &caller{addr: g.addr("PLAIN")}
	defer k.hangUp()
	if a, err := k.call("GET", "/status/200", "", ""); wholly(a, err) != nil {
		t.Fatal(a, err)
	}
	began := time.Now()
	if err := k.c.SetReadDeadline(began.Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := k.r.Read(make([]byte, 1)); n != 0 || !isClosed(err) {
		t.Errorf("%d bytes, %v, want a closed connection", n, err)
	}
	if d := time.Since(began); d < 600*time.Millisecond || d > 3*time.Second {
		t.Errorf("closed after %v, want about 700 ms", d)
	}
}

// TestRedirect sends clients of a plain listener to the same URL over TLS.
func TestRedirect(t *testing.T) {
	t.Parallel()
	ca := gatetest.NewCA(t, "apptest")
	g := start(t, setup{
		config: `
listeners:
  - {name: plain, address: "@PLAIN@", redirect: https}
  - {name: secure, address: "@SECURE@", tls: {certificates: [{cert: tls/server.crt, key: tls/server.key}]}}
admin: {address: "@ADMIN@"}
log: {access: {output: none}}
upstreams: {teapot: {respond: {status: 418}}}
routes: [{name: all, path: "/{rest...}", upstream: teapot}]
`, files: files(t, ca, map[string][]string{"server": {"a.test"}}),
	})
	for _, d := range []gatetest.Driver{gatetest.Drivers[0], gatetest.Drivers[3]} {
		c := gatetest.NewClient(d, g.addr("PLAIN"), nil)
		for _, method := range []string{"GET", "POST", "HEAD"} {
			r, err := c.Do(deadline(t, 10*time.Second), gatetest.Message{Method: method, Host: "a.test:8080", Target: "/x/../y%20z?q=1&r=%2F"})
			if err != nil {
				t.Fatal(err)
			}
			to, _ := strings.CutPrefix(r.Header.Get("Location"), "https://a.test")
			to = strings.TrimPrefix(to, g.addr("SECURE")[strings.LastIndexByte(g.addr("SECURE"), ':'):])
			if r.Status != 308 || to != "/x/../y%20z?q=1&r=%2F" && to != "/y%20z?q=1&r=%2F" {
				t.Errorf("%s over %s: %d, Location %q", method, d.Name, r.Status, r.Header.Get("Location"))
			}
		}
		c.CloseIdleConnections()
	}
}

// TestAccessLog writes a record for each request, refused ones too, without what
// is secret, and to a new file after a rotation.
func TestAccessLog(t *testing.T) {
	t.Parallel()
	e := newEcho(t)
	g := start(t, setup{
		config: `
listeners: [{name: plain, address: "@PLAIN@"}]
admin: {address: "@ADMIN@"}
log: {access: {format: json, output: logs/access.log, redact: [Authorization, Cookie, X-Api-Key, User-Agent, api_key]}}
upstreams: {o: {targets: ["http://@ORIGIN@"]}}
apis: [{name: main, hosts: [a.test], routes: [{name: all, path: "/{rest...}", upstream: o}]}]
`,
		vars: map[string]string{"ORIGIN": e.addr()}, files: map[string]string{"logs/.keep": ""},
	})
	log := filepath.Join(g.dir, "logs/access.log")
	// Records of different connections may be out of order, so they go by path.
	records := func(path string, n int) map[string]map[string]any {
		t.Helper()
		all := map[string]map[string]any{}
		eventually(t, 5*time.Second, func() error {
			clear(all)
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(text)) {
				var r map[string]any
				if err := json.Unmarshal([]byte(line), &r); err != nil {
					return stop{fmt.Errorf("%w in %q", err, line)}
				}
				all[fmt.Sprint(r["path"])] = r
			}
			if len(all) < n {
				return fmt.Errorf("%d records, want %d:\n%s", len(all), n, text)
			}
			if strings.Contains(string(text), "s3cr3t") {
				return stop{fmt.Errorf("a secret is in the log:\n%s", text)}
			}
			return nil
		})
		return all
	}
	k := &caller{addr: g.addr("PLAIN")}
	defer k.hangUp()
	for _, c := range []struct{ target, header, body string }{
		{"/m?a=1&api_key=s3cr3t", "Authorization: Bearer s3cr3t\r\nCookie: s=s3cr3t\r\nX-Api-Key: s3cr3t\r\nUser-Agent: s3cr3t\r\n", "hello"},
		{"/a%2Fb", "", ""},
		{"/quote%22%0A", "X: \"\r\n", ""},
	} {
		if _, err := k.call("POST", c.target, c.header, c.body); err != nil {
			t.Fatal(err)
		}
	}
	all := records(log, 3)
	for name, want := range map[string]any{"method": "POST", "host": "a.test", "path": "/m", "status": 200.0, "client": "127.0.0.1", "bytes_in": 5.0, "route": "all", "api": "main", "proto": "HTTP/1.1"} {
		if got := all["/m"][name]; got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if r := all["/a%2Fb"]; r["status"] != 400.0 || r["code"] != "bad_request" {
		t.Errorf("the refused request: %v", r)
	}
	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	g.signal(syscall.SIGHUP)
	// Records that are on their way may go to the old file.
	eventually(t, 5*time.Second, func() error {
		if _, err := k.call("GET", "/after", "", ""); err != nil {
			return stop{err}
		}
		text, err := os.ReadFile(log)
		if err == nil && len(text) == 0 {
			err = errNotYet
		}
		return err
	})
	records(log, 1)
	records(log+".1", 3)
}

// TestBalancing spreads requests over targets as the upstream says.
func TestBalancing(t *testing.T) {
	t.Parallel()
	hits := newCounter()
	origin := func(name string) string {
		return gatetest.NewOrigin(t, gatetest.Answer(func(s *gatetest.Seen) string {
			hits.add(s.Target[1:] + " " + name)
			return gatetest.Text(name)
		})).Addr
	}
	g := start(t, setup{
		config: `
listeners: [{name: plain, address: "@PLAIN@"}]
admin: {address: "@ADMIN@"}
log: {access: {output: none}}
upstreams:
  round: {targets: ["http://@A@", "http://@B@"], balance: round_robin}
  weighted: {targets: ["http://@A@", {url: "http://@B@", weight: 3}], balance: round_robin}
  p2c: {targets: ["http://@A@", "http://@B@"]}
  least: {targets: ["http://@A@", "http://@B@"], balance: least_requests}
  hash: {targets: ["http://@A@", "http://@B@"], balance: hash, hash_on: "header:X-Key"}
  halfdead: {targets: ["http://@A@", "http://@DEAD@"], balance: round_robin, retry: {attempts: 2, on: [connect], budget: 100%}}
routes:
  - {name: round, path: /round, upstream: round}
  - {name: weighted, path: /weighted, upstream: weighted}
  - {name: p2c, path: /p2c, upstream: p2c}
  - {name: least, path: /least, upstream: least}
  - {name: hash, path: /hash, upstream: hash}
  - {name: halfdead, path: /halfdead, upstream: halfdead}
`,
		vars: map[string]string{"A": origin("a"), "B": origin("b")},
	})
	k := &caller{addr: g.addr("PLAIN")}
	defer k.hangUp()
	const n = 120
	byKey := map[string]string{}
	for i := range n {
		for _, path := range []string{"/round", "/weighted", "/p2c", "/least", "/hash", "/halfdead"} {
			key := fmt.Sprint("k", i%20)
			method := "GET"
			if path == "/halfdead" && i%2 == 0 {
				method = "POST" // nothing has been sent when a connection is refused
			}
			a, err := k.call(method, path, "X-Key: "+key+"\r\n", "")
			if err != nil || a.status != 200 {
				t.Fatalf("%s: %v, %v", path, a, err)
			}
			if path == "/hash" {
				if was := byKey[key]; was != "" && was != a.body {
					t.Errorf("key %s went to %s and then to %s", key, was, a.body)
				}
				byKey[key] = a.body
			}
		}
	}
	got := hits.all()
	within := func(path string, low, high int) {
		t.Helper()
		if a := got[path+" a"]; a < low || a > high || a+got[path+" b"] != n {
			t.Errorf("%s: a %d, b %d of %d, want a from %d to %d", path, a, got[path+" b"], n, low, high)
		}
	}
	within("round", n/2, n/2)
	within("weighted", n/4, n/4)
	within("p2c", n/5, n*4/5)
	within("least", 1, n-1)
	within("hash", 1, n-1)
	if got["halfdead a"] != n {
		t.Errorf("halfdead: a %d, want %d", got["halfdead a"], n)
	}
}

// TestBothWaysAtOnce lets request and response bodies flow side by side: each
// line goes up and comes back before the next one leaves.
func TestBothWaysAtOnce(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	for _, d := range gatetest.Drivers {
		t.Run(d.Name, func(t *testing.T) {
			c := s.side(t, d)
			body, up := io.Pipe()
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			req, err := c.Request(ctx, gatetest.Message{Method: "POST", Host: "a.test", Target: "/duplex", Unknown: true})
			if err != nil {
				t.Fatal(err)
			}
			req.Body = body
			go func() { _, _ = io.WriteString(up, "line 0\n") }()
			resp, err := c.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			down := bufio.NewReader(resp.Body)
			for i := range 50 {
				if line, err := down.ReadString('\n'); err != nil || line != fmt.Sprintf("line %d\n", i) {
					t.Fatalf("line %d: %q, %v", i, line, err)
				}
				if _, err := fmt.Fprintf(up, "line %d\n", i+1); err != nil {
					t.Fatal(err)
				}
			}
			up.Close()
			if rest, err := io.ReadAll(down); err != nil || string(rest) != "line 50\n" {
				t.Errorf("the end: %q, %v", rest, err)
			}
		})
	}
}

// TestEarlyAnswerToALargeBody passes on what an origin answers, and closes with,
// while a large body is still on its way.
func TestEarlyAnswerToALargeBody(t *testing.T) {
	t.Parallel()
	g, _ := limitedGateway(t, "max_body_size: 1GiB")
	for range 5 {
		body := io.NopCloser(newPattern(64 << 20))
		req, err := http.NewRequestWithContext(deadline(t, 20*time.Second), http.MethodPost, "http://"+g.addr("PLAIN")+"/refuse-early", body)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = 64 << 20
		transport := &http.Transport{}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			// net/http gives up a reply whose connection breaks under the body.
			if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
				t.Errorf("the reply was lost to a reset: %v", err)
				continue
			}
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		transport.CloseIdleConnections()
		if resp.StatusCode != 403 || string(text) != "no need to go on" || err != nil {
			t.Errorf("%d %q, %v", resp.StatusCode, text, err)
		}
	}
}

// TestReplyAfterASlowOne asks twice on one connection: a reply that the client
// took its time to read must not spoil one that comes late behind it.
func TestReplyAfterASlowOne(t *testing.T) {
	t.Parallel()
	g, e := limitedGateway(t, "write_idle_timeout: 500ms")
	k := &caller{addr: g.addr("PLAIN")}
	defer k.hangUp()
	if a, err := k.call("GET", "/status/200", "", ""); wholly(a, err) != nil {
		t.Fatal(a, err)
	}
	for i := range 3 {
		// More than the sockets hold, so that the gateway has to wait.
		if _, err := io.WriteString(k.c, "GET /bytes/20000000 HTTP/1.1\r\nHost: a.test\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(k.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := samePattern(resp.Body, 20000000); err != nil {
			t.Fatal(err)
		}
		gate := fmt.Sprint("slow", i)
		late := time.AfterFunc(time.Second, func() { close(e.opened(gate)) })
		defer late.Stop()
		a, err := k.call("GET", "/gate/"+gate, "", "")
		if err != nil || a.body != "second half" {
			t.Fatalf("round %d: %v, %v", i, a, err)
		}
	}
}
