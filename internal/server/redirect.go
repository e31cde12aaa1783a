package server

import (
	"net/http"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// A listener with `redirect: https` serves no routes: every request is answered
// with 308 to the same URL over HTTPS, method and body included (RFC 9110
// §15.4.9). Such an answer is the driver's own, and no exchange of the gateway;
// what is no valid request still goes to the Handler, for its problem document.

// redirect makes the response of a redirecting listener. It reports false when
// the request cannot be redirected: then x.Err is set, or the Handler refuses it.
// port is ":8443", or empty for the usual one.
func redirect(x *exchange.Exchange, port string) bool {
	q := &x.Request
	if q.Method == http.MethodConnect {
		return false
	}
	if len(q.Host) == 0 {
		x.Err = &exchange.Error{
			Code: exchange.BadRequest, Side: exchange.Client,
			Detail: "The request says no host, so it cannot be redirected to HTTPS.",
		}
		return false
	}
	path := q.RawPath
	if len(path) == 0 || path[0] != '/' {
		path = []byte("/")
	}
	const scheme = "https://"
	to := x.Scratch(len(scheme) + len(q.Host) + len(port) + len(path) + 1 + len(q.Query))[:0]
	to = append(to, scheme...)
	to = append(to, q.Host...)
	to = append(to, port...)
	to = append(to, path...)
	if q.HasQuery {
		to = append(append(to, '?'), q.Query...)
	}
	x.Answer(http.StatusPermanentRedirect, "", nil)
	x.ID = telemetry.AppendRequestID(x.Scratch(telemetry.RequestIDLen)[:0], x.Start)
	x.Response.Header.AddID(exchange.Location, to)
	x.Response.Header.AddID(exchange.XRequestID, x.ID)
	return true
}
