package gateway

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// pieces is a body that arrives in parts and ends with err.
type pieces struct {
	left   []string
	err    error
	closed bool
}

func (p *pieces) Next() ([]byte, error) {
	if len(p.left) == 0 {
		return nil, p.err
	}
	piece := p.left[0]
	p.left = p.left[1:]
	return []byte(piece), nil
}

func (p *pieces) Ready() bool  { return false }
func (p *pieces) Close() error { p.closed = true; return nil }

// continued is a driver that counts 100 Continue.
type continued int

func (c *continued) Interim(status int, _ *exchange.Header) error {
	if status == 100 {
		*c++
	}
	return nil
}

func TestABodyIsBufferedWithinTheBudgetAndGivenBack(t *testing.T) {
	var m memory
	m.limit.Store(64 << 10)
	source := &pieces{left: []string{"hello ", strings.Repeat("x", 20<<10)}, err: io.EOF}
	driver := new(continued)
	x := &exchange.Exchange{Driver: driver}
	x.Request.Body, x.Request.ContentLength, x.Request.Expect = source, exchange.Unknown, true
	if err := m.buffer(x); err != nil {
		t.Fatal(err)
	}
	whole, err := x.Request.Body.Next()
	if len(whole) != 6+20<<10 || err != io.EOF || x.Request.ContentLength != int64(len(whole)) || *driver != 1 || x.Request.Expect {
		t.Errorf("%d bytes, %v, length %d, continued %d", len(whole), err, x.Request.ContentLength, *driver)
	}
	if m.used.Load() == 0 {
		t.Error("nothing was taken from the budget")
	}
	for range 2 {
		_ = x.Request.Body.Close()
	}
	if m.used.Load() != 0 || !source.closed {
		t.Errorf("%d bytes are not given back, source closed: %v", m.used.Load(), source.closed)
	}
}

func TestABodyOverTheBudgetIsRefusedAndTakesNothing(t *testing.T) {
	var m memory
	m.limit.Store(32 << 10)
	x := &exchange.Exchange{}
	x.Request.Body = &pieces{left: []string{strings.Repeat("x", 16<<10), strings.Repeat("x", 17<<10)}, err: io.EOF}
	var e *exchange.Error
	if err := m.buffer(x); !errors.As(err, &e) || e.Code != exchange.Overloaded || e.HTTPStatus() != 503 {
		t.Errorf("got %v", err)
	}
	if m.used.Load() != 0 {
		t.Errorf("%d bytes are held", m.used.Load())
	}
}

func TestABodyThatFailsGivesItsMemoryBack(t *testing.T) {
	var m memory
	bad := &exchange.Error{Code: exchange.RequestTimeout}
	x := &exchange.Exchange{}
	x.Request.Body = &pieces{left: []string{"half"}, err: bad}
	if err := m.buffer(x); !errors.Is(err, bad) || m.used.Load() != 0 {
		t.Errorf("got %v, %d bytes held", err, m.used.Load())
	}
}
