package admin

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
)

const withClients = document + `
default_plan: gold
plans: {gold: {quota: {limit: 10, period: day}}, bare: {throttle: {rate: 1/s}}}
clients: [{id: new}, {id: acme, plan: gold}, {id: other, plan: bare}]
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
	const none = "{\n  \"usage\": []\n}\n"
	for _, c := range []struct{ query, asks, want string }{
		{"?client=acme", "acme  map[gold:[acme]]", acme},
		{"?client=acme&period=day", "acme day map[gold:[acme]]", acme},
		{"?client=new&period=week", "new week map[gold:[new]]", none},
		{"?period=week", " week map[gold:[acme new]]", none},
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
	s.ask("GET", "/v1/usage?client=acme&client=new", "").refused(t, 400, "bad_request")
	s.ask("GET", "/v1/hot?what=clients&what=routes", "").refused(t, 400, "bad_request")
	if n.asks != nil {
		t.Errorf("the limiter was asked %q", n.asks)
	}
	for query, want := range map[string]time.Time{"?client=new": endOf("day", time.Now()), "?client=new&period=day": endOf("day", time.Now())} {
		u := decode[UsageList](t, s.ask("GET", "/v1/usage"+query, "").body).Usage
		if len(u) != 1 || u[0].Client != "new" || u[0].Plan != "gold" || u[0].Period != "day" || u[0].Limit != 10 || u[0].Used != 0 || u[0].Remaining != 10 || u[0].ResetsAt.Before(want) {
			t.Errorf("%s: nothing used is %+v", query, u)
		}
	}
	for _, query := range []string{"", "?client=&period=", "?period=day"} {
		n.asks = nil
		all := decode[UsageList](t, s.ask("GET", "/v1/usage"+query, "").body).Usage
		if len(all) != 2 || all[0].Client != "acme" || all[0].Used != 3 || all[1].Client != "new" || all[1].Used != 0 || all[1].Limit != 10 {
			t.Errorf("%s: all are %+v", query, all)
		}
		if len(n.asks) != 1 || !strings.HasSuffix(n.asks[0], " map[gold:[acme new]]") {
			t.Errorf("%s: asks %q", query, n.asks)
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
