package auth

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth/apikey"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/store"
)

// cabinet is records in memory, for several gateways.
type cabinet struct {
	mu      sync.Mutex
	records map[string]store.Record
	version int64
	drawers []*drawer
}

// drawer is one gateway's way to a cabinet.
type drawer struct {
	*cabinet
	away    error // what every call fails with
	applied int
	f       func(keys []string)
	told    chan []string
	done    chan struct{}
}

func (c *cabinet) open(t testing.TB) *drawer {
	d := &drawer{cabinet: c, told: make(chan []string, 100), done: make(chan struct{})}
	c.mu.Lock()
	c.drawers = append(c.drawers, d)
	if c.records == nil {
		c.records = map[string]store.Record{}
	}
	c.mu.Unlock()
	return d
}

func (d *drawer) Watch(f func(keys []string)) {
	d.mu.Lock()
	d.f = f
	d.mu.Unlock()
	go func() {
		defer close(d.done)
		for keys := range d.told {
			f(keys)
		}
	}()
}

func (d *drawer) close() {
	d.mu.Lock()
	d.drawers = slices.DeleteFunc(d.drawers, func(o *drawer) bool { return o == d })
	d.mu.Unlock()
	close(d.told)
	if d.f != nil {
		<-d.done
	}
}

func (d *drawer) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.away = err
}

// tell has the gateways look at records; nil: all.
func (c *cabinet) tell(keys []string) {
	for _, d := range c.drawers {
		if d.away == nil {
			d.told <- keys
		}
	}
}

func (d *drawer) Get(_ context.Context, key string) (store.Record, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away != nil {
		return store.Record{}, d.away
	}
	r, ok := d.records[key]
	if !ok {
		return r, store.ErrNoRecord
	}
	return r, nil
}

func (d *drawer) Apply(_ context.Context, changes []store.Change) (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away != nil {
		return 0, d.away
	}
	for _, c := range changes {
		if c.If != store.Always && d.records[c.Key].Version != c.If {
			return 0, store.ErrConflict
		}
	}
	d.version++
	d.applied++
	var keys []string
	for _, c := range changes {
		keys = append(keys, c.Key)
		if c.Value == nil {
			delete(d.records, c.Key)
			continue
		}
		d.records[c.Key] = store.Record{Key: c.Key, Value: bytes.Clone(c.Value), Version: d.version, Expires: c.Expires}
	}
	d.tell(keys)
	return d.version, nil
}

func (d *drawer) All(_ context.Context, prefix string, yield func(store.Record) bool) error {
	d.mu.Lock()
	all := maps.Clone(d.records)
	away := d.away
	d.mu.Unlock()
	if away != nil {
		return away
	}
	for key, r := range all {
		if strings.HasPrefix(key, prefix) && !yield(r) {
			return nil
		}
	}
	return nil
}

// desk is a gateway with its directory.
type desk struct {
	t      testing.TB
	engine *Engine
	*Directory
	drawer *drawer
	log    *bytes.Buffer
}

// gatewayOn starts a gateway that keeps things in a cabinet. It must be closed.
func gatewayOn(t testing.TB, c *cabinet, now func() time.Time) *desk {
	d := &desk{t: t, drawer: c.open(t), log: new(bytes.Buffer)}
	d.engine = New(Options{Now: now, Log: slog.New(slog.NewTextHandler(&lockedWriter{w: d.log}, nil))})
	d.Directory = d.engine.directory
	return d
}

func (d *desk) start() *desk {
	d.engine.Keep(d.drawer)
	return d
}

func (d *desk) close() {
	if err := d.engine.Close(context.Background()); err != nil {
		d.t.Error(err)
	}
	d.drawer.close()
}

type lockedWriter struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// issue makes a client, when there is none, and a key.
func (d *desk) issue(k Key) (Key, string) {
	d.t.Helper()
	if _, err := d.Client(k.Client); err != nil {
		if _, err := d.CreateClient(d.t.Context(), config.Client{ID: k.Client}); err != nil {
			d.t.Fatal(err)
		}
	}
	made, text, err := d.CreateKey(d.t.Context(), k)
	if err != nil {
		d.t.Fatal(err)
	}
	return made, text
}

// says is what a gateway makes of a key: ok, or the code of the refusal.
func (d *desk) says(key string) string {
	c, err := d.verify([]byte(key), d.now())
	if err != nil {
		return exchange.AsError(err).Code.String()
	}
	if !d.live(c.id) {
		return "ok, but not alive"
	}
	return "ok"
}

// live is that of a realm whose configuration declares no clients.
func (d *desk) live(id string) bool {
	r := &realm{engine: d.engine, file: &config.File{}}
	return r.live(id)
}

// keysOf is a realm's authenticator of keys.
func keysOf(t testing.TB, e *Engine, f *config.File, c *config.Authenticator) (*keyAuth, *realm) {
	t.Helper()
	if c.APIKey == nil {
		c.APIKey = &config.APIKeyAuth{From: []string{"header:X-Api-Key"}}
	}
	f.Authenticators = map[string]*config.Authenticator{"keys": c}
	r, err := e.realm(&policy.Env{File: f, Common: &sync.Map{}})
	if err != nil {
		t.Fatal(err)
	}
	return r.authenticators["keys"].(*keyAuth), r
}

func newKey(t testing.TB) string {
	t.Helper()
	_, key, err := apikey.New()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// writes is how often something was changed this way.
func (d *drawer) writes() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.applied
}

// put puts a record there without telling.
func (d *drawer) put(r store.Record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records[r.Key] = r
}

// storeRecord is a key as the store has it.
func storeRecord(k *keyRecord) store.Record {
	c := k.change()
	return store.Record{Key: c.Key, Value: c.Value, Version: 1, Expires: c.Expires}
}

// verify is that of a realm whose configuration declares no keys.
func (d *Directory) verify(key []byte, now time.Time) (*credential, error) {
	none := &keyring{own: newKeyTable(), others: newKeyTable()}
	return none.verify(d, key, now)
}
