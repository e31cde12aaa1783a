package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Caches in front of the gateway are told what was purged, in the background.

const (
	maxNews   = 1024 // that wait
	hookTries = 5
	// hookWorkers tell at one time, so that a hook that does not answer holds up few others.
	hookWorkers = 4
	hookFirst   = 200 * time.Millisecond // pause behind the first failure; doubled each time
	hookWithin  = 5 * time.Second        // for each try
)

// news is a purge to tell a hook.
type news struct {
	hook string
	body []byte
}

type hooks struct {
	e      *Engine
	queue  chan news
	client *http.Client
}

func newHooks(e *Engine) *hooks {
	h := &hooks{e: e, queue: make(chan news, maxNews), client: &http.Client{
		Timeout:       hookWithin,
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 1, IdleConnTimeout: 30 * time.Second},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	for range hookWorkers {
		e.work.Go(h.run)
	}
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

func (h *hooks) add(n news) {
	select {
	case h.queue <- n:
	default:
		h.failed(n, errors.New("too many purges wait to be told"))
	}
}

func (h *hooks) run() {
	defer h.client.CloseIdleConnections()
	for {
		select {
		case n := <-h.queue:
			h.deliver(n)
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
