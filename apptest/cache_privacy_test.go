package apptest

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/gatetest"
	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
)

const (
	privacySecret = "a-secret-of-more-than-32-bytes-for-hs256"
	privacyUsers  = 5
	privacyPaths  = 18 // of each route; every third one is the same for all
)

// privacyRoutes differ in who is in the key. Bodies of origins with personal answers
// are told apart by what the origin sees: the credentials, as they are.
var privacyRoutes = []string{
	// The gateway knows nobody: credentials go through.
	`{name: open, path: "/open/{rest...}", auth: [], cache: {}, upstream: o}`,
	`{name: ttl, path: "/ttl/{rest...}", auth: [], cache: {ttl: 1m, stale_while_revalidate: 5s}, upstream: o}`,
	`{name: cookie, path: "/cookie/{rest...}", auth: [], cache: {key: {headers: [Cookie]}}, upstream: o}`,
	// It knows the client, and has it in the key.
	`{name: key, path: "/key/{rest...}", auth: [keys], cache: {}, upstream: o}`,
	`{name: jwt, path: "/jwt/{rest...}", auth: [idp], cache: {ttl: 2s}, upstream: o}`,
	`{name: any, path: "/any/{rest...}", auth: [keys, idp, anonymous], cache: {}, upstream: o}`,
	// It was told that answers do not depend on the client.
	`{name: common, path: "/common/{rest...}", auth: [keys], cache: {key: {client: false}}, upstream: o}`,
}

func privacyConfig() string {
	var b strings.Builder
	b.WriteString(strings.Replace(cacheConfig, "limits: {", "limits: {auth_failures: {rate: 1000000/s, burst: 1000000, per: [ip]}, ", 1))
	b.WriteString("authenticators:\n  keys: {api_key: {from: [\"header:X-Api-Key\"]}, forward: true}\n")
	fmt.Fprintf(&b, "  idp: {jwt: {issuer: \"https://idp.test\", audience: [api], algorithms: [HS256], secret: %s}}\nclients:\n", privacySecret)
	for u := range privacyUsers {
		fmt.Fprintf(&b, "  - {id: u%d, keys: [{name: a, value: %s}, {name: b, value: %s}]}\n", u, privacyKey(u, 0), privacyKey(u, 1))
	}
	return b.String()
}

func privacyKey(user, n int) string { return fmt.Sprintf("key-%d-of-user-u%d-0123456789", n, user) }

// privacyToken is one of a user's tokens; those with different n differ in their bytes.
func privacyToken(user, n int) string {
	claims, _ := json.Marshal(map[string]any{
		"iss": "https://idp.test", "aud": "api", "sub": fmt.Sprint("u", user), "exp": time.Now().Add(24 * time.Hour).Unix(), "jti": fmt.Sprint(n),
	})
	b64 := base64.RawURLEncoding
	signed := b64.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + b64.EncodeToString(claims)
	mac := hmac.New(sha256.New, []byte(privacySecret))
	mac.Write([]byte(signed))
	return signed + "." + b64.EncodeToString(mac.Sum(nil))
}

// tokens are two of each user.
var privacyTokens = sync.OnceValue(func() (all [privacyUsers][2]string) {
	for u := range all {
		all[u] = [2]string{privacyToken(u, 0), privacyToken(u, 1)}
	}
	return all
})

// person is one who asks: what it sends, and what the origin calls it.
type person struct {
	header gatetest.Fields
	who    string
	auth   bool // the origin sees an Authorization
}

// somebody is a caller of a route.
func somebody(r *rand.Rand, route string) (p person) {
	u, n := r.IntN(privacyUsers), r.IntN(2)
	add := func(name, value string) { p.header = append(p.header, gatetest.Field{Name: name, Value: value}) }
	key := func() {
		add("X-Api-Key", privacyKey(u, n))
		p.who = fmt.Sprint("key/u", u)
	}
	token := func() {
		add("Authorization", "Bearer "+privacyTokens()[u][n])
		p.who, p.auth = fmt.Sprint("jwt/u", u), true
	}
	switch route {
	case "key", "common":
		key()
		if route == "key" && r.IntN(4) == 0 { // which is for the origin, and changes nothing here
			add("Authorization", fmt.Sprint("Bearer foreign-u", r.IntN(privacyUsers)))
			p.auth = true
		}
	case "jwt":
		token()
	case "any":
		p.who = "nobody"
		if d := r.IntN(3); d == 0 {
			key()
		} else if d == 1 {
			token()
		}
	case "cookie":
		p.who = credentials("", "")
		if r.IntN(5) > 0 {
			cookie := fmt.Sprintf("session=u%d", u)
			add("Cookie", cookie)
			p.who = credentials("", cookie)
		}
	default:
		auth, cookie := "", ""
		switch r.IntN(8) {
		case 0, 1:
			auth = fmt.Sprint("Bearer u", u)
		case 2:
			auth = "Basic " + base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "u%d:x", u))
		case 3, 4:
			cookie = fmt.Sprintf("session=u%d", u)
		case 5:
			cookie = fmt.Sprintf("theme=dark; session=u%d", u)
		case 6: // another's cookie by the side of one's own credentials
			auth, cookie = fmt.Sprint("Bearer u", u), fmt.Sprintf("session=u%d", r.IntN(privacyUsers))
		}
		if auth != "" {
			add("Authorization", auth)
		}
		if cookie != "" {
			add("Cookie", cookie)
		}
		p.who, p.auth = credentials(auth, cookie), auth != ""
	}
	if (route == "key" || route == "jwt" || route == "any") && r.IntN(5) == 0 {
		add("Cookie", fmt.Sprintf("session=u%d", r.IntN(privacyUsers)))
	}
	return p
}

// credentials is a name for those who bring them.
func credentials(auth, cookie string) string {
	return strings.ReplaceAll("a:"+auth+"|c:"+cookie, " ", "_")
}

// What an origin may say of an answer. The lists repeat what should come more often.
var (
	// Of one for a single person, on a route that does not know the person: nothing that
	// says that others may have it.
	sayPersonal = []string{
		"", "max-age=60", "max-age=60", "max-age=1", "private", "private, max-age=60", "no-store", "no-cache", "no-cache, max-age=60", "max-age=0",
		"max-age=60, stale-while-revalidate=60, stale-if-error=60", "max-age=60, immutable", "MAX-AGE=60", "max-age=60, private=\"x\"", "must-understand, max-age=60",
		"max-age=1, stale-while-revalidate=60",
	}
	// Of one that is the same for all.
	sayCommon = []string{
		"public, max-age=60", "public, max-age=1", "s-maxage=60", "public, s-maxage=1, stale-while-revalidate=5", "max-age=60", "max-age=60, must-revalidate",
		"max-age=1", "", "public", "no-store", "public, no-cache", "public, max-age=60, private=\"x-who\"", "public, max-age=60, no-cache=\"set-cookie\"",
	}
)

// privacyOrigin makes an answer for whoever asks. What it says about who may have it
// is random and true.
func privacyOrigin(o *origin, w http.ResponseWriter, r *http.Request) {
	route, rest, _ := strings.Cut(r.URL.Path[1:], "/")
	auth, cookie := r.Header.Get("Authorization"), strings.Join(r.Header.Values("Cookie"), "; ")
	var who string
	known := route == "key" || route == "jwt" || route == "any"
	switch key := r.Header.Get("X-Api-Key"); {
	case (known || route == "common") && key != "":
		_, user, _ := strings.Cut(key, "-of-user-")
		who = "key/" + user[:2]
	case known && strings.HasPrefix(auth, "Bearer ey"):
		claims, _ := base64.RawURLEncoding.DecodeString(strings.Split(auth, ".")[1])
		var c struct{ Sub string }
		_ = json.Unmarshal(claims, &c)
		who = "jwt/" + c.Sub
	case known:
		who = "nobody"
	default:
		who = credentials(auth, cookie)
	}
	var number int
	_, _ = fmt.Sscan(rest, &number)
	common := number%3 == 0 || route == "common"
	h := w.Header()
	say := sayPersonal
	switch {
	case common:
		say = sayCommon
		if rand.IntN(8) == 0 {
			h.Set("Set-Cookie", "sid="+who)
		}
	case known: // the route keeps each person's answers by themselves
		if rand.IntN(2) == 0 {
			say = sayCommon
		}
		h.Set("Set-Cookie", "sid="+who)
	default:
		h.Set("Set-Cookie", "sid="+who)
	}
	cc := say[rand.IntN(len(say))]
	if !common {
		switch rand.IntN(8) {
		case 0: // correct: as many answers as there are credentials
			h.Set("Vary", "Authorization, Cookie")
			cc = "public, max-age=60"
			if rand.IntN(2) == 0 {
				h.Del("Set-Cookie")
			}
		case 1:
			h.Set("Vary", "*")
		case 2:
			h.Set("Vary", "Cookie")
		case 3:
			h.Set("Sluice-Cache-Control", []string{"no-store", "private, max-age=60", "no-cache"}[rand.IntN(3)])
			cc = "max-age=60"
		case 4:
			h.Del("Set-Cookie")
		}
	}
	if !common || strings.Contains(cc, "x-who") {
		h.Set("X-Who", who)
	}
	if common {
		who = "*"
	}
	h.Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256([]byte(who+r.URL.Path)))[:20]+`"`)
	if rand.IntN(20) == 0 {
		linger(r, 20*time.Millisecond) // so that others wait for it
	}
	// Whoever waits for a fill that is another's must not get it; whoever leads it must.
	give(w, cc, seal(r.RequestURI, who, 1, 700))
}

// privacyCheck looks at an answer that p got.
func privacyCheck(p person, target, method string, status int, body []byte, field func(string) string) error {
	if who := field("X-Who"); who != "" && who != p.who {
		return fmt.Errorf("LEAK: %s of %s for %s has %s's field (%s)", method, route(target), p.who, who, field("Cache-Status"))
	}
	for _, c := range strings.Split(field("Set-Cookie"), ", ") {
		if who, ok := strings.CutPrefix(c, "sid="); ok && who != p.who {
			return fmt.Errorf("LEAK: %s of %s for %s sets %s's cookie (%s)", method, route(target), p.who, who, field("Cache-Status"))
		}
	}
	if method == "HEAD" && status == 200 || status == 304 {
		return nil
	}
	read := unseal
	if status == 206 {
		read = readSeal
	}
	got, err := read(body)
	if err != nil || status != 200 && status != 206 {
		return fmt.Errorf("%s of %s: status %d, %w", method, route(target), status, err)
	}
	if got.url != target {
		return fmt.Errorf("%s of %s: the body of %s", method, route(target), got.url)
	}
	if got.who != "*" && got.who != p.who {
		return fmt.Errorf("LEAK: %s of %s for %s has %s's body (%s)", method, route(target), p.who, got.who, field("Cache-Status"))
	}
	return nil
}

// route is the first segment of a target: faults are counted by it.
func route(target string) string {
	name, _, _ := strings.Cut(target[1:], "/")
	return "/" + name
}

// TestCachePrivacy has people ask for the same URLs of two gateways with a Redis, each
// request a person of its own on a connection of many, with bodies made for each and an
// origin that says at random, but truly, who may have them. Nobody ever gets another's.
func TestCachePrivacy(t *testing.T) {
	o := newOrigin(t, privacyOrigin)
	s := caching(o, patient(redistest.Start(t).Addr()), "", privacyRoutes...)
	s.config = privacyConfig()
	all := []*gateway{start(t, s)}
	s.measured = true // the other one is faster under the race detector
	all = append(all, start(t, s))
	total := rounds(50_000, 1_000_000)
	random := seed(t)
	names := []string{"open", "open", "open", "ttl", "ttl", "cookie", "key", "key", "jwt", "any", "common"}
	kinds := newCounter()
	load := newCrowd(t)
	pick := func(r *rand.Rand) (p person, name, target string) {
		name = names[r.IntN(len(names))]
		target = fmt.Sprintf("/%s/%d", name, r.IntN(privacyPaths))
		if r.IntN(4) == 0 {
			target += "?page=1"
		}
		return somebody(r, name), name, target
	}
	const workers = 8
	for _, g := range all {
		var rs [workers]*rand.Rand
		for i := range rs {
			rs[i] = rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
		}
		load.askers(workers, g.addr("PLAIN"), func(worker int, k *asker) error {
			r := rs[worker]
			p, name, target := pick(r)
			method := "GET"
			var b strings.Builder
			for _, f := range p.header {
				b.WriteString(f.Name + ": " + f.Value + "\r\n")
			}
			switch r.IntN(40) {
			case 0, 1:
				method = "HEAD"
			case 2:
				b.WriteString("Range: bytes=0-399\r\n")
			case 3:
				b.WriteString("Cache-Control: no-cache\r\n")
			case 4:
				b.WriteString("Cache-Control: max-stale=100\r\n")
			case 5:
				method = "POST"
				b.WriteString("Content-Length: 0\r\n")
			}
			got, err := k.ask(method + " " + target + " HTTP/1.1\r\nHost: a.test\r\n" + b.String() + "\r\n")
			if err != nil {
				return err
			}
			if worker == 0 {
				kinds.add(name + " " + got.cache())
			}
			return privacyCheck(p, target, method, got.status, got.body, got.field)
		})
		h2 := gatetest.NewClient(gatetest.Drivers[3], g.addr("PLAIN"), nil)
		defer h2.CloseIdleConnections()
		r := rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
		load.add(1, func(int, *caller) (bool, error) {
			p, _, target := pick(r)
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			got, err := h2.Do(ctx, gatetest.Message{Host: "a.test", Target: target, Header: p.header})
			if err != nil {
				return true, err
			}
			return true, privacyCheck(p, target, "GET", got.Status, []byte(got.Body), func(name string) string {
				return strings.Join(got.Header.Values(name), ", ")
			})
		}, "")
	}
	eventually(t, time.Duration(rounds(2, 20))*time.Minute, func() error {
		if n := load.done(); n < total {
			return fmt.Errorf("%d of %d requests", n, total)
		}
		return nil
	})
	load.end()
	byKind := kinds.all()
	for _, kind := range slices.Sorted(maps.Keys(byKind)) {
		t.Logf("%-20s %d", kind, byKind[kind])
	}
	// What is never served from the cache cannot leak, so it must have been.
	for _, kind := range []string{"open hit", "ttl hit", "cookie hit", "key hit", "jwt hit", "any hit", "common hit", "open bypass"} {
		if byKind[kind] < 20 {
			t.Errorf("%s: %d, want more", kind, byKind[kind])
		}
	}
}
