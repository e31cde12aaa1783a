package apptest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/gatetest"
	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
)

// TestRetryAfter uses up limits of every algorithm and scope, and waits as long as
// it is told: that admits, and a second less does not.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	awaitDay(t)
	r := redistest.Start(t)
	g := start(t, setup{
		config: `
listeners: [{name: plain, address: "@PLAIN@"}]
state: {redis: {addresses: @REDIS@, timeout: 2s}}
log: {access: {output: none}}
upstreams: {ok: {respond: {status: 200, body: ok}}}
rate_limits:
  token: {algorithm: token_bucket, rate: 5/2s, burst: 2, per: [global], cost: 2, scope: local}
  leaky: {algorithm: leaky_bucket, rate: 2/3s, burst: 1, per: [global], scope: local}
  fixed: {algorithm: fixed_window, rate: 3/2s, per: [global], scope: local}
  sliding: {algorithm: sliding_window, rate: 3/2s, per: [global], scope: local}
  log: {algorithm: sliding_log, rate: 3/2s, per: [global], scope: local}
  exact-token: {algorithm: token_bucket, rate: 2/3s, burst: 1, per: [global], scope: exact}
  exact-fixed: {algorithm: fixed_window, rate: 3/2s, per: [global], scope: exact}
  exact-sliding: {algorithm: sliding_window, rate: 3/2s, per: [global], scope: exact}
  exact-log: {algorithm: sliding_log, rate: 3/2s, per: [global], scope: exact}
  leased: {algorithm: fixed_window, rate: 100/2s, max_overshoot: 20%, per: [global], scope: leased}
routes:
  - {path: /token, rate_limit: [token], upstream: ok}
  - {path: /leaky, rate_limit: [leaky], upstream: ok}
  - {path: /fixed, rate_limit: [fixed], upstream: ok}
  - {path: /sliding, rate_limit: [sliding], upstream: ok}
  - {path: /log, rate_limit: [log], upstream: ok}
  - {path: /exact-token, rate_limit: [exact-token], upstream: ok}
  - {path: /exact-fixed, rate_limit: [exact-fixed], upstream: ok}
  - {path: /exact-sliding, rate_limit: [exact-sliding], upstream: ok}
  - {path: /exact-log, rate_limit: [exact-log], upstream: ok}
  - {path: /leased, rate_limit: [leased], upstream: ok}
`,
		vars: map[string]string{"REDIS": redisList(r.Addr())},
	})
	// All at the beginning of a window of two seconds, so that most of it is left.
	const window = int64(2 * time.Second)
	next := time.Unix(0, (time.Now().UnixNano()/window+1)*window)
	pass(t, next.Add(50*time.Millisecond))
	var all sync.WaitGroup
	for _, name := range []string{"token", "leaky", "fixed", "sliding", "log", "exact-token", "exact-fixed", "exact-sliding", "exact-log", "leased"} {
		all.Go(func() { retryAfter(t, g.addr("PLAIN"), name) })
	}
	all.Wait()
}

func retryAfter(t *testing.T, addr, name string) {
	r := &laneRun{addr: addr}
	defer r.close()
	ask := func() shot {
		s := r.exchange(arrival{head: get("/"+name, "k")})
		if s.err != nil {
			t.Errorf("%s: %v", name, s.err)
		}
		return s
	}
	first := ask()
	if !first.admitted() {
		t.Errorf("%s: the first request got %d %s", name, first.status, first.code)
		return
	}
	refused := first
	for n := 0; refused.admitted(); n++ {
		if refused = ask(); n > 300 {
			t.Errorf("%s: nothing is refused", name)
			return
		}
	}
	if refused.status != 429 || refused.code != "rate_limited" {
		t.Errorf("%s: %d %s", name, refused.status, refused.code)
		return
	}
	seconds, err := strconv.Atoi(refused.retry)
	if err != nil || seconds < 1 || seconds > 4 {
		t.Errorf("%s: Retry-After %q, want 1 to 4 s", name, refused.retry)
		return
	}
	at := func(s int64, d time.Duration) time.Time { return time.Unix(0, s).Add(d) }
	if seconds > 1 { // with one, a second less is the request that was refused
		if err := until(at(refused.sent, time.Duration(seconds-1)*time.Second)); err != nil {
			t.Error(err)
		}
		// One that came too late says nothing: the time is rounded up, and this one
		// is asked at the first moment at which it may be over.
		if early := ask(); early.admitted() && early.got < refused.sent+int64(seconds-1)*1e9+int64(5*time.Millisecond) {
			t.Errorf("%s: admitted %v after a refusal with Retry-After: %d", name, time.Duration(early.got-refused.sent), seconds)
		}
	}
	if err := until(at(refused.got, time.Duration(seconds)*time.Second)); err != nil {
		t.Error(err)
	}
	if late := ask(); !late.admitted() {
		t.Errorf("%s: %d %s (Retry-After %s) %v after a refusal with Retry-After: %d, which came %v after the begin of a window", name, late.status, late.code, late.retry,
			time.Duration(late.sent-refused.got), seconds, time.Duration(refused.got%int64(2*time.Second)))
	}
}

const repliesConfig = `
listeners:
  - {name: plain, address: "@PLAIN@"}
  - {name: secure, address: "@SECURE@", tls: {certificates: [{cert: tls.crt, key: tls.key}]}}
admin: {address: "@ADMIN@"}
log: {access: {output: none}}
upstreams: {ok: {respond: {status: 200, body: ok}}}
clients: [{id: acme, plan: standard, keys: [{value: ` + "key-of-acme-0123456789abcdef" + `}]}]
plans: {standard: {throttle: {rate: 10/h, burst: 10}, quota: {limit: 100, period: day}}}
rate_limits:
  two: {rate: 2/h, burst: 2, per: ["header:X-Case"]}
  watched: {rate: 1/h, burst: 1, per: [global], mode: shadow}
routes:
  - {name: two, path: /two, rate_limit: [two], upstream: ok}
  - {name: both, path: /both, rate_limit: [two, {rate: 5/h, burst: 5, per: ["header:X-Case"]}], upstream: ok}
  - {name: plan, path: /plan, upstream: ok}
  - {name: shadow, path: /shadow, rate_limit: [watched], upstream: ok}
  - {name: free, path: /free, upstream: ok}
`

// TestLimitReplies reads headers and problem documents over every driver.
func TestLimitReplies(t *testing.T) {
	t.Parallel()
	awaitDay(t)
	dir := t.TempDir()
	ca := gatetest.NewCA(t, "limits")
	cert, key := ca.Files(t, dir, "tls", "a.test")
	files := map[string]string{}
	for name, path := range map[string]string{"tls.crt": cert, "tls.key": key} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(text)
	}
	g := start(t, setup{config: repliesConfig, files: files})
	for _, d := range gatetest.Drivers {
		addr := g.addr("PLAIN")
		if d.TLS {
			addr = g.addr("SECURE")
		}
		c := gatetest.NewClient(d, addr, ca.Pool)
		ask := func(path string, fields ...string) *gatetest.Reply {
			t.Helper()
			m := gatetest.Message{Method: "GET", Host: "a.test", Target: path}
			for i := 0; i < len(fields); i += 2 {
				m.Header = append(m.Header, gatetest.Field{Name: fields[i], Value: fields[i+1]})
			}
			r, err := c.Do(context.Background(), m)
			if err != nil {
				t.Fatalf("%s: %v", d.Name, err)
			}
			return r
		}
		want := func(r *gatetest.Reply, status int, policy, limit string) {
			t.Helper()
			if r.Status != status {
				t.Errorf("%s: status %d, want %d", d.Name, r.Status, status)
			}
			if got := r.Header.Get("RateLimit-Policy"); got != policy {
				t.Errorf("%s: RateLimit-Policy %q, want %q", d.Name, got, policy)
			}
			// A moment has passed since the first was charged.
			if got := r.Header.Get("RateLimit"); !regexp.MustCompile("^" + limit + "$").MatchString(got) {
				t.Errorf("%s: RateLimit %q, want %s", d.Name, got, limit)
			}
			if code, err := gatetest.Problem(r.Status, r.Header, r.Body); status >= 400 && (err != nil || code != "rate_limited") {
				t.Errorf("%s: code %q, %v in %s", d.Name, code, err, r.Body)
			}
		}
		const two = `"two";q=2;w=3600`
		want(ask("/two", "X-Case", d.Name), 200, two, `"two";r=1;t=1800`)
		want(ask("/two", "X-Case", d.Name), 200, two, `"two";r=0;t=(3600|35[0-9][0-9])`)
		r := ask("/two", "X-Case", d.Name)
		want(r, 429, two, `"two";r=0;t=(3600|35[0-9][0-9])`)
		if s, err := strconv.Atoi(r.Header.Get("Retry-After")); err != nil || s < 1790 || s > 1800 {
			t.Errorf("%s: Retry-After %q, want about 1800", d.Name, r.Header.Get("Retry-After"))
		}
		// The tightest first: the named one is shared with /both, and used up. The
		// refusal charges the other nothing.
		const both = two + `, "both.1";q=5;w=3600`
		want(ask("/both", "X-Case", d.Name), 429, both, `"two";r=0;t=(3600|35[0-9][0-9]), "both.1";r=5;t=0`)
		want(ask("/both", "X-Case", d.Name+"'s other"), 200, both, `"two";r=1;t=1800, "both.1";r=4;t=720`)
		// Plan and quota of a client, none of others, none for a limit in shadow.
		r = ask("/plan", "X-Api-Key", "key-of-acme-0123456789abcdef")
		want(r, 200, `"standard";q=10;w=3600, "standard.day";q=100;w=86400`, `"standard";r=[0-9];t=[0-9]+, "standard.day";r=9[0-9];t=[0-9]+`)
		want(ask("/plan"), 200, "", "")
		want(ask("/shadow"), 200, "", "")
		want(ask("/free"), 200, "", "")
		c.CloseIdleConnections()
	}
	if n := g.metric("sluice_filter_verdicts_total", `route="shadow"`, `verdict="would_refuse"`); n != float64(len(gatetest.Drivers)-1) {
		t.Errorf("%v were counted as would_refuse in shadow, want %d", n, len(gatetest.Drivers)-1)
	}
	if n := g.metric("sluice_filter_verdicts_total", `filter="rate_limit"`, `verdict="refuse"`); n != float64(2*len(gatetest.Drivers)) {
		t.Errorf("%v were counted as refuse, want %d", n, 2*len(gatetest.Drivers))
	}
}

// TestReloadKeepsCounts reloads a config in which limits stay, change and go.
func TestReloadKeepsCounts(t *testing.T) {
	t.Parallel()
	const config = `
listeners: [{name: plain, address: "@PLAIN@"}]
admin: {address: "@ADMIN@"}
log: {access: {output: none}}
upstreams: {ok: {respond: {status: 200, body: ok}}}
rate_limits:
  kept: {rate: 3/h, burst: 3, per: [global]}
  changed: {rate: 3/h, burst: %d, per: [global]}
routes:
  - {name: kept, path: /kept, rate_limit: [kept], upstream: ok}
  - {name: changed, path: /changed, rate_limit: [changed], upstream: ok}
  - {name: inline, path: /inline, rate_limit: [{rate: 3/h, burst: 3, per: [global]}], upstream: ok}
  - {name: %s, path: /new, upstream: ok}
`
	g := start(t, setup{config: fmt.Sprintf(config, 3, "first")})
	k := &caller{addr: g.addr("PLAIN")}
	defer k.hangUp()
	calls := func(path string, n int) (admitted int) {
		t.Helper()
		for range n {
			a, err := k.call("GET", path, "", "")
			if err != nil || a.status != 200 && a.code != "rate_limited" {
				t.Fatalf("%s: %+v, %v", path, a, err)
			}
			if a.status == 200 {
				admitted++
			}
		}
		return admitted
	}
	for _, path := range []string{"/kept", "/changed", "/inline"} {
		if n := calls(path, 2); n != 2 {
			t.Errorf("%s: %d of the first two admitted", path, n)
		}
	}
	for i, burst := range []int{4, 4} {
		if resp, body := g.putConfig(fmt.Sprintf(config, burst, "name"+strconv.Itoa(i))); resp.StatusCode/100 != 2 {
			t.Fatalf("reload: %d %s", resp.StatusCode, body)
		}
	}
	for path, want := range map[string]int{"/kept": 1, "/inline": 1} {
		if n := calls(path, 3); n != want {
			t.Errorf("%s: %d admitted after a reload, want the %d that were left", path, n, want)
		}
	}
	if n := calls("/changed", 6); n != 4 {
		t.Errorf("/changed: %d admitted, want a new limit's 4", n)
	}
}

// TestHot names the client and the route that are asked for most.
func TestHot(t *testing.T) {
	t.Parallel()
	g := start(t, setup{config: `
listeners: [{name: plain, address: "@PLAIN@"}]
admin: {address: "@ADMIN@"}
log: {access: {output: none}}
upstreams: {ok: {respond: {status: 200, body: ok}}}
clients:
  - {id: eager, keys: [{value: ` + clientKey(0) + `}]}
  - {id: seldom, keys: [{value: ` + clientKey(1) + `}]}
routes:
  - {name: busy, path: /busy, upstream: ok}
  - {name: quiet, path: /quiet, upstream: ok}
`})
	for i := range 30 {
		g.use("/busy", clientKey(0), 1)
		if i%10 == 0 {
			g.use("/quiet", clientKey(1), 1)
		}
	}
	for what, names := range map[string][2]string{"clients": {"eager", "seldom"}, "routes": {"busy", "quiet"}} {
		eventually(t, 5*time.Second, func() error {
			resp, body := g.adminDo("GET", "/v1/hot?what="+what, "")
			hot, cold := strings.Index(string(body), names[0]), strings.Index(string(body), names[1])
			if resp.StatusCode != 200 || hot < 0 || cold < hot {
				return fmt.Errorf("hot %s: %d %s, want %s before %s", what, resp.StatusCode, body, names[0], names[1])
			}
			return nil
		})
	}
	if resp, body := g.adminDo("GET", "/v1/hot?what=weather", ""); resp.StatusCode != 400 {
		t.Errorf("hot weather: %d %s", resp.StatusCode, body)
	}
}

// TestStateHasOneOwner starts a second gateway on the first one's state.
func TestStateHasOneOwner(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	g := start(t, setup{config: quotaConfig("dir: "+dir, 10)})
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v, want mode 0700", info, err)
	}
	second := filepath.Join(t.TempDir(), "sluice.yaml")
	config := quotaConfig("dir: "+dir, 10)
	for _, name := range []string{"@PLAIN@", "@ADMIN@"} {
		config = strings.ReplaceAll(config, name, freeAddress(t))
	}
	write(t, second, config)
	ctx := deadline(t, 30*time.Second)
	out, err := exec.CommandContext(ctx, sluice(t, false), "run", "-c", second).CombinedOutput()
	exit, ok := err.(*exec.ExitError)
	if !ok || exit.ExitCode() != 1 {
		t.Errorf("the second run: %v, want exit status 1\n%s", err, out)
	}
	if pid := strconv.Itoa(g.cmd.Process.Pid); !strings.Contains(string(out), pid) || !strings.Contains(string(out), dir) {
		t.Errorf("the second run says %q, want it to name the owner, process %s, of %s", out, pid, dir)
	}
	// The first is not disturbed, and its end or death frees the folder.
	g.use("/", clientKey(0), 1)
	g.signal(syscall.SIGKILL)
	<-g.ended
	g.again()
	g.use("/", clientKey(0), 1)
}
