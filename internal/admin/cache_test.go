package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/config"
)

const withCache = document + "  - {name: kept, path: /kept, upstream: hello, cache: {ttl: 5m}}\n"

// shelf is a cache that the tests stand in for.
type shelf struct {
	purged []Purge
	fail   error
	hot    []HotObject
}

func (c *shelf) Purge(ctx context.Context, p Purge) error {
	if _, limited := ctx.Deadline(); !limited {
		return errors.New("a purge may take for ever")
	}
	c.purged = append(c.purged, p)
	return c.fail
}

func (c *shelf) Hot(n int) []HotObject {
	if n != hotKeys {
		return []HotObject{{Key: fmt.Sprint("asked for ", n)}}
	}
	return c.hot
}

var asYAML = []string{"Content-Type", "application/yaml"}

func TestAPurgeReachesTheCache(t *testing.T) {
	n := newNode(t, withCache)
	c := &shelf{}
	n.cache = c
	s := start(t, n, config.Admin{})
	for _, q := range []struct {
		body string
		kind []string
		want Purge
	}{
		{`{"url": "https://api.example.com/v1/users?page=2"}`, asJSON, Purge{URL: "https://api.example.com/v1/users?page=2"}},
		{`{"url": "HTTP://[::1]:8080"}`, asJSON, Purge{URL: "HTTP://[::1]:8080"}},
		{`{"prefix": "https://api.example.com/v1/us", "all": false}`, asJSON, Purge{Prefix: "https://api.example.com/v1/us"}},
		{`{"prefix": "http://api.example.com"}`, asJSON, Purge{Prefix: "http://api.example.com"}},
		{`{"tag": "user-7"}`, asJSON, Purge{Tag: "user-7"}},
		{`{"all": true}`, asJSON, Purge{All: true}},
		{"all: true\n", asYAML, Purge{All: true}},
		{"tag: user-7 # of the shop\n", []string{"Content-Type", "text/x-yaml; charset=utf-8"}, Purge{Tag: "user-7"}},
	} {
		c.purged = nil
		r := s.ask("POST", "/v1/cache/purge", q.body, q.kind...)
		if r.status != 200 || r.body != "{\n  \"purged\": true\n}\n" || !slices.Equal(c.purged, []Purge{q.want}) {
			t.Errorf("%s: purged %+v, %d %s", q.body, c.purged, r.status, r.body)
		}
	}
}

func TestABadPurgeSaysWhatToSend(t *testing.T) {
	n := newNode(t, withCache)
	c := &shelf{}
	n.cache = c
	s := start(t, n, config.Admin{})
	for _, q := range []struct{ body, detail string }{
		{`{}`, `The body names nothing: send {"url": …}, {"prefix": …}, {"tag": …} or {"all": true}.`},
		{`{"all": false}`, "The body names nothing"},
		{`{"url": ""}`, "The body names nothing"},
		{`{"url": "https://a/", "all": true}`, "The body names more than one thing: send one of url, prefix, tag and all at a time."},
		{`{"tag": "a", "prefix": "https://a/"}`, "The body names more than one thing"},
		{`{"url": "/v1/users"}`, "The url must have scheme and host, such as https://api.example.com/v1/users."},
		{`{"url": "api.example.com/v1"}`, "The url must have scheme and host"},
		{`{"url": "ftp://a/"}`, "The url must have scheme and host"},
		{`{"url": "https:///x"}`, "The url must have scheme and host"},
		{`{"url": "https://?x"}`, "The url must have scheme and host"},
		{`{"url": "https://a/%zz"}`, "The url cannot be read as a URL"},
		{`{"url": "https://a/\u0001"}`, "The url cannot be read as a URL"},
		{`{"url": "https://a/#b"}`, "The url has a #fragment, which no request has: leave it out."},
		{`{"url": "https://me@a/"}`, "The url has a user before its host"},
		{`{"prefix": "/v1"}`, "The prefix must have scheme and host"},
		{`{"prefix": "https://"}`, "The prefix must have scheme and host"},
		{`{"tag": "a b"}`, "The tag has a space, comma or control character in it"},
		{`{"tag": "a,b"}`, "The tag has a space, comma or control character in it"},
		{`{"tag": "` + strings.Repeat("x", 257) + `"}`, "The tag is longer than 256 bytes"},
		{`{"urls": ["https://a/"]}`, `The body cannot be read: json: unknown field "urls".`},
		{`{"all": 1}`, "The body cannot be read: all is of another type than it should be"},
		{``, "The body is empty."},
	} {
		if p := s.ask("POST", "/v1/cache/purge", q.body, asJSON...).refused(t, 400, "bad_request"); !strings.HasPrefix(p.Detail, q.detail) {
			t.Errorf("%s: %s", q.body, p.Detail)
		}
	}
	s.ask("POST", "/v1/cache/purge?all=1", `{"all": true}`, asJSON...).refused(t, 400, "bad_request")
	s.ask("POST", "/v1/cache/purge", "").refused(t, 415, "unsupported_media_type")
	s.ask("POST", "/v1/cache/purge", `{"all": true}`, "Content-Type", "text/plain").refused(t, 415, "unsupported_media_type")
	if c.purged != nil {
		t.Errorf("purged %+v", c.purged)
	}
	c.fail = fmt.Errorf("%w: the host is 300 bytes long", ErrBadPurge)
	s.ask("POST", "/v1/cache/purge", `{"url": "https://a/"}`, asJSON...).refused(t, 400, "bad_request")
}

func TestAPurgeThatNotAllWereToldOfIsNotAcknowledged(t *testing.T) {
	n := newNode(t, withCache)
	n.cache = &shelf{fail: errors.New("no connection to 192.0.2.1:6379")}
	s := start(t, n, config.Admin{})
	p := s.ask("POST", "/v1/cache/purge", `{"all": true}`, asJSON...).refused(t, 503, "dependency_unavailable")
	if strings.Contains(p.Detail, "192.0.2.1") || !strings.Contains(p.Detail, "ask again") {
		t.Error(p.Detail)
	}
}

func TestWithoutACacheThereIsNothingToPurge(t *testing.T) {
	for _, text := range []string{document, withCache} {
		n := newNode(t, text)
		if text == document {
			n.cache = &shelf{} // of which no route makes use
		}
		s := start(t, n, config.Admin{})
		if p := s.ask("POST", "/v1/cache/purge", `{"all": true}`, asJSON...).refused(t, 409, "conflict"); p.Detail != "No route of the running configuration has a cache; add cache: {} to one." {
			t.Error(p.Detail)
		}
		s.ask("GET", "/v1/hot?what=cache", "").refused(t, 409, "conflict")
	}
}

func TestHotObjectsAreListed(t *testing.T) {
	n := newNode(t, withCache)
	c := &shelf{}
	n.cache = c
	s := start(t, n, config.Admin{})
	for _, want := range []string{
		"{\n  \"what\": \"cache\",\n  \"hot\": []\n}\n",
		"{\n  \"what\": \"cache\",\n  \"hot\": [\n    {\n      \"key\": \"https://a/?x&y\",\n      \"count\": 160,\n      \"bytes\": 1234\n    }\n  ]\n}\n",
	} {
		if r := s.ask("GET", "/v1/hot?what=cache", ""); r.status != 200 || r.body != want {
			t.Errorf("%d %s", r.status, r.body)
		}
		c.hot = []HotObject{{Key: "https://a/?x&y", Count: 160, Bytes: 1234}}
	}
}

// checkCache brings about every answer about the cache.
func checkCache(t *testing.T, n *node, check func(s *Server, method, target, body string, header ...string)) {
	was := n.running
	f, found := n.Parse([]byte(withCache))
	if found.Err() != nil {
		t.Fatal(found)
	}
	c := &shelf{}
	n.cache = c
	s := start(t, n, config.Admin{})
	check(s, "POST", "/v1/cache/purge", `{"all": true}`, asJSON...)
	check(s, "GET", "/v1/hot?what=cache", "")
	n.running = f
	check(s, "GET", "/v1/hot?what=cache", "")
	check(s, "POST", "/v1/cache/purge", `{"all": true}`, asJSON...)
	check(s, "POST", "/v1/cache/purge", `{"tag": "`+strings.Repeat("x", maxIdentity)+`"}`, asJSON...)
	check(s, "POST", "/v1/cache/purge", "all", "Content-Type", "text/plain")
	c.fail = errors.New("away")
	check(s, "POST", "/v1/cache/purge", `{"all": true}`, asJSON...)
	n.running = was
}
