package apptest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"
)

// An open loop sends requests at times that are fixed beforehand, whether or not
// answers come, and writes down when each was sent, when its answer was there and
// what it said. The gateway decided in between, which is all that a client can
// know about when.
//
// A lane is one connection and one goroutine. What one client sends goes over one
// lane, so its requests are decided in the order of their shots, one after the
// answer to the other.

// lane is a sequence of requests over one connection.
type lane struct {
	addr     string
	arrivals iter.Seq[arrival] // in the order of their times
}

// arrival is one request of an open loop.
type arrival struct {
	due    time.Duration // after the start of the loop
	client int
	head   string // the whole request, as it is sent
}

// shot is what became of an arrival.
type shot struct {
	client    int
	gateway   string // its address
	sent, got int64  // Unix ns
	status    int    // 0: no answer
	code      string // of a problem document
	retry     string // Retry-After
	err       error
}

func (s *shot) admitted() bool { return s.status == 200 }

// get is a request with a key.
func get(path, key string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: a.test\r\nX-Api-Key: " + key + "\r\n\r\n"
}

// loop is an open loop under way.
type loop struct {
	t     testing.TB
	began time.Time
	stop  chan struct{}
	done  sync.WaitGroup
	lanes []*laneRun
}

type laneRun struct {
	addr string
	c    net.Conn
	r    *bufio.Reader

	mu    sync.Mutex
	shots []shot
}

// fire starts an open loop with its connections open.
func fire(t testing.TB, lanes ...lane) *loop {
	t.Helper()
	l := &loop{t: t, stop: make(chan struct{})}
	for _, ln := range lanes {
		r := &laneRun{addr: ln.addr}
		if err := r.open(); err != nil {
			t.Fatal(err)
		}
		l.lanes = append(l.lanes, r)
	}
	l.began = time.Now()
	for i, ln := range lanes {
		l.done.Go(func() { l.run(l.lanes[i], ln.arrivals) })
	}
	return l
}

// run sends one lane's requests.
func (l *loop) run(r *laneRun, arrivals iter.Seq[arrival]) {
	defer r.close()
	wait := time.NewTimer(time.Hour)
	defer wait.Stop()
	for a := range arrivals {
		wait.Reset(time.Until(l.began.Add(a.due)))
		select {
		case <-wait.C:
		case <-l.stop:
			return
		}
		s := r.exchange(a)
		r.mu.Lock()
		r.shots = append(r.shots, s)
		r.mu.Unlock()
	}
}

// wait returns all shots when the last arrival has been answered.
func (l *loop) wait() []shot {
	l.done.Wait()
	return l.soFar()
}

// end stops the loop and returns all shots.
func (l *loop) end() []shot {
	close(l.stop)
	return l.wait()
}

// soFar is the shots up to now; those of a client are in the order they were sent.
func (l *loop) soFar() []shot {
	var all []shot
	for _, r := range l.lanes {
		r.mu.Lock()
		all = append(all, r.shots...)
		r.mu.Unlock()
	}
	return all
}

func (r *laneRun) open() error {
	c, err := net.DialTimeout("tcp", r.addr, 10*time.Second)
	if err != nil {
		return err
	}
	r.c = c
	if r.r == nil {
		r.r = bufio.NewReaderSize(c, 16<<10)
	}
	r.r.Reset(c)
	return nil
}

func (r *laneRun) close() {
	if r.c != nil {
		_ = r.c.(*net.TCPConn).SetLinger(0)
		_ = r.c.Close()
		r.c = nil
	}
}

// exchange sends one request and reads the answer. A connection that is lost is
// opened again for the next one.
func (r *laneRun) exchange(a arrival) shot {
	s := shot{client: a.client, gateway: r.addr, sent: time.Now().UnixNano()}
	if r.c == nil {
		if s.err = r.open(); s.err != nil {
			s.got = time.Now().UnixNano()
			return s
		}
	}
	s.err = r.c.SetDeadline(time.Now().Add(30 * time.Second))
	if s.err == nil {
		_, s.err = io.WriteString(r.c, a.head)
	}
	if s.err == nil {
		s.err = r.answer(&s)
	}
	s.got = time.Now().UnixNano()
	if s.err != nil {
		s.status = 0
		r.close()
	}
	return s
}

var errAnswer = errors.New("an answer that cannot be read")

// answer reads an answer with Content-Length, as gateways and their own upstreams
// send them here, at a small part of what net/http takes for it.
func (r *laneRun) answer(s *shot) error {
	line, err := r.r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if len(line) < 15 || string(line[:9]) != "HTTP/1.1 " {
		return fmt.Errorf("%w: %q", errAnswer, line)
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil {
		return fmt.Errorf("%w: %q", errAnswer, line)
	}
	length, closing := -1, false
	for {
		line, err := r.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return fmt.Errorf("%w: %q", errAnswer, line)
			}
		case bytes.EqualFold(name, []byte("Retry-After")):
			s.retry = string(value)
		case bytes.EqualFold(name, []byte("Connection")):
			closing = bytes.EqualFold(value, []byte("close"))
		}
	}
	if length < 0 || length > 8<<10 {
		return fmt.Errorf("%w: status %d, a body of length %d", errAnswer, status, length)
	}
	body, err := r.r.Peek(length)
	if err != nil {
		return err
	}
	if status >= 400 {
		var doc struct{ Code string }
		if err := json.Unmarshal(body, &doc); err != nil {
			return fmt.Errorf("%w: status %d with %q", errAnswer, status, body)
		}
		s.code = doc.Code
	}
	if _, err := r.r.Discard(length); err != nil {
		return err
	}
	s.status = status
	if closing {
		r.close()
	}
	return nil
}

// spread is requests at an even rate per second that the addresses get in turn,
// each over a lane of its own; length 0: until the loop is ended. An address may
// be given more than once.
func spread(client int, rate float64, length time.Duration, head string, addrs ...string) []lane {
	var lanes []lane
	for i, addr := range addrs {
		lanes = append(lanes, lane{addr, func(yield func(arrival) bool) {
			for n := i; ; n += len(addrs) {
				due := time.Duration(float64(n) / rate * 1e9)
				if length > 0 && due >= length || !yield(arrival{due: due, client: client, head: head}) {
					return
				}
			}
		}})
	}
	return lanes
}

// phased is rounds of one request of each client, each client at its own moment of
// the round: as many clients as there are heads, at an even rate each.
func phased(first int, rate float64, rounds int, heads []string) iter.Seq[arrival] {
	return func(yield func(arrival) bool) {
		for i := range rounds {
			for j, head := range heads {
				at := (float64(i) + float64(j)/float64(len(heads))) / rate
				if !yield(arrival{due: time.Duration(at * 1e9), client: first + j, head: head}) {
					return
				}
			}
		}
	}
}

// pass waits until a moment has come: what is tested is what time does.
func pass(t testing.TB, moment time.Time) {
	t.Helper()
	if err := until(moment); err != nil {
		t.Fatal(err)
	}
}

func until(moment time.Time) error {
	return poll(time.Until(moment)+time.Minute, func() error {
		if time.Now().Before(moment) {
			return errNotYet
		}
		return nil
	})
}

// tally is shots by what became of them.
func tally(shots []shot) map[string]int {
	n := map[string]int{}
	for i := range shots {
		switch s := &shots[i]; {
		case s.err != nil:
			n["error: "+s.err.Error()]++
		case s.code != "":
			n[fmt.Sprintf("%d %s", s.status, s.code)]++
		default:
			n[strconv.Itoa(s.status)]++
		}
	}
	return n
}

// only fails the test for shots that became something else than what is allowed,
// such as "200" or "429 rate_limited".
func only(t testing.TB, shots []shot, allowed ...string) map[string]int {
	t.Helper()
	n := tally(shots)
	for kind, count := range n {
		ok := false
		for _, a := range allowed {
			ok = ok || a == kind
		}
		if !ok {
			t.Errorf("%d of %d requests: %s", count, len(shots), kind)
		}
	}
	if len(shots) == 0 {
		t.Error("no request was sent")
	}
	return n
}
