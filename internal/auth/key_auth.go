package auth

import (
	"bytes"
	"errors"

	"github.com/sluice-gateway/sluice/internal/auth/apikey"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
)

// keyAuth finds a client by its API key. A key that was seen before costs a digest,
// the look-up in two tables and nothing else: who holds it is kept with the key.
type keyAuth struct {
	keyUser
	from     sources
	forwards bool
}

var _ authenticator = (*keyAuth)(nil)

func newKeyAuth(r *realm, name string, c *config.Authenticator) (authenticator, error) {
	from, err := parseSources(c.APIKey.From)
	if err != nil {
		return nil, policy.At("api_key.from", err)
	}
	return &keyAuth{keyUser: r.engine.directory.user(r, name, joins(c)), from: from, forwards: forwards(c)}, nil
}

// find returns the key. In an Authorization field it may stand alone or behind the
// scheme Bearer; one with another scheme is somebody else's.
func (k *keyAuth) find(x *exchange.Exchange) []byte {
	var value []byte
	authorization := false
	for i := range k.from {
		s := &k.from[i]
		if value = s.value(x); value != nil {
			authorization = s.kind == inHeader && s.id == exchange.Authorization
			break
		}
	}
	if !authorization || bytes.IndexByte(value, ' ') < 0 {
		return value
	}
	return bearer(value, authorization)
}

func (k *keyAuth) check(x *exchange.Exchange, key []byte, dry bool) (*exchange.Caller, error) {
	c, err := k.realm.verify(key, x.Start)
	if err != nil {
		if dry && k.realm.engine.offline && errors.Is(err, errUnknown) && apikey.IsOwn(key) {
			return nil, errDry // it may be one of those that were made through the admin API
		}
		return nil, err
	}
	who, err := k.caller(c)
	if err == nil && !dry {
		c.touch(x.Start.UnixNano())
	}
	return who, err
}

func (k *keyAuth) strip(x *exchange.Exchange) {
	if !k.forwards {
		k.from.strip(x)
	}
}

// scheme is not registered, as there is none for keys in fields of their own; gateways
// commonly use this one.
func (k *keyAuth) scheme() string { return "ApiKey" }
