package limit

import (
	"context"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

func TestMetrics(t *testing.T) {
	tel, err := telemetry.New(telemetry.Options{Log: config.Log{Level: "info", Access: config.AccessLog{Output: "none"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tel.Close(context.Background()) }()
	shadow := tokens("1/h", 1)
	shadow.Mode = "shadow"
	file := &config.File{RateLimits: map[string]*config.RateLimit{
		"here": tokens("1/h", 3), "shadow": shadow, "far": scoped("exact", tokens("1/h", 100)), "leased": scoped("leased", tokens("1000/s", 10000)),
	}}
	link := newMiddle(1).link("a")
	r := newRig(t, Options{Telemetry: tel, Shared: link}, file, "here", "shadow", "far", "leased")
	r.admitted(5, "acme")
	link.set(false)
	r.admitted(1, "b")

	w := httptest.NewRecorder()
	tel.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	lines := strings.Split(w.Body.String(), "\n")
	for _, want := range []string{
		`sluice_limit_decisions_total{limit="here",verdict="allow"} 4`,
		`sluice_limit_decisions_total{limit="here",verdict="refuse"} 2`,
		`sluice_limit_decisions_total{limit="shadow",verdict="would_refuse"} 2`,
		`sluice_limit_decisions_total{limit="far",verdict="fault"} 1`,
		`sluice_limit_keys{limit="here"} 2`,
		`sluice_limit_evictions_total{kind="lost",limit="here"} 0`,
		`sluice_limit_store_up 0`,
		`sluice_limit_peers 1`,
		`sluice_limit_store_calls_total{op="take",result="ok"} 3`,
		`sluice_limit_store_calls_total{op="take",result="error"} 0`,
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("there is no %s", want)
		}
	}
	if t.Failed() {
		for _, l := range lines {
			if strings.HasPrefix(l, "sluice_limit") {
				t.Log(l)
			}
		}
	}
	link.set(true)
}
