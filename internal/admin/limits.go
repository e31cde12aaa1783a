package admin

import (
	"cmp"
	"context"
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
	// period, or of all when that is empty. declared has the ids of the clients of each
	// plan. Its error is the store's, or that of ctx.
	Usage(ctx context.Context, client, period string, declared map[string][]string) ([]limit.Usage, error)
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
	everybody, err := s.everybody()
	if err != nil {
		return s.trouble(err)
	}
	var clients []config.Client
	for _, c := range everybody {
		if id == "" || c.ID == id {
			clients = append(clients, config.Client{ID: c.ID, Plan: c.Plan})
		}
	}
	if id != "" && clients == nil {
		return noClient(id)
	}
	list, err := s.Limits.Usage(r.Context(), id, period, byPlan(f, clients))
	if err != nil {
		s.Log.Warn("the use of quotas cannot be told", "cause", err)
		return unavailable()
	}
	list = withUnused(list, f, clients, period)
	if list == nil {
		list = []limit.Usage{}
	}
	send(w, http.StatusOK, "application/json", UsageList{list})
	return nil
}

// byPlan lists the ids of clients for each plan with a quota.
func byPlan(f *config.File, clients []config.Client) map[string][]string {
	ids := map[string][]string{}
	for i := range clients {
		name := cmp.Or(clients[i].Plan, f.DefaultPlan)
		if p := f.Plans[name]; p != nil && p.Quota != nil {
			ids[name] = append(ids[name], clients[i].ID)
		}
	}
	return ids
}

// withUnused adds the quotas of the clients' plans that the limiter has not seen them
// use. The list is sorted and stays so.
func withUnused(list []limit.Usage, f *config.File, clients []config.Client, period string) []limit.Usage {
	used := list
	for name, ids := range byPlan(f, clients) {
		q := f.Plans[name].Quota
		if period != "" && period != q.Period {
			continue
		}
		ends := endOf(q.Period, time.Now())
		for _, id := range ids {
			none := limit.Usage{Client: id, Plan: name, Period: q.Period, Limit: q.Limit, Remaining: q.Limit, ResetsAt: ends}
			if _, known := slices.BinarySearchFunc(used, none, limit.Usage.Compare); !known {
				list = append(list, none)
			}
		}
	}
	slices.SortFunc(list, limit.Usage.Compare)
	return list
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
		return s.hotObjects(w)
	case !slices.Contains([]string{"clients", "routes"}, what):
		return badRequest("what is clients, routes or cache.")
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
