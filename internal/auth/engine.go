package auth

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/store"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// Options are what an Engine is made with.
type Options struct {
	Log       *slog.Logger
	Telemetry *telemetry.Telemetry // nil: nothing is counted
	// Records is where clients, keys and tokens are kept; nil: Keep may bring it later.
	Records store.Records
	Dir     string           // what relative paths of the configuration are relative to
	Now     func() time.Time // nil: time.Now
	// Offline is for check and explain: nothing is fetched, and no file is written.
	Offline bool
}

// Engine is what outlives configurations of who calls. It is safe for use by many
// goroutines.
type Engine struct {
	log       *slog.Logger
	telemetry *telemetry.Telemetry
	dir       string
	offline   bool
	now       func() time.Time
	guard     guard
	directory *Directory
	keySets   keySets
	issuer    *Issuer

	mu     sync.Mutex
	closed bool
}

// New makes an engine. It must be closed.
func New(o Options) *Engine {
	e := &Engine{log: o.Log, telemetry: o.Telemetry, dir: o.Dir, now: o.Now, offline: o.Offline}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.now == nil {
		e.now = time.Now
	}
	e.directory = newDirectory(e.log, e.now)
	e.issuer = newIssuer(e)
	if o.Telemetry != nil {
		e.register(o.Telemetry)
	}
	if o.Records != nil {
		e.Keep(o.Records)
	}
	return e
}

// Keep gives the engine the place where clients, keys and tokens are kept, before
// the first configuration that needs it. Only the first call counts.
func (e *Engine) Keep(r store.Records) {
	r.Watch(func(keys []string) { // first: what changes while they are read must not be missed
		e.directory.changed(keys)
		e.issuer.changed(keys)
	})
	e.directory.keep(r)
	e.issuer.keep(r)
	e.guard.used.keep(r)
}

// Directory is the clients and keys that there are.
func (e *Engine) Directory() *Directory { return e.directory }

// Specs are the filters of who may call, in the order in which they stand within
// their phases.
func (e *Engine) Specs() []policy.Spec {
	return []policy.Spec{
		{Name: "tokens", Phase: policy.Authenticate, Body: policy.WholeBody, Waits: time.Second, New: e.newTokens},
		{Name: "auth", Phase: policy.Authenticate, Waits: 10 * time.Second, New: e.newAuthenticate},
		IP,
		{Name: "resource_policy", Phase: policy.Access, New: e.newResourcePolicy},
		{Name: "authorize", Phase: policy.Access, New: e.newAuthorize},
	}
}

// Close ends what runs beside requests. Nothing may be decided any more.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	return errors.Join(e.directory.close(ctx), e.issuer.close(ctx), e.keySets.close())
}
