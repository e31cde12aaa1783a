package telemetry

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

func TestFailuresAreLoggedByWhoseFaultTheyAre(t *testing.T) {
	for _, c := range []struct {
		name    string
		err     *exchange.Error
		aborted error
		want    string // level and message, "" when nothing is logged at info
	}{
		{"bug", &exchange.Error{Code: exchange.Internal, Side: exchange.Gateway}, nil, `"level":"ERROR","msg":"exchange failed"`},
		{"upstream away", &exchange.Error{Code: exchange.UpstreamUnavailable, Side: exchange.Upstream}, nil, `"level":"WARN","msg":"exchange failed"`},
		{"none healthy", &exchange.Error{Code: exchange.UpstreamUnavailable, Status: 503}, nil, `"level":"WARN","msg":"exchange failed"`},
		{"refusal", &exchange.Error{Code: exchange.Forbidden}, nil, ""},
		{"not built", &exchange.Error{Code: exchange.NotImplemented}, nil, ""},
		{"client gone", nil, &exchange.Error{Code: exchange.ClientGone}, ""},
		{"response broke off", nil, &exchange.Error{Code: exchange.BadUpstreamResponse, Side: exchange.Upstream}, `"level":"WARN","msg":"response aborted"`},
		{"write failed", nil, errors.New("broken pipe"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := &recorder{}
			tel := start(t, Options{Logger: NewLogger(out, Level("info"))})
			x := typical()
			x.Err, x.Aborted = c.err, c.aborted
			tel.Record(x, nil)
			closeNow(t, tel)
			if got := out.String(); !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
				t.Errorf("logged %q, want %q", got, c.want)
			}
		})
	}
}

func TestAFailureIsLoggedWithItsCause(t *testing.T) {
	out := &recorder{}
	tel := start(t, Options{Logger: NewLogger(out, Level("info"))})
	x := typical()
	x.Response.Status = 502
	x.Err = &exchange.Error{Code: exchange.UpstreamUnavailable, Detail: "No connection.", Cause: errors.New("dial: refused\nlevel=ERROR")}
	tel.Record(x, nil)
	closeNow(t, tel)
	_, got, _ := strings.Cut(out.String(), `"level"`)
	const want = `:"WARN","msg":"exchange failed","id":"0199b3b6-7c2a-7d4e-8f00-0123456789ab","client":"203.0.113.9","method":"GET",` +
		`"host":"api.example.com","path":"/v1/users/42","status":502,"duration_ms":2.345,` +
		`"cause":"upstream_unavailable: No connection.: dial: refused\nlevel=ERROR","code":"upstream_unavailable",` +
		`"api":"public","route":"get-user","upstream":"users","target":"http://127.0.0.1:9001"}` + "\n"
	if got != want {
		t.Errorf("got  %swant %s", got, want)
	}
}

func TestAStormOfFailuresIsSummedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &recorder{}
		tel := start(t, Options{Logger: NewLogger(out, Level("info"))})
		fail := func() {
			x := typical()
			x.Start = time.Now()
			x.Err = &exchange.Error{Code: exchange.UpstreamTimeout, Side: exchange.Upstream}
			tel.Record(x, nil)
			synctest.Wait()
		}
		for range 1000 {
			fail()
		}
		time.Sleep(time.Second)
		fail()
		got := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(got) != errorsPerSecond+1 || !strings.HasSuffix(got[errorsPerSecond], `"suppressed":980}`) {
			t.Errorf("%d lines, the last of which is %s", len(got), got[len(got)-1])
		}
		expect(t, scrape(t, tel, "sluice_error_log_suppressed_total"), "sluice_error_log_suppressed_total 980")
	})
}

func TestAStuckErrorLogHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &recorder{gate: make(chan struct{})}
		tel := start(t, Options{Logger: NewLogger(out, Level("info"))})
		for range 10 * errorQueue / errorsPerSecond {
			for range errorsPerSecond {
				x := typical()
				x.Start = time.Now()
				x.Err = &exchange.Error{Code: exchange.Internal}
				tel.Record(x, nil)
			}
			time.Sleep(time.Second)
		}
		if got := tel.errors.suppressed.Load(); got != 640-errorQueue-1 {
			t.Errorf("%d were suppressed, want %d", got, 640-errorQueue-1)
		}
		close(out.gate)
	})
}

func TestLevels(t *testing.T) {
	for name, want := range map[string]string{"debug": "DEBUG", "info": "INFO", "warn": "WARN", "error": "ERROR", "": "INFO"} {
		if got := Level(name).String(); got != want {
			t.Errorf("%q is %s, want %s", name, got, want)
		}
	}
}

func TestOperationsAreTextForATerminalAndJSONForAProgram(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0) // a character device, as terminals are
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if _, ok := NewLogger(null, slog.LevelInfo).Handler().(*slog.TextHandler); !ok {
		t.Error("no text for a terminal")
	}
	pipe, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	defer end.Close()
	level := new(slog.LevelVar)
	for _, w := range []io.Writer{end, &recorder{}} {
		if _, ok := NewLogger(w, level).Handler().(*slog.JSONHandler); !ok {
			t.Errorf("no JSON for %T", w)
		}
	}
	log := NewLogger(end, level)
	level.Set(slog.LevelError)
	if log.Enabled(t.Context(), slog.LevelWarn) {
		t.Error("the level does not follow its variable")
	}
}
