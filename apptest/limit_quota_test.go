package apptest

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
)

// usage is a line of GET /v1/usage.
type usage struct {
	Client, Plan, Period   string
	Limit, Used, Remaining int64
	ResetsAt               time.Time `json:"resets_at"`
}

// usage asks for the one quota of a client's period.
func (g *gateway) usage(client, period string) usage {
	g.t.Helper()
	resp, body := g.adminDo("GET", "/v1/usage?client="+client+"&period="+period, "")
	if resp.StatusCode != 200 {
		g.t.Fatalf("usage: %d %s", resp.StatusCode, body)
	}
	var all struct{ Usage []usage }
	if err := json.Unmarshal(body, &all); err != nil || len(all.Usage) != 1 {
		g.t.Fatalf("usage: %v, want one in %s", err, body)
	}
	u := all.Usage[0]
	if u.Client != client || u.Period != period || !u.ResetsAt.After(time.Now()) || u.Used+u.Remaining != u.Limit {
		g.t.Errorf("usage: %+v", u)
	}
	return u
}

// quotaConfig is two clients with a quota for a day, of state.
func quotaConfig(state string, limit int) string {
	return fmt.Sprintf(`
listeners: [{name: plain, address: "@PLAIN@"}]
admin: {address: "@ADMIN@"}
state: {%s}
log: {access: {output: none}}
upstreams: {ok: {respond: {status: 200, body: ok}}}
clients:
  - {id: c0, plan: small, keys: [{value: %s}]}
  - {id: c1, plan: small, keys: [{value: %s}]}
plans: {small: {quota: {limit: %d, period: day}}}
routes: [{name: all, path: "/{rest...}", upstream: ok}]
`, state, clientKey(0), clientKey(1), limit)
}

// again starts the gateway once more, as it was set up, in the same folder.
func (g *gateway) again() {
	g.t.Helper()
	if !g.hasEnded() {
		g.t.Fatal("it still runs")
	}
	g.admin.CloseIdleConnections()
	if err := g.launch(); err != nil {
		g.t.Fatalf("sluice did not become ready again: %v\n%s", err, g.tail())
	}
}

// use makes n calls with a key and fails the test unless all are admitted.
func (g *gateway) use(path, key string, n int) {
	g.t.Helper()
	k := &caller{addr: g.addr("PLAIN")}
	defer k.hangUp()
	for i := range n {
		a, err := k.call("GET", path, "X-Api-Key: "+key+"\r\n", "")
		if err != nil || a.status != 200 {
			g.t.Fatalf("call %d of %s: %+v, %v", i+1, path, a, err)
		}
	}
}

// nearMidnight tells that a day ends soon, and with it every quota's period.
func nearMidnight() bool {
	now := time.Now().UTC()
	return now.Add(2*time.Minute).Day() != now.Day()
}

// awaitDay waits for the next day when this one is about to end.
func awaitDay(t testing.TB) {
	t.Helper()
	eventually(t, 3*time.Minute, func() error {
		if nearMidnight() {
			return errNotYet
		}
		return nil
	})
}

// TestQuotaRestarts keeps the use of a quota: exactly over a restart, and but for
// the last second's over SIGKILL.
func TestQuotaRestarts(t *testing.T) {
	t.Parallel()
	awaitDay(t)
	g := start(t, setup{config: quotaConfig("dir: data", 1000000)})
	g.use("/", clientKey(0), 17)
	g.use("/", clientKey(1), 5)
	g.stop()
	g.again()
	for client, want := range map[string]int64{"c0": 17, "c1": 5} {
		if u := g.usage(client, "day"); u.Used != want || u.Plan != "small" || u.Limit != 1000000 {
			t.Errorf("after a clean restart: %+v, want %d used", u, want)
		}
	}

	// Under load, so that something is under way whenever it is killed.
	load := fire(t, spread(0, 100, 0, get("/", clientKey(0)), g.addr("PLAIN"))...)
	eventually(t, 10*time.Second, func() error {
		if len(load.soFar()) < 150 {
			return errNotYet
		}
		return nil
	})
	killed := time.Now()
	g.signal(syscall.SIGKILL)
	<-g.ended
	shots := load.end()
	g.again()
	admitted, last := 17, 0
	for _, s := range shots {
		if !s.admitted() {
			continue
		}
		admitted++
		if s.got > killed.Add(-time.Second).UnixNano() {
			last++
		}
	}
	u := g.usage("c0", "day")
	t.Logf("killed after %d calls, %d of them in the last second; %d are known (%d lost)", admitted, last, u.Used, int64(admitted)-u.Used)
	// One may have been counted and not answered.
	if int(u.Used) > admitted+1 || int(u.Used) < admitted-last {
		t.Errorf("%d used after SIGKILL, want %d to %d", u.Used, admitted-last, admitted)
	}
	if u := g.usage("c1", "day"); u.Used != 5 {
		t.Errorf("the other client's: %+v, want 5", u)
	}
}

// TestQuotaInRedisSurvivesSIGKILL loses what the killed gateway had leased at most.
func TestQuotaInRedisSurvivesSIGKILL(t *testing.T) {
	t.Parallel()
	awaitDay(t)
	r := redistest.Start(t)
	s := setup{config: quotaConfig(`redis: {addresses: @REDIS@, timeout: 2s}`, 1000000), vars: map[string]string{"REDIS": redisList(r.Addr())}}
	all := fleet(t, 2, s)
	rate := 200.0
	load := fire(t, spread(0, rate, 0, get("/", clientKey(0)), all[0].addr("PLAIN"), all[1].addr("PLAIN"))...)
	eventually(t, 10*time.Second, func() error {
		if len(load.soFar()) < 300 {
			return errNotYet
		}
		return nil
	})
	all[0].signal(syscall.SIGKILL)
	<-all[0].ended
	shots := load.end()
	admitted := int64(len(admissions(shots)))
	used := all[1].usage("c0", "day").Used
	t.Logf("%d calls were admitted, %d are used: %d lost to the client", admitted, used, used-admitted)
	// What is granted counts as used. A lease holds a second of the key's rate at
	// most; the gateway that lives may hold another.
	if used < admitted || used > admitted+2*int64(rate) {
		t.Errorf("%d used after %d calls, want no less, and at most two leases more", used, admitted)
	}
	all[1].stop() // gives back what it holds
	all[1].again()
	used = all[1].usage("c0", "day").Used
	if used < admitted || used > admitted+int64(rate) {
		t.Errorf("%d used after %d calls and a clean end of the other gateway, want at most one lease more", used, admitted)
	}
}

// TestUsage answers what there is and says what there is not.
func TestUsage(t *testing.T) {
	t.Parallel()
	awaitDay(t)
	g := start(t, setup{config: quotaConfig("dir: data", 3)})
	g.use("/", clientKey(0), 3)
	k := &caller{addr: g.addr("PLAIN")}
	defer k.hangUp()
	for range 3 { // refusals are not charged
		a, err := k.call("GET", "/", "X-Api-Key: "+clientKey(0)+"\r\n", "")
		if err != nil || a.status != 429 || a.code != "quota_exceeded" {
			t.Fatalf("above the quota: %+v, %v", a, err)
		}
	}
	if u := g.usage("c0", "day"); u.Used != 3 || u.Remaining != 0 {
		t.Errorf("usage %+v, want 3 of 3", u)
	}
	midnight := time.Now().UTC().Truncate(24 * time.Hour).Add(24 * time.Hour)
	if u := g.usage("c1", "day"); u.Used != 0 || u.Remaining != 3 || !u.ResetsAt.Equal(midnight) {
		t.Errorf("usage %+v of a client that never came, want 0 of 3 until %v", u, midnight)
	}
	// Who is not a client has no quota.
	if a, err := k.call("GET", "/", "", ""); err != nil || a.status != 200 {
		t.Errorf("without a key: %+v, %v", a, err)
	}
	for path, want := range map[string]int{"/v1/usage?client=nobody": 404, "/v1/usage?client=c0&period=year": 400} {
		if resp, body := g.adminDo("GET", path, ""); resp.StatusCode != want {
			t.Errorf("%s: %d %s, want %d", path, resp.StatusCode, body, want)
		}
	}
	resp, body := g.adminDo("GET", "/v1/usage", "")
	if resp.StatusCode != 200 || !strings.Contains(string(body), `"c0"`) {
		t.Errorf("usage of all that used some: %d %s", resp.StatusCode, body)
	}
}
