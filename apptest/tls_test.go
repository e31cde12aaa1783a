package apptest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/gatetest"
)

const tlsConfig = `
listeners:
  - name: secure
    address: "@SECURE@"
    tls:
      certificates:
        - {cert: tls/default.crt, key: tls/default.key}
        - {cert: tls/exact.crt, key: tls/exact.key}
        - {cert: tls/wildcard.crt, key: tls/wildcard.key}
admin: {address: "@ADMIN@"}
upstreams: {o: {targets: ["http://@ORIGIN@"]}}
routes: [{name: all, path: "/{rest...}", upstream: o}]
`

func files(t testing.TB, ca *gatetest.CA, certs map[string][]string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for name, names := range certs {
		cert, key := ca.Issue(t, pkixName(name), names...)
		all["tls/"+name+".crt"], all["tls/"+name+".key"] = string(cert), string(key)
	}
	return all
}

// peerName is the common name of the certificate that a server shows for sni.
func peerName(addr string, roots *x509.CertPool, sni string) (string, error) {
	conf := &tls.Config{RootCAs: roots, ServerName: sni}
	if sni == "" {
		conf.InsecureSkipVerify = true // nothing to verify without a name
	}
	c, err := tls.Dial("tcp", addr, conf)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}

// TestCertificates shows the certificate that fits the name asked for, and the
// new ones when the files change.
func TestCertificates(t *testing.T) {
	t.Parallel()
	ca := gatetest.NewCA(t, "apptest")
	e := newEcho(t)
	names := map[string][]string{"default": {"default.test"}, "exact": {"exact.test", "a.wild.test"}, "wildcard": {"*.wild.test"}}
	g := start(t, setup{config: tlsConfig, vars: map[string]string{"ORIGIN": e.addr()}, files: files(t, ca, names)})
	addr := g.addr("SECURE")
	for sni, want := range map[string]string{
		"exact.test": "exact", "EXACT.test": "exact", "b.wild.test": "wildcard", "a.wild.test": "exact", "default.test": "default", "": "default",
	} {
		if got, err := peerName(addr, ca.Pool, sni); err != nil || got != want {
			t.Errorf("%q: certificate %q, %v, want %q", sni, got, err, want)
		}
	}
	// Neither a deeper name nor the bare domain is the wildcard's.
	for _, sni := range []string{"x.y.wild.test", "wild.test", "unknown.test"} {
		c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, ServerName: sni})
		if err != nil {
			t.Errorf("%s: %v", sni, err)
			continue
		}
		if got := c.ConnectionState().PeerCertificates[0].Subject.CommonName; got != "default" {
			t.Errorf("%s: certificate %q, want the default", sni, got)
		}
		c.Close()
	}

	client := gatetest.NewClient(gatetest.Drivers[1], addr, ca.Pool)
	defer client.CloseIdleConnections()
	client.TLSClientConfig.ServerName = "default.test"
	ask := func() (*gatetest.Reply, error) {
		return client.Do(context.Background(), gatetest.Message{Host: "default.test", Target: "/status/200"})
	}
	if r, err := ask(); err != nil || r.Status != 200 {
		t.Fatalf("%v, %v", r, err)
	}
	cert, key := ca.Issue(t, pkix.Name{CommonName: "renewed"}, "exact.test")
	gatetest.WriteFile(t, filepath.Join(g.dir, "tls/exact.key"), key)
	gatetest.WriteFile(t, filepath.Join(g.dir, "tls/exact.crt"), cert)
	eventually(t, 10*time.Second, func() error {
		got, err := peerName(addr, ca.Pool, "exact.test")
		if err == nil && got != "renewed" {
			err = fmt.Errorf("certificate %q, want renewed", got)
		}
		return err
	})
	if r, err := ask(); err != nil || r.Status != 200 {
		t.Errorf("on a connection from before: %v, %v", r, err)
	}
	// A certificate that does not fit its key keeps the old pair in use.
	write(t, filepath.Join(g.dir, "tls/exact.crt"), "not a certificate")
	eventually(t, 10*time.Second, func() error {
		if ok := g.metric("sluice_config_ok"); ok != 0 {
			return fmt.Errorf("sluice_config_ok is %v, want 0", ok)
		}
		return nil
	})
	if got, err := peerName(addr, ca.Pool, "exact.test"); err != nil || got != "renewed" {
		t.Errorf("with a broken file: certificate %q, %v", got, err)
	}
}

// TestProtocols agrees on protocol and version as clients of each age ask.
func TestProtocols(t *testing.T) {
	t.Parallel()
	ca := gatetest.NewCA(t, "apptest")
	e := newEcho(t)
	names := map[string][]string{"default": {"default.test"}, "exact": {"exact.test"}, "wildcard": {"*.wild.test"}}
	g := start(t, setup{config: tlsConfig, vars: map[string]string{"ORIGIN": e.addr()}, files: files(t, ca, names)})
	for _, c := range []struct {
		offer   []string
		version uint16
		want    string
	}{
		{nil, tls.VersionTLS13, ""},
		{[]string{"http/1.1"}, tls.VersionTLS13, "http/1.1"},
		{[]string{"h2", "http/1.1"}, tls.VersionTLS13, "h2"},
		{[]string{"h2"}, tls.VersionTLS12, "h2"},
		{[]string{"http/1.1"}, tls.VersionTLS12, "http/1.1"},
	} {
		conn, err := tls.Dial("tcp", g.addr("SECURE"), &tls.Config{RootCAs: ca.Pool, ServerName: "default.test", NextProtos: c.offer, MinVersion: c.version, MaxVersion: c.version})
		if err != nil {
			t.Errorf("%v over %s: %v", c.offer, tls.VersionName(c.version), err)
			continue
		}
		if got := conn.ConnectionState(); got.NegotiatedProtocol != c.want || got.Version != c.version {
			t.Errorf("%v over %s: got %q over %s, want %q", c.offer, tls.VersionName(c.version), got.NegotiatedProtocol, tls.VersionName(got.Version), c.want)
		}
		conn.Close()
	}
	if conn, err := tls.Dial("tcp", g.addr("SECURE"), &tls.Config{RootCAs: ca.Pool, ServerName: "default.test", MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		conn.Close()
		t.Error("TLS 1.1 was accepted")
	}
	if conn, err := tls.Dial("tcp", g.addr("SECURE"), &tls.Config{RootCAs: ca.Pool, ServerName: "default.test", NextProtos: []string{"spdy/3"}}); err == nil {
		conn.Close()
		t.Error("a client that speaks neither protocol was accepted (RFC 7301 §3.2)")
	}
}

// TestMutualTLS admits, asks for, or insists on client certificates.
func TestMutualTLS(t *testing.T) {
	t.Parallel()
	ca, partners, strangers := gatetest.NewCA(t, "apptest"), gatetest.NewCA(t, "partners"), gatetest.NewCA(t, "strangers")
	e := newEcho(t)
	all := files(t, ca, map[string][]string{"server": {"a.test"}})
	all["tls/partners.pem"] = string(partners.PEM)
	g := start(t, setup{
		config: `
listeners:
  - {name: none, address: "@NONE@", tls: {certificates: [{cert: tls/server.crt, key: tls/server.key}], client_ca: tls/partners.pem, client_auth: none}}
  - {name: optional, address: "@OPTIONAL@", tls: {certificates: [{cert: tls/server.crt, key: tls/server.key}], client_ca: tls/partners.pem, client_auth: optional}}
  - {name: required, address: "@REQUIRED@", tls: {certificates: [{cert: tls/server.crt, key: tls/server.key}], client_ca: tls/partners.pem, client_auth: required}}
admin: {address: "@ADMIN@"}
upstreams: {o: {targets: ["http://@ORIGIN@"]}}
routes: [{name: all, path: "/{rest...}", upstream: o}]
`,
		vars: map[string]string{"ORIGIN": e.addr()}, files: all,
	})
	partner := partners.Client(t, pkix.Name{CommonName: "acme", Organization: []string{"Acme Ltd"}})
	stranger := strangers.Client(t, pkix.Name{CommonName: "mallory"})
	for _, c := range []struct {
		listener string
		with     *tls.Certificate
		who      string
		admitted bool
	}{
		{"NONE", nil, "nobody", true},
		{"NONE", &partner, "a partner", true},
		{"OPTIONAL", nil, "nobody", true},
		{"OPTIONAL", &partner, "a partner", true},
		{"OPTIONAL", &stranger, "a stranger", false},
		{"REQUIRED", nil, "nobody", false},
		{"REQUIRED", &partner, "a partner", true},
		{"REQUIRED", &stranger, "a stranger", false},
	} {
		for _, d := range []gatetest.Driver{gatetest.Drivers[1], gatetest.Drivers[2]} {
			client := gatetest.NewClient(d, g.addr(c.listener), ca.Pool)
			if c.with != nil {
				// Sent even when the server's list of authorities does not name its issuer.
				client.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.with, nil }
			}
			name := fmt.Sprintf("%s-%s-%s", c.listener, c.who, d.Name)
			r, err := client.Do(deadline(t, 10*time.Second), gatetest.Message{Host: "a.test", Target: "/m", Header: fields("X-Case", name, "Client-Cert", ":Zm9yZ2Vk:")})
			client.CloseIdleConnections()
			if c.admitted != (err == nil && r.Status == http.StatusOK) {
				t.Errorf("%s: %v, %v, want admitted %v", name, r, err, c.admitted)
			}
			// The origin is told who was verified (RFC 9440), and only that.
			want := "null"
			if c.admitted && c.with != nil && c.listener != "NONE" {
				want = fmt.Sprintf(`[":%s:"]`, base64.StdEncoding.EncodeToString(c.with.Certificate[0]))
			}
			if c.admitted && err == nil {
				var got struct{ Header map[string]json.RawMessage }
				if err := json.Unmarshal([]byte(r.Body), &got); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				if cert := string(got.Header["Client-Cert"]); cert != want && (cert != "" || want != "null") {
					t.Errorf("%s: the origin got Client-Cert %s, want %s", name, cert, want)
				}
			}
			if !c.admitted && e.count(name) > 0 {
				t.Errorf("%s: the request reached the origin", name)
			}
		}
	}
}

// TestUpstreamTLS speaks TLS to origins that show, and ask for, certificates.
func TestUpstreamTLS(t *testing.T) {
	t.Parallel()
	ca, clients := gatetest.NewCA(t, "origins"), gatetest.NewCA(t, "clients")
	origin := tlsOrigin(t, ca, clients, "origin.internal")
	all := files(t, clients, map[string][]string{"gateway": nil})
	all["tls/origins.pem"] = string(ca.PEM)
	all["tls/clients.pem"] = string(clients.PEM)
	g := start(t, setup{
		config: `
listeners: [{name: plain, address: "@PLAIN@"}]
admin: {address: "@ADMIN@"}
upstreams:
  good: {targets: ["https://@ORIGIN@"], tls: {ca: tls/origins.pem, cert: tls/gateway.crt, key: tls/gateway.key, server_name: origin.internal}}
  other-ca: {targets: ["https://@ORIGIN@"], tls: {ca: tls/clients.pem, cert: tls/gateway.crt, key: tls/gateway.key, server_name: origin.internal}}
  other-name: {targets: ["https://@ORIGIN@"], tls: {ca: tls/origins.pem, cert: tls/gateway.crt, key: tls/gateway.key, server_name: other.internal}}
  no-cert: {targets: ["https://@ORIGIN@"], tls: {ca: tls/origins.pem, server_name: origin.internal}}
routes:
  - {name: good, path: /good, upstream: good}
  - {name: other-ca, path: /other-ca, upstream: other-ca}
  - {name: other-name, path: /other-name, upstream: other-name}
  - {name: no-cert, path: /no-cert, upstream: no-cert}
`,
		vars: map[string]string{"ORIGIN": origin}, files: all,
	})
	c := gatetest.NewClient(gatetest.Drivers[0], g.addr("PLAIN"), nil)
	defer c.CloseIdleConnections()
	for range 3 {
		r, err := c.Do(deadline(t, 10*time.Second), gatetest.Message{Method: "POST", Host: "a.test", Target: "/good", Body: "over TLS"})
		if err != nil {
			t.Fatal(err)
		}
		var got struct{ Client, SNI, Body string }
		if err := json.Unmarshal([]byte(r.Body), &got); err != nil || r.Status != 200 || got.Client != "gateway" || got.SNI != "origin.internal" || got.Body != "over TLS" {
			t.Errorf("%d %s, %v", r.Status, r.Body, err)
		}
	}
	for _, target := range []string{"/other-ca", "/other-name", "/no-cert"} {
		r, err := c.Do(deadline(t, 10*time.Second), gatetest.Message{Host: "a.test", Target: target})
		if err != nil {
			t.Errorf("%s: %v", target, err)
			continue
		}
		t.Run(target, func(t *testing.T) { problem(t, r, 502, "upstream_unavailable") })
	}
}

func tlsOrigin(t testing.TB, ca, clients *gatetest.CA, name string) string {
	t.Helper()
	cert, key := ca.Issue(t, pkixName(name), name)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: clients.Pool, ClientAuth: tls.RequireAndVerifyClientCert})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		ErrorLog: quiet(),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			_ = json.NewEncoder(w).Encode(map[string]string{"Client": r.TLS.PeerCertificates[0].Subject.CommonName, "SNI": r.TLS.ServerName, "Body": string(body)})
		}),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(ln)
	}()
	t.Cleanup(func() { server.Close(); <-done })
	return ln.Addr().String()
}
