package auth

import (
	"errors"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// errDry says that explain cannot tell, because somebody would have to be asked.
var errDry = errors.New("auth: explain asks nobody")

// refuse is the answer to a credential that is not accepted. why is for the log
// alone: the client gets the same body whatever is wrong. The route adds its
// challenges.
func refuse(why error) *exchange.Error {
	return &exchange.Error{
		Code: exchange.Unauthenticated, Side: exchange.Client, Cause: why,
		Detail: "This resource needs valid credentials.",
	}
}

// away is the answer while a service that must be asked does not answer.
func away(why error) *exchange.Error {
	return &exchange.Error{
		Code: exchange.DependencyUnavailable, Side: exchange.Gateway, Cause: why,
		Detail: "The credentials cannot be verified now. Try again later.",
	}
}

// forbid is the answer to somebody who is known and may not. why is for the log.
func forbid(why error) *exchange.Error {
	return &exchange.Error{
		Code: exchange.Forbidden, Side: exchange.Client, Cause: why,
		Detail: "You may not use this resource.",
	}
}
