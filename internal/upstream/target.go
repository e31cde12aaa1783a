package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
)

// target is one entry of `targets`: a URL that stands for one endpoint, or for as
// many as its name has addresses.
type target struct {
	url    string // as configured, without a password: a URL with one is refused
	host   string // the name, "" for an address
	port   uint16
	weight int
	base   []byte // path in front of every request's, without a slash at its end
	// authority is the Host of `host: target`; hostOf is the Host that is sent,
	// nil for the client's.
	authority []byte
	hostOf    []byte
	tls       *tls.Config // nil: plain text

	// What follows is guarded by the upstream's lock.
	addrs     []netip.Addr // in the order of the resolver
	looked    bool         // a look-up has ended, well or not
	looking   bool
	lookedAt  time.Time
	lookAgain bool  // a connection failed since the last look-up
	err       error // of the last look-up
}

// newTarget reads a target. host is the upstream's `host`.
func newTarget(t config.Target, host string, secure *tls.Config) (*target, error) {
	u, err := url.Parse(t.URL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("target %q is not a URL", t.URL)
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("target %q: the scheme is to be http or https", t.URL)
	case u.Hostname() == "":
		return nil, fmt.Errorf("target %q has no host", t.URL)
	case u.User != nil:
		return nil, fmt.Errorf("target on %q: a name and password do not belong into the URL", u.Host)
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, fmt.Errorf("target %q: only a path may follow the host", t.URL)
	}
	n := &target{
		url: t.URL, weight: t.Weight, port: 80,
		base: []byte(strings.TrimRight(u.EscapedPath(), "/")), authority: []byte(u.Host),
	}
	if u.Scheme == "https" {
		n.port = 443
		n.tls = secure.Clone()
		if n.tls.ServerName == "" {
			n.tls.ServerName = u.Hostname()
		}
	}
	if p := u.Port(); p != "" {
		port, err := strconv.ParseUint(p, 10, 16)
		if err != nil || port == 0 {
			return nil, fmt.Errorf("target %q: %q is not a port", t.URL, p)
		}
		n.port = uint16(port)
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		n.addrs, n.looked = []netip.Addr{a.Unmap()}, true
	} else {
		n.host = u.Hostname()
	}
	switch {
	case host == "client", host == "" && (n.tls == nil || n.host == ""):
	case host == "target", host == "":
		n.hostOf = n.authority
	default:
		n.hostOf = []byte(host)
	}
	return n, nil
}

// newTLS reads the TLS settings for https targets. Relative paths are relative to
// dir.
func newTLS(c config.UpstreamTLS, dir string) (*tls.Config, error) {
	t := &tls.Config{
		ServerName:         c.ServerName,
		NextProtos:         []string{"http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(64),
	}
	if c.CA != "" {
		pem, err := os.ReadFile(resolvePath(dir, c.CA))
		if err != nil {
			return nil, fmt.Errorf("tls.ca: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.ca: %s holds no PEM certificate", c.CA)
		}
	}
	if (c.Cert == "") != (c.Key == "") {
		return nil, errors.New("tls.cert and tls.key belong together")
	}
	if c.Cert != "" {
		pair, err := tls.LoadX509KeyPair(resolvePath(dir, c.Cert), resolvePath(dir, c.Key))
		if err != nil {
			return nil, fmt.Errorf("tls.cert: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

func resolvePath(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
