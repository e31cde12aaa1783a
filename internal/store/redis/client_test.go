package redis

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/limit/meter"
	"github.com/sluice-gateway/sluice/internal/store"
	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
)

// take is one decision of cost 1.
func take(c *Client, key string, l *meter.Limit) (meter.Verdict, error) {
	var out [1]meter.Verdict
	err := c.Take(context.Background(), []store.Charge{{Key: key, Limit: l, Cost: l.Scale}}, out[:])
	return out[0], err
}

// post is one charge.
func post(c *Client, one store.Charge) error {
	var out [1]error
	err := c.Post(context.Background(), []store.Charge{one}, out[:])
	if err != out[0] {
		return errors.Join(errors.New("the error is not that of the charge"), err, out[0])
	}
	return err
}

func mustTake(t *testing.T, c *Client, key string, l *meter.Limit) meter.Verdict {
	t.Helper()
	v, err := take(c, key, l)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTakeCountsOnTheServersClock(t *testing.T) {
	server := redistest.Start(t)
	a := dial(t, Options{Gateway: "a"}, server.Addr())
	b := dial(t, Options{Gateway: "b"}, server.Addr())
	l := newLimit(t, meter.TokenBucket, 3, time.Hour)
	l.Capacity = 3
	for i, c := range []*Client{a, b, a} {
		if v := mustTake(t, c, "k", l); !v.OK || v.Remaining != int64(2-i) {
			t.Fatalf("take %d: %+v", i, v)
		}
	}
	v := mustTake(t, b, "k", l)
	if v.OK || v.Retry > 20*time.Minute || v.Retry < 19*time.Minute || v.Reset > time.Hour || v.Reset < 59*time.Minute {
		t.Fatalf("%+v", v)
	}
	ttl := time.Duration(server.Do("PTTL", "sluice:{k}").(int64)) * time.Millisecond
	if ttl < v.Reset || ttl > v.Reset+5*time.Second {
		t.Fatalf("the key lives for %v, the bucket is full in %v", ttl, v.Reset)
	}
}

func TestTakeIsAllOrNothing(t *testing.T) {
	c := dial(t, Options{}, redistest.Start(t).Addr())
	limits := []*meter.Limit{
		newLimit(t, meter.TokenBucket, 10, time.Second), newLimit(t, meter.SlidingWindow, 1, time.Hour),
		newLimit(t, meter.FixedWindow, 10, time.Hour), newLimit(t, meter.SlidingLog, 10, time.Hour), newLimit(t, meter.Concurrency, 10, 0),
	}
	var charges []store.Charge
	for i, l := range limits {
		charges = append(charges, store.Charge{Key: string(rune('a'+i)) + ":{x}", Limit: l, Cost: 1})
	}
	out := make([]meter.Verdict, len(charges))
	for i, ok := range []bool{true, false, false} {
		if err := c.Take(t.Context(), charges, out); err != nil {
			t.Fatal(err)
		}
		for j, v := range out {
			if want := ok || j != 1; v.OK != want {
				t.Fatalf("take %d of %d: %+v", i, j, v)
			}
			if j >= 2 && v.Remaining != 9-int64(min(i, 1)) { // as if this one were taken, but it is not
				t.Fatalf("take %d of %d: %+v", i, j, v)
			}
		}
	}
}

func TestKeysMayComeTwice(t *testing.T) {
	c := dial(t, Options{}, redistest.Start(t).Addr())
	l := newLimit(t, meter.FixedWindow, 3, time.Hour)
	twice := []store.Charge{{Key: "k", Limit: l, Cost: 1}, {Key: "k", Limit: l, Cost: 2}}
	out := make([]meter.Verdict, 2)
	if err := c.Take(t.Context(), twice, out); err != nil || !out[0].OK || !out[1].OK || out[1].Remaining != 0 {
		t.Fatal(out, err)
	}
	if err := post(c, store.Charge{Key: "k", Limit: l, Cost: -2}); err != nil {
		t.Fatal(err)
	}
	if err := c.Take(t.Context(), twice, out); err != nil || !out[0].OK || out[1].OK || out[1].Retry != out[1].Reset {
		t.Fatal(out, err)
	}
	if v := mustTake(t, c, "k", l); !v.OK || v.Remaining != 1 {
		t.Fatalf("%+v", v)
	}
}

func TestConcurrencyOfAGatewayThatIsGone(t *testing.T) {
	server := redistest.Start(t)
	a, b := dial(t, Options{Gateway: "a"}, server.Addr()), dial(t, Options{Gateway: "b"}, server.Addr())
	l := newLimit(t, meter.Concurrency, 2, 0)
	mustTake(t, a, "k", l)
	mustTake(t, a, "k", l)
	if v := mustTake(t, b, "k", l); v.OK || v.Retry != time.Second {
		t.Fatalf("%+v", v)
	}
	later := time.Now().Add(11 * time.Second).UnixMicro()
	b.now = func() string { return number(later) }
	if v := mustTake(t, b, "k", l); !v.OK || v.Remaining != 1 {
		t.Fatalf("%+v", v)
	}
	a.now = b.now // it was not gone after all
	if err := post(a, store.Charge{Key: "k", Limit: l}); err != nil {
		t.Fatal(err)
	}
	if v := mustTake(t, b, "k", l); v.OK || v.Remaining != 0 {
		t.Fatalf("%+v", v)
	}
}

func TestManySettlementsAtOnce(t *testing.T) {
	c := dial(t, Options{}, redistest.Start(t).Addr())
	l := newLimit(t, meter.TokenBucket, 1000, time.Second)
	in := make([]store.Settlement, 100)
	for i := range in {
		in[i] = store.Settlement{Key: "k" + number(int64(i)), Limit: l, Need: 1, Ask: int64(i + 1), Slack: 100}
	}
	out := make([]store.Grant, len(in))
	if err := c.Settle(t.Context(), in, out); err != nil {
		t.Fatal(err)
	}
	for i, g := range out {
		if g.Err != nil || g.Granted != int64(i+1) || g.Level != 1000-g.Granted || g.Valid != meter.Usable {
			t.Fatalf("%d: %+v", i, g)
		}
	}
}

func TestQuotaEndsWithItsPeriod(t *testing.T) {
	server := redistest.Start(t)
	c := dial(t, Options{}, server.Addr())
	l, err := meter.New(meter.FixedWindow, 5, 0, meter.Options{Period: meter.Month})
	if err != nil {
		t.Fatal(err)
	}
	ends := l.Ends(time.Now().UnixNano())
	v := mustTake(t, c, "q:{c}", &l)
	if !v.OK || v.Remaining != 4 || v.Reset > ends || v.Reset < ends-time.Minute {
		t.Fatalf("%+v, the month ends in %v", v, ends)
	}
	if ttl := time.Duration(server.Do("PTTL", "sluice:q:{c}").(int64)) * time.Millisecond; ttl < v.Reset {
		t.Fatalf("the key lives for %v only", ttl)
	}
}

func TestScriptsAreSentAgainWhenForgotten(t *testing.T) {
	server := redistest.Start(t)
	c := dial(t, Options{}, server.Addr())
	l := newLimit(t, meter.FixedWindow, 10, time.Hour)
	mustTake(t, c, "k", l)
	server.Do("SCRIPT", "FLUSH")
	if v := mustTake(t, c, "k", l); v.Remaining != 8 {
		t.Fatalf("%+v", v)
	}
}

func TestPeersComeAndLeave(t *testing.T) {
	server := redistest.Start(t)
	a := dial(t, Options{Gateway: "a"}, server.Addr())
	if a.Peers() != 1 {
		t.Fatal(a.Peers())
	}
	b, err := Dial(Options{Gateway: "b", Config: &config.Redis{Addresses: []string{server.Addr()}, Prefix: "sluice:"}})
	if err != nil {
		t.Fatal(err)
	}
	within(t, 3*time.Second, "two", func() bool { return a.Peers() == 2 && b.Peers() == 2 })
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	within(t, 2*time.Second, "one", func() bool { return a.Peers() == 1 })
	if _, err := take(b, "k", newLimit(t, meter.FixedWindow, 1, time.Hour)); !errors.Is(err, store.ErrUnavailable) {
		t.Fatal(err)
	}
}

func TestServerThatComesLater(t *testing.T) {
	server := redistest.Start(t)
	server.Kill()
	begun := time.Now()
	c, err := Dial(Options{Gateway: "a", Config: &config.Redis{Addresses: []string{server.Addr()}, Timeout: config.Duration{Duration: 50 * time.Millisecond}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	if d := time.Since(begun); d > 2*firstWait {
		t.Errorf("Dial took %v", d)
	}
	var changes atomic.Int32
	c.OnChange(func(up bool) {
		if up {
			changes.Add(1)
		}
	})
	if _, err := take(c, "k", newLimit(t, meter.FixedWindow, 1, time.Hour)); err != errOpen {
		t.Fatal(err)
	}
	server.Restart()
	within(t, 3*time.Second, "up", c.Up)
	within(t, time.Second, "told", func() bool { return changes.Load() == 1 })
}

func TestPasswordIsUsedAndNeverShown(t *testing.T) {
	const secret = "correct-horse-battery"
	server := redistest.Start(t, "--requirepass", secret)
	dial(t, Options{Config: &config.Redis{Password: config.NewSecret(secret)}}, server.Addr())

	var text buffer
	wrong := &config.Redis{Addresses: []string{server.Addr()}, Password: config.NewSecret("wrong-" + secret)}
	c, err := Dial(Options{Config: wrong, Gateway: "b", Log: slog.New(slog.NewTextHandler(&text, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	within(t, 2*time.Second, "logged", func() bool { return text.String() != "" })
	if s := text.String(); !strings.Contains(s, "WRONGPASS") || strings.Contains(s, secret) {
		t.Fatal(s)
	}
	if s := c.redact(errors.New("AUTH wrong-" + secret)); strings.Contains(s, secret) {
		t.Fatal(s)
	}
}

// buffer is a bytes.Buffer that goroutines share.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"redis.test"},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: pkcs}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	port := redistest.FreePort(t)
	redistest.Start(t, "--tls-port", port, "--tls-cert-file", dir+"/cert.pem", "--tls-key-file", dir+"/key.pem",
		"--tls-ca-cert-file", dir+"/cert.pem", "--tls-auth-clients", "yes")
	secure := &config.ClientTLS{CA: "cert.pem", Cert: "cert.pem", Key: "key.pem", ServerName: "redis.test"}
	c := dial(t, Options{Dir: dir, Config: &config.Redis{TLS: secure}}, "127.0.0.1:"+port)
	mustTake(t, c, "k", newLimit(t, meter.FixedWindow, 1, time.Hour))

	for want, broken := range map[string]config.ClientTLS{
		"state.redis.tls.ca:":                                      {CA: "absent.pem"},
		"state.redis.tls.ca: key.pem holds":                        {CA: "key.pem"},
		"state.redis.tls.cert and tls.key":                         {Cert: "cert.pem"},
		"state.redis.tls.cert: tls: failed to find certificate PE": {Cert: "key.pem", Key: "key.pem"},
	} {
		_, err := Dial(Options{Dir: dir, Gateway: "x", Config: &config.Redis{Addresses: []string{"127.0.0.1:1"}, TLS: &broken}})
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", broken, err, want)
		}
	}
}

func TestBreaker(t *testing.T) {
	at := time.Unix(1000, 0)
	failure := errors.New("x")
	made := func() *breaker {
		b := &breaker{tripped: make(chan struct{}, 1), changed: make(chan struct{}, 1)}
		b.restore()
		return b
	}
	b := made()
	after := func(d time.Duration) time.Time { return at.Add(d) }
	for i := range maxConsecutive {
		sent := after(time.Duration(i) * 10 * time.Millisecond)
		if opened := b.ended(sent, sent.Add(5*time.Millisecond), true, failure); opened != (i == maxConsecutive-1) {
			t.Fatalf("failure %d: opened %v", i+1, opened)
		}
	}
	if b.up.Load() || b.opened.Load() != 1 || b.reason() != failure {
		t.Fatal("not open")
	}
	b = made()
	for i := range minCalls - 2 { // one pause hits all that are in flight
		if b.ended(at, after(5*time.Millisecond+time.Duration(i)), true, failure) {
			t.Fatalf("opened after %d calls that were in flight together", i+1)
		}
	}
	b = made()
	for i := range minCalls / 2 { // good and bad by turns
		b.ended(at, at, false, nil)
		if opened := b.ended(at, at, true, failure); opened != (2*(i+1) == minCalls) {
			t.Fatalf("call %d: opened %v", 2*(i+1), opened)
		}
	}
	b = made()
	for i := range 100 { // as bad, but slow
		now := after(time.Duration(i) * time.Second)
		b.ended(now, now, false, nil)
		if b.ended(now, now, true, failure) {
			t.Fatalf("opened after %d seconds", i)
		}
	}
}

func TestCallsWhileOpenDoNotAllocate(t *testing.T) {
	c := dial(t, Options{}, redistest.Start(t).Addr())
	c.breaker.close()
	charges := []store.Charge{{Key: "k", Limit: newLimit(t, meter.FixedWindow, 1, time.Hour), Cost: 1}}
	out := make([]meter.Verdict, 1)
	if n := testing.AllocsPerRun(100, func() { _ = c.Take(context.Background(), charges, out) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestRightsThatAreEnough has all operations run with the rights that the docs name.
func TestRightsThatAreEnough(t *testing.T) {
	const rights = "+evalsha +eval +time +get +set +del +pexpire +hget +hset +hdel +hgetall +lindex +llen +lrange +lset +ltrim +rpush +rpop " +
		"+zadd +zrem +zcard +zremrangebyscore +hello +ping +cluster|slots " +
		"+hlen +zrange +zcount +publish +subscribe +unsubscribe &sluice:*"
	server := redistest.Start(t)
	server.Do(append([]string{"ACL", "SETUSER", "gate", "on", ">secret", "~sluice:*"}, strings.Fields(rights)...)...)
	c := dial(t, Options{Config: &config.Redis{Username: "gate", Password: config.NewSecret("secret")}}, server.Addr())
	for i, l := range []*meter.Limit{
		newLimit(t, meter.TokenBucket, 10, time.Hour), newLimit(t, meter.FixedWindow, 10, time.Hour), newLimit(t, meter.SlidingWindow, 10, time.Hour),
		newLimit(t, meter.SlidingLog, 2, 20*time.Millisecond), newLimit(t, meter.Concurrency, 10, 0),
	} {
		key := "k" + number(int64(i))
		for range 4 { // the log drops some, too
			mustTake(t, c, key, l)
		}
		for _, cost := range []int64{1, 1, -1, -10} {
			if err := post(c, store.Charge{Key: key, Limit: l, Cost: cost}); err != nil {
				t.Fatal(err)
			}
		}
		if l.Algorithm > meter.SlidingWindow {
			continue
		}
		for _, s := range []store.Settlement{{Need: 1, Ask: 2}, {Give: 2}} {
			s.Key, s.Limit = key, l
			if err := c.Settle(t.Context(), []store.Settlement{s}, make([]store.Grant, 1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	h := watch(c)
	within(t, 3*time.Second, "subscribed", func() bool { return server.Do("PUBSUB", "NUMSUB", c.recordKeys()[0]).([]any)[1] == int64(1) })
	for i := range 42 { // the log of changes is cut, and what has expired is removed
		var changes []store.Change
		for j := range store.MaxChanges {
			changes = append(changes, store.Change{Key: fmt.Sprintf("once/%d", j), Value: []byte{}, If: store.Always, Expires: time.Now().Add(time.Duration(i%2) * time.Hour)})
		}
		if _, err := c.Apply(t.Context(), changes); err != nil {
			t.Fatal(err)
		}
	}
	put(t, c, "key/1", "live")
	within(t, 3*time.Second, "heard", func() bool { _, ok := h.of("key/1"); return ok || h.all() > 1 })
	if got := list(t, c, ""); len(got) != store.MaxChanges+1 {
		t.Errorf("%d records", len(got))
	}
	within(t, 3*time.Second, "a heartbeat", func() bool { return c.Stats().Calls[OpMembers][Answered] > 2 })
	if s := c.Stats(); s.Calls[OpMembers][Failed] > 0 || s.Calls[OpRecords][Failed] > 0 || s.Opened > 0 {
		t.Errorf("%+v", s)
	}
}
