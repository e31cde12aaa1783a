package auth

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
)

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func clientsOf(t testing.TB, clients ...config.Client) policy.Filter {
	t.Helper()
	f, err := New(Options{}).newAuthenticate(&config.Route{}, &policy.Env{File: &config.File{Clients: clients}})
	if err != nil || f == nil {
		t.Fatal(f, err)
	}
	return f
}

// withKey is a request at noon with X-Api-Key fields.
func withKey(keys ...string) *exchange.Exchange {
	x := &exchange.Exchange{Conn: &exchange.Conn{}, Start: noon}
	x.Request.Header.Add([]byte("Accept"), []byte("*/*"))
	for _, k := range keys {
		x.Request.Header.Add([]byte("x-api-key"), []byte(k))
	}
	return x
}

func hashOf(key string) string {
	sum := sha256.Sum256([]byte(key))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func TestClientsAreKnownByTheirKeys(t *testing.T) {
	later, past := noon.Add(time.Nanosecond), noon
	f := clientsOf(t,
		config.Client{
			ID: "acme", Plan: "standard", Permissions: []string{"users:*", "jobs:run"}, Attributes: map[string]any{"tier": "gold", "seats": 12, "beta": true, "odd": math.Inf(1)},
			Keys: []config.ClientKey{
				{Name: "current", Hash: hashOf("acme-key-that-is-hashed"), Permissions: []string{"users:read", "jobs:*", "root:*"}},
				{Value: config.NewSecret("acme-key-written-out"), ExpiresAt: &later},
				{Name: "old", Value: config.NewSecret("acme-key-of-yesterday"), ExpiresAt: &past},
			},
		},
		config.Client{ID: "other", Keys: []config.ClientKey{{Value: config.NewSecret("key-of-somebody-else"), Permissions: []string{}}}},
		config.Client{ID: "keyless"},
	)
	for _, c := range []struct {
		name, key   string
		id          string
		permissions []string
		kept        int // fields X-Api-Key on the way to the upstream
		why         string
	}{
		{"a hash", "acme-key-that-is-hashed", "acme", []string{"users:read", "jobs:run"}, 0, `the key is "current" of acme`},
		{"a value, until later", "acme-key-written-out", "acme", []string{"users:*", "jobs:run"}, 0, "the key is one of acme"},
		{"expired now", "acme-key-of-yesterday", "", nil, 0, "nobody known: the key config:acme/old of acme has run out, on 2026-11-25T12:00:00Z"},
		{"another client", "key-of-somebody-else", "other", nil, 0, "the key is one of other"},
		{"unknown", "no-such-key", "", nil, 1, "nobody known: no client has this key"},
		{"the hash itself", hashOf("acme-key-that-is-hashed"), "", nil, 1, "nobody known: no client has this key"},
		{"empty", "", "", nil, 1, "nobody known: no X-Api-Key"},
	} {
		x := withKey(c.key)
		o := f.Explain(x)
		if got := idOf(x); o.Reason != c.why || o.Refusal != nil || got != c.id || x.Request.Header.Len() != 2 {
			t.Errorf("%s: explained as %+v for %q with %d fields", c.name, o, got, x.Request.Header.Len())
		}
		x = withKey(c.key)
		if err := f.Request(x); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		kept := 0
		for range x.Request.Header.ValuesID(exchange.XAPIKey) {
			kept++
		}
		if idOf(x) != c.id || kept != c.kept || x.Request.Header.Len() != 1+c.kept {
			t.Errorf("%s: %q with %d keys of %d fields", c.name, idOf(x), kept, x.Request.Header.Len())
		}
		if x.Caller != nil && !reflect.DeepEqual(x.Caller.Permissions, c.permissions) {
			t.Errorf("%s: permissions %q", c.name, x.Caller.Permissions)
		}
	}

	x := withKey("acme-key-that-is-hashed")
	_ = f.Request(x)
	want := &exchange.Caller{
		ID: "acme", Plan: "standard", Key: "current", Permissions: []string{"users:read", "jobs:run"},
		Attributes: map[string]string{"tier": "gold", "seats": "12", "beta": "true", "odd": "+Inf"},
	}
	if !reflect.DeepEqual(x.Caller, want) {
		t.Errorf("%+v", x.Caller)
	}

	// The first of several decides, and all go: they are credentials.
	x = withKey("key-of-somebody-else", "acme-key-written-out")
	if _ = f.Request(x); idOf(x) != "other" || x.Request.Header.Len() != 1 {
		t.Errorf("two keys: %q, %d fields", idOf(x), x.Request.Header.Len())
	}
	x = withKey()
	if o := f.Explain(x); o.Reason != "nobody known: no X-Api-Key" || f.Request(x) != nil || x.Caller != nil {
		t.Errorf("without a key: %+v, %+v", o, x.Caller)
	}
}

func idOf(x *exchange.Exchange) string {
	if x.Caller == nil {
		return ""
	}
	return x.Caller.ID
}

func TestAllRoutesShareOneDirectory(t *testing.T) {
	env := policy.Env{
		File:   &config.File{Clients: []config.Client{{ID: "a", Keys: []config.ClientKey{{Value: config.NewSecret("key-of-a")}}}}},
		Common: &sync.Map{},
	}
	one, two := env, env
	a, _ := New(Options{}).newAuthenticate(&config.Route{}, &one)
	b, _ := New(Options{}).newAuthenticate(&config.Route{}, &two)
	if a == nil || a != b {
		t.Error("each route has its own")
	}
	if f, err := New(Options{}).newAuthenticate(&config.Route{}, &policy.Env{File: &config.File{}}); f != nil || err != nil {
		t.Errorf("without clients: %v, %v", f, err)
	}
}

func TestFindingAClientDoesNotAllocate(t *testing.T) {
	f, x, field := manyClients(t)
	if n := testing.AllocsPerRun(1000, func() {
		x.Request.Header.Append(field)
		_ = f.Request(x)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// manyClients is a directory of 10,000, an exchange, and the field that makes it
// the last one's.
func manyClients(t testing.TB) (policy.Filter, *exchange.Exchange, exchange.Field) {
	clients := make([]config.Client, 10_000)
	for i := range clients {
		clients[i] = config.Client{ID: fmt.Sprint("client-", i), Keys: []config.ClientKey{{Value: config.NewSecret(fmt.Sprintf("key_%032d", i))}}}
	}
	field := exchange.Field{Name: exchange.XAPIKey.Name(), Value: fmt.Appendf(nil, "key_%032d", len(clients)-1), ID: exchange.XAPIKey}
	x := withKey()
	x.Request.Header.Append(field)
	f := clientsOf(t, clients...)
	if _ = f.Request(x); idOf(x) != "client-9999" {
		t.Fatal(idOf(x))
	}
	return f, x, field
}

// BenchmarkClient is the whole of the phase: hash, look-up and the key taken off.
// The budget is 200 ns.
func BenchmarkClient(b *testing.B) {
	f, x, field := manyClients(b)
	b.ReportAllocs()
	for b.Loop() {
		x.Request.Header.Append(field)
		_ = f.Request(x)
	}
}
