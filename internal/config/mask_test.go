package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestMaskHidesLiteralSecretsAndKeepsReferences(t *testing.T) {
	got, err := Mask([]byte(`
# token: commented-out-secret
admin: {token: literal-secret} # also: comment-secret
state:
  redis:
    addresses: [127.0.0.1:6379]
    password: "${REDIS_PASSWORD:-literal-secret}"
clients:
  - id: acme
    keys:
      - value: ${ACME_KEY}
      - value: prefix-literal-secret-${ACME_KEY}
      - {value: '${A}${file:b}'}
      - {value: "$${literal-secret}"}
      - value: |
          literal-secret
      - hash: sha256:00
authenticators:
  a: {jwt: {issuer: i, algorithms: [HS256], secret: "${JWT:-}"}}
  b: {introspection: {url: https://x, client_secret: literal-secret}}
tokens: {issuer: https://x, secret: ""}
upstreams:
  u:
    respond:
      headers: {Set-Cookie: "id=literal-secret", X-Mock: "1", X-Api-Token: "${T}"}
routes:
  - path: /
    upstream: u
    request: {headers: {set: {Authorization: Basic literal-secret, X-Client: "{client.id}"}, add: {x-my-secret: literal-secret}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := `admin: {token: "***"}
state:
  redis:
    addresses: [127.0.0.1:6379]
    password: "${REDIS_PASSWORD:-***}"
clients:
  - id: acme
    keys:
      - value: ${ACME_KEY}
      - value: "***"
      - {value: '${A}${file:b}'}
      - {value: "***"}
      - value: "***"
      - hash: sha256:00
authenticators:
  a: {jwt: {issuer: i, algorithms: [HS256], secret: "${JWT:-}"}}
  b: {introspection: {url: https://x, client_secret: "***"}}
tokens: {issuer: https://x, secret: ""}
upstreams:
  u:
    respond:
      headers: {Set-Cookie: "***", X-Mock: "1", X-Api-Token: "${T}"}
routes:
  - path: /
    request: {headers: {set: {Authorization: "***", X-Client: "{client.id}"}, add: {x-my-secret: "***"}}}
    upstream: u
`
	if string(got) != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	masks := Masks(got)
	for i, place := range []string{
		"admin.token", "state.redis.password", "clients[0].keys[1].value", "clients[0].keys[3].value", "clients[0].keys[4].value",
		"authenticators.b.introspection.client_secret", "upstreams.u.respond.headers.Set-Cookie",
		"routes[0].request.headers.set.Authorization", "routes[0].request.headers.add.x-my-secret",
	} {
		if i >= len(masks) || masks[i] != place {
			t.Fatalf("masks: %q, want %q at %d", masks, place, i)
		}
	}
}

func TestMaskSeesThroughAliasesAndMerges(t *testing.T) {
	for _, text := range []string{
		"clients: [{id: &x literal-secret}]\nadmin: {token: *x}\n",
		"admin: &a {token: literal-secret}\n",
		"clients:\n  - &c {id: a, keys: [{value: literal-secret}]}\n  - {<<: *c, id: b}\n  - {<<: [{keys: [{value: literal-secret}]}], id: c}\n",
		"admin: {<<: {token: literal-secret}}\n",
	} {
		got, err := Mask([]byte(text))
		if err != nil || strings.Contains(string(got), "literal-secret") {
			t.Errorf("%s became (%v)\n%s", text, err, got)
		}
	}
}

func TestMaskOfABrokenDocumentIsAnError(t *testing.T) {
	if got, err := Mask([]byte("admin: {token: literal-secret")); err == nil || got != nil || strings.Contains(err.Error(), "literal") {
		t.Errorf("%s, %v", got, err)
	}
}

func TestMasksAreFoundOnlyWhereASecretWas(t *testing.T) {
	got := Masks([]byte("a: '***'\nb: ['*** ', x***, \"${X:-***}\"]\n# ***\n'***': c\n"))
	if want := []string{"a", "b[2]"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Whatever is a secret for the decoder is one for Mask.
func FuzzMaskHidesEverySecret(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, src []byte) {
		if strings.Contains(string(src), "include") || strings.Contains(string(src), "${") {
			return
		}
		file, _ := Parse("fuzz.yaml", src, noFiles())
		masked, err := Mask(src)
		if file == nil || err != nil {
			return
		}
		again, _ := Parse("fuzz.yaml", masked, noFiles())
		if again == nil {
			t.Fatalf("%s became\n%s", src, masked)
		}
		for _, secret := range secretsOf(again) {
			if secret != "" && secret != mask && secret != fmt.Sprintf("value of %s", "SLUICE_ADMIN_TOKEN") {
				t.Errorf("%q is left of\n%s\nin\n%s", secret, src, masked)
			}
		}
	})
}

// secretsOf are the secrets that a file holds.
func secretsOf(f *File) []string {
	out := []string{f.Admin.Token.Reveal()}
	if f.State.Redis != nil {
		out = append(out, f.State.Redis.Password.Reveal())
	}
	if f.Tokens != nil {
		out = append(out, f.Tokens.Secret.Reveal())
	}
	for _, c := range f.Clients {
		for _, k := range c.Keys {
			out = append(out, k.Value.Reveal())
		}
	}
	for _, a := range f.Authenticators {
		if a != nil && a.JWT != nil {
			out = append(out, a.JWT.Secret.Reveal())
		}
		if a != nil && a.Introspection != nil {
			out = append(out, a.Introspection.ClientSecret.Reveal())
		}
	}
	return out
}
