package sock_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/internal/sock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair returns the gateway's end and the peer's end of a loopback connection.
func pair(t testing.TB) (*sock.Conn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s, err := sock.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); peer.Close() })
	return s, peer.(*net.TCPConn)
}

// receiver records the order of calls.
type receiver struct {
	buf   []byte
	calls string
}

func (r *receiver) Sent()          { r.calls += "sent " }
func (r *receiver) Buffer() []byte { r.calls += "buffer "; return r.buf }

func TestSendReceiveAsksForABufferOnlyWhenTheAnswerIsThere(t *testing.T) {
	c, peer := pair(t)
	r := &receiver{buf: make([]byte, 64)}
	go func() {
		b := make([]byte, 4)
		_, _ = io.ReadFull(peer, b)
		_, _ = peer.Write([]byte("pong"))
	}()
	n, sent, err := c.SendReceive([]byte("ping"), r)
	if err != nil || !sent || string(r.buf[:n]) != "pong" || r.calls != "sent buffer " {
		t.Errorf("got %q, %v, %v, calls %q", r.buf[:n], sent, err, r.calls)
	}
}

func TestSendReceiveOfMoreThanTheSocketTakes(t *testing.T) {
	c, peer := pair(t)
	msg := make([]byte, 32<<20)
	_, _ = rand.Read(msg)
	go func() {
		got := make([]byte, len(msg))
		_, _ = io.ReadFull(peer, got)
		answer := "same"
		if !bytes.Equal(got, msg) {
			answer = "diff"
		}
		_, _ = peer.Write([]byte(answer))
	}()
	r := &receiver{buf: make([]byte, 64)}
	n, sent, err := c.SendReceive(msg, r)
	if err != nil || !sent || string(r.buf[:n]) != "same" {
		t.Errorf("got %q, %v, %v", r.buf[:n], sent, err)
	}
}

func TestSendReceiveManyTimesNeverLosesAWakeUp(t *testing.T) {
	c, peer := pair(t)
	go func() { _, _ = io.Copy(peer, peer) }()
	r := &receiver{buf: make([]byte, 64)}
	for i := range 20_000 {
		r.calls = ""
		if err := c.ReadWithin(time.Now(), 10*time.Second); err != nil {
			t.Fatal(err)
		}
		if n, _, err := c.SendReceive([]byte("x"), r); n != 1 || err != nil {
			t.Fatalf("round %d: %d, %v", i, n, err)
		}
	}
}

func TestReceiveSeesTheEnd(t *testing.T) {
	c, peer := pair(t)
	_, _ = peer.Write([]byte("last"))
	_ = peer.CloseWrite()
	got, err := io.ReadAll(c)
	if string(got) != "last" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestReadWithinEndsBetweenOneAndNineEighthsOfItsLength(t *testing.T) {
	c, _ := pair(t)
	const d = 80 * time.Millisecond
	began := time.Now()
	if err := c.ReadWithin(began, d); err != nil {
		t.Fatal(err)
	}
	_, err := c.Read(make([]byte, 1))
	if took := time.Since(began); !errors.Is(err, os.ErrDeadlineExceeded) || took < d {
		t.Errorf("ended after %v with %v", took, err)
	}
}

func TestReadWithinZeroLiftsTheDeadline(t *testing.T) {
	c, peer := pair(t)
	if err := c.ReadWithin(time.Now(), time.Nanosecond); err != nil {
		t.Fatal(err)
	}
	if err := c.ReadWithin(time.Now(), 0); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = peer.Write([]byte("x")) }()
	if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
}

func TestInterruptWakesAReader(t *testing.T) {
	c, _ := pair(t)
	waiting := make(chan struct{})
	done := make(chan error)
	go func() {
		close(waiting)
		_, err := c.Read(make([]byte, 1))
		done <- err
	}()
	<-waiting
	c.Interrupt()
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestAStalledWriteEnds(t *testing.T) {
	c, _ := pair(t)
	c.Stall = 50 * time.Millisecond
	n, err := c.Write(make([]byte, 64<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n == 64<<20 {
		t.Errorf("wrote %d, %v", n, err)
	}
}

func TestAWriteLongBehindOneThatWaitedIsNotLate(t *testing.T) {
	c, peer := pair(t)
	c.Stall = 40 * time.Millisecond
	go func() { _, _ = io.Copy(io.Discard, peer) }()
	if _, err := c.Write(make([]byte, 64<<20)); err != nil {
		t.Fatal(err)
	}
	over := time.NewTimer(100 * time.Millisecond) // the end of that wait is over by then
	<-over.C
	if n, err := c.Write([]byte("late")); n != 4 || err != nil {
		t.Errorf("wrote %d, %v", n, err)
	}
}

func TestInterruptEndsAWriteThatWaits(t *testing.T) {
	c, _ := pair(t)
	c.Stall = time.Minute
	done := make(chan error)
	go func() {
		_, err := c.Write(make([]byte, 64<<20))
		done <- err
	}()
	c.Interrupt()
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestAReaderThatTricklesIsTooSlow(t *testing.T) {
	c, peer := pair(t)
	c.Stall = 10 * time.Second
	c.Out = sock.Pace{Floor: 1 << 30, Grace: 30 * time.Millisecond}
	stop := make(chan struct{})
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		b := make([]byte, 64<<10)
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				_, _ = peer.Read(b)
			}
		}
	}()
	_, err := c.Write(make([]byte, 256<<20))
	close(stop)
	<-finished
	if !errors.Is(err, sock.ErrTooSlow) {
		t.Errorf("got %v", err)
	}
}

func TestASenderThatTricklesIsTooSlow(t *testing.T) {
	c, peer := pair(t)
	c.In = sock.Pace{Floor: 1 << 20, Grace: 30 * time.Millisecond}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if _, err := peer.Write([]byte("x")); err != nil {
				return
			}
		}
	}()
	var err error
	for err == nil {
		_, err = c.Read(make([]byte, 16))
	}
	c.Close()
	<-finished
	if !errors.Is(err, sock.ErrTooSlow) {
		t.Errorf("got %v", err)
	}
}

func TestGoneAndQuiet(t *testing.T) {
	c, peer := pair(t)
	if c.Gone() || !c.Quiet() {
		t.Errorf("fresh: gone %v, quiet %v", c.Gone(), c.Quiet())
	}
	_, _ = peer.Write([]byte("early"))
	eventually(t, func() bool { return !c.Quiet() })
	if c.Gone() {
		t.Error("gone with data to read")
	}
	peer.Close()
	eventually(t, c.Gone)
}

// eventually waits for what another end of a socket will make true.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("it never came to be")
		}
	}
}

func TestARoundTripDoesNotAllocate(t *testing.T) {
	c, peer := pair(t)
	go func() { _, _ = io.Copy(peer, peer) }()
	r := &silent{buf: make([]byte, 64)}
	msg := []byte("x")
	now := time.Now()
	if n := testing.AllocsPerRun(200, func() {
		_ = c.ReadWithin(now, time.Minute)
		_, _, _ = c.SendReceive(msg, r)
		_, _ = c.Write(msg)
		_, _ = c.Receive(r)
		_, _ = c.Write(msg)
		_, _ = c.Read(r.buf)
		_ = c.Quiet()
		_ = c.Gone()
		_ = c.Ended()
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

type silent struct{ buf []byte }

func (*silent) Sent()            {}
func (s *silent) Buffer() []byte { return s.buf }

// The gain of writing from inside the read: the same round trip both ways.
func BenchmarkRoundTrip(b *testing.B) {
	b.Run("send-receive", func(b *testing.B) {
		c, peer := pair(b)
		go func() { _, _ = io.Copy(peer, peer) }()
		r := &silent{buf: make([]byte, 64)}
		msg := []byte("x")
		for b.Loop() {
			_, _, _ = c.SendReceive(msg, r)
		}
	})
	b.Run("net.Conn", func(b *testing.B) {
		c, peer := pair(b)
		go func() { _, _ = io.Copy(peer, peer) }()
		buf, msg := make([]byte, 64), []byte("x")
		for b.Loop() {
			_, _ = c.Conn.Write(msg)
			_, _ = c.Conn.Read(buf)
		}
	})
}

// reactor answers each message from inside the wait.
type reactor struct {
	c     *sock.Conn
	buf   []byte
	stop  string // the message that ends the loop
	calls string
}

func (r *reactor) Buffer() []byte { return r.buf }
func (r *reactor) Wait()          { r.calls += "wait " }

func (r *reactor) Turn(n int) bool {
	msg := string(r.buf[:n])
	r.calls += msg + " "
	if msg == r.stop {
		return false
	}
	_, _ = r.c.Write([]byte(msg))
	return true
}

func TestLoopAnswersUntilTurnWantsNoMore(t *testing.T) {
	c, peer := pair(t)
	r := &reactor{c: c, buf: make([]byte, 64), stop: "stop"}
	done := make(chan error)
	go func() { done <- c.Loop(r) }()
	b := make([]byte, 8)
	for _, msg := range []string{"one", "two", "stop"} {
		_, _ = peer.Write([]byte(msg))
		if msg != "stop" {
			n, _ := peer.Read(b)
			if string(b[:n]) != msg {
				t.Fatalf("got %q", b[:n])
			}
		}
	}
	if err := <-done; err != nil {
		t.Errorf("got %v", err)
	}
	if calls := strings.ReplaceAll(r.calls, "wait ", ""); calls != "one two stop " {
		t.Errorf("calls: %s", r.calls)
	}
}

func TestLoopNeverLosesAWakeUp(t *testing.T) {
	c, peer := pair(t)
	r := &reactor{c: c, buf: make([]byte, 64), stop: "stop"}
	done := make(chan error)
	go func() { done <- c.Loop(r) }()
	b := make([]byte, 8)
	for i := range 20_000 {
		_ = peer.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, _ = peer.Write([]byte("x"))
		if n, err := peer.Read(b); n != 1 || err != nil {
			t.Fatalf("round %d: %d, %v", i, n, err)
		}
	}
	peer.Close()
	if err := <-done; err != io.EOF {
		t.Errorf("got %v", err)
	}
}

func TestLoopEndsAtTheDeadline(t *testing.T) {
	c, _ := pair(t)
	_ = c.ReadWithin(time.Now(), 20*time.Millisecond)
	if err := c.Loop(&reactor{c: c, buf: make([]byte, 64)}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestEndedSeesWhatWasReadBeforeIt(t *testing.T) {
	c, peer := pair(t)
	_, _ = peer.Write([]byte("last"))
	_ = peer.CloseWrite()
	eventually(t, c.Gone)
	if c.Ended() {
		t.Error("ended with data to read")
	}
	_, _ = c.Read(make([]byte, 8))
	if !c.Ended() {
		t.Error("not ended behind the last byte")
	}
}
