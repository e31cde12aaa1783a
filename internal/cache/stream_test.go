package cache

import (
	"bytes"
	"errors"
	"fmt"
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
	for _, most := range []int64{1 << 20, 700} {
		t.Run(fmt.Sprintf("at most %d", most), func(t *testing.T) {
			all, whole := pieces(50, 100)
			src := &script{pieces: all, err: io.EOF}
			s, told := newStream(src, exchange.Unknown, most)
			l := s.lead(&exchange.Exchange{})
			var followers []exchange.Body
			for range 20 {
				followers = append(followers, s.follow(&exchange.Exchange{}))
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
			if stored := told.err == io.EOF && bytes.Equal(told.body, whole); told.n != 1 || stored != (most > 5000) || !src.closed {
				t.Errorf("told %d times, %v, %d bytes; closed %v", told.n, told.err, len(told.body), src.closed)
			}
			if n := s.room.used.Load(); n != 0 {
				t.Errorf("%d bytes of room are still taken", n)
			}
		})
	}
}

func TestWhoFollowsNeedsNoLeader(t *testing.T) {
	all, whole := pieces(30, 1000)
	s, told := newStream(&script{pieces: all, err: io.EOF}, int64(len(whole)), 1<<20)
	s.lead(&exchange.Exchange{}) // never reads
	f := s.follow(&exchange.Exchange{})
	if got, err := drain(f); err != nil || !bytes.Equal(got, whole) || told.err != io.EOF {
		t.Errorf("%d bytes, %v, told %v", len(got), err, told.err)
	}
}

func TestALeaderThatGoesReadsOnForOthers(t *testing.T) {
	all, whole := pieces(30, 1000)
	s, told := newStream(&script{pieces: all, err: io.EOF}, exchange.Unknown, 1<<20)
	l := s.lead(&exchange.Exchange{})
	f := s.follow(&exchange.Exchange{})
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
	if !src.closed || !errors.Is(told.err, errGone) || s.follow(&exchange.Exchange{}) != nil {
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

func TestTheSlowestBoundsWhatAStreamKeeps(t *testing.T) {
	all, whole := pieces(200, 100)
	s, _ := newStream(&script{pieces: all, err: io.EOF}, exchange.Unknown, 1000)
	l, f := s.lead(&exchange.Exchange{}), s.follow(&exchange.Exchange{})
	done := make(chan []byte)
	go func() {
		got, _ := drain(l)
		done <- got
	}()
	var got []byte
	for {
		s.mu.Lock()
		if len(s.b) > 1100 {
			t.Errorf("%d bytes are kept", len(s.b))
		}
		s.mu.Unlock()
		p, err := f.Next()
		got = append(got, p...)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	_ = f.Close()
	if led := <-done; !bytes.Equal(led, whole) || !bytes.Equal(got, whole) {
		t.Errorf("the leader got %d, the follower %d of %d bytes", len(led), len(got), len(whole))
	}
}

// Readers that come, read at random and go, over bodies of all lengths: who stays gets it
// whole.
func TestStreamsUnderRandomReaders(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		all, whole := pieces(1+r.IntN(40), 1+r.IntN(300))
		length := int64(exchange.Unknown)
		if r.IntN(2) == 0 {
			length = int64(len(whole))
		}
		s, _ := newStream(&script{pieces: all, err: io.EOF}, length, int64(1+r.IntN(6000)))
		l := s.lead(&exchange.Exchange{})
		var followers []exchange.Body
		for range r.IntN(6) {
			followers = append(followers, s.follow(&exchange.Exchange{}))
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
