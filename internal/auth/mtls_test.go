package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// clientCertificate is a certificate in DER, valid around the time of authenticatorIn.
func clientCertificate(t testing.TB, change func(*x509.Certificate)) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spiffe, _ := url.Parse("spiffe://example.org/jobs")
	template := &x509.Certificate{
		SerialNumber: big.NewInt(0xbeef), Subject: pkix.Name{CommonName: "partner-1", Organization: []string{"Acme, Inc."}, Country: []string{"DE"}},
		DNSNames: []string{"partner.example.com"}, URIs: []*url.URL{spiffe}, EmailAddresses: []string{"ops@example.com"},
		NotBefore: time.Unix(1_699_999_000, 0), NotAfter: time.Unix(1_700_001_000, 0),
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func overTLS(der []byte) *exchange.Exchange {
	return &exchange.Exchange{Conn: &exchange.Conn{TLS: &exchange.TLSInfo{Client: der}}}
}

func mtlsOf(t testing.TB, client string) *mtlsAuth {
	t.Helper()
	a, err := authenticatorIn(t, "", &config.Authenticator{MTLS: &config.MTLSAuth{Client: client}})
	if err != nil {
		t.Fatal(err)
	}
	return a.(*mtlsAuth)
}

func TestMTLS(t *testing.T) {
	usual := clientCertificate(t, nil)
	names := func(n ...string) func(*x509.Certificate) { return func(c *x509.Certificate) { c.DNSNames = n } }
	for _, c := range []struct {
		client string
		der    []byte
		id     string // empty: refused
	}{
		{"subject.cn", usual, "partner-1"},
		{"subject.dn", usual, `CN=partner-1,O=Acme\, Inc.,C=DE`},
		{"san.dns", usual, "partner.example.com"},
		{"san.uri", usual, "spiffe://example.org/jobs"},
		{"san.email", usual, "ops@example.com"},
		{"fingerprint", usual, fingerprint(usual)},
		{"san.dns", clientCertificate(t, names("a.example.com", "b.example.com")), ""},
		{"san.dns", clientCertificate(t, names()), ""},
		{"subject.cn", clientCertificate(t, func(c *x509.Certificate) { c.Subject = pkix.Name{} }), ""},
		{"subject.cn", clientCertificate(t, func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "a\nb"} }), ""},
		{"subject.cn", clientCertificate(t, func(c *x509.Certificate) {
			cn := asn1.ObjectIdentifier{2, 5, 4, 3}
			c.Subject = pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: cn, Value: "admin"}, {Type: cn, Value: "guest"}}}
		}), ""},
		{"subject.cn", clientCertificate(t, func(c *x509.Certificate) { c.NotAfter = time.Unix(1_700_000_000, 0) }), "partner-1"}, // its last second
		{"subject.cn", clientCertificate(t, func(c *x509.Certificate) { c.NotAfter = time.Unix(1_699_999_999, 0) }), ""},
		{"subject.cn", clientCertificate(t, func(c *x509.Certificate) { c.NotBefore = time.Unix(1_700_000_000, 0) }), "partner-1"},
		{"subject.cn", clientCertificate(t, func(c *x509.Certificate) { c.NotBefore = time.Unix(1_700_000_001, 0) }), ""},
		{"subject.cn", clientCertificate(t, func(c *x509.Certificate) { c.NotAfter = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }), "partner-1"},
		{"subject.cn", []byte("no certificate"), ""},
	} {
		a, x := mtlsOf(t, c.client), overTLS(c.der)
		for range 2 { // read, and kept
			caller, err := a.check(x, a.find(x), false)
			if c.id == "" {
				if codeOf(err) != "unauthenticated" {
					t.Errorf("%s: %+v, %v", c.client, caller, err)
				}
				continue
			}
			if err != nil || caller.ID != c.id || caller.Authenticator != "a" {
				t.Errorf("%s: %+v, %v", c.client, caller, err)
			}
		}
	}
}

func TestMTLSShowsTheCertificateToConditions(t *testing.T) {
	der := clientCertificate(t, nil)
	a, x := mtlsOf(t, "subject.cn"), overTLS(der)
	caller, err := a.check(x, a.find(x), false)
	want := map[string]any{"certificate": map[string]any{
		"subject": `CN=partner-1,O=Acme\, Inc.,C=DE`, "issuer": `CN=partner-1,O=Acme\, Inc.,C=DE`, "serial": "beef", "fingerprint": fingerprint(der),
		"dns": []any{"partner.example.com"}, "uri": []any{"spiffe://example.org/jobs"}, "email": []any{"ops@example.com"},
	}}
	if err != nil || !reflect.DeepEqual(caller.Claims, want) {
		t.Errorf("%+v, %v", caller, err)
	}
}

func TestMTLSWithoutACertificate(t *testing.T) {
	a := mtlsOf(t, "subject.cn")
	for name, x := range map[string]*exchange.Exchange{"no connection": {}, "no TLS": {Conn: &exchange.Conn{}}, "no certificate": overTLS(nil)} {
		if a.find(x) != nil {
			t.Errorf("%s: found", name)
		}
	}
	if _, err := authenticatorIn(t, "", &config.Authenticator{MTLS: &config.MTLSAuth{Client: "subject.ou"}}); err == nil || !strings.Contains(err.Error(), "write subject.cn") {
		t.Errorf("%v", err)
	}
}

func TestMTLSKeptAllocatesNothing(t *testing.T) {
	a, x := mtlsOf(t, "subject.cn"), overTLS(clientCertificate(t, nil))
	if n := testing.AllocsPerRun(100, func() {
		if _, err := a.check(x, a.find(x), false); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkMTLSKept(b *testing.B) {
	a, x := mtlsOf(b, "subject.cn"), overTLS(clientCertificate(b, nil))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.check(x, a.find(x), false); err != nil {
			b.Fatal(err)
		}
	}
}
