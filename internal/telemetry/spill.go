package telemetry

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// Spill is a writer that nobody waits for: lines are written by a goroutine of its
// own, and when that is held up, by a pipe that nobody reads or a disk that
// hangs, what does not fit into spillLines is lost and counted. A log that stands
// still must hold up neither a request nor the end of the process.
type Spill struct {
	w     io.Writer
	lines chan []byte
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once
	lost  atomic.Uint64
}

// spillLines is how many lines wait at most; at a few hundred bytes each they
// are a quarter of a MiB.
const spillLines = 1024

// NewSpill returns a writer in front of w. It must be closed.
func NewSpill(w io.Writer) *Spill {
	s := &Spill{w: w, lines: make(chan []byte, spillLines), stop: make(chan struct{}), done: make(chan struct{})}
	go s.run()
	return s
}

// Write takes a copy of p, which should be whole lines. It never fails and never
// waits. What comes behind Close is lost.
func (s *Spill) Write(p []byte) (int, error) {
	select {
	case s.lines <- append([]byte(nil), p...):
	default:
		s.lost.Add(1)
	}
	return len(p), nil
}

// Lost is how many writes were lost.
func (s *Spill) Lost() uint64 { return s.lost.Load() }

// Close writes what waits, as long as ctx allows.
func (s *Spill) Close(ctx context.Context) error {
	s.once.Do(func() { close(s.stop) })
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("log: %w", ctx.Err())
	}
}

func (s *Spill) run() {
	defer close(s.done)
	var told uint64
	for {
		select {
		case line := <-s.lines:
			told = s.write(line, told)
		case <-s.stop:
			for {
				select {
				case line := <-s.lines:
					told = s.write(line, told)
				default:
					return
				}
			}
		}
	}
}

// write writes a line, and in front of it how many were lost since told.
func (s *Spill) write(line []byte, told uint64) uint64 {
	lost := s.lost.Load()
	if lost > told {
		_, _ = fmt.Fprintf(s.w, `{"level":"WARN","msg":"lines of this log were lost","lost":%d}`+"\n", lost-told)
	}
	_, _ = s.w.Write(line) // a log that cannot be written has nowhere to say so
	return lost
}
