package apptest

import (
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/gatetest"
)

var poisonRoutes = []string{
	`{name: plain, path: "/p/{rest...}", cache: {}, upstream: o}`,
	`{name: query, path: "/q/{rest...}", cache: {key: {query: [page]}}, upstream: o}`,
	`{name: headers, path: "/h/{rest...}", cache: {key: {headers: [X-A, X-B]}}, upstream: o}`,
	`{name: ranges, path: "/r/{rest...}", cache: {}, upstream: o}`,
	`{name: conditions, path: "/c/{rest...}", cache: {}, upstream: o}`,
}

// mirror is an origin as careless as can be: it tells every client all that it got,
// and says that anybody may have it for an hour.
type mirror struct {
	*gatetest.Origin
	serial atomic.Int64
	hold   atomic.Pointer[chan struct{}] // who says evil waits for it
}

const careless = "Cache-Control: public, max-age=3600\r\n"

func newMirror(t testing.TB) *mirror {
	m := &mirror{}
	m.Origin = gatetest.NewOrigin(t, gatetest.Answer(m.answer))
	return m
}

func (m *mirror) answer(s *gatetest.Seen) string {
	if hold := m.hold.Load(); hold != nil && evil(string(s.Raw)) {
		select {
		case <-*hold:
		case <-time.After(10 * time.Second):
		}
	}
	body := fmt.Sprintf("n=%d \n%s", m.serial.Add(1), s.Raw)
	status, more := "200 OK", ""
	switch {
	case strings.HasPrefix(s.Target, "/q/"):
		// Some origins take ; for & too, and the first of two.
		body = fmt.Sprintf("n=%d \npages:", m.serial.Load())
		_, query, _ := strings.Cut(s.Target, "?")
		for _, p := range strings.FieldsFunc(query, func(c rune) bool { return c == '&' || c == ';' }) {
			name, value, _ := strings.Cut(p, "=")
			if n, err := url.QueryUnescape(name); err == nil && n == "page" {
				body += " " + value
			}
		}
	case strings.HasPrefix(s.Target, "/r/") && s.Header.Has("Range"):
		status, more, body = "206 Partial Content", "Content-Range: bytes 0-3/100\r\n", "evil"
		if s.Header.Get("Range") == "bytes=999-" {
			status, more = "416 Range Not Satisfiable", "Content-Range: bytes */100\r\n"
		}
	case strings.HasPrefix(s.Target, "/c/") && s.Header.Has("If-None-Match"):
		return "HTTP/1.1 304 Not Modified\r\n" + careless + "ETag: \"evil\"\r\n\r\n"
	case strings.HasPrefix(s.Target, "/c/") && (s.Header.Has("If-Match") || s.Header.Has("If-Unmodified-Since")):
		status, body = "412 Precondition Failed", "evil"
	}
	if s.Method == "HEAD" {
		return fmt.Sprintf("HTTP/1.1 %s\r\n%s%sContent-Length: %d\r\n\r\n", status, careless, more, len(body))
	}
	return fmt.Sprintf("HTTP/1.1 %s\r\n%s%sContent-Length: %d\r\n\r\n%s", status, careless, more, len(body), body)
}

func evil(s string) bool { return strings.Contains(strings.ToLower(s), "evil") }

// poison is a request of an attacker's and the target whose honest visitors it is meant
// for. @ is the target's own name.
type poison struct {
	name    string
	request string // a target with its query, or a whole request
	header  string
	honest  string
}

func poisons() (all []poison) {
	for _, name := range []string{
		"X-Forwarded-Host", "X-Forwarded-Scheme", "X-Forwarded-Proto", "X-Forwarded-Server", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-For", "X-Forwarded-SSL",
		"X-Original-URL", "X-Rewrite-URL", "X-Original-Host", "X-Host", "X-Real-IP", "X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override",
	} {
		all = append(all, poison{name: name, request: "/p/@", header: name + ": evil\r\n", honest: "/p/@"})
	}
	all = append(
		all,
		poison{name: "Forwarded", request: "/p/@", header: "Forwarded: for=1.2.3.4;host=evil;proto=evil\r\n", honest: "/p/@"},
		poison{name: "a field of Connection", request: "/p/@", header: "Connection: X-Evil\r\nX-Evil: evil\r\n", honest: "/p/@"},
		poison{name: "a name with _", request: "/p/@", header: "X_Forwarded_Host: evil\r\n", honest: "/p/@"},
		poison{name: "two Hosts", request: "GET /p/@ HTTP/1.1\r\nHost: a.test\r\nHost: evil.example\r\n\r\n", honest: "/p/@"},
		poison{name: "two Hosts, the other first", request: "GET /p/@ HTTP/1.1\r\nHost: evil.example\r\nHost: a.test\r\n\r\n", honest: "/p/@"},
		poison{name: "another Host", request: "GET /p/@ HTTP/1.1\r\nHost: evil.example\r\n\r\n", honest: "/p/@"},
		poison{name: "a Host of two", request: "GET /p/@ HTTP/1.1\r\nHost: a.test, evil.example\r\n\r\n", honest: "/p/@"},
		poison{name: "a Host with a name before it", request: "GET /p/@ HTTP/1.1\r\nHost: evil@a.test\r\n\r\n", honest: "/p/@"},
		poison{name: "a Host with a path", request: "GET /p/@ HTTP/1.1\r\nHost: a.test/evil\r\n\r\n", honest: "/p/@"},
		poison{name: "a Host with a port of letters", request: "GET /p/@ HTTP/1.1\r\nHost: a.test:evil\r\n\r\n", honest: "/p/@"},
		poison{name: "a folded Host", request: "GET /p/@ HTTP/1.1\r\nHost: a.test\r\n evil.example\r\n\r\n", honest: "/p/@"},
		poison{name: "absolute form", request: "GET http://evil.example/p/@ HTTP/1.1\r\nHost: a.test\r\n\r\n", honest: "/p/@"},
		poison{name: "absolute form, Host evil", request: "GET http://a.test/p/@ HTTP/1.1\r\nHost: evil.example\r\n\r\n", honest: "/p/@"},
		poison{name: "absolute form, another scheme", request: "GET evil://a.test/p/@ HTTP/1.1\r\nHost: a.test\r\n\r\n", honest: "/p/@"},
		poison{name: "fat GET", request: "GET /p/@ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nevil", honest: "/p/@"},
		poison{name: "fat GET in chunks", request: "GET /p/@ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n", honest: "/p/@"},
		poison{name: "fat GET that overrides", request: "GET /p/@ HTTP/1.1\r\nHost: a.test\r\nX-HTTP-Method-Override: POST\r\nContent-Length: 4\r\n\r\nevil", honest: "/p/@"},
		poison{name: "fat HEAD", request: "HEAD /p/@ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nevil", honest: "/p/@"},
		poison{name: "QUERY", request: "QUERY /p/@ HTTP/1.1\r\nHost: a.test\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nevil", honest: "/p/@"},
		poison{name: "POST with a Content-Location", request: "POST /p/@ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nevil", honest: "/p/@"},
		poison{name: "an upgrade", request: "/p/@", header: "Connection: Upgrade\r\nUpgrade: evil\r\n", honest: "/p/@"},
		poison{name: "a range", request: "/r/@", header: "Range: bytes=0-3\r\n", honest: "/r/@"},
		poison{name: "a range behind the end", request: "/r/@", header: "Range: bytes=999-\r\n", honest: "/r/@"},
		poison{name: "ranges", request: "/r/@", header: "Range: bytes=0-0,2-3\r\n", honest: "/r/@"},
		poison{name: "a range under condition", request: "/r/@", header: "Range: bytes=0-3\r\nIf-Range: \"evil\"\r\n", honest: "/r/@"},
		poison{name: "If-None-Match", request: "/c/@", header: "If-None-Match: \"evil\"\r\n", honest: "/c/@"},
		poison{name: "If-Match", request: "/c/@", header: "If-Match: \"evil\"\r\n", honest: "/c/@"},
		poison{name: "If-Unmodified-Since", request: "/c/@", header: "If-Unmodified-Since: Mon, 01 Jan 2001 00:00:00 GMT\r\n", honest: "/c/@"},
		poison{name: "HEAD first", request: "HEAD /p/@ HTTP/1.1\r\nHost: a.test\r\n\r\n", honest: "/p/@"},
	)
	for _, target := range []string{
		"/p/evil/../@", "/p/evil/%2e%2e/@", "/p/evil/%2E./@", "/p/evil/.%2e/@", "/evil/../p/@", "//p//@?evil", "/p/./evil/.././@", "/p/@/evil/..", "/p/@?evil", "/p/@?",
		"/p/@;evil", "/p/@%3Bevil", "/p/@%00evil", "/p/@%23evil", "/p/@#evil", "/p/@%3Fevil", "/p/@%20evil", "/evil%2f..%2fp/@", "/evil/..%2fp/@", "/p/evil\\..\\@", "/p/evil%5c..%5c@",
		"/p/@%0d%0aX-Evil:%20evil", "/p/@?x=%0d%0aX-Evil:%20evil%0d%0a%0d%0aevil", "/p/@?evil&evil", "/p/%2e%2e/p/evil/%2e%2e/@", "/p/evil/%252e%252e/@", "/p/@%EF%BC%8Fevil",
	} {
		all = append(all, poison{name: target, request: target, honest: "/p/@"})
	}
	for _, query := range []string{
		"page=1&page=evil", "page=evil&page=1", "page=1;page=evil", "utm=x;page=evil&page=1", "page=1&utm=x;page=evil", ";page=evil&page=1", "page=1&;page=evil", "page=1%26page=evil",
		"page=1%3Bpage=evil", "utm=x%26page=evil&page=1", "page=1&%70age=evil", "%70%61%67%65=evil&page=1", "page=1&&page=evil", "page=1&utm=%0d%0aX-Evil:%20evil", "page=1#&page=evil",
		"page=1&page", "page=1?page=evil", "page=1&+page=evil", "page=1&page+=evil",
	} {
		all = append(all, poison{name: "?" + query, request: "/q/@?" + query, honest: "/q/@?page=1"})
	}
	return all
}

func (p poison) raw(name string) string {
	request := p.request
	if strings.HasPrefix(request, "/") {
		request = getting(request, p.header)
	}
	return strings.Replace(strings.Replace(request, "@a.test", "\x00", 1), "@", name, 1)
}

// TestCachePoison sends requests that make a careless origin say what an attacker
// wants, in parts of the request that tell no object from another. No visitor may get to
// see it, whether he comes behind the attacker or while the attacker's answer is being
// made.
func TestCachePoison(t *testing.T) {
	m := newMirror(t)
	g := start(t, cachingAt(m.Addr, "", "", poisonRoutes...))
	visit := func(p poison, name, how string) {
		k := &asker{addr: g.addr("PLAIN")}
		defer k.hangUp()
		r, err := k.get(strings.Replace(p.honest, "@", name, 1), "")
		switch {
		case err != nil:
			t.Errorf("%s, %s: %v", p.name, how, err)
		case r.status != 200 || evil(string(r.body)) || evil(string(r.head)):
			t.Errorf("%s: a visitor %s has\n%s%s", p.name, how, r.head, r.body)
		}
	}
	outcomes := newCounter()
	for i, p := range poisons() {
		attack := func(name string) {
			k := &asker{addr: g.addr("PLAIN")}
			defer k.hangUp()
			request := strings.Replace(p.raw(name), "\x00", "@a.test", 1)
			r, err := k.ask(request)
			if err == nil && strings.Contains(strings.ToLower(string(r.head)), "\nx-evil:") {
				t.Errorf("%s: the head holds a field of the attacker's making:\n%s", p.name, r.head)
			}
			switch {
			case err != nil:
				outcomes.add("connection closed")
			case r.status == 200 && evil(string(r.body)):
				outcomes.add("200 with what it said, " + r.cache())
			default:
				outcomes.add(fmt.Sprintf("%d without it, %s", r.status, r.cache()))
			}
		}
		name := fmt.Sprintf("behind-%d", i)
		attack(name)
		visit(p, name, "behind the attacker")

		name = fmt.Sprintf("beside-%d", i)
		hold := make(chan struct{})
		m.hold.Store(&hold)
		var both sync.WaitGroup
		before := len(m.Requests())
		both.Go(func() { attack(name) })
		_ = poll(100*time.Millisecond, func() error { // it never comes when the gateway refuses it
			if len(m.Requests()) == before {
				return errNotYet
			}
			return nil
		})
		visited := make(chan struct{})
		both.Go(func() {
			defer close(visited)
			visit(p, name, "beside the attacker")
		})
		late := time.NewTimer(100 * time.Millisecond)
		select {
		case <-visited:
		case <-late.C:
		}
		late.Stop()
		close(hold)
		m.hold.Store(nil)
		both.Wait()
	}
	t.Logf("attackers got: %v", outcomes.all())
	arrived := 0
	for _, s := range m.Requests() {
		if evil(string(s.Raw)) {
			arrived++
		}
	}
	if arrived < 30 {
		t.Errorf("%d requests of attackers reached the origin: there was nothing to be kept from visitors", arrived)
	}
}

// TestCacheKeysApart asks for pairs that must not be taken for one another, and for
// pairs that must.
func TestCacheKeysApart(t *testing.T) {
	m := newMirror(t)
	g := start(t, cachingAt(m.Addr, "", "", poisonRoutes...))
	k := &asker{addr: g.addr("PLAIN")}
	defer k.hangUp()
	serial := func(request string) string {
		t.Helper()
		r, err := k.ask(request)
		if err != nil {
			t.Errorf("%.200q: %v", request, err)
			return ""
		}
		n, _, _ := strings.Cut(string(r.body), " ")
		if r.status != 200 {
			return fmt.Sprintf("status %d", r.status)
		}
		return n
	}
	query := func(target, header, body string) string {
		return fmt.Sprintf("QUERY %s HTTP/1.1\r\nHost: a.test\r\n%sContent-Length: %d\r\n\r\n%s", target, header, len(body), body)
	}
	host := func(target, host string) string { return "GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n" }
	var many, other strings.Builder
	for i := range 300 {
		fmt.Fprintf(&many, "&p%d=%d", i, i)
		fmt.Fprintf(&other, "&p%d=%d", i, i+i/299)
	}
	long := strings.Repeat("x", 8000)
	for i, c := range []struct {
		one, two string
		same     bool
	}{
		{getting("/h/@", "X-A: 1\r\nX-B: 2\r\n"), getting("/h/@", "X-A: 12\r\n"), false},
		{getting("/h/@", "X-A: 1\r\nX-B: 2\r\n"), getting("/h/@", "X-A: 2\r\nX-B: 1\r\n"), false},
		{getting("/h/@", "X-A: 1\r\n"), getting("/h/@", "X-B: 1\r\n"), false},
		{getting("/h/@", "X-A: \r\n"), getting("/h/@", ""), false},
		{getting("/h/@", "X-A: 1, X-B: 2\r\n"), getting("/h/@", "X-A: 1\r\nX-B: 2\r\n"), false},
		{getting("/h/@", "X-A: a\tb\r\n"), getting("/h/@", "X-A: a b\r\n"), false},
		{getting("/h/@", "X-A: a\r\n"), getting("/h/@", "X-A: A\r\n"), false},
		{getting("/h/@", "X-A: 1\r\n"), getting("/h/@?x-a=1", ""), false},
		{getting("/p/@?a=1&b=2", ""), getting("/p/@?a=1%26b=2", ""), false},
		{getting("/p/@?a=1&b=2", ""), getting("/p/@?a=1;b=2", ""), false},
		{getting("/p/@?a=1+2", ""), getting("/p/@?a=1%202", ""), false},
		{getting("/p/@?a=1+2", ""), getting("/p/@?a=1%2B2", ""), false},
		{getting("/p/@?a", ""), getting("/p/@?a=", ""), false},
		{getting("/p/@?=a", ""), getting("/p/@?a", ""), false},
		{getting("/p/@?a=1&a=2", ""), getting("/p/@?a=2&a=1", ""), false},
		{getting("/p/@?A=1", ""), getting("/p/@?a=1", ""), false},
		{getting("/p/@?a=1%00", ""), getting("/p/@?a=1", ""), false},
		{getting("/p/@?a=%FE", ""), getting("/p/@?a=%FF", ""), false},
		{getting("/p/@?a=b%3Dc", ""), getting("/p/@?a%3Db=c", ""), false},
		{getting("/p/@%3Fa=1", ""), getting("/p/@?a=1", ""), false},
		{getting("/p/@a", ""), getting("/p/@A", ""), false},
		{getting("/p/@/", ""), getting("/p/@", ""), false},
		{getting("/p/@?"+long+"1", ""), getting("/p/@?"+long+"2", ""), false},
		{getting("/p/@?"+many.String(), ""), getting("/p/@?"+other.String(), ""), false},
		{host("/p/@", "a.test"), host("/p/@", "b.test"), false},
		{host("/p/@", "a.test:81"), host("/p/@", "a.test"), false},
		{host("/p/@", "a.test:81"), host("/p/@", "a.test:8"), false},
		{query("/p/@", "Content-Type: text/plain\r\n", "a"), query("/p/@", "Content-Type: text/plain\r\n", "b"), false},
		{query("/p/@", "Content-Type: text/plain\r\n", "a"), query("/p/@", "Content-Type: application/json\r\n", "a"), false},
		{query("/p/@", "Content-Type: text/plain\r\n", "a"), query("/p/@", "Content-Type: text/plain\r\nContent-Encoding: gzip\r\n", "a"), false},
		{query("/p/@", "Content-Type: text/plain\r\n", "a"), getting("/p/@", ""), false},
		{getting("/p/@", ""), query("/p/@", "Content-Type: text/plain\r\n", ""), false},
		{getting("/q/@?page=1", ""), getting("/q/@?page=2", ""), false},
		{getting("/q/@?page=", ""), getting("/q/@", ""), false},
		{getting("/q/@?page", ""), getting("/q/@", ""), false},

		{getting("/p/@?a=1&b=2", ""), getting("/p/@?b=2&a=1", ""), true},
		{getting("/p/@?a=%7e", ""), getting("/p/@?%61=~", ""), true},
		{getting("/p/@?a=%2f", ""), getting("/p/@?a=%2F", ""), true},
		{getting("/p/x/../@", ""), getting("/p/@", ""), true},
		{getting("/p/%61@", ""), getting("/p/a@", ""), true},
		{host("/p/@", "a.test"), host("/p/@", "A.Test:80"), true},
		{host("/p/@", "a.test"), host("http://a.test/p/@", "a.test"), true},
		{getting("/h/@", "X-A: 1\r\n"), getting("/h/@", "x-a:   1  \r\nX-Other: 2\r\n"), true},
		{getting("/q/@?page=1&utm=x", ""), getting("/q/@?utm=y&page=1&z", ""), true},
		{query("/p/@", "Content-Type: text/plain\r\n", "a"), query("/p/@", "Content-Type: text/plain\r\n", "a"), true},
	} {
		name := fmt.Sprint("pair", i)
		one := serial(strings.ReplaceAll(c.one, "@", name))
		two := serial(strings.ReplaceAll(c.two, "@", name))
		if strings.HasPrefix(one, "status") || strings.HasPrefix(two, "status") {
			t.Logf("%.100q and %.100q: %s and %s", c.one, c.two, one, two)
			if c.same {
				t.Errorf("one of them was refused")
			}
			continue
		}
		if (one == two) != c.same {
			t.Errorf("%.200q and %.200q: the answers are %s and %s, want the same: %v", c.one, c.two, one, two, c.same)
		}
	}
}
