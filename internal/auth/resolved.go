package auth

import (
	"math"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// resolved is an identity that a credential was found to have, with the caller that
// it is here. Clients can change through the admin API, so that one which joins a
// client is looked up again every joinedFor; any other holds as long as its realm.
type resolved struct {
	realm *realm
	name  string // of the authenticator
	join  bool
	who   identity
	kept  atomic.Pointer[resolution]
}

type resolution struct {
	caller *exchange.Caller
	err    error
	until  int64 // Unix ns
}

const joinedFor = 500 * time.Millisecond

func (r *realm) resolve(name string, c *config.Authenticator, who identity) *resolved {
	return &resolved{realm: r, name: name, join: joins(c), who: who}
}

// caller returns who it is at now, Unix ns. It is shared by all requests.
func (k *resolved) caller(now int64) (*exchange.Caller, error) {
	if r := k.kept.Load(); r != nil && now < r.until {
		return r.caller, r.err
	}
	r := &resolution{until: math.MaxInt64}
	if k.join {
		r.until = now + int64(joinedFor)
	}
	r.caller, r.err = k.realm.caller(k.name, k.join, k.who)
	k.kept.Store(r)
	return r.caller, r.err
}

// readBeside reads a file that the configuration names, relative to its directory.
func readBeside(dir, name string) ([]byte, error) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	return os.ReadFile(name)
}
