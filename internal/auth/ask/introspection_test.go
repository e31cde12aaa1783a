package ask

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// serve runs a server, with a client whose connections end with the test.
func serve(t *testing.T, h http.HandlerFunc) (string, *http.Client) {
	t.Helper()
	s := httptest.NewServer(h)
	c := NewClient()
	t.Cleanup(func() {
		c.CloseIdleConnections()
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL, c
}

func TestWhatTheIntrospectionEndpointIsAsked(t *testing.T) {
	for _, c := range []struct{ id, secret, authorization string }{
		{"", "", ""},
		{"s6BhdRkqt3", "gX1fBat3bV", "Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW"}, // RFC 6749 §2.3.1
		{"a:b", "ü &", "Basic YSUzQWI6JUMzJUJDKyUyNg=="},                   // a%3Ab:%C3%BC+%26
	} {
		var got *http.Request
		var body []byte
		url, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
			got = r
			body, _ = io.ReadAll(r.Body)
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"active":false}`)
		})
		i := Introspection{Client: client, URL: url + "/introspect?tenant=a", ID: c.id, Secret: c.secret}
		if _, err := i.Ask(t.Context(), "2YotnFZFEjr1zCsicMWpAA+/="); err != nil {
			t.Fatal(err)
		}
		want := http.Header{
			"Accept": {"application/json"}, "Content-Type": {"application/x-www-form-urlencoded"}, "User-Agent": {"sluice"},
			"Content-Length": {"66"},
		}
		if c.authorization != "" {
			want.Set("Authorization", c.authorization)
		}
		if got.Method != "POST" || got.RequestURI != "/introspect?tenant=a" || !reflect.DeepEqual(got.Header, want) ||
			string(body) != "token=2YotnFZFEjr1zCsicMWpAA%2B%2F%3D&token_type_hint=access_token" {
			t.Errorf("%q: %s %s %v %s", c.id, got.Method, got.RequestURI, got.Header, body)
		}
	}
}

func TestAnswersOfTheIntrospectionEndpoint(t *testing.T) {
	const full = `{"active":true,"client_id":"l238j323ds-23ij4","username":"jdoe","scope":"read write dolphin","sub":"Z5O3upPC88QrAjx00dis","aud":"https://protected.example.net/resource","iss":"https://server.example.com/","exp":1419356238,"iat":1419350238,"nbf":1419350238.5,"extension_field":"twenty-seven","cnf":{"x5t#S256":"bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}}` // RFC 7662 §2.2, RFC 8705 §3.2
	for _, c := range []struct {
		name        string
		status      int
		media, body string
		want        *Introspected
		err         string
	}{
		{"as the RFCs show it", 200, "application/json", full, &Introspected{
			Active: true, Expires: time.Unix(1419356238, 0), NotBefore: time.Unix(1419350238, 5e8), Size: len(full),
			Thumbprint: "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2",
			Claims: map[string]any{
				"client_id": "l238j323ds-23ij4", "username": "jdoe", "scope": "read write dolphin", "sub": "Z5O3upPC88QrAjx00dis",
				"aud": "https://protected.example.net/resource", "iss": "https://server.example.com/", "exp": json.Number("1419356238"),
				"iat": json.Number("1419350238"), "nbf": json.Number("1419350238.5"), "extension_field": "twenty-seven",
				"cnf": map[string]any{"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"},
			},
		}, ""},
		{"inactive", 200, "application/json;charset=UTF-8", `{"active":false}`, &Introspected{Size: 16}, ""},
		{"inactive, with more than it should say", 200, "application/json", `{"active":false,"exp":"never","sub":"a"}`, &Introspected{Size: 40}, ""},
		{"active as a text", 200, "application/json", `{"active":"true"}`, nil, "the introspection endpoint's answer has no boolean active"},
		{"active as a number", 200, "application/json", `{"active":1}`, nil, "the introspection endpoint's answer has no boolean active"},
		{"Active", 200, "application/json", `{"Active":true}`, nil, "the introspection endpoint's answer has no boolean active"},
		{"active twice", 200, "application/json", `{"active":false,"active":true}`, nil, "the introspection endpoint's answer cannot be used: JSON has the member \"active\" twice"},
		{"a list", 200, "application/json", `[{"active":true}]`, nil, "the introspection endpoint's answer cannot be used: JSON is no object"},
		{"empty", 200, "application/json", ``, nil, "the introspection endpoint's answer cannot be used: JSON is no object"},
		{"cut off", 200, "application/json", `{"active":true`, nil, "the introspection endpoint's answer cannot be used: JSON ends too early"},
		{"exp as a text", 200, "application/json", `{"active":true,"exp":"1419356238"}`, nil, "the introspection endpoint's answer has a exp that is no number"},
		{"exp beyond time", 200, "application/json", `{"active":true,"exp":1e300}`, nil, "the introspection endpoint's answer has a exp that is no time"},
		{"nbf beyond time", 200, "application/json", `{"active":true,"nbf":-1e999}`, nil, "the introspection endpoint's answer cannot be used: JSON has a bad number"},
		{"bound by DPoP", 200, "application/json", `{"active":true,"cnf":{"jkt":"a"}}`, nil, "the introspection endpoint's answer binds the token by a cnf that is not understood, only x5t#S256 is"},
		{"bound twice", 200, "application/json", `{"active":true,"cnf":{"x5t#S256":"a","jkt":"a"}}`, nil, "the introspection endpoint's answer binds the token by a cnf that is not understood, only x5t#S256 is"},
		{"bound to nothing", 200, "application/json", `{"active":true,"cnf":null}`, nil, "the introspection endpoint's answer binds the token by a cnf that is not understood, only x5t#S256 is"},
		{"another type", 200, "text/html", `{"active":true}`, nil, `the introspection endpoint's answer is of type "text/html", only application/json is read`},
		{"no such client", 401, "application/json", `{"error":"invalid_client"}`, nil, "the introspection endpoint answers 401 to the gateway itself: check client_id and client_secret"},
		{"an error", 400, "application/json", `{"active":true}`, nil, "the introspection endpoint answers with status 400"},
		{"created", 201, "application/json", `{"active":true}`, nil, "the introspection endpoint answers with status 201"},
		{"failing", 503, "text/plain", ``, nil, "the introspection endpoint answers with status 503"},
		{"elsewhere", 307, "application/json", `{"active":true}`, nil, "the introspection endpoint answers with status 307"},
		{"long", 200, "application/json", `{"active":true,"a":"` + strings.Repeat("a", MaxReply) + `"}`, nil, "the reply is longer than 262144 bytes"},
	} {
		url, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", c.media)
			w.Header().Set("Location", "http://"+r.Host+"/other")
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		})
		got, err := (&Introspection{Client: client, URL: url}).Ask(t.Context(), "token")
		if !reflect.DeepEqual(got, c.want) || c.err != fmt.Sprint(err) && (err != nil || c.err != "") {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

func TestNoRedirectIsFollowed(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		var asked atomic.Int64
		url, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			http.Redirect(w, r, "/other", status)
		})
		got, _, err := Get(t.Context(), client, url, http.Header{"Authorization": {"secret"}})
		if got != status || err != nil || asked.Load() != 1 {
			t.Errorf("%d: %d, %v, %d requests", status, got, err, asked.Load())
		}
	}
}

// silent never answers. A server sees that its client has gone once the body is read.
func silent(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

func TestRepliesThatNeverEnd(t *testing.T) {
	for _, c := range []struct {
		name  string
		reply func(w http.ResponseWriter, r *http.Request)
		want  string
	}{
		{"silence", silent, "context deadline exceeded"},
		{"a body that stands still", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"active":`)
			w.(http.Flusher).Flush()
			silent(w, r)
		}, "context deadline exceeded"},
		{"a body without end", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for r.Context().Err() == nil {
				_, _ = w.Write(make([]byte, 32<<10))
			}
		}, "the reply is longer than 262144 bytes"},
		{"a header without end", func(w http.ResponseWriter, _ *http.Request) {
			for i := range 100 {
				w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("a", 1<<10))
			}
		}, "net/http: HTTP/1.x transport connection broken: net/http: server response headers exceeded 65536 bytes; aborted"},
		{"none", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	} {
		url, client := serve(t, c.reply)
		timeout := 200 * time.Millisecond
		if c.want != "context deadline exceeded" {
			timeout = 30 * time.Second
		}
		ctx, stop := context.WithTimeout(t.Context(), timeout)
		_, err := (&Introspection{Client: client, URL: url + "/?secret"}).Ask(ctx, "token")
		stop()
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestConnectionsAreKept(t *testing.T) {
	peers := map[string]bool{}
	url, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		peers[r.RemoteAddr] = true
		_, _ = io.WriteString(w, strings.Repeat("a", MaxReply))
	})
	for range 10 {
		if _, _, err := Get(t.Context(), client, url, nil); err != nil {
			t.Fatal(err)
		}
	}
	if len(peers) != 1 {
		t.Errorf("%d connections", len(peers))
	}
}

func TestErrorsSayNothingSecret(t *testing.T) {
	url, client := serve(t, func(http.ResponseWriter, *http.Request) {})
	url = strings.Replace(url, "127.0.0.1:", "127.0.0.1:1", 1) // no port
	_, err := (&Introspection{Client: client, URL: url + "/?key=SECRET", ID: "id", Secret: "SECRET"}).Ask(t.Context(), "SECRET")
	if err == nil || strings.Contains(err.Error(), "SECRET") {
		t.Error(err)
	}
	_, _, err = Get(t.Context(), client, url+"/?key=SECRET", http.Header{"Authorization": {"SECRET"}})
	if err == nil || strings.Contains(err.Error(), "SECRET") {
		t.Error(err)
	}
}
