package limit

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/limit/meter"
	"github.com/sluice-gateway/sluice/internal/store"
)

// Usage is the use of one quota in the running period.
type Usage struct {
	Client    string    `json:"client"`
	Plan      string    `json:"plan"`
	Period    string    `json:"period"`
	Limit     int64     `json:"limit"` // requests
	Used      int64     `json:"used"`
	Remaining int64     `json:"remaining"`
	ResetsAt  time.Time `json:"resets_at"`
}

// Usage returns the quota use of the running periods, sorted by client, plan and
// period. client is the id of a declared client, "" for all that are known here;
// period is day, week or month, "" for all. A quota that was not used in its period
// is not in it, nor is one of a plan that no route has any more. With a store, what
// gateways were granted counts as used, and the error wraps store.ErrUnavailable
// when it cannot be asked.
func (e *Engine) Usage(client, period string) ([]Usage, error) {
	u := &usages{e: e, at: time.Now(), client: client, found: map[string]Usage{}}
	for _, c := range e.registry.all() {
		if !c.quota() || period != "" && c.period != period {
			continue
		}
		if err := u.counter(c); err != nil {
			return nil, err
		}
	}
	all := make([]Usage, 0, len(u.found))
	for _, one := range u.found {
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Usage) int {
		return cmp.Or(cmp.Compare(a.Client, b.Client), cmp.Compare(a.Plan, b.Plan), cmp.Compare(a.Period, b.Period))
	})
	return all, nil
}

type usages struct {
	e      *Engine
	at     time.Time
	client string
	found  map[string]Usage
}

func (u *usages) counter(c *counter) error {
	if c.place != here {
		return u.shared(c)
	}
	wall := u.at.UnixNano()
	limit := c.admits()
	c.table.all(func(e *entry) bool {
		if x := e.extra.Load(); x != nil && x.loaded.Load() {
			u.add(c, e.key, limit.Used(&e.cell, wall), limit)
		}
		return true
	})
	file := u.e.file.Load()
	if file == nil {
		return nil
	}
	if u.client != "" {
		key := clientKey(u.client)
		q, ok, err := file.Quota(quotaKey(key, c.name))
		if err == nil && ok {
			u.saved(c, key, q)
		}
		return err
	}
	return file.Quotas(func(q store.Quota) bool {
		if i := strings.LastIndexByte(q.Key, ':'); i > 0 && q.Key == quotaKey(q.Key[:i], c.name) {
			u.saved(c, q.Key[:i], q)
		}
		return true
	})
}

// saved adds what the file has of a key, unless the table has it newer.
func (u *usages) saved(c *counter, key string, q store.Quota) {
	if _, ok := u.found[key+" "+c.name]; ok {
		return
	}
	var cell meter.Cell
	limit := c.admits()
	limit.Load(&cell, q.Index, q.Count)
	u.add(c, key, limit.Used(&cell, u.at.UnixNano()), limit)
}

// shared asks the store about the client, or about those that were here lately.
func (u *usages) shared(c *counter) error {
	keys := []string{clientKey(u.client)}
	if u.client == "" {
		keys = keys[:0]
		c.table.all(func(e *entry) bool {
			keys = append(keys, e.key)
			return true
		})
	}
	wall := u.at.UnixNano()
	for _, key := range keys {
		charge := []store.Charge{{Key: c.sharedKey([]byte(key), wall), Limit: &c.limit}}
		out := make([]meter.Verdict, 1)
		if err := u.e.shared.Take(background, charge, out); err != nil {
			return fmt.Errorf("asking for the use of %s: %w", c.name, err)
		}
		u.add(c, key, c.limit.Capacity-out[0].Remaining, &c.limit)
	}
	return nil
}

// add notes the use of one key.
func (u *usages) add(c *counter, key string, used int64, limit *meter.Limit) {
	client, ok := clientNamed(key)
	if !ok || used <= 0 || u.client != "" && key != clientKey(u.client) {
		return
	}
	u.found[key+" "+c.name] = Usage{
		Client: client, Plan: c.plan, Period: c.measure.period,
		Limit: limit.Capacity, Used: used, Remaining: max(limit.Capacity-used, 0),
		ResetsAt: u.at.Add(limit.Ends(u.at.UnixNano())).UTC().Round(time.Second),
	}
}

// clientKey is the key of a declared client.
func clientKey(id string) string {
	return string(appendEscaped([]byte("c:/"), id))
}

// clientNamed is the client that a key names: its id, behind the authenticator's name
// and a slash when it is not a declared one. What is no client is not ok.
func clientNamed(key string) (client string, ok bool) {
	rest, ok := strings.CutPrefix(key, "c:")
	if !ok {
		return "", false
	}
	by, id, ok := strings.Cut(rest, "/")
	if !ok {
		return "", false
	}
	by, errBy := url.PathUnescape(by)
	id, errID := url.PathUnescape(id)
	if by != "" {
		id = by + "/" + id
	}
	return id, errBy == nil && errID == nil
}

// admits is the limit of a quota as it is now.
func (c *counter) admits() *meter.Limit {
	if l := c.newest.Load(); l != nil {
		return l
	}
	return &c.limit
}
