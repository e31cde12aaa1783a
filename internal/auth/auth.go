// Package auth decides who is calling and whether they may.
//
// # Who
//
// A route lists the authenticators that may speak for it. The first alternative
// all of whose credentials are there decides, and nothing behind it rescues a
// request that it refuses (see authenticate). An authenticator turns a credential
// into an identity; the realm turns that into an exchange.Caller, with the plan, the
// roles and the permissions that the configuration gives it. All of it is done once
// for each credential and kept: a warm key or token costs a look-up.
//
// # Whether
//
// Behind that stand ip rules, the api's IAM policy and `authorize`: roles,
// permissions and a CEL condition.
//
// # What lives how long
//
// The Engine outlives configurations. It has the directory of clients and keys, the
// key sets of token issuers, and the count of failed attempts. A realm belongs to one
// configuration.
//
// Everything fails closed: what cannot be decided is refused, with 503 when the
// reason is a service that does not answer.
package auth

import (
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// authenticator is one entry of `authenticators`, at work. Its methods are called
// from any goroutine. One that is an io.Closer too is closed with its configuration.
type authenticator interface {
	// find returns the credential that the request has for it, nil when there is none. It
	// is cheap, and has no effect. The bytes hold as long as the exchange.
	find(x *exchange.Exchange) []byte
	// check says whose the credential is. The error is a refuse, an away or a forbid.
	// dry is for explain: nothing is called, charged or noted; where that leaves it open,
	// the error is errDry.
	check(x *exchange.Exchange, credential []byte, dry bool) (*exchange.Caller, error)
	// strip takes the credential off the request, when it is not to be forwarded, and
	// what clients may not send themselves. It is called for every authenticator of a
	// route, whether it has decided or not.
	strip(x *exchange.Exchange)
	// scheme is the challenge for WWW-Authenticate, such as `Bearer`.
	scheme() string
}

// identity is what a credential says about who calls, before the realm has looked up
// what that means here.
type identity struct {
	id          string
	plan        string // empty: the default
	roles       []string
	permissions []string
	attributes  map[string]string
	claims      map[string]any
	key         string // name of the key that was used, for records
}
