package apptest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/gatetest"
)

// Methods, bodies and statuses: the messages themselves.

var methodRows = []row{
	{"every method reaches the origin as it is", func(s *side) {
		for _, m := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "PROPFIND", "M-SEARCH"} {
			if e := s.echoed(gatetest.Message{Method: m, Target: "/m"}); e.Method != m || e.URI != "/m" {
				s.t.Errorf("the origin saw %s %s, want %s /m", e.Method, e.URI, m)
			}
		}
	}},
	{"methods are case-sensitive", func(s *side) {
		if e := s.echoed(gatetest.Message{Method: "get", Target: "/m"}); e.Method != "get" {
			s.t.Errorf("the origin saw %s, want get", e.Method)
		}
		problem(s.t, s.do(gatetest.Message{Method: "get", Host: "strict.test", Target: "/only-get"}), 405, "method_not_allowed")
	}},
	{"HEAD has the head of GET and no body", func(s *side) {
		get := s.get("/bytes/1000")
		head := s.do(gatetest.Message{Method: "HEAD", Target: "/bytes/1000"})
		if head.Status != 200 || head.Body != "" || head.Length != 1000 || head.Header.Get("Content-Type") != get.Header.Get("Content-Type") {
			s.t.Errorf("HEAD: %d, length %d, %v, body %q", head.Status, head.Length, head.Header, head.Body)
		}
	}},
	{"a route for GET serves HEAD", func(s *side) {
		if r := s.do(gatetest.Message{Method: "HEAD", Host: "strict.test", Target: "/only-get"}); r.Status != 418 || r.Body != "" {
			s.t.Errorf("%d %q, want 418 and no body", r.Status, r.Body)
		}
	}},
	{"TRACE is refused", func(s *side) {
		r := s.do(gatetest.Message{Method: "TRACE", Target: "/m"})
		problem(s.t, r, 405, "method_not_allowed")
		if r.Header.Get("Allow") == "" {
			s.t.Error("no Allow")
		}
	}},
	{"an unrouted method is 405 with what is allowed", func(s *side) {
		r := s.do(gatetest.Message{Host: "strict.test", Target: "/only"})
		problem(s.t, r, 405, "method_not_allowed")
		allow := strings.FieldsFunc(r.Header.Get("Allow"), func(c rune) bool { return c == ',' || c == ' ' })
		slices.Sort(allow)
		if !slices.Equal(allow, []string{"DELETE", "PUT"}) {
			s.t.Errorf("Allow %q, want DELETE and PUT", allow)
		}
		if r := s.do(gatetest.Message{Method: "POST", Host: "strict.test", Target: "/only-get"}); !strings.Contains(r.Header.Get("Allow"), "GET") || !strings.Contains(r.Header.Get("Allow"), "HEAD") {
			s.t.Errorf("Allow %q, want GET and HEAD", r.Header.Get("Allow"))
		}
	}},
	{"many requests share a client", func(s *side) {
		for i := range 50 {
			if e := s.echoed(gatetest.Message{Method: "POST", Target: "/m", Body: strings.Repeat("x", i)}); e.Size != i {
				s.t.Fatalf("request %d: the origin got %d bytes", i, e.Size)
			}
		}
	}},
}

var bodyRows = []row{
	{"an empty body has length 0", func(s *side) {
		e := s.echoed(gatetest.Message{Method: "POST", Target: "/m"})
		if e.Length != 0 || e.Size != 0 {
			s.t.Errorf("the origin saw length %d and %d bytes", e.Length, e.Size)
		}
	}},
	{"a body of unknown length may be empty", func(s *side) {
		if e := s.echoed(gatetest.Message{Method: "POST", Target: "/m", Unknown: true}); e.Size != 0 {
			s.t.Errorf("the origin saw %d bytes", e.Size)
		}
	}},
	{"a GET without a body has no framing", func(s *side) {
		e := s.echoed(gatetest.Message{Target: "/m"})
		if e.Length != 0 || e.Header.Get("Content-Length") != "" || e.Header.Get("Transfer-Encoding") != "" {
			s.t.Errorf("the origin saw length %d, %v", e.Length, e.Header)
		}
	}},
	{"a known length stays known", func(s *side) {
		e := s.echoed(gatetest.Message{Method: "POST", Target: "/m", Body: "hello", Header: fields("Content-Type", "text/plain")})
		if e.Length != 5 || e.Body != "hello" || e.Header.Get("Content-Type") != "text/plain" {
			s.t.Errorf("the origin saw length %d, %q, %v", e.Length, e.Body, e.Header)
		}
	}},
	{"an unknown length stays unknown", func(s *side) {
		if e := s.echoed(gatetest.Message{Method: "POST", Target: "/m", Body: "hello", Unknown: true}); e.Length != -1 || e.Body != "hello" {
			s.t.Errorf("the origin saw length %d, %q", e.Length, e.Body)
		}
	}},
	{"GET and DELETE may have a body", func(s *side) {
		for _, m := range []string{"GET", "DELETE"} {
			if e := s.echoed(gatetest.Message{Method: m, Target: "/m", Body: "hello"}); e.Body != "hello" {
				s.t.Errorf("%s: the origin saw %q", m, e.Body)
			}
		}
	}},
	{"large bodies arrive byte for byte", func(s *side) {
		data, _ := io.ReadAll(newPattern(5 << 20))
		sum := sha256.Sum256(data)
		for _, unknown := range []bool{false, true} {
			e := s.echoed(gatetest.Message{Method: "PUT", Target: "/m", Body: string(data), Unknown: unknown})
			if e.SHA256 != hex.EncodeToString(sum[:]) {
				s.t.Errorf("unknown length %v: the origin got %d bytes with another hash", unknown, e.Size)
			}
		}
	}},
	{"large replies arrive byte for byte", func(s *side) {
		for _, target := range []string{"/bytes/5000000", "/bytes/5000000?chunked"} {
			r := s.get(target)
			if err := samePattern(strings.NewReader(r.Body), 5000000); err != nil {
				s.t.Errorf("%s: %v", target, err)
			}
			if known := !strings.Contains(target, "chunked"); known != (r.Length == 5000000) {
				s.t.Errorf("%s: length %d", target, r.Length)
			}
		}
	}},
	{"a request trailer reaches the origin", func(s *side) {
		e := s.echoed(gatetest.Message{Method: "POST", Target: "/m", Body: "hello", Unknown: true, Trailer: fields("X-Sum", "42")})
		if e.Body != "hello" || e.Trailer.Get("X-Sum") != "42" {
			s.t.Errorf("the origin saw %q and trailer %v", e.Body, e.Trailer)
		}
	}},
	{"a response trailer reaches the client", func(s *side) {
		r := s.get("/trailer", "TE", "trailers")
		if r.Body != "body with a trailer" || r.Trailer.Get("X-Sum") != "42" {
			s.t.Errorf("body %q, trailer %v", r.Body, r.Trailer)
		}
	}},
	{"Expect: 100-continue is answered before the body", func(s *side) {
		r := s.do(gatetest.Message{Method: "POST", Target: "/m", Body: "hello", Expect: true})
		if r.Status != 200 || !strings.Contains(r.Body, `"Body":"hello"`) {
			s.t.Errorf("%d %s", r.Status, r.Body)
		}
		if len(r.Interim) != 1 || r.Interim[0].Status != 100 {
			s.t.Errorf("interim responses %v, want one 100", r.Interim)
		}
	}},
	{"Expect: 100-continue is refused before the body", func(s *side) {
		r := s.do(gatetest.Message{Method: "POST", Target: "/small", Body: strings.Repeat("x", 5000), Expect: true})
		problem(s.t, r, 413, "payload_too_large")
		if len(r.Interim) != 0 {
			s.t.Errorf("interim responses %v, want none", r.Interim)
		}
	}},
	{"other expectations are refused", func(s *side) {
		problem(s.t, s.get("/m", "Expect", "the-impossible"), 417, "expectation_failed")
	}},
	{"an early response reaches the client while the body still flows", func(s *side) {
		r := s.do(gatetest.Message{Method: "POST", Target: "/refuse-early", Body: strings.Repeat("x", 300<<10)})
		if r.Status != 403 || r.Body != "no need to go on" {
			s.t.Errorf("%d %q, want the origin's 403", r.Status, r.Body)
		}
		s.echoed(gatetest.Message{Target: "/m"})
	}},
	{"server-sent events are not held back", func(s *side) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		req, err := s.Request(ctx, gatetest.Message{Host: "a.test", Target: "/gate/sse-" + s.d.Name + "?head"})
		if err != nil {
			s.t.Fatal(err)
		}
		resp, err := s.RoundTrip(req)
		if err != nil {
			s.t.Fatal(err)
		}
		defer resp.Body.Close()
		first := make([]byte, len("first half, "))
		if _, err := io.ReadFull(resp.Body, first); err != nil {
			s.t.Fatalf("while the origin waits: %v", err)
		}
		close(s.echo.opened("sse-" + s.d.Name))
		rest, err := io.ReadAll(resp.Body)
		if got := string(first) + string(rest); got != "first half, second half" || err != nil {
			s.t.Errorf("%q, %v", got, err)
		}
	}},
	{"the origin is told when the client goes away", func(s *side) {
		ctx, cancel := context.WithCancel(context.Background())
		name := s.caseName()
		failed := make(chan error, 1)
		go func() {
			_, err := s.Do(ctx, gatetest.Message{Host: "a.test", Target: "/hang", Header: fields("X-Case", name)})
			failed <- err
		}()
		eventually(s.t, 5*time.Second, func() error {
			if s.echo.count(name) == 0 {
				return errors.New("the origin has not got the request")
			}
			return nil
		})
		cancel()
		<-failed
		late := time.NewTimer(5 * time.Second)
		defer late.Stop()
		select {
		case <-s.echo.opened("left " + name):
		case <-late.C:
			s.t.Fatal("the origin's request was never cancelled")
		}
	}},
}

var statusRows = []row{
	{"the origin's statuses and bodies pass unchanged", func(s *side) {
		for _, code := range []int{200, 201, 202, 206, 301, 400, 401, 404, 409, 418, 429, 451, 500, 502, 503, 599} {
			r := s.get(fmt.Sprintf("/status/%d", code))
			if r.Status != code || r.Body != fmt.Sprintf("origin says %d", code) || r.Header.Get("X-Origin") != "yes" {
				s.t.Errorf("%d: got %d %q %v", code, r.Status, r.Body, r.Header)
			}
			if r.Header.Get("Content-Type") != "text/plain" {
				s.t.Errorf("%d: content type %q", code, r.Header.Get("Content-Type"))
			}
		}
	}},
	{"204 and 304 have no body", func(s *side) {
		for _, code := range []int{204, 304} {
			r := s.get(fmt.Sprintf("/status/%d", code))
			if r.Status != code || r.Body != "" || r.Header.Get("X-Origin") != "yes" || r.Header.Get("Transfer-Encoding") != "" {
				s.t.Errorf("%d: got %d %q %v", code, r.Status, r.Body, r.Header)
			}
			if code == 204 && r.Header.Get("Content-Length") != "" {
				s.t.Errorf("204 with Content-Length %s (RFC 9110 §8.6)", r.Header.Get("Content-Length"))
			}
		}
		s.echoed(gatetest.Message{Target: "/m"})
	}},
	{"early hints pass", func(s *side) {
		r := s.get("/early")
		if r.Status != 200 || r.Body != "after the hint" {
			s.t.Errorf("%d %q", r.Status, r.Body)
		}
		if len(r.Interim) != 1 || r.Interim[0].Status != 103 || r.Interim[0].Header.Get("Link") != "</style.css>; rel=preload" {
			s.t.Errorf("interim responses %v, want a 103 with its Link", r.Interim)
		}
	}},
	{"a Location of the origin passes unchanged", func(s *side) {
		if l := s.get("/status/301").Header.Get("Location"); l != "/elsewhere" {
			s.t.Errorf("Location %q", l)
		}
	}},
	{"a respond target answers by itself", func(s *side) {
		r := s.get("/teapot")
		if r.Status != 418 || r.Body != `{"ok":true}` || r.Header.Get("X-Mock") != "1" || r.Header.Get("Content-Type") != "application/json" || r.Length != 11 {
			s.t.Errorf("%d %q %v", r.Status, r.Body, r.Header)
		}
		head := s.do(gatetest.Message{Method: "HEAD", Target: "/teapot"})
		if head.Status != 418 || head.Body != "" || head.Length != 11 {
			s.t.Errorf("HEAD: %d %q, length %d", head.Status, head.Body, head.Length)
		}
		post := s.do(gatetest.Message{Method: "POST", Target: "/teapot", Body: strings.Repeat("x", 100<<10)})
		if post.Status != 418 || post.Body != `{"ok":true}` {
			s.t.Errorf("POST: %d %q", post.Status, post.Body)
		}
	}},
	{"the protocol is the client's own", func(s *side) {
		want := "HTTP/1.1"
		if s.d.H2 {
			want = "HTTP/2.0"
		}
		if r := s.get("/m"); r.Proto != want {
			s.t.Errorf("%s, want %s", r.Proto, want)
		}
		if e := s.echoed(gatetest.Message{Target: "/m"}); e.Proto != "HTTP/1.1" {
			s.t.Errorf("the origin saw %s, want HTTP/1.1", e.Proto)
		}
	}},
	{"replies have a date", func(s *side) {
		for _, target := range []string{"/m", "/teapot", "/a%2Fb", "/dead"} {
			r := s.get(target)
			if d, err := http.ParseTime(r.Header.Get("Date")); err != nil || time.Since(d).Abs() > time.Minute {
				s.t.Errorf("%s: Date %q", target, r.Header.Get("Date"))
			}
		}
	}},
}
