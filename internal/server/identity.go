package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/internal/config"
)

// identity is what a listener shows and asks for in TLS handshakes. It is made
// from files, and made again when they change; connections that are open keep
// what they agreed on.
type identity struct {
	pairs []config.Certificate // absolute paths
	ca    string               // absolute path, or empty
	auth  tls.ClientAuthType

	mu      sync.Mutex // one load at a time
	last    []*tls.Certificate
	pool    *x509.CertPool
	current atomic.Pointer[tls.Config]
	said    string // the trouble that was logged last, so that it is logged once
}

// newIdentity loads what c names. Relative paths are relative to dir. All that
// is wrong is in the error.
func newIdentity(c *config.ListenerTLS, dir string) (*identity, error) {
	id := &identity{ca: within(dir, c.ClientCA)}
	for _, p := range c.Certificates {
		id.pairs = append(id.pairs, config.Certificate{Cert: within(dir, p.Cert), Key: within(dir, p.Key)})
	}
	switch {
	case len(id.pairs) == 0:
		return nil, errors.New("tls.certificates is empty: name at least one certificate")
	case c.ClientAuth == "required" || c.ClientAuth == "" && id.ca != "":
		id.auth = tls.RequireAndVerifyClientCert
	case c.ClientAuth == "optional":
		id.auth = tls.VerifyClientCertIfGiven
	}
	if id.auth != tls.NoClientCert && id.ca == "" {
		return nil, errors.New("tls.client_auth needs tls.client_ca: name the authorities that sign client certificates")
	}
	id.last = make([]*tls.Certificate, len(id.pairs))
	return id, id.load()
}

func within(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// load reads every file. What cannot be read stays as it was and is part of the
// error; what could be read is used.
func (id *identity) load() error {
	id.mu.Lock()
	defer id.mu.Unlock()
	var failed []error
	for i, p := range id.pairs {
		cert, err := loadPair(p)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		id.last[i] = cert
	}
	if id.auth != tls.NoClientCert {
		pool, err := loadPool(id.ca)
		if err != nil {
			failed = append(failed, err)
		} else {
			id.pool = pool
		}
	}
	ring := newKeyring(id.last)
	id.current.Store(&tls.Config{
		GetCertificate: ring.choose,
		ClientAuth:     id.auth,
		ClientCAs:      id.pool,
		NextProtos:     []string{"h2", "http/1.1"},
	})
	return errors.Join(failed...)
}

// reload loads again, and logs what went wrong if that is news.
func (id *identity) reload(log *slog.Logger) {
	said := ""
	if err := id.load(); err != nil {
		said = err.Error()
	}
	if said == id.said {
		return
	}
	id.said = said
	if said != "" {
		log.Error("a changed certificate cannot be used, the old one stays", "cause", said)
	} else {
		log.Info("certificates can be used again")
	}
}

// files are all files that the identity is made of.
func (id *identity) files() []string {
	var all []string
	for _, p := range id.pairs {
		all = append(all, p.Cert, p.Key)
	}
	if id.ca != "" {
		all = append(all, id.ca)
	}
	return all
}

func loadPair(p config.Certificate) (*tls.Certificate, error) {
	chain, err := os.ReadFile(p.Cert)
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(p.Key)
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("%s with %s: %w", p.Cert, p.Key, err)
	}
	return &cert, nil
}

func loadPool(path string) (*x509.CertPool, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s: no certificate in it, want PEM", path)
	}
	return pool, nil
}

// keyring chooses a certificate by the name that the client asks for (SNI, RFC
// 6066 §3): one with exactly that name, then one with a wildcard for its first
// label, else the first. Among several for a name, such as one with an RSA and
// one with an ECDSA key, it is the first that the client can verify.
type keyring struct {
	first  *tls.Certificate
	byName map[string][]*tls.Certificate // lower case; wildcards as "*.example.com"
}

func newKeyring(certs []*tls.Certificate) *keyring {
	r := &keyring{byName: map[string][]*tls.Certificate{}}
	for _, c := range certs {
		if c == nil {
			continue // it never loaded, which newIdentity has reported
		}
		if r.first == nil {
			r.first = c
		}
		names := c.Leaf.DNSNames
		if len(names) == 0 && c.Leaf.Subject.CommonName != "" {
			names = []string{c.Leaf.Subject.CommonName}
		}
		for _, n := range names {
			n = strings.ToLower(strings.TrimSuffix(n, "."))
			r.byName[n] = append(r.byName[n], c)
		}
	}
	return r
}

func (r *keyring) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	candidates := r.byName[name]
	if candidates == nil {
		if _, parent, ok := strings.Cut(name, "."); ok {
			candidates = r.byName["*."+parent]
		}
	}
	for _, c := range candidates {
		if hello.SupportsCertificate(c) == nil {
			return c, nil
		}
	}
	if len(candidates) > 0 {
		return candidates[0], nil
	}
	if r.first == nil {
		return nil, errors.New("server: no certificate")
	}
	return r.first, nil
}
