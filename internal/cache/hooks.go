package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/store"
)

// Caches in front of the gateway are told what was purged, in the background.

const (
	maxNews    = 1024 // that wait
	hookTries  = 5
	hookFirst  = 200 * time.Millisecond // pause behind the first failure; doubled each time
	hookWithin = 5 * time.Second        // for each try
)

// news is a purge to tell: to the hooks, or to the other gateways.
type news struct {
	hook string
	body []byte
	tags []store.Purge
}

type hooks struct {
	e      *Engine
	queue  chan news
	client *http.Client

	mu      sync.Mutex
	pending map[string]int // tags that level 2 does not know to be purged yet
	some    atomic.Bool    // pending has any
}

func newHooks(e *Engine) *hooks {
	h := &hooks{e: e, queue: make(chan news, maxNews), pending: map[string]int{}, client: &http.Client{
		Timeout:       hookWithin,
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 1, IdleConnTimeout: 30 * time.Second},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	e.work.Go(h.run)
	return h
}

// tell has every hook told of p.
func (h *hooks) tell(p Purge) {
	urls := h.e.settings.Load().hooks
	if len(urls) == 0 {
		return
	}
	body, err := json.Marshal(p)
	if err != nil {
		return // strings and a bool have a JSON form
	}
	for _, u := range urls {
		h.add(news{hook: u, body: body})
	}
}

// purge has the other gateways told, without waiting. Until they are, nothing that has one
// of the tags is taken from level 2.
func (h *hooks) purge(tags []store.Purge) {
	h.hide(tags, 1)
	h.add(news{tags: tags})
}

func (h *hooks) hide(tags []store.Purge, by int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range tags {
		if h.pending[t.Name] += by; h.pending[t.Name] <= 0 {
			delete(h.pending, t.Name)
		}
	}
	h.some.Store(len(h.pending) > 0)
}

// hides reports whether one of the tags is being purged.
func (h *hooks) hides(tags []string) bool {
	if !h.some.Load() {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(tags, func(t string) bool { return h.pending[t] > 0 })
}

func (h *hooks) add(n news) {
	select {
	case h.queue <- n:
	default:
		h.failed(n, errors.New("too many purges wait to be told"))
		h.hide(n.tags, -1)
	}
}

func (h *hooks) run() {
	defer h.client.CloseIdleConnections()
	for {
		select {
		case n := <-h.queue:
			h.deliver(n)
			h.hide(n.tags, -1)
		case <-h.e.ctx.Done():
			return
		}
	}
}

// deliver tries until it works, a few times.
func (h *hooks) deliver(n news) {
	pause := hookFirst
	for try := 1; ; try++ {
		err := h.once(n)
		switch {
		case err == nil:
			return
		case try == hookTries:
			h.failed(n, err)
			return
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-h.e.ctx.Done():
			timer.Stop()
			h.failed(n, err)
			return
		}
		pause *= 2
	}
}

func (h *hooks) once(n news) error {
	ctx, cancel := context.WithTimeout(h.e.ctx, hookWithin)
	defer cancel()
	if n.tags != nil {
		return h.e.purges.Purge(ctx, n.tags)
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, n.hook, bytes.NewReader(n.body))
	if err != nil {
		return err
	}
	q.Header.Set("Content-Type", "application/json")
	r, err := h.client.Do(q)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode/100 != 2 {
		return fmt.Errorf("it answers %s", r.Status)
	}
	return nil
}

func (h *hooks) failed(n news, err error) {
	h.e.stats.hookFails.Add(1)
	h.e.log.Warn("a purge could not be told", "hook", n.hook, "error", err)
}
