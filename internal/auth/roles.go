package auth

import (
	"github.com/sluice-gateway/sluice/internal/config"
)

// permissionsOf is the permissions of each role, those it inherits included.
func permissionsOf(roles map[string]*config.Role) map[string][]string { return nil }
