package gateway

import (
	"slices"

	"github.com/sluice-gateway/sluice/internal/policy"
)

// Builtins are the filters of the gateway. Phases decide the order in which
// they run; within a phase it is the order of this list. auth are those of who may
// call (auth.Engine.Specs), limits those of the limiter (limit.Engine.Specs): both
// remember what outlives configurations.
func Builtins(auth, limits []policy.Spec) []policy.Spec {
	return slices.Concat(auth, limits)
}
