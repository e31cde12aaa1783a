// Package iam reads and evaluates policy documents of AWS Identity and Access
// Management, as far as a gateway can decide by them.
//
// A request is compared with every statement. One that denies it decides whatever
// others say; else one that allows it does; what no statement allows is refused.
//
// What is not understood is an error of Parse, never a condition that happens to be
// false: an unknown member, operator or condition key, a value that the operator
// cannot be compared with. What is in keys.go are all the keys, what is in
// operators.go all the operators.
package iam

import (
	"net/netip"
	"time"
)

// Decision is what a policy says about a request.
type Decision uint8

// The decisions.
const (
	NotAllowed Decision = iota // no statement allows it, so it is refused
	Allowed                    // a statement allows it, and none denies it
	Denied                     // a statement denies it
)

func (d Decision) String() string {
	return [...]string{NotAllowed: "not allowed", Allowed: "allowed", Denied: "denied"}[d]
}

// Invoke is the action of calling an API.
const Invoke = "execute-api:Invoke"

// Request is what a policy decides about. It is only read, and nothing of it is
// kept.
type Request struct {
	Action string // Invoke
	// Resource is arn:aws:execute-api:REGION:ACCOUNT:API/STAGE/METHOD/PATH. The short
	// form execute-api:/STAGE/METHOD/PATH is that of an API for which nothing else is
	// known: it is within every region, account and API.
	Resource  []byte
	Caller    Caller
	Source    netip.Addr // invalid: not known
	Now       time.Time
	Secure    bool   // it came over TLS
	UserAgent []byte // nil: there is none
	Referer   []byte // nil: there is none
}

// Caller is who asks. The zero value is nobody known.
type Caller struct {
	ID            string
	Authenticator string // what vouched for it; empty: the configuration
	Plan          string
	Roles         []string
	Permissions   []string
	Attributes    map[string]string
	Claims        Claims // nil: none
}

// Claims are what a token says.
type Claims interface {
	// Claim returns a claim by its name or a path of names with dots between them, as
	// JSON has it; nil when there is none.
	Claim(path string) any
}
