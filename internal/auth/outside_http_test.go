package auth

import (
	"context"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth/ask"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// keep puts an answer where answers are kept, without a server.
func keep[T any](t testing.TB, o *outside[T], key ask.Key, v T) {
	t.Helper()
	_, err := o.desk.Ask(t.Context(), key, func(context.Context) (ask.Answer[T], error) {
		return ask.Answer[T]{Value: v, Until: o.realm.engine.now().Add(time.Hour)}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func askKey(text string) ask.Key { return ask.KeyOf([]byte(text)) }

func httpOf(h config.HTTPAuth) func(url string) *config.Authenticator {
	return func(url string) *config.Authenticator {
		h.URL, h.Timeout = url+"/verify", ofDuration(30*time.Second)
		return &config.Authenticator{HTTP: &h}
	}
}

func TestWhatTheServiceIsSent(t *testing.T) {
	a := outsideOf(t, nil, httpOf(config.HTTPAuth{Send: []string{"authorization", "X-Tenant", "User-Agent"}, CacheTTL: ofDuration(time.Minute)}))
	var got []*http.Request
	a.answers(func(_ http.ResponseWriter, r *http.Request) { got = append(got, r) })
	x := outsideRequest("Authorization", "Bearer t", "X-Tenant", "a", "x-tenant", "b", "Cookie", "session=1", "User-Agent", "curl", "X-Forwarded-Uri", "/forged")
	x.Request.Method, x.Request.Query, x.Request.HasQuery = "POST", []byte("a=1&b"), true
	a.verdictOf(x)
	want := http.Header{
		"Authorization": {"Bearer t"}, "X-Tenant": {"a", "b"}, "User-Agent": {"curl"},
		"X-Forwarded-Method": {"POST"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"api.example.com:8443"},
		"X-Forwarded-Uri": {"/v1/users/7?a=1&b"}, "X-Forwarded-For": {"192.0.2.7"},
	}
	if len(got) != 1 || got[0].Method != "GET" || got[0].RequestURI != "/verify" || got[0].ContentLength != 0 || !reflect.DeepEqual(got[0].Header, want) {
		t.Errorf("%+v", got)
	}
}

func TestWhatTheServiceSays(t *testing.T) {
	for _, c := range []struct {
		name   string
		reply  http.HandlerFunc
		want   string
		fields string // for the upstream
	}{
		{"a name", replying(200, "", "X-Auth-Client", "acme", "X-User", "jdoe"), "acme", "X-User=jdoe"},
		{"no content", replying(204, "", "X-Auth-Client", "acme"), "acme", ""},
		{"a field", replying(200, "", "X-User", "jdoe", "X-Roles", "a", "X-Roles", "b"), "jdoe", "X-User=jdoe X-Roles=a X-Roles=b"},
		{"the second field", replying(200, "", "X-Roles", "a"), "a", "X-Roles=a"},
		{"nothing", replying(200, ""), "credential-2302cc3ed9e81085", ""},
		{"what was not asked for", replying(200, "", "X-Other", "a", "Set-Cookie", "a=b"), "credential-2302cc3ed9e81085", ""},
		{"a name twice", replying(200, "", "X-Auth-Client", "a", "X-Auth-Client", "b"), "dependency_unavailable: the service answers with X-Auth-Client more than once", ""},
		{"an empty name", replying(200, "", "X-Auth-Client", "", "X-User", "jdoe"), "jdoe", "X-User=jdoe"},
		{"a name that is too long", replying(200, "", "X-Auth-Client", strings.Repeat("a", 257)), "dependency_unavailable: the client's id in the service's answer is longer than 256 bytes", ""},
		{"a name that is no text", replying(200, "", "X-Auth-Client", "a\xff"), "dependency_unavailable: the client's id in the service's answer is not UTF-8", ""},
		{"control characters", func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\nX-User: a\x01b\r\nContent-Length: 0\r\n\r\n"))
			_ = c.Close()
		}, "dependency_unavailable: the reply is no proper HTTP", ""},
		{"401", replying(401, "", "X-User", "jdoe"), "unauthenticated: the service answers with status 401", ""},
		{"403", replying(403, "", "X-User", "jdoe"), "forbidden: the service answers 403", ""},
		{"a login page", replying(302, "", "Location", "/login", "X-User", "jdoe"), "unauthenticated: the service answers with status 302", ""},
		{"404", replying(404, ""), "unauthenticated: the service answers with status 404", ""},
		{"300", replying(300, ""), "unauthenticated: the service answers with status 300", ""},
		{"408", replying(408, ""), "dependency_unavailable: the service answers with status 408", ""},
		{"429", replying(429, ""), "dependency_unavailable: the service answers with status 429", ""},
		{"500", replying(500, "", "X-User", "jdoe"), "dependency_unavailable: the service answers with status 500", ""},
		{"a body without end", replying(200, strings.Repeat("a", 1<<20), "X-User", "jdoe"), "jdoe", "X-User=jdoe"},
	} {
		a := outsideOf(t, nil, httpOf(config.HTTPAuth{Send: []string{"Authorization"}, Receive: []string{"X-User", "X-Roles"}, CacheTTL: ofDuration(time.Minute)}))
		a.answers(c.reply)
		for range 2 {
			x := outsideRequest("Authorization", "Bearer t", "x-user", "root", "X-Roles", "admin", "X-ROLES", "root")
			got := a.verdictOf(x)
			var fields []string
			for i := range x.Request.Header.Len() {
				if f := x.Request.Header.At(i); string(f.Name) != "Authorization" {
					fields = append(fields, string(f.Name)+"="+string(f.Value))
				}
			}
			if got != c.want || strings.Join(fields, " ") != c.fields {
				t.Errorf("%s: %s, %q", c.name, got, fields)
			}
		}
	}
}

func TestFieldsOfTheServiceAreTakenFromClients(t *testing.T) {
	// Whether it decides or not, and whichever of two authenticators does.
	one := outsideOf(t, nil, httpOf(config.HTTPAuth{Send: []string{"X-One"}, Receive: []string{"X-User"}, CacheTTL: ofDuration(time.Minute)}))
	two := outsideOf(t, nil, httpOf(config.HTTPAuth{Send: []string{"X-Two"}, Receive: []string{"X-User", "X-Level"}, CacheTTL: ofDuration(time.Minute)}))
	one.answers(replying(200, "", "X-User", "of one", "X-Level", "9"))
	x := outsideRequest("X-One", "a", "X-User", "root", "X-Level", "root")
	if two.find(x) != nil {
		t.Fatal("two has found something")
	}
	if _, err := one.check(x, one.find(x), false); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the order is nobody's business
		two.strip(x)
		one.strip(x)
		if user, level := string(x.Request.Header.Get([]byte("X-User"))), x.Request.Header.Get([]byte("X-Level")); user != "of one" || level != nil || x.Request.Header.Len() != 2 {
			t.Errorf("X-User %q, X-Level %q, %d fields", user, level, x.Request.Header.Len())
		}
	}
	x = outsideRequest("X-User", "root")
	if got := one.verdictOf(x); got != "none" || x.Request.Header.Len() != 0 {
		t.Errorf("without a credential: %s, %d fields", got, x.Request.Header.Len())
	}
	// Explain leaves nothing behind.
	x = outsideRequest("X-One", "a", "X-User", "root")
	if _, err := one.check(x, one.find(x), true); err != nil || len(x.Held) != 0 {
		t.Errorf("explained: %v, %d held", err, len(x.Held))
	}
}

func TestAnAnswerHoldsForTheSameRequestOnly(t *testing.T) {
	a := outsideOf(t, nil, httpOf(config.HTTPAuth{Send: []string{"Authorization", "X-Tenant"}, CacheTTL: ofDuration(time.Minute)}))
	a.answers(replying(200, "", "X-Auth-Client", "acme"))
	base := func() *exchange.Exchange { return outsideRequest("Authorization", "Bearer t", "X-Other", "1") }
	for i, c := range []struct {
		name   string
		change func(x *exchange.Exchange)
		asks   bool
	}{
		{"the first", func(*exchange.Exchange) {}, true},
		{"the same", func(*exchange.Exchange) {}, false},
		{"what is not sent", func(x *exchange.Exchange) { x.Request.Header.Set([]byte("X-Other"), []byte("2")) }, false},
		{"another credential", func(x *exchange.Exchange) { x.Request.Header.SetID(exchange.Authorization, []byte("Bearer u")) }, true},
		{"one more field", func(x *exchange.Exchange) { x.Request.Header.Add([]byte("X-Tenant"), nil) }, true},
		{"one line", func(x *exchange.Exchange) { x.Request.Header.Add([]byte("X-Tenant"), []byte("a, b")) }, true},
		{"the same as two lines", func(x *exchange.Exchange) {
			x.Request.Header.Add([]byte("X-Tenant"), []byte("a"))
			x.Request.Header.Add([]byte("x-tenant"), []byte("b"))
		}, true},
		{"the lines in another order", func(x *exchange.Exchange) {
			x.Request.Header.Add([]byte("X-Tenant"), []byte("b"))
			x.Request.Header.Add([]byte("X-Tenant"), []byte("a"))
		}, true},
		{"two lines that look as none", func(x *exchange.Exchange) {
			x.Request.Header.Add([]byte("X-Tenant"), []byte(","))
			x.Request.Header.Add([]byte("X-Tenant"), nil)
		}, true},
		{"a line that is `several`", func(x *exchange.Exchange) { x.Request.Header.Add([]byte("X-Tenant"), []byte(", ")) }, true},
		{"the two lines again", func(x *exchange.Exchange) {
			x.Request.Header.Add([]byte("X-Tenant"), []byte("a"))
			x.Request.Header.Add([]byte("X-Tenant"), []byte("b"))
		}, false},
		{"another method", func(x *exchange.Exchange) { x.Request.Method = "DELETE" }, true},
		{"another path", func(x *exchange.Exchange) { x.Request.Path = []byte("/v1/users/8") }, true},
		{"a query", func(x *exchange.Exchange) { x.Request.HasQuery = true }, true},
		{"another query", func(x *exchange.Exchange) { x.Request.HasQuery, x.Request.Query = true, []byte("a") }, true},
		{"another host", func(x *exchange.Exchange) { x.Request.Authority = []byte("b.example.com") }, true},
		{"in plain text", func(x *exchange.Exchange) { x.Request.TLS = false }, true},
	} {
		before := a.calls.Load()
		x := base()
		c.change(x)
		if got := a.verdictOf(x); got != "acme" || (a.calls.Load() != before) != c.asks {
			t.Errorf("%d %s: %s, %d calls", i, c.name, got, a.calls.Load()-before)
		}
	}
}

func TestSendAndReceiveThatCannotBe(t *testing.T) {
	for _, c := range []struct {
		h    config.HTTPAuth
		want string
	}{
		{config.HTTPAuth{Send: []string{"Transfer-Encoding"}}, "Transfer-Encoding is about the connection and cannot be sent on, remove it"},
		{config.HTTPAuth{Send: []string{"Host"}}, "Host is about the connection and cannot be sent on, remove it"},
		{config.HTTPAuth{Receive: []string{"Connection"}}, "Connection is about the connection and cannot be sent on, remove it"},
	} {
		if _, err := newHTTPAuth(&realm{engine: New(Options{})}, "a", &config.Authenticator{HTTP: &c.h}); err == nil || err.Error() != c.want {
			t.Error(err)
		}
	}
}

func TestAServiceIsAskedAboutRequestsWithoutCredentialsWhenNoneIsSent(t *testing.T) {
	a := outsideOf(t, nil, httpOf(config.HTTPAuth{CacheTTL: ofDuration(time.Minute)}))
	a.answers(replying(200, "", "X-Auth-Client", "acme"))
	if got := a.verdictOf(outsideRequest()); got != "acme" {
		t.Error(got)
	}
}
