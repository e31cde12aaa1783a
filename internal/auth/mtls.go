package auth

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/url"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth/verdict"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// mtlsAuth takes the identity from the certificate that the client showed in the TLS
// handshake, which the listener verified there. A certificate is read once and kept
// under its DER; on a connection that outlives it, it is refused.
type mtlsAuth struct {
	realm *realm
	name  string
	c     *config.Authenticator
	who   func(*x509.Certificate) []string
	known *verdict.Cache[*certificate]
}

// certificate is one that was read.
type certificate struct {
	is            *resolved
	begins, until int64 // Unix ns
}

const (
	certificatesKept = 1024
	maxClientCert    = 16 << 10 // bytes of DER; longer ones are read each time
	mtlsChallenge    = "Certificate"
)

// certificateNames are what `client` may be: the names of that kind that a
// certificate has.
var certificateNames = map[string]func(*x509.Certificate) []string{
	"subject.cn":  commonNames,
	"subject.dn":  func(c *x509.Certificate) []string { return []string{c.Subject.String()} },
	"san.dns":     func(c *x509.Certificate) []string { return c.DNSNames },
	"san.uri":     func(c *x509.Certificate) []string { return uris(c.URIs) },
	"san.email":   func(c *x509.Certificate) []string { return c.EmailAddresses },
	"fingerprint": func(c *x509.Certificate) []string { return []string{fingerprint(c.Raw)} },
}

func newMTLSAuth(r *realm, name string, c *config.Authenticator) (authenticator, error) {
	who, ok := certificateNames[c.MTLS.Client]
	if !ok {
		return nil, fmt.Errorf("%q is no part of a certificate, write subject.cn, subject.dn, san.dns, san.uri, san.email or fingerprint", c.MTLS.Client)
	}
	return &mtlsAuth{realm: r, name: name, c: c, who: who, known: verdict.New[*certificate](certificatesKept, maxClientCert)}, nil
}

func (a *mtlsAuth) find(x *exchange.Exchange) []byte {
	if x.Conn == nil || x.Conn.TLS == nil || len(x.Conn.TLS.Client) == 0 {
		return nil
	}
	return x.Conn.TLS.Client
}

var errOutdated = errors.New("the certificate is not valid at this time")

func (a *mtlsAuth) check(_ *exchange.Exchange, der []byte, dry bool) (*exchange.Caller, error) {
	now := a.realm.engine.now().UnixNano()
	known, ok := a.known.Get(der, now)
	if !ok {
		var err error
		if known, err = a.read(der); err != nil {
			return nil, refuse(err)
		}
		if !dry {
			a.known.Put(der, known, math.MaxInt64)
		}
	}
	if now < known.begins || now >= known.until {
		return nil, refuse(errOutdated)
	}
	return known.is.caller(now)
}

// read finds whose a certificate is. One that has the part twice, or not at all, is
// nobody's: which of its names was meant would be a guess.
func (a *mtlsAuth) read(der []byte) (*certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	names := a.who(c)
	switch {
	case len(names) != 1:
		return nil, fmt.Errorf("the certificate %s has %d times a %s, it must have one", fingerprint(der), len(names), a.c.MTLS.Client)
	case names[0] == "" || !plainText([]byte(names[0])):
		return nil, fmt.Errorf("the certificate %s has a %s that is empty, is not UTF-8 or has control characters", fingerprint(der), a.c.MTLS.Client)
	}
	who := identity{id: names[0], claims: map[string]any{"certificate": certificateClaims(c)}}
	return &certificate{
		is: a.realm.resolve(a.name, a.c, who), begins: nanoseconds(c.NotBefore),
		until: nanoseconds(c.NotAfter.Add(time.Second)), // RFC 5280 §4.1.2.5: valid through notAfter
	}, nil
}

// nanoseconds is t in Unix ns, as far as that reaches: years 1678 to 2262.
func nanoseconds(t time.Time) int64 {
	switch s := t.Unix(); {
	case s >= math.MaxInt64/int64(time.Second):
		return math.MaxInt64
	case s <= math.MinInt64/int64(time.Second):
		return math.MinInt64
	}
	return t.UnixNano()
}

// certificateClaims is what conditions see of a certificate, as claims.certificate.
func certificateClaims(c *x509.Certificate) map[string]any {
	return map[string]any{
		"subject": c.Subject.String(), "issuer": c.Issuer.String(), "serial": c.SerialNumber.Text(16), "fingerprint": fingerprint(c.Raw),
		"dns": list(c.DNSNames), "uri": list(uris(c.URIs)), "email": list(c.EmailAddresses),
	}
}

// list is names as JSON would have them.
func list(names []string) []any {
	all := make([]any, 0, len(names))
	for _, n := range names {
		all = append(all, n)
	}
	return all
}

// commonNames are all of a subject; pkix.Name.CommonName would be the last of several.
func commonNames(c *x509.Certificate) (names []string) {
	for _, attribute := range c.Subject.Names {
		if attribute.Type.String() != "2.5.4.3" {
			continue
		}
		name, _ := attribute.Value.(string)
		names = append(names, name)
	}
	return names
}

func uris(all []*url.URL) (names []string) {
	for _, u := range all {
		names = append(names, u.String())
	}
	return names
}

// fingerprint is the SHA-256 of a certificate, in 64 lower hex digits.
func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// strip does nothing: the certificate belongs to the connection, and Client-Cert is
// the gateway's own.
func (a *mtlsAuth) strip(*exchange.Exchange) {}

func (a *mtlsAuth) scheme() string { return mtlsChallenge }
