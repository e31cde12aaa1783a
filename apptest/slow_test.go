package apptest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const slowConfig = `
listeners: [{name: plain, address: "@PLAIN@"}]
admin: {address: "@ADMIN@"}
limits:
  header_timeout: 2s
  body_idle_timeout: 2s
  write_idle_timeout: 3s
  idle_timeout: 4s
  request_timeout: 60s
  min_body_rate: 1KiB
log: {access: {output: none}}
upstreams:
  honest: {targets: ["http://@ORIGIN@"]}
  attacked: {targets: ["http://@ORIGIN@"], max_connections: 8000}
routes:
  - {name: honest, path: "/status/{code}", upstream: honest}
  - {name: attacked, path: "/{rest...}", upstream: attacked}
`

// attack is one way to hold a connection as long as it lasts.
type attack struct {
	name   string
	open   string        // what is sent at once
	drip   string        // what is sent, byte by byte, each gap; or
	reads  bool          // what is read, byte by byte, each gap
	gap    time.Duration // 0: nothing more
	within time.Duration // when the gateway must have cut it
}

// slack is for a machine that is busy with ten thousand sockets.
const slack = 2500 * time.Millisecond

// The gateway's grace before min_body_rate holds is 5 s (contract: limits).
const grace = 5 * time.Second

var attacks = []attack{
	{name: "says nothing", within: 4*time.Second + slack},
	{name: "head that stops", open: "GET /status/200 HTTP/1.1\r\nHost: a.te", within: 2*time.Second + slack},
	{name: "head, a byte every 300 ms", open: "GET /status/200 HTTP/1.1\r\n", drip: "X: y\r\n", gap: 300 * time.Millisecond, within: 2*time.Second + slack},
	{name: "second head that stops", open: "GET /status/200 HTTP/1.1\r\nHost: a.test\r\n\r\nGET /status/200 HTT", within: 2*time.Second + slack},
	{name: "body that stops", open: "POST /m HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000\r\n\r\nxxx", within: 2*time.Second + slack},
	{name: "body, a byte every 300 ms", open: "POST /m HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n", drip: "x", gap: 300 * time.Millisecond, within: grace + slack},
	{name: "body, a byte every 1.5 s", open: "POST /m HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n", drip: "x", gap: 1500 * time.Millisecond, within: grace + 1500*time.Millisecond + slack},
	{name: "chunks, a byte every 1.5 s", open: "POST /m HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n", drip: "1\r\nx\r\n", gap: 1500 * time.Millisecond, within: grace + 1500*time.Millisecond + slack},
	{name: "reader that stops", open: "GET /zeros/8000000 HTTP/1.1\r\nHost: a.test\r\n\r\n", within: 3*time.Second + slack},
	{name: "reader, a byte every 500 ms", open: "GET /zeros/8000000 HTTP/1.1\r\nHost: a.test\r\n\r\n", reads: true, gap: 500 * time.Millisecond, within: grace + slack},
}

// run attacks once and returns nil when the gateway has cut the connection in
// time.
func (a attack) run(addr string) error {
	dialer := net.Dialer{Timeout: 10 * time.Second, Control: func(_, _ string, c syscall.RawConn) error {
		// A small window, so that the reply does not fit into the kernel.
		return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
	}}
	c, err := dialer.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer func() {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}()
	began := time.Now()
	if err := c.SetDeadline(began.Add(a.within)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, a.open); err != nil {
		return err
	}
	if a.name == "reader that stops" || a.reads {
		return a.read(c, began.Add(a.within))
	}
	cut := make(chan error, 1)
	go func() {
		// Whatever is read is the gateway's last word.
		_, err := io.Copy(io.Discard, c)
		cut <- err
	}()
	if a.gap == 0 {
		err = <-cut
	} else {
		err = a.trickle(c, cut)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("not cut within %v", a.within)
	}
	return nil
}

// trickle writes a byte each gap until the connection ends.
func (a attack) trickle(c net.Conn, cut chan error) error {
	tick := time.NewTicker(a.gap)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case err := <-cut:
			return err
		case <-tick.C:
			if _, err := io.WriteString(c, a.drip[i%len(a.drip):i%len(a.drip)+1]); err != nil {
				_ = c.Close()
				<-cut
				return err
			}
		}
	}
}

// read reads a byte each gap, or nothing, until end.
func (a attack) read(c net.Conn, end time.Time) error {
	var b [1]byte
	gap := a.gap
	if gap == 0 {
		gap = time.Until(end)
	}
	tick := time.NewTicker(gap)
	defer tick.Stop()
	for time.Now().Before(end) {
		<-tick.C
		if a.reads {
			if _, err := c.Read(b[:]); err != nil {
				return nil
			}
		}
	}
	if !hungUp(c) {
		return fmt.Errorf("still open after %v: what was not sent goes on holding memory of the kernel's", a.within)
	}
	return nil
}

// hungUp reports whether the other side has reset the connection. A close alone
// does not come through to a reader that takes nothing.
func hungUp(c net.Conn) bool {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return true
	}
	hup := true
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		hup = err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
	return hup || err != nil
}

// smallBuffers is a listener whose connections hold little in the kernel. Here
// origin and gateway share one, and what is tested is how much a slow reader
// makes the gateway hold.
func smallBuffers(t testing.TB) net.Listener {
	t.Helper()
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, 64<<10) })
	}}
	ln, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// openFiles is the number of files that the gateway has open.
func (g *gateway) openFiles() int {
	g.t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.cmd.Process.Pid))
	if err != nil {
		g.t.Fatal(err)
	}
	return len(all)
}

// TestSlowClients attacks with thousands of slow connections at once. All are
// cut when the limits say, and honest clients do not notice.
func TestSlowClients(t *testing.T) {
	const limit = 50 * time.Millisecond
	each := rounds(300, 1000)
	e := newEchoOn(t, smallBuffers(t))
	g := start(t, setup{config: slowConfig, vars: map[string]string{"ORIGIN": e.addr()}, measured: true})
	// Clients that ask the origin without the gateway tell what the machine is
	// busy with besides. A round in which they wait too says nothing about the
	// gateway, and is made again; a third one counts if the gateway multiplies what
	// they wait.
	for round := 1; ; round++ {
		stop, latencies := honest(t, g.addr("PLAIN"))
		stopDirect, direct := honest(t, e.addr())
		n := attackAll(t, g, each)
		stop()
		stopDirect()
		through, without := latencies(), direct()
		slices.Sort(through)
		slices.Sort(without)
		p99, control := through[len(through)*99/100], without[len(without)*99/100]
		t.Logf("%d attackers; %d honest requests: median %v, p99 %v, max %v; without the gateway: p99 %v",
			n, len(through), through[len(through)/2], p99, through[len(through)-1], control)
		switch {
		case t.Failed() || p99 <= limit:
			return
		case control < limit/2 || round == 3 && p99 > 4*control:
			t.Errorf("honest clients' p99 is %v, want under %v", p99, limit)
			return
		case round == 3:
			return
		}
	}
}

// attackAll makes each attack that many times and returns how many there were in
// all. The test fails for those that were not cut in time.
func attackAll(t *testing.T, g *gateway, each int) (total int) {
	t.Helper()
	before := g.openFiles()
	type verdict struct {
		attack string
		err    error
	}
	verdicts := make(chan verdict)
	var wg sync.WaitGroup
	// A thousand connections a second: twice what slowhttptest is started with. A
	// storm of dials, which this process would feel first, is another test.
	slots := make(chan struct{}, 50)
	for range each {
		for _, a := range attacks {
			wg.Go(func() {
				slots <- struct{}{}
				time.AfterFunc(50*time.Millisecond, func() { <-slots })
				verdicts <- verdict{a.name, a.run(g.addr("PLAIN"))}
			})
		}
	}
	go func() { wg.Wait(); close(verdicts) }()
	failed := map[string][]error{}
	for v := range verdicts {
		total++
		if v.err != nil {
			failed[v.attack] = append(failed[v.attack], v.err)
		}
	}
	for name, errs := range failed {
		t.Errorf("%s: %d of %d, the first: %v", name, len(errs), each, errs[0])
	}
	// The connections that were closed here are closed there too, and those to
	// the origin are idle at most.
	eventually(t, 5*time.Second, func() error {
		if now := g.openFiles(); now > before+700 {
			return fmt.Errorf("%d open files, %d before the attack", now, before)
		}
		return nil
	})
	return total
}

// honest starts clients that ask 200 times a second, half of them on new
// connections, and returns how to stop them and how long each request took.
func honest(t testing.TB, addr string) (end func(), latencies func() []time.Duration) {
	load := newCrowd(t)
	var mu sync.Mutex
	var all []time.Duration
	tick := time.NewTicker(5 * time.Millisecond)
	load.add(8, func(worker int, k *caller) (bool, error) {
		select {
		case <-tick.C:
		case <-load.stop:
			return false, nil
		}
		began := time.Now()
		a, err := k.call("GET", "/status/200", "", "")
		took := time.Since(began)
		if worker%2 == 0 {
			k.hangUp()
		}
		mu.Lock()
		all = append(all, took)
		mu.Unlock()
		return true, wholly(a, err)
	}, addr)
	return func() { load.end(); tick.Stop() }, func() []time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

// TestSlowHTTPTest lets slowhttptest attack in each of its ways.
func TestSlowHTTPTest(t *testing.T) {
	if !*long {
		return // TestSlowClients makes the same attacks; this takes minutes
	}
	if _, err := exec.LookPath("slowhttptest"); err != nil {
		t.Fatal("this test needs slowhttptest: apt-get install slowhttptest")
	}
	e := newEchoOn(t, smallBuffers(t))
	g := start(t, setup{config: slowConfig, vars: map[string]string{"ORIGIN": e.addr()}, measured: true})
	for name, flags := range map[string][]string{
		"slow heads":   {"-H", "-u", "http://" + g.addr("PLAIN") + "/status/200"},
		"slow bodies":  {"-B", "-s", "8192", "-x", "10", "-u", "http://" + g.addr("PLAIN") + "/m"},
		"range":        {"-R", "-u", "http://" + g.addr("PLAIN") + "/bytes/100000"},
		"slow readers": {"-X", "-w", "256", "-y", "512", "-n", "5", "-z", "32", "-k", "3", "-u", "http://" + g.addr("PLAIN") + "/zeros/8000000"},
	} {
		t.Run(name, func(t *testing.T) {
			before := g.openFiles()
			stop, latencies := honest(t, g.addr("PLAIN"))
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			args := append([]string{"-c", "4000", "-r", "500", "-i", "1", "-l", "30", "-p", "3"}, flags...)
			cmd := exec.CommandContext(ctx, "slowhttptest", args...)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			peak, cut := 0, false
			eventually(t, 90*time.Second, func() error {
				now := g.openFiles()
				peak = max(peak, now)
				cut = cut || peak > before+500 && now < before+100
				select {
				case <-ended:
					return nil
				default:
					return errNotYet
				}
			})
			stop()
			if peak > before+500 && !cut {
				t.Errorf("the attackers' connections (%d files at the most) were not cut while slowhttptest ran", peak)
			}
			all := latencies()
			slices.Sort(all)
			p99 := all[len(all)*99/100]
			t.Logf("%d honest requests: median %v, p99 %v, max %v\n%s", len(all), all[len(all)/2], p99, all[len(all)-1], out.String())
			if p99 > 50*time.Millisecond {
				t.Errorf("honest clients' p99 is %v, want under 50 ms", p99)
			}
		})
	}
}
