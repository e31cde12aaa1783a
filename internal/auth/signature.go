package auth

import (
	"errors"
	"github.com/sluice-gateway/sluice/internal/config"
)

func newSignatureAuth(r *realm, name string, c *config.Authenticator) (authenticator, error) {
	return nil, errors.New("is not supported yet")
}
