package server_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// A mixture is a request made of chance, and what the answer must be.
type mixture struct {
	head, body string
	sum        string // of the body, when the target reads it whole
}

// mix makes request i of a connection. How the target treats it is in its path.
func mix(r *rand.Rand, i int) mixture {
	n := r.IntN(1 << r.IntN(18)) // mostly short, up to 128 KiB
	data := make([]byte, n)
	for j := range data {
		data[j] = byte(r.Uint32())
	}
	how := [...]string{"whole", "whole", "aside", "ignored", "half"}[r.IntN(5)]
	if how != "whole" && how != "aside" {
		data = data[:min(n, 50_000)] // what is left is read away
	}
	head := fmt.Sprintf("POST /%s/%d HTTP/1.1\r\nHost: x\r\nPad: %s\r\n", how, i, strings.Repeat("p", r.IntN(1<<r.IntN(14))))
	m := mixture{sum: sum(data)}
	switch r.IntN(3) {
	case 0:
		m.head = head + "Content-Length: " + strconv.Itoa(len(data)) + "\r\n\r\n"
		m.body = string(data)
	case 1:
		m.head = fmt.Sprintf("GET /none/%d HTTP/1.1\r\nHost: x\r\n\r\n", i)
		m.sum = sum(nil)
	default:
		m.head = head + "Transfer-Encoding: chunked\r\n\r\n"
		var b strings.Builder
		for len(data) > 0 {
			k := 1 + r.IntN(min(len(data), 1<<r.IntN(17)))
			b.WriteString(strconv.FormatInt(int64(k), 16) + "\r\n" + string(data[:k]) + "\r\n")
			data = data[k:]
		}
		m.body = b.String() + "0\r\n" + strings.Repeat("T: v\r\n", r.IntN(3)) + "\r\n"
	}
	return m
}

func sum(b []byte) string { return strconv.FormatUint(uint64(crc32.ChecksumIEEE(b)), 16) }

// treat is the target: it reads the body whole, on another goroutine, in part or
// not at all, and answers in one piece or several.
func treat(x *exchange.Exchange) {
	parts := strings.Split(string(x.Request.RawPath), "/")
	how, i := parts[1], parts[2]
	crc := crc32.NewIEEE()
	read := func(most int) error {
		if x.Request.Body == nil {
			return nil
		}
		for got := 0; got < most; {
			ready := x.Request.Body.Ready()
			p, err := x.Request.Body.Next()
			_, _ = crc.Write(p)
			got += len(p)
			switch {
			case err == io.EOF:
				return nil
			case err != nil:
				return err
			case ready && len(p) == 0:
				return errors.New("ready, and there was nothing")
			}
		}
		return nil
	}
	var err error
	switch how {
	case "whole", "none":
		err = read(1 << 30)
	case "half":
		err = read(10)
	case "aside":
		done := make(chan error)
		go func() { done <- read(1 << 30) }()
		err = <-done
	}
	if err != nil {
		problem(x, exchange.AsError(err))
		return
	}
	answer := i + " "
	if how == "whole" || how == "aside" || how == "none" {
		answer += strconv.FormatUint(uint64(crc.Sum32()), 16)
	}
	n, _ := strconv.Atoi(i)
	x.Answer(200, "", x.CopyString(answer))
	if n%3 == 0 {
		p := newPieces(x)
		for _, s := range strings.SplitAfter(answer, " ") {
			if s != "" {
				p.ch <- s
			}
		}
		close(p.ch)
		x.Response.Body, x.Response.ContentLength = p, exchange.Unknown
	}
}

// TestMixtures sends pipelines of requests of every kind, cut into writes at any
// point, and compares every answer.
func TestMixtures(t *testing.T) {
	a := newCA(t)
	_, addr := startTLS(t, newFake(treat), roomy(), &config.ListenerTLS{Certificates: []config.Certificate{a.files(t, t.TempDir(), "one", "one.test")}})
	_, plain := start(t, newFake(treat), roomy())
	var clients sync.WaitGroup
	slots := make(chan struct{}, 12)
	seeds := []uint64{133, 352, 424} // a head that ended where the buffer did, and its body unread
	for seed := range uint64(30) {
		seeds = append(seeds, seed)
	}
	for _, seed := range seeds {
		slots <- struct{}{}
		clients.Go(func() {
			defer func() { <-slots }()
			r := rand.New(rand.NewPCG(seed, 1))
			c := dial(t, plain)
			if seed%3 == 0 {
				c = dialTLS(t, addr, a, "one.test", "http/1.1")
			}
			const n = 100
			var all bytes.Buffer
			var want []mixture
			for i := range n {
				m := mix(r, i)
				all.WriteString(m.head)
				all.WriteString(m.body)
				want = append(want, m)
			}
			go func() {
				for b := all.Bytes(); len(b) > 0; {
					k := min(len(b), 1+r.IntN(1<<r.IntN(18)))
					if _, err := c.Conn.Write(b[:k]); err != nil {
						t.Errorf("seed %d: %v", seed, err)
						return
					}
					b = b[k:]
				}
			}()
			for i, m := range want {
				res, err := http.ReadResponse(c.r, nil)
				if err != nil {
					t.Errorf("seed %d, request %d %q: %v", seed, i, m.head[:20], err)
					return
				}
				b, err := io.ReadAll(res.Body)
				answer := strconv.Itoa(i) + " "
				if !strings.Contains(m.head, "/half/") && !strings.Contains(m.head, "/ignored/") {
					answer += m.sum
				}
				if err != nil || string(b) != answer {
					t.Errorf("seed %d, request %d %q: %d %q, %v, want %q", seed, i, m.head[:20], res.StatusCode, b, err, answer)
					return
				}
			}
		})
	}
	clients.Wait()
}

// TestClientsThatLeaveAnywhere cuts such pipelines off at any byte, in every way,
// and looks that nothing is left of them.
func TestClientsThatLeaveAnywhere(t *testing.T) {
	a := newCA(t)
	var served atomic.Int64
	h := newFake(func(x *exchange.Exchange) { treat(x) })
	counting := countServes{h, &served}
	s, addr := startTLS(t, counting, roomy(), &config.ListenerTLS{Certificates: []config.Certificate{a.files(t, t.TempDir(), "one", "one.test")}})
	s2, plain := start(t, counting, roomy())
	var clients sync.WaitGroup
	slots := make(chan struct{}, 12)
	for seed := range uint64(400) {
		slots <- struct{}{}
		clients.Go(func() {
			defer func() { <-slots }()
			r := rand.New(rand.NewPCG(seed, 2))
			nc, err := net.Dial("tcp", plain)
			if seed%4 == 0 {
				nc, err = net.Dial("tcp", addr)
			}
			if err != nil {
				t.Error(err)
				return
			}
			socket := nc.(*net.TCPConn)
			c := nc
			if seed%4 == 0 {
				c = tls.Client(nc, &tls.Config{RootCAs: a.pool, ServerName: "one.test"})
			}
			var all bytes.Buffer
			for i := range 1 + r.IntN(5) {
				m := mix(r, i)
				all.WriteString(m.head)
				all.WriteString(m.body)
			}
			_, _ = c.Write(all.Bytes()[:r.IntN(all.Len())])
			_ = socket.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // there may be nothing to come
			if r.IntN(2) == 0 {
				_, _ = c.Read(make([]byte, 1+r.IntN(2000)))
			}
			switch r.IntN(3) {
			case 0:
				_ = socket.SetLinger(0)
			case 1:
				_ = socket.CloseWrite()
				_, _ = io.Copy(io.Discard, socket)
			}
			_ = socket.Close()
		})
	}
	clients.Wait()
	eventually(t, "all connections to end", func() bool { return s.Stats()[0].Open == 0 && s2.Stats()[0].Open == 0 })
	equal(t, int64(len(h.wait(t, 0))), served.Load())
}

// countServes counts what has to be done.
type countServes struct {
	*fake
	n *atomic.Int64
}

func (c countServes) Serve(x *exchange.Exchange) {
	c.n.Add(1)
	c.fake.Serve(x)
}
