package auth

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/bcrypt"

	"github.com/sluice-gateway/sluice/internal/auth/verdict"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
)

// basicAuth verifies a name and a password (RFC 7617) against bcrypt hashes.
//
// bcrypt is slow by design, and a client sends its password with every request. A
// password that was right is therefore remembered, under an HMAC of name and password
// whose key only this process has: what is kept can neither be read nor tried. A wrong
// one is never remembered and costs a bcrypt each time.
//
// For a name that there is not, a bcrypt is done too, against the hash of one of those
// that there are, always the same one for the same name. So an unknown name takes as
// long as a known one, whatever the costs of the hashes are.
//
// Half of the cores may be busy with it. Further requests wait for their turn, up to
// basicWaits; who does not get one is told to try again later.
type basicAuth struct {
	realm   *realm
	names   map[string]int
	users   []basicUser
	strips  bool
	seed    maphash.Seed // chooses the hash for a name that there is not
	mac     macKey
	right   *verdict.Cache[*resolved]
	turns   chan struct{}
	waiting atomic.Int64
}

type basicUser struct {
	hash []byte // of bcrypt, in its own format
	is   *resolved
}

const (
	maxBasicName     = 255 // bytes
	maxBasicPassword = 72  // bytes, what bcrypt looks at
	maxBasicText     = (maxBasicName + 1 + maxBasicPassword + 2) / 3 * 4
	basicKept        = 4096            // passwords that were right
	basicWaiting     = 256             // requests that may wait for their turn
	basicWaits       = 2 * time.Second // how long
	maxBcryptCost    = 15              // about two seconds of one core
	basicChallenge   = `Basic realm="sluice", charset="UTF-8"`
)

var (
	errBasicText     = errors.New("is not base64 of a name, a colon and a password")
	errBasicForm     = errors.New("has a name or password that is too long, is not UTF-8 or has control characters")
	errBasicPassword = errors.New("has an unknown name or a wrong password")
	errBasicBusy     = errors.New("too many passwords are being verified")
)

func newBasicAuth(r *realm, name string, c *config.Authenticator) (authenticator, error) {
	content, err := readBeside(r.engine.dir, c.Basic.Htpasswd)
	if err != nil {
		return nil, policy.At("basic.htpasswd", err)
	}
	a := &basicAuth{
		realm: r, names: map[string]int{}, strips: !forwards(c), seed: maphash.MakeSeed(), mac: newMACKey(),
		right: verdict.New[*resolved](basicKept, sha256.Size), turns: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
	}
	wrong := parseHtpasswd(content, func(user, hash string) bool {
		if _, twice := a.names[user]; twice {
			return false
		}
		a.names[user] = len(a.users)
		a.users = append(a.users, basicUser{hash: []byte(hash), is: r.resolve(name, c, identity{id: user})})
		return true
	})
	if len(wrong) == 0 && len(a.users) == 0 {
		wrong = append(wrong, errors.New("has no names, add one with htpasswd -B"))
	}
	if len(wrong) > 0 {
		for i := range wrong {
			wrong[i] = fmt.Errorf("%s %w", c.Basic.Htpasswd, wrong[i])
		}
		return nil, policy.At("basic.htpasswd", errors.Join(wrong...))
	}
	return a, nil
}

// maxWrongLines is how many wrong lines of one file are told.
const maxWrongLines = 20

// parseHtpasswd yields the names and hashes of a file that `htpasswd -B` wrote, one
// name:hash a line; empty lines and those that begin with # are passed over. yield
// returns false for a name that was there before. The errors name each wrong line, and
// never what it says.
func parseHtpasswd(content []byte, yield func(user, hash string) bool) (wrong []error) {
	n := 0
	for line := range strings.Lines(string(content)) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) == "" || line[0] == '#' {
			continue
		}
		if err := htpasswdLine(line, yield); err != nil {
			wrong = append(wrong, fmt.Errorf("line %d %w", n, err))
		}
		if len(wrong) == maxWrongLines {
			break
		}
	}
	return wrong
}

func htpasswdLine(line string, yield func(user, hash string) bool) error {
	user, hash, ok := strings.Cut(line, ":")
	switch {
	case !ok:
		return errors.New("is not name:hash")
	case user == "" || len(user) > maxBasicName || !plainText([]byte(user)):
		return fmt.Errorf("has no name, or one that is longer than %d bytes, is not UTF-8 or has control characters", maxBasicName)
	}
	if err := checkBcrypt(hash); err != nil {
		return err
	}
	if !yield(user, hash) {
		return errors.New("has a name that was there before, remove one of them")
	}
	return nil
}

// checkBcrypt says what is wrong with a hash.
func checkBcrypt(hash string) error {
	if len(hash) != 60 || hash[0] != '$' || hash[1] != '2' || !strings.Contains("aby", hash[2:3]) || hash[3] != '$' {
		return errors.New("has a hash that is not bcrypt, write it with htpasswd -B")
	}
	cost, err := bcrypt.Cost([]byte(hash))
	if err != nil || hash[6] != '$' || strings.Trim(hash[7:], "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") != "" {
		return errors.New("has a bcrypt hash that is damaged, write it anew with htpasswd -B")
	}
	if cost > maxBcryptCost {
		return fmt.Errorf("has a bcrypt hash of cost %d, which takes too long, write it with htpasswd -B -C 10, at most %d", cost, maxBcryptCost)
	}
	return nil
}

// plainText reports whether s is UTF-8 without control characters.
func plainText(s []byte) bool {
	for _, c := range s {
		if c < 0x20 || c == 0x7F {
			return false
		}
	}
	return utf8.Valid(s)
}

// find returns what stands behind the scheme. Of two fields none is meant: they are
// nobody's credential.
func (a *basicAuth) find(x *exchange.Exchange) []byte {
	h := &x.Request.Header
	value := h.GetID(exchange.Authorization)
	if value == nil {
		return nil
	}
	credential := credentialsOf(value, basicScheme)
	if credential == nil {
		return nil
	}
	fields := 0
	for i := range h.Len() {
		if h.At(i).ID == exchange.Authorization {
			fields++
		}
	}
	if fields > 1 {
		return several
	}
	return credential
}

// strictBase64 takes each text in one spelling only.
var strictBase64 = base64.StdEncoding.Strict()

func (a *basicAuth) check(x *exchange.Exchange, credential []byte, dry bool) (*exchange.Caller, error) {
	var room [maxBasicText / 4 * 3]byte
	if len(credential) > maxBasicText {
		return nil, refuse(errBasicForm)
	}
	n, err := strictBase64.Decode(room[:], credential)
	if err != nil {
		return nil, refuse(errBasicText)
	}
	pair := room[:n]
	colon := bytes.IndexByte(pair, ':')
	if colon < 0 {
		return nil, refuse(errBasicText)
	}
	user, password := pair[:colon], pair[colon+1:]
	if len(user) > maxBasicName || len(password) > maxBasicPassword || !plainText(user) || !plainText(password) {
		return nil, refuse(errBasicForm)
	}
	now := a.realm.engine.now().UnixNano()
	sum := a.mac.sum(pair)
	if is, ok := a.right.Get(sum[:], now); ok {
		return is.caller(now)
	}
	if dry {
		return a.verify(user, password, now)
	}
	if !a.turn(x) {
		return nil, away(errBasicBusy)
	}
	defer func() { <-a.turns }()
	if is, ok := a.right.Get(sum[:], now); ok { // another request with it was faster
		return is.caller(now)
	}
	caller, err := a.verify(user, password, now)
	if err == nil {
		a.right.Put(sum[:], a.users[a.names[string(user)]].is, math.MaxInt64)
	}
	return caller, err
}

// turn waits until this request may use a core; false: it may not.
func (a *basicAuth) turn(x *exchange.Exchange) bool {
	select {
	case a.turns <- struct{}{}:
		return true
	default:
	}
	if a.waiting.Add(1) > basicWaiting {
		a.waiting.Add(-1)
		return false
	}
	defer a.waiting.Add(-1)
	ctx, stop := x.Context()
	defer stop()
	ctx, end := context.WithTimeout(ctx, basicWaits)
	defer end()
	select {
	case a.turns <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// verify takes the same time whether there is such a name or not.
func (a *basicAuth) verify(user, password []byte, now int64) (*exchange.Caller, error) {
	i, known := a.names[string(user)]
	if !known {
		i = int(maphash.Bytes(a.seed, user) % uint64(len(a.users)))
	}
	if wrong := bcrypt.CompareHashAndPassword(a.users[i].hash, password); wrong != nil || !known {
		return nil, refuse(errBasicPassword)
	}
	return a.users[i].is.caller(now)
}

func (a *basicAuth) strip(x *exchange.Exchange) {
	if a.strips && a.find(x) != nil {
		x.Request.Header.DelID(exchange.Authorization)
	}
}

func (a *basicAuth) scheme() string { return basicChallenge }

// macKey is a random key of HMAC-SHA256 (RFC 2104), as its two pads.
type macKey struct{ inner, outer [sha256.BlockSize]byte }

func newMACKey() (k macKey) {
	_, _ = rand.Read(k.inner[:]) // never fails
	k.outer = k.inner
	for i := range k.inner {
		k.inner[i] ^= 0x36
		k.outer[i] ^= 0x5c
	}
	return k
}

// sum is the HMAC of a message of up to maxBasicText bytes. It allocates nothing.
func (k *macKey) sum(message []byte) [sha256.Size]byte {
	var room [sha256.BlockSize + maxBasicText]byte
	inner := sha256.Sum256(append(append(room[:0], k.inner[:]...), message...))
	return sha256.Sum256(append(append(room[:0], k.outer[:]...), inner[:]...))
}
