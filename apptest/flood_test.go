package apptest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/sluice-gateway/sluice/internal/gatetest"
)

// floods are ways to make an HTTP/2 server work for nothing. Each writes until
// the gateway closes the connection, or it has sent what a gateway may bear.
var floods = map[string]func(*http2.Framer, int) error{
	// CVE-2023-44487: requests that are taken back at once.
	"rapid reset": func(f *http2.Framer, i int) error {
		id := uint32(2*i + 1)
		if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: h2Request, EndHeaders: true, EndStream: true}); err != nil {
			return err
		}
		return f.WriteRSTStream(id, http2.ErrCodeCancel)
	},
	// CVE-2024-27316 and others: a head that never ends.
	"continuation": func(f *http2.Framer, i int) error {
		if i == 0 {
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h2Request})
		}
		return f.WriteContinuation(1, false, h2Field(i))
	},
	"empty continuation": func(f *http2.Framer, i int) error {
		if i == 0 {
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h2Request})
		}
		return f.WriteContinuation(1, false, nil)
	},
	// CVE-2019-9512 and CVE-2019-9515: answers that nobody reads.
	"ping":     func(f *http2.Framer, i int) error { return f.WritePing(false, [8]byte{byte(i)}) },
	"settings": func(f *http2.Framer, i int) error { return f.WriteSettings() },
	// CVE-2019-9518: frames without content.
	"empty data": func(f *http2.Framer, i int) error {
		if i == 0 {
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h2Post, EndHeaders: true})
		}
		return f.WriteData(1, false, nil)
	},
	"priority": func(f *http2.Framer, i int) error {
		return f.WritePriority(uint32(2*i+1), http2.PriorityParam{StreamDep: uint32(2*i + 3), Weight: 1})
	},
	// Requests, as many as there is room for, whose answers are never taken.
	"zero window": func(f *http2.Framer, i int) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: h2Bytes, EndHeaders: true, EndStream: true})
	},
}

func h2Block(fields ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	e.SetMaxDynamicTableSize(0)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1], Sensitive: true})
	}
	return b.Bytes()
}

var (
	h2Request = h2Block(":method", "GET", ":scheme", "http", ":authority", "a.test", ":path", "/status/200")
	h2Post    = h2Block(":method", "POST", ":scheme", "http", ":authority", "a.test", ":path", "/m")
	h2Bytes   = h2Block(":method", "GET", ":scheme", "http", ":authority", "a.test", ":path", "/bytes/1000000")
)

func h2Field(i int) []byte {
	return h2Block(fmt.Sprintf("x-%d", i), "0123456789abcdef0123456789abcdef")
}

// TestHTTP2Floods bounds what one connection can cost: memory, requests to the
// origin, and other clients' patience.
//
// Each flood has the machine to itself: what honest clients wait for is to be this
// attack, and not another test.
func TestHTTP2Floods(t *testing.T) {
	frames := rounds(30_000, 300_000)
	for name, flood := range floods {
		t.Run(name, func(t *testing.T) {
			e := newEcho(t)
			g := start(t, setup{
				config: `
listeners: [{name: plain, address: "@PLAIN@"}]
admin: {address: "@ADMIN@"}
limits: {write_idle_timeout: 2s, body_idle_timeout: 2s, header_timeout: 2s, idle_timeout: 3s, request_timeout: 5s}
log: {access: {output: none}}
upstreams: {o: {targets: ["http://@ORIGIN@"]}}
routes: [{name: all, path: "/{rest...}", upstream: o}]
`,
				vars: map[string]string{"ORIGIN": e.addr()}, measured: true,
			})
			g.resetPeak()
			before := g.memory("VmRSS")
			hits := e.count("")
			end, latencies := honest(t, g.addr("PLAIN"))
			c, err := net.Dial("tcp", g.addr("PLAIN"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			sent, closed := attackH2(c, flood, frames, name == "zero window")
			end()
			all := latencies()
			honestHits := len(all)
			t.Logf("%d frames sent, closed %v; peak memory %+.1f MiB, %d requests at the origin", sent, closed, float64(g.memory("VmHWM")-before)/(1<<20), e.count("")-hits-honestHits)
			if grown := g.memory("VmHWM") - before; grown > 64<<20 {
				t.Errorf("memory grew by %d MiB", grown>>20)
			}
			if name != "rapid reset" && name != "zero window" && name != "priority" && name != "ping" && name != "settings" && !closed {
				t.Error("the connection is still open")
			}
			if n := e.count("") - hits - honestHits; n > frames/10 {
				t.Errorf("the origin got %d requests", n)
			}
			client := gatetest.NewClient(gatetest.Drivers[3], g.addr("PLAIN"), nil)
			defer client.CloseIdleConnections()
			if r, err := client.Do(deadline(t, 10*time.Second), gatetest.Message{Host: "a.test", Target: "/status/200"}); err != nil || r.Status != 200 {
				t.Errorf("afterwards: %v, %v", r, err)
			}
		})
	}
}

// attackH2 opens a connection and floods it. It reads the answers meanwhile, as
// long as it is not the attack to leave them.
func attackH2(c net.Conn, flood func(*http2.Framer, int) error, frames int, deaf bool) (sent int, closed bool) {
	f := http2.NewFramer(c, c)
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return 0, true
	}
	settings := []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}}
	if err := f.WriteSettings(settings...); err != nil {
		return 0, true
	}
	ended := make(chan error, 1)
	if !deaf {
		go func() {
			_, err := io.Copy(io.Discard, c)
			ended <- err
		}()
	}
	for ; sent < frames; sent++ {
		if err := flood(f, sent); err != nil {
			_ = c.Close()
			if !deaf {
				<-ended
			}
			return sent, !errors.Is(err, os.ErrDeadlineExceeded)
		}
	}
	if deaf {
		return sent, false
	}
	// Longer than any timeout of the gateway's.
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return sent, true
	}
	err := <-ended
	return sent, !errors.Is(err, os.ErrDeadlineExceeded)
}

// TestDeafHTTP2Client lets a client that gives no window hold nothing for ever:
// neither the reply that it asked for, nor its connection, nor a drain.
func TestDeafHTTP2Client(t *testing.T) {
	t.Parallel()
	for name, request := range map[string][]byte{"small reply": h2Request, "large reply": h2Bytes} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, _ := limitedGateway(t, "write_idle_timeout: 700ms, idle_timeout: 700ms, drain_timeout: 5s")
			c, err := net.Dial("tcp", g.addr("PLAIN"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			began := time.Now()
			if err := c.SetDeadline(began.Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			f := http2.NewFramer(c, c)
			if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
				t.Fatal(err)
			}
			if err := f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
				t.Fatal(err)
			}
			if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: request, EndHeaders: true, EndStream: true}); err != nil {
				t.Fatal(err)
			}
			reset := false
			for {
				frame, err := f.ReadFrame()
				if err != nil {
					if !isClosed(err) {
						t.Errorf("%v after %v, want a closed connection", err, time.Since(began))
					}
					break
				}
				if frame.Header().Type == http2.FrameRSTStream {
					reset = true
				}
			}
			if !reset {
				t.Error("the stream was never reset")
			}
		})
	}
}
