package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// tellTale is an admin API that answers all with one thing and says what was asked.
func tellTale(t *testing.T, status int, answer string) (base string, asked func() string) {
	last := ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		last = strings.TrimSpace(r.Method + " " + r.URL.RequestURI() + " " + r.Header.Get("Authorization") + " " + r.Header.Get("Content-Type") + " " + string(body))
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(s.Close)
	return s.URL, func() string { return last }
}

func TestKeysCommands(t *testing.T) {
	const key = `{"id": "abc", "client": "acme", "owner": "api", "enabled": true, "created_at": "2026-11-25T12:00:00Z", "key": "slk_abc", "expires_at": "2999-01-01T00:00:00Z"}`
	for _, c := range []struct {
		args   string
		answer string
		asks   string
		says   string
	}{
		{"create --client acme --name ci", key, `POST /v1/keys  application/json {"client":"acme","name":"ci"}`, "slk_abc\n\nThis is the key."},
		{"create acme --permission a:b --permission c --token t", key, `POST /v1/keys Bearer t application/json {"client":"acme","permissions":["a:b","c"]}`, "expires      2999-01-01T00:00:00Z"},
		{"create --client acme --expires 2999-01-01T00:00:00Z --json", key, `POST /v1/keys  application/json {"client":"acme","expires_at":"2999-01-01T00:00:00Z"}`, `"key": "slk_abc"`},
		{"list", `{"keys": []}`, "GET /v1/keys", "there are no keys\n"},
		{"list --client a/b --revoked", `{"keys": [{"id": "abc", "client": "a/b", "owner": "config", "enabled": true, "state": "live"}]}`, "GET /v1/keys?client=a%2Fb&revoked=1", "abc  a/b     -     config  live   -        never    -"},
		{"list --json", `{"keys": []}`, "GET /v1/keys", "{\n  \"keys\": []\n}\n"},
		{"show config:a/b", `{"id": "x", "permissions": [], "enabled": false}`, "GET /v1/keys/config:a%2Fb", "permissions  none"},
		{"rotate abc", key, `POST /v1/keys/abc/rotate  application/json {"overlap":"24h"}`, "slk_abc"},
		{"rotate abc --overlap 0", strings.Replace(key, "{", `{"replaces": {"id": "old", "expires_at": "2999-01-01T00:00:00Z"},`, 1), `POST /v1/keys/abc/rotate  application/json {"overlap":"0"}`, "It replaces old, which is refused from 2999-01-01T00:00:00Z on."},
		{"revoke abc", "", "DELETE /v1/keys/abc", "revoked abc\n"},
		{"revoke abc --json", "", "DELETE /v1/keys/abc", `"revoked": true`},
	} {
		base, asked := tellTale(t, 200, c.answer)
		var out, errs strings.Builder
		code := run(t.Context(), append(strings.Fields("keys "+c.args), "--admin", base), &out, &errs)
		if code != 0 || asked() != c.asks || !strings.Contains(out.String(), c.says) {
			t.Errorf("%s: %d, asked %q\n%s%s", c.args, code, asked(), &out, &errs)
		}
	}
	base, asked := tellTale(t, 200, `{"keys": []}`)
	t.Setenv("SLUICE_ADMIN_URL", base+"/")
	t.Setenv("SLUICE_ADMIN_TOKEN", "of the environment")
	if code := run(t.Context(), []string{"keys", "list"}, io.Discard, io.Discard); code != 0 || asked() != "GET /v1/keys Bearer of the environment" {
		t.Errorf("%d, asked %q", code, asked())
	}
}

func TestKeysCommandsSayWhatIsWrong(t *testing.T) {
	base, _ := tellTale(t, 409, `{"detail": "The configuration declares this key; change it there.", "code": "conflict"}`)
	guarded, _ := tellTale(t, 401, `{"detail": "The admin API needs a token.", "code": "unauthenticated"}`)
	other, _ := tellTale(t, 200, "hello")
	proxy, _ := tellTale(t, 502, "bad")
	gone := httptest.NewServer(nil)
	gone.Close()
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"revoke x --admin " + base, 1, "sluice: The configuration declares this key; change it there (409 conflict)\n"},
		{"list --admin " + guarded, 1, "The admin API needs a token. Give it with --token or SLUICE_ADMIN_TOKEN"},
		{"list --admin " + other, 1, "is not that of an admin API"},
		{"list --admin " + proxy, 1, "the admin API answered 502 Bad Gateway"},
		{"list --admin " + gone.URL, 1, "is the gateway running, and is --admin its admin.address?"},
		{"list --admin 127.0.0.1:9901", 2, "is not the URL of an admin API"},
		{"create --admin " + base, 2, "a key needs a client: --client ID"},
		{"create a --client b --admin " + base, 2, "the client is given twice"},
		{"create --client b --expires soon --admin " + base, 2, `"soon" is no time, write 90d or 2027-01-31T00:00:00Z`},
		{"show", 2, "accepts 1 arg(s)"},
		{"remove", 2, `unknown command "remove"`},
	} {
		var out, errs strings.Builder
		if code := run(t.Context(), strings.Fields("keys "+c.args), &out, &errs); code != c.code || !strings.Contains(errs.String(), c.says) || strings.Count(errs.String(), "\n") != 1 {
			t.Errorf("%s: %d, %s%s", c.args, code, &out, &errs)
		}
	}
}

func TestMoments(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{"90d": "2027-02-23T12:00:00Z", "1h30m": "2026-11-25T13:30:00Z", "2027-01-31T00:00:00+01:00": "2027-01-30T23:00:00Z"} {
		if got, err := moment(text, now); err != nil || when(&got, "") != want {
			t.Errorf("%s: %v, %v, want %s", text, got, err, want)
		}
	}
}
