package cache

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// script is an upstream's body. Its pieces come one by one, each behind a pause.
type script struct {
	pause  time.Duration
	pieces [][]byte
	err    error // behind them; io.EOF comes with the last
	stuck  bool  // behind the pieces nothing comes until it is cancelled
	closed bool
	once   sync.Once
	gone   chan struct{}
	no     bool // it cannot be detached
}

func (s *script) Next() ([]byte, error) {
	if len(s.pieces) == 0 {
		if s.stuck {
			<-s.gone
			return nil, errShort
		}
		return nil, s.err
	}
	if s.pause > 0 {
		select {
		case <-s.gone:
			return nil, errShort
		case <-time.After(s.pause):
		}
	}
	p := s.pieces[0]
	s.pieces = s.pieces[1:]
	if len(s.pieces) == 0 && s.err == io.EOF {
		return p, io.EOF
	}
	return p, nil
}

func (s *script) Ready() bool  { return false }
func (s *script) Close() error { s.closed = true; return nil }
func (s *script) Cancel()      { s.once.Do(func() { close(s.gone) }) }
func (s *script) Detach(y *exchange.Exchange) bool {
	if s.no {
		return false
	}
	y.OnCancel(s)
	return true
}

func pieces(n, size int) (all [][]byte, whole []byte) {
	for i := range n {
		p := bytes.Repeat([]byte{byte('a' + i%26)}, size)
		all, whole = append(all, p), append(whole, p...)
	}
	return all, whole
}

type told struct {
	mu   sync.Mutex
	body []byte
	err  error
	n    int
}

func (t *told) get() (int, []byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n, t.body, t.err
}

// startStream starts a stream of src, with one who leads.
func startStream(t *testing.T, src *script, length, most int64) (*stream, *reader, *told) {
	t.Helper()
	src.gone = make(chan struct{})
	e := New(Options{})
	t.Cleanup(func() { _ = e.Close(t.Context()) })
	x := &exchange.Exchange{}
	x.Response.Body, x.Response.ContentLength = src, length
	s := &stream{e: e, most: most, users: 1}
	if !s.detach(x, nil) {
		t.Fatal("it was not detached")
	}
	told := &told{}
	s.done = func(b []byte, err error) {
		told.mu.Lock()
		defer told.mu.Unlock()
		told.body, told.err = bytes.Clone(b), err
		told.n++
	}
	r := s.open(x, true)
	e.work.Go(s.run)
	return s, r, told
}

func follow(t *testing.T, s *stream) (*reader, *exchange.Exchange) {
	t.Helper()
	if !s.enter() {
		t.Fatal("nobody can follow")
	}
	x := &exchange.Exchange{}
	return s.open(x, false), x
}

func drain(b exchange.Body) ([]byte, error) {
	var all []byte
	for {
		p, err := b.Next()
		all = append(all, p...)
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
	}
}

func TestAllReadersOfAStreamGetTheWholeBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, whole := pieces(50, 100)
		src := &script{pieces: all, err: io.EOF, pause: time.Millisecond}
		s, l, told := startStream(t, src, int64(len(whole)), 1<<20)
		var readers sync.WaitGroup
		for range 20 {
			f, _ := follow(t, s)
			readers.Go(func() {
				got, err := drain(f)
				if err != nil || !bytes.Equal(got, whole) {
					t.Errorf("a follower got %d bytes of %d, %v", len(got), len(whole), err)
				}
				_ = f.Close()
			})
		}
		got, err := drain(l)
		if err != nil || !bytes.Equal(got, whole) {
			t.Errorf("the leader got %d bytes of %d, %v", len(got), len(whole), err)
		}
		readers.Wait()
		_ = l.Close()
		synctest.Wait()
		if n, body, err := told.get(); n != 1 || err != io.EOF || !bytes.Equal(body, whole) || !src.closed {
			t.Errorf("told %d times, %v, %d bytes; closed %v", n, err, len(body), src.closed)
		}
		if n := s.e.room.used.Load(); n != 0 {
			t.Errorf("%d bytes of room are still taken", n)
		}
	})
}

func TestNobodyWaitsForAClientThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, whole := pieces(30, 1000)
		s, l, told := startStream(t, &script{pieces: all, err: io.EOF, pause: time.Millisecond}, int64(len(whole)), 1<<20)
		f, _ := follow(t, s)
		if got, err := drain(f); err != nil || !bytes.Equal(got, whole) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		synctest.Wait()
		if _, _, err := told.get(); err != io.EOF {
			t.Errorf("told %v", err)
		}
		if got, err := drain(l); err != nil || !bytes.Equal(got, whole) {
			t.Errorf("then the leader: %d bytes, %v", len(got), err)
		}
	})
}

func TestALeaderThatGoesLeavesTheBodyToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, whole := pieces(30, 1000)
		s, l, told := startStream(t, &script{pieces: all, err: io.EOF, pause: time.Millisecond}, int64(len(whole)), 1<<20)
		f, _ := follow(t, s)
		l.x.Cancel()
		if _, err := drain(l); !errors.Is(err, errLeft) {
			t.Errorf("the leader: %v", err)
		}
		_ = l.Close()
		if got, err := drain(f); err != nil || !bytes.Equal(got, whole) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		synctest.Wait()
		if _, _, err := told.get(); err != io.EOF {
			t.Errorf("told %v", err)
		}
	})
}

func TestABodyThatNobodyWantsIsGivenUp(t *testing.T) {
	for _, first := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			src := &script{pieces: [][]byte{[]byte("abc")}, stuck: true}
			s, l, told := startStream(t, src, 10, 1<<20)
			f, y := follow(t, s)
			over := make(chan struct{}, 2)
			for _, b := range []exchange.Body{l, f} {
				go func() {
					_, _ = drain(b)
					_ = b.Close()
					over <- struct{}{}
				}()
			}
			gone := []*exchange.Exchange{l.x, y}
			gone[first].Cancel()
			<-over
			gone[1-first].Cancel()
			<-over
			synctest.Wait()
			if n, _, err := told.get(); n != 1 || err == io.EOF || !src.closed || s.enter() {
				t.Errorf("told %d times, %v; closed %v", n, err, src.closed)
			}
		})
	}
}

func TestAnUpstreamThatFallsSilentLosesTheFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &script{pieces: [][]byte{[]byte("abc")}, stuck: true}
		s, l, told := startStream(t, src, 10, 1<<20)
		if !s.enter() {
			t.Error("nobody may follow at first")
		}
		s.leave()
		time.Sleep(stalled + time.Millisecond)
		if s.enter() || !s.stuck() {
			t.Error("others are led to a body that does not come")
		}
		began := time.Now()
		if _, err := drain(l); err == nil {
			t.Error("a whole body")
		}
		synctest.Wait()
		if took := time.Since(began); took > silence || !src.closed {
			t.Errorf("given up behind %v", took)
		}
		if _, _, err := told.get(); err == io.EOF {
			t.Error("it is stored")
		}
	})
}

func TestATooLargeBodyIsTheLeadersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, whole := pieces(3000, 1000)
		s, l, told := startStream(t, &script{pieces: all, err: io.EOF}, exchange.Unknown, 10_000)
		if !s.enter() { // who waits for the end
			t.Fatal("nobody may wait")
		}
		synctest.Wait()
		if n, _, err := told.get(); n != 1 || !errors.Is(err, errTooLarge) {
			t.Errorf("told %d times, %v", n, err)
		}
		s.leave()
		if s.mu.Lock(); len(s.b) > window+1000 {
			t.Errorf("%d bytes are kept for a leader that does not read", len(s.b))
		}
		s.mu.Unlock()
		if s.enter() {
			t.Error("somebody may follow")
		}
		if got, err := drain(l); err != nil || !bytes.Equal(got, whole) {
			t.Errorf("the leader got %d bytes of %d, %v", len(got), len(whole), err)
		}
		_ = l.Close()
	})
}

func TestABodyThatEndsEarlyIsNotStored(t *testing.T) {
	for name, src := range map[string]*script{
		"cut":       {pieces: [][]byte{[]byte("abc")}, err: errShort},
		"too short": {pieces: [][]byte{[]byte("abc")}, err: io.EOF},
	} {
		synctest.Test(t, func(t *testing.T) {
			_, l, told := startStream(t, src, 4, 1<<20)
			_, err := drain(l)
			synctest.Wait()
			if n, _, how := told.get(); err == nil || how == io.EOF || n != 1 {
				t.Errorf("%s: %v, told %v", name, err, how)
			}
			_ = l.Close()
		})
	}
}

func TestTheEndOfTheEngineEndsItsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &script{stuck: true}
		s, l, _ := startStream(t, src, 10, 1<<20)
		if err := s.e.Close(t.Context()); err != nil || !src.closed {
			t.Errorf("%v, closed %v", err, src.closed)
		}
		if _, err := drain(l); err == nil {
			t.Error("a whole body")
		}
	})
}

// A fill whose head is known is found although it is settled: what counts is whether its
// body comes.
func TestAFillWhoseBodyDoesNotComeIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l, _ := startStream(t, &script{pieces: [][]byte{[]byte("abc")}, stuck: true}, 10, 1<<20)
		f := newFill(s.e, "k", make(chan struct{}))
		f.flow(s, nil)
		synctest.Wait()
		for range 50 {
			if f.stuck() {
				t.Fatal("stuck at once")
			}
		}
		time.Sleep(stalled + time.Millisecond)
		for range 50 {
			if !f.stuck() {
				t.Fatal("others are led to a body that does not come")
			}
		}
		_ = l.Close()
	})
}
