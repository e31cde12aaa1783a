package upstream

import (
	"testing"

	"github.com/sluice-gateway/sluice/internal/config"
)

func TestRespond(t *testing.T) {
	for _, c := range []struct {
		c      config.Respond
		want   string
		header string
	}{
		{config.Respond{Status: 418, Headers: map[string]string{"X-Mock": "1"}, Body: `{"ok":true}`}, `I'm a teapot {"ok":true}`, "X-Mock=1 Content-Type=application/json "},
		{config.Respond{Body: "{no json"}, "OK {no json", "Content-Type=text/plain; charset=utf-8 "},
		{config.Respond{Body: "a,b", Headers: map[string]string{"content-type": "text/csv"}}, "OK a,b", "content-type=text/csv "},
		{config.Respond{Status: 204}, "No Content", ""},
		{config.Respond{Status: 301, Headers: map[string]string{"Location": "/b", "A": "x"}}, "Moved Permanently", "A=x Location=/b "},
	} {
		u := testUpstream(t, config.Upstream{Respond: &c.c})
		x := newExchange("GET", "/")
		for range 2 {
			check(t, "result", result(u, x), c.want)
			header := ""
			for i := range x.Response.Header.Len() {
				f := x.Response.Header.At(i)
				header += string(f.Name) + "=" + string(f.Value) + " "
			}
			check(t, "header", header, c.header)
			check(t, "length", x.Response.ContentLength, int64(len(c.c.Body)))
			check(t, "usage", x.Usage.Name, "up")
			check(t, "attempts", x.Usage.Attempts, 0)
			refill(x, "GET", "/")
		}
		s := u.Status()
		check(t, "status", s.Respond && s.Name == "up" && s.Targets == nil, true)
	}
}

func TestRespondsThatAreRefused(t *testing.T) {
	for _, c := range []struct {
		c    config.Respond
		want string
	}{
		{config.Respond{Status: 100}, "respond.status: 100 is not a status from 200 to 599"},
		{config.Respond{Status: 204, Body: "x"}, "respond.body: a 204 has no body"},
		{config.Respond{Headers: map[string]string{"X": "a\r\nb"}}, `respond.headers: "X" has a byte that a header cannot have`},
		{config.Respond{Headers: map[string]string{"X Y": "a"}}, `respond.headers: "X Y" has a byte that a header cannot have`},
		{config.Respond{Headers: map[string]string{"content-length": "9"}}, `respond.headers: content-length is written by the gateway`},
	} {
		_, err := New("up", &config.Upstream{Respond: &c.c}, Env{})
		if err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}
