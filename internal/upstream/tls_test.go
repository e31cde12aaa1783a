package upstream

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
)

// authority signs certificates for a test.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.cert, a.key = a.make(t, name, nil, true)
	a.write(t, "ca.pem", "CERTIFICATE", a.cert.Raw)
	return a
}

func (a *authority) make(t *testing.T, name string, ips []net.IP, ca bool) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		DNSNames: []string{name}, IPAddresses: ips,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: ca, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := a.cert, a.key
	if ca {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func (a *authority) write(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	b := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(filepath.Join(a.dir, file), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// issue writes name.pem and name.key, and returns the pair.
func (a *authority) issue(t *testing.T, name string, ips ...net.IP) tls.Certificate {
	t.Helper()
	cert, key := a.make(t, name, ips, false)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	a.write(t, name+".pem", "CERTIFICATE", cert.Raw)
	a.write(t, name+".key", "PRIVATE KEY", der)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// tlsOrigin speaks TLS and answers with what it saw.
func tlsOrigin(t *testing.T, c *tls.Config) *origin {
	t.Helper()
	return newOrigin(t, func(p *peer) {
		s := tls.Server(p.TCPConn, c)
		defer s.Close()
		r := bufio.NewReader(s)
		for {
			q, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			body, _ := io.ReadAll(q.Body)
			state := s.ConnectionState()
			client := "nobody"
			if len(state.PeerCertificates) > 0 {
				client = state.PeerCertificates[0].Subject.CommonName
			}
			text := fmt.Sprintf("%s %s %s %s %s", q.Host, state.ServerName, state.NegotiatedProtocol, client, body)
			if q.Header.Get("Upgrade") != "" {
				fmt.Fprint(s, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nearly")
				_, _ = io.Copy(s, r)
				fmt.Fprint(s, " bye")
				return
			}
			switch q.URL.Path {
			case "/events":
				fmt.Fprint(s, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
				for range 3 {
					quiet := time.NewTimer(120 * time.Millisecond)
					<-quiet.C
					fmt.Fprint(s, "5\r\nevent\r\n")
				}
				fmt.Fprint(s, "0\r\n\r\n")
				continue
			case "/unclean":
				fmt.Fprintf(s, "HTTP/1.1 200 OK\r\n\r\n%s", text)
				_ = p.Close()
				return
			case "/clean":
				fmt.Fprintf(s, "HTTP/1.1 200 OK\r\n\r\n%s", text)
				return
			}
			fmt.Fprintf(s, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
		}
	})
}

func TestTLS(t *testing.T) {
	ca, strangers := newAuthority(t, "ca"), newAuthority(t, "strangers")
	server := &tls.Config{
		Certificates: []tls.Certificate{ca.issue(t, "users.internal", net.IPv4(127, 0, 0, 1))},
		ClientAuth:   tls.VerifyClientCertIfGiven, ClientCAs: ca.pool(), NextProtos: []string{"h2", "http/1.1"},
	}
	ca.issue(t, "gateway")
	strict := server.Clone()
	strict.ClientAuth = tls.RequireAndVerifyClientCert
	old := server.Clone()
	old.MaxVersion = tls.VersionTLS12
	for _, c := range []struct {
		name   string
		server *tls.Config
		host   string
		tls    config.UpstreamTLS
		want   string
	}{
		{"by name", server, "users.internal", config.UpstreamTLS{CA: "ca.pem"}, "OK users.internal:PORT users.internal http/1.1 nobody abc"},
		{"TLS 1.2", old, "users.internal", config.UpstreamTLS{CA: "ca.pem"}, "OK users.internal:PORT users.internal http/1.1 nobody abc"},
		{"by address", server, "127.0.0.1", config.UpstreamTLS{CA: "ca.pem"}, "OK api.example.com  http/1.1 nobody abc"},
		{"with another name", server, "other.internal", config.UpstreamTLS{CA: "ca.pem", ServerName: "users.internal"}, "OK other.internal:PORT users.internal http/1.1 nobody abc"},
		{"with a certificate", strict, "users.internal", config.UpstreamTLS{CA: "ca.pem", Cert: "gateway.pem", Key: "gateway.key"}, "OK users.internal:PORT users.internal http/1.1 gateway abc"},
		{"a wrong name", server, "other.internal", config.UpstreamTLS{CA: "ca.pem"}, "upstream_unavailable Bad Gateway by upstream (tls_certificate_error)"},
		{"a stranger's certificate", server, "users.internal", config.UpstreamTLS{CA: filepath.Join(strangers.dir, "ca.pem")}, "upstream_unavailable Bad Gateway by upstream (tls_certificate_error)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := tlsOrigin(t, c.server)
			port := strconv.Itoa(int(o.addr.Port()))
			z := names{"users.internal": {netip.MustParseAddr("127.0.0.1")}, "other.internal": {netip.MustParseAddr("127.0.0.1")}}
			u := testUpstreamEnv(t, config.Upstream{TLS: c.tls, ConnectTimeout: duration(5 * time.Second)},
				Env{Resolver: z, Dir: ca.dir}, usualTimes(), "https://"+c.host+":"+port)
			for i := range 3 {
				x := withBody(newExchange("PUT", "/"), "abc")
				check(t, "result", result(u, x), strings.ReplaceAll(c.want, "PORT", port))
				check(t, "reused", x.Usage.Reused, i > 0 && strings.HasPrefix(c.want, "OK"))
			}
		})
	}
}

// A target may refuse our certificate, or its lack, only after the handshake.
func TestTLSAlert(t *testing.T) {
	ca := newAuthority(t, "ca")
	o := tlsOrigin(t, &tls.Config{
		Certificates: []tls.Certificate{ca.issue(t, "users.internal", net.IPv4(127, 0, 0, 1))},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: ca.pool(), MaxVersion: tls.VersionTLS12,
	})
	u := testUpstreamEnv(t, config.Upstream{TLS: config.UpstreamTLS{CA: "ca.pem"}, ConnectTimeout: duration(5 * time.Second)},
		Env{Dir: ca.dir}, usualTimes(), "https://"+o.addr.String())
	check(t, "result", result(u, newExchange("GET", "/")), "upstream_unavailable Bad Gateway by upstream (tls_alert_received)")
}

// What is not TLS at all.
func TestTLSToAPlainTarget(t *testing.T) {
	o := newOrigin(t, func(p *peer) {
		_, _ = p.r.ReadByte()
		p.send("HTTP/1.1 400 Bad Request\r\n\r\n")
		_, _ = io.Copy(io.Discard, p.r)
	})
	u := testUpstream(t, config.Upstream{ConnectTimeout: duration(5 * time.Second)}, "https://"+o.addr.String())
	check(t, "result", result(u, newExchange("GET", "/")), "upstream_unavailable Bad Gateway by upstream (tls_protocol_error)")
}

// A body that ends with the connection has ended only when TLS says so: otherwise
// somebody on the way may have cut it.
func TestTLSTruncation(t *testing.T) {
	ca := newAuthority(t, "ca")
	o := tlsOrigin(t, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "users.internal", net.IPv4(127, 0, 0, 1))}})
	u := testUpstreamEnv(t, config.Upstream{TLS: config.UpstreamTLS{CA: "ca.pem"}, ConnectTimeout: duration(5 * time.Second)},
		Env{Dir: ca.dir}, usualTimes(), "https://"+o.addr.String())
	check(t, "with a notice", result(u, newExchange("GET", "/clean")), "OK api.example.com   nobody ")
	check(t, "without", result(u, newExchange("GET", "/unclean")),
		"OK api.example.com   nobody  then bad_upstream_response Bad Gateway by upstream (http_response_incomplete)")
}

// Streams, cancellation and timeouts are the same over TLS.
func TestTLSWaits(t *testing.T) {
	ca := newAuthority(t, "ca")
	pair := ca.issue(t, "users.internal", net.IPv4(127, 0, 0, 1))
	came := make(chan struct{}, 10)
	o := newOrigin(t, func(p *peer) {
		s := tls.Server(p.TCPConn, &tls.Config{Certificates: []tls.Certificate{pair}})
		_, _ = s.Read(make([]byte, 4096))
		came <- struct{}{}
		_, _ = io.Copy(io.Discard, s)
	})
	u := testUpstreamEnv(t, config.Upstream{TLS: config.UpstreamTLS{CA: "ca.pem"}, ConnectTimeout: duration(5 * time.Second)},
		Env{Dir: ca.dir}, usualTimes(), "https://"+o.addr.String())
	x := newExchange("GET", "/")
	x.Deadline = time.Now().Add(time.Second)
	check(t, "late", result(u, x), "upstream_timeout Gateway Timeout by upstream (http_response_timeout)")
	<-came
	x = newExchange("GET", "/")
	go func() { <-came; x.Cancel() }()
	check(t, "gone", result(u, x), "client_gone  by client")
	open, _ := settled(t, u)
	check(t, "open", open, 0)
}

func TestTLSTunnel(t *testing.T) {
	ca := newAuthority(t, "ca")
	o := tlsOrigin(t, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "users.internal", net.IPv4(127, 0, 0, 1))}})
	u := testUpstreamEnv(t, config.Upstream{TLS: config.UpstreamTLS{CA: "ca.pem"}, ConnectTimeout: duration(5 * time.Second)},
		Env{Dir: ca.dir}, usualTimes(), "https://"+o.addr.String())
	x := newExchange("GET", "/")
	x.Request.Upgrade = []byte("x")
	if err := u.Do(x); err != nil {
		t.Fatal(err)
	}
	tun := x.Response.Tunnel
	_ = tun.SetDeadline(time.Now().Add(time.Minute))
	_, err := tun.Write([]byte(" echo"))
	check(t, "write", err, nil)
	_ = tun.CloseWrite()
	all, err := io.ReadAll(tun)
	check(t, "read", string(all), "early echo bye")
	check(t, "error", err, nil)
	_ = tun.Close()
}

// A silence longer than the timeout of a try breaks no stream, and no connection.
func TestTLSEvents(t *testing.T) {
	ca := newAuthority(t, "ca")
	o := tlsOrigin(t, &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "users.internal", net.IPv4(127, 0, 0, 1))}})
	u := testUpstreamEnv(t, config.Upstream{
		TLS: config.UpstreamTLS{CA: "ca.pem"}, ConnectTimeout: duration(5 * time.Second), Timeout: duration(100 * time.Millisecond),
	}, Env{Dir: ca.dir}, usualTimes(), "https://"+o.addr.String())
	for range 2 {
		check(t, "result", result(u, newExchange("GET", "/events")), "OK eventeventevent")
	}
	check(t, "connections", o.conns(), 1)
}

func TestTLSUploadIsExact(t *testing.T) {
	ca := newAuthority(t, "ca")
	pair := ca.issue(t, "users.internal", net.IPv4(127, 0, 0, 1))
	o := tlsOrigin(t, &tls.Config{Certificates: []tls.Certificate{pair}})
	u := testUpstreamEnv(t, config.Upstream{TLS: config.UpstreamTLS{CA: "ca.pem"}, ConnectTimeout: duration(5 * time.Second)},
		Env{Dir: ca.dir}, usualTimes(), "https://"+o.addr.String())
	big := strings.Repeat("0123456789", 20<<10)
	x := withStream(newExchange("PUT", "/"), streamOf(big, big), int64(2*len(big)))
	check(t, "result", result(u, x) == "OK api.example.com   nobody "+big+big, true)
	check(t, "close", x.Response.Close, false)
}
