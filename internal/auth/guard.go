package auth

import (
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// guard counts failed attempts.
type guard struct{}

// admit refuses who has failed too often, before any credential of x is looked at.
func (g *guard) admit(c *config.AuthFailures, x *exchange.Exchange) error { return nil }

// failed counts a failed attempt of x.
func (g *guard) failed(c *config.AuthFailures, x *exchange.Exchange) {}
