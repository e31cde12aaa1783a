// Package admin is the gateway's own HTTP API: what runs, why a request would go
// where, and the change of the configuration while it runs; and beside it the
// probes, the metrics and the profiler.
//
// # Who may
//
// With a token everything but the probes needs it. Without one the API answers
// on a loopback address only, and then the danger is the browser of somebody at
// the machine: a page from anywhere can make it send requests to 127.0.0.1, and
// with DNS rebinding also read the answers. So the Host must be a loopback name,
// nothing that tells of another origin may be there, and what changes something
// must be JSON or YAML, which a form cannot send (see guard).
//
// # What it changes
//
// PUT /v1/config replaces the running configuration or changes nothing (see
// configuration). The admin API's own addresses and token are read once, at the
// start.
//
// openapi.json describes the API; a test holds it and the endpoints here together.
package admin

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"github.com/sluice-gateway/sluice/internal/audit"
	"github.com/sluice-gateway/sluice/internal/auth"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/gateway"
	"github.com/sluice-gateway/sluice/internal/upstream"
)

// Gateway is what runs, to look at. Its methods are called from any goroutine.
type Gateway interface {
	// Ready reports whether the gateway takes requests: it has a configuration and
	// does not drain.
	Ready() bool
	Routes() []Route
	Upstreams() []upstream.Status
	// Explain says what would become of a request; its error is about the question.
	Explain(gateway.Question) (*gateway.Explanation, error)
}

// Configuration is what runs, as a document that can be replaced.
type Configuration interface {
	// Running is the configuration that runs now.
	Running() *config.File
	// Started is the configuration as it was last read from its file. What a PUT
	// refers to outside itself must be in there.
	Started() *config.File
	// Parse reads a document in the place of that file.
	Parse(text []byte) (*config.File, config.Diagnostics)
	// Apply makes f the running configuration, or changes nothing. An error among
	// the diagnostics says that f cannot run; ErrChanged that another one came first;
	// any other error is about writing the file.
	Apply(f *config.File, c Change) (config.Diagnostics, error)
}

// Change says how a configuration is to be applied.
type Change struct {
	// From is the configuration that f was made to replace: when another one runs,
	// Apply returns ErrChanged.
	From *config.File
	// DryRun finds everything that Apply would, and changes nothing.
	DryRun bool
	// Persist also replaces the text of the configuration's file, in one step, by
	// f.Source(). When that fails nothing changes.
	Persist bool
}

// ErrChanged says that the configuration to replace does not run any more.
var ErrChanged = errors.New("admin: another configuration runs")

// Route is one route that runs, and Share an upstream of it.
type (
	Route = gateway.RouteInfo
	Share = gateway.Share
)

// Options are what a Server is made with.
type Options struct {
	Config        config.Admin
	Gateway       Gateway
	Configuration Configuration
	Limits        Limits
	Cache         Cache           // nil: there is none
	Identities    *auth.Directory // clients and keys that are made here
	Metrics       http.Handler
	Audit         *audit.Log // nil: changes are not recorded
	Log           *slog.Logger
}

// Server is the admin API with its probes and metrics.
type Server struct {
	Options
	token     [sha256.Size]byte // of the bearer token; the zero value without one
	endpoints map[string][]endpoint
	version   version

	servers []*http.Server
	addrs   map[string]net.Addr
	serving sync.WaitGroup
}

// Bounds on a client of the admin API.
const (
	headTimeout  = 5 * time.Second
	readTimeout  = 60 * time.Second // of a body: a configuration of 10 MiB over a slow line
	writeTimeout = 30 * time.Second
	idleTimeout  = 60 * time.Second
	maxHead      = 32 << 10
	// maxConnections is for each address. A connection too many waits in the
	// kernel, so that nobody can make the gateway run out of files from here.
	maxConnections = 256
)

// New listens on the configured addresses and serves. The error names the
// address; then nothing is left open.
func New(o Options) (*Server, error) {
	s := &Server{Options: o, addrs: map[string]net.Addr{}}
	if t := o.Config.Token.Reveal(); t != "" {
		s.token = sha256.Sum256([]byte(t))
	}
	if s.Identities == nil {
		s.Identities = auth.New(auth.Options{}).Directory() // which has no place to keep anything
	}
	s.endpoints = s.table()
	s.audited()
	for _, l := range []struct {
		name, address string
		handler       http.Handler
	}{
		{"address", o.Config.Address, s.refusals(http.HandlerFunc(s.serve))},
		{"probes", o.Config.Probes, s.only("/healthz", "/readyz")},
		{"metrics", o.Config.Metrics, s.only("/metrics")},
	} {
		if l.address == "" {
			continue
		}
		if err := s.listen(l.name, l.address, l.handler); err != nil {
			_ = s.Close(context.Background()) // the address is what the caller can mend
			return nil, fmt.Errorf("admin.%s: %w", l.name, err)
		}
	}
	return s, nil
}

func (s *Server) listen(name, address string, h http.Handler) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	if name == "address" && !s.guarded() && !loopbackAddr(l.Addr()) {
		_ = l.Close()
		return fmt.Errorf("%s is not a loopback address, which needs admin.token", address)
	}
	s.addrs[name] = l.Addr()
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHead,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	s.servers = append(s.servers, srv)
	s.serving.Go(func() {
		if err := srv.Serve(netutil.LimitListener(l, maxConnections)); !errors.Is(err, http.ErrServerClosed) {
			s.Log.Error("the admin API has stopped", "address", address, "cause", err)
		}
	})
	return nil
}

// Addr is the address of the API, nil when it has none.
func (s *Server) Addr() net.Addr { return s.addrs["address"] }

// Addrs are the addresses in use, by their key in the configuration: address,
// probes, metrics.
func (s *Server) Addrs() map[string]net.Addr { return s.addrs }

// Close stops listening and lets requests at work finish as long as ctx allows.
func (s *Server) Close(ctx context.Context) error {
	var failed []error
	for _, srv := range s.servers {
		err := srv.Shutdown(ctx)
		if err != nil {
			err = errors.Join(err, srv.Close())
		}
		failed = append(failed, err)
	}
	s.serving.Wait()
	return errors.Join(failed...)
}

// guarded reports whether there is a token.
func (s *Server) guarded() bool { return s.token != [sha256.Size]byte{} }
