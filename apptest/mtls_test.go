package apptest

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/gatetest"
)

// TestCertificatesAreIdentities: a verified certificate says who calls, and one that
// names no client where it has to is refused.
func TestCertificatesAreIdentities(t *testing.T) {
	ca, partners := gatetest.NewCA(t, "apptest"), gatetest.NewCA(t, "partners")
	all := files(t, ca, map[string][]string{"server": {"a.test"}})
	all["tls/partners.pem"] = string(partners.PEM)
	g := start(t, setup{
		config: `
listeners: [{name: secure, address: "@SECURE@", tls: {certificates: [{cert: tls/server.crt, key: tls/server.key}], client_ca: tls/partners.pem, client_auth: optional}}]
admin: {address: "@ADMIN@"}
clients: [{id: acme}]
authenticators:
  anybody: {mtls: {client: subject.cn}}
  clients: {mtls: {client: subject.cn}, join: true}
upstreams: {o: {respond: {status: 200, body: seen}}}
routes:
  - {name: anybody, path: /anybody, upstream: o, auth: [anybody]}
  - {name: clients, path: /clients, upstream: o, auth: [clients]}
  - {name: acme, path: /acme, upstream: o, auth: [anybody], authorize: {when: "client.id == 'acme'"}}
`,
		files: all,
	})
	acme := partners.Client(t, pkix.Name{CommonName: "acme"})
	other := partners.Client(t, pkix.Name{CommonName: "other"})
	for _, c := range []struct {
		with *tls.Certificate
		path string
		want int
	}{
		{nil, "/anybody", http.StatusUnauthorized},
		{&acme, "/anybody", http.StatusOK},
		{&other, "/anybody", http.StatusOK},
		{nil, "/clients", http.StatusUnauthorized},
		{&acme, "/clients", http.StatusOK},
		{&other, "/clients", http.StatusUnauthorized},
		{nil, "/acme", http.StatusUnauthorized},
		{&acme, "/acme", http.StatusOK},
		{&other, "/acme", http.StatusForbidden},
	} {
		for _, d := range []gatetest.Driver{gatetest.Drivers[1], gatetest.Drivers[2]} {
			client := gatetest.NewClient(d, g.addr("SECURE"), ca.Pool)
			name := "nobody"
			if c.with != nil {
				client.TLSClientConfig.Certificates = []tls.Certificate{*c.with}
				name = fmt.Sprint(c.with == &acme)
			}
			r, err := client.Do(deadline(t, 10*time.Second), gatetest.Message{Host: "a.test", Target: c.path})
			client.CloseIdleConnections()
			if err != nil || r.Status != c.want || c.want == http.StatusUnauthorized && r.Header.Get("Www-Authenticate") != "Certificate" {
				t.Errorf("%s over %s, acme %s: %+v, %v, want %d", c.path, d.Name, name, r, err, c.want)
			}
		}
	}
}
