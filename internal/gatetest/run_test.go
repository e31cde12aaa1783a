package gatetest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/internal/auth"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/gateway"
	"github.com/sluice-gateway/sluice/internal/limit"
	"github.com/sluice-gateway/sluice/internal/server"
	"github.com/sluice-gateway/sluice/internal/store/redis"
	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(m)
}

// TestCases runs every case of testdata over its drivers.
func TestCases(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	if len(names) < 40 {
		t.Fatalf("%d cases, want at least 40", len(names))
	}
	ca := NewCA(t, "gatetest")
	var shared *redistest.Server // of all cases, each has keys of its own
	for _, name := range names {
		c := readCase(t, name)
		if slices.Contains(c.Stores, Redis) && shared == nil {
			shared = redistest.Start(t)
		}
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			t.Parallel()
			for _, d := range c.Drivers {
				for _, store := range c.Stores {
					at, run := "", d.Name
					if store == Redis {
						at, run = shared.Addr(), d.Name+"-"+store
					}
					t.Run(run, func(t *testing.T) { runCase(t, c, d, ca, at) })
				}
			}
		})
	}
}

func readCase(t *testing.T, name string) *Case {
	t.Helper()
	src, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ParseCase(filepath.Base(name), src)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// runCase runs a case over a driver. store is the address of Redis, empty where
// none is asked.
func runCase(t *testing.T, c *Case, d Driver, ca *CA, store string) {
	var script []string
	for _, s := range c.Steps {
		script = append(script, s.Origin...)
	}
	origin := NewOrigin(t, Script(script...))
	text := strings.ReplaceAll(c.Config, "@origin@", origin.Addr)
	if store != "" {
		// The budget is not what these cases are about.
		text = fmt.Sprintf("state: {redis: {addresses: [%q], prefix: %q, timeout: 5s}}\n%s", store, t.Name()+":", text)
	}
	n := startNode(t, text, c.Files, ca)
	_, port, _ := net.SplitHostPort(n.addr(d))
	proto := "HTTP/1.1"
	if d.H2 {
		proto = "HTTP/2.0"
	}
	expand := strings.NewReplacer("@origin@", origin.Addr, "@scheme@", d.Scheme(), "@via@", d.Via(), "@port@", port, "@proto@", proto)
	asked := 0
	for i := range c.Steps {
		s := &c.Steps[i]
		reply := n.send(t, c, s, d, ca.Pool)
		if c.AnyLen {
			reply.Header.Del("Content-Length")
		}
		want := strings.TrimSpace(expand.Replace(s.Reply)) + "\n"
		if got := settle(reply.Text(), want); got != want {
			t.Errorf("request %d: the client got\n%s\nwant\n%s", i+1, indent(got), indent(want))
		}
		seen := origin.Requests()[asked:]
		asked += len(seen)
		if len(seen) != len(s.Seen) {
			t.Fatalf("request %d: the origin was asked %d times, want %d", i+1, len(seen), len(s.Seen))
		}
		for j, q := range seen {
			if got, want := q.Text(reply.Header.Get("X-Request-Id")), strings.TrimSpace(expand.Replace(s.Seen[j]))+"\n"; got != want {
				t.Errorf("request %d: the origin got\n%s\nwant\n%s", i+1, indent(got), indent(want))
			}
		}
		if s.Record != "" {
			n.checkRecord(t, i, reply.Header.Get("X-Request-Id"), expand.Replace(s.Record))
		}
	}
	if bad := origin.Bad(); bad != nil {
		t.Errorf("the origin got what can be read in two ways: %v", bad)
	}
}

func indent(s string) string {
	return "\t" + strings.ReplaceAll(strings.TrimSuffix(s, "\n"), "\n", "\n\t")
}

// node is a gateway in this process, joined as cmd/sluice joins it.
type node struct {
	telemetry *telemetry.Telemetry
	auth      *auth.Engine
	limits    *limit.Engine
	shared    *redis.Client // nil: everything is counted here
	gateway   *gateway.Gateway
	server    *server.Server
	records   *records
	addrs     map[string]net.Addr
}

const listeners = `
listeners:
  - {name: plain, address: "127.0.0.1:0"}
  - {name: secure, address: "127.0.0.1:0", tls: {certificates: [{cert: server.crt, key: server.key}]}}
`

func startNode(t *testing.T, text string, files map[string]string, ca *CA) *node {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ca.Files(t, dir, "server", "*.test", "*.example.com", "*.api.example.com", "example.com", "localhost", "127.0.0.1")
	f, found := config.Parse(filepath.Join(dir, "sluice.yaml"), []byte(listeners+text+"\n"), config.Env{})
	if err := found.Err(); err != nil {
		t.Fatalf("config: %v", err)
	}
	n := &node{records: &records{}}
	log := slog.New(slog.DiscardHandler)
	var err error
	n.telemetry, err = telemetry.New(telemetry.Options{Log: f.Log, Dir: dir, Logger: log, Stdout: n.records})
	if err != nil {
		t.Fatal(err)
	}
	o := limit.Options{Log: log, Telemetry: n.telemetry}
	if f.State.Redis != nil {
		if n.shared, err = redis.Dial(redis.Options{Config: f.State.Redis, Gateway: "one", Log: log}); err != nil {
			t.Fatal(err)
		}
		o.Shared = n.shared
	}
	n.limits = limit.New(o)
	n.auth = auth.New(auth.Options{Log: log, Telemetry: n.telemetry, Dir: dir})
	n.gateway = gateway.New(gateway.Options{
		Log: log, Telemetry: n.telemetry, Specs: gateway.Builtins(n.auth.Specs(), n.limits.Specs()), Note: n.limits.Note, Dir: dir,
	})
	n.server = server.New(n.gateway, server.Options{Log: log})
	t.Cleanup(func() { n.close(t) })
	plan, found := n.gateway.Prepare(f)
	if plan == nil {
		t.Fatalf("config: %v", found)
	}
	if err := n.server.Apply(f.Listeners, f.Limits, f.TrustedProxies, dir); err != nil {
		plan.Discard()
		t.Fatal(err)
	}
	plan.Commit()
	n.addrs = n.server.Addrs()
	return n
}

func (n *node) close(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := n.server.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	n.gateway.Close()
	if err := n.auth.Close(ctx); err != nil {
		t.Errorf("auth: %v", err)
	}
	if err := n.limits.Close(ctx); err != nil {
		t.Errorf("limits: %v", err)
	}
	if n.shared != nil {
		if err := n.shared.Close(ctx); err != nil {
			t.Errorf("redis: %v", err)
		}
	}
	if err := n.telemetry.Close(ctx); err != nil {
		t.Errorf("telemetry: %v", err)
	}
}

// addr is where a client over d dials.
func (n *node) addr(d Driver) string {
	if d.TLS {
		return n.addrs["secure"].String()
	}
	return n.addrs["plain"].String()
}

// send makes the request of s and returns what came back.
func (n *node) send(t *testing.T, c *Case, s *Step, d Driver, roots *x509.CertPool) *Reply {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	client := NewClient(d, n.addr(d), roots)
	defer client.CloseIdleConnections()
	var reply *Reply
	var err error
	if c.Raw {
		reply, err = client.raw(ctx, s.Bytes())
	} else {
		var m Message
		var from string
		if m, from, err = s.Message(); err != nil {
			t.Fatal(err)
		}
		if from != "" {
			dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
			client.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "tcp", n.addr(d))
			}
		}
		reply, err = client.Do(ctx, m)
	}
	if err != nil {
		t.Fatalf("%s: %v", strings.SplitN(s.Request, "\n", 2)[0], err)
	}
	return reply
}

// raw sends msg as it is and reads one reply.
func (c *Client) raw(ctx context.Context, msg []byte) (*Reply, error) {
	conn, err := c.DialContext(ctx, "tcp", "")
	if err == nil && c.Driver.TLS {
		conf := c.TLSClientConfig.Clone()
		conf.ServerName = "a.test"
		conn = tls.Client(conn, conf)
	}
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if d, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(d); err != nil {
			return nil, err
		}
	}
	if _, err := conn.Write(msg); err != nil {
		return nil, err
	}
	method, _, _ := strings.Cut(string(msg), " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return &Reply{Status: resp.StatusCode, Header: resp.Header, Body: string(body), Trailer: resp.Trailer}, err
}

// records are the lines of an access log.
type records struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *records) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(p)
}

func (r *records) lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Split(strings.TrimSuffix(r.buf.String(), "\n"), "\n")
}

// find returns the record of a request, nil when it is not there yet. Records are
// written behind the answers, those of several connections in any order.
func (r *records) find(t *testing.T, id string) map[string]any {
	t.Helper()
	for _, line := range r.lines() {
		if line == "" {
			continue
		}
		var got map[string]any
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("record %q: %v", line, err)
		}
		if got["id"] == id {
			return got
		}
	}
	return nil
}

// checkRecord waits for the record of request i, which has the id, and compares the
// members that want names. null is for a member that must not be there.
func (n *node) checkRecord(t *testing.T, i int, id, want string) {
	t.Helper()
	var expected, got map[string]any
	if err := json.Unmarshal([]byte(want), &expected); err != nil {
		t.Fatalf("record %d: %v", i+1, err)
	}
	late := time.NewTimer(5 * time.Second)
	defer late.Stop()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		if got = n.records.find(t, id); got != nil {
			break
		}
		select {
		case <-again.C:
		case <-late.C:
			t.Fatalf("record %d never came: %q", i+1, n.records.lines())
		}
	}
	for name, value := range expected {
		if m, ok := value.(map[string]any); ok {
			sub, _ := got[name].(map[string]any)
			for k, v := range m {
				if !reflect.DeepEqual(sub[k], v) {
					t.Errorf("record %d: %s.%s is %v, want %v", i+1, name, k, sub[k], v)
				}
			}
			continue
		}
		if !reflect.DeepEqual(got[name], value) {
			t.Errorf("record %d: %s is %v, want %v in %v", i+1, name, got[name], value, got)
		}
	}
	if fmt.Sprint(got["id"]) == "" {
		t.Errorf("record %d has no id", i+1)
	}
}
