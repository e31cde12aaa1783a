package auth

import (
	"errors"
	"github.com/sluice-gateway/sluice/internal/config"
)

func newIntrospectionAuth(r *realm, name string, c *config.Authenticator) (authenticator, error) {
	return nil, errors.New("is not supported yet")
}

func newHTTPAuth(r *realm, name string, c *config.Authenticator) (authenticator, error) {
	return nil, errors.New("is not supported yet")
}

func newLambdaAuth(r *realm, name string, c *config.Authenticator) (authenticator, error) {
	return nil, errors.New("is not supported yet")
}
