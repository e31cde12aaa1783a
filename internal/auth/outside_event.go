package auth

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth/ask"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// contextVariables are those of API Gateway's $context that an identity source may
// name.
var contextVariables = map[string]func(*lambdaAuth, *exchange.Exchange) []byte{
	"apiId":        func(_ *lambdaAuth, x *exchange.Exchange) []byte { return []byte(apiID(routeOf(x))) },
	"stage":        func(_ *lambdaAuth, x *exchange.Exchange) []byte { return []byte(stageOf(routeOf(x))) },
	"httpMethod":   func(_ *lambdaAuth, x *exchange.Exchange) []byte { return []byte(x.Request.Method) },
	"path":         func(_ *lambdaAuth, x *exchange.Exchange) []byte { return x.Request.Path },
	"resourcePath": func(_ *lambdaAuth, x *exchange.Exchange) []byte { return []byte(resourceOf(x)) },
	"routeKey": func(_ *lambdaAuth, x *exchange.Exchange) []byte {
		return []byte(x.Request.Method + " " + resourceOf(x))
	},
	"protocol":           func(_ *lambdaAuth, x *exchange.Exchange) []byte { return []byte(x.Request.Proto.String()) },
	"domainName":         func(_ *lambdaAuth, x *exchange.Exchange) []byte { return x.Request.Host },
	"requestId":          func(_ *lambdaAuth, x *exchange.Exchange) []byte { return x.ID },
	"identity.sourceIp":  func(_ *lambdaAuth, x *exchange.Exchange) []byte { return []byte(addressOf(x)) },
	"identity.userAgent": func(_ *lambdaAuth, x *exchange.Exchange) []byte { return x.Request.Header.Get(userAgentName) },
}

func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func addressOf(x *exchange.Exchange) string {
	if !x.Client.IsValid() {
		return ""
	}
	return x.Client.Unmap().String()
}

// resourceOf is the route's pattern, in which AWS writes {rest...} as {rest+}.
func resourceOf(x *exchange.Exchange) string {
	return strings.ReplaceAll(routeOf(x).Pattern, "...}", "+}")
}

// requestTime is how AWS writes times in request contexts: 09/Apr/2015:12:34:56 +0000.
const requestTime = "02/Jan/2006:15:04:05 -0700"

// requestEvent is the event of a REQUEST authorizer. Its texts are copies.
func (a *lambdaAuth) requestEvent(x *exchange.Exchange) *ask.RequestEvent {
	q, r := &x.Request, routeOf(x)
	e := &ask.RequestEvent{
		Type: "REQUEST", MethodARN: string(a.arn.append(nil, x, a.resource(x))),
		Resource: resourceOf(x), Path: string(q.Path), HTTPMethod: q.Method,
		Headers: map[string]string{}, MultiValueHeaders: map[string][]string{},
		QueryStringParameters: map[string]string{}, MultiValueQuery: map[string][]string{},
		PathParameters: map[string]string{}, StageVariables: map[string]string{},
	}
	eventHeaders(e, x)
	for pair := range bytes.SplitSeq(q.Query, ampersand) {
		if len(pair) == 0 {
			continue
		}
		name, v, _ := bytes.Cut(pair, equals)
		n := unescaped(x, name)
		e.QueryStringParameters[n] = unescaped(x, v)
		e.MultiValueQuery[n] = append(e.MultiValueQuery[n], e.QueryStringParameters[n])
	}
	for _, p := range x.Params {
		e.PathParameters[p.Name] = string(p.Value)
	}
	maps.Copy(e.StageVariables, a.variables(x))
	e.RequestContext = ask.RequestContext{
		Path: string(q.Path), AccountID: strings.Split(a.arn.prefix, ":")[4],
		ResourceID: r.Name, Stage: stageOf(r), RequestID: string(x.ID), DomainName: string(q.Host), Protocol: q.Proto.String(),
		RequestTime: x.Start.UTC().Format(requestTime), RequestTimeEpoch: x.Start.UnixMilli(),
		Identity: ask.Identity{
			APIKey: string(q.Header.GetID(exchange.XAPIKey)), SourceIP: addressOf(x), UserAgent: string(q.Header.Get(userAgentName)),
			ClientCert: certOf(x),
		},
		ResourcePath: resourceOf(x), HTTPMethod: q.Method, APIID: apiID(r),
	}
	return e
}

// unescaped is a name or value of a query, decoded; what is no encoding stays as it is.
func unescaped(x *exchange.Exchange, v []byte) string {
	if decoded, ok := unescape(x, v); ok {
		return string(decoded)
	}
	return string(v)
}

// eventHeaders copies the fields but those about the connection, under the first
// spelling of each name. Host and what API Gateway adds itself are there too.
func eventHeaders(e *ask.RequestEvent, x *exchange.Exchange) {
	spelling := map[string]string{}
	add := func(name, v string) {
		lower := strings.ToLower(name)
		if first, ok := spelling[lower]; ok {
			name = first
		} else {
			spelling[lower] = name
		}
		e.Headers[name] = v
		e.MultiValueHeaders[name] = append(e.MultiValueHeaders[name], v)
	}
	h := &x.Request.Header
	for i := range h.Len() {
		if f := h.At(i); !f.Hop {
			add(string(f.Name), string(f.Value))
		}
	}
	proto, port := "http", ""
	if secure(x) {
		proto = "https"
	}
	if x.Conn != nil && x.Conn.Local.IsValid() {
		_, port, _ = strings.Cut(x.Conn.Local.String()[strings.LastIndexByte(x.Conn.Local.String(), ':'):], ":")
	}
	for _, own := range [...][2]string{
		{"Host", string(x.Request.Authority)},
		{"X-Forwarded-For", addressOf(x)},
		{"X-Forwarded-Port", port},
		{"X-Forwarded-Proto", proto},
	} {
		if _, there := spelling[strings.ToLower(own[0])]; !there && own[1] != "" {
			add(own[0], own[1])
		}
	}
}

// certTime is how AWS writes the times of certificates: May 28 12:30:02 2019 GMT.
const certTime = "Jan _2 15:04:05 2006 GMT"

// certOf is the client's certificate; nil: it has none.
func certOf(x *exchange.Exchange) *ask.ClientCert {
	if x.Conn == nil || x.Conn.TLS == nil || len(x.Conn.TLS.Client) == 0 {
		return nil
	}
	c, err := x509.ParseCertificate(x.Conn.TLS.Client)
	if err != nil {
		return nil // the handshake would not have accepted it
	}
	digits := hex.EncodeToString(c.SerialNumber.Bytes())
	var pairs []string
	for i := 0; i < len(digits); i += 2 {
		pairs = append(pairs, digits[i:i+2])
	}
	return &ask.ClientCert{
		PEM:     string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})),
		Subject: c.Subject.String(), Issuer: c.Issuer.String(), SerialNumber: strings.Join(pairs, ":"),
		Validity: ask.Validity{NotBefore: certDate(c.NotBefore), NotAfter: certDate(c.NotAfter)},
	}
}

func certDate(t time.Time) string { return t.UTC().Format(certTime) }
