package exchange

import "errors"

// Code is the machine-readable name of a refusal or failure, the `code` of the
// problem document (RFC 9457).
type Code uint8

// The codes, with the status each has unless an Error says otherwise.
const (
	Internal              Code = iota // 500
	BadRequest                        // 400
	RouteNotFound                     // 404
	MethodNotAllowed                  // 405
	Unauthenticated                   // 401
	Forbidden                         // 403
	RateLimited                       // 429
	QuotaExceeded                     // 429
	ValidationFailed                  // 400
	PayloadTooLarge                   // 413
	HeadersTooLarge                   // 431
	UnsupportedMediaType              // 415
	RequestTimeout                    // 408
	WAFBlocked                        // 403
	Overloaded                        // 503
	UpstreamUnavailable               // 502, or 503 when none could be tried
	UpstreamTimeout                   // 504
	BadUpstreamResponse               // 502
	URITooLong                        // 414
	ExpectationFailed                 // 417
	NotImplemented                    // 501
	VersionNotSupported               // 505
	DependencyUnavailable             // 503
	IdempotencyConflict               // 409
	IdempotencyMismatch               // 422
	ClientGone                        // 499, in records only: nobody is there to read it
	codes
)

var codeTable = [codes]struct {
	name, title string
	status      int
}{
	Internal:              {"internal", "Internal error", 500},
	BadRequest:            {"bad_request", "Bad request", 400},
	RouteNotFound:         {"route_not_found", "Route not found", 404},
	MethodNotAllowed:      {"method_not_allowed", "Method not allowed", 405},
	Unauthenticated:       {"unauthenticated", "Unauthenticated", 401},
	Forbidden:             {"forbidden", "Forbidden", 403},
	RateLimited:           {"rate_limited", "Rate limited", 429},
	QuotaExceeded:         {"quota_exceeded", "Quota exceeded", 429},
	ValidationFailed:      {"validation_failed", "Validation failed", 400},
	PayloadTooLarge:       {"payload_too_large", "Payload too large", 413},
	HeadersTooLarge:       {"headers_too_large", "Request header fields too large", 431},
	UnsupportedMediaType:  {"unsupported_media_type", "Unsupported media type", 415},
	RequestTimeout:        {"request_timeout", "Request timeout", 408},
	WAFBlocked:            {"waf_blocked", "Blocked", 403},
	Overloaded:            {"overloaded", "Overloaded", 503},
	UpstreamUnavailable:   {"upstream_unavailable", "Upstream unavailable", 502},
	UpstreamTimeout:       {"upstream_timeout", "Upstream timeout", 504},
	BadUpstreamResponse:   {"bad_upstream_response", "Bad upstream response", 502},
	URITooLong:            {"uri_too_long", "URI too long", 414},
	ExpectationFailed:     {"expectation_failed", "Expectation failed", 417},
	NotImplemented:        {"not_implemented", "Not implemented", 501},
	VersionNotSupported:   {"version_not_supported", "HTTP version not supported", 505},
	DependencyUnavailable: {"dependency_unavailable", "Dependency unavailable", 503},
	IdempotencyConflict:   {"idempotency_conflict", "Idempotency conflict", 409},
	IdempotencyMismatch:   {"idempotency_mismatch", "Idempotency mismatch", 422},
	ClientGone:            {"client_gone", "Client gone", 499},
}

func (c Code) String() string { return codeTable[c].name }

// Title is the short human-readable summary, the same for every occurrence.
func (c Code) Title() string { return codeTable[c].title }

// Status is the usual HTTP status of c.
func (c Code) Status() int { return codeTable[c].status }

// ErrGuessing is the cause of a RateLimited for too many failed attempts to
// authenticate.
var ErrGuessing = errors.New("limits.auth_failures is used up")

// Side is who caused an error.
type Side uint8

// The sides.
const (
	Client Side = iota
	Upstream
	Gateway
)

func (s Side) String() string { return [...]string{"client", "upstream", "gateway"}[s] }

// FieldError is one finding of a validation.
type FieldError struct {
	In      string `json:"in"` // body, path, query, header
	Pointer string `json:"pointer"`
	Message string `json:"message"`
}

// Error is a refusal or failure, with all that its handling depends on: the
// reply, the log level, retries and breakers are functions of these fields.
type Error struct {
	Code   Code
	Status int    // 0: the code's own
	Detail string // for the client: what is wrong and what to do; never a secret
	Side   Side
	Retry  bool  // another attempt cannot do harm: nothing reached the upstream, or nothing was begun
	Close  bool  // the connection cannot go on behind the reply
	Cause  error // for the log only

	Header     []Field // fields of the reply, such as Allow, Retry-After, WWW-Authenticate
	Fields     []FieldError
	ProxyError string // error token for Proxy-Status (RFC 9209 §2.3), "" without one
}

// Error says it in one line for logs: the code, the detail and the cause.
func (e *Error) Error() string {
	s := e.Code.String()
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// HTTPStatus is the status of the reply.
func (e *Error) HTTPStatus() int {
	if e.Status != 0 {
		return e.Status
	}
	return e.Code.Status()
}

// AsError returns err as an *Error; one that is not is an Internal one with err
// as its cause.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: Internal, Side: Gateway, Cause: err}
}

// Done is returned by a filter that filled the response itself: no further
// request step runs and no target is asked.
//
//lint:ignore ST1012 it is a verdict in the shape of an error, as io.EOF is
var Done = errors.New("exchange: answered")
