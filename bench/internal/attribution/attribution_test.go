package attribution

import (
	"bytes"
	"strings"
	"testing"

	pprof "github.com/google/pprof/profile"
)

var limiter = &Part{
	Packages: []string{"example.com/gate/limit", "example.com/redis"},
	Except:   []string{"example.com/gate/limit.(*Engine).Note", "example.com/gate/limit/keys"},
	Request:  []string{"example.com/gate/server"},
}

// stacks makes a CPU profile: of each stack, which is written innermost first with <
// between and functions inlined into the next with +, so many samples.
func stacks(samples map[string]int64) *pprof.Profile {
	p := &pprof.Profile{
		SampleType: []*pprof.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
		PeriodType: &pprof.ValueType{Type: "cpu", Unit: "nanoseconds"}, Period: 10_000_000,
	}
	for stack, n := range samples {
		s := &pprof.Sample{Value: []int64{n, n * p.Period}}
		for _, frame := range strings.Split(stack, " < ") {
			at := &pprof.Location{ID: uint64(len(p.Location) + 1)}
			for _, name := range strings.Split(frame, " + ") {
				f := &pprof.Function{ID: uint64(len(p.Function) + 1), Name: name}
				p.Function = append(p.Function, f)
				at.Line = append(at.Line, pprof.Line{Function: f})
			}
			p.Location = append(p.Location, at)
			s.Location = append(s.Location, at)
		}
		p.Sample = append(p.Sample, s)
	}
	return p
}

func written(t *testing.T, p *pprof.Profile) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestSampleIsThePartsWhenAnyFrameIs(t *testing.T) {
	const served = " < example.com/gate/server.(*conn).serve"
	cases := []struct {
		stack string
		want  whose
	}{
		{"example.com/gate/limit.(*Engine).decide" + served, request},
		{"runtime.memmove < example.com/gate/limit/meter.Take < example.com/gate/limit.(*Engine).decide" + served, request},
		{"example.com/gate/limit.take[...] + example.com/gate/policy.Chain.Request" + served, request},
		{"syscall.write < net.(*conn).Write < example.com/redis.(*pipe).write", beside},
		{"runtime.futex < example.com/redis/internal/queue.Put < example.com/gate/store.(*Client).run", beside},
		{"example.com/gate/limit.(*Engine).sweep", beside},
		{"syscall.write < example.com/gate/http1.Write" + served, others},
		{"example.com/gate/limiter.Do" + served, others},
		{"other.com/example.com/redis.Do", others},
		{"example.com/gate/limit.(*sketch).pick < example.com/gate/limit.(*Engine).Note" + served, others},
		{"example.com/gate/limit.(*Engine).Note.func1" + served, others},
		{"runtime.memequal < example.com/gate/limit/keys.(*Ring).find < example.com/gate/limit.(*chain).run" + served, others},
		{"example.com/gate/limit.(*Engine).Noted" + served, request},
		{"runtime.epollwait < runtime.findRunnable < runtime.mcall", nobody},
		{"internal/runtime/atomic.Load < runtime.gcBgMarkWorker", nobody},
		{"runtime/pprof.profileWriter", others},
		{"runtime.usleep < runtime/pprof.profileWriter", others},
	}
	for _, c := range cases {
		want := Split{Samples: 3, Seconds: 0.03}
		switch c.want {
		case request:
			want.Request = 3
		case beside:
			want.Beside = 3
		case nobody:
			want.Nobody = 3
		}
		got, err := Read(written(t, stacks(map[string]int64{c.stack: 3})), limiter)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", c.stack, got, err, want)
		}
	}
}

func TestSamplesAddUp(t *testing.T) {
	got, err := Read(written(t, stacks(map[string]int64{
		"example.com/gate/limit.fields < example.com/gate/server.serve": 20,
		"example.com/gate/limit.decide < example.com/gate/server.serve": 11,
		"syscall.read < example.com/redis.(*pipe).read":                 7,
		"syscall.write < example.com/gate/server.serve":                 950,
		"runtime.epollwait < runtime.netpoll < runtime.findRunnable":    12,
	})), limiter)
	if want := (Split{Samples: 1000, Request: 31, Beside: 7, Nobody: 12, Seconds: 10}); err != nil || got != want || got.Part() != 38 {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
}

func TestWhatIsNoCPUProfileIsRefused(t *testing.T) {
	heap := stacks(map[string]int64{"example.com/gate/limit.decide": 1})
	heap.SampleType[0].Type, heap.PeriodType.Type = "alloc_objects", "space"
	for name, b := range map[string]*bytes.Buffer{
		"text": bytes.NewBufferString("404 page not found\n"), "heap": written(t, heap), "nothing": {},
	} {
		if got, err := Read(b, limiter); err == nil {
			t.Errorf("%s: %+v, want an error", name, got)
		}
	}
}
