package auth

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
)

// outsideClock is a time that tests move.
type outsideClock struct{ ns atomic.Int64 }

func newOutsideClock() *outsideClock {
	c := &outsideClock{}
	c.ns.Store(noon.UnixNano())
	return c
}

func (c *outsideClock) now() time.Time           { return time.Unix(0, c.ns.Load()).UTC() }
func (c *outsideClock) pass(d time.Duration)     { c.ns.Add(int64(d)) }
func ofDuration(d time.Duration) config.Duration { return config.Duration{Duration: d} }

// outsideRig is an authenticator that asks a server of the test.
type outsideRig struct {
	authenticator
	*outsideClock
	calls atomic.Int64
	mu    sync.Mutex
	reply http.HandlerFunc
}

// answers sets what the server does from now on.
func (a *outsideRig) answers(h http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reply = h
}

// replying is a reply with a status, fields and a body.
func replying(status int, body string, fields ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(fields); i += 2 {
			w.Header().Add(fields[i], fields[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// outsideOf makes an authenticator of a configuration that is told the server's URL.
func outsideOf(t *testing.T, f *config.File, entry func(url string) *config.Authenticator) *outsideRig {
	t.Helper()
	a := &outsideRig{outsideClock: newOutsideClock()}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.calls.Add(1)
		a.mu.Lock()
		reply := a.reply
		a.mu.Unlock()
		reply(w, r)
	}))
	e := New(Options{Now: a.now})
	if f == nil {
		f = &config.File{}
	}
	f.Authenticators = map[string]*config.Authenticator{"outside": entry(s.URL)}
	r := e.newRealm(f)
	if r.err != nil {
		t.Fatal(r.err)
	}
	a.authenticator = r.authenticators["outside"]
	t.Cleanup(func() {
		if err := errors.Join(r.close(), e.Close(t.Context())); err != nil {
			t.Error(err)
		}
		s.CloseClientConnections()
		s.Close()
	})
	return a
}

// outsideRequest is a GET with fields.
func outsideRequest(fields ...string) *exchange.Exchange {
	x := &exchange.Exchange{
		Conn: &exchange.Conn{}, Start: noon, ID: []byte("id-1"), Client: netip.MustParseAddr("192.0.2.7"),
		Route: &exchange.Route{API: "public", Name: "get-user", Stage: "production", Pattern: "/v1/users/{id}"},
	}
	x.Request.Method, x.Request.Path = "GET", []byte("/v1/users/7")
	x.Request.Proto, x.Request.TLS = exchange.HTTP11, true
	x.Request.Authority, x.Request.Host = []byte("api.example.com:8443"), []byte("api.example.com")
	for i := 0; i < len(fields); i += 2 {
		x.Request.Header.Add([]byte(fields[i]), []byte(fields[i+1]))
	}
	return x
}

// verdictOf is what the authenticator says: the caller's id, or the code of the refusal
// and its cause.
func (a *outsideRig) verdictOf(x *exchange.Exchange) string {
	credential := a.find(x)
	if credential == nil {
		a.strip(x)
		return "none"
	}
	caller, err := a.check(x, credential, false)
	a.strip(x)
	if err != nil {
		e := exchange.AsError(err)
		return e.Code.String() + ": " + e.Cause.Error()
	}
	return caller.ID
}

func TestOutsideAnswersAreSharedAndExplainAsksNobody(t *testing.T) {
	for _, c := range []struct {
		name  string
		entry func(url string) *config.Authenticator
		reply http.HandlerFunc
		want  string
		// beyond the exchange's own memory, which this test never resets
		allocations float64
	}{
		{"introspection", func(url string) *config.Authenticator {
			return &config.Authenticator{Introspection: &config.IntrospectionAuth{URL: url, CacheTTL: ofDuration(time.Minute), Timeout: ofDuration(30 * time.Second)}}
		}, replying(200, `{"active":true,"sub":"acme"}`, "Content-Type", "application/json"), "acme", 0},
		{"http", func(url string) *config.Authenticator {
			return &config.Authenticator{HTTP: &config.HTTPAuth{URL: url, Send: []string{"Authorization"}, CacheTTL: ofDuration(time.Minute), Timeout: ofDuration(30 * time.Second)}}
		}, replying(204, "", "X-Auth-Client", "acme"), "acme", 0},
		{"lambda", func(url string) *config.Authenticator {
			return &config.Authenticator{Lambda: &config.LambdaAuth{
				Function: "f", Region: "us-east-1", Endpoint: url, Type: "token",
				Identity: []string{"header:Authorization"}, CacheTTL: ofDuration(time.Minute), Timeout: ofDuration(30 * time.Second),
			}}
		}, replying(200, `{"isAuthorized":true,"context":{"principalId":"acme"}}`), "acme", 0},
	} {
		awsOf(t)
		a := outsideOf(t, nil, c.entry)
		entered, release := make(chan struct{}, 1000), make(chan struct{})
		a.answers(func(w http.ResponseWriter, r *http.Request) {
			entered <- struct{}{}
			<-release
			c.reply(w, r)
		})
		x := outsideRequest("Authorization", "Bearer token-1")
		if _, err := a.check(x, a.find(x), true); err != errDry || a.calls.Load() != 0 {
			t.Errorf("%s: explained as %v with %d calls", c.name, err, a.calls.Load())
		}
		var all sync.WaitGroup
		var right atomic.Int64
		for range 1000 {
			all.Go(func() {
				if a.verdictOf(outsideRequest("Authorization", "Bearer token-1")) == c.want {
					right.Add(1)
				}
			})
		}
		<-entered
		close(release)
		all.Wait()
		if right.Load() != 1000 || a.calls.Load() != 1 {
			t.Errorf("%s: %d of 1000 right, %d calls", c.name, right.Load(), a.calls.Load())
		}
		// What is kept is the same caller, and tells explain too.
		x = outsideRequest("Authorization", "Bearer token-1")
		one, err := a.check(x, a.find(x), true)
		two, _ := a.check(x, a.find(x), false)
		if err != nil || one != two {
			t.Errorf("%s: explained as %v, %v", c.name, one, err)
		}
		credential := a.find(x)
		if n := testing.AllocsPerRun(100, func() { _, _ = a.check(x, credential, true) }); n > c.allocations {
			t.Errorf("%s: %v allocations", c.name, n)
		}
		a.pass(time.Minute)
		if a.verdictOf(outsideRequest("Authorization", "Bearer token-1")); a.calls.Load() != 2 {
			t.Errorf("%s: %d calls after cache_ttl", c.name, a.calls.Load())
		}
	}
}

func TestOutsideThatDoesNotAnswer(t *testing.T) {
	for _, c := range []struct {
		name  string
		entry func(url string) *config.Authenticator
	}{
		{"introspection", func(url string) *config.Authenticator {
			return &config.Authenticator{Introspection: &config.IntrospectionAuth{URL: url, CacheTTL: ofDuration(time.Minute), Timeout: ofDuration(50 * time.Millisecond)}}
		}},
		{"http", func(url string) *config.Authenticator {
			return &config.Authenticator{HTTP: &config.HTTPAuth{URL: url, Send: []string{"Authorization"}, CacheTTL: ofDuration(time.Minute), Timeout: ofDuration(50 * time.Millisecond)}}
		}},
		{"lambda", func(url string) *config.Authenticator {
			return &config.Authenticator{Lambda: &config.LambdaAuth{
				Function: "f", Region: "us-east-1", Endpoint: url, Type: "request",
				Identity: []string{"header:Authorization"}, CacheTTL: ofDuration(time.Minute), Timeout: ofDuration(50 * time.Millisecond),
			}}
		}},
	} {
		awsOf(t)
		a := outsideOf(t, nil, c.entry)
		a.answers(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		})
		if got := a.verdictOf(outsideRequest("Authorization", "Bearer t")); got != "dependency_unavailable: no answer within 50ms" {
			t.Errorf("%s: %s", c.name, got)
		}
		// The client's own end comes first, and takes nothing from others.
		x := outsideRequest("Authorization", "Bearer t")
		x.Cancel()
		if got := a.verdictOf(x); got != "dependency_unavailable: context canceled" {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}

// awsOf gives the SDK credentials of nobody, and nothing of this machine.
func awsOf(t *testing.T) {
	for name, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
		"AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_LAMBDA": "",
	} {
		t.Setenv(name, v)
	}
}

func TestARouteThatAsksAService(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer good" {
			w.WriteHeader(http.StatusUnauthorized)
		}
		w.Header().Set("X-User", "jdoe")
	}))
	defer s.Close()
	e := New(Options{})
	f, err := e.newAuthenticate(&config.Route{Auth: &config.Auth{Use: [][]string{{"outside"}, {"anonymous"}}}}, &policy.Env{File: &config.File{
		Limits:         config.Limits{AuthFailures: config.AuthFailures{Rate: config.Rate{N: 1000, Per: time.Second}, Burst: 1000, Per: []string{"ip"}}},
		Authenticators: map[string]*config.Authenticator{"outside": httpOf(config.HTTPAuth{Send: []string{"Authorization"}, Receive: []string{"X-User"}, CacheTTL: ofDuration(time.Minute)})(s.URL)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, c := range []struct{ authorization, id, user, refusal, challenge string }{
			{"Bearer good", "jdoe", "jdoe", "", ""},
			{"Bearer bad", "", "", "unauthenticated: outside: the service answers with status 401", "Bearer"},
			{"", "", "", "", ""},
		} {
			x := outsideRequest("X-User", "root")
			if c.authorization != "" {
				x.Request.Header.AddID(exchange.Authorization, []byte(c.authorization))
			}
			refusal, challenge := "", ""
			if err := f.Request(x); err != nil {
				r := exchange.AsError(err)
				refusal = r.Code.String() + ": " + r.Cause.Error()
				for _, h := range r.Header {
					challenge += string(h.Value)
				}
			}
			if refusal != c.refusal || challenge != c.challenge || idOf(x) != c.id || string(x.Request.Header.Get([]byte("X-User"))) != c.user {
				t.Errorf("%q: %s, %s, %s, %s", c.authorization, refusal, challenge, idOf(x), x.Request.Header.Get([]byte("X-User")))
			}
		}
	}
	if err := errors.Join(f.(policy.Closer).Close(), e.Close(t.Context())); err != nil {
		t.Error(err)
	}
}
