package telemetry

import (
	"bytes"
	"errors"
	"io"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// scrape returns the lines of /metrics that begin with prefix.
func scrape(t *testing.T, tel *Telemetry, prefix string) []string {
	t.Helper()
	w := httptest.NewRecorder()
	tel.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	var lines []string
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, prefix) {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	return lines
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestRecordCountsByRouteMethodAndStatus(t *testing.T) {
	tel := start(t, Options{})
	r := tel.Route("public", "get-user")
	defer r.Release()
	x := typical()
	tel.Record(x, r)
	tel.Record(x, r)
	x.Request.Method, x.Response.Status = "BREW", 418
	tel.Record(x, r)
	x.Response.Status = 404
	tel.Record(x, nil)
	expect(t, scrape(t, tel, "sluice_requests_total"),
		`sluice_requests_total{api="",code="404",method="other",route=""} 1`,
		`sluice_requests_total{api="public",code="200",method="GET",route="get-user"} 2`,
		`sluice_requests_total{api="public",code="418",method="other",route="get-user"} 1`)
}

func TestRecordDividesTheTime(t *testing.T) {
	tel := start(t, Options{})
	r := tel.Route("public", "get-user")
	defer r.Release()
	x := typical() // 2.345 ms, of which 1.5 for the upstream and 0.2 for the client
	tel.Record(x, r)
	x.Usage = exchange.Usage{}
	x.ClientWait = time.Hour // an overlap must not become a negative share
	tel.Record(x, r)
	got := slices.DeleteFunc(scrape(t, tel, "sluice_request_duration_seconds"), func(l string) bool {
		return strings.Contains(l, "_bucket")
	})
	expect(t, got,
		`sluice_request_duration_seconds_sum{api="public",part="gateway",route="get-user"} 0.000645`,
		`sluice_request_duration_seconds_count{api="public",part="gateway",route="get-user"} 2`,
		`sluice_request_duration_seconds_sum{api="public",part="total",route="get-user"} 0.00469`,
		`sluice_request_duration_seconds_count{api="public",part="total",route="get-user"} 2`,
		`sluice_request_duration_seconds_sum{api="public",part="upstream",route="get-user"} 0.0015`,
		`sluice_request_duration_seconds_count{api="public",part="upstream",route="get-user"} 1`)
}

func TestRecordCountsBytesRefusalsAndAborts(t *testing.T) {
	tel := start(t, Options{})
	x := typical()
	tel.Begin(x)
	expect(t, scrape(t, tel, "sluice_requests_in_flight"), "sluice_requests_in_flight 1")
	x.BytesIn, x.BytesOut = 10, 300
	x.Err = &exchange.Error{Code: exchange.PayloadTooLarge}
	x.Aborted = errors.New("reset")
	tel.Record(x, nil)
	expect(t, scrape(t, tel, "sluice_requests_in_flight"), "sluice_requests_in_flight 0")
	expect(t, scrape(t, tel, "sluice_request_bytes_total"), "sluice_request_bytes_total 10")
	expect(t, scrape(t, tel, "sluice_response_bytes_total"), "sluice_response_bytes_total 300")
	expect(t, scrape(t, tel, "sluice_responses_aborted_total"), "sluice_responses_aborted_total 1")
	got := slices.DeleteFunc(scrape(t, tel, "sluice_refusals_total"), func(l string) bool { return strings.HasSuffix(l, " 0") })
	expect(t, got, `sluice_refusals_total{code="payload_too_large"} 1`)
}

func TestEveryCodeHasItsRefusalCell(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Errorf("exchange has a code behind %v: count it too", exchange.ClientGone)
		}
	}()
	_ = exchange.Code(exchangeCodes).String()
}

func TestARouteThatStaysKeepsItsCounts(t *testing.T) {
	tel := start(t, Options{})
	before := tel.Route("a", "r")
	tel.Record(typical(), before)
	after := tel.Route("a", "r") // the new snapshot, before the old one retires
	before.Release()
	tel.Record(typical(), after)
	expect(t, scrape(t, tel, "sluice_requests_total"),
		`sluice_requests_total{api="a",code="200",method="GET",route="r"} 2`)
	after.Release()
	expect(t, scrape(t, tel, "sluice_requests_total"))
	again := tel.Route("a", "r")
	defer again.Release()
	if again == after {
		t.Error("a released route came back with its counts")
	}
}

func TestReleasedSeriesLeaveNothingBehind(t *testing.T) {
	tel := start(t, Options{})
	for range 1000 {
		r, f := tel.Route("a", "r"), tel.Filter("a", "r", "ip")
		tel.Record(typical(), r)
		f.Count(1, Refused)
		r.Release()
		f.Release()
	}
	if n, m := len(tel.series.routes), len(tel.series.filters); n+m > 0 {
		t.Errorf("%d routes and %d filters are left", n, m)
	}
}

func TestFilterCountsVerdictsAndTime(t *testing.T) {
	tel := start(t, Options{})
	f, unused := tel.Filter("a", "r", "ip"), tel.Filter("a", "r", "cors")
	defer f.Release()
	defer unused.Release()
	for v := range verdicts {
		for range v + 1 {
			f.Count(uint32(v), v)
		}
	}
	f.Count(0, verdicts) // not a verdict
	f.Time(1, 30*time.Microsecond)
	var none *Filter
	none.Count(1, Allowed)
	none.Time(1, time.Second)
	expect(t, scrape(t, tel, "sluice_filter_verdicts_total"),
		`sluice_filter_verdicts_total{api="a",filter="cors",route="r",verdict="allow"} 0`,
		`sluice_filter_verdicts_total{api="a",filter="cors",route="r",verdict="answer"} 0`,
		`sluice_filter_verdicts_total{api="a",filter="cors",route="r",verdict="error"} 0`,
		`sluice_filter_verdicts_total{api="a",filter="cors",route="r",verdict="refuse"} 0`,
		`sluice_filter_verdicts_total{api="a",filter="cors",route="r",verdict="would_refuse"} 0`,
		`sluice_filter_verdicts_total{api="a",filter="ip",route="r",verdict="allow"} 1`,
		`sluice_filter_verdicts_total{api="a",filter="ip",route="r",verdict="answer"} 4`,
		`sluice_filter_verdicts_total{api="a",filter="ip",route="r",verdict="error"} 5`,
		`sluice_filter_verdicts_total{api="a",filter="ip",route="r",verdict="refuse"} 2`,
		`sluice_filter_verdicts_total{api="a",filter="ip",route="r",verdict="would_refuse"} 3`)
	expect(t, scrape(t, tel, "sluice_filter_duration_seconds_sum"),
		`sluice_filter_duration_seconds_sum{api="a",filter="ip",route="r"} 3e-05`)
}

func TestRegisteredMetricsAreReadAtTheScrape(t *testing.T) {
	tel := start(t, Options{})
	open := 1.0
	tel.RegisterGauge("sluice_connections", "Open.", []string{"listener"}, func(emit Emit) { emit(open, "plain") })
	tel.RegisterCounter("sluice_accepted_total", "Accepted.", nil, func(emit Emit) { emit(7) })
	h := NewHistogram()
	tel.RegisterHistogram("sluice_handshake_seconds", "Handshakes.", h)
	h.Observe(0, time.Millisecond)
	open = 5
	expect(t, scrape(t, tel, "sluice_connections"), `sluice_connections{listener="plain"} 5`)
	expect(t, scrape(t, tel, "sluice_accepted_total"), `sluice_accepted_total 7`)
	expect(t, scrape(t, tel, "sluice_handshake_seconds_count"), `sluice_handshake_seconds_count 1`)
}

func TestAWrongMetricDoesNotHideTheOthers(t *testing.T) {
	var log bytes.Buffer
	tel := start(t, Options{Logger: NewLogger(&log, Level("info"))})
	tel.RegisterGauge("sluice_twice", "Twice.", []string{"a"}, func(emit Emit) { emit(1, "x"); emit(2, "x") })
	tel.RegisterGauge("sluice_short", "Labels are missing.", []string{"a"}, func(emit Emit) { emit(1) })
	bad := tel.Route("a\xff", "b")
	defer bad.Release()
	tel.Record(typical(), bad)
	expect(t, scrape(t, tel, "sluice_requests_total"), `sluice_requests_total{api="a�",code="200",method="GET",route="b"} 1`)
	if got := log.String(); !strings.Contains(got, "metrics are incomplete") {
		t.Errorf("logged %q", got)
	}
}

func TestConfigMetricsFollowReloads(t *testing.T) {
	tel := start(t, Options{Version: "1.2.3", Commit: "abc"})
	state := func() []string {
		return slices.Concat(scrape(t, tel, "sluice_config_ok"), scrape(t, tel, "sluice_config_info"), scrape(t, tel, "sluice_config_reloads_total"))
	}
	expect(t, state(), `sluice_config_ok 0`,
		`sluice_config_reloads_total{result="failed"} 0`, `sluice_config_reloads_total{result="ok"} 0`)
	tel.ConfigApplied("h1", begun)
	expect(t, state(), `sluice_config_ok 1`, `sluice_config_info{hash="h1"} 1`,
		`sluice_config_reloads_total{result="failed"} 0`, `sluice_config_reloads_total{result="ok"} 0`)
	tel.ConfigFailed()
	expect(t, state(), `sluice_config_ok 0`, `sluice_config_info{hash="h1"} 1`,
		`sluice_config_reloads_total{result="failed"} 1`, `sluice_config_reloads_total{result="ok"} 0`)
	tel.ConfigApplied("h2", begun)
	expect(t, state(), `sluice_config_ok 1`, `sluice_config_info{hash="h2"} 1`,
		`sluice_config_reloads_total{result="failed"} 1`, `sluice_config_reloads_total{result="ok"} 1`)
	expect(t, scrape(t, tel, "sluice_config_applied"), "sluice_config_applied_timestamp_seconds 1.772600767089e+09")
}

func TestProcessAndRuntimeAreExposed(t *testing.T) {
	tel := start(t, Options{Version: "1.2.3", Commit: "abc"})
	for _, name := range []string{`sluice_build_info{commit="abc",go="go`, "go_goroutines ", "go_memstats_heap_alloc_bytes ", "process_resident_memory_bytes ", "process_open_fds ", "process_max_fds "} {
		if len(scrape(t, tel, name)) != 1 {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestRecordAllocatesNothing(t *testing.T) {
	for _, format := range []string{"json", "combined"} {
		tel := start(t, Options{Log: accessConfig("stdout", format), Stdout: io.Discard})
		r, f := tel.Route("public", "get-user"), tel.Filter("public", "get-user", "ip")
		x := typical()
		s := &tel.access.stripes[x.Conn.Shard&tel.access.mask]
		round := func() {
			x.Trusted = false
			tel.Begin(x)
			f.Count(x.Conn.Shard, Allowed)
			f.Time(x.Conn.Shard, time.Microsecond)
			tel.Record(x, r)
			x.ID = nil
		}
		for range 200 { // lets the batch reach its size
			round()
		}
		if n := testing.AllocsPerRun(500, func() {
			round()
			x.Request.Header.DelID(exchange.Tracestate)
			s.mu.Lock()
			if len(s.b.entries) > 60 {
				s.b.reset() // so that neither growth nor the writer allocates meanwhile
			}
			s.mu.Unlock()
		}); n > 0 {
			t.Errorf("%s: %v allocations an exchange", format, n)
		}
		r.Release()
		f.Release()
	}
}
