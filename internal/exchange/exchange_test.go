package exchange

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"
)

func TestCancelReachesWhateverWaits(t *testing.T) {
	var x Exchange
	n := count(0)
	if !x.OnCancel(&n) || x.Canceled() {
		t.Fatal("cancelled before anybody left")
	}
	x.Cancel()
	if n != 1 || !x.Canceled() {
		t.Errorf("told %d times", n)
	}
	later := count(0)
	if x.OnCancel(&later) || later != 1 {
		t.Errorf("who comes later is told %d times", later)
	}
	x.Reset()
	if x.Canceled() || !x.OnCancel(nil) {
		t.Error("Reset kept it cancelled")
	}
}

type count int

func (c *count) Cancel() { *c++ }

func TestContextEndsWithTheDeadlineAndWithTheClient(t *testing.T) {
	x := Exchange{Deadline: time.Now().Add(-time.Second)}
	ctx, stop := x.Context()
	if <-ctx.Done(); !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Errorf("got %v", ctx.Err())
	}
	stop()
	x.Reset()
	ctx, stop = x.Context()
	defer stop()
	x.Cancel()
	if <-ctx.Done(); !errors.Is(ctx.Err(), context.Canceled) {
		t.Errorf("got %v", ctx.Err())
	}
}

func TestScratchHoldsUntilReset(t *testing.T) {
	var x Exchange
	a := x.CopyString("first")
	for range 100 {
		_ = x.Scratch(1000)
	}
	b := x.Copy([]byte("second"))
	if string(a) != "first" || string(b) != "second" {
		t.Errorf("%q, %q", a, b)
	}
	if c := append(a, 'x'); string(b) != "second" || string(c) != "firstx" {
		t.Error("one piece of scratch memory runs into the next")
	}
	x.Reset()
	if n := testing.AllocsPerRun(10, func() { _ = x.Scratch(100); x.Reset() }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// closing is a body that notes its end.
type closing struct {
	Bytes
	closed int
}

func (c *closing) Close() error { c.closed++; return nil }

func TestAnswerDropsWhatWasThere(t *testing.T) {
	var x Exchange
	old := &closing{}
	x.Response.Body = old
	x.Response.Header.Add([]byte("Server"), []byte("s"))
	x.Response.Close = true
	x.Answer(404, "text/plain", []byte("no"))
	r := &x.Response
	b, err := r.Body.Next()
	if old.closed != 1 || r.Status != 404 || list(&r.Header) != "Content-Type=text/plain" || r.ContentLength != 2 || string(b) != "no" || err != io.EOF || !r.Close {
		t.Errorf("closed %d times; %+v", old.closed, r)
	}
	x.Answer(204, "", nil)
	if r.Body != nil || r.Header.Len() != 0 || r.ContentLength != 0 {
		t.Errorf("%+v", r)
	}
}

func TestReaderReadsABodyOfPieces(t *testing.T) {
	body := NewBytes([]byte("hello world"))
	got, err := io.ReadAll(io.LimitReader(&Reader{Body: body}, 100))
	if string(got) != "hello world" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	bad := errors.New("gone")
	if _, err := io.ReadAll(&Reader{Body: failing{bad}}); !errors.Is(err, bad) {
		t.Errorf("got %v", err)
	}
}

type failing struct{ err error }

func (f failing) Next() ([]byte, error) { return nil, f.err }
func (f failing) Ready() bool           { return true }
func (f failing) Close() error          { return nil }

func TestErrorsKnowTheirStatus(t *testing.T) {
	cause := errors.New("refused")
	e := &Error{Code: UpstreamUnavailable, Status: 503, Detail: "No target.", Cause: cause}
	if e.HTTPStatus() != 503 || !errors.Is(e, cause) || e.Error() != "upstream_unavailable: No target.: refused" {
		t.Errorf("%d %v", e.HTTPStatus(), e)
	}
	if got := AsError(cause); got.Code != Internal || got.HTTPStatus() != 500 || !errors.Is(got, cause) {
		t.Errorf("%v", got)
	}
	if got := AsError(e); got != e {
		t.Error("an Error was wrapped")
	}
	for c := Code(0); c < codes; c++ {
		if c.String() == "" || c.Title() == "" || c.Status() < 400 {
			t.Errorf("code %d: %q %q %d", c, c, c.Title(), c.Status())
		}
	}
}
