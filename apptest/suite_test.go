package apptest

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/gatetest"
)

// suite is one gateway that every behaviour is asked of over every driver.
type suite struct {
	gw    *gateway
	echo  *echo
	raw   *gatetest.Origin // whose acts are told by the path, see acts
	ca    *gatetest.CA
	proxy string // the address that trusted proxies dial from
}

// suiteConfig has one route for each behaviour.
const suiteConfig = `
listeners:
  - {name: plain, address: "@PLAIN@"}
  - name: secure
    address: "@SECURE@"
    tls: {certificates: [{cert: tls/server.crt, key: tls/server.key}]}
  - {name: redirect, address: "@REDIRECT@", redirect: https}
admin: {address: "@ADMIN@"}
trusted_proxies: [127.0.0.2/32]
limits:
  header_timeout: 1s
  body_idle_timeout: 1s
  request_timeout: 10s
  max_header_size: 16KiB
  max_body_size: 20MiB
log: {access: {output: access.log}}
upstreams:
  echo: {targets: ["http://@ECHO@"]}
  based: {targets: ["http://@ECHO@/base"]}
  hosted: {targets: ["http://@ECHO@"], host: origin.internal}
  retried: {targets: ["http://@RAW@"], retry: {attempts: 2, on: [connect, reset, 502, 503, 504]}}
  raw: {targets: ["http://@RAW@"]}
  dead: {targets: ["http://@DEAD@"]}
  slow: {targets: ["http://@ECHO@"], timeout: 300ms}
  teapot: {respond: {status: 418, headers: {X-Mock: "1", Content-Type: application/json}, body: '{"ok":true}'}}
  blue: {respond: {status: 200, body: blue}}
  green: {respond: {status: 200, body: green}}
apis:
  - name: versioned
    hosts: [api.example.com, "*.api.example.com"]
    base_path: /v1
    routes:
      - {name: v1-user, methods: [GET], path: "/users/{id}", upstream: echo}
      - {name: v1-rewritten, path: "/rewritten/{id}", upstream: echo, request: {path: "/internal/users/{id}"}}
      - {name: v1-based, path: "/based/{id}", upstream: based, request: {path: "/b/{id}"}}
      - {name: v1-rest, path: "/rest/{more...}", upstream: echo, request: {path: "/kept/{more}"}}
  - name: unstripped
    hosts: [api.example.com]
    base_path: /v2
    strip_base_path: false
    routes: [{name: v2-all, path: "/{rest...}", upstream: echo}]
  - name: strict
    hosts: [strict.test]
    routes:
      - {name: only, methods: [PUT, DELETE], path: /only, upstream: echo}
      - {name: only-get, methods: [GET], path: /only-get, upstream: teapot}
  - name: secured
    hosts: [secure.example.com]
    listeners: [secure]
    routes: [{name: secured-all, path: "/{rest...}", upstream: teapot}]
  - name: open
    hosts: [a.test]
    routes:
      - {name: all, path: "/{rest...}", upstream: echo}
      - {name: when, path: /when, when: {headers: {X-Version: "2"}, query: {beta: "1"}}, upstream: teapot}
      - {name: semicolon, path: "/params/{rest...}", path_parameters: keep, upstream: echo}
      - {name: slash, path: "/slash/{rest...}", encoded_slash: keep, upstream: echo}
      - {name: based, path: "/based/{rest...}", upstream: based}
      - {name: hosted, path: /hosted, upstream: hosted}
      - {name: teapot, path: /teapot, upstream: teapot}
      - {name: dead, path: /dead, upstream: dead}
      - {name: slow, path: "/slow/{rest...}", upstream: slow, request: {path: "/{rest}"}}
      - {name: quick, path: "/quick/{rest...}", upstream: echo, timeout: 300ms, request: {path: "/{rest}"}}
      - {name: small, path: /small, upstream: echo, max_body_size: 1KiB}
      - {name: raw, path: "/raw/{act}", upstream: raw}
      - {name: retried, path: "/retried/{act}", upstream: retried}
      - {name: split, path: /split, upstream: [{name: blue, weight: 80}, {name: green, weight: 20}]}
      - {name: allowed, path: /allowed, upstream: teapot, ip: {allow: [127.0.0.1/32]}}
      - {name: denied, path: /denied, upstream: teapot, ip: {deny: [127.0.0.0/8, 203.0.113.9/32]}}
      - {name: shadow, path: /shadow, upstream: teapot, ip: {deny: [0.0.0.0/0], mode: shadow}}
routes:
  - {name: everywhere, path: /everywhere, upstream: teapot}
`

// acts answers by the last segment of the path. "twice" and "again" look at how
// often the request's X-Case has been there.
func acts(seen func(name string) int) func(*gatetest.Peer) {
	return func(p *gatetest.Peer) {
		for {
			r, err := p.Next()
			if err != nil {
				return
			}
			n := seen(r.Header.Get("X-Case"))
			act := r.Target[strings.LastIndexByte(r.Target, '/')+1:]
			reply := gatetest.Text(fmt.Sprintf("attempt %d", n))
			switch {
			case act == "reset", act == "reset-first" && n == 1:
				p.Reset()
				return
			case act == "half":
				_ = p.Send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
				return
			case act == "half-chunked":
				_ = p.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n")
				return
			case act == "garbage":
				reply = "SSH-2.0-OpenSSH_9.2\r\n\r\n"
			case act == "two-lengths":
				reply = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc"
			case act == "bad-chunk":
				reply = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n"
			case act == "close-delimited":
				_ = p.Send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end")
				return
			case act == "http10":
				_ = p.Send("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nold")
				return
			case act == "unavailable", act == "unavailable-first" && n == 1:
				reply = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nRetry-After: 1\r\n\r\nbusy"
			}
			if p.Send(reply) != nil {
				return
			}
		}
	}
}

func newSuite(t *testing.T) *suite {
	s := &suite{echo: newEcho(t), ca: gatetest.NewCA(t, "apptest"), proxy: "127.0.0.2"}
	counts := newCounter()
	s.raw = gatetest.NewOrigin(t, acts(counts.add))
	cert, key := s.ca.Issue(t, pkixName("server"), "localhost", "127.0.0.1", "*.example.com", "*.api.example.com", "a.test")
	s.gw = start(t, setup{
		config: suiteConfig,
		vars:   map[string]string{"ECHO": s.echo.addr(), "RAW": s.raw.Addr},
		files:  map[string]string{"tls/server.crt": string(cert), "tls/server.key": string(key)},
	})
	return s
}

// side is a client of the suite's gateway over one driver.
type side struct {
	*suite
	t *testing.T
	d gatetest.Driver
	*gatetest.Client
}

func (s *suite) side(t *testing.T, d gatetest.Driver) *side {
	addr := s.gw.addr("PLAIN")
	if d.TLS {
		addr = s.gw.addr("SECURE")
	}
	c := gatetest.NewClient(d, addr, s.ca.Pool)
	c.TLSClientConfig.ServerName = "a.test" // whatever the Host
	t.Cleanup(c.CloseIdleConnections)
	return &side{suite: s, t: t, d: d, Client: c}
}

// from returns the same client dialling from another address.
func (s *side) from(ip string) *side {
	c := s.suite.side(s.t, s.d)
	addr := s.gw.addr("PLAIN")
	if s.d.TLS {
		addr = s.gw.addr("SECURE")
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	c.Transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "tcp", addr)
	}
	return c
}

// do sends m, to a.test unless it says otherwise, and fails the test when no
// whole reply comes.
func (s *side) do(m gatetest.Message) *gatetest.Reply {
	s.t.Helper()
	r, err := s.try(m)
	if err != nil {
		s.t.Fatalf("%s %s: %v", m.Method, m.Target, err)
	}
	return r
}

func (s *side) try(m gatetest.Message) (*gatetest.Reply, error) {
	if m.Host == "" {
		m.Host = "a.test"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return s.Do(ctx, m)
}

func (s *side) get(target string, header ...string) *gatetest.Reply {
	s.t.Helper()
	return s.do(gatetest.Message{Target: target, Header: fields(header...)})
}

func fields(kv ...string) gatetest.Fields {
	var f gatetest.Fields
	for i := 0; i < len(kv); i += 2 {
		f = append(f, gatetest.Field{Name: kv[i], Value: kv[i+1]})
	}
	return f
}

// echoed sends m, which must reach the echo origin, and returns what that saw.
func (s *side) echoed(m gatetest.Message) *echoed {
	s.t.Helper()
	r := s.do(m)
	var e echoed
	if err := json.Unmarshal([]byte(r.Body), &e); err != nil || r.Status != http.StatusOK {
		s.t.Fatalf("%s %s: status %d, want an echo: %s", m.Method, m.Target, r.Status, r.Body)
	}
	return &e
}

// caseName is a value for X-Case that no other test uses.
func (s *side) caseName() string { return s.t.Name() }

var uuidv7 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// problem asserts that r is a whole problem document (contract §3, RFC 9457).
func problem(t testing.TB, r *gatetest.Reply, status int, code string) map[string]any {
	t.Helper()
	if r.Status != status {
		t.Fatalf("status %d, want %d %s: %s", r.Status, status, code, r.Body)
	}
	if ct := r.Header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("content type %q, want application/problem+json", ct)
	}
	var doc map[string]any
	if err := json.Unmarshal([]byte(r.Body), &doc); err != nil {
		t.Fatalf("body %q: %v", r.Body, err)
	}
	want := []string{"code", "detail", "instance", "status", "title", "type"}
	if got := slices.Sorted(maps.Keys(doc)); !slices.Equal(got, want) {
		t.Errorf("members %v, want %v", got, want)
	}
	if doc["code"] != code {
		t.Errorf("code %v, want %s", doc["code"], code)
	}
	if doc["status"] != float64(status) {
		t.Errorf("status member %v, want %d", doc["status"], status)
	}
	for _, member := range []string{"type", "title", "detail"} {
		if s, _ := doc[member].(string); s == "" {
			t.Errorf("member %s is %v, want text", member, doc[member])
		}
	}
	if id := r.Header.Get("X-Request-Id"); doc["instance"] != id || id == "" {
		t.Errorf("instance %v, want the request id %q", doc["instance"], id)
	}
	return doc
}

// row is one behaviour.
type row struct {
	name  string
	check func(*side)
}

// behaviours are the rows of the suite; each runs over each driver.
var behaviours = slices.Concat(methodRows, bodyRows, statusRows, errorRows, headerRows, pathRows, policyRows, upstreamRows)

func TestBehaviour(t *testing.T) {
	t.Parallel()
	s := newSuite(t)
	if len(behaviours) < 60 {
		t.Fatalf("only %d behaviours", len(behaviours))
	}
	t.Run("over", func(t *testing.T) {
		for _, d := range gatetest.Drivers {
			t.Run(d.Name, func(t *testing.T) {
				t.Parallel()
				for _, b := range behaviours {
					t.Run(b.name, func(t *testing.T) { b.check(s.side(t, d)) })
				}
			})
		}
	})
	if bad := s.raw.Bad(); bad != nil {
		t.Errorf("the raw origin received: %v", bad)
	}
}

// dialAs opens a connection for bytes of the test's own, to the server called name.
func (s *suite) dialAs(t testing.TB, d gatetest.Driver, name string) net.Conn {
	t.Helper()
	var c net.Conn
	var err error
	if d.TLS {
		c, err = tls.Dial("tcp", s.gw.addr("SECURE"), &tls.Config{RootCAs: s.ca.Pool, ServerName: name})
	} else {
		c, err = net.Dial("tcp", s.gw.addr("PLAIN"))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}
