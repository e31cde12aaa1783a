// Package auth decides who is calling and whether they may.
package auth

import (
	"fmt"
	"net/netip"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// IP is the spec of the `ip` route key: addresses that may and may not use a
// route. Deny wins; with an allow list, everybody else is refused.
var IP = policy.Spec{Name: "ip", Phase: policy.Access, New: newIP}

type ipRules struct {
	allow, deny []netip.Prefix
	shadow      bool
}

var (
	_ policy.Filter = (*ipRules)(nil)
	_ policy.Moded  = (*ipRules)(nil)
)

func newIP(r *config.Route, _ *policy.Env) (policy.Filter, error) {
	if r.IP == nil {
		return nil, nil
	}
	return &ipRules{allow: r.IP.Allow, deny: r.IP.Deny, shadow: r.IP.Mode == "shadow"}, nil
}

// Shadow reports whether refusals are only recorded.
func (f *ipRules) Shadow() bool { return f.shadow }

// Request refuses with forbidden; the client is not told which rule it was.
func (f *ipRules) Request(x *exchange.Exchange) error {
	if by, in := find(f.deny, x.Client); in {
		return forbidden(fmt.Errorf("%v is in ip.deny %v", x.Client, by))
	}
	if len(f.allow) > 0 {
		if _, in := find(f.allow, x.Client); !in {
			return forbidden(fmt.Errorf("%v is in no range of ip.allow", x.Client))
		}
	}
	return nil
}

// Explain names the very rule.
func (f *ipRules) Explain(x *exchange.Exchange) policy.Opinion {
	if err := f.Request(x); err != nil {
		refusal := exchange.AsError(err)
		return policy.Opinion{Verdict: telemetry.Refused, Reason: refusal.Cause.Error(), Refusal: refusal}
	}
	if by, in := find(f.allow, x.Client); in {
		return policy.Opinion{Reason: fmt.Sprintf("%v is in ip.allow %v", x.Client, by)}
	}
	return policy.Opinion{Reason: fmt.Sprintf("%v is in no range of ip.deny", x.Client)}
}

func find(in []netip.Prefix, a netip.Addr) (netip.Prefix, bool) {
	for _, p := range in {
		if p.Contains(a) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

func forbidden(why error) *exchange.Error {
	return &exchange.Error{
		Code: exchange.Forbidden, Side: exchange.Client, Cause: why,
		Detail: "This address may not use this resource.",
	}
}
