package gateway

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

func TestARefusalIsAProblemDocument(t *testing.T) {
	x := &exchange.Exchange{ID: []byte("0192-id")}
	x.Response.Header.Add([]byte("Server"), []byte("left over"))
	refuse(x, &exchange.Error{
		Code: exchange.ValidationFailed, Detail: "Two fields are wrong.", Close: true,
		Fields: []exchange.FieldError{{In: "body", Pointer: "/age", Message: `must be > 0, not "x"`}},
		Header: []exchange.Field{{Name: []byte("Retry-After"), Value: []byte("3")}},
	})
	body, _ := x.Response.Body.Next()
	const want = `{"type":"https://github.com/sluice-gateway/sluice/blob/main/docs/problems.md#validation_failed",` +
		`"title":"Validation failed","status":400,"detail":"Two fields are wrong.","instance":"0192-id","code":"validation_failed",` +
		`"errors":[{"in":"body","pointer":"/age","message":"must be > 0, not \"x\""}]}` + "\n"
	if string(body) != want {
		t.Errorf("got  %s\nwant %s", body, want)
	}
	r := &x.Response
	if got := names(&r.Header); got != "Content-Type Retry-After Cache-Control" || r.Status != 400 || !r.Close || r.ContentLength != int64(len(want)) {
		t.Errorf("status %d, close %v, length %d, fields %s", r.Status, r.Close, r.ContentLength, got)
	}
}

func TestARefusalTellsNothingOfItsCause(t *testing.T) {
	x := &exchange.Exchange{}
	refuse(x, exchange.AsError(json.Unmarshal([]byte("secret"), new(int))))
	body, _ := x.Response.Body.Next()
	var got struct{ Detail, Code string }
	if err := json.Unmarshal(body, &got); err != nil || got.Detail != "Internal error." || got.Code != "internal" {
		t.Errorf("got %s, %v", body, err)
	}
}

func TestAProxyErrorIsNamedInProxyStatus(t *testing.T) {
	x := &exchange.Exchange{}
	refuse(x, &exchange.Error{Code: exchange.UpstreamUnavailable, ProxyError: "connection_refused"})
	if got := string(x.Response.Header.Get([]byte("proxy-status"))); got != "sluice; error=connection_refused" {
		t.Errorf("got %q", got)
	}
}

func FuzzJSONString(f *testing.F) {
	f.Add("plain")
	f.Add("\x00\"\\\x7f\xff\u2028é")
	f.Fuzz(func(t *testing.T, s string) {
		b := appendJSONString(nil, s)
		var got string
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		if utf8.ValidString(s) && got != s {
			t.Errorf("%q came back as %q", s, got)
		}
	})
}
