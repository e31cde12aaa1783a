package gateway

import (
	"slices"

	"github.com/sluice-gateway/sluice/internal/auth"
	"github.com/sluice-gateway/sluice/internal/policy"
)

// Builtins are the filters of the gateway. Phases decide the order in which
// they run; within a phase it is the order of this list. limits are those of the
// limiter, whose counters outlive configurations (limit.Engine.Specs).
func Builtins(limits []policy.Spec) []policy.Spec {
	return slices.Concat([]policy.Spec{
		auth.Clients,
		auth.IP,
	}, limits)
}
