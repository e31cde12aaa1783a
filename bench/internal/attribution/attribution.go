// Package attribution tells how much of a Go program's CPU goes to one part of it,
// from a profile that the program took of itself.
//
// A CPU profile is samples, one for each 10 ms that a thread ran, each with the
// functions that were under way, the system calls' callers too. A sample belongs to
// the part when any of them is of one of the part's packages: what these call is
// theirs, whoever wrote it. So
//
//	syscall.write < net.(*conn).Write < rueidis.(*pipe)._backgroundWrite
//
// is the Redis client's, and so is a memmove or the collector's assistance that a
// function of the part had to wait for. What the part causes without being on the
// stack is nobody's: the scheduler, which parks and wakes goroutines on a stack of its
// own, the collector in the background, and whatever runs slower because the part's
// data took its place in a cache.
package attribution

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	pprof "github.com/google/pprof/profile"
)

// Part is what is sought in a program. Packages are import paths, each with those
// below it.
type Part struct {
	Packages []string
	// Except are packages, and functions by their full names, that the part's packages
	// contain or call and that are not the part's: samples in them are others'.
	Except []string
	// Request is packages of which one is on the stack whenever a request is served.
	Request []string
}

// Split is the samples of a profile, divided.
type Split struct {
	Samples int64   `json:"samples"` // all of them
	Request int64   `json:"request"` // the part's, while a request is served
	Beside  int64   `json:"beside"`  // the part's, in goroutines of its own
	Nobody  int64   `json:"nobody"`  // the Go runtime's alone: scheduler and collector
	Seconds float64 `json:"seconds"` // of CPU that the samples stand for
}

// Part is how many samples are the part's.
func (s Split) Part() int64 { return s.Request + s.Beside }

// Plus is the samples of both.
func (s Split) Plus(t Split) Split {
	return Split{s.Samples + t.Samples, s.Request + t.Request, s.Beside + t.Beside, s.Nobody + t.Nobody, s.Seconds + t.Seconds}
}

// Read divides a CPU profile as /debug/pprof/profile serves it.
func Read(r io.Reader, part *Part) (Split, error) {
	p, err := pprof.Parse(r)
	if err != nil {
		return Split{}, fmt.Errorf("the profile cannot be read: %w", err)
	}
	count := -1
	for i, t := range p.SampleType {
		if t.Type == "samples" && t.Unit == "count" {
			count = i
		}
	}
	if count < 0 || p.PeriodType == nil || p.PeriodType.Type != "cpu" || p.PeriodType.Unit != "nanoseconds" {
		return Split{}, errors.New("the profile is none of CPU time")
	}
	var s Split
	for _, sample := range p.Sample {
		n := sample.Value[count]
		s.Samples += n
		switch part.of(functions(sample)) {
		case request:
			s.Request += n
		case beside:
			s.Beside += n
		case nobody:
			s.Nobody += n
		}
	}
	s.Seconds = float64(s.Samples) * float64(p.Period) / 1e9
	return s, nil
}

// functions are the names on the stack of a sample, those that were inlined too.
func functions(s *pprof.Sample) []string {
	var names []string
	for _, at := range s.Location {
		for _, line := range at.Line {
			if line.Function != nil {
				names = append(names, line.Function.Name)
			}
		}
	}
	return names
}

// whose says to whom a sample goes.
type whose int

const (
	others whose = iota
	request
	beside
	nobody
)

func (p *Part) of(stack []string) whose {
	owned, served, runtime := false, false, true
	for _, f := range stack {
		if slices.Contains(p.Except, f) || within(f, p.Except) {
			return others
		}
		owned = owned || within(f, p.Packages)
		served = served || within(f, p.Request)
		// What the profile itself costs is in runtime/pprof, which is no such frame.
		runtime = runtime && (strings.HasPrefix(f, "runtime.") || strings.HasPrefix(f, "internal/runtime/"))
	}
	switch {
	case owned && served:
		return request
	case owned:
		return beside
	case runtime:
		return nobody
	}
	return others
}

// within reports whether a function, by its full name such as
// example.com/a/b.(*T).Method, is of one of the packages or of one below them.
func within(function string, packages []string) bool {
	for _, p := range packages {
		rest, ok := strings.CutPrefix(function, p)
		if ok && rest != "" && (rest[0] == '.' || rest[0] == '/') {
			return true
		}
	}
	return false
}
