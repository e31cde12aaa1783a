package server_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// far is the target's end of a tunnel: the gateway's side of a loopback
// connection whose other side the test holds.
type far struct{ *net.TCPConn }

func (f far) Write(p []byte) (int, error) { return f.TCPConn.Write(p) }

func loopback(t testing.TB) (near, farEnd *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	_ = a.SetDeadline(time.Now().Add(patience))
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// upgrader answers every upgrade with a tunnel to one end of a connection whose
// other end it passes to the test.
func upgrader(t testing.TB, targets chan<- *net.TCPConn) *fake {
	return newFake(func(x *exchange.Exchange) {
		if x.Request.Upgrade == nil {
			x.Answer(426, "", nil)
			return
		}
		near, farEnd := loopback(t)
		x.Answer(101, "", nil)
		x.Response.Header.Append(exchange.Field{
			Name: []byte("Upgrade"), Value: x.Copy(x.Request.Upgrade), ID: exchange.Upgrade, Hop: true,
		})
		x.Response.Header.Add([]byte("Sec-Thing"), []byte("yes"))
		x.Response.Tunnel = far{farEnd}
		targets <- near
	})
}

const upgradeHead = "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: chat\r\n\r\n"

// upgrade opens a tunnel.
func upgrade(t testing.TB, c *client, targets <-chan *net.TCPConn, early string) *net.TCPConn {
	t.Helper()
	c.send(upgradeHead + early)
	equal(t, c.response("GET"), reply{101, "Connection: Upgrade|Sec-Thing: yes|Upgrade: chat", "", ""})
	return <-targets
}

func expect(t testing.TB, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil {
		t.Fatalf("want %q, got %v", want, err)
	}
	equal(t, string(got), want)
}

func TestATunnelCarriesBothWaysAndPassesEndsOn(t *testing.T) {
	targets := make(chan *net.TCPConn, 1)
	h := upgrader(t, targets)
	s, addr := start(t, h, roomy())
	c := dial(t, addr)
	target := upgrade(t, c, targets, "early")
	expect(t, target, "early")
	eventually(t, "a tunnel in the numbers", func() bool { return s.Stats()[0].Tunnels == 1 })
	for range 3 {
		_, _ = io.WriteString(target, "from the target")
		expect(t, c.r, "from the target")
		c.send("from the client")
		expect(t, target, "from the client")
	}
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(target); err != nil || len(b) > 0 {
		t.Errorf("the end was not passed on: %q, %v", b, err)
	}
	_, _ = io.WriteString(target, "and still back")
	_ = target.CloseWrite()
	rest, err := io.ReadAll(c.r)
	if err != nil || string(rest) != "and still back" {
		t.Errorf("got %q, %v", rest, err)
	}
	r := h.wait(t, 1)[0]
	r.Out = 0
	equal(t, r, seen{Method: "GET", Target: "/chat", Status: 101, In: int64(len("early") + 3*len("from the client"))})
}

func TestATunnelCarriesMuch(t *testing.T) {
	targets := make(chan *net.TCPConn, 1)
	_, addr := start(t, upgrader(t, targets), roomy())
	c := dial(t, addr)
	target := upgrade(t, c, targets, "")
	want := make([]byte, 8<<20)
	_, _ = rand.Read(want)
	both := [2][2]io.ReadWriter{{c.Conn, target}, {target, struct {
		io.Reader
		io.Writer
	}{c.r, c.Conn}}}
	done := make(chan error, 4)
	for _, way := range both {
		go func() {
			_, err := way[0].Write(want)
			done <- err
		}()
		go func() {
			got := make([]byte, len(want))
			_, err := io.ReadFull(way[1], got)
			if err == nil && !bytes.Equal(got, want) {
				err = errors.New("other bytes")
			}
			done <- err
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestATunnelThatBreaksEndsOnBothSides(t *testing.T) {
	for _, who := range []string{"client", "target"} {
		targets := make(chan *net.TCPConn, 1)
		h := upgrader(t, targets)
		_, addr := start(t, h, roomy())
		c := dial(t, addr)
		target := upgrade(t, c, targets, "")
		broken, other := c.Conn.(*net.TCPConn), target
		if who == "target" {
			broken, other = other, broken
		}
		_ = broken.SetLinger(0)
		_ = broken.Close()
		_, _ = io.Copy(io.Discard, other) // ends, one way or the other
		if r := h.wait(t, 1)[0]; !r.Aborted {
			t.Errorf("broken by the %s: recorded as whole", who)
		}
	}
}

func TestASilentTunnelEnds(t *testing.T) {
	l := roomy()
	l.TunnelIdleTimeout.Duration = 150 * time.Millisecond
	targets := make(chan *net.TCPConn, 1)
	h := upgrader(t, targets)
	_, addr := start(t, h, l)
	c := dial(t, addr)
	target := upgrade(t, c, targets, "")
	began := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for time.Since(began) < 400*time.Millisecond { // one way is enough to live on
		<-tick.C
		_, _ = io.WriteString(target, "x")
		expect(t, c.r, "x")
	}
	if n, err := c.r.ReadByte(); err == nil {
		t.Errorf("got %q", n)
	}
	equal(t, h.wait(t, 1)[0].Aborted, true)
}

func TestAnUpgradeThatIsNotAnswered101IsARequestLikeOthers(t *testing.T) {
	_, addr := start(t, newFake(nil), roomy())
	c := dial(t, addr)
	for range 2 {
		c.send(upgradeHead)
		equal(t, c.response("GET"), reply{200, okHead, "ok", ""})
	}
}

func TestAnUpgradeToHTTP2IsNotOne(t *testing.T) {
	targets := make(chan *net.TCPConn, 1)
	_, addr := start(t, upgrader(t, targets), roomy())
	c := dial(t, addr)
	c.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
	equal(t, c.response("GET").Status, 426)
}

func TestTunnelsAreCutAtTheEndOfADrain(t *testing.T) {
	targets := make(chan *net.TCPConn, 1)
	s, addr := start(t, upgrader(t, targets), roomy())
	c := dial(t, addr)
	target := upgrade(t, c, targets, "")
	done := drained(s, 500*time.Millisecond)
	eventually(t, "the listener to close", func() bool {
		c, err := net.DialTimeout("tcp", addr, 50*time.Millisecond)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	c.send("still here")
	expect(t, target, "still here")
	if err := <-done; err == nil {
		t.Error("a cut tunnel is no clean drain")
	}
	if _, err := c.r.ReadByte(); err == nil {
		t.Error("the tunnel goes on")
	}
}

func TestATunnelOverTLS(t *testing.T) {
	targets := make(chan *net.TCPConn, 1)
	ca := newCA(t)
	dir := t.TempDir()
	s, addr := startTLS(t, upgrader(t, targets), roomy(), &config.ListenerTLS{
		Certificates: []config.Certificate{ca.files(t, dir, "one", "one.test")},
	})
	c := dialTLS(t, addr, ca, "one.test", "http/1.1")
	target := upgrade(t, c, targets, "early")
	expect(t, target, "early")
	c.send("more")
	expect(t, target, "more")
	_, _ = io.WriteString(target, "back")
	expect(t, c.r, "back")
	_ = target.CloseWrite()
	c.ended()
	_ = s
}
