package telemetry

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// section is the part of a document below a heading.
func section(t *testing.T, doc, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut(doc, "\n"+heading+"\n")
	if !ok {
		t.Fatalf("there is no %q", heading)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	return rest
}

func TestTheManualListsEveryMetric(t *testing.T) {
	manual := section(t, read(t, "../../docs/operations.md"), "## Metrics")
	name := regexp.MustCompile(`sluice_[a-z0-9_]+`)
	documented := map[string]bool{}
	for _, n := range name.FindAllString(manual, -1) {
		documented[strings.TrimSuffix(n, "_bucket")] = true
	}
	tel := start(t, Options{Version: "1", Commit: "c"})
	r, f := tel.Route("a", "r"), tel.Filter("a", "r", "f")
	defer r.Release()
	defer f.Release()
	f.Time(0, time.Second)
	tel.Record(typical(), r)
	tel.ConfigApplied("h", begun)
	families, err := tel.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	exposed := map[string]bool{}
	for _, family := range families {
		if n := family.GetName(); strings.HasPrefix(n, "sluice_") {
			exposed[n] = true
		}
	}
	// What the limiter shows, and what the command joins in from the other rooms.
	for _, file := range []string{"../limit/metrics.go", "../cache/metrics.go", "../audit/metrics.go", "../auth/metrics.go", "../../cmd/sluice/observe.go"} {
		for _, n := range regexp.MustCompile(`[{(]"(sluice_[a-z0-9_]+)",`).FindAllStringSubmatch(read(t, file), -1) {
			exposed[n[1]] = true
		}
	}
	if a, b := slices.Sorted(maps.Keys(exposed)), slices.Sorted(maps.Keys(documented)); !slices.Equal(a, b) {
		t.Errorf("exposed    %q\ndocumented %q", a, b)
	}
}

func TestTheManualListsEveryFieldOfTheAccessLog(t *testing.T) {
	manual := section(t, read(t, "../../docs/operations.md"), "### Access log")
	documented := map[string]bool{}
	for line := range strings.Lines(manual) {
		if cells := strings.Split(line, "|"); len(cells) > 3 {
			for _, n := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(cells[1], -1) {
				documented[n[1]] = true
			}
		}
	}
	x := typical()
	x.Conn.TLS = &exchange.TLSInfo{Version: "TLS 1.3", Subject: "CN=acme"}
	x.Err, x.Aborted = &exchange.Error{Code: exchange.Internal, Cause: errors.New("y")}, errors.New("x")
	x.Cached.Result = exchange.CacheStale
	x.Caller = &exchange.Caller{ID: "ada", Authenticator: "staff", Key: "current"}
	var fields map[string]any
	if err := json.Unmarshal([]byte(written(t, config.AccessLog{Format: "json"}, x)), &fields); err != nil {
		t.Fatal(err)
	}
	if a, b := slices.Sorted(maps.Keys(fields)), slices.Sorted(maps.Keys(documented)); !slices.Equal(a, b) {
		t.Errorf("written    %q\ndocumented %q", a, b)
	}
	for which, limit := range map[int]int{textReason: 256, textHost: 256, textPath: 4096, textQuery: 4096, textAgent: 1024} {
		if textLimits[which] != limit {
			t.Errorf("a text is cut at %d bytes, documented %d", textLimits[which], limit)
		}
	}
}

func TestTheManualListsTheBuckets(t *testing.T) {
	var text string
	unit := ""
	for _, b := range bounds {
		name, in := "µs", time.Microsecond
		switch {
		case b >= time.Second:
			name, in = "s", time.Second
		case b >= time.Millisecond:
			name, in = "ms", time.Millisecond
		}
		if unit != name && unit != "" {
			text += " " + unit
		}
		if text != "" {
			text += ", "
		}
		unit = name
		text += fmt.Sprint(float64(b) / float64(in))
	}
	text = strings.ReplaceAll(text+" "+unit, "µs, ", "µs, ")
	if manual := section(t, read(t, "../../docs/operations.md"), "## Metrics"); !strings.Contains(manual, text) {
		t.Errorf("the manual does not list the buckets %s", text)
	}
}
