package auth

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// authenticatorIn makes an authenticator of an engine whose files are in a directory.
func authenticatorIn(t testing.TB, dir string, c *config.Authenticator) (authenticator, error) {
	t.Helper()
	e := New(Options{Dir: dir, Now: func() time.Time { return time.Unix(1_700_000_000, 0) }})
	t.Cleanup(func() { _ = e.Close(t.Context()) })
	return e.newAuthenticator(e.newRealm(&config.File{Clients: []config.Client{{ID: "known", Plan: "p"}}, Plans: map[string]*config.Plan{"p": {}}}), "a", c)
}

// bcryptOf is a hash as htpasswd writes it, of the least cost.
func bcryptOf(t testing.TB, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return "$2y$" + string(hash[4:])
}

func basicOf(t testing.TB, c config.Authenticator, lines ...string) (*basicAuth, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ops.htpasswd"), []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Basic = &config.BasicAuth{Htpasswd: "ops.htpasswd"}
	a, err := authenticatorIn(t, dir, &c)
	if err != nil {
		return nil, err
	}
	return a.(*basicAuth), nil
}

func withAuthorization(value string) *exchange.Exchange {
	x := &exchange.Exchange{}
	x.Request.Header.AddID(exchange.Authorization, []byte(value))
	return x
}

func basicText(pair string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(pair)) }

// codeOf is the code of a refusal; empty: there is none.
func codeOf(err error) string {
	if e, ok := errors.AsType[*exchange.Error](err); ok {
		return e.Code.String()
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func TestBasic(t *testing.T) {
	long := strings.Repeat("x", 72)
	a, err := basicOf(t, config.Authenticator{}, "# people", "ops:"+bcryptOf(t, "right"), "", "empty:"+bcryptOf(t, ""), "colon:"+bcryptOf(t, "a:b"),
		"jürgen:"+bcryptOf(t, "paßwort"), "long:"+bcryptOf(t, long), "ops2:"+strings.Replace(bcryptOf(t, "right"), "$2y$", "$2b$", 1)+"\r")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ value, id, code string }{
		{basicText("ops:right"), "ops", ""},
		{basicText("ops:right"), "ops", ""}, // remembered
		{strings.Replace(basicText("ops:right"), "Basic", "bASIC", 1), "ops", ""},
		{strings.Replace(basicText("ops:right"), " ", "   ", 1), "ops", ""},
		{basicText("ops2:right"), "ops2", ""},
		{basicText("empty:"), "empty", ""},
		{basicText("colon:a:b"), "colon", ""},
		{basicText("jürgen:paßwort"), "jürgen", ""},
		{basicText("long:" + long), "long", ""},
		{basicText("long:" + long + "x"), "", "unauthenticated"},
		{basicText("ops:wrong"), "", "unauthenticated"},
		{basicText("ops:"), "", "unauthenticated"},
		{basicText("ops:right\x00"), "", "unauthenticated"},
		{basicText("ops:right "), "", "unauthenticated"},
		{basicText("Ops:right"), "", "unauthenticated"},
		{basicText("nobody:right"), "", "unauthenticated"},
		{basicText(":right"), "", "unauthenticated"},
		{basicText("ops"), "", "unauthenticated"},
		{basicText("j\xfcrgen:pa\xdfwort"), "", "unauthenticated"},
		{basicText("ops:ri\nght"), "", "unauthenticated"},
		{basicText(strings.Repeat("u", 256) + ":right"), "", "unauthenticated"},
		{basicText(strings.Repeat("u", 4096) + ":right"), "", "unauthenticated"},
		{"Basic !!!!", "", "unauthenticated"},
		{"Basic " + strings.TrimRight(base64.StdEncoding.EncodeToString([]byte("ops:right")), "="), "ops", ""}, // nine bytes need none
		{"Basic " + strings.TrimRight(base64.StdEncoding.EncodeToString([]byte("ops2:right")), "="), "", "unauthenticated"},
		{basicText("ops:right") + " ", "", "unauthenticated"},
	} {
		x := withAuthorization(c.value)
		credential := a.find(x)
		if credential == nil {
			t.Errorf("%q is not found", c.value)
			continue
		}
		caller, err := a.check(x, credential, false)
		if codeOf(err) != c.code || err == nil && (caller.ID != c.id || caller.Authenticator != "a") {
			t.Errorf("%q: %+v, %v", c.value, caller, err)
		}
		if err != nil && strings.Contains(err.Error(), "right") {
			t.Errorf("%q: the error has the password: %v", c.value, err)
		}
	}
	for _, value := range []string{"Bearer abc", "Basic", "Basicx abc", "Negotiate abc"} {
		if a.find(withAuthorization(value)) != nil {
			t.Errorf("%q is found", value)
		}
	}
	twice := withAuthorization(basicText("ops:right"))
	twice.Request.Header.AddID(exchange.Authorization, []byte(basicText("ops:right")))
	if _, err := a.check(twice, a.find(twice), false); codeOf(err) != "unauthenticated" {
		t.Errorf("two fields: %v", err)
	}
}

func TestBasicIsNotForwarded(t *testing.T) {
	for _, c := range []struct {
		forward *bool
		value   string
		kept    bool
	}{{nil, basicText("a:b"), false}, {new(bool), basicText("a:b"), false}, {&[]bool{true}[0], basicText("a:b"), true}, {nil, "Bearer x", true}} {
		a, err := basicOf(t, config.Authenticator{Forward: c.forward}, "ops:"+bcryptOf(t, "right"))
		if err != nil {
			t.Fatal(err)
		}
		x := withAuthorization(c.value)
		if a.strip(x); x.Request.Header.Has(exchange.Authorization) != c.kept {
			t.Errorf("%q, forward %v: kept is %v", c.value, c.forward, !c.kept)
		}
	}
}

func TestHtpasswdThatIsWrong(t *testing.T) {
	good := bcryptOf(t, "x")
	costly := "$2y$16" + good[6:]
	for _, c := range []struct{ lines, want string }{
		{"ops:" + good + "\nops:" + good, "line 2 has a name that was there before, remove one of them"},
		{"# a\n\nops", "line 3 is not name:hash"},
		{":" + good, "line 1 has no name, or one that is longer than 255 bytes, is not UTF-8 or has control characters"},
		{"a\tb:" + good, "line 1 has no name, or one that is longer than 255 bytes, is not UTF-8 or has control characters"},
		{"j\xfc:" + good, "line 1 has no name, or one that is longer than 255 bytes, is not UTF-8 or has control characters"},
		{"ops:$apr1$ydbofBYx$6Zm5dzbCOxF8kZmI4AD.D/", "line 1 has a hash that is not bcrypt, write it with htpasswd -B"},
		{"ops:{SHA}qvTGHdzF6KLavt4PO0gs2a6pQ00=", "line 1 has a hash that is not bcrypt, write it with htpasswd -B"},
		{"ops:plain-secret", "line 1 has a hash that is not bcrypt, write it with htpasswd -B"},
		{"ops:$2x$" + good[4:], "line 1 has a hash that is not bcrypt, write it with htpasswd -B"},
		{"ops:" + good + "x", "line 1 has a hash that is not bcrypt, write it with htpasswd -B"},
		{"ops:" + good[:59], "line 1 has a hash that is not bcrypt, write it with htpasswd -B"},
		{"ops:" + good[:59] + "!", "line 1 has a bcrypt hash that is damaged, write it anew with htpasswd -B"},
		{"ops:$2y$03" + good[6:], "line 1 has a bcrypt hash that is damaged, write it anew with htpasswd -B"},
		{"ops:$2y$xx" + good[6:], "line 1 has a bcrypt hash that is damaged, write it anew with htpasswd -B"},
		{"ops:" + costly, "line 1 has a bcrypt hash of cost 16, which takes too long, write it with htpasswd -B -C 10, at most 15"},
		{"# nobody\n", "has no names, add one with htpasswd -B"},
		{"plain\nops:" + good + "\nops:secret", "line 1 is not name:hash\nops.htpasswd line 3 has a hash that is not bcrypt, write it with htpasswd -B"},
	} {
		_, err := basicOf(t, config.Authenticator{}, c.lines)
		if want := "ops.htpasswd " + c.want; fmt.Sprint(err) != want {
			t.Errorf("%q: %v, want %s", c.lines, err, want)
		}
	}
	if _, err := authenticatorIn(t, t.TempDir(), &config.Authenticator{Basic: &config.BasicAuth{Htpasswd: "none"}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestBasicJoinsAClient(t *testing.T) {
	yes := true
	a, err := basicOf(t, config.Authenticator{Join: &yes}, "known:"+bcryptOf(t, "x"), "stranger:"+bcryptOf(t, "x"))
	if err != nil {
		t.Fatal(err)
	}
	x := withAuthorization(basicText("known:x"))
	if c, err := a.check(x, a.find(x), false); err != nil || c.Plan != "p" || c.Authenticator != "" {
		t.Errorf("%+v, %v", c, err)
	}
	x = withAuthorization(basicText("stranger:x"))
	if _, err := a.check(x, a.find(x), false); codeOf(err) != "unauthenticated" {
		t.Errorf("%v", err)
	}
}

// What is remembered is neither the password nor anything that it could be tried on.
func TestBasicRemembersWhatIsRightOnly(t *testing.T) {
	a, err := basicOf(t, config.Authenticator{}, "ops:"+bcryptOf(t, "right"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		pair string
		dry  bool
		kept bool
	}{{"ops:wrong", false, false}, {"nobody:right", false, false}, {"ops:right", true, false}, {"ops:right", false, true}} {
		x := withAuthorization(basicText(c.pair))
		_, _ = a.check(x, a.find(x), c.dry)
		sum := a.mac.sum([]byte(c.pair))
		if _, kept := a.right.Get(sum[:], 0); kept != c.kept {
			t.Errorf("%s: kept is %v", c.pair, kept)
		}
	}
	if other := newMACKey(); other.sum([]byte("ops:right")) == a.mac.sum([]byte("ops:right")) {
		t.Error("the key of the HMAC is not random")
	}
	// RFC 4231 §4.3: test case 2.
	var k macKey
	copy(k.inner[:], "Jefe")
	k.outer = k.inner
	for i := range k.inner {
		k.inner[i] ^= 0x36
		k.outer[i] ^= 0x5c
	}
	if got := fmt.Sprintf("%x", k.sum([]byte("what do ya want for nothing?"))); got != "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843" {
		t.Errorf("HMAC %s", got)
	}
}

func TestBasicIsLimitedToSomeCores(t *testing.T) {
	a, err := basicOf(t, config.Authenticator{}, "ops:"+bcryptOf(t, "right"))
	if err != nil {
		t.Fatal(err)
	}
	for range cap(a.turns) {
		a.turns <- struct{}{}
	}
	gone := withAuthorization(basicText("ops:right"))
	gone.Cancel()
	if _, err := a.check(gone, a.find(gone), false); codeOf(err) != "dependency_unavailable" {
		t.Errorf("a client that has gone: %v", err)
	}
	a.waiting.Store(basicWaiting)
	x := withAuthorization(basicText("ops:right"))
	if _, err := a.check(x, a.find(x), false); codeOf(err) != "dependency_unavailable" {
		t.Errorf("too many: %v", err)
	}
	a.waiting.Store(0)
	for range cap(a.turns) {
		<-a.turns
	}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			x := withAuthorization(basicText("ops:right"))
			if _, err := a.check(x, a.find(x), false); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(a.turns) != 0 || a.waiting.Load() != 0 {
		t.Errorf("%d turns, %d waiting", len(a.turns), a.waiting.Load())
	}
}

func TestBasicRememberedAllocatesNothing(t *testing.T) {
	a, err := basicOf(t, config.Authenticator{}, "ops:"+bcryptOf(t, "right"))
	if err != nil {
		t.Fatal(err)
	}
	x := withAuthorization(basicText("ops:right"))
	if n := testing.AllocsPerRun(100, func() {
		if _, err := a.check(x, a.find(x), false); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkBasicRemembered(b *testing.B) {
	a, err := basicOf(b, config.Authenticator{}, "ops:"+bcryptOf(b, "right"))
	if err != nil {
		b.Fatal(err)
	}
	x := withAuthorization(basicText("ops:right"))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.check(x, a.find(x), false); err != nil {
			b.Fatal(err)
		}
	}
}
