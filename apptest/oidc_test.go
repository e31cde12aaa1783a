package apptest

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const oidcConfig = `
listeners: [{name: plain, address: "@PLAIN@"}]
limits: {auth_failures: {rate: 1000000/s, burst: 1000000, per: [ip]}}
log: {access: {output: none}}
upstreams: {ok: {respond: {status: 200, body: ok}}}
authenticators:
  idp: {jwt: {issuer: "@ISSUER@", audience: [sid1], algorithms: [RS256, ES256], discovery: true}}
routes:
  - {path: /, auth: [idp], upstream: ok}
`

// keysCooldown is what lies between two fetches of keys that tokens cause.
const keysCooldown = 10 * time.Second

// provider is a running OpenID provider.
type provider struct {
	t      testing.TB
	cmd    *exec.Cmd
	issuer string // ends with a slash
	client *http.Client
}

// startProvider builds and runs the provider of the directory oidc until the test ends.
func startProvider(t testing.TB) *provider {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "oidc")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Dir = "oidc"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("the OpenID provider cannot be built: %v\n%s", err, out)
	}
	p := &provider{t: t, cmd: exec.Command(binary), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}, Timeout: 10 * time.Second}}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal("the OpenID provider says nothing: ", err)
	}
	p.issuer = strings.TrimSpace(line)
	return p
}

func (p *provider) stop() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	p.client.CloseIdleConnections()
}

// do sends one of the provider's test commands.
func (p *provider) do(method, name string) string {
	p.t.Helper()
	req, err := http.NewRequest(method, p.issuer+"test/"+name, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		p.t.Fatalf("%s %s: %d, %v", method, name, resp.StatusCode, err)
	}
	return string(body)
}

func (p *provider) fetches() int {
	p.t.Helper()
	n, err := strconv.Atoi(p.do("GET", "fetches"))
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// token gets a new access token for a client's credentials.
func (p *provider) token() (string, error) {
	resp, err := p.client.PostForm(p.issuer+"oauth/token", url.Values{
		"grant_type": {"client_credentials"}, "scope": {"openid"}, "client_id": {"sid1"}, "client_secret": {"verysecret"},
	})
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var reply struct {
		Token string `json:"access_token"`
	}
	err = json.NewDecoder(resp.Body).Decode(&reply)
	if err == nil && reply.Token == "" {
		err = fmt.Errorf("no token, status %d", resp.StatusCode)
	}
	return reply.Token, err
}

// present sends a token to a gateway.
func present(c *http.Client, g *gateway, token string) (status int, body string, err error) {
	req, err := http.NewRequest("GET", "http://"+g.addr("PLAIN")+"/", nil)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, instance.ReplaceAllString(string(b), ""), err
}

var instance = regexp.MustCompile(`"instance":\s*"[^"]*"`)

// withHeader is a token with another header, its signature as it was.
func withHeader(token, header string) string {
	_, rest, _ := strings.Cut(token, ".")
	return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + rest
}

// TestOpenIDProvider has a real provider issue tokens, change its keys under load, and
// go down.
func TestOpenIDProvider(t *testing.T) {
	p := startProvider(t)
	g := start(t, setup{config: oidcConfig, vars: map[string]string{"ISSUER": p.issuer}})
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 10 * time.Second}
	defer c.CloseIdleConnections()
	started := time.Now()

	token, err := p.token()
	if err != nil {
		t.Fatal(err)
	}
	expectStatus := func(name, token string, want int) (body string) {
		t.Helper()
		status, body, err := present(c, g, token)
		if err != nil || status != want {
			t.Errorf("%s: got %d, %v, want %d: %s", name, status, err, want, body)
		}
		return body
	}
	expectStatus("a token", token, 200)
	none := expectStatus("no token", "", 401)
	for name, hostile := range map[string]string{
		"alg none":            withHeader(token, `{"alg":"none","kid":"key-0"}`),
		"a header with jku":   withHeader(token, `{"alg":"RS256","kid":"key-0","jku":"https://evil.example"}`),
		"another algorithm":   withHeader(token, `{"alg":"PS256","kid":"key-0"}`),
		"a signature changed": token[:len(token)-8] + "AAAAAAAA",
		"padding":             token + "==",
		"an opaque token":     "opaque",
	} {
		if body := expectStatus(name, hostile, 401); body != none {
			t.Errorf("%s: the body is %s, without a token it is %s", name, body, none)
		}
	}

	t.Run("rotation", func(t *testing.T) { rotateUnderLoad(t, p, g, c, started) })
	t.Run("forged kids", func(t *testing.T) {
		begun, before := forgeUntilFetched(t, p, g, c, token)
		var wg sync.WaitGroup
		for w := range 16 {
			wg.Go(func() {
				for n := range 625 {
					status, body, err := present(c, g, withHeader(token, fmt.Sprintf(`{"alg":"RS256","kid":"forged-%d-%d"}`, w, n)))
					if err != nil || status != 401 {
						t.Errorf("got %d, %v: %s", status, err, body)
						return
					}
				}
			})
		}
		wg.Wait()
		took, fetches := time.Since(begun), p.fetches()-before
		if most := 1 + int(took/keysCooldown); fetches < 1 || fetches > most {
			t.Errorf("10,001 forged ids in %v cause %d fetches, want 1 to %d", took, fetches, most)
		}
		t.Logf("10,000 forged ids in %v: %d fetches", took.Round(time.Millisecond), fetches)
	})
	t.Run("down", func(t *testing.T) {
		seen, err := p.token()
		if err != nil {
			t.Fatal(err)
		}
		unseen, err := p.token()
		if err != nil {
			t.Fatal(err)
		}
		expectStatus("a token", seen, 200)
		p.stop()
		expectStatus("a token that was seen before", seen, 200)
		expectStatus("a token that was not", unseen, 200)
		forged := withHeader(unseen, `{"alg":"RS256","kid":"forged"}`)
		eventually(t, 20*time.Second, func() error {
			status, body, err := present(c, g, forged)
			if err == nil && (status != 503 || !strings.Contains(body, "dependency_unavailable")) {
				err = fmt.Errorf("an unknown kid is answered %d: %s", status, body)
			}
			return err
		})
		expectStatus("a token, after a fetch that failed", unseen, 200)
	})
}

// forgeUntilFetched shows tokens with forged ids until one causes a fetch: the cooldown
// of the fetch before is over then. It returns when that token was shown, and how many
// fetches there were before it.
func forgeUntilFetched(t *testing.T, p *provider, g *gateway, c *http.Client, token string) (begun time.Time, before int) {
	t.Helper()
	n := 0
	eventually(t, 2*keysCooldown, func() error {
		n++
		begun, before = time.Now(), p.fetches()
		status, body, err := present(c, g, withHeader(token, fmt.Sprintf(`{"alg":"RS256","kid":"first-%d"}`, n)))
		if err != nil || status != 401 {
			t.Fatalf("got %d, %v: %s", status, err, body)
		}
		if p.fetches() == before {
			return errors.New("no forged id causes a fetch")
		}
		return nil
	})
	return begun, before
}

// rotateUnderLoad changes the provider's keys, unannounced, while tokens are got and
// shown all the time. None may be refused.
func rotateUnderLoad(t *testing.T, p *provider, g *gateway, c *http.Client, started time.Time) {
	rotations := 2
	if *long {
		rotations = 20
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var shown, kids atomic.Int64
	var known sync.Map
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				token, err := p.token()
				if err != nil {
					t.Errorf("the provider gives no token: %v", err)
					return
				}
				head, _, _ := strings.Cut(token, ".")
				if _, old := known.LoadOrStore(head, true); !old {
					kids.Add(1)
				}
				for range 5 {
					status, body, err := present(c, g, token)
					if shown.Add(1); err != nil || status != 200 {
						t.Errorf("a valid token is answered %d, %v: %s", status, err, body)
						return
					}
				}
			}
		})
	}
	last := started
	for range rotations {
		// An unknown id causes no fetch before the cooldown of the latest is over, so the
		// provider keeps a key so long, and this client shows its token all the while.
		token, err := p.token()
		if err != nil {
			t.Fatal(err)
		}
		for time.Since(last) <= keysCooldown+time.Second {
			status, body, err := present(c, g, token)
			if shown.Add(1); err != nil || status != 200 {
				t.Fatalf("a valid token is answered %d, %v: %s", status, err, body)
			}
		}
		p.do("POST", "publish")
		p.do("POST", "sign")
		last = time.Now()
	}
	eventually(t, 20*time.Second, func() error {
		if n := kids.Load(); n != int64(rotations+1) {
			return fmt.Errorf("%d keys signed tokens, want %d", n, rotations+1)
		}
		return nil
	})
	close(stop)
	wg.Wait()
	t.Logf("%d tokens shown while %d keys signed, %d fetches", shown.Load(), kids.Load(), p.fetches())
}
