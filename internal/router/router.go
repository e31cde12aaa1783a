// Package router finds the route of a request: host, path, listener, method,
// header and query conditions. It is pure: a Table is built once from plain
// data, never changes, and is read by any number of goroutines.
//
// # What matches, and what wins
//
// A route matches a request when all of its parts do. Of the routes that
// match, the most specific one wins; the order in which they were given never
// matters. Specificity is compared part by part, and the first difference
// decides:
//
//  1. host: exact, then wildcard, then any host;
//  2. path, segment by segment from the left: a literal, then a segment with
//     literal text around its parameter (the longer text in front wins, then
//     the longer text behind), then {name}, then {name...};
//  3. listener: restricted to some, then every listener;
//  4. method: listed, then (for HEAD) served by GET, then any method;
//  5. conditions: more of them, then fewer.
//
// Because matching comes first, a request falls through to a less specific
// route when a more specific one does not match as a whole: a host without the
// path falls back to its wildcard and then to the routes of any host, and
// POST /users/me is answered by POST /users/{id} when /users/me has only GET.
// A route of a more specific host does win over a better path of a less
// specific one, so a catch-all under a host hides the routes of any host there.
//
// Two routes that match a common request and are equally specific are a
// Conflict. One pair is exempt: routes that want different values of the same
// query parameter, which only a request that repeats the parameter can match
// both; it gets the one whose value sorts first.
//
// # 404 and 405
//
// When no route matches but some would under another method, Match.Allow lists
// those methods. Routes whose host, listener or conditions do not hold have no
// part in it, so every method in Allow would be routed.
package router

// Route is one set of requests. All strings are as the user wrote them; New
// checks and normalises them.
type Route struct {
	// ID is the caller's number for the route and comes back in Match and
	// Conflict. Entries with the same ID never conflict with each other, so one
	// route may be given under several patterns.
	ID int
	// Hosts are names without port: exact, or "*." and a name for exactly one
	// more label in front, as in a certificate. None: every host.
	Hosts []string
	// Listeners are the names of the listeners that serve it. None: all.
	Listeners []string
	// Pattern is the whole path, base path included: see Pattern syntax in
	// pattern.go.
	Pattern string
	// Methods are names in capitals. None: every one but TRACE and CONNECT, which
	// are never routed. GET serves HEAD too.
	Methods []string
	// Headers must be present with exactly this value; names in any case.
	Headers map[string]string
	// Query must have each name with this value, both decoded, among the
	// occurrences of the name.
	Query map[string]string
}

// Fields are the header fields of a request.
type Fields interface {
	// Get returns the first value of a name in any case, nil when there is none.
	Get(name []byte) []byte
}

// Request is what is routed. Match does not keep or change it.
type Request struct {
	Listener string
	Method   string
	Host     []byte // lower case, without port; one trailing dot is ignored; may be empty
	Path     []byte // canonical (see Canonicalize)
	Query    []byte // behind the '?', as received
	Header   Fields // nil: there are no fields
	// IgnoreHeaders takes every header condition as fulfilled: a CORS preflight
	// is routed by the method that it asks for, before its headers are known.
	IgnoreHeaders bool
}

// Param is one path parameter.
type Param struct {
	Name  string
	Value []byte // a span of Request.Path, percent-encoded; see Decode
}

// Params are the parameters of a match in the order of the pattern. The memory
// is the caller's and is used again: Match overwrites it from the start.
type Params []Param

// Get returns the value of a parameter, nil when there is none of that name.
func (p Params) Get(name string) []byte {
	for i := range p {
		if p[i].Name == name {
			return p[i].Value
		}
	}
	return nil
}

// Match is the outcome for one request.
type Match struct {
	ID    int // of the route; only when Found
	Found bool
	// Allow are the methods that would be routed, sorted, when there is no route
	// for this one: the request deserves 405. Empty with Found false: 404. It is
	// shared and must not be changed.
	Allow []string
}

// Conflict says what is wrong with one route (B is -1), or with two together.
type Conflict struct {
	A, B int // Route.ID, A being the one given first
	// Field is what is wrong in A when B is -1: path, hosts[0], listeners[0],
	// methods[0], headers.NAME or query.NAME.
	Field   string
	Reason  string // what is wrong and how to mend it
	Example string // a request that both match; empty when B is -1
}
