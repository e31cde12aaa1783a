package cache

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// asked is what a key is made of, in a form that is compared field by field.
type asked struct {
	tls    bool
	host   string
	port   string
	path   string
	query  string
	header []string // of X-A, in order; nil: absent
	caller *exchange.Caller
}

func (a *asked) exchange() *exchange.Exchange {
	x := &exchange.Exchange{Conn: &exchange.Conn{}, Caller: a.caller}
	q := &x.Request
	q.Method, q.TLS = "GET", a.tls
	q.Host, q.Authority = []byte(a.host), []byte(a.host)
	if a.port != "" {
		q.Authority = []byte(a.host + ":" + a.port)
	}
	q.Path = []byte(a.path)
	if a.query != "" {
		q.Query, q.HasQuery = []byte(a.query), true
	}
	for _, v := range a.header {
		q.Header.Add([]byte("X-A"), []byte(v))
	}
	return x
}

func (a *asked) same(b *asked) bool {
	port := func(a *asked) string {
		if a.port == "80" && !a.tls || a.port == "443" && a.tls {
			return ""
		}
		return a.port
	}
	caller := func(a *asked) string {
		if a.caller == nil {
			return ""
		}
		return fmt.Sprintf("%q %q", a.caller.Authenticator, a.caller.ID)
	}
	params := func(a *asked) []string {
		all := strings.Split(a.query, "&")
		slices.SortStableFunc(all, func(p, q string) int {
			p, _, _ = strings.Cut(p, "=")
			q, _, _ = strings.Cut(q, "=")
			return strings.Compare(p, q)
		})
		return all
	}
	return a.tls == b.tls && a.host == b.host && port(a) == port(b) && a.path == b.path && slices.Equal(params(a), params(b)) &&
		(a.header == nil) == (b.header == nil) && slices.Equal(a.header, b.header) && caller(a) == caller(b)
}

// No two requests have the same key unless they ask for the same: whatever stands in
// their parts, and however little they differ.
func TestKeysAreEqualOnlyForEqualRequests(t *testing.T) {
	text := func(alphabet string, most int) *rapid.Generator[string] {
		return rapid.StringOfN(rapid.SampledFrom([]rune(alphabet)), 0, most, -1)
	}
	one := rapid.Custom(func(t *rapid.T) asked {
		a := asked{
			tls:  rapid.Bool().Draw(t, "tls"),
			host: rapid.SampledFrom([]string{"a", "a.b", "b"}).Draw(t, "host"),
			port: rapid.SampledFrom([]string{"", "80", "443", "8"}).Draw(t, "port"),
			path: "/" + text("aC/", 3).Draw(t, "path"),
		}
		for range rapid.IntRange(0, 2).Draw(t, "parameters") {
			if a.query != "" {
				a.query += "&"
			}
			a.query += rapid.SampledFrom([]string{"a", "b", "C"}).Draw(t, "name") + "=" + text("ab", 2).Draw(t, "value")
		}
		if rapid.Bool().Draw(t, "with header") {
			a.header = rapid.SliceOfN(text("aCK\x01\x02 ", 3), 1, 2).Draw(t, "header")
		}
		if rapid.Bool().Draw(t, "with caller") {
			a.caller = &exchange.Caller{Authenticator: text("ab", 1).Draw(t, "authenticator"), ID: text("abCK\x00\x01\x02", 4).Draw(t, "id")}
		}
		return a
	})
	n := &rule{client: true, named: []keyHeader{{name: []byte("X-A")}}}
	rapid.Check(t, func(t *rapid.T) {
		a, b := one.Draw(t, "a"), one.Draw(t, "b")
		if rapid.Bool().Draw(t, "alike") { // mostly they are not: let them differ in one part
			c := a
			switch rapid.IntRange(0, 4).Draw(t, "part") {
			case 0:
				c.path = b.path
			case 1:
				c.query = b.query
			case 2:
				c.header = b.header
			case 3:
				c.caller = b.caller
			}
			b = c
		}
		ka, err := n.key(a.exchange())
		if err != nil {
			t.Fatal(err)
		}
		kb, err := n.key(b.exchange())
		if err != nil {
			t.Fatal(err)
		}
		// Two fields of which one has the separator of values in it are told apart by the wire:
		// a value has no control bytes (RFC 9110 §5.5).
		for _, v := range append(slices.Clone(a.header), b.header...) {
			if strings.ContainsAny(v, "\x01\x02") {
				return
			}
		}
		if got, want := bytes.Equal(ka.b, kb.b), a.same(&b); got != want {
			t.Fatalf("equal: %v, want %v\n%q\n%q", got, want, ka.b, kb.b)
		}
	})
}

// A variant's key is no primary key, whatever a client calls itself.
func TestVariantKeysAreNoPrimaryKeys(t *testing.T) {
	n := &rule{client: true}
	a := asked{host: "a", path: "/", caller: &exchange.Caller{ID: "x"}}
	x := a.exchange()
	k, err := n.key(x)
	if err != nil {
		t.Fatal(err)
	}
	v := variantKey(x, k.b, "accept")
	forged := asked{host: "a", path: "/", caller: &exchange.Caller{ID: "x" + string(v[len(k.b):])}}
	f, err := n.key(forged.exchange())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(f.b, v) {
		t.Error("a subject with the bytes of a variant has the key of one")
	}
}
