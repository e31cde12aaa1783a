//go:build !race

package upstream

import (
	"testing"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// Race builds are left out: their pools drop at random what is put into them.

func TestForwardingAllocatesNothing(t *testing.T) {
	for _, balance := range []string{"p2c", "round_robin", "least_requests", "hash"} {
		t.Run(balance, func(t *testing.T) {
			one, two := fastOrigin(t, reply1K()), fastOrigin(t, reply1K())
			u := testUpstream(t, config.Upstream{Balance: balance, HashOn: "header:Authorization", Retry: &config.Retry{Attempts: 1, On: []string{"502"}}}, one, two)
			b := newBrowser()
			for range 100 {
				forward(t, u, b)
			}
			if n := testing.AllocsPerRun(500, func() { forward(t, u, b) }); n >= 1 {
				t.Errorf("%v allocations for each request", n)
			}
		})
	}
}

func TestRespondingAllocatesNothing(t *testing.T) {
	u := testUpstream(t, config.Upstream{Respond: &config.Respond{Headers: map[string]string{"X-Mock": "1"}, Body: `{"ok":true}`}})
	b := newBrowser()
	ask := func() {
		x := b.next()
		if err := u.Do(x); err != nil {
			t.Fatal(err)
		}
		_, _ = x.Response.Body.Next()
		_ = x.Response.Body.Close()
	}
	ask()
	if n := testing.AllocsPerRun(100, ask); n > 0 {
		t.Errorf("%v allocations for each request", n)
	}
}

// A PUT whose body is in hand, and a response that is chunked, cost none either.
func TestForwardingABodyAllocatesNothing(t *testing.T) {
	const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
	u := testUpstream(t, config.Upstream{}, fastOrigin(t, chunked))
	b := newBrowser()
	body := exchange.NewBytes(nil)
	content := []byte("some content")
	ask := func() {
		x := b.next()
		body.Reset(content)
		x.Request.Method, x.Request.Body, x.Request.ContentLength = "PUT", body, int64(len(content))
		if err := u.Do(x); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := x.Response.Body.Next(); err != nil {
				break
			}
		}
		_ = x.Response.Body.Close()
	}
	for range 50 {
		ask()
	}
	if n := testing.AllocsPerRun(500, ask); n >= 1 {
		t.Errorf("%v allocations for each request", n)
	}
}
