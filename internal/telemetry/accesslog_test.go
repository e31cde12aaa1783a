package telemetry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// written returns what the access log of c writes for the exchanges.
func written(t *testing.T, c config.AccessLog, xs ...*exchange.Exchange) string {
	t.Helper()
	var out bytes.Buffer
	c.Output, c.Sample.Of = "stdout", 1
	tel := start(t, Options{Log: config.Log{Access: c}, Stdout: &out})
	for _, x := range xs {
		tel.Record(x, nil)
	}
	closeNow(t, tel)
	return out.String()
}

func TestJSONLine(t *testing.T) {
	got := written(t, config.AccessLog{Format: "json"}, typical())
	const want = `{"time":"2026-03-04T05:06:07.089Z","id":"0199b3b6-7c2a-7d4e-8f00-0123456789ab",` +
		`"trace":"4bf90000000000000000000000000036","client":"203.0.113.9","peer":"10.0.0.7:41234","method":"GET",` +
		`"host":"api.example.com","path":"/v1/users/42","query":"page=2&api_key=***","proto":"HTTP/1.1","status":200,` +
		`"bytes_in":0,"bytes_out":1234,"duration_ms":2.345,"gateway_ms":0.645,` +
		`"upstream":{"name":"users","target":"http://127.0.0.1:9001","attempts":1,"ms":1.500,"reused":true},` +
		`"route":"get-user","api":"public",` +
		`"user_agent":"Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"}` + "\n"
	if got != want {
		t.Errorf("got  %swant %s", got, want)
	}
}

func TestJSONLineOfARefusal(t *testing.T) {
	x := &exchange.Exchange{
		Conn: &exchange.Conn{TLS: &exchange.TLSInfo{Version: "TLS 1.3", Subject: "CN=acme"}}, Start: begun, Elapsed: 7 * time.Microsecond, BytesIn: 5,
		Err: &exchange.Error{Code: exchange.BadRequest}, Aborted: errors.New("write: broken pipe"),
	}
	x.Request.RawPath = []byte("/a%zz")
	x.Response.Status = 400
	got := written(t, config.AccessLog{Format: "json"}, x)
	const want = `{"time":"2026-03-04T05:06:07.089Z","id":"","trace":"00000000000000000000000000000000","client":"","peer":"","method":"",` +
		`"host":"","path":"/a%zz","proto":"HTTP/1.0","tls":"TLS 1.3","client_cert":"CN=acme","status":400,"code":"bad_request","bytes_in":5,"bytes_out":0,` +
		`"duration_ms":0.007,"gateway_ms":0.007,"aborted":"write: broken pipe"}` + "\n"
	if got != want {
		t.Errorf("got  %swant %s", got, want)
	}
}

func TestWhatTheCacheDidIsAField(t *testing.T) {
	for result := range exchange.CacheResults {
		x := typical()
		x.Cached.Result, x.Usage = result, exchange.Usage{}
		got := written(t, config.AccessLog{Format: "json"}, x)
		want := `"gateway_ms":2.145,"cache":"` + result.String() + `","route":"get-user"`
		if result == exchange.CacheNone {
			want = `"gateway_ms":2.145,"route":"get-user"`
		}
		if !strings.Contains(got, want) {
			t.Errorf("%d: no %s in %s", result, want, got)
		}
	}
}

func TestAnExchangeWithoutStartHasATime(t *testing.T) {
	x := typical()
	x.Start = time.Time{}
	got := written(t, config.AccessLog{Format: "json"}, x)
	when, err := time.Parse(time.RFC3339, strings.Split(got, `"`)[3])
	if err != nil || time.Since(when) > time.Minute || time.Since(when) < 0 {
		t.Errorf("%v in %s", err, got)
	}
}

func TestCombinedLine(t *testing.T) {
	x := typical()
	bare := &exchange.Exchange{Conn: &exchange.Conn{Shard: x.Conn.Shard}, Start: begun.Add(time.Second)}
	bare.Request.Method, bare.Request.Path = "GET", []byte("/a\"b\\c\n\xc3\xa9")
	got := written(t, config.AccessLog{Format: "combined"}, x, bare)
	const want = `203.0.113.9 - - [04/Mar/2026:05:06:07 +0000] "GET /v1/users/42?page=2&api_key=*** HTTP/1.1" 200 1234 ` +
		`"https://app.example.com/start?token=***" "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"` + "\n" +
		`- - - [04/Mar/2026:05:06:08 +0000] "GET /a\x22b\x5cc\x0a\xc3\xa9 HTTP/1.0" 0 0 "-" "-"` + "\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestRedactedHeadersAndParameters(t *testing.T) {
	x := typical()
	x.Request.Query = []byte("X-Session=abc&api%5Fkey=k&API_KEY=k2&apikey=&access_token=t&page=1&x%2dsession=abc&&=v&novalue&token")
	for _, c := range []struct{ format, want string }{
		{"json", `"query":"X-Session=***&api%5Fkey=***&API_KEY=***&apikey=&access_token=***&page=1&x%2dsession=***&&=v&novalue&token"`},
		{"json", `"user_agent":"***"`},
		{"combined", `"***" "***"` + "\n"},
	} {
		got := written(t, config.AccessLog{Format: c.format, Redact: []string{"User-Agent", "X-Session", "referer", ""}}, x)
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: no %s in %s", c.format, c.want, got)
		}
	}
}

func TestParameterNamesAreReadAsAServerReadsThem(t *testing.T) {
	long := strings.Repeat("n", 80)
	r := newRedaction([]string{"My Param", long, "%odd"})
	for name, want := range map[string]bool{
		"api_key": true, "Api_Key": true, "%61pi_key": true, "%41PI%5FKEY": true, "api_key%20": false, "api_keys": false,
		"xapi_key": false, "": false, "%": false, "%zz": false, "%6": false, "my+param": true, "My%20Param": true, "MY%2bPARAM": false,
		long: true, long + "x": true, long[:63]: false, "%25odd": true, "%odd": true, "key": true, "sig": true, "page": false,
	} {
		if got := r.hides([]byte(name)); got != want {
			t.Errorf("hides(%q) = %v, want %v", name, got, want)
		}
	}
}

func TestLongTextsAreCut(t *testing.T) {
	x := typical()
	x.Request.Path = bytes.Repeat([]byte("p"), 5000)
	got := written(t, config.AccessLog{Format: "json"}, x)
	if want := `"path":"` + strings.Repeat("p", 4096) + `…"`; !strings.Contains(got, want) {
		t.Errorf("%d bytes were written", len(got))
	}
}

func TestSampleDropsItsShare(t *testing.T) {
	count := func(sample float64) int {
		var out bytes.Buffer
		c := accessConfig("stdout", "json")
		c.Access.Sample.Of = sample
		tel := start(t, Options{Log: c, Stdout: &out})
		for range 2000 {
			tel.Record(typical(), nil)
		}
		closeNow(t, tel)
		if n := tel.access.full.Load(); n > 0 {
			t.Errorf("sample %v: %d records were dropped", sample, n)
		}
		return strings.Count(out.String(), "\n")
	}
	if n := count(0); n != 0 {
		t.Errorf("0%% wrote %d lines", n)
	}
	if n := count(1); n != 2000 {
		t.Errorf("100%% wrote %d lines", n)
	}
	// 500 are expected with a standard deviation of 19.
	if n := count(0.25); n < 350 || n > 650 {
		t.Errorf("25%% of 2000 wrote %d lines", n)
	}
}

func TestARecordIsWrittenWithoutWaitingForMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &recorder{}
		tel := start(t, Options{Log: accessConfig("stdout", "json"), Stdout: out})
		tel.Record(typical(), nil)
		time.Sleep(flushEvery)
		synctest.Wait()
		if n := strings.Count(out.String(), "\n"); n != 1 {
			t.Errorf("%d lines after %v", n, flushEvery)
		}
	})
}

func TestABusyStripeIsWrittenEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &recorder{}
		tel := start(t, Options{Log: accessConfig("stdout", "json"), Stdout: out})
		for range maxBatch / 2 {
			tel.Record(typical(), nil)
		}
		synctest.Wait()
		if n := strings.Count(out.String(), "\n"); n != maxBatch/2 {
			t.Errorf("%d lines without any time passing, want %d", n, maxBatch/2)
		}
	})
}

func TestLinesOfOneConnectionKeepTheirOrder(t *testing.T) {
	out := &recorder{}
	tel := start(t, Options{Log: accessConfig("stdout", "json"), Stdout: out})
	const n = 3000
	for i := range n {
		x := typical()
		x.ID = []byte{byte('a' + i/676%26), byte('a' + i/26%26), byte('a' + i%26)}
		tel.Record(x, nil)
	}
	closeNow(t, tel)
	last := ""
	for line := range strings.Lines(out.String()) {
		id := strings.Split(line, `"`)[7]
		if id <= last {
			t.Fatalf("%s comes behind %s", id, last)
		}
		last = id
	}
	if lines := strings.Count(out.String(), "\n"); lines != n {
		t.Errorf("%d lines, want %d", lines, n)
	}
}

func TestAStuckOutputHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &recorder{gate: make(chan struct{})}
		tel := start(t, Options{Log: accessConfig("stdout", "json"), Stdout: out, Stderr: out})
		tel.Record(typical(), nil)
		time.Sleep(flushEvery)
		synctest.Wait() // the writer is stuck now
		const extra = 100
		for range maxBatch + extra {
			tel.Record(typical(), nil)
		}
		if got := tel.access.full.Load(); got != extra {
			t.Errorf("%d records were dropped, want %d", got, extra)
		}
		if err := tel.Reconfigure(accessConfig("stderr", "json")); err != nil {
			t.Error(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := tel.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close of a stuck log: %v", err)
		}
		close(out.gate)
		synctest.Wait()
		if n := strings.Count(out.String(), "\n"); n != 1+maxBatch {
			t.Errorf("%d lines were written in the end, want %d", n, 1+maxBatch)
		}
	})
}

func TestAFullDiskIsCountedAndToldOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, ops := &recorder{fail: errors.New("no space left on device")}, &recorder{}
		tel := start(t, Options{Log: accessConfig("stdout", "json"), Stdout: out, Logger: NewLogger(ops, Level("info"))})
		for range 5 {
			tel.Record(typical(), nil)
			tel.Record(typical(), nil)
			time.Sleep(20 * time.Second)
		}
		synctest.Wait()
		if got := tel.access.failed.Load(); got != 10 {
			t.Errorf("%d lost records were counted, want 10", got)
		}
		lines := strings.Split(strings.TrimSpace(ops.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], `"lost":2,"cause":"no space left on device"`) || !strings.Contains(lines[1], `"lost":6`) {
			t.Errorf("logged\n%s", ops)
		}
		expect(t, scrape(t, tel, "sluice_access_log_dropped_total"),
			`sluice_access_log_dropped_total{reason="full"} 0`, `sluice_access_log_dropped_total{reason="write_error"} 10`)
		out.set(nil, -1)
		tel.Record(typical(), nil)
		closeNow(t, tel)
		if n := strings.Count(out.String(), "\n"); n != 1 {
			t.Errorf("%d lines after the disk was freed, want 1", n)
		}
	})
}

func TestATornLineEndsBeforeTheNext(t *testing.T) {
	out := &recorder{}
	s := &sink{w: out}
	out.set(io.ErrShortWrite, 5)
	if err := s.write([]byte("first line\n")); err == nil {
		t.Fatal("no error")
	}
	out.set(io.ErrShortWrite, 0)
	if err := s.write([]byte("second line\n")); err == nil {
		t.Fatal("no error")
	}
	out.set(nil, -1)
	if err := s.write([]byte("third line\n")); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "first\nthird line\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFileIsAppendedToAndPrivate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "access.log")
	for range 2 {
		tel := start(t, Options{Log: accessConfig("access.log", "json"), Dir: dir})
		tel.Record(typical(), nil)
		closeNow(t, tel)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm()&^0o640 != 0 {
		t.Errorf("mode %v", info.Mode())
	}
	if n := lines(t, path); n != 2 {
		t.Errorf("%d lines, want 2", n)
	}
}

func TestAFileThatCannotBeOpenedIsAnError(t *testing.T) {
	_, err := New(Options{Log: accessConfig("no/such/folder/access.log", "json"), Dir: t.TempDir()})
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "access.log") {
		t.Errorf("New: %v", err)
	}
	dir := t.TempDir()
	tel := start(t, Options{Log: accessConfig("access.log", "json"), Dir: dir})
	if err := tel.Reconfigure(accessConfig("no/such/folder", "combined")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Reconfigure: %v", err)
	}
	tel.Record(typical(), nil)
	closeNow(t, tel)
	if b, err := os.ReadFile(filepath.Join(dir, "access.log")); err != nil || !bytes.HasPrefix(b, []byte("{")) {
		t.Errorf("the old log did not go on as it was: %v, %q", err, b)
	}
}

func TestReopenLetsGoOfARotatedFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "access.log")
	tel := start(t, Options{Log: accessConfig(path, "json")})
	tel.Record(typical(), nil)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := tel.Reopen(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the old file's record", func() bool { return lines(t, path+".1") == 1 })
	waitFor(t, "the new file", func() bool { return tel.access.next.Load() == nil })
	tel.Record(typical(), nil)
	tel.Record(typical(), nil)
	closeNow(t, tel)
	if n, m := lines(t, path+".1"), lines(t, path); n != 1 || m != 2 {
		t.Errorf("%d lines in the old file and %d in the new one, want 1 and 2", n, m)
	}
	if err := tel.Reopen(); err != nil {
		t.Errorf("Reopen after Close: %v", err)
	}
}

func TestReconfigureChangesFormatOutputAndLevel(t *testing.T) {
	dir := t.TempDir()
	out := &recorder{}
	tel := start(t, Options{Log: accessConfig("stdout", "json"), Dir: dir, Stdout: out})
	tel.Record(typical(), nil)
	c := accessConfig("access.log", "combined")
	c.Level = "debug"
	if err := tel.Reconfigure(c); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the new output", func() bool { return tel.access.next.Load() == nil })
	tel.Record(typical(), nil)
	if got := tel.level.Level(); got != Level("debug") {
		t.Errorf("level %v", got)
	}
	if err := tel.Reconfigure(accessConfig("none", "json")); err != nil {
		t.Fatal(err)
	}
	tel.Record(typical(), nil)
	closeNow(t, tel)
	b, err := os.ReadFile(filepath.Join(dir, "access.log"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.String(), "{") || strings.Count(out.String(), "\n") != 1 ||
		!bytes.HasPrefix(b, []byte("203.0.113.9 - - [")) || bytes.Count(b, []byte("\n")) != 1 {
		t.Errorf("stdout %q, file %q", out, b)
	}
}

func TestADiscardedChangeLeavesTheLogAsItWas(t *testing.T) {
	dir := t.TempDir()
	out := &recorder{}
	tel := start(t, Options{Log: accessConfig("stdout", "json"), Dir: dir, Stdout: out})
	for _, output := range []string{"other.log", "stdout"} {
		p, err := tel.Prepare(accessConfig(output, "combined"))
		if err != nil {
			t.Fatal(err)
		}
		p.Discard()
	}
	tel.Record(typical(), nil)
	closeNow(t, tel)
	if !strings.HasPrefix(out.String(), "{") || lines(t, filepath.Join(dir, "other.log")) != 0 {
		t.Errorf("stdout %q", out)
	}
}

func TestStderrAndSeveralChangesAtOnce(t *testing.T) {
	dir := t.TempDir()
	out := &recorder{}
	tel := start(t, Options{Log: accessConfig("none", "json"), Dir: dir, Stderr: out})
	for _, o := range []string{"a.log", "b.log", "c.log", "stderr"} {
		if err := tel.Reconfigure(accessConfig(o, "json")); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "the new output", func() bool { return tel.access.next.Load() == nil })
	tel.Record(typical(), nil)
	closeNow(t, tel)
	if n := strings.Count(out.String(), "\n"); n != 1 {
		t.Errorf("%d lines on stderr, want 1", n)
	}
}

func TestRecordAndReconfigureAtOnce(t *testing.T) {
	dir := t.TempDir()
	tel := start(t, Options{Log: accessConfig("a", "json"), Dir: dir})
	var all sync.WaitGroup
	for shard := range uint32(4) {
		all.Go(func() {
			x := typical()
			x.Conn.Shard = shard
			r := tel.Route("a", "r")
			defer r.Release()
			for range 2000 {
				tel.Begin(x)
				tel.Record(x, r)
			}
		})
	}
	all.Go(func() {
		for i := range 50 {
			if err := tel.Reconfigure(accessConfig(string(rune('a'+i%5)), []string{"json", "combined"}[i%2])); err != nil {
				t.Error(err)
			}
			if err := tel.Reopen(); err != nil {
				t.Error(err)
			}
			scrape(t, tel, "x")
		}
	})
	all.Wait()
	closeNow(t, tel)
	total := int(tel.access.full.Load())
	for _, f := range []string{"a", "b", "c", "d", "e"} {
		if _, err := os.Stat(filepath.Join(dir, f)); err == nil {
			total += lines(t, filepath.Join(dir, f))
		}
	}
	if total != 8000 {
		t.Errorf("%d records were written or counted as dropped, want 8000", total)
	}
}

func lines(t *testing.T, path string) int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(b, []byte("\n"))
}

// waitFor polls for what another goroutine brings about.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	end := time.NewTimer(5 * time.Second)
	defer end.Stop()
	for !ok() {
		select {
		case <-poll.C:
		case <-end.C:
			t.Fatalf("%s did not come", what)
		}
	}
}

// recorder is an output that can be stuck, and that can fail behind some bytes.
type recorder struct {
	gate chan struct{} // writes wait until it is closed

	mu   sync.Mutex
	b    bytes.Buffer
	fail error
	left int // bytes taken before it fails
}

func (r *recorder) set(fail error, left int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail, r.left = fail, left
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.gate != nil {
		<-r.gate
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		n := min(len(p), r.left)
		r.b.Write(p[:n])
		return n, r.fail
	}
	return r.b.Write(p)
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.String()
}
