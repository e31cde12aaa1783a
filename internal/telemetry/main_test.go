package telemetry

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// begun is when the exchanges of tests begin.
var begun = time.Date(2026, 3, 4, 5, 6, 7, 89_000_000, time.UTC)

// typical is a forwarded request as the gateway hands it over.
func typical() *exchange.Exchange {
	x := &exchange.Exchange{
		Conn:   &exchange.Conn{Peer: netip.MustParseAddrPort("10.0.0.7:41234"), Shard: 3},
		Start:  begun,
		Client: netip.MustParseAddr("203.0.113.9"),
		ID:     []byte("0199b3b6-7c2a-7d4e-8f00-0123456789ab"),
		Trace:  exchange.Trace{TraceID: [16]byte{0x4b, 0xf9, 15: 0x36}, SpanID: [8]byte{1, 7: 2}},
		Route:  &exchange.Route{API: "public", Name: "get-user", Pattern: "/v1/users/{id}"},
		Usage: exchange.Usage{
			Name: "users", Target: "http://127.0.0.1:9001", Attempts: 1, Reused: true, Waited: 1500 * time.Microsecond,
		},
		BytesOut:   1234,
		Elapsed:    2345 * time.Microsecond,
		ClientWait: 200 * time.Microsecond,
	}
	r := &x.Request
	r.Method, r.Proto = "GET", exchange.HTTP11
	r.Host, r.Path, r.Query = []byte("api.example.com"), []byte("/v1/users/42"), []byte("page=2&api_key=s3cret")
	r.Header.AddID(exchange.UserAgent, []byte("Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"))
	r.Header.Add([]byte("Referer"), []byte("https://app.example.com/start?token=abc"))
	x.Response.Status = 200
	return x
}

func accessConfig(output, format string) config.Log {
	return config.Log{Level: "info", Access: config.AccessLog{Format: format, Output: output, Sample: config.Percent{Of: 1}}}
}

// start makes a Telemetry that the test's end closes.
func start(t testing.TB, o Options) *Telemetry {
	t.Helper()
	tel, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
		defer stop()
		if err := tel.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return tel
}

func closeNow(t testing.TB, tel *Telemetry) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
	defer stop()
	if err := tel.Close(ctx); err != nil {
		t.Fatal(err)
	}
}
