package admin

import (
	"slices"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
)

const withClients = document + `
plans: {gold: {quota: {limit: 10, period: day}}}
clients: [{id: acme, plan: gold}, {id: new, plan: gold}]
`

func TestUsageIsToldByClientAndPeriod(t *testing.T) {
	n := newNode(t, withClients)
	s := start(t, n, config.Admin{})
	const acme = `{
  "usage": [
    {
      "client": "acme",
      "plan": "gold",
      "period": "day",
      "limit": 10,
      "used": 3,
      "remaining": 7,
      "resets_at": "2026-11-26T00:00:00Z"
    }
  ]
}
`
	for _, c := range []struct{ query, asks, want string }{
		{"", " ", acme},
		{"?client=acme", "acme ", acme},
		{"?client=&period=", " ", acme},
		{"?client=acme&period=day", "acme day", acme},
		{"?client=new&period=week", "new week", "{\n  \"usage\": []\n}\n"},
	} {
		n.asks = nil
		r := s.ask("GET", "/v1/usage"+c.query, "")
		if r.status != 200 || r.body != c.want || !slices.Equal(n.asks, []string{c.asks}) {
			t.Errorf("%s: asks %q, %d %s", c.query, n.asks, r.status, r.body)
		}
	}
	n.asks = nil
	s.ask("GET", "/v1/usage?client=nobody", "").refused(t, 404, "not_found")
	s.ask("GET", "/v1/usage?client=acme&period=Day", "").refused(t, 400, "bad_request")
	s.ask("GET", "/v1/usage?clients=acme", "").refused(t, 400, "bad_request")
	if n.asks != nil {
		t.Errorf("the limiter was asked %q", n.asks)
	}
	for query, want := range map[string]time.Time{"?client=new": endOf("day", time.Now()), "?client=new&period=day": endOf("day", time.Now())} {
		u := decode[UsageList](t, s.ask("GET", "/v1/usage"+query, "").body).Usage
		if len(u) != 1 || u[0].Client != "new" || u[0].Plan != "gold" || u[0].Period != "day" || u[0].Limit != 10 || u[0].Used != 0 || u[0].Remaining != 10 || u[0].ResetsAt.Before(want) {
			t.Errorf("%s: nothing used is %+v", query, u)
		}
	}
	n.storeAway = true
	s.ask("GET", "/v1/usage", "").refused(t, 503, "dependency_unavailable")
}

func TestHotKeysAreListed(t *testing.T) {
	n := newNode(t, document)
	s := start(t, n, config.Admin{})
	for what, want := range map[string]string{
		"clients": "{\n  \"what\": \"clients\",\n  \"hot\": [\n    {\n      \"key\": \"c:/acme\",\n      \"count\": 5,\n      \"error\": 1\n    }\n  ]\n}\n",
		"routes":  "{\n  \"what\": \"routes\",\n  \"hot\": []\n}\n",
	} {
		n.asks = nil
		if r := s.ask("GET", "/v1/hot?what="+what, ""); r.status != 200 || r.body != want || !slices.Equal(n.asks, []string{what + " 20"}) {
			t.Errorf("%s: asks %q, %d %s", what, n.asks, r.status, r.body)
		}
	}
	for _, query := range []string{"", "?what=", "?what=everything", "?n=5"} {
		s.ask("GET", "/v1/hot"+query, "").refused(t, 400, "bad_request")
	}
	s.ask("GET", "/v1/hot?what=cache", "").refused(t, 501, "not_implemented")
}

func TestPeriodsEndByTheCalendar(t *testing.T) {
	for _, c := range []struct{ period, now, want string }{
		{"day", "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z"},
		{"day", "2026-11-25T23:00:00-05:00", "2026-11-27T00:00:00Z"},
		{"week", "2026-11-25T12:00:00Z", "2026-11-30T00:00:00Z"}, // a Wednesday
		{"week", "2026-11-30T00:00:00Z", "2026-12-07T00:00:00Z"}, // a Monday
		{"week", "2026-11-29T23:59:59Z", "2026-11-30T00:00:00Z"}, // a Sunday
		{"month", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{"month", "2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z"},
	} {
		now, err := time.Parse(time.RFC3339, c.now)
		if err != nil {
			t.Fatal(err)
		}
		if got := endOf(c.period, now).Format(time.RFC3339); got != c.want {
			t.Errorf("%s of %s ends %s, want %s", c.period, c.now, got, c.want)
		}
	}
}
