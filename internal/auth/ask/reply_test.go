package ask

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// documented are replies as the API Gateway Developer Guide shows them ("Output from an
// API Gateway Lambda authorizer", "Lambda authorizers for HTTP APIs").
const (
	policyReply = `{
  "principalId": "yyyyyyyy",
  "policyDocument": {
    "Version": "2012-10-17",
    "Statement": [
      {
        "Action": "execute-api:Invoke",
        "Effect": "Allow",
        "Resource": "arn:aws:execute-api:us-east-1:123456789012:abcdef123/test/GET/request"
      }
    ]
  },
  "context": {"stringKey": "value", "numberKey": "1", "booleanKey": "true"},
  "usageIdentifierKey": "a-key"
}`
	denyReply   = `{"principalId": "user", "policyDocument": {"Version": "2012-10-17", "Statement": [{"Action": "execute-api:Invoke", "Effect": "Deny", "Resource": "arn:aws:execute-api:us-west-2:123456789012:ymy8tbxw7b/*/GET/"}]}}`
	simpleReply = `{"isAuthorized": true, "context": {"stringKey": "value", "numberKey": 1, "booleanKey": true, "arrayKey": ["value1", "value2"], "mapKey": {"value1": "value2"}}}`
)

func TestReplies(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     *Reply
	}{
		{"a policy, with all there is", policyReply, &Reply{
			Principal: "yyyyyyyy", UsageKey: "a-key", Allows: true, Size: len(policyReply),
			Policy:  []byte(`{"Statement":[{"Action":"execute-api:Invoke","Effect":"Allow","Resource":"arn:aws:execute-api:us-east-1:123456789012:abcdef123/test/GET/request"}],"Version":"2012-10-17"}`),
			Context: map[string]any{"stringKey": "value", "numberKey": "1", "booleanKey": "true"},
		}},
		{"a policy that denies", denyReply, &Reply{
			Principal: "user", Size: len(denyReply),
			Policy: []byte(`{"Statement":[{"Action":"execute-api:Invoke","Effect":"Deny","Resource":"arn:aws:execute-api:us-west-2:123456789012:ymy8tbxw7b/*/GET/"}],"Version":"2012-10-17"}`),
		}},
		{"a simple one", simpleReply, &Reply{Simple: true, Authorized: true, Size: len(simpleReply), Context: map[string]any{
			"stringKey": "value", "numberKey": json.Number("1"), "booleanKey": true,
			"arrayKey": []any{"value1", "value2"}, "mapKey": map[string]any{"value1": "value2"},
		}}},
		{"a simple one that refuses", `{"isAuthorized":false}`, &Reply{Simple: true, Size: 22}},
		{
			"one statement without a list", `{"principalId":"a","policyDocument":{"Statement":{"Effect":"Allow"}}}`,
			&Reply{Principal: "a", Allows: true, Size: 69, Policy: []byte(`{"Statement":{"Effect":"Allow"}}`)},
		},
		{"nulls are nothing", `{"isAuthorized":true,"context":null,"principalId":null,"usageIdentifierKey":null}`, &Reply{Simple: true, Authorized: true, Size: 81}},
	} {
		got, err := ReadReply([]byte(c.in))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

func TestRepliesThatAreNotUnderstood(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{``, "cannot be used: JSON is no object"},
		{`null`, "cannot be used: JSON is no object"},
		{`true`, "cannot be used: JSON is no object"},
		{`"Allow"`, "cannot be used: JSON is no object"},
		{`[{"isAuthorized":true}]`, "cannot be used: JSON is no object"},
		{`{"isAuthorized":true}{}`, "cannot be used: JSON has something behind its end"},
		{`{"isAuthorized":true,}`, "cannot be used: JSON has a syntax error"},
		{`{"isAuthorized":tru`, "cannot be used: JSON has a syntax error"},
		{"{\"isAuthorized\":true,\"a\":\"\xff\"}", "cannot be used: JSON is not valid UTF-8"},
		{`{"isAuthorized":false,"isAuthorized":true}`, "cannot be used: JSON has the member \"isAuthorized\" twice"},
		{`{"isAuthorized":false,"\u0069sAuthorized":true}`, "cannot be used: JSON has the member \"isAuthorized\" twice"},
		{`{"isAuthorized":true,"context":{"a":{"b":1,"b":2}}}`, "cannot be used: JSON has the member \"b\" twice"},
		{`{}`, "has neither policyDocument nor isAuthorized"},
		{`{"IsAuthorized":true}`, "has neither policyDocument nor isAuthorized"},
		{`{"isauthorized":true}`, "has neither policyDocument nor isAuthorized"},
		{`{"isAuthorized":"true"}`, "has an isAuthorized that is neither true nor false"},
		{`{"isAuthorized":1}`, "has an isAuthorized that is neither true nor false"},
		{`{"isAuthorized":null}`, "has an isAuthorized that is neither true nor false"},
		{`{"isAuthorized":true,"policyDocument":{}}`, "has both isAuthorized and policyDocument, which may not agree"},
		{`{"isAuthorized":true,"context":"a"}`, "has a context that is no object"},
		{`{"isAuthorized":true,"principalId":7}`, "has a principalId that is no text"},
		{`{"policyDocument":{}}`, "has no principalId"},
		{`{"principalId":"","policyDocument":{}}`, "has no principalId"},
		{`{"principalId":"a","policyDocument":null}`, "has a policyDocument that is no object"},
		{`{"principalId":"a","policyDocument":"{}"}`, "has a policyDocument that is no object"},
		{`{"principalId":"a","policyDocument":{},"usageIdentifierKey":[]}`, "has a usageIdentifierKey that is no text"},
		{`{"isAuthorized":true,"context":` + strings.Repeat(`{"a":`, 20) + `1` + strings.Repeat(`}`, 21), "cannot be used: JSON is nested deeper than 16"},
	} {
		if got, err := ReadReply([]byte(c.in)); err == nil || err.Error() != c.want {
			t.Errorf("%s: %+v, %v", c.in, got, err)
		}
	}
}

// FuzzObject compares with encoding/json, which takes the last of members that are there
// twice and goes deeper, and is the same in all else.
func FuzzObject(f *testing.F) {
	for _, s := range []string{policyReply, denyReply, simpleReply, `{"a":1e9,"b":[[],{}],"c":"\ud800"}`, `{"a":1,"a":2}`, `[]`, `{`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := object(data)
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		var want map[string]any
		other := d.Decode(&want)
		if err != nil {
			return
		}
		if other != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v; encoding/json: %v, %v", got, want, other)
		}
	})
}
