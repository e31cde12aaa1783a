package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/server"
)

// ca issues certificates for a test.
type ca struct {
	pool *x509.CertPool
	pem  []byte
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA(t testing.TB) *ca {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))(t)
	a := &ca{pool: x509.NewCertPool(), cert: must(x509.ParseCertificate(der))(t), key: key}
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	a.pool.AddCert(a.cert)
	return a
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func serial(t testing.TB) *big.Int {
	return must(rand.Int(rand.Reader, big.NewInt(1<<62)))(t)
}

// issue makes a leaf with a common name, for DNS names.
func (a *ca) issue(t testing.TB, cn string, names ...string) (cert, key []byte) {
	t.Helper()
	k := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: cn, Organization: []string{"Test"}}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der := must(x509.CreateCertificate(rand.Reader, template, a.cert, k.Public(), a.key))(t)
	pkcs8 := must(x509.MarshalPKCS8PrivateKey(k))(t)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// files issues a leaf whose common name is also that of its files.
func (a *ca) files(t testing.TB, dir, name string, names ...string) config.Certificate {
	t.Helper()
	cert, key := a.issue(t, name, names...)
	c := config.Certificate{Cert: filepath.Join(dir, name+".crt"), Key: filepath.Join(dir, name+".key")}
	replace(t, c.Key, key)
	replace(t, c.Cert, cert)
	return c
}

func (a *ca) file(t testing.TB, dir string) string {
	path := filepath.Join(dir, "ca.pem")
	replace(t, path, a.pem)
	return path
}

// replace puts content at path in one step.
func replace(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path+".next", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".next", path); err != nil {
		t.Fatal(err)
	}
}

func startTLS(t testing.TB, h server.Handler, limits config.Limits, c *config.ListenerTLS) (*server.Server, string) {
	t.Helper()
	s, _ := start(t, h, limits)
	apply(t, s, limits, config.Listener{Name: "secure", Address: "127.0.0.1:0", TLS: c})
	return s, s.Addrs()["secure"].String()
}

// dialTLS connects for a name with a choice of protocols.
func dialTLS(t testing.TB, addr string, a *ca, name string, alpn ...string) *client {
	t.Helper()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", addr, &tls.Config{RootCAs: a.pool, ServerName: name, NextProtos: alpn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return wrap(t, c)
}

// shown is the common name of the certificate that is shown to who asks for name.
func shown(t testing.TB, addr, name string) string {
	t.Helper()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", addr, &tls.Config{InsecureSkipVerify: true, ServerName: name})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func TestHTTP1OverTLS(t *testing.T) {
	a, dir := newCA(t), t.TempDir()
	info := make(chan exchange.TLSInfo, 8)
	_, addr := startTLS(t, newFake(func(x *exchange.Exchange) {
		info <- *x.Conn.TLS
		if !x.Request.TLS {
			t.Error("the request is not marked")
		}
		echo(x)
	}), roomy(), &config.ListenerTLS{Certificates: []config.Certificate{a.files(t, dir, "one", "one.test")}})
	c := dialTLS(t, addr, a, "one.test", "http/1.1")
	big := strings.Repeat("x", 300_000)
	for _, body := range []string{"hello", big, "", "again"} {
		go c.send("POST / HTTP/1.1\r\nHost: one.test\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body)
		if got := c.response("POST"); got.Body != body {
			t.Fatalf("status %d, %d bytes, want %d", got.Status, len(got.Body), len(body))
		}
		got := <-info
		if got.Version != "TLS 1.3" || got.ServerName != "one.test" || got.ALPN != "http/1.1" || got.Client != nil || got.Cipher == "" {
			t.Errorf("info %+v", got)
		}
	}
}

func TestASmallBodyOverTLSIsReadyThoughItCameInRecordsOfItsOwn(t *testing.T) {
	a, dir := newCA(t), t.TempDir()
	ready := make(chan bool, 1)
	_, addr := startTLS(t, newFake(func(x *exchange.Exchange) {
		ready <- x.Request.Body.Ready()
		echo(x)
	}), roomy(), &config.ListenerTLS{Certificates: []config.Certificate{a.files(t, dir, "one", "one.test")}})
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	held := &holding{Conn: nc}
	tc := tls.Client(held, &tls.Config{RootCAs: a.pool, ServerName: "one.test"})
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	c := wrap(t, tc)
	for range 3 {
		held.hold = true
		c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
		c.send("hello")
		held.release()
		equal(t, <-ready, true)
		equal(t, c.response("POST").Body, "hello")
	}
}

// holding gathers writes.
type holding struct {
	net.Conn
	hold bool
	b    []byte
}

func (h *holding) Write(p []byte) (int, error) {
	if !h.hold {
		return h.Conn.Write(p)
	}
	h.b = append(h.b, p...)
	return len(p), nil
}

func (h *holding) release() {
	h.hold = false
	_, _ = h.Conn.Write(h.b)
	h.b = nil
}

func TestTheCertificateIsChosenByName(t *testing.T) {
	a, dir := newCA(t), t.TempDir()
	_, addr := startTLS(t, newFake(nil), roomy(), &config.ListenerTLS{Certificates: []config.Certificate{
		a.files(t, dir, "first", "first.test"),
		a.files(t, dir, "wild", "*.example.test"),
		a.files(t, dir, "exact", "api.example.test"),
	}})
	for name, want := range map[string]string{
		"first.test":          "first",
		"api.example.test":    "exact",
		"API.Example.TEST":    "exact",
		"other.example.test":  "wild",
		"a.b.example.test":    "first", // a wildcard is for one label
		"example.test":        "first",
		"unknown.test":        "first",
		"":                    "first",
		"api.example.test.":   "exact",
		"other.example.test.": "wild",
	} {
		if got := shown(t, addr, name); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

func TestCertificatesAreReloadedWhenTheirFilesChange(t *testing.T) {
	a, dir := newCA(t), t.TempDir()
	_, addr := startTLS(t, newFake(nil), roomy(), &config.ListenerTLS{Certificates: []config.Certificate{a.files(t, dir, "one", "one.test")}})
	kept := dialTLS(t, addr, a, "one.test")
	put := func(cn string) {
		cert, key := a.issue(t, cn, "one.test")
		replace(t, filepath.Join(dir, "one.key"), key)
		replace(t, filepath.Join(dir, "one.crt"), cert)
	}
	put("two")
	eventually(t, "the new certificate", func() bool { return shown(t, addr, "one.test") == "two" })

	// A bad one is not taken, and does not stop the next good one.
	replace(t, filepath.Join(dir, "one.crt"), []byte("garbage"))
	eventually(t, "the bad file to be looked at", func() bool { return shown(t, addr, "one.test") == "two" })
	put("three")
	eventually(t, "the certificate behind the bad one", func() bool { return shown(t, addr, "one.test") == "three" })

	// Connections go on.
	kept.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	equal(t, kept.response("GET").Status, 200)
}

func TestCertificatesBehindLinksAreReloadedWhenALinkIsTurned(t *testing.T) {
	a, dir := newCA(t), t.TempDir()
	// As Kubernetes mounts secrets: tls.crt → ..data/tls.crt, ..data → ..v1.
	for _, v := range []string{"v1", "v2"} {
		sub := filepath.Join(dir, ".."+v)
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		cert, key := a.issue(t, v, "one.test")
		replace(t, filepath.Join(sub, "tls.crt"), cert)
		replace(t, filepath.Join(sub, "tls.key"), key)
	}
	link := func(to, at string) {
		t.Helper()
		if err := os.Symlink(to, at+".next"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(at+".next", at); err != nil {
			t.Fatal(err)
		}
	}
	link("..v1", filepath.Join(dir, "..data"))
	link(filepath.Join("..data", "tls.crt"), filepath.Join(dir, "tls.crt"))
	link(filepath.Join("..data", "tls.key"), filepath.Join(dir, "tls.key"))
	_, addr := startTLS(t, newFake(nil), roomy(), &config.ListenerTLS{Certificates: []config.Certificate{
		{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")},
	}})
	equal(t, shown(t, addr, "one.test"), "v1")
	link("..v2", filepath.Join(dir, "..data"))
	eventually(t, "the certificate behind the turned link", func() bool { return shown(t, addr, "one.test") == "v2" })
}

func TestMutualTLS(t *testing.T) {
	a, other, dir := newCA(t), newCA(t), t.TempDir()
	server := a.files(t, dir, "one", "one.test")
	authority := a.file(t, dir)
	pair := func(by *ca) []tls.Certificate {
		cert, key := by.issue(t, "partner")
		return []tls.Certificate{must(tls.X509KeyPair(cert, key))(t)}
	}
	for _, c := range []struct {
		auth    string
		show    []tls.Certificate
		subject string // "-": refused
	}{
		{"", pair(a), "CN=partner,O=Test"}, // client_ca alone asks for one
		{"", nil, "-"},
		{"required", pair(a), "CN=partner,O=Test"},
		{"required", nil, "-"},
		{"required", pair(other), "-"},
		{"optional", pair(a), "CN=partner,O=Test"},
		{"optional", nil, ""},
		{"optional", pair(other), "-"},
		{"none", pair(a), ""},
	} {
		t.Run(c.auth, func(t *testing.T) {
			subject := make(chan string, 1)
			s, addr := startTLS(t, newFake(func(x *exchange.Exchange) {
				i := x.Conn.TLS
				if (i.Client == nil) != (i.Subject == "") || len(i.Chain) != 0 && i.Client == nil {
					t.Errorf("half a client: %+v", i)
				}
				subject <- i.Subject
				x.Answer(204, "", nil)
			}), roomy(), &config.ListenerTLS{Certificates: []config.Certificate{server}, ClientCA: authority, ClientAuth: c.auth})
			nc, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: a.pool, ServerName: "one.test", Certificates: c.show})
			if err == nil {
				defer nc.Close()
				cl := wrap(t, nc)
				_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
				_, err = cl.read("GET") // TLS 1.3 refuses behind the client's handshake
			}
			if c.subject == "-" {
				if err == nil {
					t.Error("admitted")
				}
				eventually(t, "the failure to be counted", func() bool { return s.Stats()[0].BadHandshakes == 1 })
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			equal(t, <-subject, c.subject)
		})
	}
}

func TestAHandshakeThatStallsIsCut(t *testing.T) {
	a, dir := newCA(t), t.TempDir()
	l := roomy()
	l.HeaderTimeout.Duration = 50 * time.Millisecond
	s, addr := startTLS(t, newFake(nil), l, &config.ListenerTLS{Certificates: []config.Certificate{a.files(t, dir, "one", "one.test")}})
	c := dial(t, addr)
	_, _ = io.Copy(io.Discard, c.r)
	eventually(t, "the failure to be counted", func() bool { return s.Stats()[0].BadHandshakes == 1 })
}

func TestSessionsResumeAfterAReload(t *testing.T) {
	a, dir := newCA(t), t.TempDir()
	secure := config.Listener{Name: "secure", Address: "127.0.0.1:0", TLS: &config.ListenerTLS{
		Certificates: []config.Certificate{a.files(t, dir, "one", "one.test")},
	}}
	s, _ := start(t, newFake(nil), roomy())
	apply(t, s, roomy(), secure)
	addr := s.Addrs()["secure"].String()
	cache := tls.NewLRUClientSessionCache(4)
	resumed := func() bool {
		c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: a.pool, ServerName: "one.test", ClientSessionCache: cache})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		cl := wrap(t, c)
		cl.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		equal(t, cl.response("GET").Status, 200)
		return c.ConnectionState().DidResume
	}
	equal(t, resumed(), false)
	equal(t, resumed(), true)
	l := roomy()
	l.MaxHeaderSize.Bytes = 16 << 10
	apply(t, s, l, secure)
	equal(t, s.Addrs()["secure"].String(), addr)
	equal(t, resumed(), true)
}
