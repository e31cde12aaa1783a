package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestCachePurge(t *testing.T) {
	const done = `{"purged": true}`
	for _, c := range []struct{ args, asks, says string }{
		{"--url https://a/b?c=d&e", `{"url":"https://a/b?c=d\u0026e"}`, "purged https://a/b?c=d&e\n"},
		{"--prefix https://a/b", `{"prefix":"https://a/b"}`, "purged what begins with https://a/b\n"},
		{"--tag user-7", `{"tag":"user-7"}`, "purged tag user-7\n"},
		{"--all", `{"all":true}`, "purged everything\n"},
		{"--all --json", `{"all":true}`, "{\n  \"purged\": true\n}\n"},
		{"--tag a,b", `{"tag":"a,b"}`, "purged tag a,b\n"},
	} {
		base, asked := tellTale(t, 200, done)
		var out, errs strings.Builder
		code := run(t.Context(), append([]string{"cache", "purge", "--token", "t", "--admin", base}, strings.Fields(c.args)...), &out, &errs)
		if want := "POST /v1/cache/purge Bearer t application/json " + c.asks; code != 0 || asked() != want || out.String() != c.says {
			t.Errorf("%s: %d, asked %s\n%s%s", c.args, code, asked(), &out, &errs)
		}
	}
}

func TestCachePurgesEachOfSeveral(t *testing.T) {
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		asked = append(asked, string(body))
		if strings.Contains(string(body), "away") {
			w.WriteHeader(503)
			_, _ = io.WriteString(w, `{"detail": "Not every gateway could be told.", "code": "dependency_unavailable"}`)
			return
		}
		_, _ = io.WriteString(w, `{"purged": true}`)
	}))
	t.Cleanup(s.Close)
	var out, errs strings.Builder
	code := run(t.Context(), []string{"cache", "purge", "--admin", s.URL, "--tag", "b", "--url", "http://a/", "--tag", "away", "--tag", "c"}, &out, &errs)
	if want := "purged http://a/\npurged tag b\n"; code != 1 || out.String() != want || errs.String() != "sluice: Not every gateway could be told (503 dependency_unavailable)\n" {
		t.Errorf("%d\n%s%s", code, &out, &errs)
	}
	if got := strings.Join(asked, " "); got != `{"url":"http://a/"} {"tag":"b"} {"tag":"away"}` {
		t.Errorf("asked %s", got)
	}
}

func TestCachePurgeSaysWhatIsWrong(t *testing.T) {
	base, _ := tellTale(t, 409, `{"detail": "No route of the running configuration has a cache; add cache: {} to one.", "code": "conflict"}`)
	other, _ := tellTale(t, 200, `{"status": "ok"}`)
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"purge --all --admin " + base, 1, "sluice: No route of the running configuration has a cache; add cache: {} to one (409 conflict)\n"},
		{"purge --all --admin " + other, 1, "did not say that it was purged"},
		{"purge --admin " + base, 2, "say what to purge: --url, --prefix, --tag or --all"},
		{"purge --all --tag a --admin " + base, 2, "--all leaves nothing else to purge"},
		{"purge everything", 2, "unknown command"},
		{"clear", 2, "unknown command"},
	} {
		var out, errs strings.Builder
		if code := run(t.Context(), strings.Fields("cache "+c.args), &out, &errs); code != c.code || !strings.Contains(errs.String(), c.says) || strings.Count(errs.String(), "\n") != 1 || out.Len() > 0 {
			t.Errorf("%s: %d, %s%s", c.args, code, &out, &errs)
		}
	}
}
