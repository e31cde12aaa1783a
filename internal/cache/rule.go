package cache

import (
	"crypto/sha256"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/cache/semantics"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
)

// rule is what the configuration says of one route's cache. It does not change.
type rule struct {
	e     *Engine
	print [printSize]byte // of what makes the route's content
	rules semantics.Rules
	query []string    // the parameters that count; nil: all
	named []keyHeader // the header fields that count
	// client says that every client has its own objects; stated, that the file says that
	// answers do not depend on the caller.
	client, stated bool
	cookie         bool // the key has the cookie
	shared         bool
	budget         time.Duration // of level 2 for one request
	maxObject      int64
	tags           []byte // the response's field; nil: none
	cdn            []byte // the field to send; nil: none
	again          func(*exchange.Exchange, func(*exchange.Exchange) bool)
	buffer         func(*exchange.Exchange) error
}

type keyHeader struct {
	id   exchange.HeaderID
	name []byte
}

const printSize = 8

// rule reads a route's cache block.
func (e *Engine) rule(r *config.Route, env *policy.Env) (*rule, error) {
	c := r.Cache
	n := &rule{
		e: e,
		rules: semantics.Rules{
			TTL: seconds(c.TTL), MaxTTL: seconds(c.MaxTTL),
			StaleWhileRevalidate: seconds(c.StaleWhileRevalidate), StaleIfError: seconds(c.StaleIfError),
			Heuristic: int64(math.Round(100 * c.Heuristic.Of)),
		},
		client: !r.Auth.Open(), maxObject: env.File.Cache.MaxObject.Bytes,
		shared: env.File.Cache.Shared && e.objects != nil,
		again:  env.Again, buffer: env.Buffer,
	}
	if c.Key.Client != nil {
		n.client = *c.Key.Client
		n.stated = c.Key.Stated && !n.client
	}
	if c.Key.Query != nil {
		n.query = sorted(*c.Key.Query)
	}
	for _, name := range sorted(c.Key.Headers) {
		h := keyHeader{id: exchange.Lookup([]byte(name)), name: []byte(name)}
		n.named = append(n.named, h)
		n.cookie = n.cookie || h.id == exchange.Cookie
	}
	if r := env.File.State.Redis; r != nil {
		n.budget = r.Timeout.Duration
	}
	if c.Tags != "" {
		n.tags = []byte(c.Tags)
	}
	if d := env.File.Cache.CDN; d != nil && d.Header != "" {
		n.cdn = []byte(d.Header)
	}
	return n, n.fingerprint(r, env)
}

// fingerprint tells apart routes that may answer the same URL with something else: a
// route that changes begins without objects.
func (n *rule) fingerprint(r *config.Route, env *policy.Env) error {
	text, err := json.Marshal(struct {
		API, Name, Path         string
		When, Request, Response any
		Key                     config.CacheKey
		Upstream                any
	}{env.Route.API, r.Name, env.Route.Pattern, r.When, r.Request, r.Response, r.Cache.Key, r.Upstream})
	if err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	copy(n.print[:], sum[:])
	return nil
}

// seconds is a duration of the configuration, which has whole ones.
func seconds(d config.Duration) int64 { return int64(d.Duration / time.Second) }

// sorted is a copy in order, without repetitions, and not nil.
func sorted(names []string) []string {
	all := append([]string{}, names...)
	slices.Sort(all)
	return slices.Compact(all)
}

func (s *settings) addQuery(query *[]string) {
	var names []string
	if query != nil {
		names = sorted(*query)
	}
	for _, have := range s.queries {
		if (have == nil) == (names == nil) && slices.Equal(have, names) {
			return
		}
	}
	s.queries = append(s.queries, names)
}

// mayBeUnsafe reports whether a route takes methods that change things.
func mayBeUnsafe(methods []string) bool {
	return len(methods) == 0 || slices.ContainsFunc(methods, semantics.Unsafe)
}

// describe says in words what tells the route's objects apart.
func (n *rule) describe() string {
	var b strings.Builder
	b.WriteString("the key is the method, the scheme, the host, the path")
	switch {
	case n.query == nil:
		b.WriteString(", all query parameters")
	case len(n.query) > 0:
		b.WriteString(", the query parameters " + strings.Join(n.query, " "))
	}
	for i := range n.named {
		b.WriteString(", the header " + string(n.named[i].name))
	}
	if n.client {
		b.WriteString(", and the client: no client gets what another one was answered")
	} else {
		b.WriteString("; all clients share the answers")
	}
	return b.String()
}
