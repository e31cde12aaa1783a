package limit

import (
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/limit/meter"
)

// refusal is an Error with its parts, so that a refusal is two allocations: a
// flood of them must be cheap.
type refusal struct {
	exchange.Error
	field  [1]exchange.Field
	digits [20]byte
}

// refusal is what the client is told: a quota that is used up rather than a rate
// limit, and of several the one that takes longest; Retry-After is the longest of
// all, or absent when waiting does not help.
func (d *decision) refusal() error {
	var worst *ruling
	var retry time.Duration
	for i := range d.rulings {
		g := &d.rulings[i]
		if !g.refuses {
			continue
		}
		if g.closed {
			return unavailable
		}
		if retry != meter.Never {
			retry = later(retry, g.v.Retry)
		}
		if worst == nil || g.r.quota() && !worst.r.quota() ||
			g.r.quota() == worst.r.quota() && later(worst.v.Retry, g.v.Retry) != worst.v.Retry {
			worst = g
		}
	}
	return refuse(worst.r, retry)
}

// later is the longer of two waits, of which Never is the longest.
func later(a, b time.Duration) time.Duration {
	if a == meter.Never || b == meter.Never {
		return meter.Never
	}
	return max(a, b)
}

// refuse makes the error of a rule that refuses.
func refuse(r *rule, retry time.Duration) *exchange.Error {
	e := &refusal{Error: exchange.Error{Code: exchange.RateLimited, Side: exchange.Client}}
	if r.quota() {
		e.Code = exchange.QuotaExceeded
	}
	if retry == meter.Never {
		e.Detail = r.said + neverText
		return &e.Error
	}
	wait := max(seconds(retry), 1)
	digits := strconv.AppendInt(e.digits[:0], wait, 10)
	e.field[0] = exchange.Field{Name: retryAfter, Value: digits, ID: exchange.RetryAfter}
	e.Header = e.field[:]
	var room [192]byte
	b := append(append(room[:0], r.said...), againText...)
	b = append(append(b, digits...), " s."...)
	e.Detail = string(b)
	return &e.Error
}

const (
	againText = " is used up. Try again in "
	neverText = " cannot hold what this request costs."
)

// unavailable is the refusal of on_fault: closed.
var unavailable = &exchange.Error{
	Code: exchange.DependencyUnavailable, Side: exchange.Gateway,
	Detail: "The rate limit of this resource cannot be checked now. Try again later.",
}

// noPlan refuses a caller whose plan does not exist, or does not have the api.
var (
	noPlan = &exchange.Error{Code: exchange.Forbidden, Side: exchange.Client, Detail: "The plan of this client is not known here."}
	noAPI  = &exchange.Error{Code: exchange.Forbidden, Side: exchange.Client, Detail: "The plan of this client does not have this api."}
)
