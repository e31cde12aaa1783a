package auth

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/store"
)

// Directory is the clients and keys that were made through the admin API. All of
// them are in memory, in tables that requests read without a lock; the store has the
// records (client/<id>, key/<id>, used/<id>), and tells what changed.
//
// # Order
//
// What is asked of the store and put into the tables behind it happens under
// `writing`: the tables never go back to what was read before a change. `mu` is for
// the maps behind the tables and is never held over a call.
//
// # Revocation
//
// A revoked key stays as a tombstone for 30 days. It is the one thing that this
// process never takes back: when the store has an older state than was seen here (a
// backup was restored, or a Redis without its last writes took over), the key stays
// revoked here, and the revocation is written again.
//
// # Whose a key is
//
// A client that is made here is born: its record has a word of its own, and keys have
// that of the client they were made for. So a client that is made later under the id of
// another never gets the other's keys, whoever was too late to revoke them. A declared
// client has no birth, and has the keys of its id (see realm.owns).
//
// # The store is away
//
// What is known goes on to be served. Until everything has been read, at the start
// and whenever a change could not be, a key that is not known may be a good one:
// it is refused with 503, not 401.
type Directory struct {
	log *slog.Logger
	now func() time.Time

	keys  *keyTable               // by fingerprint
	ids   *nameTable[*credential] // by id
	names *nameTable[*born]       // clients by id
	// behind says that records may have changed that are not in the tables.
	behind  atomic.Bool
	users   atomic.Uint64 // the last number of a keyUser
	changes atomic.Uint64 // of clients

	writing sync.Mutex
	records store.Records // nil: nothing is kept

	mu      sync.Mutex
	clients map[string]*clientRecord
	stored  map[string]*storedKey
	owned   map[string]map[string]*storedKey // by client
	relapse map[string]bool                  // ids of keys to be revoked again

	wake chan struct{}
	stop context.CancelFunc
	done chan struct{}
}

// born is a client that was made through the admin API.
type born struct {
	*config.Client
	birth string
}

// storedKey is a key and what the tables have of it.
type storedKey struct {
	keyRecord
	used    atomic.Int64 // Unix ns
	flushed int64        // the last use that was written
	inUse   *credential
}

const (
	storeTime   = time.Second      // for one call of the store
	wholeTime   = 30 * time.Second // to read everything
	flushEvery  = time.Minute
	retryEvery  = 250 * time.Millisecond // at first; doubled up to retryAtMost
	retryAtMost = 2 * time.Second
	flushBatch  = 256
)

func newDirectory(log *slog.Logger, now func() time.Time) *Directory {
	return &Directory{
		log: log, now: now, keys: newKeyTable(), ids: newNameTable[*credential](), names: newNameTable[*born](),
		clients: map[string]*clientRecord{}, stored: map[string]*storedKey{}, owned: map[string]map[string]*storedKey{},
		relapse: map[string]bool{}, wake: make(chan struct{}, 1),
	}
}

// keep reads what r has, and begins to keep things there. Only the first call counts.
func (d *Directory) keep(r store.Records) {
	d.writing.Lock()
	if d.records != nil {
		d.writing.Unlock()
		return
	}
	d.records = r
	d.behind.Store(true)
	ctx, stop := context.WithCancel(context.Background())
	d.stop, d.done = stop, make(chan struct{})
	first, cancel := context.WithTimeout(ctx, storeTime)
	err := d.read(first)
	cancel()
	d.writing.Unlock()
	if err != nil {
		d.log.Warn("clients and keys cannot be read, keys that are not declared are refused with 503 until they can", "cause", err)
	}
	go d.run(ctx)
}

// kept reports whether there is a place to keep things.
func (d *Directory) kept() bool {
	d.writing.Lock()
	defer d.writing.Unlock()
	return d.records != nil
}

// close stops, and writes when keys were last used, as long as ctx allows.
func (d *Directory) close(ctx context.Context) error {
	if d.stop == nil {
		return nil
	}
	d.stop()
	<-d.done
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.flush(ctx); err != nil && !errors.Is(err, store.ErrUnavailable) {
		return err
	}
	return nil // when the store is away, the last minute's uses are lost
}

// run reads again what could not be read, and does what is due every minute.
func (d *Directory) run(ctx context.Context) {
	defer close(d.done)
	minute := time.NewTicker(flushEvery)
	defer minute.Stop()
	wait := retryEvery
	retry := time.NewTimer(wait)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-minute.C:
			d.everyMinute(ctx)
			continue
		case <-d.wake:
			wait = retryEvery
		case <-retry.C:
		}
		if d.catchUp(ctx) {
			retry.Stop()
			wait = retryEvery
			continue
		}
		retry.Reset(wait)
		wait = min(2*wait, retryAtMost)
	}
}

func (d *Directory) everyMinute(ctx context.Context) {
	d.writing.Lock()
	defer d.writing.Unlock()
	ctx, cancel := context.WithTimeout(ctx, wholeTime)
	defer cancel()
	if err := d.flush(ctx); err != nil {
		d.log.Debug("when keys were last used cannot be written, it is tried again", "cause", err)
	}
	d.sweep()
}

// catchUp reads everything when something is missing, and revokes again what came
// back. It reports whether nothing is left to do.
func (d *Directory) catchUp(ctx context.Context) bool {
	d.writing.Lock()
	defer d.writing.Unlock()
	ctx, cancel := context.WithTimeout(ctx, wholeTime)
	defer cancel()
	if d.behind.Load() {
		if err := d.read(ctx); err != nil {
			return false
		}
		d.log.Info("clients and keys are read", "clients", len(d.clients), "keys", len(d.stored))
	}
	return d.revokeAgain(ctx) == nil
}

// later has run do what could not be done now.
func (d *Directory) later() {
	select {
	case d.wake <- struct{}{}:
	default: // it is told already
	}
}

// changed reads the records with these keys again; nil: all.
func (d *Directory) changed(keys []string) {
	d.writing.Lock()
	defer d.writing.Unlock()
	if d.records == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), wholeTime)
	defer cancel()
	var err error
	if keys == nil {
		d.behind.Store(true)
		err = d.read(ctx)
	}
	for _, key := range keys {
		if !strings.HasPrefix(key, clientPrefix) && !strings.HasPrefix(key, keyPrefix) {
			continue
		}
		var rec store.Record
		switch rec, err = d.records.Get(ctx, key); {
		case err == nil:
			d.take(rec)
		case errors.Is(err, store.ErrNoRecord):
			d.drop(key)
			err = nil
		}
		if err != nil {
			break
		}
	}
	if err != nil {
		d.behind.Store(true)
		d.log.Warn("changed clients and keys cannot be read, it is tried again", "cause", err)
	}
	if err != nil || d.relapsed() {
		d.later()
	}
}

// read makes the tables what the store has. The caller holds writing.
func (d *Directory) read(ctx context.Context) error {
	clients, stored := map[string]*clientRecord{}, map[string]*storedKey{}
	err := d.records.All(ctx, clientPrefix, func(r store.Record) bool {
		if c := d.readClient(r); c != nil {
			clients[c.ID] = c
		}
		return true
	})
	if err == nil {
		err = d.records.All(ctx, keyPrefix, func(r store.Record) bool {
			if k := d.readKey(r); k != nil {
				stored[k.ID] = &storedKey{keyRecord: *k}
			}
			return true
		})
	}
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	for id, was := range d.stored {
		is := stored[id]
		switch {
		case is == nil && was.RevokedAt != nil && now.Before(was.expires()):
			stored[id] = was
		case is == nil:
		default:
			d.keepRevoked(was, is)
			is.used.Store(was.used.Load())
			is.flushed = was.flushed
		}
	}
	d.clients, d.stored, d.owned = clients, stored, map[string]map[string]*storedKey{}
	names, ids := make(map[string]*born, len(clients)), make(map[string]*credential, len(stored))
	all := make([]*credential, 0, len(stored))
	for id, c := range clients {
		names[id] = c.born()
	}
	for id, k := range stored {
		d.own(k)
		k.inUse = k.credential()
		ids[id] = k.inUse
		all = append(all, k.inUse)
	}
	d.names.replace(names)
	d.ids.replace(ids)
	d.keys.replace(all)
	d.changes.Add(1)
	d.behind.Store(false)
	return nil
}

// take puts one record into the tables. The caller holds writing.
func (d *Directory) take(r store.Record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if strings.HasPrefix(r.Key, clientPrefix) {
		c := d.readClient(r)
		if c == nil {
			d.dropNow(r.Key)
			return
		}
		d.clients[c.ID] = c
		d.names.put(c.ID, c.born())
		d.renew(c.ID)
		return
	}
	k := d.readKey(r)
	if k == nil {
		d.dropNow(r.Key)
		return
	}
	is := &storedKey{keyRecord: *k}
	if was := d.stored[k.ID]; was != nil {
		d.keepRevoked(was, is)
		is.used.Store(was.used.Load())
		is.flushed = was.flushed
	}
	d.stored[k.ID] = is
	d.own(is)
	d.publish(is)
}

// drop takes one record out of the tables. The caller holds writing.
func (d *Directory) drop(key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dropNow(key)
}

// dropNow is drop for who holds mu.
func (d *Directory) dropNow(key string) {
	if id, ok := strings.CutPrefix(key, clientPrefix); ok {
		delete(d.clients, id)
		d.names.remove(id)
		d.renew(id)
		return
	}
	id := strings.TrimPrefix(key, keyPrefix)
	if k := d.stored[id]; k != nil && (k.RevokedAt == nil || !d.now().Before(k.expires())) {
		d.forget(k)
	}
}

// keepRevoked keeps a key revoked that was. The caller holds mu.
func (d *Directory) keepRevoked(was, is *storedKey) {
	if was.RevokedAt == nil || is.RevokedAt != nil {
		return
	}
	is.RevokedAt = was.RevokedAt
	if !d.relapse[is.ID] {
		d.relapse[is.ID] = true
		d.log.Warn("the store has forgotten that a key is revoked, it is revoked again", "key", is.ID, "client", is.Client)
	}
}

// renew makes the keys of a client be resolved again. The caller holds mu.
func (d *Directory) renew(client string) {
	d.changes.Add(1)
	for _, k := range d.owned[client] {
		d.publish(k)
	}
}

// publish puts a key into the tables as it is now. The caller holds mu.
func (d *Directory) publish(k *storedKey) {
	was := k.inUse
	k.inUse = k.credential()
	if was != nil && was.digest != k.inUse.digest {
		d.keys.remove(was)
	}
	d.keys.put(k.inUse)
	d.ids.put(k.ID, k.inUse)
}

// own notes whose key it is. The caller holds mu.
func (d *Directory) own(k *storedKey) {
	if d.owned[k.Client] == nil {
		d.owned[k.Client] = map[string]*storedKey{}
	}
	d.owned[k.Client][k.ID] = k
}

// forget takes a key out of the tables. The caller holds mu.
func (d *Directory) forget(k *storedKey) {
	delete(d.stored, k.ID)
	delete(d.relapse, k.ID)
	if delete(d.owned[k.Client], k.ID); len(d.owned[k.Client]) == 0 {
		delete(d.owned, k.Client)
	}
	d.ids.remove(k.ID)
	if k.inUse != nil {
		d.keys.remove(k.inUse)
	}
}

// sweep forgets keys that the store has forgotten because their time is over.
func (d *Directory) sweep() {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	for _, k := range d.stored {
		if end := k.expires(); !end.IsZero() && !now.Before(end) {
			d.forget(k)
		}
	}
}

func (d *Directory) relapsed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.relapse) > 0
}

// revokeAgain writes revocations that the store has forgotten. The caller holds
// writing.
func (d *Directory) revokeAgain(ctx context.Context) error {
	d.mu.Lock()
	ids := slices.Sorted(maps.Keys(d.relapse))
	d.mu.Unlock()
	for _, id := range ids {
		if err := d.revokeOne(ctx, id); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		d.mu.Lock()
		delete(d.relapse, id)
		d.mu.Unlock()
	}
	return nil
}

// flush writes when keys were last used. The caller holds writing.
func (d *Directory) flush(ctx context.Context) error {
	var changes []store.Change
	var due []*storedKey
	var at []int64
	d.mu.Lock()
	for _, k := range d.stored {
		if used := k.used.Load(); used > k.flushed && k.RevokedAt == nil {
			due, at = append(due, k), append(at, used)
			changes = append(changes, k.usedChange(used))
		}
	}
	d.mu.Unlock()
	for i := 0; i < len(changes); i += flushBatch {
		end := min(i+flushBatch, len(changes))
		if _, err := d.records.Apply(ctx, changes[i:end]); err != nil {
			return err
		}
		for j := i; j < end; j++ {
			due[j].flushed = at[j]
		}
	}
	return nil
}

// user is somebody who turns keys into callers of a realm.
func (d *Directory) user(r *realm, authenticator string, join bool) keyUser {
	return keyUser{number: d.users.Add(1), realm: r, authenticator: authenticator, join: join}
}

// client returns a client by its id. It takes no lock.
func (d *Directory) client(id string) (*config.Client, bool) {
	if c, ok := d.names.get(id); ok {
		return c.Client, true
	}
	return nil, false
}

// owns reports whether the client of a key is there, and is the one that it was made
// for. It takes no lock.
func (d *Directory) owns(c *credential) bool {
	client, ok := d.names.get(c.client)
	return ok && client.birth == c.birth
}

// version changes whenever a client does.
func (d *Directory) version() uint64 { return d.changes.Load() }

// credential makes of a key what requests find.
func (k *storedKey) credential() *credential {
	c := &credential{
		id: k.ID, public: k.ID, client: k.Client, name: k.Name, permissions: k.Permissions, used: &k.used,
		birth: k.Birth, digest: k.digest(),
	}
	if k.ExpiresAt != nil {
		c.until = k.ExpiresAt.UnixNano()
	}
	switch {
	case k.RevokedAt != nil:
		c.state = keyRevoked
	case !k.Enabled:
		c.state = keyDisabled
	}
	return c
}
