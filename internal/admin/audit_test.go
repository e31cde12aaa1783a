package admin

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/audit"
	"github.com/sluice-gateway/sluice/internal/config"
)

// recorded is what these tests read of a line of the audit log.
type recorded struct {
	Kind, Actor, Address, Request, Target, Reason string
	Status                                        int
	Detail                                        struct{ Stage, ETag string }
}

// recordingServer serves the admin API with an audit log; lines closes that and returns it.
func recordingServer(t *testing.T, n *node, c config.Admin, onFault string) (s *Server, lines func() []recorded) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l, err := audit.Open(audit.Options{File: path, OnFault: onFault})
	if err != nil {
		t.Fatal(err)
	}
	shut := func() {
		ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
		defer stop()
		if err := l.Close(ctx); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(shut)
	c.Address = "127.0.0.1:0"
	s, err = New(Options{Config: c, Gateway: n, Configuration: n, Limits: n, Audit: l, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s, func() []recorded {
		shut()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := audit.Verify(strings.NewReader(string(text))); err != nil {
			t.Error(err)
		}
		for _, secret := range []string{"adm1n-t0ken", "wr0ng", "hunter2", "k3y"} {
			if strings.Contains(string(text), secret) {
				t.Errorf("there is a secret in %s", text)
			}
		}
		var all []recorded
		for line := range strings.Lines(string(text)) {
			var r recorded
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(r.Kind, "audit.") {
				all = append(all, r)
			}
		}
		return all
	}
}

// send sends a request over a connection and returns the status and the request id.
func (s *Server) send(t *testing.T, method, target, body string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+s.Addr().String()+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header.Get("X-Request-Id")
}

func TestChangesAreRecordedWithWhoAndWhat(t *testing.T) {
	n := newNode(t, document)
	token := []string{"Content-Type", "application/yaml", "Authorization", "Bearer adm1n-t0ken"}
	s, lines := recordingServer(t, n, config.Admin{Token: config.NewSecret("adm1n-t0ken")}, "open")
	var want []recorded
	expect := func(kind, actor, id, target, reason string, status int, stage string) {
		want = append(want, recorded{Kind: kind, Actor: actor, Address: "127.0.0.1", Request: id, Target: target, Reason: reason, Status: status})
		want[len(want)-1].Detail.Stage = stage
	}
	for _, c := range []struct {
		method, target, body string
		header               []string
		status               int
		kind, reason         string // of the outcome; no kind: nothing is recorded
	}{
		{"GET", "/v1/config", "", token, 200, "", ""},
		{"GET", "/healthz", "", nil, 200, "", ""},
		{"POST", "/v1/explain", `{"url": "/"}`, []string{"Content-Type", "application/json", "Authorization", "Bearer adm1n-t0ken"}, 200, "", ""},
		{"PUT", "/v1/config?dry_run=1", document, token, 200, "admin.PUT /v1/config", ""},
		{"PUT", "/v1/config", document, token, 200, "admin.PUT /v1/config", ""},
		{"PUT", "/v1/config", "x: 1", token, 422, "admin.PUT /v1/config", "config_invalid"},
		{"PUT", "/v1/config?x=1", document, token, 400, "", ""},
	} {
		status, id := s.send(t, c.method, c.target, c.body, c.header...)
		if status != c.status {
			t.Errorf("%s %s: %d", c.method, c.target, status)
		}
		if c.kind != "" {
			expect(c.kind, "token", id, c.target, "", 0, "intent")
			expect(c.kind, "token", id, c.target, c.reason, c.status, "outcome")
		}
	}
	const refusal = "admin API: The admin API needs `Authorization: Bearer` with the value of admin.token."
	_, id := s.send(t, "PUT", "/v1/config", document, "Content-Type", "application/yaml")
	expect(audit.Refused, "", id, "PUT /v1/config", refusal, 401, "")
	_, id = s.send(t, "GET", "/v1/nothing?token=wr0ng", "", "Authorization", "Bearer wr0ng")
	expect(audit.Refused, "", id, "GET /v1/nothing", refusal, 401, "")
	got := lines()
	for i := range got {
		if got[i].Status == 200 != (got[i].Detail.ETag != "") {
			t.Errorf("%+v", got[i])
		}
		got[i].Detail.ETag = ""
		if i >= len(want) || got[i] != want[i] {
			t.Errorf("line %d: %+v", i, got[i])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d lines, want %d", len(got), len(want))
	}
}

func TestWithoutATokenLoopbackIsWho(t *testing.T) {
	n := newNode(t, document)
	s, lines := recordingServer(t, n, config.Admin{}, "open")
	s.send(t, "PUT", "/v1/config", document, "Content-Type", "application/yaml")
	s.send(t, "PUT", "/v1/config", document, "Content-Type", "application/yaml", "Origin", "https://evil.test")
	got := lines()
	if len(got) != 3 || got[0].Actor != "loopback" || got[2].Kind != audit.Forbidden || got[2].Status != 403 {
		t.Errorf("%+v", got)
	}
}

func TestAPanicHasAnOutcome(t *testing.T) {
	n := newNode(t, document)
	n.overtake = func() { panic("out of order") }
	s, lines := recordingServer(t, n, config.Admin{}, "open")
	if status, _ := s.send(t, "PUT", "/v1/config", document, "Content-Type", "application/yaml"); status != 500 {
		t.Errorf("status %d", status)
	}
	if got := lines(); len(got) != 2 || got[1].Status != 500 {
		t.Errorf("%+v", got)
	}
}

// A closed log stands for one whose disk is full: neither takes a line.
func TestNothingChangesThatCannotBeRecorded(t *testing.T) {
	for onFault, want := range map[string]int{"open": 200, "closed": 503} {
		n := newNode(t, document)
		s, lines := recordingServer(t, n, config.Admin{}, onFault)
		lines()
		r := s.ask("PUT", "/v1/config", document, "Content-Type", "application/yaml")
		if r.status != want || (len(n.changes) == 0) != (want == 503) {
			t.Errorf("%s: %d %s, %d changes", onFault, r.status, r.body, len(n.changes))
		}
		if want == 503 {
			if p := r.refused(t, 503, "dependency_unavailable"); !strings.Contains(p.Detail, "nothing was changed") {
				t.Error(p.Detail)
			}
		}
		if r := s.ask("GET", "/v1/config", ""); r.status != 200 {
			t.Errorf("%s: reading is %d", onFault, r.status)
		}
	}
}
