package gatetest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"time"
)

// Driver is a way for a client to speak to a gateway.
type Driver struct {
	Name string
	TLS  bool
	H2   bool
}

// Drivers are the four ways: HTTP/1.1 and HTTP/2, each with and without TLS.
var Drivers = [...]Driver{
	{Name: "h1"},
	{Name: "h1tls", TLS: true},
	{Name: "h2", TLS: true, H2: true},
	{Name: "h2c", H2: true},
}

// Scheme is the URL scheme of d.
func (d Driver) Scheme() string {
	if d.TLS {
		return "https"
	}
	return "http"
}

// Via is what the gateway adds to Via for a request that came over d.
func (d Driver) Via() string {
	if d.H2 {
		return "2.0 sluice"
	}
	return "1.1 sluice"
}

// Client sends requests over one driver to one address, whatever the host in
// their URL.
type Client struct {
	Driver Driver
	*http.Transport
}

// NewClient returns a client for addr that trusts roots. Its owner calls
// CloseIdleConnections at the end.
func NewClient(d Driver, addr string, roots *x509.CertPool) *Client {
	var protocols http.Protocols
	switch {
	case d.H2 && d.TLS:
		protocols.SetHTTP2(true)
	case d.H2:
		protocols.SetUnencryptedHTTP2(true)
	default:
		protocols.SetHTTP1(true)
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	return &Client{Driver: d, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", addr)
		},
		TLSClientConfig:       &tls.Config{RootCAs: roots},
		Protocols:             &protocols,
		DisableCompression:    true,
		MaxIdleConnsPerHost:   256,
		ExpectContinueTimeout: 10 * time.Second,
	}}
}

// Message is a request as its sender means it, whatever the protocol.
type Message struct {
	Method  string // empty: GET
	Host    string
	Target  string // path and query as they go on the wire
	Header  Fields
	Body    string
	Unknown bool // the length of Body is not told
	Trailer Fields
	Expect  bool // wait for 100 (Continue) before the body
}

// Reply is what came back.
type Reply struct {
	Status  int
	Header  http.Header
	Body    string
	Trailer http.Header
	Interim []Interim
	Length  int64 // declared; -1: not
	Proto   string
	Closed  bool // HTTP/1.1: the connection ends behind the reply
}

// Interim is an informational response.
type Interim struct {
	Status int
	Header http.Header
}

// Request makes an http.Request of m that goes out unchanged.
func (c *Client) Request(ctx context.Context, m Message) (*http.Request, error) {
	method := m.Method
	if method == "" {
		method = http.MethodGet
	}
	// Opaque is sent as it is; with the host before it for HTTP/1.1 and HTTP/2.
	path, query, hasQuery := strings.Cut(m.Target, "?")
	u := &url.URL{Scheme: c.Driver.Scheme(), Host: m.Host, Opaque: path, RawQuery: query, ForceQuery: hasQuery && query == ""}
	if strings.HasPrefix(path, "//") {
		u.Opaque = "//" + m.Host + path
	}
	req := (&http.Request{
		Method: method, URL: u, Host: m.Host,
		Header: http.Header{"User-Agent": {""}},
		Proto:  "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	for _, f := range m.Header {
		key := f.Name
		if textproto.CanonicalMIMEHeaderKey(key) == "User-Agent" {
			req.Header.Del(key)
		}
		req.Header[key] = append(req.Header[key], f.Value)
	}
	if m.Expect {
		req.Header.Set("Expect", "100-continue")
	}
	if m.Body == "" && !m.Unknown {
		return req, nil
	}
	req.ContentLength = int64(len(m.Body))
	req.Body = io.NopCloser(strings.NewReader(m.Body))
	if m.Unknown {
		req.ContentLength = -1
		// A type that net/http does not know, so that it does not look for the length.
		req.Body = io.NopCloser(struct{ io.Reader }{strings.NewReader(m.Body)})
	}
	if len(m.Trailer) > 0 {
		req.Trailer = http.Header{}
		for _, f := range m.Trailer {
			req.Trailer.Add(f.Name, f.Value)
		}
	}
	return req, nil
}

// Do sends m and reads the whole reply.
func (c *Client) Do(ctx context.Context, m Message) (*Reply, error) {
	reply := &Reply{}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			reply.Interim = append(reply.Interim, Interim{code, http.Header(h).Clone()})
			return nil
		},
	})
	req, err := c.Request(ctx, m)
	if err != nil {
		return nil, err
	}
	resp, err := c.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	_, err = body.ReadFrom(resp.Body)
	reply.Status, reply.Header, reply.Body = resp.StatusCode, resp.Header, body.String()
	reply.Trailer, reply.Length, reply.Proto, reply.Closed = resp.Trailer, resp.ContentLength, resp.Proto, resp.Close
	if err != nil {
		return reply, fmt.Errorf("body after %d bytes: %w", body.Len(), err)
	}
	return reply, nil
}

// ErrNoReply says that a connection ended without a byte of a reply.
var ErrNoReply = errors.New("gatetest: connection closed without a reply")
