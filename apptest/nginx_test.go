package apptest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/gatetest"
)

// nginx is a real nginx as an origin: it serves, and takes by PUT, the files
// below dir/html/files.
type nginx struct {
	t    testing.TB
	dir  string
	addr string
	cmd  *exec.Cmd
}

const nginxConfig = `
%s
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log warn;
worker_rlimit_nofile 16384;
events { worker_connections 8192; }
http {
	access_log off;
	log_format ids '$http_x_unique $request_method $status';
	log_format bodies escape=json '$request_method $content_length $http_transfer_encoding "$request_body"';
	client_body_temp_path tmp/body;
	proxy_temp_path tmp/proxy;
	fastcgi_temp_path tmp/fastcgi;
	uwsgi_temp_path tmp/uwsgi;
	scgi_temp_path tmp/scgi;
	client_max_body_size 0;
	keepalive_requests 100000000;
	server {
		listen %[2]s backlog=4096;
		root html;
		location /files/ {
			dav_methods PUT DELETE;
			create_full_put_path on;
		}
		location /post {
			access_log bodies.log bodies;
			proxy_pass http://%[2]s/answer;
			proxy_set_header X-Method $request_method;
			proxy_method GET;
		}
		location /answer { return 200 "posted $http_x_method\n"; }
		location /hello { return 200 "hello from nginx\n"; }
		location /count {
			access_log ids.log ids;
			return 200 "counted\n";
		}
	}
}
`

func startNginx(t testing.TB) *nginx {
	t.Helper()
	if _, err := exec.LookPath("nginx"); err != nil {
		t.Fatal("this test needs nginx: apt-get install nginx")
	}
	n := &nginx{t: t, dir: t.TempDir(), addr: freeAddress(t)}
	for _, dir := range []string{"html/files", "tmp"} {
		if err := os.MkdirAll(filepath.Join(n.dir, dir), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // the temporary directory is root's
	}
	write(t, filepath.Join(n.dir, "nginx.conf"), fmt.Sprintf(nginxConfig, user, n.addr))
	n.run()
	t.Cleanup(n.kill)
	return n
}

// run starts nginx and returns when it accepts connections.
func (n *nginx) run() {
	n.t.Helper()
	n.cmd = exec.Command("nginx", "-p", n.dir, "-c", "nginx.conf", "-e", "error.log")
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := os.Create(n.path("stderr"))
	if err != nil {
		n.t.Fatal(err)
	}
	defer out.Close()
	n.cmd.Stderr = out
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	eventually(n.t, 10*time.Second, func() error {
		c, err := net.Dial("tcp", n.addr)
		if err != nil {
			said, _ := os.ReadFile(n.path("stderr")) // an empty one says as much as none
			return fmt.Errorf("%w; %s", err, said)
		}
		return c.Close()
	})
}

// kill ends nginx and its worker at once, as a crash would.
func (n *nginx) kill() {
	if n.cmd == nil {
		return
	}
	_ = syscall.Kill(-n.cmd.Process.Pid, syscall.SIGKILL)
	_ = n.cmd.Wait()
	n.cmd = nil
}

func (n *nginx) path(name string) string { return filepath.Join(n.dir, name) }

const nginxGateway = `
listeners: [{name: plain, address: "@PLAIN@"}]
admin: {address: "@ADMIN@"}
limits: {max_body_size: 2GiB}
log: {access: {output: none}}
upstreams: {nginx: {targets: ["http://@NGINX@"]}}
routes: [{name: all, path: "/{rest...}", upstream: nginx}]
`

// TestNginx puts the gateway before a real nginx.
func TestNginx(t *testing.T) {
	n := startNginx(t)
	g := start(t, setup{config: nginxGateway, vars: map[string]string{"NGINX": n.addr}})
	c := gatetest.NewClient(gatetest.Drivers[0], g.addr("PLAIN"), nil)
	defer c.CloseIdleConnections()
	do := func(t *testing.T, m gatetest.Message) *gatetest.Reply {
		t.Helper()
		m.Host = "a.test"
		r, err := c.Do(deadline(t, 20*time.Second), m)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	t.Run("GET", func(t *testing.T) {
		if r := do(t, gatetest.Message{Target: "/hello"}); r.Status != 200 || r.Body != "hello from nginx\n" || !strings.HasPrefix(r.Header.Get("Server"), "nginx") {
			t.Errorf("%d %q %v", r.Status, r.Body, r.Header)
		}
	})
	t.Run("HEAD", func(t *testing.T) {
		if r := do(t, gatetest.Message{Method: "HEAD", Target: "/hello"}); r.Status != 200 || r.Body != "" || r.Length != int64(len("hello from nginx\n")) {
			t.Errorf("%d %q, length %d", r.Status, r.Body, r.Length)
		}
	})
	t.Run("POST", func(t *testing.T) {
		for _, unknown := range []bool{false, true} {
			if r := do(t, gatetest.Message{Method: "POST", Target: "/post", Body: `the "body"`, Unknown: unknown}); r.Status != 200 || r.Body != "posted POST\n" {
				t.Errorf("%d %q", r.Status, r.Body)
			}
		}
		// nginx writes its log behind the reply.
		want := "POST 10  \"the \\\"body\\\"\"\nPOST 10 chunked \"the \\\"body\\\"\"\n"
		eventually(t, 5*time.Second, func() error {
			if log, err := os.ReadFile(n.path("bodies.log")); err != nil || string(log) != want {
				return fmt.Errorf("nginx logged %q, %w; want %q", log, err, want)
			}
			return nil
		})
	})
	t.Run("PUT, GET, OPTIONS, PATCH and DELETE", func(t *testing.T) {
		for _, step := range []struct {
			method, body string
			status       int
			reply        string
		}{
			{"PUT", "first", 201, ""},
			{"GET", "", 200, "first"},
			{"PUT", "second", 204, ""},
			{"GET", "", 200, "second"},
			{"OPTIONS", "", 405, "405 Not Allowed"},
			{"PATCH", "x", 405, "405 Not Allowed"},
			{"DELETE", "", 204, ""},
			{"GET", "", 404, "404 Not Found"},
		} {
			r := do(t, gatetest.Message{Method: step.method, Target: "/files/note.txt", Body: step.body})
			if r.Status != step.status || !strings.Contains(r.Body, step.reply) {
				t.Errorf("%s: %d %q, want %d with %q", step.method, r.Status, r.Body, step.status, step.reply)
			}
		}
	})
	t.Run("Expect: 100-continue", func(t *testing.T) {
		r := do(t, gatetest.Message{Method: "PUT", Target: "/files/expected.txt", Body: "worth waiting for", Expect: true})
		if r.Status != 201 || len(r.Interim) != 1 || r.Interim[0].Status != 100 {
			t.Errorf("%d, interim %v", r.Status, r.Interim)
		}
		if got, err := os.ReadFile(n.path("html/files/expected.txt")); err != nil || string(got) != "worth waiting for" {
			t.Errorf("nginx stored %q, %v", got, err)
		}
	})
	t.Run("ranges and conditions", func(t *testing.T) {
		write(t, n.path("html/files/range.txt"), "0123456789")
		if r := do(t, gatetest.Message{Target: "/files/range.txt", Header: fields("Range", "bytes=2-4")}); r.Status != 206 || r.Body != "234" {
			t.Errorf("range: %d %q", r.Status, r.Body)
		}
		tag := do(t, gatetest.Message{Target: "/files/range.txt"}).Header.Get("ETag")
		if r := do(t, gatetest.Message{Target: "/files/range.txt", Header: fields("If-None-Match", tag)}); r.Status != 304 || r.Body != "" {
			t.Errorf("condition: %d %q", r.Status, r.Body)
		}
	})
}

// transferSize is how much the large transfers move.
func transferSize() int64 {
	if raceEnabled && !*long {
		// The patterns are made and compared in this process, ten times slower.
		return 256 << 20
	}
	return 1 << 30
}

// TestLargeTransfers moves a large file up and down, byte for byte, through a
// gateway whose resident memory stays under 64 MiB.
func TestLargeTransfers(t *testing.T) {
	n := startNginx(t)
	size := transferSize()
	g := start(t, setup{config: nginxGateway, vars: map[string]string{"NGINX": n.addr}, measured: true})
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer client.CloseIdleConnections()
	url := "http://" + g.addr("PLAIN") + "/files/large.bin"
	below := func(t *testing.T) {
		t.Helper()
		peak := g.memory("VmHWM")
		t.Logf("%d MiB moved, peak resident memory %.1f MiB", size>>20, float64(peak)/(1<<20))
		if peak > 64<<20 {
			t.Errorf("peak resident memory %d MiB, want under 64", peak>>20)
		}
	}
	upload := func(t *testing.T, length int64) {
		g.resetPeak()
		req, err := http.NewRequestWithContext(deadline(t, 2*time.Minute), http.MethodPut, url, io.NopCloser(newPattern(size)))
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = length
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusNoContent {
			t.Fatalf("status %d", resp.StatusCode)
		}
		f, err := os.Open(n.path("html/files/large.bin"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := samePattern(f, size); err != nil {
			t.Error(err)
		}
		below(t)
	}
	t.Run("upload", func(t *testing.T) { upload(t, size) })
	t.Run("download", func(t *testing.T) {
		g.resetPeak()
		req, err := http.NewRequestWithContext(deadline(t, 2*time.Minute), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.ContentLength != size {
			t.Errorf("length %d", resp.ContentLength)
		}
		if err := samePattern(resp.Body, size); err != nil {
			t.Error(err)
		}
		below(t)
	})
	t.Run("upload of unknown length", func(t *testing.T) { upload(t, -1) })
}

// TestEventDelay sends server-sent events through the gateway and measures how
// long each takes, from the origin's write to the client's read.
func TestEventDelay(t *testing.T) {
	const limit = 20 * time.Millisecond
	e := newEcho(t)
	g := start(t, setup{config: nginxGateway, vars: map[string]string{"NGINX": e.addr()}, measured: true})
	// A gateway that holds events back does so each time; a machine that is busy
	// elsewhere does not. So one clean round of three is enough.
	var worst time.Duration
	for range 3 {
		delays := eventDelays(t, "http://"+g.addr("PLAIN")+"/sse?n=200&gap=5ms")
		slices.Sort(delays)
		worst = delays[len(delays)-1]
		t.Logf("%d events: median %v, max %v", len(delays), delays[len(delays)/2], worst)
		if len(delays) != 200 {
			t.Fatalf("%d events, want 200", len(delays))
		}
		if worst <= limit {
			return
		}
	}
	t.Errorf("the slowest event took %v, want at most %v", worst, limit)
}

func eventDelays(t *testing.T, url string) []time.Duration {
	t.Helper()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(deadline(t, 30*time.Second), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" {
		t.Errorf("content type %q", ct)
	}
	var delays []time.Duration
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		now := time.Now().UnixNano()
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			var sent int64
			if _, err := fmt.Sscan(data, &sent); err != nil {
				t.Fatal(err)
			}
			delays = append(delays, time.Duration(now-sent))
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return delays
}

// TestIdleConnections holds 10,000 idle connections, each of which has carried a
// request, in 150 MiB of the gateway's memory.
func TestIdleConnections(t *testing.T) {
	const conns, limit = 10_000, 150 << 20
	e := newEcho(t)
	g := start(t, setup{config: nginxGateway, vars: map[string]string{"NGINX": e.addr()}, measured: true})
	dialer := net.Dialer{Timeout: 10 * time.Second}
	open := make([]net.Conn, 0, conns)
	defer func() {
		for _, c := range open {
			_ = c.(*net.TCPConn).SetLinger(0) // no TIME_WAIT for each
			_ = c.Close()
		}
	}()
	ask := func(c net.Conn) error {
		if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			return err
		}
		if _, err := io.WriteString(c, "GET /status/200 HTTP/1.1\r\nHost: a.test\r\n\r\n"); err != nil {
			return err
		}
		resp, err := http.ReadResponse(bufio.NewReaderSize(c, 512), nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "origin says 200" {
			return fmt.Errorf("%q, %w", body, err)
		}
		return nil
	}
	for i := range conns {
		c, err := dialer.DialContext(context.Background(), "tcp", g.addr("PLAIN"))
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		open = append(open, c)
		if err := ask(c); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	rss := g.memory("VmRSS")
	t.Logf("%d idle connections: %.1f MiB resident", conns, float64(rss)/(1<<20))
	if rss > limit {
		t.Errorf("resident memory %d MiB, want at most %d", rss>>20, limit>>20)
	}
	for i := 0; i < conns; i += 100 {
		if err := ask(open[i]); err != nil {
			t.Errorf("connection %d after the idle time: %v", i, err)
		}
	}
}

// errNotYet is what a poll goes on about.
var errNotYet = errors.New("not yet")
