package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"syscall"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// kind is what made a try fail, as far as retries care.
type kind uint8

const (
	other    kind = iota // the client's doing, or the gateway's: never retried
	connect              // no connection: nothing was sent
	reset                // the connection broke before the response's head was complete
	timeout              // the response's head was late
	badReply             // what came is not a response
	moved                // the endpoint has gone from the set: choose again
)

// fault is a try that failed.
type fault struct {
	err    *exchange.Error
	kind   kind
	silent bool // not a byte of a response had come
	spare  bool // this machine's doing: not held against the target
}

func (f *fault) unsent() bool { return f.kind == connect }

// The reasons that have no error from elsewhere.
var (
	errNoSlot     = errors.New("all connections are in use")
	errNoTarget   = errors.New("no target has an address")
	errShort      = errors.New("the request body ended before its declared length")
	errLong       = errors.New("the request body is longer than its declared length")
	errUnasked    = errors.New("101 for a request that asked for no upgrade")
	errTooManyOf1 = errors.New("too many informational responses")
	errClosed     = errors.New("upstream: read of a closed body")
)

func clientGone(cause error) *fault {
	return &fault{err: &exchange.Error{Code: exchange.ClientGone, Side: exchange.Client, Close: true, Cause: cause}}
}

// fromClient is a failure to read the client's body.
func fromClient(err error) *fault {
	e := exchange.AsError(err)
	return &fault{err: e}
}

// clientLate is the client's body still missing when the time for the response is over.
func clientLate() *fault {
	return &fault{err: &exchange.Error{
		Code: exchange.RequestTimeout, Side: exchange.Client, Close: true,
		Detail: "The request body did not arrive in time.",
	}}
}

func timedOut(cause error) *fault {
	return &fault{kind: timeout, silent: true, err: &exchange.Error{
		Code: exchange.UpstreamTimeout, Side: exchange.Upstream, Cause: cause, ProxyError: "http_response_timeout",
		Detail: "The upstream did not answer in time.",
	}}
}

// noSlot is a target whose connections stay in use for as long as one can wait.
func noSlot() *fault {
	return &fault{kind: connect, spare: true, err: &exchange.Error{
		Code: exchange.UpstreamUnavailable, Status: 503, Side: exchange.Upstream, Retry: true, Cause: errNoSlot,
		ProxyError: "connection_limit_reached", Detail: "The upstream is busy. Try again later.",
	}}
}

// noTarget is an upstream of which no target has an address.
func noTarget(cause error) *fault {
	return &fault{kind: connect, spare: true, err: &exchange.Error{
		Code: exchange.UpstreamUnavailable, Status: 502, Side: exchange.Upstream, Retry: true, Cause: errors.Join(errNoTarget, cause),
		ProxyError: dnsError(cause), Detail: "The upstream's name could not be resolved.",
	}}
}

func dnsError(cause error) string {
	if e, ok := errors.AsType[*net.DNSError](cause); ok && e.IsTimeout || errors.Is(cause, context.DeadlineExceeded) {
		return "dns_timeout"
	}
	return "dns_error"
}

// broken is a connection that ended before the response's head was complete. With
// part of it there, the response is to blame rather than the connection.
func broken(cause error, some bool) *fault {
	if some {
		return &fault{kind: reset, err: &exchange.Error{
			Code: exchange.BadUpstreamResponse, Side: exchange.Upstream, Cause: cause, ProxyError: "http_response_incomplete",
			Detail: "The upstream's response was cut short.",
		}}
	}
	return &fault{kind: reset, silent: true, err: &exchange.Error{
		Code: exchange.UpstreamUnavailable, Status: 502, Side: exchange.Upstream, Cause: cause, ProxyError: "connection_terminated",
		Detail: "The upstream closed the connection without an answer.",
	}}
}

// malformed is a response that breaks the protocol. proxyError may be empty.
func malformed(cause error, proxyError string) *fault {
	if proxyError == "" {
		proxyError = "http_protocol_error"
	}
	return &fault{kind: badReply, err: &exchange.Error{
		Code: exchange.BadUpstreamResponse, Side: exchange.Upstream, Cause: cause, ProxyError: proxyError,
		Detail: "The upstream's response is not valid.",
	}}
}

// unconnected is a connection that could not be made.
func unconnected(cause error) *fault {
	f := &fault{kind: connect, silent: true, err: &exchange.Error{
		Code: exchange.UpstreamUnavailable, Status: 502, Side: exchange.Upstream, Retry: true, Cause: cause,
		Detail: "The upstream could not be reached.",
	}}
	f.err.ProxyError, f.spare = connectError(cause)
	if f.spare {
		f.err.Status = 503
	}
	return f
}

// connectError names the reason (RFC 9209 §2.3) and says whether it is this
// machine's: no more descriptors or ports.
func connectError(err error) (token string, local bool) {
	switch {
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.EADDRNOTAVAIL):
		return "proxy_internal_error", true
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection_refused", false
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "destination_ip_unroutable", false
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return "connection_timeout", false
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return "connection_timeout", false
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "tls_certificate_error", false
	}
	if isCertificateError(err) {
		return "tls_certificate_error", false
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == tlsAlert {
		return "tls_alert_received", false
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "tls_protocol_error", false
	}
	return "connection_terminated", false
}

// tlsAlert is the Op of an alert that the other side sent, which crypto/tls has no
// exported type for.
const tlsAlert = "remote error"

func isCertificateError(err error) bool {
	_, host := errors.AsType[x509.HostnameError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, invalid := errors.AsType[x509.CertificateInvalidError](err)
	return host || unknown || invalid
}
