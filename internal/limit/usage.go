package limit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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

// Compare orders by client, plan and period.
func (u Usage) Compare(v Usage) int {
	return cmp.Or(cmp.Compare(u.Client, v.Client), cmp.Compare(u.Plan, v.Plan), cmp.Compare(u.Period, v.Period))
}

// How the store is asked: a few small parts at a time, so that no request waits long
// behind them.
const (
	usagePart  = 32                    // keys of one Take
	usageParts = 2                     // at a time
	usageWait  = time.Second           // for each part; the store's own budget is a request's, so it is asked again
	usagePause = 50 * time.Millisecond // before that, doubled each time: a short stall must not look like many failures
	usageMost  = 20 * time.Second      // for the keys of all quotas
)

var errUsageLate = fmt.Errorf("%w: there is more to ask for than it answers in %v", store.ErrUnavailable, usageMost)

// Usage returns the quota use of the running periods, sorted as Compare does. client
// is the id of a declared client, "" for all; period is day, week or month, "" for
// all. A quota that was not used in its period is not in it, nor is one of a plan
// that no route has any more.
//
// With a store, what gateways were granted counts as used, and all are the declared
// clients, whose ids declared has for each plan, and those that were here lately.
// It is asked for some seconds if need be, until ctx ends. The error wraps
// store.ErrUnavailable when it did not answer for all, or is that of ctx.
func (e *Engine) Usage(ctx context.Context, client, period string, declared map[string][]string) ([]Usage, error) {
	ctx, stop := context.WithTimeoutCause(ctx, usageMost, errUsageLate)
	defer stop()
	u := &usages{e: e, at: time.Now(), client: client, declared: declared, found: map[string]Usage{}}
	for _, c := range e.registry.all() {
		if !c.quota() || period != "" && c.period != period {
			continue
		}
		if err := u.counter(ctx, c); err != nil {
			return nil, err
		}
	}
	all := make([]Usage, 0, len(u.found))
	for _, one := range u.found {
		all = append(all, one)
	}
	slices.SortFunc(all, Usage.Compare)
	return all, nil
}

type usages struct {
	e        *Engine
	at       time.Time
	client   string
	declared map[string][]string
	found    map[string]Usage
}

func (u *usages) counter(ctx context.Context, c *counter) error {
	if c.place != here {
		return u.shared(ctx, c)
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

// shared asks the store about the client, or about all.
func (u *usages) shared(ctx context.Context, c *counter) error {
	keys := u.keys(c)
	charges := make([]store.Charge, len(keys))
	for i, key := range keys {
		charges[i] = store.Charge{Key: c.sharedKey([]byte(key), u.at.UnixNano()), Limit: &c.limit}
	}
	out := make([]meter.Verdict, len(charges))
	if err := u.e.look(ctx, charges, out); err != nil {
		return fmt.Errorf("asking for the use of %s: %w", c.name, err)
	}
	for i, key := range keys {
		u.add(c, key, c.limit.Capacity-out[i].Remaining, &c.limit)
	}
	return nil
}

// keys are those to ask the store about, each once.
func (u *usages) keys(c *counter) []string {
	if u.client != "" {
		return []string{clientKey(u.client)}
	}
	var keys []string
	for _, id := range u.declared[c.plan] {
		keys = append(keys, clientKey(id))
	}
	c.table.all(func(e *entry) bool {
		keys = append(keys, e.key)
		return true
	})
	slices.Sort(keys)
	return slices.Compact(keys)
}

// look has the store say how charges stand that cost nothing. It returns the first
// error of a part; the others are then given up.
func (e *Engine) look(ctx context.Context, charges []store.Charge, out []meter.Verdict) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var begun atomic.Int64
	var wg sync.WaitGroup
	for range min(usageParts, (len(charges)+usagePart-1)/usagePart) {
		wg.Go(func() {
			for ctx.Err() == nil {
				end := int(begun.Add(usagePart))
				part := end - usagePart
				if part >= len(charges) {
					return
				}
				end = min(end, len(charges))
				if err := e.lookAt(ctx, charges[part:end], out[part:end]); err != nil {
					fail(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// lookAt asks for one part until it is answered, as long as that can help.
func (e *Engine) lookAt(ctx context.Context, charges []store.Charge, out []meter.Verdict) error {
	late := time.Now().Add(usageWait)
	for pause := usagePause; ; pause *= 2 {
		err := e.shared.Take(ctx, charges, out)
		if err == nil || errors.Is(err, store.ErrKey) || time.Now().Add(pause).After(late) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
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
