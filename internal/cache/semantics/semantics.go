// Package semantics says what HTTP's documents say about caching one response
// to one request: whether it may be stored, how long it is fresh, which later
// requests it may answer, and with which status. It holds no state and reads no
// clock: whoever calls passes the time.
//
// # Where what is
//
//   - directive.go: the list of directives in Cache-Control (RFC 9111 §5.2)
//   - ask.go: what a request's directives and Pragma ask for (§5.2.1, §5.4)
//   - judge.go: whether a response is stored (§3), with status.go for its
//     status and methods; fresh.go: for how long, and its age (§4.2, RFC 5861)
//   - said.go: a response's directives in one form, from Cache-Control or from
//     the targeted field (RFC 9213, read by fields.go as RFC 9651 has it)
//   - vary.go, negotiate.go: Vary and the variant of a request (§4.1)
//   - conditions.go, ranges.go: preconditions and Range (RFC 9110 §13, §14)
//   - update.go: which fields are stored (§3.1), and a 304 over them (§3.2)
//   - names.go: surrogate tags and cache groups (RFC 9875)
//   - query.go: the canonical query of a cache key
//   - date.go: HTTP-date (RFC 9110 §5.6.7)
//
// # Doubt
//
// What cannot be read means the least permission: a directive that forbids is
// obeyed with a wrong argument or behind rubbish, one that permits is not; a
// number that is none is a lifetime of nothing (RFC 9111 §4.2.1).
package semantics

import (
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

const (
	// Absent is a number of seconds that was not given.
	Absent = -1
	// Forever is the greatest number of seconds; greater ones count as it (RFC
	// 9111 §1.2.2).
	Forever = 1 << 31
)

// Rules are what the configuration of a route says.
type Rules struct {
	TTL                  int64 // lifetime in seconds of a response that says nothing about it, 0: none
	MaxTTL               int64 // seconds, caps every lifetime; 0: no cap
	StaleWhileRevalidate int64 // seconds, for a response that says nothing about it
	StaleIfError         int64 // seconds, likewise
	Heuristic            int64 // percent of the time since Last-Modified (RFC 9111 §4.2.2), 0: off
}

// Answer is a response and what of its request matters.
type Answer struct {
	Method        string // as received
	Ask           Ask
	Authorization bool // the request had Authorization
	// Cookie: the request had a Cookie that neither the key nor the
	// configuration accounts for. It counts like Authorization, though RFC 9111
	// does not ask for that.
	Cookie    bool
	Status    int
	Header    *exchange.Header
	Requested time.Time // when the request was sent
	Received  time.Time // when the response's head came
}

// Verdict is what becomes of a response.
type Verdict struct {
	Store    bool
	Why      string // a few words, when Store is false
	Born     int64  // Unix ns: Received less the corrected initial age (RFC 9111 §4.2.3)
	Lifetime int64  // seconds from Born
	Explicit bool   // the response itself said how long it is fresh

	NoCache        bool // each use is validated first (§5.2.2.4)
	MustRevalidate bool // never used stale on a client's wish or without a connection (§5.2.2.2, .8, .10)
	// Open: it may answer requests that have Authorization (§3.5) or a Cookie as
	// in Answer.
	Open bool

	// Seconds behind Lifetime (RFC 5861); -1 when it is never used stale.
	StaleWhileRevalidate int64
	StaleIfError         int64

	Drop []string // lower case: fields that private="…" and no-cache="…" name, not to be stored
}
