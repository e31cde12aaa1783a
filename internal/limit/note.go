package limit

import (
	"fmt"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// Hot is one of the heaviest clients or routes of now. Its weight, in requests of
// the last seconds (see sketch), is at most Count and at least Count - Error.
type Hot struct {
	Key   string `json:"key"`
	Count int64  `json:"count"`
	Error int64  `json:"error"`
}

// hot watches who asks most, and for what.
type hot struct{ clients, routes *sketch }

func (h *hot) start() { h.clients, h.routes = newSketch(), newSketch() }

// Note counts an exchange that ended. It takes no lock that cores share and
// allocates nothing.
func (e *Engine) Note(x *exchange.Exchange) {
	now := e.clock.now(x.Start)
	shard := x.Conn.Shard
	if n := e.hot.clients.pick(shard, now); n > 0 {
		e.hot.clients.put(shard, clientOf(x.Scratch(keyRoom)[:0], x), n, now)
	}
	if x.Route == nil {
		return
	}
	if n := e.hot.routes.pick(shard, now); n > 0 {
		room := len(x.Route.API) + len(x.Route.Name) + 1
		key := x.Scratch(room)[:0]
		if x.Route.API != "" {
			key = append(append(key, x.Route.API...), '/')
		}
		e.hot.routes.put(shard, append(key, x.Route.Name...), n, now)
	}
}

// Hot returns the n heaviest clients (ids, or addresses of anonymous ones) or
// routes (api and name), the heaviest first. what is clients or routes.
func (e *Engine) Hot(what string, n int) ([]Hot, error) {
	var s *sketch
	switch what {
	case "clients":
		s = e.hot.clients
	case "routes":
		s = e.hot.routes
	default:
		return nil, fmt.Errorf("there are no heaviest %q, ask for clients or routes", what)
	}
	top := s.top(n, e.clock.now(time.Now()))
	all := make([]Hot, len(top))
	for i, k := range top {
		all[i] = Hot(k)
		if what != "clients" {
			continue
		}
		if id, ok := clientNamed(k.Key); ok {
			all[i].Key = id
		} else {
			all[i].Key = strings.TrimPrefix(k.Key, "a:")
		}
	}
	return all, nil
}
