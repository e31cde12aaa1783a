package gateway

import (
	"github.com/sluice-gateway/sluice/internal/auth"
	"github.com/sluice-gateway/sluice/internal/policy"
)

// Builtins are the filters of the gateway. Phases decide the order in which
// they run; within a phase it is the order of this list.
func Builtins() []policy.Spec {
	return []policy.Spec{
		auth.IP,
	}
}
