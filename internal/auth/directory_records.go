package auth

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/store"
)

// What the keys of records begin with.
const (
	clientPrefix = "client/"
	keyPrefix    = "key/"
	usedPrefix   = "used/"
)

const (
	// tombstone is how long it is remembered of a key that it was revoked or ran out.
	tombstone = 30 * 24 * time.Hour
	// usedFor is how long it is remembered when a key was last used.
	usedFor = 366 * 24 * time.Hour
)

// clientRecord is the value of client/<id>.
type clientRecord struct {
	ID          string         `json:"id"`
	Plan        string         `json:"plan,omitempty"`
	Roles       []string       `json:"roles,omitempty"`
	Permissions []string       `json:"permissions,omitempty"`
	Attributes  map[string]any `json:"attributes,omitempty"`
	CreatedAt   time.Time      `json:"created_at"`
	Birth       string         `json:"birth,omitempty"` // no other client has it, nor one of the same id

	version int64
}

// keyRecord is the value of key/<id>. It has nothing from which the key could be
// made: the digest is that of 256 random bits.
type keyRecord struct {
	ID          string     `json:"id"`
	Client      string     `json:"client"`
	Birth       string     `json:"birth,omitempty"` // of the client; empty: a declared one
	Name        string     `json:"name,omitempty"`
	Fingerprint string     `json:"fingerprint"` // see apikey.Fingerprint, in hex
	CreatedAt   time.Time  `json:"created_at"`
	ExpiresAt   *time.Time `json:"expires_at,omitempty"`
	Enabled     bool       `json:"enabled"`
	Permissions []string   `json:"permissions"` // null: all of the client's
	RevokedAt   *time.Time `json:"revoked_at,omitempty"`
	Successor   string     `json:"successor,omitempty"` // id of the key that took its place

	version int64
}

func (d *Directory) readClient(r store.Record) *clientRecord {
	c := new(clientRecord)
	err := json.Unmarshal(r.Value, c)
	if err == nil && clientPrefix+c.ID != r.Key {
		err = errors.New("it is about another client")
	}
	if err != nil {
		d.log.Error("the record of a client cannot be read, the client is not there until it is deleted and made again", "record", r.Key, "cause", err)
		return nil
	}
	c.version = r.Version
	return c
}

func (d *Directory) readKey(r store.Record) *keyRecord {
	k, err := parseKey(r)
	if err != nil {
		d.log.Error("the record of a key cannot be read, the key is not there", "record", r.Key, "cause", err)
		return nil
	}
	return k
}

func parseKey(r store.Record) (*keyRecord, error) {
	k := new(keyRecord)
	if err := json.Unmarshal(r.Value, k); err != nil {
		return nil, err
	}
	if b, err := hex.DecodeString(k.Fingerprint); err != nil || len(b) != sha256.Size {
		return nil, errors.New("it has no fingerprint")
	}
	if keyPrefix+k.ID != r.Key {
		return nil, errors.New("it is about another key")
	}
	k.version = r.Version
	return k, nil
}

func (k *keyRecord) digest() (sum [sha256.Size]byte) {
	_, _ = hex.Decode(sum[:], []byte(k.Fingerprint)) // parseKey has seen to it
	return sum
}

// expires is when the record may go; zero: never.
func (k *keyRecord) expires() time.Time {
	switch {
	case k.RevokedAt != nil:
		return k.RevokedAt.Add(tombstone)
	case k.ExpiresAt != nil:
		return k.ExpiresAt.Add(tombstone)
	}
	return time.Time{}
}

// change writes the record in the place of the version that was read.
func (k *keyRecord) change() store.Change {
	b, _ := json.Marshal(k) // texts and times always can be
	return store.Change{Key: keyPrefix + k.ID, Value: b, Expires: k.expires(), If: k.version}
}

// usedChange writes when the key was last used, Unix ns.
func (k *keyRecord) usedChange(at int64) store.Change {
	return store.Change{
		Key: usedPrefix + k.ID, Value: strconv.AppendInt(nil, at/int64(time.Second), 10),
		Expires: time.Unix(0, at).Add(usedFor), If: store.Always,
	}
}

func readUsed(r store.Record) (id string, at time.Time) {
	seconds, err := strconv.ParseInt(string(r.Value), 10, 64)
	if err != nil {
		return "", time.Time{}
	}
	return strings.TrimPrefix(r.Key, usedPrefix), time.Unix(seconds, 0).UTC()
}

func (c *clientRecord) change() (store.Change, error) {
	b, err := json.Marshal(c)
	return store.Change{Key: clientPrefix + c.ID, Value: b, If: c.version}, err
}

// born is the client as requests find it.
func (c *clientRecord) born() *born { return &born{Client: c.config(), birth: c.Birth} }

// config is the client as the configuration would declare it.
func (c *clientRecord) config() *config.Client {
	return &config.Client{ID: c.ID, Plan: c.Plan, Roles: c.Roles, Permissions: c.Permissions, Attributes: c.Attributes}
}
