package auth

import (
	"crypto/sha256"
	"net/http"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth/keyset"
	"github.com/sluice-gateway/sluice/internal/auth/verdict"
)

// keySets is the key sets of token issuers, by where they are. They outlive the
// configurations that use them.
type keySets struct {
	mu        sync.Mutex
	registry  *keyset.Registry
	transport http.RoundTripper // nil: the registry's own
	closed    bool

	// issuers has the `iss` of tokens that were verified, so that an authenticator need
	// not read a token to see that it is not for it.
	issuers *verdict.Cache[string]
	// certificates has the SHA-256 of client certificates.
	certificates *verdict.Cache[[sha256.Size]byte]
}

// settle is how long keys that no token asks for are not fetched: longer than it takes to
// try out a configuration (PUT with dry_run).
const settle = time.Second

// maxPrinted is the longest certificate whose fingerprint is kept, bytes of DER.
const maxPrinted = 8 << 10

// open makes what is missing and returns the registry.
func (k *keySets) open(e *Engine) *keyset.Registry {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.registry == nil {
		k.registry = keyset.New(keyset.Options{Log: e.log, Now: e.now, Offline: e.offline, Settle: settle, Transport: k.transport})
		k.issuers = verdict.New[string](maxVerdicts, maxVerdictKey)
		k.certificates = verdict.New[[sha256.Size]byte](1024, maxPrinted)
	}
	return k.registry
}

// close ends every fetch.
func (k *keySets) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.registry == nil || k.closed {
		return nil
	}
	k.closed = true
	return k.registry.Close()
}
