package apptest

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sluice-gateway/sluice/internal/gatetest"
)

// socketOrigin is a WebSocket server that sends every message back, and closes
// as its path asks.
func socketOrigin(t testing.TB) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refused" {
			http.Error(w, "no sockets here", http.StatusForbidden)
			return
		}
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"chat"}, InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(8 << 20)
		if r.URL.Path == "/goodbye" {
			_ = c.Close(websocket.StatusCode(4321), "the server's own reason")
			return
		}
		for {
			kind, msg, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, msg); err != nil {
				return
			}
		}
	}))
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s.Listener.Addr().String()
}

const socketConfig = `
listeners:
  - {name: plain, address: "@PLAIN@"}
  - {name: secure, address: "@SECURE@", tls: {certificates: [{cert: tls/server.crt, key: tls/server.key}]}}
admin: {address: "@ADMIN@"}
limits: {tunnel_idle_timeout: 2s, request_timeout: 1s, body_idle_timeout: 1s, idle_timeout: 1s}
log: {access: {output: access.log}}
upstreams: {o: {targets: ["http://@ORIGIN@"]}}
routes: [{name: all, path: "/{rest...}", upstream: o}]
`

type socketGateway struct {
	*gateway
	ca *gatetest.CA
}

func newSocketGateway(t *testing.T, origin string) *socketGateway {
	ca := gatetest.NewCA(t, "apptest")
	return &socketGateway{ca: ca, gateway: start(t, setup{
		config: socketConfig,
		vars:   map[string]string{"ORIGIN": origin},
		files:  files(t, ca, map[string][]string{"server": {"127.0.0.1"}}),
	})}
}

// connect opens a WebSocket over d, which must speak HTTP/1.1.
func (g *socketGateway) connect(t testing.TB, d gatetest.Driver, path string) (*websocket.Conn, *http.Response, error) {
	addr := g.addr("PLAIN")
	if d.TLS {
		addr = g.addr("SECURE")
	}
	client := gatetest.NewClient(d, addr, g.ca.Pool)
	t.Cleanup(client.CloseIdleConnections)
	c, resp, err := websocket.Dial(deadline(t, 60*time.Second), d.Scheme()+"://"+addr+path, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: client}, Subprotocols: []string{"chat"},
	})
	if err == nil {
		c.SetReadLimit(8 << 20)
		t.Cleanup(func() { c.CloseNow() })
	}
	return c, resp, err
}

// TestWebSocket carries a WebSocket between a real client and a real server.
func TestWebSocket(t *testing.T) {
	t.Parallel()
	g := newSocketGateway(t, socketOrigin(t))
	for _, d := range gatetest.Drivers[:2] {
		t.Run(d.Name, func(t *testing.T) {
			t.Run("100,000 messages both ways", func(t *testing.T) { manyMessages(t, g, d, 100_000) })
			t.Run("messages of all sizes", func(t *testing.T) { sizes(t, g, d) })
			t.Run("ping and close", func(t *testing.T) { pingAndClose(t, g, d) })
			t.Run("the server's close code", func(t *testing.T) {
				c, _, err := g.connect(t, d, "/goodbye")
				if err != nil {
					t.Fatal(err)
				}
				_, _, err = c.Read(deadline(t, 10*time.Second))
				var closed websocket.CloseError
				if !errors.As(err, &closed) || closed.Code != 4321 || closed.Reason != "the server's own reason" {
					t.Errorf("%v, want close 4321", err)
				}
			})
			t.Run("the server refuses", func(t *testing.T) {
				_, resp, err := g.connect(t, d, "/refused")
				if err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
					t.Errorf("%v, %v, want the origin's 403", resp, err)
				}
			})
			t.Run("it outlives the timeouts of requests", func(t *testing.T) {
				c, _, err := g.connect(t, d, "/echo")
				if err != nil {
					t.Fatal(err)
				}
				tick := time.NewTicker(500 * time.Millisecond)
				defer tick.Stop()
				for began := time.Now(); time.Since(began) < 3*time.Second; <-tick.C {
					if err := echoOnce(t, c, "still here"); err != nil {
						t.Fatalf("after %v: %v", time.Since(began), err)
					}
				}
			})
			t.Run("it ends when nothing moves", func(t *testing.T) {
				c, _, err := g.connect(t, d, "/echo")
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				_, _, err = c.Read(deadline(t, 10*time.Second))
				if took := time.Since(began); err == nil || took < 1500*time.Millisecond || took > 5*time.Second {
					t.Errorf("%v after %v, want an end after about 2 s (tunnel_idle_timeout)", err, took)
				}
			})
		})
	}
}

func manyMessages(t *testing.T, g *socketGateway, d gatetest.Driver, n int) {
	c, resp, err := g.connect(t, d, "/echo")
	if err != nil {
		t.Fatal(err)
	}
	if resp.Header.Get("Sec-WebSocket-Protocol") != "chat" || c.Subprotocol() != "chat" {
		t.Errorf("subprotocol %q", c.Subprotocol())
	}
	ctx := deadline(t, 60*time.Second)
	written := make(chan error, 1)
	go func() {
		var msg [64]byte
		for i := range n {
			binary.BigEndian.PutUint64(msg[:], uint64(i))
			if err := c.Write(ctx, websocket.MessageBinary, msg[:8+i%56]); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	for i := range n {
		_, msg, err := c.Read(ctx)
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if len(msg) != 8+i%56 || binary.BigEndian.Uint64(msg) != uint64(i) {
			t.Fatalf("message %d: got %x", i, msg)
		}
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("close: %v", err)
	}
}

func echoOnce(t testing.TB, c *websocket.Conn, msg string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := c.Write(ctx, websocket.MessageText, []byte(msg)); err != nil {
		return err
	}
	_, got, err := c.Read(ctx)
	if err == nil && string(got) != msg {
		err = fmt.Errorf("%d bytes came back for %d", len(got), len(msg))
	}
	return err
}

func sizes(t *testing.T, g *socketGateway, d gatetest.Driver) {
	c, _, err := g.connect(t, d, "/echo")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 125, 126, 65535, 65536, 4 << 20} {
		if err := echoOnce(t, c, strings.Repeat("x", n)); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

func pingAndClose(t *testing.T, g *socketGateway, d gatetest.Driver) {
	c, _, err := g.connect(t, d, "/echo")
	if err != nil {
		t.Fatal(err)
	}
	read := c.CloseRead(deadline(t, 10*time.Second)) // pongs are read by the reader
	if err := c.Ping(read); err != nil {
		t.Errorf("ping: %v", err)
	}
	if err := c.Close(websocket.StatusGoingAway, "enough"); err != nil {
		t.Errorf("close: %v", err)
	}
}

// TestTunnel carries another protocol than WebSocket, with its half-closes.
func TestTunnel(t *testing.T) {
	t.Parallel()
	o := gatetest.NewOrigin(t, func(p *gatetest.Peer) {
		s, err := p.Next()
		if err != nil {
			return
		}
		if s.Header.Get("Upgrade") != "lines/1" || s.Header.Get("Connection") == "" {
			_ = p.Send(gatetest.Text(fmt.Sprintf("no upgrade: %q", s.Header)))
			return
		}
		// What comes behind the head is the other protocol's already.
		_ = p.Send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: lines/1\r\nX-Origin: 1\r\n\r\nwelcome\n")
		all, err := io.ReadAll(p.Rest())
		if err == nil {
			_ = p.Send("got " + string(all))
		}
	})
	g := newSocketGateway(t, o.Addr)
	s := &suite{gw: g.gateway, ca: g.ca}
	for _, d := range gatetest.Drivers[:2] {
		t.Run(d.Name, func(t *testing.T) {
			c := s.dialAs(t, d, "127.0.0.1")
			// The first bytes of the new protocol in the same write as the request.
			if _, err := io.WriteString(c, "GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: lines/1\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(c)
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "lines/1" || !strings.EqualFold(resp.Header.Get("Connection"), "upgrade") || resp.Header.Get("X-Origin") != "1" || resp.Header.Get("X-Request-Id") == "" {
				t.Fatalf("%d %v", resp.StatusCode, resp.Header)
			}
			if line, err := r.ReadString('\n'); line != "welcome\n" {
				t.Fatalf("%q, %v", line, err)
			}
			if _, err := io.WriteString(c, "one\ntwo\n"); err != nil {
				t.Fatal(err)
			}
			if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(r)
			if string(rest) != "got one\ntwo\n" || err != nil {
				t.Errorf("after the half-close: %q, %v", rest, err)
			}
		})
	}
	t.Run("over HTTP/2 there is no upgrade", func(t *testing.T) {
		c := gatetest.NewClient(gatetest.Drivers[3], g.addr("PLAIN"), nil)
		defer c.CloseIdleConnections()
		r, err := c.Do(deadline(t, 10*time.Second), gatetest.Message{Host: "a.test", Target: "/x"})
		if err != nil || r.Status != 200 || !strings.HasPrefix(r.Body, "no upgrade") {
			t.Errorf("%v, %v", r, err)
		}
	})
}

// TestNoH2CUpgrade never passes on an Upgrade to h2c, with which a client could
// speak past the gateway's rules (CVE-2026-88008).
func TestNoH2CUpgrade(t *testing.T) {
	t.Parallel()
	o := gatetest.NewOrigin(t, gatetest.Answer(func(s *gatetest.Seen) string { return gatetest.Text("plain") }))
	g := newSocketGateway(t, o.Addr)
	for _, head := range []string{
		"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
		"Connection: Upgrade\r\nUpgrade: h2c\r\n",
		"Connection: upgrade\r\nUpgrade: H2C\r\n",
		"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
		"Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n",
		"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
		"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
	} {
		c, err := net.Dial("tcp", g.addr("PLAIN"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "GET /x HTTP/1.1\r\nHost: a.test\r\n"+head+"\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Errorf("%q: %v", head, err)
			continue
		}
		if resp.StatusCode != 200 && resp.StatusCode/100 != 4 {
			t.Errorf("%q: status %d", head, resp.StatusCode)
		}
		resp.Body.Close()
	}
	for _, s := range o.Requests() {
		for _, name := range []string{"Upgrade", "HTTP2-Settings"} {
			if v := s.Header.Get(name); strings.Contains(strings.ToLower(v), "h2c") || name == "HTTP2-Settings" && v != "" {
				t.Errorf("the origin got %s: %s", name, v)
			}
		}
	}
}
