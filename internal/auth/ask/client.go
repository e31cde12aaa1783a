package ask

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"time"
)

// NewClient makes an HTTP client with connections of its own. It follows no redirect,
// since that would show credentials to whoever is redirected to, uses no proxy, and
// fails a reply body that is longer than MaxReply. It has no time limit: calls bring one.
// Its idle connections must be closed.
func NewClient() *http.Client {
	return &http.Client{
		Transport: &bounded{next: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    10 * time.Second,
			ForceAttemptHTTP2:      true,
			DisableCompression:     true,
			MaxIdleConnsPerHost:    64,
			MaxConnsPerHost:        MaxCalls,
			IdleConnTimeout:        30 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// bounded fails bodies that are too long.
type bounded struct{ next *http.Transport }

// RoundTrip sends a request.
func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.next.RoundTrip(r)
	if err == nil {
		res.Body = &boundedBody{ReadCloser: res.Body, left: MaxReply}
	}
	return res, err
}

// CloseIdleConnections is what http.Client calls.
func (b *bounded) CloseIdleConnections() { b.next.CloseIdleConnections() }

var errLong = fmt.Errorf("the reply is longer than %d bytes", MaxReply)

type boundedBody struct {
	io.ReadCloser
	left int
}

// Read returns errLong for the byte that is too many.
func (b *boundedBody) Read(p []byte) (int, error) {
	if len(p) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if n > b.left {
		n, err = b.left, errLong
	}
	b.left -= n
	return n, err
}

var errMalformed = errors.New("the reply is no proper HTTP")

// cause is an error of an http.Client without the URL or a line of the reply, in which
// there may be something secret.
func cause(err error) error {
	if _, ok := errors.AsType[textproto.ProtocolError](err); ok {
		return errMalformed
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}
