package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// Caches in front of the gateway are told what was purged, in the background.

const (
	maxNews    = 1024 // that wait, for each hook
	hookTries  = 5
	hookFirst  = 200 * time.Millisecond // pause behind the first failure; doubled each time
	hookWithin = 5 * time.Second        // for each try
)

// news is a purge to tell a hook.
type news struct {
	hook string
	body []byte
}

// hooks has a queue and a goroutine for each hook, so that one that does not answer holds
// up no other. The hooks that were ever configured are few; they stay until Close.
type hooks struct {
	e      *Engine
	client *http.Client
	mu     sync.Mutex
	queues map[string]chan news // by URL
}

func newHooks(e *Engine) *hooks {
	return &hooks{e: e, queues: map[string]chan news{}, client: &http.Client{
		Timeout:       hookWithin,
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 1, IdleConnTimeout: 30 * time.Second},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
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
		n := news{hook: u, body: body}
		select {
		case h.queue(u) <- n:
		default:
			h.failed(n, errors.New("too many purges wait to be told"))
		}
	}
}

// queue is the queue of a hook.
func (h *hooks) queue(url string) chan news {
	h.mu.Lock()
	defer h.mu.Unlock()
	q := h.queues[url]
	if q == nil {
		q = make(chan news, maxNews)
		h.queues[url] = q
		h.e.work.Go(func() { h.run(q) })
	}
	return q
}

func (h *hooks) run(q chan news) {
	defer h.client.CloseIdleConnections()
	for {
		select {
		case n := <-q:
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
