package admin

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/limit"
)

// Limits is what the limiter knows of who used how much. Its methods are called
// from any goroutine and may ask the shared store.
type Limits interface {
	// Usage is the use of the quotas of a client, or of all when it is empty; of one
	// period, or of all when that is empty. Its error is the store's.
	Usage(client, period string) ([]limit.Usage, error)
	// Hot lists the n heaviest clients or routes, the heaviest first.
	Hot(what string, n int) ([]limit.Hot, error)
}

// UsageList is the answer of GET /v1/usage.
type UsageList struct {
	Usage []limit.Usage `json:"usage"`
}

func (s *Server) usage(w http.ResponseWriter, r *http.Request) *problem {
	id, period := r.URL.Query().Get("client"), r.URL.Query().Get("period")
	switch period {
	case "", "day", "week", "month":
	default:
		return badRequest("period is day, week or month, or left out for all.")
	}
	f := s.Configuration.Running()
	if f == nil {
		return notReady()
	}
	client := slices.IndexFunc(f.Clients, func(c config.Client) bool { return c.ID == id })
	if id != "" && client < 0 {
		return noClient(id)
	}
	list, err := s.Limits.Usage(id, period)
	if err != nil {
		s.Log.Warn("the use of quotas cannot be told", "cause", err)
		return unavailable()
	}
	if client >= 0 {
		list = withUnused(list, f, &f.Clients[client], period)
	}
	if list == nil {
		list = []limit.Usage{}
	}
	send(w, http.StatusOK, "application/json", UsageList{list})
	return nil
}

// withUnused adds the quota of a client's plan when the limiter has not seen the
// client use it.
func withUnused(list []limit.Usage, f *config.File, c *config.Client, period string) []limit.Usage {
	name := cmp.Or(c.Plan, f.DefaultPlan)
	p := f.Plans[name]
	if p == nil || p.Quota == nil || period != "" && period != p.Quota.Period {
		return list
	}
	if slices.ContainsFunc(list, func(u limit.Usage) bool { return u.Plan == name && u.Period == p.Quota.Period }) {
		return list
	}
	return append(list, limit.Usage{
		Client: c.ID, Plan: name, Period: p.Quota.Period, Limit: p.Quota.Limit, Remaining: p.Quota.Limit,
		ResetsAt: endOf(p.Quota.Period, time.Now()),
	})
}

// endOf is when a calendar period ends, UTC. Weeks begin on Monday.
func endOf(period string, now time.Time) time.Time {
	year, month, day := now.UTC().Date()
	switch period {
	case "day":
		day++
	case "week":
		day += 7 - (int(now.UTC().Weekday())+6)%7
	default:
		month, day = month+1, 1
	}
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
}

// hotKeys is how many keys GET /v1/hot lists.
const hotKeys = 20

// HotList is the answer of GET /v1/hot.
type HotList struct {
	What string      `json:"what"`
	Hot  []limit.Hot `json:"hot"`
}

func (s *Server) hot(w http.ResponseWriter, r *http.Request) *problem {
	what := r.URL.Query().Get("what")
	switch {
	case what == "cache":
		return notImplemented("There is no cache yet, so no object of it can be hot; what may be clients or routes.")
	case !slices.Contains([]string{"clients", "routes"}, what):
		return badRequest("what is clients or routes.")
	}
	list, err := s.Limits.Hot(what, hotKeys)
	if err != nil {
		return internal(sentence(err.Error()))
	}
	if list == nil {
		list = []limit.Hot{}
	}
	send(w, http.StatusOK, "application/json", HotList{what, list})
	return nil
}
