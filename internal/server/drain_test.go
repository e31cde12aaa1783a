package server_test

import (
	"bufio"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/server"
)

func TestADrainClosesWhatIsIdle(t *testing.T) {
	s, addr := start(t, newFake(nil), roomy())
	fresh, used := dial(t, addr), dial(t, addr)
	used.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	equal(t, used.response("GET").Status, 200)
	if err := <-drained(s, patience); err != nil {
		t.Error(err)
	}
	fresh.ended()
	used.ended()
}

func TestADrainLetsRequestsFinishAndClosesBehindThem(t *testing.T) {
	entered, turn := make(chan struct{}, 4), make(chan struct{})
	h := newFake(func(x *exchange.Exchange) {
		entered <- struct{}{}
		<-turn
		echo(x)
	})
	s, addr := start(t, h, roomy())
	working, uploading, slowHead := dial(t, addr), dial(t, addr), dial(t, addr)
	working.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	uploading.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
	<-entered
	<-entered
	slowHead.send("GET / HTTP/1.1\r\nHos")
	eventually(t, "the head to begin", func() bool { return s.Stats()[0].Open == 3 && s.Stats()[0].Idle == 0 })
	done := drained(s, patience)
	eventually(t, "the listener to close", func() bool {
		c, err := net.DialTimeout("tcp", addr, 50*time.Millisecond)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	close(turn)
	uploading.send("world")
	slowHead.send("t: x\r\n\r\n")
	equal(t, working.response("GET"), reply{200, "Connection: close|Content-Length: 0|Content-Type: text/plain", "", ""})
	equal(t, uploading.response("POST").Body, "helloworld")
	equal(t, slowHead.response("GET").Status, 200)
	if err := <-done; err != nil {
		t.Error(err)
	}
	working.ended()
}

func TestADrainAnswersWhatWasPipelined(t *testing.T) {
	entered, turn := make(chan struct{}, 8), make(chan struct{})
	s, addr := start(t, newFake(func(x *exchange.Exchange) {
		entered <- struct{}{}
		<-turn
		x.Answer(204, "", nil)
	}), roomy())
	c := dial(t, addr)
	c.send(strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 5))
	<-entered
	done := drained(s, patience)
	turn <- struct{}{}
	for i := range 5 {
		got := c.response("GET")
		equal(t, got.Status, 204)
		if i < 4 {
			<-entered
			turn <- struct{}{}
		} else {
			equal(t, got.Header, "Connection: close")
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestADrainCutsWhatDoesNotFinish(t *testing.T) {
	h := newFake(func(x *exchange.Exchange) {
		p := newPieces(x)
		<-p.cancel
		x.Answer(200, "", nil)
	})
	s, addr := start(t, h, roomy())
	c := dial(t, addr)
	c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	eventually(t, "the request", func() bool { return s.Stats()[0].Idle == 0 && s.Stats()[0].Open == 1 })
	began := time.Now()
	if err := <-drained(s, 100*time.Millisecond); err == nil {
		t.Error("no error")
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	equal(t, len(h.wait(t, 1)), 1)
}

// tally counts the requests of clients that hammer a server.
type tally struct{ answered, lost atomic.Int64 }

// hammer sends requests over kept connections until no more can be opened. A
// request on a connection that was opened and not said to close must be answered,
// unless the client was silent for the whole quiet time of the drain, which on a
// busy machine even this one may be.
func (n *tally) hammer(addr string, pause time.Duration, kept bool) {
	for {
		c, err := net.DialTimeout("tcp", addr, 100*time.Millisecond)
		if err != nil {
			return
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		r := bufio.NewReader(c)
		spoke := time.Now()
		for going := true; going; {
			_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			silent := time.Since(spoke)
			var res *http.Response
			if err == nil {
				res, err = http.ReadResponse(r, nil)
			}
			if err != nil {
				if silent < quiet {
					n.lost.Add(1)
				}
				break
			}
			spoke = time.Now()
			_, _ = io.Copy(io.Discard, res.Body)
			n.answered.Add(1)
			going = kept && !res.Close
			if pause > 0 && going {
				<-time.After(rand.N(pause)) // the rhythm of the load
			}
		}
		c.Close()
	}
}

func TestNoRequestIsLostInADrain(t *testing.T) {
	for range 20 {
		h := newFake(nil)
		s := server.NewTimed(h, server.Options{}, tick, quiet, grace)
		apply(t, s, roomy(), config.Listener{Name: "plain", Address: "127.0.0.1:0"})
		addr := s.Addrs()["plain"].String()
		var n tally
		var clients sync.WaitGroup
		for i := range 12 {
			clients.Go(func() { n.hammer(addr, time.Duration(i%3)*5*time.Millisecond, i%4 != 0) })
		}
		h.wait(t, 200)
		if err := <-drained(s, patience); err != nil {
			t.Error(err)
		}
		clients.Wait()
		if n.lost.Load() > 0 {
			t.Fatalf("%d of %d requests were lost", n.lost.Load(), n.lost.Load()+n.answered.Load())
		}
	}
}

func TestNoRequestIsLostInTheQueueOfTheSocket(t *testing.T) {
	// Many connections that begin while the listener closes, each with its request
	// already sent.
	for range 10 {
		s := server.NewTimed(newFake(nil), server.Options{}, tick, quiet, grace)
		apply(t, s, roomy(), config.Listener{Name: "plain", Address: "127.0.0.1:0"})
		addr := s.Addrs()["plain"].String()
		var n tally
		var clients sync.WaitGroup
		for range 32 {
			clients.Go(func() { n.hammer(addr, 0, false) })
		}
		eventually(t, "some load", func() bool { return n.answered.Load() > 100 })
		if err := <-drained(s, patience); err != nil {
			t.Error(err)
		}
		clients.Wait()
		if n.lost.Load() > 0 {
			t.Fatalf("%d of %d requests were lost", n.lost.Load(), n.lost.Load()+n.answered.Load())
		}
	}
}

func TestAnHTTP2DrainSaysGoAwayAndFinishes(t *testing.T) {
	entered, turn := make(chan struct{}, 4), make(chan struct{})
	h := newFake(func(x *exchange.Exchange) {
		entered <- struct{}{}
		<-turn
		x.Answer(204, "", nil)
	})
	s, addr := start(t, h, roomy())
	working, _ := h2raw(t, addr)
	idle, _ := h2raw(t, addr)
	until(t, idle, func(f http2.Frame) bool { s, ok := f.(*http2.SettingsFrame); return ok && s.IsAck() })
	_ = working.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: rawPost, EndHeaders: true, EndStream: true})
	<-entered
	done := drained(s, patience)
	goAway := func(f http2.Frame) bool { _, ok := f.(*http2.GoAwayFrame); return ok }
	until(t, working, goAway)
	until(t, idle, goAway)
	turn <- struct{}{}
	until(t, working, func(f http2.Frame) bool { h, ok := f.(*http2.HeadersFrame); return ok && h.StreamID == 1 })
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestNoHTTP2RequestIsLostInADrain(t *testing.T) {
	for range 3 {
		h := newFake(nil)
		s := server.NewTimed(h, server.Options{}, tick, quiet, grace)
		apply(t, s, roomy(), config.Listener{Name: "plain", Address: "127.0.0.1:0"})
		base := "http://" + s.Addrs()["plain"].String()
		p := new(http.Protocols)
		p.SetUnencryptedHTTP2(true)
		var clients sync.WaitGroup
		var lost atomic.Int64
		for range 4 {
			clients.Go(func() {
				tr := &http.Transport{Protocols: p, DialContext: (&net.Dialer{Timeout: 100 * time.Millisecond}).DialContext}
				defer tr.CloseIdleConnections()
				c := &http.Client{Transport: tr, Timeout: patience}
				for {
					res, err := c.Get(base)
					var dialing *net.OpError
					switch {
					case errors.As(err, &dialing) && dialing.Op == "dial":
						return
					case err != nil:
						t.Log(err)
						lost.Add(1)
						return
					}
					_, _ = io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
			})
		}
		h.wait(t, 100)
		if err := <-drained(s, patience); err != nil {
			t.Error(err)
		}
		clients.Wait()
		equal(t, lost.Load(), 0)
	}
}
