package limit

import (
	"slices"
	"testing"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/policy"
)

// What could not be read was told of by the reader, and hides nothing beside it.
func TestCheckFindsAllThatIsWrongBesideWhatCouldNotBeRead(t *testing.T) {
	costs := func(c *config.RateLimit) *config.RateLimit {
		c.Cost.Text = "bad("
		return c
	}
	shared := config.RateLimitUse{Inline: costs(tokens("1/s", 1))}
	words := tokens("1/s", 1)
	words.Per = []string{"nothing", "ip", "header:"}
	file := &config.File{
		RateLimits: map[string]*config.RateLimit{
			"none": nil, "empty": {}, "no-rate": costs(&config.RateLimit{}), "words": words,
			"window": limited("fixed_window", "1000000000000/s", func(c *config.RateLimit) { c.Burst, c.Queue = pointer(int64(5)), 5 }),
			"unread": costs(&config.RateLimit{Algorithm: "leaky_bucket", Rate: &config.Rate{}}),
			"fine":   tokens("1/s", 1),
		},
		Plans: map[string]*config.Plan{
			"none": nil, "empty": {Throttle: &config.Throttle{}, Quota: &config.Quota{}, Routes: map[string]*config.PlanRoute{"r": nil, "s": {}}},
			"p": {Routes: map[string]*config.PlanRoute{"a.b": {Throttle: &config.Throttle{Rate: *rate("1000000000000/s")}}}},
		},
		APIs: []config.API{
			{Defaults: config.Route{RateLimit: []config.RateLimitUse{shared}}, Routes: []config.Route{{RateLimit: append([]config.RateLimitUse{shared}, uses("gone", costs(tokens("1/s", 1)))...)}}},
			{Defaults: config.Route{RateLimit: uses(costs(tokens("1/s", 1)))}},
		},
		Routes: []config.Route{{}, {RateLimit: uses("fine", &config.RateLimit{}, costs(tokens("1/s", 1)))}},
	}
	var got []string
	for _, f := range policy.Faults(Check(file), "?") {
		got = append(got, f.At)
	}
	want := []string{
		"rate_limits.no-rate.cost", "rate_limits.unread.cost", "rate_limits.window.rate", "rate_limits.words.per[0]", "rate_limits.words.per[2]",
		`plans.p.routes["a.b"].throttle.rate`,
		"apis[0].defaults.rate_limit[0].cost", "apis[0].routes[0].rate_limit[2].cost", "apis[1].defaults.rate_limit[0].cost", "routes[1].rate_limit[2].cost",
	}
	if !slices.Equal(got, want) {
		t.Errorf("found %q\nwant  %q", got, want)
	}
	if err := Check(&config.File{Routes: []config.Route{{}}}); err != nil {
		t.Errorf("without limits: %v", err)
	}
}
