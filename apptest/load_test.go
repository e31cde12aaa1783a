package apptest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// caller is an HTTP/1.1 client with one connection. It never repeats a request,
// as net/http's does in silence, so nothing that is lost stays hidden.
type caller struct {
	addr string
	c    net.Conn
	r    *bufio.Reader
	used bool // the connection has carried a request
}

// Why a call had no whole reply.
var (
	errDial  = errors.New("no connection")
	errStale = errors.New("the kept connection was closed before a byte of the reply")
	errLost  = errors.New("the reply broke off")
)

// answer is a whole reply.
type answer struct {
	status int
	code   string // of a problem document
	body   string
	close  bool // the gateway keeps the connection no longer
}

// call sends one request, on the kept connection if there is one.
func (k *caller) call(method, target, header, body string) (*answer, error) {
	if k.c == nil {
		c, err := net.DialTimeout("tcp", k.addr, 10*time.Second)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errDial, err)
		}
		k.c, k.r, k.used = c, bufio.NewReader(c), false
	}
	reused := k.used
	k.used = true
	a, began, err := k.exchange(method, target, header, body)
	switch {
	case err == nil && !a.close:
		return a, nil
	case err == nil:
		k.hangUp()
		return a, nil
	}
	k.hangUp()
	if reused && !began {
		return nil, fmt.Errorf("%w: %w", errStale, err)
	}
	return nil, fmt.Errorf("%w: %w", errLost, err)
}

func (k *caller) exchange(method, target, header, body string) (a *answer, began bool, err error) {
	if err := k.c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return nil, false, err
	}
	msg := method + " " + target + " HTTP/1.1\r\nHost: a.test\r\n" + header
	if body != "" || method == http.MethodPost {
		msg += fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	if _, err := io.WriteString(k.c, msg+"\r\n"+body); err != nil {
		return nil, false, err
	}
	if _, err := k.r.Peek(1); err != nil {
		return nil, false, err
	}
	resp, err := http.ReadResponse(k.r, &http.Request{Method: method})
	if err != nil {
		return nil, true, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, true, err
	}
	a = &answer{status: resp.StatusCode, body: string(text), close: resp.Close}
	if resp.Header.Get("Content-Type") == "application/problem+json" {
		var doc struct{ Code string }
		if err := json.Unmarshal(text, &doc); err != nil {
			return nil, true, fmt.Errorf("problem document %q: %w", text, err)
		}
		a.code = doc.Code
	}
	return a, true, nil
}

// hangUp closes the connection without leaving it in TIME_WAIT here.
func (k *caller) hangUp() {
	if k.c != nil {
		_ = k.c.(*net.TCPConn).SetLinger(0)
		_ = k.c.Close()
		k.c = nil
	}
}

// crowd runs workers until it is told to stop, and collects what went wrong.
type crowd struct {
	t    testing.TB
	stop chan struct{}
	wg   sync.WaitGroup

	mu     sync.Mutex
	calls  int
	faults []string
}

func newCrowd(t testing.TB) *crowd { return &crowd{t: t, stop: make(chan struct{})} }

// add starts n workers that call step again and again, each with a number of its
// own; step's error is a fault. A worker ends with the crowd or when step says so.
func (c *crowd) add(n int, step func(worker int, k *caller) (more bool, err error), addr string) {
	for i := range n {
		c.wg.Go(func() {
			k := &caller{addr: addr}
			defer k.hangUp()
			for !c.stopped() {
				more, err := step(i, k)
				c.mu.Lock()
				c.calls++
				if err != nil {
					c.faults = append(c.faults, err.Error())
				}
				c.mu.Unlock()
				if !more {
					return
				}
			}
		})
	}
}

func (c *crowd) stopped() bool {
	select {
	case <-c.stop:
		return true
	default:
		return false
	}
}

func (c *crowd) done() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls
}

// reach waits until the workers have made n calls more.
func (c *crowd) reach(n int) {
	c.t.Helper()
	n += c.done()
	eventually(c.t, 30*time.Second, func() error {
		if got := c.done(); got < n {
			return fmt.Errorf("%d calls, want %d", got, n)
		}
		return nil
	})
}

// end stops the workers, waits for them, and fails the test for the faults.
func (c *crowd) end() {
	c.t.Helper()
	close(c.stop)
	c.wg.Wait()
	c.report()
}

func (c *crowd) report() {
	c.t.Helper()
	c.t.Logf("%d calls", c.calls)
	if len(c.faults) > 0 {
		kinds := map[string]int{}
		for _, f := range c.faults {
			kinds[f]++
		}
		var lines []string
		for f, n := range kinds {
			lines = append(lines, fmt.Sprintf("%6d × %s", n, f))
		}
		slices.Sort(lines)
		c.t.Errorf("%d of %d calls failed:\n%s", len(c.faults), c.calls, strings.Join(lines[:min(len(lines), 20)], "\n"))
	}
}
