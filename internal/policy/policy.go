// Package policy is the contract between the gateway and what it does to an
// exchange: filters in fixed phases, compiled for each route into a chain, and
// the runner that gives every filter its shadow mode and its counts.
package policy

import (
	"log/slog"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// Phase is where in the life of a request a filter stands. The order of the
// constants is the order of execution (contract: phases).
type Phase uint8

// The phases of filters. What stands before CORS is the gateway's own.
const (
	CORS Phase = iota
	WAF
	Authenticate
	Access // ip rules, resource policy, authorize
	Limit  // rate limits, plan, quota
	Validate
	Idempotency
	CacheLookup
	TransformRequest
	ValidateResponse
	TransformResponse
	CacheStore
	Compress
	Phases
)

// Filter decides about a request. It never writes to the client.
type Filter interface {
	// Request returns nil to go on, exchange.Done when it filled x.Response, or
	// an *exchange.Error to refuse.
	Request(x *exchange.Exchange) error
}

// Responder is a filter that also sees the response.
type Responder interface {
	Response(x *exchange.Exchange) error
}

// Closer is a filter that holds something until its snapshot retires.
type Closer interface{ Close() error }

// Explainer is a filter that can say what it would decide, and why, without
// charging or calling anybody.
type Explainer interface {
	Explain(x *exchange.Exchange) (verdict, why string)
}

// BodyNeed is what a filter needs of a body.
type BodyNeed uint8

// The needs; a route takes the greatest of its filters.
const (
	NoBody BodyNeed = iota
	StreamBody
	WholeBody
)

// Spec is the definition of a filter: everything that is known of it before a
// route has one.
type Spec struct {
	Name  string // the route key that configures it
	Phase Phase
	Body  BodyNeed
	// Waits is how long Request may wait for others; 0: it never waits.
	Waits time.Duration
	// New makes the filter of a route, or nil when the route does not have one.
	New func(r *config.Route, env *Env) (Filter, error)
}

// Env is what filters are made with.
type Env struct {
	Log *slog.Logger
}
