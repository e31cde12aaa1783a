package gateway

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// A filter may ask the route's target once more, in the background: the cache does, to
// have a fresh response before the next client wants it. Nobody waits for such an
// exchange, it is in no access log, and it charges no limit.

// nobody is the driver of an exchange that no connection waits for.
type nobody struct{}

func (nobody) Interim(int, *exchange.Header) error { return nil }

// again implements policy.Env.Again for one route.
func (g *Gateway) again(r *route, x *exchange.Exchange, before func(*exchange.Exchange) bool) {
	s, ok := x.Pin.(*Snapshot)
	if !ok {
		return
	}
	shard := x.Conn.Shard
	s.pins.enter(shard) // x has it pinned, so it is open
	y, ok := g.spares.Get().(*exchange.Exchange)
	if !ok {
		y = &exchange.Exchange{}
	}
	imitate(y, x)
	y.Pin = s
	if r.timeout > 0 {
		y.Deadline = y.Start.Add(r.timeout)
	}
	go func() {
		// Nobody is there to cancel it but time, and the end of the gateway.
		bound := time.AfterFunc(r.timeout+bodyWithin, y.Cancel)
		halt := context.AfterFunc(g.background, y.Cancel)
		err := g.repeat(r, y, before)
		if bound.Stop() && halt() && err == nil { // or else somebody may still hold y
			y.Reset()
			g.spares.Put(y)
		}
		s.leave(shard)
	}()
}

// bodyWithin is how long the body of a response that nobody waits for may take.
const bodyWithin = 30 * time.Second

// repeat runs what stands behind the cache, and reads the body to its end. An error is
// a panic, behind which y is not used again.
func (g *Gateway) repeat(r *route, y *exchange.Exchange, before func(*exchange.Exchange) bool) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.Join(errPanicked, fmt.Errorf("%v", p))
			g.log.Error("a panic in the background", "route", r.info.Name, "panic", p, "stack", string(debug.Stack()))
		}
		if b := y.Response.Body; b != nil {
			_ = b.Close() // it is over: there is nobody to tell
		}
		if t := y.Response.Tunnel; t != nil {
			_ = t.Close()
		}
		for i := range y.Held {
			y.Held[i].Release()
		}
	}()
	if !before(y) {
		return nil
	}
	failed := r.chain.RequestBehind(y)
	if failed == nil {
		failed = r.targets.do(y)
	}
	if failed != nil && failed != exchange.Done {
		refuse(y, exchange.AsError(failed))
	}
	_ = r.chain.ResponseBehind(y) // a refusal is for nobody
	for b := y.Response.Body; b != nil; {
		if _, err := b.Next(); err != nil {
			break
		}
	}
	return nil
}

var errPanicked = errors.New("gateway: a filter or a target panicked")

// imitate makes y ask what x asks. All that it points to is its own.
func imitate(y, x *exchange.Exchange) {
	conn := *x.Conn
	y.Conn, y.Driver, y.Start = &conn, nobody{}, time.Now()
	y.Client, y.Trusted, y.Caller = x.Client, x.Trusted, x.Caller
	y.ID, y.Trace = y.Copy(x.ID), x.Trace
	y.Route, y.RouteID = x.Route, x.RouteID
	for _, p := range x.Params {
		y.Params = append(y.Params, exchange.Param{Name: p.Name, Value: y.Copy(p.Value)})
	}
	q, from := &y.Request, &x.Request
	header, trailer := q.Header, q.Trailer
	*q = *from
	q.Header, q.Trailer = header, trailer
	q.Body, q.Expect, q.Upgrade = nil, false, nil
	if b, ok := from.Body.(interface{ Whole() []byte }); ok {
		q.Body = exchange.NewBytes(y.Copy(b.Whole()))
	} else {
		q.ContentLength = 0
	}
	for _, span := range []*[]byte{&q.Target, &q.Authority, &q.Host, &q.RawPath, &q.Path, &q.Query, &q.ForwardPath, &q.ForwardPrefix} {
		if *span != nil {
			*span = y.Copy(*span)
		}
	}
	for i := range from.Header.Len() {
		f := *from.Header.At(i)
		f.Name, f.Value = y.Copy(f.Name), y.Copy(f.Value)
		q.Header.Append(f)
	}
}
