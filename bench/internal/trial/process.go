//go:build linux

package trial

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sluice-gateway/sluice/bench/internal/gateways"
	"github.com/sluice-gateway/sluice/bench/internal/proc"
)

// spawner starts programs from one thread that lives as long as it does. The
// kernel kills them when that thread ends, so they do not outlive a bench that
// is killed; any other thread could end while they are in use.
type spawner struct {
	start chan func()
}

func newSpawner() *spawner {
	s := &spawner{start: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for f := range s.start {
			f()
		}
	}()
	return s
}

func (s *spawner) close() { close(s.start) }

// process is a program that runs beside the bench.
type process struct {
	name string
	cmd  *exec.Cmd
	out  *tail
	done chan struct{} // closed when it has ended
	err  error         // why; read after done
}

// run starts a program in a process group of its own, on the given cores (empty:
// all).
func (s *spawner) run(name, dir string, c gateways.Command, cpus []int) (*process, error) {
	path, args := c.Path, c.Args
	if len(cpus) > 0 {
		args = append([]string{"-c", cpuList(cpus), path}, args...)
		path = "taskset"
	}
	p := &process{name: name, cmd: exec.Command(path, args...), out: &tail{}, done: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	// Children of it that go on may hold the pipe.
	p.cmd.WaitDelay = time.Second
	started := make(chan error)
	s.start <- func() { started <- p.cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func cpuList(cpus []int) string {
	var names []string
	for _, c := range cpus {
		names = append(names, strconv.Itoa(c))
	}
	return strings.Join(names, ",")
}

// stop asks a program to end and makes it end, with all that it started.
func (p *process) stop() {
	pid := p.cmd.Process.Pid
	select {
	case <-p.done:
	default:
		tree, err := proc.Tree(pid)
		if err != nil {
			tree = []int{pid}
		}
		_ = syscall.Kill(pid, syscall.SIGTERM)
		patience := time.NewTimer(5 * time.Second)
		defer patience.Stop()
		select {
		case <-p.done:
		case <-patience.C:
			for _, pid := range tree {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			<-p.done
		}
	}
	// Workers whose master did not take them along.
	if err := syscall.Kill(-pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return
	}
}

// ended is an error that says how a program ended and what it said, or nil while
// it runs.
func (p *process) ended() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended by itself (%v):\n%s", p.name, p.err, p.out)
	default:
		return nil
	}
}

// await polls until check succeeds, the program ends or the time is over.
func (p *process) await(ctx context.Context, patience time.Duration, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-poll.C:
		case <-p.done:
			return p.ended()
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return fmt.Errorf("%s does not answer as it should after %v: %w\n%s", p.name, patience, err, p.out)
		}
	}
}

// tail keeps the last part of what a program says.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const (
	keptOutput = 16 << 10
	keptLines  = 40
	longLine   = 240
)

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if extra := len(t.b) - keptOutput; extra > 0 {
		t.b = t.b[:copy(t.b, t.b[extra:])]
	}
	return len(p), nil
}

// String is what was said last, with long lines cut.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(t.b)), "\n")
	for i, l := range lines {
		if len(l) > longLine {
			lines[i] = strings.ToValidUTF8(l[:longLine], "") + "…"
		}
	}
	return strings.Join(lines[max(0, len(lines)-keptLines):], "\n")
}

// taken tells that a program could not listen because somebody else does.
func (t *tail) taken() bool {
	said := strings.ToLower(t.String())
	return strings.Contains(said, "in use") || strings.Contains(said, "cannot bind")
}
