package apptest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/gatetest"
)

// What the gateway does of its own: errors, header fields, paths, policies.

var errorRows = []row{
	{"nothing routed is 404", func(s *side) {
		problem(s.t, s.do(gatetest.Message{Host: "other.test", Target: "/m"}), 404, "route_not_found")
	}},
	{"a refused request with a body leaves the connection usable or closed", func(s *side) {
		for range 3 {
			problem(s.t, s.do(gatetest.Message{Method: "POST", Host: "other.test", Target: "/m", Body: strings.Repeat("x", 100<<10)}), 404, "route_not_found")
			s.echoed(gatetest.Message{Target: "/m"})
		}
	}},
	{"HEAD of an error has its head only", func(s *side) {
		r := s.do(gatetest.Message{Method: "HEAD", Host: "other.test", Target: "/m"})
		if r.Status != 404 || r.Body != "" || r.Header.Get("Content-Type") != "application/problem+json" {
			s.t.Errorf("%d %q %v", r.Status, r.Body, r.Header)
		}
	}},
	{"bad paths are 400", func(s *side) {
		bad := []string{"/p/a%2Fb", "/p/a%2fb", "/p/a%5Cb", "/p/a%5cb", "/p/%00", "/p/a;b", "/p/a;jsessionid=1/b", `/p/a\b`, "/p/%2e%2e%2fq", "/p/a%2F..%2Fb"}
		if !s.d.H2 {
			// They make an HTTP/2 request malformed (RFC 9113 §8.1.1): its stream is
			// reset, and net/http's client tries again until its time is over.
			bad = append(bad, "/p/%zz", "/p/%4", "/p/a%")
		}
		for _, target := range bad {
			r, err := s.try(gatetest.Message{Target: target})
			if err != nil {
				s.t.Errorf("%s: %v", target, err)
				continue
			}
			if r.Status != 400 {
				s.t.Errorf("%s: status %d, want 400: %s", target, r.Status, r.Body)
				continue
			}
			problem(s.t, r, 400, "bad_request")
		}
	}},
	{"a declared length above the limit is 413", func(s *side) {
		problem(s.t, s.do(gatetest.Message{Method: "POST", Target: "/small", Body: strings.Repeat("x", 1025)}), 413, "payload_too_large")
		if e := s.echoed(gatetest.Message{Method: "POST", Target: "/small", Body: strings.Repeat("x", 1024)}); e.Size != 1024 {
			s.t.Errorf("the origin got %d bytes, want 1024", e.Size)
		}
	}},
	{"a length that grows above the limit is 413", func(s *side) {
		name := s.caseName()
		m := gatetest.Message{Method: "POST", Target: "/small", Body: strings.Repeat("x", 20<<10), Unknown: true, Header: fields("X-Case", name)}
		problem(s.t, s.do(m), 413, "payload_too_large")
		m.Body = strings.Repeat("x", 1024)
		if e := s.echoed(m); e.Size != 1024 {
			s.t.Errorf("the origin got %d bytes, want 1024", e.Size)
		}
	}},
	{"a head above the limit is 431", func(s *side) {
		r, err := s.try(gatetest.Message{Target: "/m", Header: fields("X-Big", strings.Repeat("x", 20<<10))})
		switch {
		case err == nil && s.d.H2:
			if r.Status != 431 {
				s.t.Errorf("status %d, want 431", r.Status)
			}
		case err == nil:
			problem(s.t, r, 431, "headers_too_large")
		case !s.d.H2 || !strings.Contains(err.Error(), "peer's advertised limit"):
			// Over HTTP/2 the client may know the limit from SETTINGS and not send.
			s.t.Error(err)
		}
		s.echoed(gatetest.Message{Target: "/m", Header: fields("X-Fits", strings.Repeat("x", 8<<10))})
	}},
	{"a target above the limit is 414", func(s *side) {
		if s.d.H2 {
			return // :path counts as a header field there: 431, or not sent at all
		}
		problem(s.t, s.get("/m?"+strings.Repeat("x", 20<<10)), 414, "uri_too_long")
	}},
	{"a refusal reaches a client that is still sending", func(s *side) {
		if s.d.H2 {
			return // a stream ends by itself, and not its connection
		}
		c := s.dialAs(s.t, s.d, "a.test")
		if _, err := io.WriteString(c, "GET /m?"+strings.Repeat("x", 17<<10)); err != nil {
			s.t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			s.t.Fatal(err)
		}
		if _, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 414 {
			s.t.Errorf("%d, %v, want 414", resp.StatusCode, err)
		}
		// A close with bytes unread would be a reset, which can overtake the reply.
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for i := range 10 {
			<-tick.C
			if _, err := io.WriteString(c, strings.Repeat("x", 100)); err != nil {
				s.t.Fatalf("write %d behind the reply: %v", i, err)
			}
		}
	}},
	{"a client whose body stops is 408", func(s *side) {
		body, hold := io.Pipe()
		defer hold.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		req, err := s.Request(ctx, gatetest.Message{Method: "POST", Host: "a.test", Target: "/m"})
		if err != nil {
			s.t.Fatal(err)
		}
		req.Body, req.ContentLength = body, 100
		go func() { _, _ = io.WriteString(hold, "some of it") }()
		began := time.Now()
		resp, err := s.RoundTrip(req)
		if err != nil {
			s.t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		problem(s.t, &gatetest.Reply{Status: resp.StatusCode, Header: resp.Header, Body: string(text)}, 408, "request_timeout")
		if d := time.Since(began); d > 4*time.Second {
			s.t.Errorf("cut after %v, want about 1 s (body_idle_timeout)", d)
		}
	}},
	{"a dead upstream is 502", func(s *side) {
		r := s.get("/dead")
		problem(s.t, r, 502, "upstream_unavailable")
		if ps := r.Header.Get("Proxy-Status"); !strings.HasPrefix(ps, "sluice;") || !strings.Contains(ps, "error=") {
			s.t.Errorf("Proxy-Status %q, want sluice; error=… (RFC 9209)", ps)
		}
	}},
	{"a reset upstream is 502", func(s *side) {
		r := s.do(gatetest.Message{Method: "POST", Target: "/raw/reset", Body: "once", Header: fields("X-Case", s.caseName())})
		problem(s.t, r, 502, "upstream_unavailable")
		if r.Header.Get("Proxy-Status") == "" {
			s.t.Error("no Proxy-Status")
		}
	}},
	{"an upstream that speaks nonsense is 502", func(s *side) {
		for _, act := range []string{"garbage", "two-lengths"} {
			r := s.get("/raw/" + act)
			problem(s.t, r, 502, "bad_upstream_response")
			if r.Header.Get("Proxy-Status") == "" {
				s.t.Errorf("%s: no Proxy-Status", act)
			}
		}
	}},
	{"a body that breaks off is not a whole body", func(s *side) {
		for _, act := range []string{"half", "half-chunked", "bad-chunk"} {
			if r, err := s.try(gatetest.Message{Target: "/raw/" + act}); err == nil && r.Status == 200 {
				s.t.Errorf("%s: the client got %q as a whole reply", act, r.Body)
			}
		}
	}},
	{"an upstream that is late is 504", func(s *side) {
		for _, target := range []string{"/slow/hang", "/quick/hang"} {
			began := time.Now()
			r := s.get(target, "X-Case", s.caseName()+target)
			problem(s.t, r, 504, "upstream_timeout")
			if d := time.Since(began); d < 250*time.Millisecond || d > 3*time.Second {
				s.t.Errorf("%s: after %v, want about 300 ms", target, d)
			}
			if r.Header.Get("Proxy-Status") == "" {
				s.t.Errorf("%s: no Proxy-Status", target)
			}
		}
	}},
	{"an error has no stack and no address in it", func(s *side) {
		for _, target := range []string{"/dead", "/raw/garbage", "/slow/hang"} {
			r := s.get(target, "X-Case", s.caseName()+target)
			for _, secret := range []string{"goroutine", ".go:", "127.0.0.1", "panic"} {
				if strings.Contains(r.Body, secret) {
					s.t.Errorf("%s: %q in %s", target, secret, r.Body)
				}
			}
		}
	}},
}

var headerRows = []row{
	{"every reply has a request id, which the origin saw", func(s *side) {
		r := s.get("/m")
		id := r.Header.Get("X-Request-Id")
		if !uuidv7.MatchString(id) || !strings.Contains(r.Body, `"X-Request-Id":["`+id+`"]`) {
			s.t.Errorf("id %q, the origin saw %s", id, r.Body)
		}
		if again := s.get("/m").Header.Get("X-Request-Id"); again == id {
			s.t.Error("two requests with one id")
		}
		for _, target := range []string{"/teapot", "/a%2Fb", "/dead", "/status/500"} {
			if id := s.get(target).Header.Get("X-Request-Id"); !uuidv7.MatchString(id) {
				s.t.Errorf("%s: request id %q", target, id)
			}
		}
	}},
	{"an id from anybody is replaced, one from a trusted proxy kept", func(s *side) {
		m := gatetest.Message{Target: "/m", Header: fields("X-Request-Id", "chosen-by-the-client")}
		if id := s.do(m).Header.Get("X-Request-Id"); !uuidv7.MatchString(id) {
			s.t.Errorf("untrusted: id %q", id)
		}
		r := s.from(s.proxy).do(m)
		if id := r.Header.Get("X-Request-Id"); id != "chosen-by-the-client" || !strings.Contains(r.Body, `"X-Request-Id":["chosen-by-the-client"]`) {
			s.t.Errorf("trusted: id %q, the origin saw %s", id, r.Body)
		}
	}},
	{"the origin learns who asked and how", func(s *side) {
		e := s.echoed(gatetest.Message{Target: "/m"})
		if e.Host != "a.test" {
			s.t.Errorf("Host %q", e.Host)
		}
		for name, want := range map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": s.d.Scheme(), "X-Forwarded-Host": "a.test"} {
			if got := e.Header.Values(name); !slices.Equal(got, []string{want}) {
				s.t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		// A value may be quoted or not (RFC 7239 §4).
		forwarded := strings.Split(strings.ReplaceAll(e.Header.Get("Forwarded"), `"`, ""), ";")
		slices.Sort(forwarded)
		if want := []string{"for=127.0.0.1", "host=a.test", "proto=" + s.d.Scheme()}; !slices.Equal(forwarded, want) {
			s.t.Errorf("Forwarded %q, want %q", e.Header.Get("Forwarded"), want)
		}
		if via := e.Header.Get("Via"); via != s.d.Via() && (!s.d.H2 || via != "2 sluice") {
			s.t.Errorf("Via %q, want %q", via, s.d.Via())
		}
		for name := range e.Header {
			if !slices.Contains([]string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "Forwarded", "Via", "X-Request-Id", "Traceparent", "X-Real-Ip"}, name) {
				s.t.Errorf("the origin got %s, which the client did not send", name)
			}
		}
	}},
	{"what anybody claims about forwarding is dropped", func(s *side) {
		e := s.echoed(gatetest.Message{Target: "/m", Header: fields(
			"X-Forwarded-For", "6.6.6.6", "X-Forwarded-Proto", "gopher", "X-Forwarded-Host", "evil.test", "X-Forwarded-Prefix", "/evil",
			"X-Forwarded-Port", "666", "X-Forwarded-Server", "evil.test", "Forwarded", "for=6.6.6.6;host=evil.test", "X-Real-IP", "6.6.6.6", "Client-Cert", ":ZXZpbA==:")})
		for name, values := range e.Header {
			for _, v := range values {
				for _, bad := range []string{"6.6.6.6", "evil", "gopher", "ZXZpbA"} {
					if strings.Contains(v, bad) || v == "666" {
						s.t.Errorf("the origin got %s: %s", name, v)
					}
				}
			}
		}
		if got := e.Header.Values("X-Forwarded-For"); !slices.Equal(got, []string{"127.0.0.1"}) {
			s.t.Errorf("X-Forwarded-For %q", got)
		}
	}},
	{"what a trusted proxy says about forwarding is kept and continued", func(s *side) {
		e := s.from(s.proxy).echoed(gatetest.Message{Target: "/m", Header: fields(
			"X-Forwarded-For", "203.0.113.7", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "public.test", "Forwarded", "for=203.0.113.7;proto=https")})
		for name, want := range map[string]string{"X-Forwarded-For": "203.0.113.7, 127.0.0.2", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "public.test"} {
			if got := strings.Join(e.Header.Values(name), ", "); got != want {
				s.t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if f := e.Header.Get("Forwarded"); !strings.HasPrefix(f, "for=203.0.113.7;proto=https, for=127.0.0.2") {
			s.t.Errorf("Forwarded %q, want the client's and then the proxy's", f)
		}
	}},
	{"names with an underscore are dropped", func(s *side) {
		e := s.echoed(gatetest.Message{Target: "/m", Header: fields("X_Forwarded_For", "6.6.6.6", "a_b", "1", "A-B", "2")})
		if fmt.Sprint(e.Header["A-B"]) != "[2]" || strings.Contains(fmt.Sprint(e.Header), "_") {
			s.t.Errorf("the origin got %v", e.Header)
		}
	}},
	{"end-to-end fields pass in order", func(s *side) {
		e := s.echoed(gatetest.Message{Target: "/m", Header: fields("X-Multi", "a", "X-Multi", "b, c", "Cookie", "x=1; y=2", "Accept", "text/html", "User-Agent", "tester/1", "X-Empty", "")})
		for name, want := range map[string][]string{"X-Multi": {"a", "b, c"}, "Cookie": {"x=1; y=2"}, "Accept": {"text/html"}, "User-Agent": {"tester/1"}, "X-Empty": {""}} {
			if got := e.Header.Values(name); !slices.Equal(got, want) {
				s.t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		r := s.get("/hop")
		if got := r.Header.Values("Set-Cookie"); !slices.Equal(got, []string{"a=1", "b=2"}) {
			s.t.Errorf("Set-Cookie %q", got)
		}
	}},
	{"the origin's hop-by-hop fields stay behind", func(s *side) {
		r := s.get("/hop")
		for _, name := range []string{"X-Secret-Hop", "Keep-Alive", "Proxy-Connection", "Upgrade"} {
			if r.Header.Get(name) != "" {
				s.t.Errorf("the client got %s: %s", name, r.Header.Get(name))
			}
		}
		if r.Status != 200 || r.Header.Get("X-End-To-End") != "1" || strings.Contains(r.Header.Get("Connection"), "X-Secret") {
			s.t.Errorf("%d %v", r.Status, r.Header)
		}
	}},
	{"the client's hop-by-hop fields stay behind", func(s *side) {
		h := fields("Keep-Alive", "timeout=9", "Proxy-Connection", "keep-alive", "X-Stays", "1")
		if s.d.H2 {
			h = fields("X-Stays", "1", "TE", "trailers") // the others make an HTTP/2 request malformed (RFC 9113 §8.2.2)
		} else {
			h = append(h, fields("Connection", "X-Goes, keep-alive", "X-Goes", "1", "TE", "trailers, gzip")...)
		}
		e := s.echoed(gatetest.Message{Target: "/m", Header: h})
		for _, name := range []string{"Keep-Alive", "Proxy-Connection", "X-Goes", "Upgrade"} {
			if v := e.Header.Get(name); v != "" {
				s.t.Errorf("the origin got %s: %s", name, v)
			}
		}
		if e.Header.Get("X-Stays") != "1" || strings.Contains(e.Header.Get("Connection"), "X-Goes") || strings.Contains(e.Header.Get("TE"), "gzip") {
			s.t.Errorf("the origin got %v", e.Header)
		}
	}},
	{"a trace is continued", func(s *side) {
		const trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
		e := s.echoed(gatetest.Message{Target: "/m", Header: fields("traceparent", "00-"+trace+"-"+span+"-01", "tracestate", "vendor=1")})
		m := traceparent.FindStringSubmatch(e.Header.Get("Traceparent"))
		if m == nil || m[1] != trace || m[2] == span || m[3] != "01" || e.Header.Get("Tracestate") != "vendor=1" {
			s.t.Errorf("the origin got traceparent %q, tracestate %q", e.Header.Get("Traceparent"), e.Header.Get("Tracestate"))
		}
	}},
	{"a trace is started", func(s *side) {
		for _, sent := range []string{"", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", "nonsense"} {
			m := gatetest.Message{Target: "/m"}
			if sent != "" {
				m.Header = fields("traceparent", sent)
			}
			e := s.echoed(m)
			if got := e.Header.Values("Traceparent"); len(got) != 1 || !traceparent.MatchString(got[0]) || got[0] == sent || strings.Contains(got[0], strings.Repeat("0", 32)) {
				s.t.Errorf("sent %q: the origin got traceparent %q", sent, got)
			}
		}
	}},
	{"an upstream may be called by its own name", func(s *side) {
		e := s.echoed(gatetest.Message{Target: "/hosted"})
		if e.Host != "origin.internal" || e.Header.Get("X-Forwarded-Host") != "a.test" {
			s.t.Errorf("Host %q, X-Forwarded-Host %q", e.Host, e.Header.Get("X-Forwarded-Host"))
		}
	}},
}

var traceparent = regexp.MustCompile(`^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$`)

var pathRows = []row{
	{"the origin gets the canonical path", func(s *side) {
		for sent, want := range map[string]string{
			"/p/a/../b":           "/p/b",
			"/p/./a/.":            "/p/a/",
			"/../../p/x":          "/p/x",
			"/p/%2e%2e/q":         "/q",
			"/p/%2E/q":            "/p/q",
			"/p/%7Euser":          "/p/~user",
			"/p/%41%2dz":          "/p/A-z",
			"/p/a%20b":            "/p/a%20b",
			"/p/%e4%B8%ad":        "/p/%E4%B8%AD",
			"/p//a///b":           "/p/a/b",
			"/p/a/":               "/p/a/",
			"/p/...":              "/p/...",
			"/p/a?x=%2f&y=../z;k": "/p/a?x=%2f&y=../z;k",
			"/p/a?":               "/p/a?",
			"/p/a?b?c":            "/p/a?b?c",
			"/p/a:b@c,d+e=f!$&'*": "/p/a:b@c,d+e=f!$&'*",
		} {
			if e := s.echoed(gatetest.Message{Target: sent}); e.URI != want {
				s.t.Errorf("%s: the origin saw %s, want %s", sent, e.URI, want)
			}
		}
	}},
	{"the router sees the canonical path", func(s *side) {
		for _, target := range []string{"/x/../teapot", "/%74eapot", "//teapot", "/./teapot"} {
			if r := s.get(target); r.Status != 418 {
				s.t.Errorf("%s: status %d, want 418", target, r.Status)
			}
		}
	}},
	{"a route may admit path parameters and encoded slashes", func(s *side) {
		for sent, want := range map[string]string{"/params/a;v=1/b": "/params/a;v=1/b", "/slash/a%2Fb": "/slash/a%2Fb", "/slash/a%2fb": "/slash/a%2Fb"} {
			if e := s.echoed(gatetest.Message{Target: sent}); e.URI != want {
				s.t.Errorf("%s: the origin saw %s, want %s", sent, e.URI, want)
			}
		}
		for _, target := range []string{"/params/a%2Fb", "/slash/a;b", "/slash/%5C", "/slash/%00"} {
			problem(s.t, s.get(target), 400, "bad_request")
		}
	}},
	{"a base path is stripped, by whole segments", func(s *side) {
		e := s.echoed(gatetest.Message{Host: "api.example.com", Target: "/v1/users/7?q=1"})
		if e.URI != "/users/7?q=1" || e.Header.Get("X-Forwarded-Prefix") != "/v1" {
			s.t.Errorf("the origin saw %s, prefix %q", e.URI, e.Header.Get("X-Forwarded-Prefix"))
		}
		for _, target := range []string{"/v1x/users/7", "/v1", "/v1/", "/users/7"} {
			problem(s.t, s.do(gatetest.Message{Host: "api.example.com", Target: target}), 404, "route_not_found")
		}
	}},
	{"a base path may be kept", func(s *side) {
		e := s.echoed(gatetest.Message{Host: "api.example.com", Target: "/v2/users/7"})
		if e.URI != "/v2/users/7" || e.Header.Get("X-Forwarded-Prefix") != "" {
			s.t.Errorf("the origin saw %s, prefix %q", e.URI, e.Header.Get("X-Forwarded-Prefix"))
		}
	}},
	{"request.path replaces the stripped path", func(s *side) {
		for sent, want := range map[string]string{
			"/v1/rewritten/7":         "/internal/users/7",
			"/v1/rewritten/7?a=1":     "/internal/users/7?a=1",
			"/v1/rewritten/a%20b":     "/internal/users/a%20b",
			"/v1/rewritten/a%3Fb%25":  "/internal/users/a%3Fb%25",
			"/v1/based/9":             "/base/b/9",
			"/v1/rest/x/y%20z/w?q":    "/kept/x/y%20z/w?q",
			"/v1/rest/":               "/kept/",
			"/v1/rest/one%3Ftwo/four": "/kept/one%3Ftwo/four",
		} {
			if e := s.echoed(gatetest.Message{Host: "api.example.com", Target: sent}); e.URI != want {
				s.t.Errorf("%s: the origin saw %s, want %s", sent, e.URI, want)
			}
		}
	}},
	{"a target's own path comes first", func(s *side) {
		if e := s.echoed(gatetest.Message{Target: "/based/x?y"}); e.URI != "/base/based/x?y" {
			s.t.Errorf("the origin saw %s", e.URI)
		}
	}},
	{"hosts are exact, wildcard, or any", func(s *side) {
		for host, want := range map[string]int{
			"api.example.com": 200, "API.Example.COM": 200, "api.example.com:8443": 200, "x.api.example.com": 200,
			"example.com": 404, "xapi.example.com": 404, "api.example.com.evil.test": 404,
		} {
			if r := s.do(gatetest.Message{Host: host, Target: "/v1/users/7"}); r.Status != want {
				s.t.Errorf("%s: status %d, want %d", host, r.Status, want)
			}
			if r := s.do(gatetest.Message{Host: host, Target: "/everywhere"}); r.Status != 418 {
				s.t.Errorf("%s/everywhere: status %d, want 418", host, r.Status)
			}
		}
	}},
	{"a route may want header fields and a query", func(s *side) {
		for _, c := range []struct {
			target, version string
			status          int
		}{{"/when?beta=1", "2", 418}, {"/when?x=y&beta=1", "2", 418}, {"/when?beta=2", "2", 200}, {"/when", "2", 200}, {"/when?beta=1", "3", 200}} {
			if r := s.get(c.target, "X-Version", c.version); r.Status != c.status {
				s.t.Errorf("%s with X-Version %s: status %d, want %d", c.target, c.version, r.Status, c.status)
			}
		}
	}},
	{"an api may belong to one listener", func(s *side) {
		want := 404
		if s.d.TLS {
			want = 418
		}
		if r := s.do(gatetest.Message{Host: "secure.example.com", Target: "/x"}); r.Status != want {
			s.t.Errorf("status %d, want %d", r.Status, want)
		}
	}},
}

var policyRows = []row{
	{"an address that is not allowed is 403", func(s *side) {
		if r := s.get("/allowed"); r.Status != 418 {
			s.t.Errorf("127.0.0.1: status %d, want 418", r.Status)
		}
		problem(s.t, s.from("127.0.0.3").get("/allowed"), 403, "forbidden")
	}},
	{"an address that is denied is 403", func(s *side) {
		problem(s.t, s.get("/denied"), 403, "forbidden")
	}},
	{"the address is the one that the nearest trusted proxy saw", func(s *side) {
		proxy := s.from(s.proxy)
		for forwarded, want := range map[string]int{
			"203.0.113.7":              418,
			"203.0.113.9":              403,
			"203.0.113.9, 203.0.113.7": 418, // the client may write what it likes on the left
			"203.0.113.7, 203.0.113.9": 403,
			"203.0.113.9, 127.0.0.2":   403, // a trusted proxy in the chain
			"203.0.113.9:1234":         403,
			"nonsense":                 403, // then it is the proxy itself: 127.0.0.2
		} {
			if r := proxy.get("/denied", "X-Forwarded-For", forwarded); r.Status != want {
				s.t.Errorf("X-Forwarded-For %s: status %d, want %d", forwarded, r.Status, want)
			}
		}
		if r := s.get("/denied", "X-Forwarded-For", "203.0.113.7"); r.Status != 403 {
			s.t.Errorf("from an untrusted peer: status %d, want 403", r.Status)
		}
	}},
	{"a rule in shadow refuses nobody", func(s *side) {
		before := s.gw.metric("sluice_filter_verdicts_total", `would_refuse`)
		if r := s.get("/shadow"); r.Status != 418 {
			s.t.Errorf("status %d, want 418", r.Status)
		}
		eventually(s.t, 5*time.Second, func() error {
			if now := s.gw.metric("sluice_filter_verdicts_total", `would_refuse`); now <= before {
				return fmt.Errorf("would_refuse was counted %v times, still %v", before, now)
			}
			return nil
		})
	}},
}

var upstreamRows = []row{
	{"a failed GET is tried again", func(s *side) {
		for _, act := range []string{"reset-first", "unavailable-first"} {
			r := s.get("/retried/"+act, "X-Case", s.caseName()+act)
			if r.Status != 200 || r.Body != "attempt 2" {
				s.t.Errorf("%s: %d %q, want the second attempt's 200", act, r.Status, r.Body)
			}
		}
	}},
	{"a POST that was sent is never sent again", func(s *side) {
		for act, want := range map[string]int{"reset-first": 502, "unavailable-first": 503} {
			name := s.caseName() + act
			r := s.do(gatetest.Message{Method: "POST", Target: "/retried/" + act, Body: "x", Header: fields("X-Case", name)})
			if r.Status != want {
				s.t.Errorf("%s: status %d, want %d", act, r.Status, want)
			}
			n := 0
			for _, q := range s.raw.Requests() {
				if q.Header.Get("X-Case") == name {
					n++
				}
			}
			if n != 1 {
				s.t.Errorf("%s: the origin saw it %d times", act, n)
			}
		}
	}},
	{"when every attempt fails the last answer is passed on", func(s *side) {
		r := s.get("/retried/unavailable", "X-Case", s.caseName())
		if r.Status != 503 || r.Body != "busy" || r.Header.Get("Retry-After") != "1" {
			s.t.Errorf("%d %q %v", r.Status, r.Body, r.Header)
		}
	}},
	{"bodies that end with the connection, and HTTP/1.0, are understood", func(s *side) {
		for act, want := range map[string]string{"close-delimited": "until the end", "http10": "old"} {
			if r := s.get("/raw/" + act); r.Status != http.StatusOK || r.Body != want {
				s.t.Errorf("%s: %d %q, want %q", act, r.Status, r.Body, want)
			}
		}
	}},
	{"a split follows its weights", func(s *side) {
		const n = 400
		var bodies bytes.Buffer
		for range n {
			bodies.WriteString(s.get("/split").Body)
		}
		blue, green := strings.Count(bodies.String(), "blue"), strings.Count(bodies.String(), "green")
		if blue+green != n || blue < n*70/100 || blue > n*90/100 {
			s.t.Errorf("blue %d, green %d of %d, want about 80 to 20", blue, green, n)
		}
	}},
}
