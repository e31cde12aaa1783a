package audit

import (
	"errors"
	"strconv"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// Kinds of refusals.
const (
	Refused   = "auth.refused"   // who calls is not known, or not believed
	Forbidden = "auth.forbidden" // who calls may not
)

// tokensRoute is the name of the routes where the gateway issues tokens. What they
// refuse is an answer like any other.
const tokensRoute = "sluice.tokens"

// Note is told of every exchange that ends, and queues a line for one that was refused
// because of who calls. It never waits.
func (l *Log) Note(x *exchange.Exchange) {
	if l == nil || !l.on.Load() {
		return
	}
	kind, reason := refusal(x)
	if kind == "" || !l.admit() {
		return
	}
	e := Event{
		Kind: kind, Address: x.Client, Request: string(x.ID), Target: target(x), Status: x.Response.Status, Reason: reason,
	}
	if x.Route != nil {
		e.API, e.Route = x.Route.API, x.Route.Name
	}
	if c := x.Caller; c != nil {
		e.Actor, e.Key = c.ID, c.Key
		if c.Authenticator != "" {
			e.Actor = c.Authenticator + ":" + c.ID
		}
	}
	_ = l.put(newEntry(e, l.now())) // what is lost is counted
}

// refusal says what kind of refusal x is, and why; empty: none.
func refusal(x *exchange.Exchange) (kind, reason string) {
	if x.Err == nil {
		if x.Route != nil && x.Route.Name == tokensRoute && (x.Response.Status == 400 || x.Response.Status == 401) {
			return Refused, "no token was issued: " + strconv.Itoa(x.Response.Status)
		}
		return "", ""
	}
	switch x.Err.Code {
	case exchange.Unauthenticated:
		kind = Refused
	case exchange.RateLimited:
		if !errors.Is(x.Err.Cause, exchange.ErrGuessing) {
			return "", ""
		}
		kind = Refused
	case exchange.Forbidden:
		kind = Forbidden
	default:
		return "", ""
	}
	if x.Err.Cause != nil {
		return kind, x.Err.Cause.Error()
	}
	return kind, x.Err.Detail
}

// target is the method and the path. The query is left out: credentials may be in it.
func target(x *exchange.Exchange) string {
	path := x.Request.Path
	if path == nil {
		path = x.Request.RawPath
	}
	return x.Request.Method + " " + string(path[:min(len(path), maxText)])
}

// Specs are the filters of the log: with on_fault closed, one that refuses every request
// while the log cannot be written. It stands before whatever it would have to write
// about.
func (l *Log) Specs() []policy.Spec {
	if l == nil {
		return nil
	}
	return []policy.Spec{{Name: "audit", Phase: policy.Authenticate, New: func(_ *config.Route, env *policy.Env) (policy.Filter, error) {
		if env.File == nil || env.File.Audit == nil || env.File.Audit.OnFault != "closed" {
			return nil, nil
		}
		return gate{l}, nil
	}}}
}

// gate refuses requests while the log cannot be written.
type gate struct{ l *Log }

var _ policy.Filter = gate{}

// Request refuses with dependency_unavailable while the log cannot be written.
func (g gate) Request(*exchange.Exchange) error {
	if g.l.Healthy() {
		return nil
	}
	return unwritable
}

// Explain says whether it can be.
func (g gate) Explain(*exchange.Exchange) policy.Opinion {
	if g.l.Healthy() {
		return policy.Opinion{Reason: "the audit log can be written"}
	}
	return policy.Opinion{Verdict: telemetry.Refused, Reason: unwritable.Cause.Error(), Refusal: unwritable}
}

// unwritable is shared and never changed.
var unwritable = &exchange.Error{
	Code: exchange.DependencyUnavailable, Side: exchange.Gateway,
	Detail: "The gateway cannot record requests now. Try again later.",
	Cause:  errors.New("the audit log cannot be written, and audit.on_fault is closed"),
}
