package apptest

import (
	"bytes"
	"context"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// gateway is a running sluice.
type gateway struct {
	t     testing.TB
	setup setup
	dir   string
	ports map[string]string // what the @NAMES@ of the config stand for
	cmd   *exec.Cmd
	out   *output // stdout
	err   *output // stderr
	admin *http.Client
	ended chan struct{} // closed when the process has ended
	exit  error         // of the process, behind ended
}

// setup is how a gateway is started.
type setup struct {
	// config is the YAML of sluice.yaml. @NAME@ stands for vars[NAME], and for a
	// free address of its own where vars has none. @ADMIN@ is always the admin
	// API's.
	config   string
	vars     map[string]string
	files    map[string]string // further files, relative to the config
	env      []string
	measured bool // use the build without the race detector
}

var placeholder = regexp.MustCompile(`@[A-Z0-9_]+@`)

// start runs a gateway until the test ends, and waits until it is ready. The
// test fails when it does not stop cleanly.
func start(t testing.TB, s setup) *gateway {
	t.Helper()
	g := &gateway{t: t, setup: s, dir: t.TempDir()}
	for name, content := range s.files {
		write(t, filepath.Join(g.dir, name), content)
	}
	if !strings.Contains(s.config, "@ADMIN@") {
		g.setup.config += "\nadmin: {address: \"@ADMIN@\", pprof: true}\n"
	}
	for attempt := 1; ; attempt++ {
		err := g.launch()
		if err == nil {
			break
		}
		// Another process may have taken a port between the look and the bind.
		if attempt == 3 || !strings.Contains(g.err.String(), "address already in use") {
			t.Fatalf("sluice did not become ready: %v\n%s", err, g.tail())
		}
	}
	t.Cleanup(g.finish)
	return g
}

func (g *gateway) launch() error {
	g.ports = map[string]string{}
	for name, value := range g.setup.vars {
		g.ports["@"+name+"@"] = value
	}
	write(g.t, g.configPath(), g.expand(g.setup.config))
	g.out, g.err = newOutput(), newOutput()
	g.ended = make(chan struct{})
	g.cmd = exec.Command(sluice(g.t, g.setup.measured), "run", "-c", g.configPath())
	g.cmd.Dir = g.dir
	g.cmd.Env = append(os.Environ(), g.setup.env...)
	g.cmd.Stdout, g.cmd.Stderr = g.out, g.err
	if err := g.cmd.Start(); err != nil {
		return err
	}
	go func() {
		g.exit = g.cmd.Wait()
		close(g.ended)
	}()
	g.admin = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}, Timeout: 30 * time.Second}
	err := poll(20*time.Second, func() error {
		if g.hasEnded() {
			return fmt.Errorf("it ended: %w", stop{g.exit})
		}
		status, _, err := g.adminGet("/readyz")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("readyz says %d", status)
		}
		return err
	})
	if err != nil {
		g.kill()
	}
	return err
}

func (g *gateway) configPath() string { return filepath.Join(g.dir, "sluice.yaml") }

// expand puts addresses in the place of @NAMES@.
func (g *gateway) expand(s string) string {
	return placeholder.ReplaceAllStringFunc(s, func(name string) string {
		if g.ports[name] == "" {
			g.ports[name] = freeAddress(g.t)
		}
		return g.ports[name]
	})
}

// addr is the address that @name@ stands for.
func (g *gateway) addr(name string) string {
	a := g.ports["@"+name+"@"]
	if a == "" {
		g.t.Fatalf("the config names no @%s@", name)
	}
	return a
}

func (g *gateway) adminURL(path string) string { return "http://" + g.addr("ADMIN") + path }

func (g *gateway) adminGet(path string) (int, []byte, error) {
	resp, err := g.admin.Get(g.adminURL(path))
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// adminDo sends a request to the admin API and returns the whole answer.
func (g *gateway) adminDo(method, path, body string, header ...string) (*http.Response, []byte) {
	g.t.Helper()
	req, err := http.NewRequest(method, g.adminURL(path), strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := g.admin.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return resp, got
}

// metric returns the sum of a metric's samples whose line holds all of labels.
func (g *gateway) metric(name string, labels ...string) float64 {
	g.t.Helper()
	_, body, err := g.adminGet("/metrics")
	if err != nil {
		g.t.Fatal(err)
	}
	var sum float64
lines:
	for line := range strings.Lines(string(body)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(rest, l) {
				continue lines
			}
		}
		f := strings.Fields(rest)
		v, err := strconv.ParseFloat(f[len(f)-1], 64)
		if err != nil {
			g.t.Fatalf("metric line %q: %v", line, err)
		}
		sum += v
	}
	return sum
}

func (g *gateway) signal(s syscall.Signal) {
	g.t.Helper()
	if err := g.cmd.Process.Signal(s); err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) hasEnded() bool {
	select {
	case <-g.ended:
		return true
	default:
		return false
	}
}

// stop ends the gateway with SIGTERM and returns when it has ended.
func (g *gateway) stop() {
	g.t.Helper()
	if !g.hasEnded() {
		g.signal(syscall.SIGTERM)
	}
	g.waitExit(45 * time.Second)
}

// waitExit waits for a clean end.
func (g *gateway) waitExit(within time.Duration) {
	g.t.Helper()
	late := time.NewTimer(within)
	defer late.Stop()
	select {
	case <-g.ended:
	case <-late.C:
		_ = g.cmd.Process.Signal(syscall.SIGQUIT) // for the goroutine dump
		select {
		case <-g.ended:
		case <-time.After(5 * time.Second):
		}
		g.kill()
		g.t.Fatalf("sluice did not end within %v\n%s", within, g.err.String())
	}
	if g.exit != nil {
		g.t.Errorf("sluice ended with %v, want exit status 0\n%s", g.exit, g.tail())
	}
	if e := g.err.String(); strings.Contains(e, "WARNING: DATA RACE") || strings.Contains(e, "panic:") || strings.Contains(e, "goroutine 1 [") {
		g.t.Errorf("sluice's stderr:\n%s", e)
	}
}

func (g *gateway) kill() {
	if g.admin != nil {
		g.admin.CloseIdleConnections()
	}
	if g.cmd.Process != nil {
		_ = g.cmd.Process.Kill()
		<-g.ended
	}
}

func (g *gateway) finish() {
	if !g.hasEnded() {
		g.stop()
	}
	g.admin.CloseIdleConnections()
	if g.t.Failed() {
		g.t.Logf("the last of sluice's output:\n%s", g.tail())
	}
}

// tail is the end of what the gateway printed.
func (g *gateway) tail() string {
	last := func(s string) string {
		if len(s) > 6000 {
			s = "…" + s[len(s)-6000:]
		}
		return s
	}
	return "stdout: " + last(g.out.String()) + "\nstderr: " + last(g.err.String())
}

// memory is a figure of /proc/PID/status in bytes: VmRSS, or VmHWM, its peak.
func (g *gateway) memory(figure string) int64 {
	g.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.cmd.Process.Pid))
	if err != nil {
		g.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, figure+":"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				g.t.Fatal(err)
			}
			return kib << 10
		}
	}
	g.t.Fatalf("no %s in %s", figure, status)
	return 0
}

// resetPeak makes VmHWM count from now.
func (g *gateway) resetPeak() {
	g.t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", g.cmd.Process.Pid), []byte("5"), 0); err != nil {
		g.t.Fatal(err)
	}
}

// output collects what a process prints.
type output struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	moved chan struct{}
}

func newOutput() *output { return &output{moved: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.moved)
	o.moved = make(chan struct{})
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// await waits until the output satisfies found.
func (o *output) await(t testing.TB, what string, found func(string) bool) string {
	t.Helper()
	late := time.NewTimer(15 * time.Second)
	defer late.Stop()
	for {
		o.mu.Lock()
		s, moved := o.buf.String(), o.moved
		o.mu.Unlock()
		if found(s) {
			return s
		}
		select {
		case <-moved:
		case <-late.C:
			t.Fatalf("the output never showed %s:\n%s", what, s)
		}
	}
}

// stop is an error that ends a poll at once.
type stop struct{ error }

// poll calls f until it returns nil, and returns its last error when that does
// not happen in time.
func poll(within time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		err := f()
		var end stop
		if err == nil || errors.As(err, &end) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("after %v: %w", within, err)
		case <-again.C:
		}
	}
}

// eventually fails the test unless f returns nil in time.
func eventually(t testing.TB, within time.Duration, f func() error) {
	t.Helper()
	if err := poll(within, f); err != nil {
		t.Fatal(err)
	}
}

// handed are the ports given out, so that parallel tests never get the same.
var handed = struct {
	sync.Mutex
	ports map[int]bool
}{ports: map[int]bool{}}

// freeAddress returns an address that nobody listens on. Its port lies below
// the range that the kernel takes for outgoing connections, so none of those can
// take it before the gateway does.
func freeAddress(t testing.TB) string {
	t.Helper()
	handed.Lock()
	defer handed.Unlock()
	for range 1000 {
		port := 10000 + rand.IntN(22000)
		if handed.ports[port] {
			continue
		}
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		_ = ln.Close()
		handed.ports[port] = true
		return addr
	}
	t.Fatal("no free port")
	return ""
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// deadline returns a context that ends in good time to fail the test with sense.
func deadline(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// counter counts by name.
type counter struct {
	mu sync.Mutex
	n  map[string]int
}

func newCounter() *counter { return &counter{n: map[string]int{}} }

// add counts one more of name and returns how many there are.
func (c *counter) add(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[name]++
	return c.n[name]
}

func (c *counter) all() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.n)
}

func pkixName(common string) pkix.Name { return pkix.Name{CommonName: common} }

// quiet is where origins log what tests provoke.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }
