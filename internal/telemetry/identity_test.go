package telemetry

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

func TestRequestIDIsAUUIDv7OfItsTime(t *testing.T) {
	shape := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	for range 1000 {
		id := AppendRequestID([]byte("x"), begun)
		if !shape.Match(id[1:]) {
			t.Fatalf("%s is not a UUIDv7", id[1:])
		}
	}
	// RFC 9562, appendix A.6: 2022-02-22T19:22:22Z is 017f22e2-79b0.
	id := AppendRequestID(nil, time.UnixMilli(0x017F22E279B0))
	if !bytes.HasPrefix(id, []byte("017f22e2-79b0-7000-")) {
		t.Errorf("the RFC's example begins 017f22e2-79b0-7000, ours is %s", id)
	}
	// Before 1970 there is no such id; it must not become one of the far future.
	if id := AppendRequestID(nil, time.Time{}); !shape.Match(id) || !bytes.HasPrefix(id, []byte("00000000-0000-")) {
		t.Errorf("the zero time gives %s", id)
	}
}

func TestRequestIDsSortByTime(t *testing.T) {
	now := begun
	last := ""
	for range 5000 {
		id := string(AppendRequestID(nil, now))
		if id <= last {
			t.Fatalf("%s comes behind %s", id, last)
		}
		last = id
		now = now.Add(245 * time.Nanosecond)
	}
}

func TestRequestIDsOfOneInstantDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 10000 {
		id := string(AppendRequestID(nil, begun))
		if seen[id] {
			t.Fatalf("%s came twice", id)
		}
		seen[id] = true
	}
}

func TestValidRequestID(t *testing.T) {
	for id, want := range map[string]bool{
		"a": true, "0199b3b6-7c2a-7d4e-8f00-0123456789ab": true, "Root=1-67891233-abc/def+x:y@z~_.": true,
		strings.Repeat("a", 128): true, strings.Repeat("a", 129): false,
		"": false, "a b": false, "a\nb": false, "a\x00": false, "a\"b": false, "a\\b": false, "é": false, "a,b": false, "<a>": false, "a;b": false,
		"a\x7f": false, "${a}": false, "a'b": false,
	} {
		if got := ValidRequestID([]byte(id)); got != want {
			t.Errorf("ValidRequestID(%q) = %v, want %v", id, got, want)
		}
	}
}

func TestParseTraceIsStrict(t *testing.T) {
	const good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for _, c := range []struct {
		value string
		flags byte
		ok    bool
	}{
		{good, 1, true},
		{"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", 0, true},
		{"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff", 1, true},
		{"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02", 0, true},
		{"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", 1, true},
		{"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what the future will be like", 1, true},
		{"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what", 0, false},
		{"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-012", 0, false},
		{good + "-", 0, false},
		{good + "-x", 0, false},
		{good + " ", 0, false},
		{good[:54], 0, false},
		{"", 0, false},
		{"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", 0, false},
		{"00-00000000000000000000000000000000-00f067aa0ba902b7-01", 0, false},
		{"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", 0, false},
		{"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", 0, false},
		{"00-4bf92f3577b34da6a3ce929d0e0e4736-00F067aa0ba902b7-01", 0, false},
		{"00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01", 0, false},
		{"0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", 0, false},
		{"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x", 0, false},
		{"00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", 0, false},
		{"00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01", 0, false},
		{"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7_01", 0, false},
	} {
		got, ok := ParseTrace([]byte(c.value))
		if ok != c.ok {
			t.Errorf("%q: valid is %v, want %v", c.value, ok, c.ok)
			continue
		}
		if !ok {
			if got != (exchange.Trace{}) {
				t.Errorf("%q: left behind %+v", c.value, got)
			}
			continue
		}
		span := got.SpanID
		want := exchange.Trace{
			TraceID: [16]byte{0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36},
			SpanID:  span, Parent: [8]byte{0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 2, 0xb7}, Flags: c.flags,
		}
		if got != want || span == got.Parent || span == [8]byte{} {
			t.Errorf("%q: %+v", c.value, got)
		}
	}
}

func TestTraceparentIsWhatParseTraceReads(t *testing.T) {
	for _, trace := range []exchange.Trace{StartTrace(), {TraceID: [16]byte{1}, SpanID: [8]byte{2}, Flags: 1}} {
		v := AppendTraceparent(nil, trace)
		got, ok := ParseTrace(v)
		if !ok || len(v) != TraceparentLen || got.TraceID != trace.TraceID || got.Parent != trace.SpanID || got.Flags != trace.Flags {
			t.Errorf("%s of %+v reads as %+v", v, trace, got)
		}
	}
}

func TestBeginContinuesOrStartsTheTrace(t *testing.T) {
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	tel := start(t, Options{})
	for _, c := range []struct {
		name      string
		fields    []string
		continued bool
	}{
		{"valid", []string{"traceparent", parent, "tracestate", "a=1"}, true},
		{"any case", []string{"TraceParent", parent, "TraceState", "a=1"}, true},
		{"none", []string{"tracestate", "a=1"}, false},
		{"bad", []string{"traceparent", "00-x", "tracestate", "a=1"}, false},
		{"two", []string{"traceparent", parent, "traceparent", parent, "tracestate", "a=1"}, false},
	} {
		x := &exchange.Exchange{Conn: &exchange.Conn{}}
		for i := 0; i < len(c.fields); i += 2 {
			x.Request.Header.Add([]byte(c.fields[i]), []byte(c.fields[i+1]))
		}
		tel.Begin(x)
		tel.Record(x, nil)
		if got := x.Request.Header.Has(exchange.Tracestate); got != c.continued {
			t.Errorf("%s: tracestate stays: %v, want %v", c.name, got, c.continued)
		}
		if got := x.Trace.TraceID[0] == 0x4b && x.Trace.TraceID[15] == 0x36 && x.Trace.Flags == 1; got != c.continued {
			t.Errorf("%s: continued: %v, want %v (%+v)", c.name, got, c.continued, x.Trace)
		}
		if x.Trace.TraceID == [16]byte{} || x.Trace.SpanID == [8]byte{} || (x.Trace.Parent != [8]byte{}) != c.continued {
			t.Errorf("%s: %+v", c.name, x.Trace)
		}
	}
}

func TestBeginTakesTheRequestIDOfTrustedProxiesOnly(t *testing.T) {
	tel := start(t, Options{})
	for _, c := range []struct {
		trusted bool
		sent    string
		kept    bool
	}{
		{true, "abc-123", true},
		{false, "abc-123", false},
		{true, "abc 123", false},
		{true, "", false},
		{true, strings.Repeat("x", 129), false},
	} {
		x := &exchange.Exchange{Conn: &exchange.Conn{}, Trusted: c.trusted, Start: begun}
		x.Request.Header.AddID(exchange.XRequestID, []byte(c.sent))
		tel.Begin(x)
		tel.Record(x, nil)
		if got := string(x.ID) == c.sent; got != c.kept || len(x.ID) == 0 {
			t.Errorf("trusted %v, sent %q: id %q", c.trusted, c.sent, x.ID)
		}
	}
}

func TestBeginTimesTheFiltersOfAFewExchanges(t *testing.T) {
	tel := start(t, Options{})
	timed := 0
	const n = 64 * 200
	for range n {
		x := &exchange.Exchange{}
		tel.Begin(x)
		tel.Record(x, nil)
		if x.Timed {
			timed++
		}
	}
	// 200 are expected with a standard deviation of 14.
	if timed < 100 || timed > 300 {
		t.Errorf("%d of %d were timed, want about 1 in 64", timed, n)
	}
}

func FuzzParseTrace(f *testing.F) {
	f.Add([]byte("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"))
	f.Add([]byte("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x"))
	shape := regexp.MustCompile(`^(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}|(?s)[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?)$`)
	f.Fuzz(func(t *testing.T, v []byte) {
		_, ok := ParseTrace(v)
		want := shape.Match(v) && !bytes.HasPrefix(v, []byte("ff")) &&
			!bytes.Equal(v[3:35], bytes.Repeat([]byte("0"), 32)) && !bytes.Equal(v[36:52], bytes.Repeat([]byte("0"), 16)) &&
			(!bytes.HasPrefix(v, []byte("00")) || len(v) == TraceparentLen)
		if ok != want {
			t.Errorf("%q: valid is %v, want %v", v, ok, want)
		}
	})
}
