package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth"
	"github.com/sluice-gateway/sluice/internal/cache"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/limit"
	"github.com/sluice-gateway/sluice/internal/store"
	"github.com/sluice-gateway/sluice/internal/store/redis"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// state is what a node counts and remembers, beyond configurations: the limiter,
// who may call, and the response cache, and behind them the store that is shared with other gateways or the
// file that keeps quotas, clients, keys and tokens over a restart. What a configuration says of state holds from the
// start on; only the file is opened later, by the first configuration that needs
// it. It is used under the node's lock.
type state struct {
	limits *limit.Engine
	auth   *auth.Engine
	cache  *cache.Engine
	// attached says that the cache shares with other gateways.
	attached bool
	shared   *redis.Client // nil: without state.redis
	file     *store.File   // nil: nothing has needed it yet
	dir      string        // where the file is; empty: quotas are not kept
}

// openState opens what a first configuration needs. On an error nothing is open.
func openState(f *config.File, dir string, log *slog.Logger, t *telemetry.Telemetry) (*state, error) {
	s := &state{dir: f.State.Dir}
	o := limit.Options{Log: log, Telemetry: t}
	who := auth.Options{Log: log, Telemetry: t, Dir: dir}
	var err error
	switch {
	case f.State.Redis != nil:
		id := gatewayID()
		if s.shared, err = redis.Dial(redis.Options{Config: f.State.Redis, Gateway: id, Log: log}); err != nil {
			return nil, fmt.Errorf("state.redis: %w", err)
		}
		log.Info("state is shared", "gateway", id)
		o.Shared, who.Records = s.shared, s.shared
	case s.wants(f):
		if s.file, err = store.OpenFile(s.dir); err != nil {
			return nil, fmt.Errorf("state.dir: %w", err)
		}
		o.File, who.Records = s.file, s.file
	}
	s.limits, s.auth, s.cache = limit.New(o), auth.New(who), cache.New(cache.Options{Log: log, Telemetry: t})
	s.attach(f)
	if s.attached && f.Cache.Shared {
		// What other gateways have stored is there from the first request on.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s.cache.Await(ctx)
	}
	return s, nil
}

// attach has the cache share with other gateways, from the first configuration on that has
// a route with a cache.
func (s *state) attach(f *config.File) {
	if s.shared != nil && !s.attached && cache.Configured(f) {
		s.attached = true
		s.cache.Attach(s.shared.Cache())
	}
}

// gatewayID names this process among those that share a store.
func gatewayID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}

// wants reports whether f needs the file and it is not open yet: something counts
// or is remembered over a restart, and no shared store does it.
func (s *state) wants(f *config.File) bool {
	if s.shared != nil || s.file != nil || s.dir == "" {
		return false
	}
	for _, p := range f.Plans {
		if p.Quota != nil {
			return true
		}
	}
	for _, a := range f.Authenticators {
		if a.APIKey != nil || a.Issued != nil || a.Signature != nil {
			return true
		}
	}
	return f.Tokens != nil
}

// prepare opens the file when f is the first configuration to need it. The file
// stays open even if f does not come to run.
func (s *state) prepare(f *config.File) error {
	s.attach(f)
	if !s.wants(f) {
		return nil
	}
	file, err := store.OpenFile(s.dir)
	if err != nil {
		return err
	}
	if err := s.limits.Keep(file); err != nil {
		return errors.Join(err, file.Close())
	}
	s.auth.Keep(file)
	s.file = file
	return nil
}

// close gives leases back and writes quotas, as long as ctx allows. Nothing may be
// decided any more.
func (s *state) close(ctx context.Context) error {
	failed := []error{s.cache.Close(ctx), s.limits.Close(ctx), s.auth.Close(ctx)}
	if s.shared != nil {
		failed = append(failed, s.shared.Close(ctx))
	}
	if s.file != nil {
		failed = append(failed, s.file.Close())
	}
	return errors.Join(failed...)
}
