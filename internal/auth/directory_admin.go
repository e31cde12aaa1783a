package auth

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth/apikey"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/store"
)

// Errors of a Directory. Test with errors.Is.
var (
	// ErrNotFound says that no such client or key was made through the admin API.
	ErrNotFound = errors.New("auth: there is no such client or key")
	// ErrTaken says that there is a client with this id already.
	ErrTaken = errors.New("auth: there is such a client already")
	// ErrEnded says that a key is revoked, disabled or expired.
	ErrEnded = errors.New("auth: the key is revoked, disabled or expired")
	// ErrRotated says that a key has a successor already, which is the one to rotate.
	ErrRotated = errors.New("auth: the key was rotated already")
	// ErrAway says that the store does not answer. Nothing is acknowledged; whether it
	// was done nobody knows.
	ErrAway = errors.New("auth: the store of clients and keys does not answer")
	// ErrNoStore says that there is no place to keep clients and keys.
	ErrNoStore = errors.New("auth: there is no store of clients and keys")
	// ErrBusy says that others changed the same thing all the while.
	ErrBusy = errors.New("auth: it is being changed by others, try again")
)

// Client is a client that was made through the admin API.
type Client struct {
	config.Client
	CreatedAt time.Time
}

// Key is a key that was made through the admin API. Times that never came are zero.
type Key struct {
	ID, Client, Name     string
	CreatedAt, ExpiresAt time.Time
	RevokedAt            time.Time // zero: it is not
	LastUsedAt           time.Time // to the minute
	Enabled              bool
	Permissions          []string // they narrow those of the client; nil: they do not
	// Orphan says that the client it was made for was not made through the admin API, or
	// is not there any more: nobody has the key unless a client of that id is declared.
	Orphan bool
}

// attempts is how often a change is tried again because another came first.
const attempts = 5

// available returns an error unless records can be changed. The caller holds writing.
func (d *Directory) available() error {
	if d.records == nil {
		return ErrNoStore
	}
	return nil
}

// problem makes of an error of the store one of the directory.
func problem(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNoRecord):
		return ErrNotFound
	case errors.Is(err, store.ErrConflict):
		return ErrBusy
	}
	return fmt.Errorf("%w: %w", ErrAway, err)
}

// Clients lists the clients, by id. The error is ErrAway while they have never been
// read, or ErrNoStore.
func (d *Directory) Clients() ([]Client, error) {
	if err := d.readable(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]Client, 0, len(d.clients))
	for _, c := range d.clients {
		all = append(all, c.client())
	}
	slices.SortFunc(all, func(a, b Client) int { return cmp.Compare(a.ID, b.ID) })
	return all, nil
}

// Client returns one client. The error is ErrNotFound, or one of Clients.
func (d *Directory) Client(id string) (Client, error) {
	if err := d.readable(); err != nil {
		return Client{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.clients[id]; c != nil {
		return c.client(), nil
	}
	return Client{}, ErrNotFound
}

// readable returns an error while it is not known what there is.
func (d *Directory) readable() error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if d.records == nil {
		return ErrNoStore
	}
	if !d.behind.Load() {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.clients)+len(d.stored) == 0 {
		return ErrAway
	}
	return nil // what was known last
}

func (c *clientRecord) client() Client { return Client{Client: *c.config(), CreatedAt: c.CreatedAt} }

// CreateClient makes a client. The error is ErrTaken, ErrAway or ErrNoStore.
func (d *Directory) CreateClient(ctx context.Context, c config.Client) (Client, error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.available(); err != nil {
		return Client{}, err
	}
	rec := &clientRecord{
		ID: c.ID, Plan: c.Plan, Roles: c.Roles, Permissions: c.Permissions, Attributes: c.Attributes,
		CreatedAt: d.now().UTC().Truncate(time.Second), Birth: rand.Text(),
	}
	err := d.writeClient(ctx, rec)
	if errors.Is(err, store.ErrConflict) {
		return Client{}, ErrTaken
	}
	return rec.client(), problem(err)
}

// writeClient writes a record and puts it into the tables. The caller holds writing.
func (d *Directory) writeClient(ctx context.Context, rec *clientRecord) error {
	change, err := rec.change()
	if err != nil {
		return err
	}
	return d.apply(ctx, change)
}

// apply makes changes, and then shows them to requests. The caller holds writing.
func (d *Directory) apply(ctx context.Context, changes ...store.Change) error {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	version, err := d.records.Apply(ctx, changes)
	if err != nil {
		return err
	}
	for _, c := range changes {
		if c.Value == nil {
			d.drop(c.Key)
		} else {
			d.take(store.Record{Key: c.Key, Value: c.Value, Version: version, Expires: c.Expires})
		}
	}
	return nil
}

// get reads one record. The caller holds writing.
func (d *Directory) get(ctx context.Context, key string) (store.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	return d.records.Get(ctx, key)
}

// again calls f until no other change comes between what it reads and what it
// writes. The caller holds writing.
func again(f func() error) error {
	var err error
	for range attempts {
		if err = f(); !errors.Is(err, store.ErrConflict) {
			break
		}
	}
	return err
}

// ChangeClient changes a client by f, which must leave the id as it is and can be
// called more than once. The error is that of f, ErrNotFound, ErrAway, ErrBusy or
// ErrNoStore.
func (d *Directory) ChangeClient(ctx context.Context, id string, f func(*config.Client) error) (Client, error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.available(); err != nil {
		return Client{}, err
	}
	var rec *clientRecord
	var failed error // of f
	err := again(func() error {
		r, err := d.get(ctx, clientPrefix+id)
		if err != nil {
			return err
		}
		if rec = d.readClient(r); rec == nil {
			return store.ErrNoRecord
		}
		c := rec.config()
		if failed = f(c); failed != nil {
			return nil
		}
		rec.Plan, rec.Roles, rec.Permissions, rec.Attributes = c.Plan, c.Roles, c.Permissions, c.Attributes
		return d.writeClient(ctx, rec)
	})
	if err = cmp.Or(failed, problem(err)); err != nil {
		return Client{}, err
	}
	return rec.client(), nil
}

// DeleteClient removes a client and revokes its keys. The error is ErrNotFound,
// ErrAway, ErrBusy or ErrNoStore. A client of more than some hundred keys is removed
// last, behind steps that each revoke some.
func (d *Directory) DeleteClient(ctx context.Context, id string) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.available(); err != nil {
		return err
	}
	return problem(again(func() error {
		client, err := d.get(ctx, clientPrefix+id)
		if err != nil {
			return err
		}
		d.mu.Lock()
		keys := slices.Sorted(maps.Keys(d.owned[id]))
		d.mu.Unlock()
		var changes []store.Change
		for _, key := range keys {
			more, err := d.revocation(ctx, key)
			if err != nil && !errors.Is(err, store.ErrNoRecord) {
				return err
			}
			if changes = append(changes, more...); len(changes) >= flushBatch {
				if err := d.apply(ctx, changes...); err != nil {
					return err
				}
				changes = nil
			}
		}
		return d.apply(ctx, append(changes, store.Change{Key: clientPrefix + id, If: client.Version})...)
	}))
}

// Keys lists the keys of a client, or all when it is empty, by client and time of
// creation. Those that are revoked are there for 30 days. The error is ErrAway or
// ErrNoStore.
func (d *Directory) Keys(ctx context.Context, client string) ([]Key, error) {
	if err := d.readable(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	var all []Key
	for _, k := range d.stored {
		if client == "" || k.Client == client {
			all = append(all, d.key(k))
		}
	}
	d.mu.Unlock()
	d.withUsed(ctx, all)
	slices.SortFunc(all, func(a, b Key) int {
		return cmp.Or(cmp.Compare(a.Client, b.Client), a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}

// withUsed adds what other gateways have written of the last use. When they cannot be
// asked, what this one knows stays.
func (d *Directory) withUsed(ctx context.Context, keys []Key) {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	later := func(k *Key, at time.Time) {
		if at.After(k.LastUsedAt) {
			k.LastUsedAt = at
		}
	}
	if len(keys) <= attempts {
		for i := range keys {
			if r, err := d.records.Get(ctx, usedPrefix+keys[i].ID); err == nil {
				_, at := readUsed(r)
				later(&keys[i], at)
			}
		}
		return
	}
	byID := make(map[string]*Key, len(keys))
	for i := range keys {
		byID[keys[i].ID] = &keys[i]
	}
	err := d.records.All(ctx, usedPrefix, func(r store.Record) bool {
		id, at := readUsed(r)
		if k := byID[id]; k != nil {
			later(k, at)
		}
		return true
	})
	if err != nil {
		d.log.Debug("when other gateways last saw keys cannot be read", "cause", err)
	}
}

// key tells of a key. The caller holds mu.
func (d *Directory) key(k *storedKey) Key {
	out := Key{ID: k.ID, Client: k.Client, Name: k.Name, CreatedAt: k.CreatedAt, Enabled: k.Enabled && k.RevokedAt == nil, Permissions: k.Permissions}
	c := d.clients[k.Client]
	out.Orphan = c == nil || c.Birth != k.Birth
	if k.ExpiresAt != nil {
		out.ExpiresAt = *k.ExpiresAt
	}
	if k.RevokedAt != nil {
		out.RevokedAt = *k.RevokedAt
	}
	if at := k.used.Load(); at > 0 {
		out.LastUsedAt = time.Unix(0, at).UTC().Truncate(time.Second)
	}
	return out
}

// Key returns one key. The error is ErrNotFound, ErrAway or ErrNoStore.
func (d *Directory) Key(ctx context.Context, id string) (Key, error) {
	if err := d.readable(); err != nil {
		return Key{}, err
	}
	k, err := d.known(id)
	if err != nil {
		return Key{}, err
	}
	one := []Key{k}
	d.withUsed(ctx, one)
	return one[0], nil
}

// known is a key as this gateway knows it.
func (d *Directory) known(id string) (Key, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if k := d.stored[id]; k != nil {
		return d.key(k), nil
	}
	return Key{}, ErrNotFound
}

// CreateKey makes a key of k's client, which must be there, with k's name, end and
// permissions. text is the key itself: it is nowhere else. The error is ErrAway or
// ErrNoStore.
func (d *Directory) CreateKey(ctx context.Context, k Key) (made Key, text string, err error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.available(); err != nil {
		return Key{}, "", err
	}
	d.mu.Lock()
	birth := "" // of a declared client
	if c := d.clients[k.Client]; c != nil {
		birth = c.Birth
	}
	d.mu.Unlock()
	rec, text, err := d.newKey(k, birth)
	if err == nil {
		err = d.apply(ctx, rec.change())
	}
	if err != nil {
		return Key{}, "", problem(err)
	}
	made, err = d.known(rec.ID)
	return made, text, err
}

// newKey makes a record of a key for a client of this birth, and the text of the key.
func (d *Directory) newKey(k Key, birth string) (*keyRecord, string, error) {
	id, text, err := apikey.New()
	if err != nil {
		return nil, "", err
	}
	sum := apikey.Fingerprint([]byte(text))
	rec := &keyRecord{
		ID: id, Client: k.Client, Birth: birth, Name: k.Name, Fingerprint: hex.EncodeToString(sum[:]),
		CreatedAt: d.now().UTC().Truncate(time.Second), Enabled: true, Permissions: k.Permissions,
	}
	if !k.ExpiresAt.IsZero() {
		end := k.ExpiresAt.UTC()
		rec.ExpiresAt = &end
	}
	return rec, text, nil
}

// changeKey changes a key by f, which returns what else is to be written with it. The
// caller holds writing.
func (d *Directory) changeKey(ctx context.Context, id string, f func(*keyRecord) ([]store.Change, error)) error {
	return again(func() error {
		r, err := d.get(ctx, keyPrefix+id)
		if err != nil {
			return err
		}
		k, err := parseKey(r)
		if err != nil {
			return store.ErrNoRecord
		}
		more, err := f(k)
		if err != nil {
			return err
		}
		return d.apply(ctx, append(more, k.change())...)
	})
}

// EnableKey enables or disables a key. The error is ErrNotFound, ErrEnded when it is
// revoked, ErrAway, ErrBusy or ErrNoStore.
func (d *Directory) EnableKey(ctx context.Context, id string, enabled bool) (Key, error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.available(); err != nil {
		return Key{}, err
	}
	err := d.changeKey(ctx, id, func(k *keyRecord) ([]store.Change, error) {
		if k.RevokedAt != nil {
			return nil, ErrEnded
		}
		k.Enabled = enabled
		return nil, nil
	})
	if err != nil {
		return Key{}, ended(err)
	}
	return d.known(id)
}

// ended is problem, for an error that may be ErrEnded or ErrRotated.
func ended(err error) error {
	if errors.Is(err, ErrEnded) || errors.Is(err, ErrRotated) {
		return err
	}
	return problem(err)
}

// RotateKey makes a key that is like another but for the text, and has the other end
// after overlap, unless it ends before. A key that ends gets a successor with a life
// as long as its own. A key is rotated once: who has lost the new key rotates that one.
// The error is ErrNotFound, ErrEnded, ErrRotated, ErrAway, ErrBusy or
// ErrNoStore.
func (d *Directory) RotateKey(ctx context.Context, id string, overlap time.Duration) (next Key, text string, old Key, err error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.available(); err != nil {
		return Key{}, "", Key{}, err
	}
	var rec *keyRecord
	err = d.changeKey(ctx, id, func(k *keyRecord) ([]store.Change, error) {
		now := d.now().UTC()
		if k.RevokedAt != nil || !k.Enabled || k.ExpiresAt != nil && !now.Before(*k.ExpiresAt) {
			return nil, ErrEnded
		}
		if k.Successor != "" {
			return nil, fmt.Errorf("%w: its successor is %s", ErrRotated, k.Successor)
		}
		like := Key{Client: k.Client, Name: k.Name, Permissions: k.Permissions}
		if k.ExpiresAt != nil {
			like.ExpiresAt = now.Truncate(time.Second).Add(k.ExpiresAt.Sub(k.CreatedAt))
		}
		var err error
		if rec, text, err = d.newKey(like, k.Birth); err != nil {
			return nil, err
		}
		k.Successor = rec.ID
		if end := now.Add(overlap); k.ExpiresAt == nil || end.Before(*k.ExpiresAt) {
			k.ExpiresAt = &end
		}
		return []store.Change{rec.change()}, nil
	})
	if err != nil {
		return Key{}, "", Key{}, ended(err)
	}
	next, err = d.known(rec.ID)
	if err == nil {
		old, err = d.known(id)
	}
	return next, text, old, err
}

// RevokeKey revokes a key for good. When the error is nil it is refused here, and by
// all gateways that share the store within a second. It is ErrNotFound, ErrAway,
// ErrBusy or ErrNoStore. Revoking it again does nothing.
func (d *Directory) RevokeKey(ctx context.Context, id string) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.available(); err != nil {
		return err
	}
	return d.revokeOne(ctx, id)
}

// revokeOne revokes a key. The caller holds writing.
func (d *Directory) revokeOne(ctx context.Context, id string) error {
	return problem(again(func() error {
		changes, err := d.revocation(ctx, id)
		if err != nil || changes == nil {
			return err
		}
		return d.apply(ctx, changes...)
	}))
}

// revocation is the changes that revoke a key, none when it is revoked. The error
// is the store's. The caller holds writing.
func (d *Directory) revocation(ctx context.Context, id string) ([]store.Change, error) {
	r, err := d.get(ctx, keyPrefix+id)
	if err != nil {
		return nil, err
	}
	k, err := parseKey(r)
	if err != nil { // nobody can use it, and nobody shall
		return []store.Change{{Key: keyPrefix + id, If: r.Version}}, nil
	}
	if k.RevokedAt != nil {
		d.take(r)
		return nil, nil
	}
	now := d.now().UTC().Truncate(time.Second)
	k.RevokedAt, k.Enabled = &now, false
	return []store.Change{k.change(), {Key: usedPrefix + id, If: store.Always}}, nil
}
