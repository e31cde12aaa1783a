package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// gate is a writer that stands still until it is opened.
type gate struct {
	entered chan struct{}
	open    chan struct{}
	got     bytes.Buffer
}

func (g *gate) Write(p []byte) (int, error) {
	select {
	case g.entered <- struct{}{}:
	default:
	}
	<-g.open
	return g.got.Write(p)
}

func TestASpillWritesEverythingInOrder(t *testing.T) {
	var out bytes.Buffer
	s := NewSpill(&out)
	var want strings.Builder
	line := []byte("line 000\n")
	for i := range 500 {
		copy(line[5:], fmt.Sprintf("%03d", i))
		want.Write(line)
		_, _ = s.Write(line) // the same memory each time
	}
	if err := s.Close(t.Context()); err != nil || out.String() != want.String() || s.Lost() != 0 {
		t.Errorf("%v, %d lost, %d bytes, want %d", err, s.Lost(), out.Len(), want.Len())
	}
}

func TestNobodyWaitsForASpillThatStandsStill(t *testing.T) {
	g := &gate{entered: make(chan struct{}, 1), open: make(chan struct{})}
	s := NewSpill(g)
	_, _ = s.Write([]byte("first\n"))
	<-g.entered
	for range spillLines + 7 {
		_, _ = s.Write([]byte("x\n"))
	}
	if s.Lost() != 7 {
		t.Errorf("%d lost, want 7", s.Lost())
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Close(over); !errors.Is(err, context.Canceled) {
		t.Errorf("Close: %v", err)
	}
	close(g.open)
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	const told = `{"level":"WARN","msg":"lines of this log were lost","lost":7}` + "\n"
	if want := "first\n" + told + strings.Repeat("x\n", spillLines); g.got.String() != want {
		t.Errorf("%d bytes, want %d: %.80q", g.got.Len(), len(want), g.got.String())
	}
}
