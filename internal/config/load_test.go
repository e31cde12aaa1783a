package config

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// parse loads a document that must be without errors.
func parse(t *testing.T, text string) *File {
	t.Helper()
	f, ds := Parse(filepath.Join("testdata", "good", "test.yaml"), []byte(text), testEnv())
	if err := ds.Err(); err != nil {
		t.Fatal(err)
	}
	return f
}

func duration(t *testing.T, text string) Duration {
	t.Helper()
	d, err := ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func size(t *testing.T, text string) Size {
	t.Helper()
	s, err := ParseSize(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const smallest = "upstreams:\n  users: {targets: [http://127.0.0.1:9001]}\nroutes:\n  - {path: \"/{rest...}\", upstream: users}\n"

func TestDefaultsAreThoseOfTheContract(t *testing.T) {
	f := parse(t, smallest)
	dir, err := filepath.Abs(filepath.Join("testdata", "good"))
	if err != nil {
		t.Fatal(err)
	}
	d := func(text string) Duration { return duration(t, text) }
	s := func(text string) Size { return size(t, text) }
	rate, _ := ParseRate("20/m")
	want := Limits{
		HeaderTimeout: d("5s"), BodyIdleTimeout: d("10s"), MinBodyRate: s("1KiB"), IdleTimeout: d("60s"), RequestTimeout: d("30s"),
		WriteIdleTimeout: d("30s"), TunnelIdleTimeout: d("5m"), DrainDelay: d("0s"), DrainTimeout: d("30s"),
		MaxHeaderSize: s("32KiB"), MaxBodySize: s("10MiB"), MaxConnections: 20000, MaxConnectionsPerIP: 0, BufferMemory: s("512MiB"),
		Admission:    Admission{MaxInFlight: 0, Queue: 10000, QueueTimeout: d("50ms")},
		AuthFailures: AuthFailures{Rate: rate, Burst: 100, Per: []string{"ip"}},
	}
	if !reflect.DeepEqual(f.Limits, want) {
		t.Errorf("limits: %+v", f.Limits)
	}
	if want := (Admin{Address: "127.0.0.1:9901"}); f.Admin != want {
		t.Errorf("admin: %+v", f.Admin)
	}
	if want := (State{Dir: filepath.Join(dir, "data")}); f.State != want {
		t.Errorf("state: %+v", f.State)
	}
	if want := (Cache{Memory: s("256MiB"), MaxObject: s("1MiB")}); !reflect.DeepEqual(f.Cache, want) {
		t.Errorf("cache: %+v", f.Cache)
	}
	all, _ := ParsePercent("100%")
	access := AccessLog{Format: "json", Output: "stdout", Sample: all, Redact: []string{"Authorization", "Cookie", "X-Api-Key"}}
	if want := (Log{Level: "info", Access: access}); !reflect.DeepEqual(f.Log, want) {
		t.Errorf("log: %+v", f.Log)
	}
	if want := []Listener{{Name: ":8080", Address: ":8080"}}; !reflect.DeepEqual(f.Listeners, want) {
		t.Errorf("listeners: %+v", f.Listeners)
	}
	users := &Upstream{
		Targets: []Target{{URL: "http://127.0.0.1:9001", Weight: 1}}, Balance: "p2c", HashOn: "client", Protocol: "auto",
		ConnectTimeout: d("1s"), Timeout: d("0s"),
	}
	if !reflect.DeepEqual(f.Upstreams["users"], users) {
		t.Errorf("upstream: %+v", f.Upstreams["users"])
	}
	if want := []Route{{Path: "/{rest...}", Upstream: []WeightedName{{Name: "users", Weight: 1}}}}; !reflect.DeepEqual(f.Routes, want) {
		t.Errorf("route: %+v", f.Routes[0])
	}
	if f.Audit != nil || f.Tracing != nil || f.Tokens != nil || f.TrustedProxies != nil {
		t.Error("what is absent is not off")
	}
}

func TestBlocksHaveDefaultsOnceTheyArePresent(t *testing.T) {
	f, _ := Parse("test.yaml", []byte(`
upstreams:
  a: {targets: [http://a], retry: {}, hedge: {}, health: {}, outlier: {}, breaker: {}}
  b: {lambda: {function: f}}
  c: {respond: {}}
state: {redis: {addresses: [localhost:6379]}}
audit: {}
tracing: {}
rate_limits: {r: {rate: 300/90s}, s: {rate: 5/d, scope: local}, w: {rate: 1/s, algorithm: fixed_window}}
plans: {p: {throttle: {rate: 1000/s}}}
routes:
  - path: /
    upstream: a
    cors: {origins: ["*"]}
    cache: {}
    idempotency: {}
    auth: [keys]
authenticators: {keys: {api_key: {}}, jwt: {jwt: {issuer: i, algorithms: RS256}}}
`), testEnv())
	a := f.Upstreams["a"]
	for what, got := range map[string]any{
		"{2 [connect reset 502 503 504] 20%}": *a.Retry,
		"{50ms 5%}":                           *a.Hedge,
		"{/healthz 5s 1s 2 3}":                *a.Health,
		"{5 30s 50%}":                         *a.Outlier,
		"{1024 50% 10s 5s}":                   *a.Breaker,
		"{f   1.0 29s}":                       *f.Upstreams["b"].Lambda,
		"{200 map[] }":                        *f.Upstreams["c"].Respond,
		"{24h false enforce}":                 *f.Routes[0].Idempotency,
		"{[*] [] [] [] false 10m enforce}":    *f.Routes[0].CORS,
		"{[header:X-Api-Key]}":                *f.Authenticators["keys"].APIKey,
		"5ms sluice:":                         f.State.Redis.Timeout.String() + " " + f.State.Redis.Prefix,
		"open":                                f.Audit.OnFault,
		"{ 1%}":                               *f.Tracing,
		"leased 4":                            fmt.Sprint(f.RateLimits["r"].Scope, " ", *f.RateLimits["r"].Burst),
		"local 1":                             fmt.Sprint(f.RateLimits["s"].Scope, " ", *f.RateLimits["s"].Burst),
		"1000":                                *f.Plans["p"].Throttle.Burst,
		"[client]":                            f.RateLimits["r"].Per,
		"1":                                   f.RateLimits["r"].Cost,
		"sub":                                 f.Authenticators["jwt"].JWT.Claims.Client,
		"true":                                *f.Routes[0].Cache.Key.Client,
	} {
		if text := fmt.Sprint(got); text != what && text != "{"+what+"}" {
			t.Errorf("%s, want %s", text, what)
		}
	}
	if f.RateLimits["w"].Burst != nil {
		t.Error("a window has a burst")
	}
}

func TestTheAdminTokenComesFromTheEnvironment(t *testing.T) {
	env := testEnv()
	env.Lookup = func(name string) (string, bool) { return "a-token", name == "SLUICE_ADMIN_TOKEN" }
	for _, text := range []string{smallest, smallest + "admin: {address: \":9901\"}\n"} {
		f, ds := Parse("test.yaml", []byte(text), env)
		if ds.Err() != nil || f.Admin.Token.Reveal() != "a-token" {
			t.Errorf("token %q, %v", f.Admin.Token.Reveal(), ds)
		}
	}
}

func TestEverythingSupportedIsDecoded(t *testing.T) {
	f, ds := Load(filepath.Join("testdata", "good", "everything_supported.yaml"), testEnv())
	if len(ds) > 0 {
		t.Fatal(ds)
	}
	dir, err := filepath.Abs(filepath.Join("testdata", "good"))
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	prefix := netip.MustParsePrefix
	secure := Listener{Name: "secure", Address: "[::]:8443", TLS: &ListenerTLS{
		Certificates: []Certificate{{in("tls/api.crt"), in("tls/api.key")}, {in("tls/other.crt"), in("tls/other.key")}},
		ClientCA:     in("tls/partners.pem"), ClientAuth: "required",
	}}
	if want := []Listener{{Name: "plain", Address: ":8080", Redirect: "https"}, secure}; !reflect.DeepEqual(f.Listeners, want) {
		t.Errorf("listeners: %+v", f.Listeners)
	}
	if want := []netip.Prefix{prefix("10.0.0.0/8"), prefix("2001:db8::/32"), prefix("192.0.2.1/32")}; !reflect.DeepEqual(f.TrustedProxies, want) {
		t.Errorf("trusted proxies: %v", f.TrustedProxies)
	}
	if got := f.Limits.IdleTimeout; got.Duration != 90*time.Minute || got.Text != "1h30m" || f.Limits.BufferMemory.Bytes != 0 {
		t.Errorf("limits: %+v", f.Limits)
	}
	if a := f.Admin; a.Address != "0.0.0.0:9901" || a.Token.Reveal() != "f1le-s3cret" || a.Probes != ":9902" || a.Metrics != ":9903" || !a.Pprof {
		t.Errorf("admin: %+v", a)
	}
	users := f.Upstreams["users"]
	if want := []Target{{"http://127.0.0.1:9001", 1}, {"http://[::1]:9001/base", 2}, {"http://localhost", 0}}; !reflect.DeepEqual(users.Targets, want) {
		t.Errorf("targets: %+v", users.Targets)
	}
	if want := (UpstreamTLS{in("tls/partners.pem"), in("tls/api.crt"), in("tls/api.key"), "users.internal"}); users.TLS != want {
		t.Errorf("tls: %+v", users.TLS)
	}
	if r := users.Retry; r.Attempts != 1 || !slices.Equal(r.On, []string{"connect", "503"}) || r.Budget.Of != 0.005 {
		t.Errorf("retry: %+v", r)
	}
	if users.HashOn != "cookie:session" || users.Host != "users.internal:8080" || users.MaxConnections != 64 {
		t.Errorf("upstream: %+v", users)
	}
	if want := (Respond{Status: 418, Headers: map[string]string{"X-Mock": "1"}, Body: "{\"ok\": true}\n"}); !reflect.DeepEqual(*f.Upstreams["teapot"].Respond, want) {
		t.Errorf("respond: %+v", f.Upstreams["teapot"].Respond)
	}
	api := f.APIs[0]
	if !slices.Equal(api.Hosts, []string{"api.example.com", "*.api.example.com", "::1"}) || api.BasePath != "/v1" || *api.StripBasePath || api.Stage != "production" ||
		api.Variables["table"] != "users" || !slices.Equal(api.Listeners, []string{"secure"}) {
		t.Errorf("api: %+v", api)
	}
	five, noTimeout, noLimit := duration(t, "5s"), duration(t, "0"), size(t, "0")
	named, inline := RateLimitUse{Name: "per-client"}, api.Routes[0].RateLimit
	if want := "sliding_window [client] leased"; len(inline) != 4 || fmt.Sprintf("%s %v %s", inline[3].Inline.Algorithm, inline[3].Inline.Per, inline[3].Inline.Scope) != want {
		t.Errorf("rate limits: %+v, want at last %s", inline, want)
	}
	want := []Route{{
		RateLimit: []RateLimitUse{named, {Name: "shaped"}, inline[2], inline[3]},
		Name:      "get-user", Methods: []string{"GET"}, Path: "/users/{id}", PathParameters: "keep", EncodedSlash: "refuse",
		When: &Match{Headers: map[string]string{"X-Version": "2"}, Query: map[string]string{"beta": "1"}},
		IP: &IPRules{
			Allow: []netip.Prefix{prefix("10.0.0.0/8"), prefix("192.0.2.0/24")}, Deny: []netip.Prefix{prefix("192.0.2.66/32")}, Mode: "shadow",
		},
		Request: &RequestRewrite{Path: "/internal/{id}/{params.id}"}, Upstream: []WeightedName{{"users", 1}}, Timeout: &five, MaxBodySize: &noLimit,
	}, {
		Name: "split", Methods: []string{"POST", "PURGE"}, Path: "/split/{rest...}", Upstream: []WeightedName{{"users", 95}, {"teapot", 5}}, Timeout: &noTimeout,
		IP: &IPRules{Allow: []netip.Prefix{prefix("10.0.0.0/8")}, Mode: "shadow"}, RateLimit: []RateLimitUse{named},
	}}
	for i := range want {
		if !reflect.DeepEqual(api.Routes[i], want[i]) {
			t.Errorf("route %d:\n got %+v\nwant %+v", i, api.Routes[i], want[i])
		}
	}
	if f.Log.Access.Output != in("access.log") || f.Log.Level != "debug" || f.State.Dir != "/var/lib/sluice" {
		t.Errorf("log %+v, state %+v", f.Log, f.State)
	}
	files := []string{
		"apis/one.yaml", "apis/two.yaml", "everything_supported.yaml", "secrets/admin",
		"tls/api.crt", "tls/api.key", "tls/other.crt", "tls/other.key", "tls/partners.pem",
	}
	for i := range files {
		files[i] = in(files[i])
	}
	if !slices.Equal(f.Files(), files) {
		t.Errorf("files: %v", f.Files())
	}
	if want := []string{in("apis/*.yaml")}; !slices.Equal(f.Patterns(), want) {
		t.Errorf("patterns: %v", f.Patterns())
	}
	if want := []string{"${PORT}", "${SECRET}", "${file:secrets/admin}"}; !slices.Equal(f.References(), want) {
		t.Errorf("references: %v", f.References())
	}
}

func TestClientsPlansAndLimitsAreDecoded(t *testing.T) {
	f, _ := Load(filepath.Join("testdata", "good", "everything_supported.yaml"), testEnv())
	if r := f.State.Redis; !slices.Equal(r.Addresses, []string{"127.0.0.1:6379", "[::1]:6379"}) || r.Sentinel != "main" || r.Username != "gateway" ||
		r.Password.Reveal() != environment["SECRET"] || r.Timeout.Duration != 10*time.Millisecond || r.Prefix != "edge:" || !*r.TLS.Enabled {
		t.Errorf("redis: %+v", r)
	}
	acme := f.Clients[0]
	until := time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC)
	if acme.ID != "acme" || acme.Plan != "standard" || fmt.Sprint(acme.Attributes) != "map[beta:true seats:12 tier:gold]" || !acme.Keys[0].ExpiresAt.Equal(until) {
		t.Errorf("client: %+v", acme)
	}
	for i, key := range []string{"test", "hunter2-hunter2-hunter2-hunter2"} {
		sum := sha256.Sum256([]byte(key))
		if got := acme.Keys[i].Digest(); got != sum {
			t.Errorf("key %d: %x, want %x", i, got, sum)
		}
	}
	standard := f.Plans["standard"]
	if standard.Throttle.Rate.N != 1000 || *standard.Throttle.Burst != 2000 || standard.Quota.Limit != 1_000_000 || standard.Quota.Period != "day" ||
		*standard.Routes["get-user"].Throttle.Burst != 100 || standard.OnFault != "closed" || f.Plans["free"].OnFault != "local" || f.DefaultPlan != "free" {
		t.Errorf("plan: %+v", standard)
	}
	for name, want := range map[string]string{
		"per-client": "token_bucket 100/s 200 [client] 2.5 leased 5% open 0 enforce",
		"shaped":     "leaky_bucket 300/90s 4 [client ip route global header:X-Tenant query:page attribute:tier] 1 exact 1% local 5 enforce",
		"logged":     "sliding_log 10000/h 0 [client] client.plan == 'gold' ? 1.0 : 2.0 local 1% local 0 enforce",
		"at-work":    "concurrency  0 [global] 1 leased 1% local 0 shadow",
	} {
		r := f.RateLimits[name]
		rate, burst := "", int64(0)
		if r.Rate != nil {
			rate = r.Rate.String()
		}
		if r.Burst != nil {
			burst = *r.Burst
		}
		if got := fmt.Sprint(r.Algorithm, " ", rate, " ", burst, " ", r.Per, " ", r.Cost.Text, " ", r.Scope, " ", r.MaxOvershoot, " ", r.OnFault, " ", r.Queue, " ", r.Mode); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestIncludedFilesAreMergedInOrder(t *testing.T) {
	f, ds := Load(filepath.Join("testdata", "good", "everything_supported.yaml"), testEnv())
	if len(ds) > 0 {
		t.Fatal(ds)
	}
	var got []string
	for _, api := range f.APIs {
		for _, r := range api.Routes {
			got = append(got, fmt.Sprintf("%s %s %s", api.Name, r.Path, r.Upstream[0].Name))
		}
	}
	for _, r := range f.Routes {
		got = append(got, r.Path)
	}
	want := []string{
		"public /users/{id} users", "public /split/{rest...} users", "one /one inner", "two /two inner", "two /two/users users", "/teapot", "/two",
	}
	if !slices.Equal(got, want) {
		t.Errorf("routes: %q", got)
	}
	if names := keysOf(f.Upstreams); !slices.Equal(names, []string{"inner", "one", "teapot", "users"}) {
		t.Errorf("upstreams: %v", names)
	}
	if got := f.APIs[2].Routes[0].Timeout; got == nil || got.Duration != 9*time.Second {
		t.Errorf("the defaults of an included api give %v", got)
	}
}

func TestDiagnoseFindsEveryPlace(t *testing.T) {
	path := filepath.Join("testdata", "good", "everything_supported.yaml")
	f, ds := Load(path, testEnv())
	if len(ds) > 0 {
		t.Fatal(ds)
	}
	one, two := filepath.Join("testdata", "good", "apis", "one.yaml"), filepath.Join("testdata", "good", "apis", "two.yaml")
	for _, c := range []struct{ at, file, path, text string }{
		{"listeners[1].tls.certificates[1].key", path, "", "key: tls/other.key"},
		{"limits.admission.queue", path, "", "queue: 5"},
		{"upstreams.users.targets[0]", path, "", "http://127.0.0.1:9001, {"},
		{"upstreams.users.targets[1].url", path, "", `url: "http://[::1]`},
		{"upstreams.one.targets[0]", path, "", "targets: https://one"},
		{"upstreams.inner.targets[0]", one, "", "http://127.0.0.1:9100"},
		{"apis[0].routes[0].path", path, "", "path: /users/{id}"},
		{"apis[0].routes[0].when.headers", path, "", `headers: {X-Version: "2"}`},
		{"apis[0].routes[0].timeout", path, "apis[0].defaults.timeout", "timeout: 5s"},
		{"apis[0].routes[0].ip.allow[0]", path, "apis[0].defaults.ip.allow[0]", "10.0.0.0/8], mode"},
		{"apis[0].routes[0].ip.allow[1]", path, "apis[0].routes[0].ip.allow[0]", "192.0.2.0/24"},
		{"apis[0].routes[0].ip.deny[0]", path, "", "192.0.2.66"},
		{"apis[0].routes[1].upstream[1].name", path, "", "name: teapot, weight: 5"},
		{"apis[0].routes[1].upstream[1].weight", path, "", "weight: 5"},
		{"apis[1].routes[0].path", one, "apis[0].routes[0].path", "path: /one"},
		{"apis[2].routes[1].upstream", two, "apis[0].routes[1].upstream", "upstream: users"},
		{"apis[2].routes[0].upstream", two, "apis[0].defaults.upstream", "upstream: inner"},
		{"routes[0].methods[0]", path, "", "methods: GET"},
		{"routes[1].path", two, "routes[0].path", "path: /two, upstream: teapot"},
		{"apis[0].routes[9]", path, "", "routes:"},
		{"apis[9]", path, "", "apis:"},
		{"nothing.of.this[3]", path, "", "include:"},
		{"", path, "", "include:"},
	} {
		if c.path == "" {
			c.path = c.at
		}
		d := f.Diagnose(c.at, "c", "%s", "x")
		if d.File != c.file || d.Path != c.path || d.Message != "x" || d.Code != "c" || d.Warning {
			t.Errorf("%s: %s", c.at, d)
		}
		src, err := os.ReadFile(c.file)
		if err != nil {
			t.Fatal(err)
		}
		row := strings.Split(string(src), "\n")[d.Line-1]
		if !strings.HasPrefix(row[d.Col-1:], c.text) {
			t.Errorf("%s: at %d:%d stands %q, want %q", c.at, d.Line, d.Col, row[d.Col-1:], c.text)
		}
	}
	if d := f.Warn("log.level", "c", "x"); !d.Warning || !strings.Contains(d.String(), ": warning: log.level: x (c)") {
		t.Errorf("a warning: %s", d)
	}
}

func TestDiagnoseMayBeCalledByMany(t *testing.T) {
	f := parse(t, smallest)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if d := f.Diagnose("routes[0].path", "c", "x"); d.Line != 4 {
				t.Errorf("line %d", d.Line)
			}
		})
	}
	wg.Wait()
}

func TestDefaultsOfAnAPIAreMergedIntoItsRoutes(t *testing.T) {
	f, _ := Parse("test.yaml", []byte(`
upstreams: {a: {targets: [http://a]}, b: {targets: [http://b]}}
rate_limits: {one: {rate: 1/s}, two: {rate: 2/s}}
authenticators: {keys: {api_key: {}}, staff: {issued: {}}}
apis:
  - defaults:
      upstream: a
      auth: [keys, [keys, staff]]
      rate_limit: one
      ip: {deny: [192.0.2.1]}
      match: {headers: {X-A: "1"}}
      request: {path: /x, query: {remove: [k]}}
      cache: {ttl: 5m}
    routes:
      - {path: /1}
      - path: /2
        upstream: b
        auth: []
        rate_limit: [two, {rate: 3/s, per: [ip]}]
        ip: {allow: [10.0.0.0/8], mode: shadow}
        when: {query: {b: "2"}}
        request: {path: /y}
`), testEnv())
	one, two := f.APIs[0].Routes[0], f.APIs[0].Routes[1]
	if one.Upstream[0].Name != "a" || two.Upstream[0].Name != "b" {
		t.Error("the upstream of a route does not replace the default")
	}
	if want := (&Auth{Use: [][]string{{"keys"}, {"keys", "staff"}}, Mode: "enforce"}); !reflect.DeepEqual(one.Auth, want) {
		t.Errorf("auth: %+v", one.Auth)
	}
	if two.Auth == nil || !two.Auth.Open() || one.Auth.Open() {
		t.Error("auth: [] does not open a route")
	}
	if len(one.RateLimit) != 1 || len(two.RateLimit) != 3 || two.RateLimit[0].Name != "one" || two.RateLimit[1].Name != "two" || two.RateLimit[2].Inline.Rate.N != 3 {
		t.Errorf("rate limits: %+v, %+v", one.RateLimit, two.RateLimit)
	}
	if len(two.IP.Allow) != 1 || len(two.IP.Deny) != 1 || two.IP.Mode != "shadow" || one.IP.Mode != "enforce" {
		t.Errorf("ip: %+v, %+v", one.IP, two.IP)
	}
	if one.When.Headers["X-A"] != "1" || two.When.Headers != nil || two.When.Query["b"] != "2" {
		t.Errorf("when: %+v, %+v", one.When, two.When)
	}
	if one.Request.Query == nil || two.Request.Query != nil || two.Request.Path != "/y" {
		t.Errorf("a block is merged by its keys, not whole: %+v", two.Request)
	}
	if !*one.Cache.Key.Client || *two.Cache.Key.Client {
		t.Error("the cache key's default does not follow each route's auth")
	}
	if one.Cache.Key.Stated || two.Cache.Key.Stated {
		t.Error("a default counts as what the file says")
	}
}

func TestVariablesAreExpandedInValues(t *testing.T) {
	for in, want := range map[string]string{
		"${SECRET}":                    "hunter2-hunter2",
		"a-${SECRET}-${PORT}":          "a-hunter2-hunter2-9001",
		"${UNSET:-x}":                  "x",
		"${EMPTY:-x}":                  "x",
		"${EMPTY}":                     "",
		"${UNSET:-}":                   "",
		"${UNSET:-a:-b}":               "a:-b",
		"${UNSET:-${SECRET}}":          "${SECRET}", // a default ends at the first }
		"$${SECRET}":                   "${SECRET}",
		"$$${SECRET}":                  "$${SECRET}",
		"$SECRET $ {x} $":              "$SECRET $ {x} $",
		"${file:secrets/admin}":        "f1le-s3cret",
		"x${file:./secrets/admin}${S}": "xf1le-s3cretclient-secret",
		"${INJECTION}":                 environment["INJECTION"],
		"${JSON_INJECTION}":            environment["JSON_INJECTION"],
	} {
		for _, spelling := range []string{"'" + in + "'", in, "|-\n          " + in} {
			f := parse(t, "upstreams:\n  a:\n    respond:\n      body: "+spelling+"\nroutes: [{path: /, upstream: a}]\n")
			if got := f.Upstreams["a"].Respond.Body; got != want {
				t.Errorf("%s became %q, want %q", spelling, got, want)
			}
		}
	}
	f := parse(t, smallest+"limits: {max_connections: \"${PORT}\"}\nadmin: {pprof: \"${UNSET:-true}\"}\n")
	if f.Limits.MaxConnections != 9001 || !f.Admin.Pprof {
		t.Error("variables do not become numbers and truth values")
	}
}

func TestReferencesAreListed(t *testing.T) {
	got := References([]byte("a: ${B} ${A:-x} $${C} ${}\nb: ['${file:x/y}', \"${B:-z}\"]\n${D}: ${A}\n"))
	if want := []string{"${A}", "${B}", "${file:x/y}"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := References([]byte("a: [")); got != nil {
		t.Errorf("a broken document has %v", got)
	}
}

func TestAFileThatCannotBeReadIsADiagnostic(t *testing.T) {
	f, ds := Load(filepath.Join("testdata", "none.yaml"), Env{})
	want := filepath.Join("testdata", "none.yaml") + ": cannot be read: there is no such file, relative paths start at the folder of this configuration file (config.unreadable)\n"
	if f != nil || lines(ds) != want {
		t.Errorf("%v %s", f, lines(ds))
	}
	_, ds = Load("testdata", Env{})
	if ds.Err() == nil {
		t.Error("a folder can be read")
	}
}

func TestTheRealEnvironmentIsTheDefault(t *testing.T) {
	t.Setenv("SLUICE_TEST_LEVEL", "debug")
	name := filepath.Join(t.TempDir(), "sluice.yaml")
	if err := os.WriteFile(name, []byte(smallest+"log: {level: \"${SLUICE_TEST_LEVEL}\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, ds := Load(name, Env{})
	if ds.Err() != nil || f.Log.Level != "debug" || !slices.Equal(f.Files(), []string{name}) {
		t.Errorf("%+v %v", f.Log, ds)
	}
	if string(f.Source()) != smallest+"log: {level: \"${SLUICE_TEST_LEVEL}\"}\n" {
		t.Errorf("source: %s", f.Source())
	}
}

func TestWhatIsTooLargeIsRefused(t *testing.T) {
	bomb := "a0: &a0 [x, x]\n"
	for i := range 40 {
		bomb += fmt.Sprintf("a%d: &a%d [*a%d, *a%d]\n", i+1, i+1, i, i)
	}
	many := "routes:\n" + strings.Repeat("- {x: y}\n", 2000)
	for name, c := range map[string]struct{ text, code string }{
		"a file":     {strings.Repeat("#\n", maxSource/2+1), "config.too_large"},
		"aliases":    {bomb, "config.too_large"},
		"problems":   {many, "config.too_many"},
		"expansions": {"routes:\n" + strings.Repeat("- {path: \"${BIG}\"}\n", 20), "config.too_large"},
		"depth":      {"a:" + strings.Repeat(" [", 1000), "config.syntax"},
		"a secret":   {"admin: {token: \"${file:big}\"}\nroutes: [{path: \"${file:big}\"}]\n", "config.too_large"},
	} {
		t.Run(name, func(t *testing.T) {
			env := testEnv()
			env.Lookup = func(string) (string, bool) { return strings.Repeat("/", 1<<20), true }
			env.ReadFile = func(string) ([]byte, error) { return []byte(strings.Repeat("x", 9<<20)), nil }
			_, ds := Parse("test.yaml", []byte(c.text), env)
			if !slices.ContainsFunc(ds, func(d Diagnostic) bool { return d.Code == c.code }) || len(ds) > maxProblems+1 {
				t.Errorf("%d diagnostics without %s", len(ds), c.code)
			}
		})
	}
}

func TestDiagnosticsTellErrorsFromWarnings(t *testing.T) {
	ds := Diagnostics{{File: "a", Message: "doubtful", Code: "w", Warning: true}}
	if ds.Err() != nil || ds.Errors() != 0 {
		t.Error("a warning is an error")
	}
	ds = append(ds, Diagnostic{File: "a", Line: 2, Col: 1, Path: "x", Message: "wrong", Code: "e"})
	if err := ds.Err(); err == nil || err.Error() != "a:2:1: x: wrong (e)" || ds.Errors() != 1 {
		t.Errorf("%v", err)
	}
}

func TestANameIsSuggestedOnlyWhenItIsNear(t *testing.T) {
	candidates := []string{"listeners", "limits", "log", "upstreams", "rate_limit"}
	for word, want := range map[string]string{
		"listners": "listeners", "LISTENERS": "listeners", "limit": "limits", "lgo": "log", "upstream": "upstreams", "ratelimit": "rate_limit",
		"rate-limit": "rate_limit", "zzz": "", "x": "", "upstreams_of_mine": "upstreams", "frobnicate": "",
	} {
		if got := nearest(word, candidates); got != want {
			t.Errorf("nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

func TestPathsReadBack(t *testing.T) {
	for _, p := range []path{
		{},
		path{}.key("a"), path{}.key("apis").index(0).key("routes").index(12).key("path"), path{}.key("upstreams").key("a.b").key("x y").key(""),
		path{}.key("x").key(`q"\`).index(3).key("<<"), path{}.index(1).index(2),
	} {
		got := parsePath(p.String())
		if !slices.Equal(got, p) {
			t.Errorf("%s reads back as %v, want %v", p, got, p)
		}
	}
}
