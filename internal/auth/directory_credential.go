package auth

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth/apikey"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// credential is one key of a client: declared by the configuration, or made through
// the admin API. It does not change: a key that is revoked, or whose client changes,
// becomes another credential.
type credential struct {
	id          string // config:<client>/<name or index> when declared
	bound       string // id and some of the digest, when declared
	public      string // the id that stands in a key of the gateway's own shape
	client      string
	birth       string // of the client that it was made for, when that was made through the admin API
	name        string
	digest      [sha256.Size]byte // apikey.Fingerprint, or apikey.Digest of other shapes
	until       int64             // Unix ns from when on it is refused; 0: never
	state       keyState
	permissions []string      // they narrow those of the client; nil: they do not
	used        *atomic.Int64 // Unix ns of the last use, to the minute; nil when declared
	known       atomic.Pointer[known]
}

type keyState uint8

const (
	keyLive keyState = iota
	keyDisabled
	keyRevoked
)

// Why a key is refused. No client gets to read it.
var (
	errChecksum = errors.New("the checksum of the key is wrong")
	errUnknown  = errors.New("no client has this key")
	errTooLong  = errors.New("no key is that long")
	errBehind   = errors.New("no known client has this key, and the store of keys has not been read since it was away")
)

// maxKey is how long a key may be, in bytes: longer ones are not even hashed.
const maxKey = 4 << 10

// fault is why the key is refused now; nil: it is not.
func (c *credential) fault(now int64) error {
	switch {
	case c.state == keyRevoked:
		return fmt.Errorf("the key %s of %s is revoked", c.id, c.client)
	case c.state == keyDisabled:
		return fmt.Errorf("the key %s of %s is disabled", c.id, c.client)
	case c.until != 0 && now >= c.until:
		return fmt.Errorf("the key %s of %s has run out, on %s", c.id, c.client, time.Unix(0, c.until).UTC().Format(time.RFC3339))
	}
	return nil
}

// works reports whether fault is nil.
func (c *credential) works(now int64) bool {
	return c.state == keyLive && (c.until == 0 || now < c.until)
}

// touched is how exactly the last use of a key is known.
const touched = time.Minute

// touch notes a use. Most often it only reads, so that cores do not take the same
// line of memory from one another.
func (c *credential) touch(now int64) {
	if c.used != nil && now-c.used.Load() >= int64(touched) {
		c.used.Store(now)
	}
}

// known is who a key's holder is to one of those who ask: a keyUser.
type known struct {
	by     uint64
	caller *exchange.Caller
	next   *known
}

// maxKnown is how many are kept with a key: one for each authenticator of keys
// and, while a configuration is replaced, its successors.
const maxKnown = 4

// keyUser is somebody who turns credentials into callers, and always of one
// credential into the same. Its number tells it from all others there have been.
type keyUser struct {
	number        uint64
	realm         *realm
	authenticator string
	join          bool
	lenient       bool // a plan or role that there is not is no reason to refuse
}

// caller returns who holds the key. The work is done once for each key.
func (u *keyUser) caller(c *credential) (*exchange.Caller, error) {
	for r := c.known.Load(); r != nil; r = r.next {
		if r.by == u.number {
			return r.caller, nil
		}
	}
	who, err := u.resolve(c)
	if err != nil {
		return nil, err
	}
	c.remember(u.number, who)
	return who, nil
}

// remember keeps who in front of what others have resolved lately.
func (c *credential) remember(by uint64, who *exchange.Caller) {
	first := &known{by: by, caller: who}
	last := first
	n := 1
	for r := c.known.Load(); r != nil && n < maxKnown; r = r.next {
		last.next = &known{by: r.by, caller: r.caller}
		last, n = last.next, n+1
	}
	c.known.Store(first) // one that another put there meanwhile is resolved again
}

// resolve asks the realm. Nothing of the answer points into the configuration, so
// that a key that is not used for long does not keep an old one.
func (u *keyUser) resolve(c *credential) (*exchange.Caller, error) {
	if !u.realm.owns(c) {
		if u.realm.engine.directory.behind.Load() {
			return nil, away(errBehind)
		}
		return nil, refuse(fmt.Errorf("the client %q that the key %s was made for is not there any more", c.client, c.id))
	}
	who, err := u.realm.caller(u.authenticator, u.join, identity{id: c.client, key: c.name})
	if err != nil && (who == nil || !u.lenient) {
		return nil, err
	}
	own := *who
	own.Plan = strings.Clone(own.Plan)
	own.Roles = cloneAll(own.Roles)
	own.Permissions = cloneAll(narrow(own.Permissions, c.permissions))
	if u.join && own.Authenticator == "" {
		own.ID = strings.Clone(own.ID)
	}
	return &own, nil
}

func cloneAll(list []string) []string {
	if list == nil {
		return nil
	}
	out := make([]string, len(list))
	for i := range list {
		out[i] = strings.Clone(list[i])
	}
	return out
}

// keyring is the keys that one configuration declares.
type keyring struct {
	own    *keyTable // those of the gateway's own shape that stand there in clear, by fingerprint
	others *keyTable // the others, by the digest of the whole key
	anyOwn bool      // own is not empty
	// hashed says that some are there as a hash, which may be of any shape.
	hashed bool
	ids    map[string]*credential
	holder keyUser // joined to the client, whatever an authenticator says
}

// declaredKeys is a keyring that is made when it is first asked for.
type declaredKeys struct {
	once sync.Once
	keys *keyring
}

// newKeyring makes the one of a realm, whose clients are known.
func newKeyring(r *realm) *keyring {
	k := &keyring{own: newKeyTable(), others: newKeyTable(), ids: map[string]*credential{}, holder: r.engine.directory.user(r, "", true)}
	var own, others []*credential
	for i := range r.file.Clients {
		client := &r.file.Clients[i]
		ids := DeclaredKeyIDs(client)
		for j := range client.Keys {
			key := &client.Keys[j]
			c := &credential{id: ids[j], client: client.ID, name: key.Name, permissions: key.Permissions}
			if key.ExpiresAt != nil {
				c.until = key.ExpiresAt.UnixNano()
			}
			text := []byte(key.Value.Reveal())
			if id, ok := apikey.Parse(text); ok && key.Hash == "" {
				c.public, c.digest = string(id), apikey.Fingerprint(text)
				own = append(own, c)
			} else {
				c.digest = key.Digest()
				k.hashed = k.hashed || key.Hash != ""
				others = append(others, c)
			}
			// Tokens hang on the key itself: another one of the same name is another key.
			c.bound = c.id + "~" + hex.EncodeToString(c.digest[:6])
			k.ids[c.id], k.ids[c.bound] = c, c
		}
	}
	k.own.replace(own)
	k.anyOwn = len(own) > 0
	k.others.replace(others)
	return k
}

// DeclaredKeyIDs are the ids of the keys that the configuration declares for a client:
// config:<client>/<name>, with the index for a key without a name or with that of one
// before it.
func DeclaredKeyIDs(c *config.Client) []string {
	ids := make([]string, 0, len(c.Keys))
	for i := range c.Keys {
		id := declaredPrefix + c.ID + "/" + c.Keys[i].Name
		if c.Keys[i].Name == "" || strings.Contains(id, "~") || slices.Contains(ids, id) {
			id = declaredPrefix + c.ID + "/" + strconv.Itoa(i)
		}
		ids = append(ids, id)
	}
	return ids
}

const declaredPrefix = "config:"

// match finds a key by its whole text. The error says why there is none, for the log.
func (k *keyring) match(d *Directory, key []byte) (*credential, error) {
	if len(key) > maxKey {
		return nil, errTooLong
	}
	if !apikey.IsOwn(key) {
		if c, found := k.find(d, key, false); found == 1 && c != nil {
			return c, nil
		}
		return nil, errUnknown
	}
	id, ok := apikey.Parse(key)
	if !ok {
		return nil, errChecksum
	}
	// The id is no secret, and so need not be compared in constant time. That of a key
	// that is declared by its hash is in the hash.
	if c, found := k.find(d, key, true); found == 1 && c != nil && (c.public == string(id) || c.public == "") {
		return c, nil
	}
	return nil, errUnknown
}

// find returns the key with this text, and 1; or some other, and 0. It takes the same
// time for all keys of one length and shape (see keyTable).
//
// A key of the gateway's own shape is looked for wherever there are some: among those
// of the admin API and of the configuration, always in all; when the configuration has
// hashes, also among those, which takes a second digest.
func (k *keyring) find(d *Directory, key []byte, own bool) (c *credential, found int) {
	if !own {
		sum := apikey.Digest(key)
		return k.others.find(&sum)
	}
	sum := apikey.Fingerprint(key)
	c, found = d.keys.find(&sum)
	if k.anyOwn {
		declared, is := k.own.find(&sum)
		c, found = [2]*credential{c, declared}[is&1], found|is // an index, because it is no branch
	}
	if k.hashed {
		sum = apikey.Digest(key)
		declared, is := k.others.find(&sum)
		c, found = [2]*credential{c, declared}[is&1], found|is
	}
	return c, found
}

// verify returns the key with this text, which works now: one that the configuration
// declares, or one of the admin API. The error is a refuse or an away. It takes the
// same time for all keys of one length and shape that there are not.
func (r *realm) verify(key []byte, now time.Time) (*credential, error) {
	return r.keyring().verify(r.engine.directory, key, now)
}

func (k *keyring) verify(d *Directory, key []byte, now time.Time) (*credential, error) {
	c, err := k.match(d, key)
	if err != nil {
		if err == errUnknown && apikey.IsOwn(key) && d.behind.Load() {
			return nil, away(errBehind)
		}
		return nil, refuse(err)
	}
	if at := now.UnixNano(); !c.works(at) {
		return nil, refuse(c.fault(at))
	}
	return c, nil
}

// live reports whether the key with this id may be used now: it is there, and not
// revoked, disabled or expired, and has a client. It takes no lock.
func (r *realm) live(id string) bool {
	c, ok := r.keyring().ids[id]
	if !ok {
		c, ok = r.engine.directory.ids.get(id)
	}
	return ok && c.works(r.engine.now().UnixNano()) && r.owns(c)
}

// owns reports whether the client of a key is there: declared, or the very one that was
// made through the admin API when the key was. It takes no lock.
func (r *realm) owns(c *credential) bool {
	_, declared := r.clients[c.client]
	return declared || r.engine.directory.owns(c)
}

// holder is the client that holds a key, with the plan, roles and permissions that
// it has here, those narrowed to the key's.
func (r *realm) holder(c *credential) (*exchange.Caller, error) {
	return r.keyring().holder.caller(c)
}

// keyring is the keys that the realm's configuration declares, made when it is first
// asked for.
func (r *realm) keyring() *keyring {
	r.declared.once.Do(func() { r.declared.keys = newKeyring(r) })
	return r.declared.keys
}
