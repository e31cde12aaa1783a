package server_test

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/server"
)

func TestApplyKeepsUnchangedListenersAndTheirConnections(t *testing.T) {
	h := newFake(func(x *exchange.Exchange) { x.Answer(200, "", []byte(x.Conn.Listener)) })
	s, addr := start(t, h, roomy())
	c := dial(t, addr)
	ask := func(c *client) string {
		c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		return c.response("GET").Body
	}
	equal(t, ask(c), "plain")
	l := roomy()
	l.MaxHeaderSize.Bytes = 1 << 10
	apply(t, s, l, config.Listener{Name: "renamed", Address: "127.0.0.1:0"}, config.Listener{Address: "localhost:0"})
	equal(t, s.Addrs()["renamed"].String(), addr)
	equal(t, ask(c), "plain") // an open connection keeps what it began with
	equal(t, ask(dial(t, addr)), "renamed")
	equal(t, ask(dial(t, s.Addrs()["localhost:0"].String())), "localhost:0")

	big := "GET / HTTP/1.1\r\nHost: x\r\nPad: " + strings.Repeat("p", 2000) + "\r\n\r\n"
	c.send(big)
	equal(t, c.response("GET").Status, 200)
	fresh := dial(t, addr)
	fresh.send(big)
	equal(t, fresh.response("GET").Status, 431)
}

func TestApplyDrainsWhatIsRemoved(t *testing.T) {
	entered, turn := make(chan struct{}, 1), make(chan struct{})
	s, addr := start(t, newFake(func(x *exchange.Exchange) {
		entered <- struct{}{}
		<-turn
		x.Answer(204, "", nil)
	}), roomy())
	working, idle := dial(t, addr), dial(t, addr)
	working.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-entered
	apply(t, s, roomy(), config.Listener{Name: "other", Address: "localhost:0"})
	idle.ended()
	if c, err := net.DialTimeout("tcp", addr, 100*time.Millisecond); err == nil {
		c.Close()
		t.Error("it still listens")
	}
	turn <- struct{}{}
	equal(t, working.response("GET"), reply{204, "Connection: close", "", ""})
	eventually(t, "the listener to be forgotten", func() bool { return len(s.Stats()) == 1 })
}

func TestARemovedListenerCutsWhatDoesNotEnd(t *testing.T) {
	l := roomy()
	l.DrainTimeout.Duration = 100 * time.Millisecond
	targets := make(chan *net.TCPConn, 1)
	s, addr := start(t, upgrader(t, targets), l)
	c := dial(t, addr)
	upgrade(t, c, targets, "")
	apply(t, s, l, config.Listener{Name: "other", Address: "localhost:0"})
	if _, err := c.r.ReadByte(); err == nil {
		t.Error("the tunnel goes on")
	}
	eventually(t, "the listener to be forgotten", func() bool { return len(s.Stats()) == 1 })
}

func TestApplyChangesAllOrNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s, addr := start(t, newFake(nil), roomy())
	c := dial(t, addr)
	l := roomy()
	l.MaxHeaderSize.Bytes = 100
	for name, listeners := range map[string][]config.Listener{
		"an address in use":  {{Name: "new", Address: "localhost:0"}, {Name: "taken", Address: taken.Addr().String()}},
		"a missing file":     {{Name: "new", Address: "localhost:0", TLS: &config.ListenerTLS{Certificates: []config.Certificate{{Cert: "no.crt", Key: "no.key"}}}}},
		"no certificate":     {{Name: "new", Address: "localhost:0", TLS: &config.ListenerTLS{}}},
		"nothing to send to": {{Name: "new", Address: "localhost:0", Redirect: "https"}},
	} {
		if err := s.Apply(listeners, l, nil, t.TempDir()); err == nil {
			t.Errorf("%s: no error", name)
		}
		if err := server.Check(listeners, t.TempDir()); (err == nil) != (name == "an address in use") {
			t.Errorf("%s: checked as %v", name, err)
		}
	}
	equal(t, len(s.Addrs()), 1)
	c.send("GET / HTTP/1.1\r\nHost: x\r\nPad: " + strings.Repeat("p", 200) + "\r\n\r\n")
	equal(t, c.response("GET").Status, 200)
	fresh := dial(t, addr)
	fresh.send("GET / HTTP/1.1\r\nHost: x\r\nPad: " + strings.Repeat("p", 200) + "\r\n\r\n")
	equal(t, fresh.response("GET").Status, 200)
}

func TestRedirects(t *testing.T) {
	a, dir := newCA(t), t.TempDir()
	h := newFake(nil)
	s, _ := start(t, h, roomy())
	apply(t, s, roomy(),
		config.Listener{Name: "door", Address: "127.0.0.1:0", Redirect: "https"},
		config.Listener{Name: "secure", Address: "localhost:0", TLS: &config.ListenerTLS{Certificates: []config.Certificate{a.files(t, dir, "one", "one.test")}}},
	)
	_, port, _ := net.SplitHostPort(s.Addrs()["secure"].String())
	addr := s.Addrs()["door"].String()
	c := dial(t, addr)
	for sent, want := range map[string]string{
		"GET /a/b?c=d&e HTTP/1.1\r\nHost: Api.Test:8080\r\n\r\n":                     "https://api.test:" + port + "/a/b?c=d&e",
		"POST //x? HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 2\r\n\r\nhi":        "https://[::1]:" + port + "//x?",
		"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n":                                      "https://x:" + port + "/",
		"GET http://abs.test/p HTTP/1.1\r\nHost: ignored.test\r\n\r\n":               "https://abs.test:" + port + "/p",
		"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n":  "https://x:" + port + "/",
		"DELETE /%41 HTTP/1.1\r\nHost: x\r\nX-Forwarded-Host: evil.test\r\n\r\n":     "https://x:" + port + "/%41",
		"GET /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n":                 "https://x:" + port + "/a",
		"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n":   "https://x:" + port + "/",
		"GET /" + strings.Repeat("l", 9000) + " HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n": "https://x:" + port + "/" + strings.Repeat("l", 9000),
	} {
		c.send(sent)
		res, err := http.ReadResponse(c.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		equal(t, res.StatusCode, 308)
		equal(t, res.Header.Get("Location"), want)
		equal(t, len(res.Header.Get("X-Request-Id")), 36)
	}
	equal(t, len(h.wait(t, 0)), 0) // no exchange of the gateway

	c.send("GET / HTTP/1.1\r\nHost: a b\r\n\r\n")
	equal(t, c.response("GET").Status, 400)
	c = dial(t, addr)
	c.send("GET / HTTP/1.0\r\n\r\n")
	equal(t, c.response("GET").Status, 400)
	equal(t, len(h.wait(t, 2)), 2)
}

func TestAClosedServerTakesNoConfiguration(t *testing.T) {
	s := server.New(newFake(nil), server.Options{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(nil, roomy(), nil, ""); err == nil {
		t.Error("no error")
	}
}

func TestCloseCutsWhatIsAtWork(t *testing.T) {
	entered := make(chan struct{}, 2)
	s, addr := start(t, newFake(func(x *exchange.Exchange) {
		p := newPieces(x)
		entered <- struct{}{}
		<-p.cancel
		x.Answer(200, "", nil)
	}), roomy())
	idle, h1 := dial(t, addr), dial(t, addr)
	h1.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	fr, _ := h2raw(t, addr)
	_ = fr.WriteHeaders(headers1)
	<-entered
	<-entered
	began := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	idle.ended()
}

func TestStatsCountByState(t *testing.T) {
	turn, entered := make(chan struct{}), make(chan struct{}, 4)
	s, addr := start(t, newFake(func(x *exchange.Exchange) {
		entered <- struct{}{}
		<-turn
		x.Answer(204, "", nil)
	}), roomy())
	idle, busy := dial(t, addr), dial(t, addr)
	busy.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	fr, _ := h2raw(t, addr)
	_ = fr.WriteHeaders(headers1)
	<-entered
	<-entered
	want := server.ListenerStats{
		Name: "plain", Address: addr, Open: 3, Idle: 1, HTTP2: 1, Streams: 1, Accepted: 3,
	}
	eventually(t, "three connections", func() bool { return s.Stats()[0].Open == 3 })
	equal(t, s.Stats()[0], want)
	close(turn)
	equal(t, busy.response("GET").Status, 204)
	idle.Close()
	eventually(t, "one to close and one to rest", func() bool { st := s.Stats()[0]; return st.Open == 2 && st.Idle == 1 && st.Streams == 0 })
}
