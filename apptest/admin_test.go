package apptest

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const adminConfig = `
listeners: [{name: plain, address: "@PLAIN@"}]
admin: {address: "@ADMIN@"}
log: {access: {output: access.log, redact: [Authorization, X-Secret]}}
upstreams:
  o: {targets: ["http://@ORIGIN@", {url: "http://@ORIGIN@/b", weight: 2}], balance: round_robin}
  secret: {respond: {status: 200, headers: {X-Key: "${file:key.txt}"}}}
apis:
  - name: public
    hosts: [api.example.com]
    base_path: /v1
    routes:
      - {name: get-user, methods: [GET], path: "/users/{id}", upstream: o, ip: {deny: [10.0.0.0/8], mode: shadow}}
      - {name: closed, path: /closed, upstream: o, ip: {allow: [10.0.0.0/8]}}
routes:
  - {name: all, path: "/{rest...}", upstream: o}
`

func startAdmin(t *testing.T) (*gateway, *echo) {
	e := newEcho(t)
	return start(t, setup{config: adminConfig, vars: map[string]string{"ORIGIN": e.addr()}, files: map[string]string{"key.txt": "k3y-of-the-file"}}), e
}

// TestAdminRoutes lists what runs.
func TestAdminRoutes(t *testing.T) {
	t.Parallel()
	g, e := startAdmin(t)
	resp, body := g.adminDo("GET", "/v1/routes", "")
	if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		t.Fatalf("routes: %d %s %s", resp.StatusCode, resp.Header.Get("Content-Type"), body)
	}
	for _, want := range []string{`"get-user"`, `"closed"`, `"all"`, `"public"`, `/users/{id}`, `"api.example.com"`} {
		if !strings.Contains(string(body), want) {
			t.Errorf("routes: no %s in %s", want, body)
		}
	}
	if resp, body := g.adminDo("GET", "/v1/upstreams", ""); resp.StatusCode != 200 || !strings.Contains(string(body), e.addr()) || !json.Valid(body) {
		t.Errorf("upstreams: %d %s", resp.StatusCode, body)
	}
	resp, body = g.adminDo("GET", "/v1/config", "")
	if resp.StatusCode != 200 || resp.Header.Get("ETag") == "" {
		t.Errorf("config: %d, ETag %q", resp.StatusCode, resp.Header.Get("ETag"))
	}
	if !strings.Contains(string(body), "${file:key.txt}") || strings.Contains(string(body), "k3y-of-the-file") {
		t.Errorf("config: references are kept as they are, and not their values:\n%s", body)
	}
	if resp, _ := g.adminDo("GET", "/v1/nothing", ""); resp.StatusCode != 404 {
		t.Errorf("an unknown path: %d", resp.StatusCode)
	}
	if resp, _ := g.adminDo("DELETE", "/v1/routes", "", "Content-Type", "application/json"); resp.StatusCode != 405 || resp.Header.Get("Allow") == "" {
		t.Errorf("an unknown method: %d, Allow %q", resp.StatusCode, resp.Header.Get("Allow"))
	}
}

// TestAdminConfig replaces the running config, or changes nothing.
func TestAdminConfig(t *testing.T) {
	t.Parallel()
	g, _ := startAdmin(t)
	tag := func() string {
		resp, _ := g.adminDo("GET", "/v1/config", "")
		return resp.Header.Get("ETag")
	}
	serves := func(path string, status int) {
		t.Helper()
		k := &caller{addr: g.addr("PLAIN")}
		defer k.hangUp()
		if a, err := k.call("GET", path, "", ""); err != nil || a.status != status {
			t.Errorf("%s: %v, %v, want status %d", path, a, err, status)
		}
	}
	first := tag()
	added := adminConfig + "  - {name: added, path: /added, upstream: teapot}\n"
	added = strings.Replace(added, "upstreams:\n", "upstreams:\n  teapot: {respond: {status: 418}}\n", 1)

	resp, body := g.adminDo("PUT", "/v1/config?dry_run=1", g.expand(added), "Content-Type", "application/yaml")
	if resp.StatusCode/100 != 2 {
		t.Fatalf("dry run: %d %s", resp.StatusCode, body)
	}
	serves("/added", 200)
	if tag() != first {
		t.Error("a dry run changed the ETag")
	}
	resp, body = g.adminDo("PUT", "/v1/config?dry_run=1", g.expand(added)+"x: 1\n", "Content-Type", "application/yaml")
	if resp.StatusCode != 422 {
		t.Errorf("dry run of a broken config: %d %s", resp.StatusCode, body)
	}

	if resp, body := g.putConfig(added, "If-Match", `"another"`); resp.StatusCode != http.StatusPreconditionFailed {
		t.Errorf("If-Match of another version: %d %s, want 412", resp.StatusCode, body)
	}
	serves("/added", 200)
	if resp, body := g.putConfig(added, "If-Match", first); resp.StatusCode/100 != 2 {
		t.Fatalf("If-Match of this version: %d %s", resp.StatusCode, body)
	}
	serves("/added", 418)
	if tag() == first {
		t.Error("the ETag did not change")
	}
	if resp, _ := g.putConfig(added, "If-Match", first); resp.StatusCode != http.StatusPreconditionFailed {
		t.Errorf("If-Match of an old version: %d, want 412", resp.StatusCode)
	}

	// What may not be put: each is 422 with the list of problems, and changes nothing.
	for name, config := range map[string]string{
		"an unknown key":           added + "unknown_key: 1\n",
		"three problems":           strings.Replace(added, "upstream: teapot", "upstream: nobody, mthods: [], path2: x", 1),
		"a mask":                   strings.Replace(added, `"${file:key.txt}"`, `"***"`, 1),
		"a reference of its own":   strings.Replace(added, "${file:key.txt}", "${file:/etc/hostname}", 1),
		"a variable of its own":    strings.Replace(added, "${file:key.txt}", "${HOME}", 1),
		"another admin address":    strings.Replace(added, `admin: {address: "@ADMIN@"}`, `admin: {address: "@OTHER@"}`, 1),
		"another state directory":  added + "state: {dir: elsewhere}\n",
		"an address that is taken": strings.Replace(added, "listeners: [", `listeners: [{name: taken, address: "@ADMIN@"}, `, 1),
		"nothing":                  "",
		"no YAML":                  "{",
	} {
		before := tag()
		resp, body := g.putConfig(config)
		if resp.StatusCode != 422 {
			t.Errorf("%s: %d, want 422: %s", name, resp.StatusCode, body)
			continue
		}
		if !json.Valid(body) {
			t.Errorf("%s: %s", name, body)
		}
		if name == "three problems" {
			for _, want := range []string{"nobody", "mthods", "path2"} {
				if !strings.Contains(string(body), want) {
					t.Errorf("%s: no %s in %s", name, want, body)
				}
			}
		}
		if tag() != before {
			t.Errorf("%s: the config changed", name)
		}
	}
	serves("/added", 418)
	if resp, _ := g.adminDo("PUT", "/v1/config", g.expand(added), "Content-Type", "text/plain"); resp.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("text/plain: %d, want 415", resp.StatusCode)
	}
	// The file comes back with SIGHUP.
	g.signal(syscall.SIGHUP)
	eventually(t, 5*time.Second, func() error {
		if tag() != first {
			return errNotYet
		}
		return nil
	})
	serves("/added", 200)
	// persist writes the file.
	resp, body = g.adminDo("PUT", "/v1/config?persist=1", g.expand(added), "Content-Type", "application/yaml")
	if resp.StatusCode/100 != 2 {
		t.Fatalf("persist: %d %s", resp.StatusCode, body)
	}
	put := tag()
	g.signal(syscall.SIGHUP)
	serves("/added", 418)
	if tag() != put {
		t.Error("the file is not what was put")
	}
}

// TestAdminExplain answers as the command does.
func TestAdminExplain(t *testing.T) {
	t.Parallel()
	g, e := startAdmin(t)
	for question, wants := range map[string][]string{
		`{"url": "http://api.example.com/v1/users/7"}`:                                         {`"route":"get-user"`, "/users/7"},
		`{"url": "http://api.example.com/v1/closed"}`:                                          {`"forbidden"`, "403"},
		`{"method": "TRACE", "url": "http://api.example.com/v1/users/7"}`:                      {`"method_not_allowed"`},
		`{"url": "http://other.test/x", "headers": {"X-A": "1"}, "body": "x"}`:                 {`"route":"all"`},
		`{"url": "http://api.example.com/v1/users/7", "client": "10.1.2.3"}`:                   {`"route":"get-user"`, "shadow"},
		`{"url": "http://api.example.com/v1/closed", "client": "10.1.2.3", "method": "PATCH"}`: {`"route":"closed"`},
	} {
		resp, body := g.adminDo("POST", "/v1/explain", question, "Content-Type", "application/json")
		flat := strings.ReplaceAll(string(body), `": `, `":`)
		for _, want := range wants {
			if resp.StatusCode != 200 || !strings.Contains(flat, want) {
				t.Errorf("%s: %d, no %s in %s", question, resp.StatusCode, want, body)
			}
		}
	}
	for _, bad := range []string{"", "{", `{"url": "::"}`, `{"unknown": 1, "url": "http://a.test/"}`} {
		if resp, body := g.adminDo("POST", "/v1/explain", bad, "Content-Type", "application/json"); resp.StatusCode != 400 {
			t.Errorf("%q: %d %s, want 400", bad, resp.StatusCode, body)
		}
	}
	if n := e.count(""); n != 0 {
		t.Errorf("explaining sent %d requests to the origin", n)
	}
}

// TestAdminGuards keeps others out of the admin API: by loopback and Host
// without a token, by the token with one.
func TestAdminGuards(t *testing.T) {
	t.Parallel()
	t.Run("without a token", func(t *testing.T) {
		t.Parallel()
		g, _ := startAdmin(t)
		port := g.addr("ADMIN")[strings.LastIndexByte(g.addr("ADMIN"), ':'):]
		for host, want := range map[string]int{"127.0.0.1" + port: 200, "localhost" + port: 200, "[::1]" + port: 200, "evil.test": 403, "evil.test" + port: 403, "127.0.0.1.evil.test": 403} {
			// A page of another origin can make a browser ask, by DNS rebinding.
			if resp, _ := g.adminDo("GET", "/v1/config", "", "Host", host); resp.StatusCode != want {
				t.Errorf("Host %s: %d, want %d", host, resp.StatusCode, want)
			}
			for _, probe := range []string{"/healthz", "/readyz"} {
				if resp, _ := g.adminDo("GET", probe, "", "Host", host); resp.StatusCode != 200 {
					t.Errorf("%s with Host %s: %d, want 200", probe, host, resp.StatusCode)
				}
			}
		}
		if resp, _ := g.adminDo("GET", "/v1/config", "", "Origin", "http://evil.test"); resp.StatusCode != 403 {
			t.Errorf("with an Origin: %d, want 403", resp.StatusCode)
		}
		if resp, _ := g.adminDo("GET", "/debug/pprof/", ""); resp.StatusCode != 404 {
			t.Errorf("pprof without admin.pprof: %d, want 404", resp.StatusCode)
		}
	})
	t.Run("with a token", func(t *testing.T) {
		t.Parallel()
		e := newEcho(t)
		g := start(t, setup{
			config: strings.Replace(adminConfig, `{address: "@ADMIN@"}`, `{address: "@ADMIN@", token: "${ADMIN_TOKEN}", probes: "@PROBES@", metrics: "@METRICS@", pprof: true}`, 1),
			vars:   map[string]string{"ORIGIN": e.addr()}, files: map[string]string{"key.txt": "k"},
			env: []string{"ADMIN_TOKEN=a-token-that-nobody-guesses"},
		})
		paths := []string{"/v1/config", "/v1/routes", "/v1/upstreams", "/metrics", "/debug/pprof/"}
		for _, path := range paths {
			for auth, want := range map[string]int{"": 401, "Bearer wrong": 401, "Basic a-token-that-nobody-guesses": 401, "a-token-that-nobody-guesses": 401, "Bearer a-token-that-nobody-guesses": 200} {
				resp, body := g.adminDo("GET", path, "", "Authorization", auth)
				if resp.StatusCode != want {
					t.Errorf("%s with %q: %d, want %d", path, auth, resp.StatusCode, want)
				}
				if want == 401 && resp.Header.Get("WWW-Authenticate") == "" {
					t.Errorf("%s with %q: no WWW-Authenticate", path, auth)
				}
				if strings.Contains(string(body), "a-token-that-nobody-guesses") {
					t.Errorf("%s shows the token", path)
				}
			}
		}
		for _, probe := range []string{"/healthz", "/readyz"} {
			if resp, _ := g.adminDo("GET", probe, ""); resp.StatusCode != 200 {
				t.Errorf("%s without the token: %d", probe, resp.StatusCode)
			}
		}
		// The listeners of their own serve their own paths only.
		for _, c := range []struct {
			listener, path string
			want           int
		}{
			{"PROBES", "/healthz", 200},
			{"PROBES", "/readyz", 200},
			{"PROBES", "/metrics", 404},
			{"PROBES", "/v1/config", 404},
			{"METRICS", "/metrics", 200},
			{"METRICS", "/v1/config", 404},
			{"METRICS", "/debug/pprof/", 404},
		} {
			resp, err := g.admin.Get("http://" + g.addr(c.listener) + c.path)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != c.want {
				t.Errorf("%s%s: %d, want %d", c.listener, c.path, resp.StatusCode, c.want)
			}
		}
	})
}

// TestMetrics names what issue and contract promise, with labels that a client
// cannot multiply.
func TestMetrics(t *testing.T) {
	t.Parallel()
	g, _ := startAdmin(t)
	k := &caller{addr: g.addr("PLAIN")}
	defer k.hangUp()
	for i := range 60 {
		method := []string{"GET", "POST", fmt.Sprintf("METHOD%d", i)}[i%3]
		if _, err := k.call(method, fmt.Sprintf("/status/200?%d", i), fmt.Sprintf("X-%d: 1\r\n", i), ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := k.call("GET", "/a%2Fb", "", ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, func() error {
		if n := g.metric("sluice_requests_total"); n != 61 {
			return fmt.Errorf("sluice_requests_total %v, want 61", n)
		}
		return nil
	})
	resp, body := g.adminDo("GET", "/metrics", "")
	text := string(body)
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("content type %q", resp.Header.Get("Content-Type"))
	}
	for _, name := range []string{"sluice_requests_total", "sluice_request_duration_seconds_bucket", "sluice_config_ok", "go_goroutines", "process_resident_memory_bytes"} {
		if !regexp.MustCompile(`(?m)^` + name + `[ {]`).MatchString(text) {
			t.Errorf("no %s", name)
		}
	}
	for _, about := range []string{"requests_in_flight", "filter_verdicts_total", "config_reloads_total", "upstream"} {
		if !regexp.MustCompile(`(?m)^# HELP sluice_` + about).MatchString(text) {
			t.Errorf("no metric about %s", about)
		}
	}
	for _, part := range []string{"total", "gateway", "upstream"} { // the gateway's own share stands apart
		if n := g.metric("sluice_request_duration_seconds_count", `route="all"`, `part="`+part+`"`); n != 60 {
			t.Errorf("the duration's part %s was observed %v times, want 60", part, n)
		}
	}
	if strings.Contains(text, "METHOD") {
		t.Error("a method that a client made up is a label")
	}
	if n := g.metric("sluice_requests_total", `code="400"`); n != 1 {
		t.Errorf("the 400 was counted %v times", n)
	}
	var samples []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			samples = append(samples, line)
		}
	}
	if slices.Sort(samples); len(samples) > 2000 {
		t.Errorf("%d samples", len(samples))
	}
}

// TestReadiness follows the life of a gateway.
func TestReadiness(t *testing.T) {
	t.Parallel()
	e := newEcho(t)
	g := start(t, setup{config: fmt.Sprintf(drainConfig, "500ms", "5s"), vars: map[string]string{"ORIGIN": e.addr()}})
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, _, err := g.adminGet(path); err != nil || status != 200 {
			t.Errorf("%s: %d, %v, want 200", path, status, err)
		}
	}
	g.signal(syscall.SIGTERM)
	eventually(t, 400*time.Millisecond, func() error {
		if status, _, err := g.adminGet("/readyz"); err != nil || status != 503 {
			return fmt.Errorf("readyz %d, %w", status, err)
		}
		return nil
	})
	c, err := net.Dial("tcp", g.addr("PLAIN"))
	if err != nil {
		t.Errorf("not ready, but still to accept: %v", err)
	} else {
		c.Close()
	}
	g.waitExit(5 * time.Second)
}
