package limit

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// asked is a request of a known client, with all that keys are made of.
func asked() *exchange.Exchange {
	x := &exchange.Exchange{
		Conn:   &exchange.Conn{},
		Client: netip.MustParseAddr("203.0.113.9"),
		Route:  &exchange.Route{API: "public", Name: "get-user"},
		Caller: &exchange.Caller{
			Authenticator: "keys", ID: "acme",
			Attributes: map[string]string{"tier": "gold", "empty": "", "odd": "a:b}c%/ü"},
		},
	}
	x.Request.Query = []byte("page=2&word=a%3Ab+c&%6Bind=x&empty=&bare&bad=%zz&two=1&two=2")
	h := &x.Request.Header
	h.Add([]byte("X-Tenant"), []byte("t1"))
	h.Add([]byte("x-many"), []byte("a"))
	h.Add([]byte("X-Many"), []byte("b"))
	h.Add([]byte("User-Agent"), []byte("curl/8"))
	h.Add([]byte("X-Empty"), nil)
	return x
}

func maker(t testing.TB, per ...string) *keyMaker {
	t.Helper()
	k, err := newKeyMaker(per)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeysSayWhoIsCountedTogether(t *testing.T) {
	for per, want := range map[string]string{
		"":                            "c:keys/acme",
		"client":                      "c:keys/acme",
		"ip":                          "a:203.0.113.9",
		"route":                       "r:public/get-user",
		"global":                      "g",
		"header:X-Tenant":             "=t1",
		"header:x-tenant":             "=t1",
		"header:user-agent":           "=curl%2F8",
		"header:X-Many":               "=a%2Cb",
		"header:X-Empty":              "=",
		"header:X-None":               "-",
		"query:page":                  "=2",
		"query:word":                  "=a%3Ab%20c",
		"query:kind":                  "=x",
		"query:empty":                 "=",
		"query:bare":                  "=",
		"query:bad":                   "=%25zz",
		"query:two":                   "=1",
		"query:none":                  "-",
		"attribute:tier":              "=gold",
		"attribute:empty":             "=",
		"attribute:odd":               "=a%3Ab%7Dc%25%2F%C3%BC",
		"attribute:none":              "-",
		"client route ip query:page":  "c:keys/acme:r:public/get-user:a:203.0.113.9:=2",
		"header:X-None query:none":    "-:-",
		"global attribute:tier route": "g:=gold:r:public/get-user",
	} {
		if got := maker(t, strings.Fields(per)...).append([]byte("kept "), asked()); string(got) != "kept "+want {
			t.Errorf("per [%s]: %q, want %q", per, got, want)
		}
	}
}

func TestAnUnknownClientIsItsAddress(t *testing.T) {
	for address, want := range map[string]string{
		"203.0.113.9":                  "a:203.0.113.9",
		"::ffff:203.0.113.9":           "a:203.0.113.9",
		"2001:db8:1:2:3:4:5:6":         "a:2001:db8:1:2::/64",
		"2001:db8:1:2:ffff::":          "a:2001:db8:1:2::/64",
		"2001:db8:1:3::1":              "a:2001:db8:1:3::/64",
		"fe80::1%eth0":                 "a:fe80::/64",
		"::1":                          "a:::/64",
		"ffff:eeee:dddd:cccc:bbbb:a::": "a:ffff:eeee:dddd:cccc::/64",
		"":                             "a:-",
	} {
		x := asked()
		x.Caller, x.Client = nil, netip.Addr{}
		if address != "" {
			x.Client = netip.MustParseAddr(address)
		}
		got := maker(t, "client").append(nil, x)
		if string(got) != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
		if ip := maker(t, "ip").append(nil, x); !bytes.Equal(ip, got) {
			t.Errorf("%s: by ip %q", address, ip)
		}
		if tag := appendClient(nil, x); !bytes.Equal(tag, got) {
			t.Errorf("%s: client part %q", address, tag)
		}
	}
}

func TestADeclaredClientIsNoAuthenticatorsClient(t *testing.T) {
	x := asked()
	x.Caller = &exchange.Caller{ID: "a/b"}
	if got := appendClient(nil, x); string(got) != "c:/a%2Fb" {
		t.Errorf("got %q", got)
	}
	x.Route = nil
	if got := maker(t, "route", "attribute:tier").append(nil, x); string(got) != "-:-" {
		t.Errorf("got %q", got)
	}
}

func TestLongKeysAreHashed(t *testing.T) {
	k := maker(t, "header:X-Long", "query:q")
	x := asked()
	key := func(header, query string) string {
		x.Request.Header.Set([]byte("X-Long"), []byte(header))
		x.Request.Query = []byte("q=" + query)
		return string(k.append(make([]byte, 0, keyRoom), x))
	}
	fits := strings.Repeat("a", maxKey-len("=:=b"))
	if got := key(fits, "b"); got != "="+fits+":=b" || len(got) != maxKey {
		t.Errorf("%d bytes: %q", len(got), got)
	}
	// echo -n =aa…aa:=bb | sha256sum
	if got, want := key(strings.Repeat("a", 116), "bb"), "h:"+sha256Of("=" + strings.Repeat("a", 116) + ":=bb")[:32]; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for n := maxKey - 2; n < 3*maxKey; n++ {
		long := strings.Repeat("%", n)
		if got, want := key(long, "b"), "h:"+sha256Of("=" + strings.Repeat("%25", n) + ":=b")[:32]; got != want {
			t.Fatalf("%d bytes: %q, want %q", n, got, want)
		}
	}
	if a, b := key(strings.Repeat("x", 9000), "1"), key(strings.Repeat("x", 9000), "2"); a == b || len(a) != 34 {
		t.Errorf("%q, %q", a, b)
	}
	if cap(k.append(make([]byte, 0, keyRoom), x)) != keyRoom {
		t.Error("a long key made dst grow")
	}
}

func TestSharedKeysKeepTheirBraces(t *testing.T) {
	x := asked()
	x.Caller.ID = "a}:{b"
	client := appendClient(nil, x)
	if got, want := string(appendLimitKey(nil, client, "per-client", 0xdeadbee)), "l:{c:keys/a%7D%3A%7Bb}:per-client:0deadbee"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := string(appendQuotaKey(nil, client, "gold.day", "2026-11-25", 1)), "q:{c:keys/a%7D%3A%7Bb}:gold.day:2026-11-25:00000001"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestWordsThatAreNothingToCountBy(t *testing.T) {
	for word, want := range map[string]string{
		"claim:":     "claim:NAME",
		"clients":    "use client, ip, route, global",
		"header":     "header:NAME",
		"header:":    "header:NAME",
		"query:":     "query:NAME",
		"":           "nothing to count by",
		"cookie:sid": "nothing to count by",
	} {
		if _, err := newKeyMaker([]string{"ip", word}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", word, err, want)
		}
	}
}

func TestKeyMakersAllocNothing(t *testing.T) {
	room := make([]byte, 0, keyRoom)
	x := asked()
	k := maker(t, "client", "route", "header:X-Many", "header:User-Agent", "query:kind", "attribute:odd", "ip")
	if n := testing.AllocsPerRun(100, func() { room = k.append(room[:0], x) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	short := maker(t, "client")
	if n := testing.AllocsPerRun(100, func() { room = short.append(room[:0], x) }); n > 0 {
		t.Errorf("client: %v allocations", n)
	}
	x.Caller, x.Client = nil, netip.MustParseAddr("2001:db8:1:2:3:4:5:6")
	x.Request.Header.Add([]byte("X-Many"), bytes.Repeat([]byte("long"), 1000))
	if n := testing.AllocsPerRun(100, func() { room = k.append(room[:0], x) }); n > 0 && !raceEnabled {
		t.Errorf("a long key: %v allocations", n)
	}
}

// FuzzKeys holds the key maker to this: two requests have one key only when all
// their parts are the same.
func FuzzKeys(f *testing.F) {
	f.Add(uint16(0x1234), "a", "b:c", "v", "q=1", []byte{1, 2, 3, 4}, "a:b", "c", "v", "q=1", []byte{1, 2, 3, 4})
	f.Add(uint16(0x0001), "a", "b", "", "q", []byte{}, "a", "b", "-", "", bytes.Repeat([]byte{9}, 16))
	f.Add(uint16(0xffff), "a/b", "", "x,y", "q=%31", make([]byte, 16), "a", "/b", "x", "q=1", make([]byte, 4))
	f.Add(uint16(0x0321), strings.Repeat("z", 200), "", "=", "q=+", make([]byte, 16), "z", "/b", "=", "q=%20", make([]byte, 4))
	words := []string{"client", "ip", "route", "global", "header:H", "query:q", "attribute:A", "attribute:B"}
	f.Fuzz(func(t *testing.T, per uint16, a1, b1, h1, q1 string, ip1 []byte, a2, b2, h2, q2 string, ip2 []byte) {
		var chosen []string
		for i := range 4 {
			chosen = append(chosen, words[per>>(4*i)&7])
		}
		k := maker(t, chosen[:1+per>>3&1+per>>7&1+per>>11&1]...)
		x1, x2 := fuzzed(a1, b1, h1, q1, ip1), fuzzed(a2, b2, h2, q2, ip2)
		k1, k2 := k.append(nil, x1), k.append(nil, x2)
		if len(k1) > maxKey || len(k1) == 0 || bytes.ContainsAny(k1, "{} \r\n\x00") {
			t.Errorf("%q is no key", k1)
		}
		same := true
		for i := range k.parts {
			same = same && slices.Equal(facts(&k.parts[i], x1), facts(&k.parts[i], x2))
		}
		if got := bytes.Equal(k1, k2); got != same {
			t.Errorf("%q and %q for %v, equal: %v", k1, k2, chosen, same)
		}
	})
}

func fuzzed(a, b, h, q string, ip []byte) *exchange.Exchange {
	x := &exchange.Exchange{Route: &exchange.Route{API: b, Name: a}}
	x.Client, _ = netip.AddrFromSlice(ip)
	if a != "" {
		x.Caller = &exchange.Caller{Authenticator: a, ID: b, Attributes: map[string]string{"A": h}}
	}
	if b != "" && x.Caller != nil {
		x.Caller.Attributes["B"] = b
	}
	for v := range strings.SplitSeq(h, "|") {
		x.Request.Header.Add([]byte("H"), []byte(v))
	}
	x.Request.Query = []byte(q)
	return x
}

// facts is what a part depends on, said in another way than keys do.
func facts(p *keyPart, x *exchange.Exchange) []string {
	address := func() []string {
		if a := x.Client.Unmap(); a.Is6() {
			return []string{"6", string(a.AsSlice()[:8])}
		}
		return []string{"4", x.Client.Unmap().String()}
	}
	switch c := x.Caller; p.kind {
	case keyClient:
		if c == nil {
			return address()
		}
		return []string{"c", c.Authenticator, c.ID}
	case keyAddress:
		return address()
	case keyRoute:
		return []string{x.Route.API, x.Route.Name}
	case keyHeader:
		var all []string
		for v := range x.Request.Header.Values([]byte("H")) {
			all = append(all, string(v))
		}
		return []string{strings.Join(all, ",")}
	case keyQuery:
		return firstParameter(string(x.Request.Query), p.name)
	case keyAttribute:
		if c == nil {
			return nil
		}
		if v, ok := c.Attributes[p.name]; ok {
			return []string{v}
		}
	}
	return nil
}

var encoded = regexp.MustCompile(`%[0-9a-fA-F]{2}|\+`)

// firstParameter is the decoded value of the first parameter with that name, nil
// when there is none.
func firstParameter(query, name string) []string {
	decode := func(s string) string {
		return encoded.ReplaceAllStringFunc(s, func(code string) string {
			if code == "+" {
				return " "
			}
			var c byte
			_, _ = fmt.Sscanf(code, "%%%x", &c) // it is of that form
			return string([]byte{c})
		})
	}
	for part := range strings.SplitSeq(query, "&") {
		n, v, _ := strings.Cut(part, "=")
		if part != "" && decode(n) == name {
			return []string{decode(v)}
		}
	}
	return nil
}

func sha256Of(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) }

func TestCredentialsDoNotStandInKeys(t *testing.T) {
	key := func(per, value string) string {
		x := asked()
		_, name, _ := strings.Cut(per, ":")
		x.Request.Header.Add([]byte(name), []byte(value))
		x.Request.Query = []byte(name + "=" + value)
		x.Caller.Attributes = map[string]string{name: value}
		return string(maker(t, "ip", per).append(nil, x))
	}
	for _, per := range []string{
		"header:Authorization", "header:cookie", "header:X-Api-Key", "header:Proxy-Authorization", "header:X-Auth-Token",
		"header:x-session", "query:access_token", "query:api_key", "query:Sig", "query:jwt",
	} {
		one := key(per, "geheim")
		if !regexp.MustCompile(`^h:[0-9a-f]{32}$`).MatchString(one) {
			t.Errorf("%s: %s", per, one)
		}
		if key(per, "anders") == one {
			t.Errorf("%s: two credentials have one key", per)
		}
	}
	for _, per := range []string{"header:X-Tenant-Id", "query:page", "attribute:tier"} {
		if one := key(per, "plain"); !strings.HasSuffix(one, "=plain") {
			t.Errorf("%s: %s", per, one)
		}
	}
}
