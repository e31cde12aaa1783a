package demo_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/demo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ask sends a request to the backend and returns its answer.
func ask(t *testing.T, method, target, body string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	demo.Backend().ServeHTTP(w, httptest.NewRequest(method, target, strings.NewReader(body)))
	return w
}

func TestBackendAnswers(t *testing.T) {
	for _, tt := range []struct {
		method, target, body string
		status               int
		want                 string
	}{
		{
			"GET", "/users/42", "", 200,
			`{"user_id":"42","first_name":"Alan","last_name":"Perlman","email":"alan.perlman42@example.com","created_at":1703628800,` +
				`"profile":{"language":"en","time_zone":"Europe/London","login_count":94,"is_verified":false,"last_login_at":1703632400},"served_by":"stable"}`,
		},
		{"GET", "/users/0", "", 404, `{"error":"there is no user \"0\"; there are 1 to 1000","served_by":"stable"}`},
		{"GET", "/users/x", "", 404, `{"error":"there is no user \"x\"; there are 1 to 1000","served_by":"stable"}`},
		{"POST", "/users", `{"first_name":"Grace","age":12345678901234567890}`, 201, `{"age":12345678901234567890,"first_name":"Grace","served_by":"stable","user_id":"1001"}`},
		{"POST", "/users", `[]`, 400, `{"error":"the body is no JSON object","served_by":"stable"}`},
		{"POST", "/users", `null`, 400, `{"error":"the body is no JSON object","served_by":"stable"}`},
		{"POST", "/users", `{"a":"` + strings.Repeat("x", 1<<20) + `"}`, 413, `{"error":"the body is longer than 1048576 bytes","served_by":"stable"}`},
		{"PUT", "/users/7", `{"email":"a@example.com"}`, 200, `{"email":"a@example.com","served_by":"stable","user_id":"7"}`},
		{"PUT", "/users/7000", `{}`, 404, `{"error":"there is no user \"7000\"; there are 1 to 1000","served_by":"stable"}`},
		{"DELETE", "/users/7", "", 204, ""},
		{"PATCH", "/users/7", "", 405, "Method Not Allowed"},
		{"GET", "/users?page=51", "", 400, `{"error":"page=\"51\" is no number from 1 to 50","served_by":"stable"}`},
		{"GET", "/slow?ms=1", "", 200, `{"served_by":"stable","waited_ms":1}`},
		{"GET", "/slow?ms=1h", "", 400, `{"error":"ms=\"1h\" is no number from 0 to 60000","served_by":"stable"}`},
		{"GET", "/status/503", "", 503, `{"served_by":"stable","status":503}`},
		{"GET", "/status/204", "", 204, ""},
		{"GET", "/status/100", "", 400, `{"error":"\"100\" is no status from 200 to 599","served_by":"stable"}`},
		{"GET", "/bytes/1073741825", "", 400, `{"error":"\"1073741825\" is no number of bytes from 0 to 1073741824","served_by":"stable"}`},
		{"GET", "/healthz", "", 200, "ok"},
		{"GET", "/canary/healthz", "", 200, "ok"},
		{"GET", "/canary/status/418", "", 418, `{"served_by":"canary","status":418}`},
		{"GET", "/nothing", "", 404, "404 page not found"},
	} {
		w := ask(t, tt.method, tt.target, tt.body)
		if got := strings.TrimSuffix(w.Body.String(), "\n"); w.Code != tt.status || got != tt.want {
			t.Errorf("%s %s: got %d %s, want %d %s", tt.method, tt.target, w.Code, got, tt.status, tt.want)
		}
		if backend := w.Header().Get("X-Backend"); (backend == "canary") != strings.HasPrefix(tt.target, "/canary/") || backend == "" {
			t.Errorf("%s %s: X-Backend is %q", tt.method, tt.target, backend)
		}
	}
}

func TestAUserIsAboutThreeHundredBytes(t *testing.T) {
	for _, id := range []string{"1", "500", "1000"} {
		if n := ask(t, "GET", "/users/"+id, "").Body.Len(); n < 250 || n > 350 {
			t.Errorf("user %s is %d bytes", id, n)
		}
	}
}

func TestPagesCoverAllUsersOnce(t *testing.T) {
	seen := map[string]bool{}
	for page := range 50 {
		var got struct {
			Page, Pages int
			Users       []struct {
				UserID string `json:"user_id"`
			}
		}
		w := ask(t, "GET", "/users?page="+string(rune('0'+(page+1)/10))+string(rune('0'+(page+1)%10)), "")
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Page != page+1 || got.Pages != 50 || len(got.Users) != 20 {
			t.Fatalf("page %d: %v, %s", page+1, err, w.Body)
		}
		for _, u := range got.Users {
			seen[u.UserID] = true
		}
	}
	if len(seen) != 1000 {
		t.Errorf("%d users, want 1000", len(seen))
	}
	if w := ask(t, "GET", "/names?page=2", ""); !strings.HasPrefix(w.Body.String(), `{"names":["Donald Dijkstra",`) {
		t.Errorf("names are %s", w.Body)
	}
}

func TestEchoShowsTheRequestAsItCame(t *testing.T) {
	r := httptest.NewRequest("PUT", "http://api.example.com/echo/a%20b?x=1&y", strings.NewReader("12345"))
	r.Header.Add("X-Two", "1")
	r.Header.Add("X-Two", "2")
	w := httptest.NewRecorder()
	demo.Backend().ServeHTTP(w, r)
	want := `{"method":"PUT","path":"http://api.example.com/echo/a%20b","query":"x=1\u0026y","host":"api.example.com","protocol":"HTTP/1.1",` +
		`"headers":{"X-Two":["1","2"]},"body_bytes":5,"served_by":"stable"}` + "\n"
	if got := w.Body.String(); w.Code != 200 || got != want {
		t.Errorf("got %d %s, want %s", w.Code, got, want)
	}
}

func TestBytesAreCountedOut(t *testing.T) {
	for _, n := range []int{0, 1, 251*256 - 1, 251 * 256, 251*256 + 1, 1_000_000} {
		w := ask(t, "GET", "/bytes/"+itoa(n), "")
		got := w.Body.Bytes()
		if len(got) != n || w.Header().Get("Content-Length") != itoa(n) {
			t.Fatalf("%d bytes, Content-Length %s, want %d", len(got), w.Header().Get("Content-Length"), n)
		}
		for i, c := range got {
			if c != byte(i%251) {
				t.Fatalf("byte %d of %d is %d", i, n, c)
			}
		}
	}
	if w := ask(t, "HEAD", "/bytes/1073741824", ""); w.Code != 200 || w.Body.Len() != 0 || w.Header().Get("Content-Length") != "1073741824" {
		t.Errorf("HEAD: %d, %d bytes, %v", w.Code, w.Body.Len(), w.Header())
	}
}

func itoa(n int) string {
	text, _ := json.Marshal(n)
	return string(text)
}

func TestUploadCountsAndHashes(t *testing.T) {
	body := bytes.Repeat([]byte("sluice "), 100_000)
	sum := sha256.Sum256(body)
	w := ask(t, "POST", "/upload", string(body))
	if want := `{"bytes":700000,"served_by":"stable","sha256":"` + hex.EncodeToString(sum[:]) + `"}` + "\n"; w.Body.String() != want {
		t.Errorf("got %s, want %s", w.Body, want)
	}
}

func TestEventsAreSentOneByOne(t *testing.T) {
	s := httptest.NewServer(demo.Backend())
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", s.URL+"/events?count=1000&every=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if got := res.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type is %q", got)
	}
	lines := bufio.NewScanner(res.Body)
	for _, want := range []string{"id: 1", "event: tick", `data: {"tick":1,"served_by":"stable"}`, "", "id: 2"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("got %q, want %q", lines.Text(), want)
		}
	}
	// The backend stops when nobody listens any more: Close waits for it.
	cancel()

	if w := ask(t, "GET", "/events?count=2&every=1", ""); strings.Count(w.Body.String(), "event: tick") != 2 {
		t.Errorf("got %q, want two events", w.Body)
	}
	if w := ask(t, "GET", "/events?count=1001", ""); w.Code != 400 {
		t.Errorf("too many events: %d", w.Code)
	}
}

func TestWebSocketSendsEveryMessageBack(t *testing.T) {
	s := httptest.NewServer(demo.Backend())
	defer s.Close()
	conn, _, err := websocket.Dial(t.Context(), s.URL+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(1 << 20)
	for _, m := range []struct {
		kind websocket.MessageType
		data []byte
	}{
		{websocket.MessageText, []byte("hello")},
		{websocket.MessageBinary, bytes.Repeat([]byte{0, 255}, 1<<18)},
		{websocket.MessageText, nil},
	} {
		if err := conn.Write(t.Context(), m.kind, m.data); err != nil {
			t.Fatal(err)
		}
		kind, got, err := conn.Read(t.Context())
		if err != nil || kind != m.kind || !bytes.Equal(got, m.data) {
			t.Errorf("got %v of %d bytes, %v; want %v of %d", kind, len(got), err, m.kind, len(m.data))
		}
	}
	if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
}

var settings = demo.Settings{Listen: "127.0.0.1:8080", Admin: "127.0.0.1:9901", Backend: "http://127.0.0.1:9001"}

func TestConfigIsSound(t *testing.T) {
	src, err := demo.Config(settings)
	if err != nil {
		t.Fatal(err)
	}
	f, found := config.Parse("demo.yaml", src, config.Env{})
	for _, d := range found {
		t.Error(d)
	}
	if f == nil {
		t.Fatal("there is no configuration")
	}
	if got := f.Listeners[0].Address; got != settings.Listen {
		t.Errorf("listens on %s", got)
	}
	if got := f.Admin.Address; got != settings.Admin {
		t.Errorf("the admin API is on %s", got)
	}
	if got := f.Upstreams["canary"].Targets[0].URL; got != settings.Backend+"/canary" {
		t.Errorf("the canary is %s", got)
	}
}

func TestTheCacheIsShownByAnAnswerThatTakesLong(t *testing.T) {
	const ask = "curl -si http://127.0.0.1:8080/forecast"
	var shown []string
	for _, try := range demo.Tries("http://127.0.0.1:8080", "http://127.0.0.1:9901") {
		if strings.Contains(try.Command, "/forecast") {
			shown = append(shown, try.Command)
		}
	}
	purge := "curl -sH content-type:application/json -d '{\"url\":\"http://127.0.0.1:8080/forecast\"}' http://127.0.0.1:9901/v1/cache/purge"
	if want := []string{ask, ask, purge}; !slices.Equal(shown, want) {
		t.Errorf("got %q, want it asked for twice and purged", shown)
	}
}

// TestTriesAreCommandsWithAReason also wants them to fit a terminal.
func TestTriesAreCommandsWithAReason(t *testing.T) {
	tries := demo.Tries("http://127.0.0.1:8080", "http://127.0.0.1:9901")
	if len(tries) < 15 {
		t.Errorf("only %d lines to try", len(tries))
	}
	command := regexp.MustCompile(`^curl -.*http://127\.0\.0\.1:8080/`)
	for _, try := range tries {
		if !command.MatchString(try.Command) || strings.Contains(try.Command, "BASE") || strings.Contains(try.Command, "ADMIN") {
			t.Errorf("%q is no command", try.Command)
		}
		if try.Shows == "" || len(try.Shows) > 80 || len(try.Command) > 125 {
			t.Errorf("%+v is too long for a terminal", try)
		}
	}
}
