package upstream

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/http1"
)

// fixed is an answer that is the same for every request.
type fixed struct {
	status int
	fields []exchange.Field
	body   []byte
}

// newFixed reads a respond block. Without a Content-Type a body is JSON when it
// reads as an object or a list, and plain text otherwise.
func newFixed(c *config.Respond) (*fixed, error) {
	f := &fixed{status: c.Status, body: []byte(c.Body)}
	if f.status == 0 {
		f.status = 200
	}
	if f.status < 200 || f.status > 599 {
		return nil, fmt.Errorf("respond.status: %d is not a status from 200 to 599", f.status)
	}
	if len(f.body) > 0 && (f.status == 204 || f.status == 304) {
		return nil, fmt.Errorf("respond.body: a %d has no body", f.status)
	}
	typed := false
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		n, v := []byte(name), []byte(c.Headers[name])
		id := exchange.Lookup(n)
		switch {
		case !http1.IsToken(n) || !http1.IsValue(v):
			return nil, fmt.Errorf("respond.headers: %q has a byte that a header cannot have", name)
		case framing&(1<<id) != 0:
			return nil, fmt.Errorf("respond.headers: %s is written by the gateway", name)
		}
		typed = typed || id == exchange.ContentType
		f.fields = append(f.fields, exchange.Field{Name: n, Value: v, ID: id})
	}
	if len(f.body) > 0 && !typed {
		t := "text/plain; charset=utf-8"
		if (f.body[0] == '{' || f.body[0] == '[') && json.Valid(f.body) {
			t = "application/json"
		}
		f.fields = append(f.fields, exchange.Field{
			Name: exchange.ContentType.Name(), Value: []byte(t), ID: exchange.ContentType,
		})
	}
	return f, nil
}

// framing are the fields that say where a message ends and what becomes of the
// connection.
var framing = http1.SkipOf(exchange.ContentLength, exchange.TransferEncoding, exchange.Connection,
	exchange.KeepAlive, exchange.ProxyConnection, exchange.Upgrade, exchange.TE, exchange.Trailer)

func (f *fixed) answer(name string, x *exchange.Exchange) {
	x.Usage.Name = name
	x.Answer(f.status, "", f.body)
	for i := range f.fields {
		x.Response.Header.Append(f.fields[i])
	}
}
