// Package gateways knows the products that the bench compares: how each is built
// or installed, configured as an expert of it would, and started. All of them
// forward with kept-alive connections to the origin, write no access log, use as
// many workers as there are cores for them, and send X-Forwarded-For, -Proto and
// -Host.
package gateways

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/sluice-gateway/sluice/bench/internal/attribution"
)

// Setup is what a gateway is to do in one scenario.
type Setup struct {
	Dir    string // the gateway's own folder, absolute, empty
	Listen string // host:port to serve on
	Admin  string // host:port for its metrics, when it has any
	Cores  int    // workers

	Origin  string   // host:port to forward to
	Routes  []string // path prefixes to serve, each with a slash at both ends
	Answer  string   // not empty: what to answer itself, without the origin
	TLS     *Files   // nil: plain
	HTTP2   bool     // offer h2 besides HTTP/1.1; only with TLS
	MaxBody int64    // longest request body, bytes; 0: there is none
	Large   bool     // responses are longer than the usual buffers
	Limit   *Limit   // nil: none
	// Cache says to answer from memory what the origin lets caches store. What is stored is
	// the same for all callers.
	Cache bool
	// Profile says that the gateway, where it can, shall serve its CPU profile.
	Profile bool
}

// Limit is a rate limit for each value of a header field. What is above it is
// answered with 429.
type Limit struct {
	Field string // its name
	Rate  int    // requests per second of each value
	// Scope and Redis (host:port) are how Sluice shares the limit; the others count
	// by themselves whatever they say.
	Scope string // local, leased or exact
	Redis string // empty: none
	// Identity is who is counted: nil, whoever the field names; else those that it
	// knows, and others are answered with 401.
	Identity *Identity
}

// Identity is callers that have to be known.
type Identity struct {
	Keys []string // of the callers in turn, values of the limit's field
	// Tokens says that the callers have JSON Web Tokens in Authorization beside their
	// keys, of this issuer, for the audience bench, and signed with ES256; JWK is the
	// public key. Gateways that do not verify tokens look at the keys.
	Tokens bool
	Issuer string
	JWK    string
}

// Burst is how many requests may come at once: those of a second.
func (l *Limit) Burst() int { return l.Rate }

// Files are a certificate and its key, PEM.
type Files struct {
	Cert string
	Key  string
	Both string // one after the other in one file
}

// Command is how to start a configured gateway.
type Command struct {
	Path    string
	Args    []string
	Metrics string // host:port of Prometheus metrics with those of the Go runtime; empty: none
	Shares  bool   // shares its limit through the setup's Redis
	// Profile is where it serves its CPU profile as Go's net/http/pprof does; empty:
	// nowhere. Limiter is what of it limits.
	Profile string
	Limiter *attribution.Part
}

// Gateway is one product.
type Gateway interface {
	Name() string
	// Prepare installs or builds the product when it is not there and tells its version.
	Prepare(ctx context.Context, tools *Tools) (version string, err error)
	// Write puts the configuration into s.Dir and tells how to start it.
	Write(s *Setup) (Command, error)
	// Lacks says why the product cannot do this; empty: it can.
	Lacks(s *Setup) string
	// Notes are what a reader of the figures must know about the configuration.
	Notes() []string
}

// All are the gateways, Sluice first.
func All() []Gateway {
	return []Gateway{&sluice{}, &nginx{}, &haproxy{}, &varnish{}, &caddy{}}
}

// Tools builds and installs.
type Tools struct {
	Root string                           // of the repository
	Say  func(format string, args ...any) // progress

	updated bool
}

// Bin is where built programs are kept.
func (t *Tools) Bin() string { return filepath.Join(t.Root, "bench", "bin") }

// Need finds a program, and installs the Debian package that has it otherwise.
func (t *Tools) Need(ctx context.Context, program, pkg string) (string, error) {
	if path, err := find(program); err == nil {
		return path, nil
	}
	hint := fmt.Errorf("%s is not installed: apt-get install %s", program, pkg)
	if _, err := exec.LookPath("apt-get"); err != nil || os.Getuid() != 0 {
		return "", hint
	}
	t.Say("installing %s with apt-get", pkg)
	if !t.updated {
		if out, err := t.apt(ctx, "update", "-q"); err != nil {
			return "", fmt.Errorf("%w (apt-get update failed: %s)", hint, last(out))
		}
		t.updated = true
	}
	if out, err := t.apt(ctx, "install", "-q", "-y", "--no-install-recommends", pkg); err != nil {
		return "", fmt.Errorf("%w (it failed here: %s)", hint, last(out))
	}
	path, err := find(program)
	if err != nil {
		return "", hint
	}
	return path, nil
}

func (t *Tools) apt(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	// At run level 1 the packages' scripts start no service.
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
	return cmd.CombinedOutput()
}

// Build compiles a Go program of the tree to bench/bin/NAME.
func (t *Tools) Build(ctx context.Context, name, dir, pkg string) (string, error) {
	path := filepath.Join(t.Bin(), name)
	t.Say("building %s", name)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly -buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build %s: %w\n%s", name, err, out)
	}
	return path, nil
}

// find looks in PATH and where Debian keeps daemons, which is not in everybody's.
func find(program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	return exec.LookPath("/usr/sbin/" + program)
}

// output runs a program that only prints, standard error included.
func output(ctx context.Context, path string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", path, strings.Join(args, " "), err, last(out))
	}
	return strings.TrimSpace(string(out)), nil
}

// last is the last line that says something.
func last(out []byte) string {
	text := strings.TrimSpace(string(out))
	return text[strings.LastIndexByte(text, '\n')+1:]
}

//go:embed templates
var templates embed.FS

// render writes a template, filled in, to a file of the setup's folder.
func render(s *Setup, name string) (string, error) {
	text, err := templates.ReadFile("templates/" + name + ".tmpl")
	if err != nil {
		return "", err
	}
	t, err := template.New(name).Funcs(template.FuncMap{
		"root":   func() bool { return os.Getuid() == 0 },
		"quote":  func(s string) string { return strings.ReplaceAll(s, "'", `\'`) },
		"host":   func(addr string) string { return addr[:strings.LastIndexByte(addr, ':')] },
		"port":   func(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] },
		"lower":  func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") },
		"groups": func() []group { return groups(s.Routes) },
	}).Parse(string(text))
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, s); err != nil {
		return "", err
	}
	path := filepath.Join(s.Dir, name)
	return path, os.WriteFile(path, out.Bytes(), 0o644)
}

// group is the routes below one first segment. Products whose routes are tried
// in turn are given two levels of them.
type group struct {
	Prefix string
	Routes []string
}

// groups keeps the order of first mention.
func groups(routes []string) []group {
	var out []group
	at := map[string]int{}
	for _, r := range routes {
		prefix := r[:strings.IndexByte(r[1:], '/')+2]
		i, ok := at[prefix]
		if !ok {
			i = len(out)
			at[prefix] = i
			out = append(out, group{Prefix: prefix})
		}
		out[i].Routes = append(out[i].Routes, r)
	}
	return out
}
