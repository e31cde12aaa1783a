package admin

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
)

// guarded are requests that need to pass the guard.
var guardedRequests = []struct{ method, path string }{
	{"GET", "/v1/config"},
	{"HEAD", "/v1/config"},
	{"PUT", "/v1/config"},
	{"GET", "/v1/routes"},
	{"GET", "/v1/upstreams"},
	{"POST", "/v1/explain"},
	{"GET", "/metrics"},
	{"GET", "/v1/openapi.json"},
	{"GET", "/nothing"},
	{"DELETE", "/v1/config"},
	{"POST", "/healthz"},
}

func TestWithoutATokenOnlyThisMachineIsNamed(t *testing.T) {
	n := newNode(t, document)
	s := start(t, n, config.Admin{})
	for _, host := range []string{
		"127.0.0.1", "127.0.0.1:9901", "127.9.8.7", "localhost", "localhost:9901", "LocalHost:1", "[::1]", "[::1]:9901", "[::ffff:127.0.0.1]:1",
	} {
		if r := s.ask("GET", "/v1/routes", "", "Host", host); r.status != 200 {
			t.Errorf("Host %q: %d", host, r.status)
		}
	}
	for _, host := range []string{
		"", "evil.test", "evil.test:9901", "127.0.0.1.evil.test", "localhost.evil.test", "evil.test:127.0.0.1", "127.0.0.1:evil", "0.0.0.0", "0.0.0.0:9901",
		"10.0.0.1", "[::]", "[::]:9901", "[::1%25lo]", "::1", "127.1", "2130706433", "0x7f.1", "localhost.", "127.0.0.1.", "127.0.0.1 ", "localhost:", "[::1", "169.254.169.254",
	} {
		if host == "::1" || host == "localhost:" || host == "[::1" {
			continue // not a Host, but of nobody else either
		}
		for _, q := range guardedRequests {
			if r := s.ask(q.method, q.path, "", "Host", host); r.status != 403 {
				t.Errorf("%s %s with Host %q: %d, want 403", q.method, q.path, host, r.status)
			}
		}
		for _, path := range []string{"/healthz", "/readyz"} {
			if r := s.ask("GET", path, "", "Host", host); r.status != 200 {
				t.Errorf("%s with Host %q: %d, want 200", path, host, r.status)
			}
		}
	}
}

func TestWithoutATokenWebPagesAreRefused(t *testing.T) {
	n := newNode(t, document)
	s := start(t, n, config.Admin{})
	for _, from := range [][]string{
		{"Origin", "http://evil.test"},
		{"Origin", "null"},
		{"Origin", ""},
		{"Origin", "http://127.0.0.1:9901"},
		{"Origin", "http://localhost"},
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
		{"Sec-Fetch-Site", "anything"},
	} {
		for _, q := range guardedRequests {
			s.ask(q.method, q.path, document, append(from, "Content-Type", "application/yaml")...)
			if r := s.ask(q.method, q.path, document, append(from, "Content-Type", "application/yaml")...); r.status != 403 {
				t.Errorf("%s %s with %q: %d, want 403", q.method, q.path, from, r.status)
			}
		}
	}
	if len(n.changes) > 0 {
		t.Errorf("a web page changed the configuration: %v", n.changes)
	}
	for _, site := range []string{"none", "same-origin"} {
		if r := s.ask("GET", "/v1/routes", "", "Sec-Fetch-Site", site); r.status != 200 {
			t.Errorf("Sec-Fetch-Site %s: %d", site, r.status)
		}
	}
}

func TestWhatAFormCanSendChangesNothing(t *testing.T) {
	n := newNode(t, document)
	for _, admin := range []config.Admin{{}, {Token: config.NewSecret("t0ken")}} {
		s := start(t, n, admin)
		for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/yaml, text/plain", "yaml", "text/plain; application/yaml", "application/octet-stream"} {
			header := []string{"Authorization", "Bearer t0ken"}
			if kind != "" {
				header = append(header, "Content-Type", kind)
			}
			s.ask("PUT", "/v1/config", document, header...).refused(t, 415, "unsupported_media_type")
			s.ask("POST", "/v1/explain", `{"url": "/"}`, header...).refused(t, 415, "unsupported_media_type")
		}
	}
	if len(n.changes) > 0 {
		t.Errorf("changes: %v", n.changes)
	}
}

func TestTheTokenOpensEverything(t *testing.T) {
	n := newNode(t, document)
	s := start(t, n, config.Admin{Token: config.NewSecret("t0ken-of-the-admin")})
	for _, auth := range []string{"Bearer t0ken-of-the-admin", "bearer t0ken-of-the-admin", "BEARER   t0ken-of-the-admin"} {
		// With the token neither the Host nor the origin matters: no browser has it.
		if r := s.ask("GET", "/v1/routes", "", "Authorization", auth, "Host", "admin.example.com", "Origin", "https://dashboard.example.com"); r.status != 200 {
			t.Errorf("%q: %d", auth, r.status)
		}
	}
	for _, auth := range []string{
		"", "Bearer", "Bearer ", "Bearer t0ken-of-the-admi", "Bearer t0ken-of-the-admin2", "Bearer T0KEN-OF-THE-ADMIN", "Bearer t0ken-of-the-admin ",
		"t0ken-of-the-admin", "Basic t0ken-of-the-admin", "Bearer\tt0ken-of-the-admin", "Bearer t0ken-of-the-admin, Bearer x", "Bearer \x00",
	} {
		for _, q := range guardedRequests {
			r := s.ask(q.method, q.path, "", "Authorization", auth)
			if r.status != 401 || r.header.Get("WWW-Authenticate") != `Bearer realm="sluice admin"` || strings.Contains(r.body, "t0ken") {
				t.Errorf("%s %s with %q: %d %s", q.method, q.path, auth, r.status, r.body)
			}
		}
	}
	s.ask("GET", "/v1/routes", "").refused(t, 401, "unauthenticated")
	s.ask("GET", "/v1/routes", "", "Authorization", "Bearer x", "Authorization", "Bearer t0ken-of-the-admin").refused(t, 401, "unauthenticated")
	s.ask("GET", "/v1/routes?token=t0ken-of-the-admin", "").refused(t, 401, "unauthenticated")
	for _, path := range []string{"/healthz", "/readyz"} {
		if r := s.ask("GET", path, "", "Host", "anything"); r.status != 200 {
			t.Errorf("%s: %d", path, r.status)
		}
	}
}

// TestTheTokenIsNotComparedByteByByte uses a token so long that a comparison
// which stops at the first difference would be many times faster there.
func TestTheTokenIsNotComparedByteByByte(t *testing.T) {
	token := strings.Repeat("t", 1<<20)
	s := start(t, newNode(t, document), config.Admin{Token: config.NewSecret(token)})
	fastest := func(guess string) time.Duration {
		r := httptest.NewRequest("GET", "/v1/config", nil)
		r.Header.Set("Authorization", "Bearer "+guess)
		var took []time.Duration
		for range 50 {
			began := time.Now()
			p := s.guard(r)
			took = append(took, time.Since(began))
			if p == nil {
				t.Fatal("a wrong token was taken")
			}
		}
		return slices.Min(took)
	}
	first, last := fastest("x"+token[1:]), fastest(token[1:]+"x")
	if first*2 < last || last*2 < first {
		t.Errorf("a difference in the first byte takes %v, in the last %v", first, last)
	}
}
