// Package redistest starts real Redis servers for tests: one, a master with
// replicas behind sentinels, or a cluster. Each runs in a folder of its own, on
// free ports of 127.0.0.1, without persistence, and ends with the test. It needs
// `redis-server` (7.0 or later) in the PATH; a test that finds none fails.
//
//	s := redistest.Start(t)                  // s.Addr() is host:port
//	s.Kill(); s.Restart()                    // SIGKILL; back on the same port, empty
//	s.Stop(); s.Cont()                       // SIGSTOP and SIGCONT: frozen, not gone
//	s.Do("GET", "key")                       // a command on a connection of its own
package redistest

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds how long anything here waits for a server.
const patience = 20 * time.Second

// Server is one redis-server process. Its methods fail the test when something
// goes wrong; they may be called from any goroutine, but one at a time.
type Server struct {
	t    testing.TB
	dir  string
	port string
	args []string

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
}

// Start starts a single server with extra arguments as on its command line, such
// as "--requirepass", "x", and waits until it answers.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	var s *Server
	for range 5 { // somebody else may take the port before the server does
		s = &Server{t: t, dir: t.TempDir(), port: FreePort(t), args: args}
		if s.start(); s.await() {
			t.Cleanup(s.Kill)
			return s
		}
		s.Kill()
	}
	log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	t.Fatalf("redistest: redis-server does not start:\n%s", log)
	return nil
}

// Addr is where the server listens, host:port.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", s.port) }

// Port is the port alone.
func (s *Server) Port() string { return s.port }

// Kill ends the process with SIGKILL and waits until it is gone. On a server that
// is not running it does nothing.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // an error: it has ended by itself
	<-s.exited
	s.cmd = nil
}

// Stop freezes the process: connections stay, nothing is answered.
func (s *Server) Stop() { s.signal(syscall.SIGSTOP) }

// Cont lets a frozen process go on; what was sent meanwhile is then executed.
func (s *Server) Cont() { s.signal(syscall.SIGCONT) }

// Restart kills the process if it runs, starts it again on the same port, without
// its data, and waits until it answers.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	s.start()
	if !s.await() {
		log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
		s.t.Fatalf("redistest: redis-server does not start again:\n%s", log)
	}
}

// Do sends one command on a connection of its own and returns the reply: a
// string, int64, nil or []any. An error reply, or none in time, fails the test.
func (s *Server) Do(args ...string) any {
	s.t.Helper()
	v, err := Do(s.Addr(), args...)
	if err != nil {
		s.t.Fatalf("redistest: %s of %s: %v", args[0], s.Addr(), err)
	}
	return v
}

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		s.t.Fatalf("redistest: %s is not running", s.Addr())
	}
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("redistest: %s: %v", s.Addr(), err)
	}
}

func (s *Server) start() {
	s.t.Helper()
	args := append([]string{
		"--port", s.port, "--bind", "127.0.0.1", "--dir", s.dir, "--logfile", filepath.Join(s.dir, "log"),
		"--save", "", "--appendonly", "no", "--daemonize", "no", "--protected-mode", "no",
	}, s.args...)
	s.launch(exec.Command("redis-server", args...))
}

func (s *Server) launch(cmd *exec.Cmd) {
	s.t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &out, &out, withParent()
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("redistest: %v (is redis-server installed?)", err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	s.mu.Lock()
	s.cmd, s.exited = cmd, exited
	s.mu.Unlock()
}

// await waits until the server answers; false when it has ended or never does.
func (s *Server) await() bool {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if _, err := Do(s.Addr(), "PING"); err == nil || isReply(err) {
			return true
		}
		select {
		case <-s.exited:
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
	return false
}

// until polls f every few milliseconds; it fails the test when it never holds.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("redistest: %s: not within %s", what, patience)
		}
	}
}

// FreePort is a TCP port of 127.0.0.1 that was free a moment ago.
func FreePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
