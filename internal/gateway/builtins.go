package gateway

import (
	"slices"

	"github.com/sluice-gateway/sluice/internal/policy"
)

// Builtins are the filters of the gateway. Phases decide the order in which
// they run; within a phase it is the order of this list. They come from the engines
// that remember what outlives configurations, in this order: who may call
// (auth.Engine.Specs), how often (limit.Engine.Specs), what is answered from memory
// (cache.Engine.Specs).
func Builtins(engines ...[]policy.Spec) []policy.Spec { return slices.Concat(engines...) }
