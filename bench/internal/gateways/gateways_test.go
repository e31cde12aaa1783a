package gateways

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func setups(t *testing.T) map[string]*Setup {
	t.Helper()
	base := func() *Setup {
		return &Setup{
			Dir: t.TempDir(), Listen: "127.0.0.1:18080", Admin: "127.0.0.1:18081", Cores: 2,
			Origin: "127.0.0.1:18082", Routes: []string{"/users/"},
		}
	}
	out := map[string]*Setup{"forward": base(), "answer": base(), "upload": base(), "large": base(), "many": base(), "limit": base(), "cache": base(), "keys and cache": base()}
	out["answer"].Answer = `{"ok":true,"text":"a b"}`
	out["upload"].MaxBody = 2 << 20
	out["large"].Large = true
	out["limit"].Limit = &Limit{Field: "X-Api-Key", Rate: 1_000_000, Scope: "leased", Redis: "127.0.0.1:6379"}
	out["cache"].Cache = true
	out["keys and cache"].Cache = true
	out["keys and cache"].Limit = &Limit{Field: "X-Api-Key", Rate: 1_000_000, Scope: "local", Identity: &Identity{Keys: []string{"key-0-of-somebody", "key-1-of-somebody"}}}
	out["many"].Routes = []string{"/a/x/", "/a/y/", "/b/x/"}
	return out
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestNginxAcceptsItsConfiguration(t *testing.T) {
	path, err := find("nginx")
	if err != nil {
		t.Fatal("nginx is needed: apt-get install nginx")
	}
	for name, s := range setups(t) {
		t.Run(name, func(t *testing.T) {
			g := &nginx{path: path}
			if _, err := g.Write(s); err != nil {
				t.Error(err)
			}
		})
	}
	// What nginx says about a mistake comes back.
	bad := setups(t)["forward"]
	bad.Routes = []string{"/a/", "/a/"}
	g := &nginx{path: path}
	if _, err := g.Write(bad); err == nil || !strings.Contains(err.Error(), "duplicate location") {
		t.Errorf("two routes alike: %v, want what nginx says", err)
	}
}

func TestSluiceConfigurationHasARouteForEachPrefix(t *testing.T) {
	s := setups(t)["many"]
	s.TLS = &Files{Cert: "/c.pem", Key: "/k.pem"}
	g := &sluice{path: "/bin/sluice"}
	c, err := g.Write(s)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Command{Path: "/bin/sluice", Args: []string{"run", "-c", "sluice.yaml"}, Metrics: s.Admin}); !reflect.DeepEqual(c, want) {
		t.Errorf("command %+v, want %+v", c, want)
	}
	want := `listeners:
  - address: "127.0.0.1:18080"
    tls:
      certificates: [{cert: "/c.pem", key: "/k.pem"}]
admin: {address: "127.0.0.1:18081"}
log: {level: warn, access: {output: none}}
upstreams:
  origin:
    targets: ["http://127.0.0.1:18082"]
routes:
  - {path: "/a/x/{id}", upstream: origin}
  - {path: "/a/y/{id}", upstream: origin}
  - {path: "/b/x/{id}", upstream: origin}
`
	if got := read(t, filepath.Join(s.Dir, "sluice.yaml")); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestLimitIsPerValueOfTheField(t *testing.T) {
	s := setups(t)["limit"]
	for name, wants := range map[string][]string{
		"sluice.yaml": {
			`state: {redis: {addresses: ["127.0.0.1:6379"], timeout: 1s}}`,
			`  per-key: {rate: 1000000/s, burst: 1000000, per: ["header:X-Api-Key"], scope: leased}`,
			`  - {path: "/users/{id}", rate_limit: [per-key], upstream: origin}`,
		},
		"nginx.conf": {
			"limit_req_zone $http_x_api_key zone=keys:10m rate=1000000r/s;", "limit_req zone=keys burst=1000000 nodelay;", "limit_req_status 429;",
		},
		"haproxy.cfg": {
			"stick-table type string len 64 size 100k expire 10s store http_req_rate(1s)",
			"http-request track-sc0 req.hdr(X-Api-Key)", "http-request deny deny_status 429 if { sc_http_req_rate(0) gt 1000000 }",
		},
	} {
		path, err := render(s, name)
		if err != nil {
			t.Fatal(err)
		}
		text := read(t, path)
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %s in\n%s", name, want, text)
			}
		}
	}
	s.Limit.Scope, s.Limit.Redis = "local", ""
	path, err := render(s, "sluice.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if text := read(t, path); strings.Contains(text, "redis") || !strings.Contains(text, "scope: local") {
		t.Errorf("a local limit without Redis:\n%s", text)
	}
	for _, g := range []Gateway{&varnish{}, &caddy{}} {
		if g.Lacks(s) == "" {
			t.Errorf("%s has no rate limit of its own", g.Name())
		}
	}
}

func TestSluiceServesItsProfileWhereItIsWanted(t *testing.T) {
	s := setups(t)["limit"]
	g := &sluice{path: "/bin/sluice"}
	for _, wanted := range []bool{false, true} {
		s.Profile = wanted
		c, err := g.Write(s)
		if err != nil {
			t.Fatal(err)
		}
		url, line := "", `admin: {address: "127.0.0.1:18081"}`
		if wanted {
			url, line = "http://127.0.0.1:18081/debug/pprof/profile", `admin: {address: "127.0.0.1:18081", pprof: true}`
		}
		if c.Profile != url || (c.Limiter != nil) != wanted {
			t.Errorf("wanted %v: %+v", wanted, c)
		}
		if text := read(t, filepath.Join(s.Dir, "sluice.yaml")); !strings.Contains(text, line+"\n") {
			t.Errorf("wanted %v: no %s in\n%s", wanted, line, text)
		}
	}
}

// What is attributed by name must keep its name.
func TestLimiterIsMadeOfPackagesThatSluiceHas(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	for _, p := range append(limiter.Request, limiter.Packages...) {
		dir, ours := strings.CutPrefix(p, module)
		if !ours {
			if mod := read(t, filepath.Join(root, "go.mod")); !strings.Contains(mod, "\t"+p+" v") {
				t.Errorf("Sluice is built without %s", p)
			}
			continue
		}
		if list, err := filepath.Glob(filepath.Join(root, dir, "*.go")); err != nil || len(list) == 0 {
			t.Errorf("no package %s (%v)", p, err)
		}
	}
	if text := read(t, filepath.Join(root, "internal", "limit", "note.go")); !strings.Contains(text, "func (e *Engine) Note(") {
		t.Errorf("%v is not there", limiter.Except)
	}
}

func TestCachesStandBehindKeysAndLimits(t *testing.T) {
	s := setups(t)["keys and cache"]
	for name, wants := range map[string][]string{
		"sluice.yaml": {
			"cache: {memory: 64MiB}",
			`  - {path: "/users/{id}", rate_limit: [per-key], auth: [callers], cache: {key: {client: false}}, upstream: origin}`,
		},
		"nginx.conf":  {"proxy_cache answers;", "limit_req zone=keys", `if ($client = "") { return 401; }`},
		"haproxy.cfg": {"cache answers", "deny_status 401", "deny_status 429", "http-request cache-use answers", "http-response cache-store answers"},
		"varnish.vcl": {`if (req.url ~ "^/users/") { return (hash); }`},
	} {
		path, err := render(s, name)
		if err != nil {
			t.Fatal(err)
		}
		text := read(t, path)
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %s in\n%s", name, want, text)
			}
		}
		if name == "haproxy.cfg" && strings.Index(text, "deny_status 429") > strings.Index(text, "cache-use") {
			t.Errorf("the cache answers before the limit:\n%s", text)
		}
	}
	s.Limit = nil
	for _, c := range []struct {
		g    Gateway
		able bool
	}{{&varnish{}, true}, {&nginx{}, true}, {&haproxy{}, true}, {&caddy{}, false}} {
		if why := c.g.Lacks(s); (why == "") != c.able {
			t.Errorf("%s lacks %q", c.g.Name(), why)
		}
	}
}

func TestCaddySharesOneProxyAmongManyRoutes(t *testing.T) {
	s := setups(t)["many"]
	text, err := json.Marshal(caddyConfig(s))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), `"reverse_proxy"`); n != 1 {
		t.Errorf("%d proxies, each with its own connections; want 1", n)
	}
	if n := strings.Count(string(text), `"invoke"`); n != 3 {
		t.Errorf("%d routes invoke it, want 3", n)
	}
}

func TestVarnishTestsRoutesInTwoLevels(t *testing.T) {
	s := setups(t)["many"]
	g := &varnish{path: "varnishd"}
	if _, err := g.Write(s); err != nil {
		t.Fatal(err)
	}
	vcl := read(t, filepath.Join(s.Dir, "varnish.vcl"))
	for _, want := range []string{
		`if (req.url ~ "^/a/") { call group_0; }`, `if (req.url ~ "^/b/") { call group_1; }`,
		`if (req.url ~ "^/a/y/") { return (pass); }`, `.host = "127.0.0.1";`, `.port = "18082";`,
	} {
		if !strings.Contains(vcl, want) {
			t.Errorf("no %s in\n%s", want, vcl)
		}
	}
	s.TLS = &Files{}
	if g.Lacks(s) == "" {
		t.Error("Varnish does not terminate TLS")
	}
}

func TestHAProxyLooksManyRoutesUpInAMap(t *testing.T) {
	s := setups(t)["many"]
	text, err := render(s, "haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	if conf := read(t, text); !strings.Contains(conf, "use_backend %[path,map_beg("+s.Dir+"/routes.map)]") {
		t.Errorf("no map in\n%s", conf)
	}
	one, err := render(setups(t)["forward"], "haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	if conf := read(t, one); !strings.Contains(conf, "use_backend origin if { path_beg /users/ }") {
		t.Errorf("no plain test in\n%s", conf)
	}
}

func TestGroupsKeepOrder(t *testing.T) {
	got := groups([]string{"/a/x/", "/b/x/", "/a/y/", "/users/"})
	want := []group{{"/a/", []string{"/a/x/", "/a/y/"}}, {"/b/", []string{"/b/x/"}}, {"/users/", []string{"/users/"}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestMissingProgramSaysWhatToInstall(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // no apt-get either
	tools := &Tools{Say: t.Logf}
	_, err := tools.Need(context.Background(), "no-such-program", "some-package")
	if err == nil || err.Error() != "no-such-program is not installed: apt-get install some-package" {
		t.Errorf("%v", err)
	}
}

func TestBuildFailureShowsTheCompilersWords(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Fatal("the go command is needed")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module m\n\ngo 1.26\n", "main.go": "package main\n\nfunc main() { undefined() }\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tools := &Tools{Root: dir, Say: t.Logf}
	if _, err := tools.Build(context.Background(), "m", dir, "."); err == nil || !strings.Contains(err.Error(), "undefined: undefined") {
		t.Errorf("%v", err)
	}
}
