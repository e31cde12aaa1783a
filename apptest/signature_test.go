package apptest

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/gatetest"
	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
)

// newSigner is the key of acme, and the JWK Set with its public half.
func newSigner(t testing.TB) (jwks string, private ed25519.PrivateKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"acme","x":%q}]}`, base64.RawURLEncoding.EncodeToString(public)), private
}

// signedMessage is a POST of a body to /pay, signed now.
func signedMessage(key ed25519.PrivateKey, d gatetest.Driver, name, body string) gatetest.Message {
	sum := sha256.Sum256([]byte(body))
	digest := "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
	input := fmt.Sprintf(`("@method" "@target-uri" "content-digest" "x-case");created=%d;keyid="acme"`, time.Now().Unix())
	base := fmt.Sprintf("\"@method\": POST\n\"@target-uri\": %s://a.test/pay?x=%%20\n\"content-digest\": %s\n\"x-case\": %s\n\"@signature-params\": %s", d.Scheme(), digest, name, input)
	signature := base64.StdEncoding.EncodeToString(ed25519.Sign(key, []byte(base)))
	return gatetest.Message{
		Method: "POST", Host: "a.test", Target: "/pay?x=%20", Body: body,
		Header: fields("X-Case", name, "Content-Digest", digest, "Signature-Input", "s="+input, "Signature", "s=:"+signature+":"),
	}
}

// TestSignedRequests: over every protocol, a signed request passes once, and the
// origin never gets to see the end of a body that is not the signed one.
func TestSignedRequests(t *testing.T) {
	jwks, private := newSigner(t)
	var mu sync.Mutex
	whole := map[string]int{} // bodies that the origin read to their end
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			mu.Lock()
			whole[r.Header.Get("X-Case")]++
			mu.Unlock()
		}
	}))
	t.Cleanup(origin.Close)
	ca := gatetest.NewCA(t, "apptest")
	all := files(t, ca, map[string][]string{"server": {"a.test"}})
	all["partners.jwks"] = jwks
	g := start(t, setup{
		config: `
listeners:
  - {name: plain, address: "@PLAIN@"}
  - {name: secure, address: "@SECURE@", tls: {certificates: [{cert: tls/server.crt, key: tls/server.key}]}}
admin: {address: "@ADMIN@"}
limits: {auth_failures: {rate: 1000/s, burst: 1000}}
authenticators: {signed: {signature: {keys: partners.jwks}}}
upstreams: {o: {targets: ["http://@ORIGIN@"]}}
routes: [{name: pay, path: /pay, upstream: o, auth: [signed]}]
`,
		vars: map[string]string{"ORIGIN": strings.TrimPrefix(origin.URL, "http://")}, files: all,
	})
	begun := time.Now().Unix()
	eventually(t, 5*time.Second, func() error { // what was signed before the gateway began is refused
		if time.Now().Unix() == begun {
			return fmt.Errorf("the second has not passed")
		}
		return nil
	})
	for _, d := range gatetest.Drivers {
		addr := g.addr("PLAIN")
		if d.TLS {
			addr = g.addr("SECURE")
		}
		c := gatetest.NewClient(d, addr, ca.Pool)
		defer c.CloseIdleConnections()
		for _, size := range []int{10, 11, 100_000, 100_001, 1_000_000, 1_000_001} { // of odd sizes the length is not told
			for _, tampered := range []string{"as signed", "in the middle", "at the end"} {
				name := fmt.Sprintf("%s %d %s", d.Name, size, tampered)
				m := signedMessage(private, d, name, strings.Repeat("x", size))
				m.Unknown = size%2 == 1
				switch tampered {
				case "in the middle":
					m.Body = m.Body[:size/2] + "y" + m.Body[size/2+1:]
				case "at the end":
					m.Body = m.Body[:size-1] + "y"
				}
				c.CloseIdleConnections() // a body that was refused may have cost its connection
				want := http.StatusOK
				if tampered != "as signed" {
					want = http.StatusUnauthorized
				}
				r, err := c.Do(deadline(t, 20*time.Second), m)
				if err != nil || r.Status != want {
					t.Errorf("%s: %+v, %v, want %d", name, r, err, want)
				}
				if tampered == "as signed" {
					if r, err = c.Do(deadline(t, 20*time.Second), m); err != nil || r.Status != http.StatusUnauthorized {
						t.Errorf("%s again: %+v, %v", name, r, err)
					}
				}
				mu.Lock()
				got := whole[name]
				mu.Unlock()
				if (got == 1) != (tampered == "as signed") || got > 1 {
					t.Errorf("%s: the origin has read %d whole bodies", name, got)
				}
			}
		}
	}
}

// TestSignedRequestsPassOnceThroughAllGateways: what one of two gateways with one Redis
// has accepted, neither accepts again, not even behind a restart.
func TestSignedRequestsPassOnceThroughAllGateways(t *testing.T) {
	redis := redistest.Start(t)
	jwks, private := newSigner(t)
	config := setup{
		config: `
listeners: [{name: plain, address: "@PLAIN@"}]
admin: {address: "@ADMIN@"}
state: {redis: {addresses: @REDIS@, timeout: 2s}}
authenticators: {signed: {signature: {keys: partners.jwks}}}
upstreams: {o: {respond: {status: 200, body: paid}}}
routes: [{name: pay, path: /pay, upstream: o, auth: [signed]}]
`,
		vars: map[string]string{"REDIS": redisList(redis.Addr())}, files: map[string]string{"partners.jwks": jwks},
	}
	one, two := start(t, config), start(t, config)
	ask := func(g *gateway, m gatetest.Message) int {
		t.Helper()
		c := gatetest.NewClient(gatetest.Drivers[0], g.addr("PLAIN"), nil)
		defer c.CloseIdleConnections()
		r, err := c.Do(deadline(t, 20*time.Second), m)
		if err != nil {
			t.Fatal(err)
		}
		return r.Status
	}
	first := signedMessage(private, gatetest.Drivers[0], "first", "12")
	for i, g := range []*gateway{one, two, one} {
		want := http.StatusUnauthorized
		if i == 0 {
			want = http.StatusOK
		}
		if got := ask(g, first); got != want {
			t.Errorf("request %d: %d, want %d", i, got, want)
		}
	}
	three := start(t, config)
	if got := ask(three, first); got != http.StatusUnauthorized {
		t.Errorf("behind a restart: %d", got)
	}
	if got := ask(three, signedMessage(private, gatetest.Drivers[0], "second", "12")); got != http.StatusOK {
		t.Errorf("another: %d", got)
	}
	redis.Kill()
	if got := ask(three, signedMessage(private, gatetest.Drivers[0], "third", "12")); got != http.StatusServiceUnavailable {
		t.Errorf("without Redis: %d", got)
	}
}
