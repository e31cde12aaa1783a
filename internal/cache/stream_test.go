package cache

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// script is an upstream's body: its pieces come one by one, each when it is let.
type script struct {
	let    chan struct{} // nil: at once
	pieces [][]byte
	err    error // behind them; io.EOF comes with the last
	closed bool
}

func (s *script) Next() ([]byte, error) {
	if s.let != nil {
		<-s.let
	}
	if len(s.pieces) == 0 {
		return nil, s.err
	}
	p := s.pieces[0]
	s.pieces = s.pieces[1:]
	if len(s.pieces) == 0 && s.err == io.EOF {
		return p, io.EOF
	}
	return p, nil
}

func (s *script) Ready() bool  { return s.let == nil }
func (s *script) Close() error { s.closed = true; return nil }

func pieces(n, size int) (all [][]byte, whole []byte) {
	for i := range n {
		p := bytes.Repeat([]byte{byte('a' + i%26)}, size)
		all, whole = append(all, p), append(whole, p...)
	}
	return all, whole
}

type told struct {
	body []byte
	err  error
	n    int
}

func newStream(src exchange.Body, length, most int64) (*stream, *told) {
	t := &told{}
	return &stream{src: src, length: length, most: most, room: &room{}, done: func(b []byte, err error) {
		t.body, t.err = bytes.Clone(b), err
		t.n++
	}}, t
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
	all, whole := pieces(50, 100)
	src := &script{pieces: all, err: io.EOF}
	s, told := newStream(src, int64(len(whole)), 1<<20)
	l := s.lead(&exchange.Exchange{})
	var followers []*follower
	for range 20 {
		followers = append(followers, s.join(&exchange.Exchange{}))
	}
	var readers sync.WaitGroup
	for _, f := range followers {
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
	if told.n != 1 || told.err != io.EOF || !bytes.Equal(told.body, whole) || !src.closed {
		t.Errorf("told %d times, %v, %d bytes; closed %v", told.n, told.err, len(told.body), src.closed)
	}
	if n := s.room.used.Load(); n != 0 {
		t.Errorf("%d bytes of room are still taken", n)
	}
}

func TestWhoWaitsForABodyOfUnknownLengthBringsIt(t *testing.T) {
	for most, stored := range map[int64]bool{1 << 20: true, 700: false} {
		all, whole := pieces(50, 100)
		s, told := newStream(&script{pieces: all, err: io.EOF}, exchange.Unknown, most)
		l := s.lead(&exchange.Exchange{}) // does not read
		h := s.join(&exchange.Exchange{})
		if !h.help(nil) || told.n != 1 || stored != (told.err == io.EOF) {
			t.Fatalf("at most %d: told %d times, %v", most, told.n, told.err)
		}
		_ = h.Close()
		if s.mu.Lock(); len(s.b) > int(most)+100 {
			t.Errorf("%d bytes are kept", len(s.b))
		}
		s.mu.Unlock()
		if got, err := drain(l); err != nil || !bytes.Equal(got, whole) {
			t.Errorf("at most %d: the leader got %d bytes of %d, %v", most, len(got), len(whole), err)
		}
		if stored == (s.join(&exchange.Exchange{}) == nil) {
			t.Errorf("at most %d: who comes late", most)
		}
		_ = l.Close()
	}
}

// stopped is an upstream that sends nothing until it is stopped.
type stopped struct {
	once sync.Once
	c    chan struct{}
}

func (s *stopped) Next() ([]byte, error) { <-s.c; return nil, errShort }
func (s *stopped) Ready() bool           { return false }
func (s *stopped) Close() error          { return nil }
func (s *stopped) Cancel()               { s.once.Do(func() { close(s.c) }) }

func TestAnUpstreamThatNobodyWaitsForIsStopped(t *testing.T) {
	for _, first := range []string{"leader", "follower"} {
		src := &stopped{c: make(chan struct{})}
		s, _ := newStream(src, 10, 100)
		x, y := &exchange.Exchange{}, &exchange.Exchange{}
		x.OnCancel(src)
		l := s.lead(x)
		f := s.join(y)
		over := make(chan struct{}, 2)
		for _, b := range []exchange.Body{l, f} {
			go func() {
				_, _ = drain(b)
				_ = b.Close()
				over <- struct{}{}
			}()
		}
		if first == "leader" {
			x.Cancel()
			y.Cancel()
		} else {
			y.Cancel()
			x.Cancel()
		}
		<-over
		<-over
	}
}

func TestWhoFollowsNeedsNoLeader(t *testing.T) {
	all, whole := pieces(30, 1000)
	s, told := newStream(&script{pieces: all, err: io.EOF}, int64(len(whole)), 1<<20)
	s.lead(&exchange.Exchange{}) // never reads
	f := s.join(&exchange.Exchange{})
	if got, err := drain(f); err != nil || !bytes.Equal(got, whole) || told.err != io.EOF {
		t.Errorf("%d bytes, %v, told %v", len(got), err, told.err)
	}
}

func TestALeaderThatGoesReadsOnForOthers(t *testing.T) {
	all, whole := pieces(30, 1000)
	s, told := newStream(&script{pieces: all, err: io.EOF}, exchange.Unknown, 1<<20)
	l := s.lead(&exchange.Exchange{})
	f := s.join(&exchange.Exchange{})
	l.Cancel() // must not reach the upstream: somebody follows
	_ = l.Close()
	if got, err := drain(f); err != nil || !bytes.Equal(got, whole) || told.err != io.EOF {
		t.Errorf("%d bytes, %v, told %v", len(got), err, told.err)
	}
}

func TestALeaderThatGoesAloneEndsIt(t *testing.T) {
	all, _ := pieces(30, 1000)
	src := &script{pieces: all, err: io.EOF}
	s, told := newStream(src, exchange.Unknown, 1<<20)
	l := s.lead(&exchange.Exchange{})
	_, _ = l.Next()
	_ = l.Close()
	if !src.closed || !errors.Is(told.err, errGone) || s.join(&exchange.Exchange{}) != nil {
		t.Errorf("closed %v, told %v", src.closed, told.err)
	}
}

func TestABodyThatEndsEarlyIsNotStored(t *testing.T) {
	for name, src := range map[string]*script{
		"cut":       {pieces: [][]byte{[]byte("abc")}, err: errShort},
		"too short": {pieces: [][]byte{[]byte("abc")}, err: io.EOF},
	} {
		s, told := newStream(src, 4, 1<<20)
		l := s.lead(&exchange.Exchange{})
		if _, err := drain(l); err == nil || told.err == io.EOF || told.n != 1 {
			t.Errorf("%s: %v, told %v", name, err, told.err)
		}
		_ = l.Close()
	}
}

// Readers that come, read at random and go, over bodies of all lengths: who stays gets it
// whole.
func TestStreamsUnderRandomReaders(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		all, whole := pieces(1+r.IntN(40), 1+r.IntN(300))
		s, _ := newStream(&script{pieces: all, err: io.EOF}, int64(len(whole)), int64(len(whole)))
		l := s.lead(&exchange.Exchange{})
		var followers []*follower
		for range r.IntN(6) {
			followers = append(followers, s.join(&exchange.Exchange{}))
		}
		var readers sync.WaitGroup
		for _, f := range followers {
			stays := r.IntN(3)
			readers.Go(func() {
				defer func() { _ = f.Close() }()
				if stays == 0 {
					_, _ = f.Next()
					return
				}
				if got, err := drain(f); err != nil || !bytes.Equal(got, whole) {
					t.Errorf("seed %d: %d of %d bytes, %v", seed, len(got), len(whole), err)
				}
			})
		}
		if r.IntN(2) == 0 {
			_, _ = drain(l)
		} else {
			_, _ = l.Next()
		}
		_ = l.Close()
		readers.Wait()
	}
}
