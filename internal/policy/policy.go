// Package policy is the contract between the gateway and what it does to an
// exchange: filters in fixed phases, compiled for each route into a chain, and
// the runner that gives every filter its shadow mode and its counts.
package policy

import (
	"errors"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/telemetry"
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

var phaseNames = [Phases]string{
	"cors", "waf", "authenticate", "access", "limit", "validate", "idempotency", "cache lookup",
	"transform request", "validate response", "transform response", "cache store", "compress",
}

func (p Phase) String() string { return phaseNames[p] }

// Filter decides about a request. It never writes to the client.
type Filter interface {
	// Request returns nil to go on, exchange.Done when it filled x.Response, or
	// an *exchange.Error to refuse.
	Request(x *exchange.Exchange) error
	// Explain says what Request would decide, and why in words for an operator.
	// It charges nothing, calls nobody and leaves x as it is, but for the facts that
	// filters behind it decide by: who calls.
	Explain(x *exchange.Exchange) Opinion
}

// Opinion is what a filter would decide about a request.
type Opinion struct {
	Verdict telemetry.Verdict
	Reason  string          // in words, for an operator: the very rule
	Refusal *exchange.Error // what the client would get, nil when it would not be refused
	// Unknown says that the filter cannot tell, because it would have to ask somebody.
	// What filters behind it decide may hang on that.
	Unknown bool
}

// Moded is a filter whose configuration has a mode. In shadow mode its refusals
// are counted and logged, and the request goes on.
type Moded interface{ Shadow() bool }

// Responder is a filter that also sees the response.
type Responder interface {
	Response(x *exchange.Exchange) error
}

// Closer is a filter that holds something until its snapshot retires.
type Closer interface{ Close() error }

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
	// New makes the filter of a route, or nil when the route does not have one. Its
	// error may be, or join, errors of At, which say where the cause stands.
	New func(r *config.Route, env *Env) (Filter, error)
}

// A Fault is an error of making a filter that knows which place of the
// configuration has to be mended.
type Fault struct {
	At   string // rate_limits.per-client.cost, or Env.At and the key below it
	Code string // of the diagnostic; empty: config.policy
	Err  error  // what is wrong there, and what to write instead
}

// At returns err as a Fault at a path of the configuration.
func At(path string, err error) error { return &Fault{At: path, Err: err} }

// Error says what is wrong, without the place.
func (f *Fault) Error() string { return f.Err.Error() }

// Unwrap returns what is wrong.
func (f *Fault) Unwrap() error { return f.Err }

// Faults are the errors that an error of Compile is made of. What has no place of
// its own is at the route, whose place is at.
func Faults(err error, at string) []*Fault {
	switch e := err.(type) {
	case *Fault:
		many, ok := e.Err.(interface{ Unwrap() []error })
		if !ok {
			return []*Fault{e}
		}
		var all []*Fault
		for _, one := range many.Unwrap() {
			all = append(all, &Fault{At: e.At, Code: e.Code, Err: one})
		}
		return all
	case interface{ Unwrap() []error }:
		var all []*Fault
		for _, one := range e.Unwrap() {
			all = append(all, Faults(one, at)...)
		}
		return all
	}
	if inner := errors.Unwrap(err); inner != nil {
		if f := Faults(inner, at); len(f) > 1 || f[0].Err != inner {
			return f
		}
	}
	return []*Fault{{At: at, Err: err}}
}

// Env is what the filters of one route are made with.
type Env struct {
	Log   *slog.Logger
	File  *config.File   // the whole configuration
	Route exchange.Route // the route's names
	At    string         // where the configuration has it: apis[0].routes[3]
	// Common is one for all routes of a configuration; see Common. Nil: none is shared.
	Common *sync.Map
	// Again asks the route's target once more for what x asks, in a goroutine of its own
	// and for nobody: with a copy of x as it is now, y, it calls before, and unless that
	// returns false runs the filters behind CacheLookup, the target, and the response halves
	// of those filters; the body is read to its end. It returns at once; the snapshot stays
	// until it is over. Only Request and Response may call it. Nil: it cannot be done.
	Again func(x *exchange.Exchange, before func(y *exchange.Exchange) bool)
	// Buffer reads the request's body to its end and puts it back as an exchange.Bytes, in
	// the memory that limits.buffer_memory bounds. Its error is an *exchange.Error. Nil: it
	// cannot be done.
	Buffer func(x *exchange.Exchange) error
}

// Common returns what all routes of one configuration have in common, made by the
// first that asks. T names it.
func Common[T any](e *Env, build func() T) T {
	if e.Common == nil {
		return build()
	}
	key := reflect.TypeFor[T]()
	if v, ok := e.Common.Load(key); ok {
		return v.(T)
	}
	v, _ := e.Common.LoadOrStore(key, build())
	return v.(T)
}
