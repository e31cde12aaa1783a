package issuer

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/store"
)

// This file is refresh tokens, slr_<family>_<secret>_<checksum>: the family's name,
// 26 characters, the secret, 52 characters with 256 random bits and more, and the
// CRC-32 (IEEE) of what stands before it in hexadecimal. With the checksum a token
// that was cut off or mistyped is told from one that was used before.

const (
	refreshPrefix = "slr_"
	nameLen       = 26 // of crypto/rand.Text
	secretLen     = 2 * nameLen
	checkLen      = 8
	refreshLen    = len(refreshPrefix) + nameLen + 1 + secretLen + 1 + checkLen
)

// family is the record of one: what its refresh token gives. At most one refresh
// token of a family holds at a time.
type family struct {
	Client  string   `json:"client"`
	Key     string   `json:"key"` // id of the API key
	Scope   []string `json:"scope"`
	Current []byte   `json:"current"` // SHA-256 of the refresh token that holds
	Issued  int64    `json:"issued"`  // when that was made, Unix seconds
	Last    int64    `json:"last"`    // when the last access token ends, Unix seconds
}

// newName makes the name of a family.
func newName() string { return rand.Text() }

// newRefresh makes a refresh token of a family.
func newRefresh(name string) string {
	t := refreshPrefix + name + "_" + rand.Text() + rand.Text()
	return fmt.Sprintf("%s_%08x", t, crc32.ChecksumIEEE([]byte(t)))
}

// parseRefresh returns the family of a refresh token; ok: it has the right form.
func parseRefresh(token string) (name string, ok bool) {
	if len(token) != refreshLen || !strings.HasPrefix(token, refreshPrefix) {
		return "", false
	}
	body, sum := token[:refreshLen-checkLen-1], token[refreshLen-checkLen-1:]
	if fmt.Sprintf("_%08x", crc32.ChecksumIEEE([]byte(body))) != sum {
		return "", false
	}
	name = token[len(refreshPrefix):][:nameLen]
	for _, c := range []byte(name) { // base32
		if (c < 'A' || c > 'Z') && (c < '2' || c > '7') {
			return "", false
		}
	}
	return name, true
}

func digest(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// found is a family with its name and record.
type found struct {
	family
	name    string
	version int64
	expires time.Time
}

// holds reports whether a token is the refresh token that holds.
func (f *found) holds(token string) bool {
	return subtle.ConstantTimeCompare(f.Current, digest(token)) == 1
}

var errNoFamily = errors.New("there is no such family of tokens, or it has ended")

// open reads a family. The error is errNoFamily, or wraps ErrAway.
func (i *Issuer) open(ctx context.Context, name string) (*found, error) {
	if i.revoked.has(name) {
		return nil, errNoFamily
	}
	r, err := i.records.Get(ctx, familyPrefix+name)
	switch {
	case errors.Is(err, store.ErrNoRecord):
		return nil, errNoFamily
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrAway, err)
	case !i.now().Before(r.Expires):
		return nil, errNoFamily
	}
	f := &found{name: name, version: r.Version, expires: r.Expires}
	if json.Unmarshal(r.Value, &f.family) != nil {
		return nil, fmt.Errorf("%w: the record %s%s is damaged", ErrAway, familyPrefix, name)
	}
	return f, nil
}

// put writes a family in place of the given version; 0: it is a new one.
func (i *Issuer) put(ctx context.Context, name string, f *family, version int64, expires time.Time) error {
	value, err := json.Marshal(f)
	if err != nil {
		return err
	}
	_, err = i.records.Apply(ctx, []store.Change{{Key: familyPrefix + name, Value: value, Expires: expires, If: version}})
	return err
}

// allowance is how many families a key may begin: a client that asks for a token
// with every request instead of using those that it has would fill the store. What
// is beyond it gets access tokens without refresh tokens, which it does not use
// anyway.
type allowance struct {
	mu   sync.Mutex
	full map[string]time.Time // when a key's allowance is whole again
}

const (
	familiesAtOnce = 1000
	familyEvery    = 10 * time.Second
	// manyKeys is from how many keys on those whose allowance is whole are forgotten.
	manyKeys = 4096
)

// take reports whether a key may begin one more family.
func (a *allowance) take(key string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	full := a.full[key]
	if full.Before(now) {
		full = now
	}
	if full.Sub(now) > (familiesAtOnce-1)*familyEvery {
		return false
	}
	if a.full == nil {
		a.full = map[string]time.Time{}
	}
	if len(a.full) >= manyKeys {
		for k, t := range a.full {
			if t.Before(now) {
				delete(a.full, k)
			}
		}
	}
	a.full[key] = full.Add(familyEvery)
	return true
}
