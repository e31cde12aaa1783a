package issuer

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is store.Records without a disk, for fake time and for faults at a chosen
// moment. Gateways that share one are each told of changes by tell.
type memory struct {
	mu      sync.Mutex
	now     func() time.Time
	version int64
	records map[string]store.Record
	away    bool
	watch   []func(keys []string)
	applied func() // before a change is made; nil: nothing
}

func newMemory(now func() time.Time) *memory {
	return &memory{now: now, records: map[string]store.Record{}}
}

func (m *memory) Get(_ context.Context, key string) (store.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return store.Record{}, store.ErrUnavailable
	}
	r, ok := m.there(key)
	if !ok {
		return store.Record{}, store.ErrNoRecord
	}
	return r, nil
}

func (m *memory) there(key string) (store.Record, bool) {
	r, ok := m.records[key]
	if ok && !r.Expires.IsZero() && !m.now().Before(r.Expires) {
		return store.Record{}, false
	}
	return r, ok
}

func (m *memory) Apply(_ context.Context, changes []store.Change) (int64, error) {
	if m.applied != nil {
		m.applied()
	}
	version, err := m.apply(changes)
	if err == nil {
		keys := make([]string, 0, len(changes))
		for _, c := range changes {
			keys = append(keys, c.Key)
		}
		m.tell(keys...)
	}
	return version, err
}

func (m *memory) apply(changes []store.Change) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return 0, store.ErrUnavailable
	}
	for _, c := range changes {
		r, ok := m.there(c.Key)
		if c.If != store.Always && (ok || c.If != 0) && (!ok || r.Version != c.If) {
			return 0, store.ErrConflict
		}
	}
	m.version++
	for _, c := range changes {
		if c.Value == nil {
			delete(m.records, c.Key)
			continue
		}
		m.records[c.Key] = store.Record{Key: c.Key, Value: slices.Clone(c.Value), Version: m.version, Expires: c.Expires}
	}
	return m.version, nil
}

func (m *memory) All(_ context.Context, prefix string, yield func(store.Record) bool) error {
	m.mu.Lock()
	all := maps.Clone(m.records)
	away := m.away
	m.mu.Unlock()
	if away {
		return store.ErrUnavailable
	}
	for key, r := range all {
		if strings.HasPrefix(key, prefix) && (r.Expires.IsZero() || m.now().Before(r.Expires)) && !yield(r) {
			break
		}
	}
	return nil
}

func (m *memory) Watch(f func([]string)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watch = append(m.watch, f)
}

func (m *memory) setAway(away bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = away
}

// tell says to all gateways what has changed; nothing: anything may have.
func (m *memory) tell(keys ...string) {
	m.mu.Lock()
	watch := slices.Clone(m.watch)
	m.mu.Unlock()
	for _, f := range watch {
		f(keys)
	}
}

func (m *memory) keys(prefix string) (names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range m.records {
		if strings.HasPrefix(key, prefix) {
			names = append(names, key)
		}
	}
	slices.Sort(names)
	return names
}

// people are the clients of tests: those of the map, by the id of their key, whose
// text is "secret of <id>".
type people struct {
	mu   sync.Mutex
	all  map[string]*Client
	dead map[string]bool
	away bool
}

func (p *people) Authenticate(id, secret string) (*Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.all[id]
	switch {
	case p.away:
		return nil, ErrAway
	case c == nil || p.dead[id] || secret != "secret of "+id:
		return nil, errors.New("nobody")
	}
	return c, nil
}

func (p *people) Live(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all[key] != nil && !p.dead[key]
}

func (p *people) kill(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead[key] = true
}

func somePeople() *people {
	return &people{dead: map[string]bool{}, all: map[string]*Client{
		"k1": {ID: "acme", Key: "k1", Plan: "gold", Roles: []string{"reader"}, Permissions: []string{"users:read", "users:write", "orders:*"}},
		"k2": {ID: "acme", Key: "k2", Permissions: []string{"users:read"}},
		"k3": {ID: "bolt", Key: "k3"},
	}}
}

// narrow is what the permissions have in common, with * at the end for all.
func narrow(held, wanted []string) (both []string) {
	covers := func(wide, p string) bool {
		prefix, all := strings.CutSuffix(wide, "*")
		return all && strings.HasPrefix(p, prefix) || wide == p
	}
	for _, w := range wanted {
		for _, h := range held {
			if covers(h, w) {
				both = append(both, w)
			} else if covers(w, h) {
				both = append(both, h)
			}
		}
	}
	return both
}

const issuerURL = "https://api.example.com"

func settings(p *people) Settings {
	return Settings{
		Issuer: issuerURL, Algorithm: "ES256", AccessTTL: 30 * time.Minute, RefreshTTL: 7 * 24 * time.Hour, Path: "/oauth",
		Clients: p, Narrow: narrow,
	}
}

// gateway is an issuer with one server.
func gateway(t testing.TB, m *memory, now func() time.Time, o Settings) (*Issuer, *Server) {
	t.Helper()
	i := New(Options{Now: now})
	if m != nil {
		i.Keep(m)
		m.Watch(i.Changed)
	}
	s, err := i.Serve(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if err := i.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return i, s
}

// ask is a request of the holder of a key, with name=value pairs.
func ask(key string, pairs ...string) *Request {
	q := &Request{ContentType: "application/x-www-form-urlencoded", Body: []byte(strings.Join(pairs, "&"))}
	if key != "" {
		q.Authorization = "Basic " + base64.StdEncoding.EncodeToString([]byte(key+":secret+of+"+key))
	}
	return q
}

// answer is a reply, read.
type answer struct {
	status              int
	code                string
	access, refresh     string
	scope, kind, client string
	active              bool
	expires             int64
}

func read(t testing.TB, r Reply) answer {
	t.Helper()
	a := answer{status: r.Status}
	if len(r.Body) == 0 {
		return a
	}
	var m struct {
		Error   string `json:"error"`
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
		Scope   string `json:"scope"`
		Type    string `json:"type"`
		Client  string `json:"client_id"`
		Active  bool   `json:"active"`
		Expires int64  `json:"exp"`
	}
	if err := json.Unmarshal(r.Body, &m); err != nil {
		t.Fatalf("%s: %v", r.Body, err)
	}
	a.code, a.access, a.refresh, a.scope, a.kind, a.client, a.active, a.expires = m.Error, m.Access, m.Refresh, m.Scope, m.Type, m.Client, m.Active, m.Expires
	return a
}

// first asks for tokens with a key.
func first(t testing.TB, s *Server, key string, pairs ...string) answer {
	t.Helper()
	a := read(t, s.Token(context.Background(), ask(key, append([]string{"grant_type=client_credentials"}, pairs...)...)))
	if a.status != 200 {
		t.Fatalf("%s gets %+v", key, a)
	}
	return a
}

func refresh(t testing.TB, s *Server, key, token string, pairs ...string) answer {
	t.Helper()
	return read(t, s.Token(context.Background(), ask(key, append([]string{"grant_type=refresh_token", "refresh_token=" + token}, pairs...)...)))
}

func isAway(err error) bool { return errors.Is(err, ErrAway) }

// usable verifies an access token as a request does.
func usable(s *Server, token string, now time.Time) error {
	a, err := s.Verify([]byte(token), now)
	if err != nil {
		return err
	}
	return s.Live(a)
}
