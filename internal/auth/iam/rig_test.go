package iam

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// claims are a token's, by their whole path.
type claims map[string]any

func (c claims) Claim(path string) any { return c[path] }

var noon = time.Date(2026, 11, 25, 12, 0, 0, 500, time.UTC)

// request is GET /prod/pets/1 by acme, who is a reader, over TLS from 203.0.113.7,
// with changes.
func request(changes ...func(*Request)) *Request {
	q := &Request{
		Action: Invoke, Resource: []byte("arn:aws:execute-api:us-east-1:123456789012:a1b2c3/prod/GET/pets/1"),
		Caller: Caller{
			ID: "acme", Plan: "gold", Roles: []string{"reader", "writer"}, Permissions: []string{"pets:read"},
			Attributes: map[string]string{"tier": "gold", "seats": "12", "since": "2025-01-01T00:00:00Z", "beta": "true", "empty": "", "home": "198.51.100.4", "arn": "arn:aws:sns:us-east-2:999999999999:store/abc:111122223333:finance/document.txt"},
			Claims: claims{
				"groups": []any{"blue", "green"}, "one": "blue", "admin": true, "level": json.Number("9007199254740993"), "score": 2.5,
				"none": []any{}, "address": map[string]any{"city": "Bonn"}, "mixed": []any{"blue", map[string]any{}},
			},
		},
		Source: netip.MustParseAddr("203.0.113.7"), Now: noon, Secure: true,
		UserAgent: []byte("curl/8.5"), Referer: []byte("https://www.example.com/page"),
	}
	for _, change := range changes {
		change(q)
	}
	return q
}

func to(resource string) func(*Request) {
	return func(q *Request) { q.Resource = []byte(resource) }
}

func by(id string, roles ...string) func(*Request) {
	return func(q *Request) { q.Caller = Caller{ID: id, Roles: roles} }
}

func from(address string) func(*Request) {
	return func(q *Request) { q.Source = netip.MustParseAddr(address) }
}

func nobodyKnown(q *Request) { q.Caller = Caller{} }

func bare(q *Request) { q.UserAgent, q.Referer, q.Source = nil, nil, netip.Addr{} }

func plain(q *Request) { q.Secure = false }

// document is a policy of statements.
func document(statements ...string) string {
	return `{"Version": "2012-10-17", "Statement": [` + strings.Join(statements, ", ") + `]}`
}

// fill adds to a statement what it does not say.
func fill(statement string) string {
	s := strings.TrimSuffix(strings.TrimSpace(statement), "}")
	for _, d := range [][2]string{{"Effect", `"Allow"`}, {"Principal", `"*"`}, {"Action", `"execute-api:Invoke"`}, {"Resource", `"*"`}} {
		if !strings.Contains(s, `"`+d[0]+`"`) && !strings.Contains(s, `"Not`+d[0]+`"`) {
			if !strings.HasSuffix(s, "{") {
				s += ", "
			}
			s += `"` + d[0] + `": ` + d[1]
		}
	}
	return s + "}"
}

func mustParse(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := ParseResource([]byte(text))
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return p
}

// messages are the lines of a joined error.
func messages(err error) []string {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var all []string
		for _, one := range many.Unwrap() {
			all = append(all, one.Error())
		}
		return all
	}
	if one, ok := errors.AsType[*Error](err); ok {
		return []string{one.Error()}
	}
	return nil
}
