package audit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// children are what the test binary does as a child, in the folder it is given.
var children = map[string]func(dir string) error{
	"write": writeUntilKilled,
	"small": writeUntilFull,
}

func child(t *testing.T, role, dir string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self, dir)
	c.Env = append(os.Environ(), childEnv+"="+role)
	c.Stderr = os.Stderr
	return c
}

// writeUntilKilled commits events from several goroutines, beside a flood of writes,
// and prints what it was told is on disk.
func writeUntilKilled(dir string) error {
	l, err := Open(Options{File: "audit.jsonl", Dir: dir, RotateAt: 256 << 10})
	if err != nil {
		return err
	}
	var out sync.Mutex
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("%d.%d.%d", os.Getpid(), g, i)
				for range 8 {
					l.Write(Event{Kind: "flood", Reason: strings.Repeat("x", 300)})
				}
				if err := l.Commit(context.Background(), Event{Kind: "test", Target: name}); err != nil {
					fmt.Println("error:", err)
					return
				}
				out.Lock()
				fmt.Println(name)
				out.Unlock()
			}
		})
	}
	all.Wait()
	return errors.New("it ended")
}

func TestAKilledWriterLosesNothingThatWasCommitted(t *testing.T) {
	dir := t.TempDir()
	told := map[string]bool{}
	for range 50 {
		c := child(t, "write", dir)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(20*time.Millisecond+rand.N(60*time.Millisecond), func() { _ = c.Process.Kill() })
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "error") {
				t.Error(lines.Text())
			}
			told[lines.Text()] = true
		}
		_ = c.Wait() // killed
		kill.Stop()
	}
	shut(t, open(t, dir))
	names := files(t, dir)
	c := whole(t, names...)
	repaired := 0
	for _, d := range written(t, names...) {
		delete(told, d.Target)
		if d.Kind == kindRepaired {
			repaired++
		}
	}
	if len(told) > 0 {
		t.Errorf("%d acknowledged lines are missing, such as %v", len(told), told)
	}
	t.Logf("%d lines in %d files, %d torn ends repaired", c.Lines, len(names), repaired)
}

// writeUntilFull commits until the limit of its file size stops it.
func writeUntilFull(dir string) error {
	signal.Ignore(syscall.SIGXFSZ)
	l, err := Open(Options{File: "audit.jsonl", Dir: dir, OnFault: "closed"})
	if err != nil {
		return err
	}
	limit := syscall.Rlimit{Cur: 20_000, Max: 40_000}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	n := 0
	for ; err == nil; n++ {
		if n > 1000 {
			return errors.New("it is never full")
		}
		err = l.Commit(context.Background(), Event{Kind: "test", Target: fmt.Sprint(n)})
	}
	fmt.Println("full:", err)
	if l.Healthy() {
		return errors.New("it is full and says it is not")
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	if err := l.Commit(context.Background(), Event{Kind: "test", Target: "again"}); err != nil {
		return err
	}
	fmt.Println("done", n)
	return l.Close(context.Background())
}

// A file that cannot grow takes a part of a write, as a full disk does.
func TestAFileThatCannotGrow(t *testing.T) {
	dir := t.TempDir()
	out, err := child(t, "small", dir).Output()
	_, end, ok := strings.Cut(string(out), "done ")
	if err != nil || !ok || !strings.Contains(string(out), "file too large") {
		t.Fatalf("%v: %s", err, out)
	}
	var n int
	if _, err := fmt.Sscan(end, &n); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "audit.jsonl")
	if c := whole(t, path); c.Lines != n+4 {
		t.Errorf("%d lines, %d were committed", c.Lines, n+1)
	}
}
