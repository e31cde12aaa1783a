package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

func (c *checker) listeners() {
	f := c.f
	c.distinct(len(f.Listeners), func(i int) string { return f.Listeners[i].Name },
		func(i int) string {
			if at := fmt.Sprintf("listeners[%d].name", i); c.given(at) != nil {
				return at
			}
			return fmt.Sprintf("listeners[%d].address", i)
		}, "a listener")
	bound := c.bindings()
	for i, b := range bound {
		for _, before := range bound[:i] {
			if overlap(before.address, b.address) {
				c.report(b.at, "config.duplicate", "%s is taken already by %s at %s: choose another port", quote(b.address), before.at, c.where(before.at))
				break
			}
		}
	}
	for i := range f.Listeners {
		ln, at := &f.Listeners[i], fmt.Sprintf("listeners[%d]", i)
		if ln.Redirect != "" && ln.TLS != nil {
			c.report(at+".redirect", "config.conflict", "redirects to HTTPS on a listener that speaks it already: remove redirect or tls")
		}
		if ln.TLS != nil {
			c.listenerTLS(at+".tls", ln.TLS)
		}
	}
}

// binding is an address that will be listened on.
type binding struct{ at, address string }

// bindings are all addresses of the file, those of the admin API last.
func (c *checker) bindings() []binding {
	var out []binding
	for i := range c.f.Listeners {
		out = append(out, binding{fmt.Sprintf("listeners[%d].address", i), c.f.Listeners[i].Address})
	}
	a := &c.f.Admin
	return append(out, binding{"admin.address", a.Address}, binding{"admin.probes", a.Probes}, binding{"admin.metrics", a.Metrics})
}

// overlap reports whether two addresses cannot be listened on together.
func overlap(a, b string) bool {
	hostA, portA, okA := hostPortOf(a)
	hostB, portB, okB := hostPortOf(b)
	if !okA || !okB || portA != portB || portA == 0 {
		return false
	}
	return anyHost(hostA) || anyHost(hostB) || strings.EqualFold(hostA, hostB)
}

// anyHost reports whether a host stands for every interface.
func anyHost(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "" || err == nil && addr.IsUnspecified()
}

func (c *checker) listenerTLS(at string, t *ListenerTLS) {
	for i := range t.Certificates {
		here := fmt.Sprintf("%s.certificates[%d]", at, i)
		c.keyPair(here, t.Certificates[i].Cert, t.Certificates[i].Key)
	}
	if t.ClientCA != "" {
		c.authorities(at+".client_ca", t.ClientCA)
	}
	if t.ClientAuth != "none" && t.ClientCA == "" && c.given(at+".client_auth") != nil && c.given(at+".client_ca") == nil {
		c.report(at+".client_auth", "config.missing", "asks for client certificates, which needs client_ca: add the file of those who sign them")
	}
}

// keyPair checks that a certificate and its key can be read and fit together.
func (c *checker) keyPair(at, cert, key string) {
	certPEM, err1 := c.l.contentsOf(cert)
	keyPEM, err2 := c.l.contentsOf(key)
	if err1 != nil || err2 != nil {
		return // reported as they were decoded, or absent
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	switch {
	case err == nil:
		if leaf := pair.Leaf; leaf != nil && c.l.env.Now().After(leaf.NotAfter) {
			c.warn(at+".cert", "config.expired_certificate", "%s ran out on %s, renew it", c.subject(at+".cert", cert), leaf.NotAfter.Format("2006-01-02"))
		}
	case strings.Contains(err.Error(), "private key"), strings.Contains(err.Error(), "key input"):
		message := strings.TrimPrefix(err.Error(), "tls: ")
		if strings.Contains(message, "does not match") {
			message = "does not fit the certificate of " + c.subject(at+".cert", cert)
		}
		c.report(at+".key", "config.bad_certificate", "%s is not usable: %s", c.subject(at+".key", key), message)
	default:
		c.report(at+".cert", "config.bad_certificate", "%s is not usable: %s", c.subject(at+".cert", cert), strings.TrimPrefix(err.Error(), "tls: "))
	}
}

// authorities checks that a file holds certificates.
func (c *checker) authorities(at, file string) {
	pem, err := c.l.contentsOf(file)
	if err == nil && !x509.NewCertPool().AppendCertsFromPEM(pem) {
		c.report(at, "config.bad_certificate", "%s holds no certificate in PEM form", c.subject(at, file))
	}
}

var errNoFile = errors.New("no file")

// contentsOf are the contents of a file that was read before.
func (l *loader) contentsOf(path string) ([]byte, error) {
	if path == "" {
		return nil, errNoFile
	}
	return l.readFile(path)
}

func (c *checker) admin() {
	a := &c.f.Admin
	if host, _, ok := hostPortOf(a.Address); ok && !loopback(host) && a.Token.Empty() {
		c.report("admin.address", "config.admin_without_token", "%s can be reached from other machines, which needs a token: add token: ${SLUICE_ADMIN_TOKEN}, or listen on 127.0.0.1", c.subject("admin.address", a.Address))
	}
}

// clientTLS checks the TLS block of a store.
func (c *checker) clientTLS(at string, r *Redis) {
	if r != nil && r.TLS != nil {
		c.tlsFiles(at, r.TLS.CA, r.TLS.Cert, r.TLS.Key)
	}
}

// tlsFiles checks the files of a TLS client.
func (c *checker) tlsFiles(at, ca, cert, key string) {
	if ca != "" {
		c.authorities(at+".ca", ca)
	}
	switch {
	case cert != "" && key != "":
		c.keyPair(at, cert, key)
	case cert != "" && c.empty(at+".key"):
		c.report(at+".cert", "config.missing", "needs its key, add key: and the file")
	case key != "" && c.empty(at+".cert"):
		c.report(at+".key", "config.missing", "needs its certificate, add cert: and the file")
	}
}

// empty reports whether the document gives nothing at a path.
func (c *checker) empty(at string) bool {
	n := c.given(at)
	return n == nil || n.kind == scalarKind && n.text == ""
}
