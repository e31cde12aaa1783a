package gateway

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// request makes an exchange from header lines.
func request(peer string, lines ...string) *exchange.Exchange {
	x := &exchange.Exchange{Conn: &exchange.Conn{Peer: netip.AddrPortFrom(netip.MustParseAddr(peer), 40000)}}
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		x.Request.Header.Add([]byte(name), []byte(value))
	}
	return x
}

func names(h *exchange.Header) string {
	var all []string
	for i := range h.Len() {
		all = append(all, string(h.At(i).Name))
	}
	return strings.Join(all, " ")
}

func TestTheClientIsTheFirstFromTheRightThatIsNoTrustedProxy(t *testing.T) {
	trusted := proxies{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, c := range []struct {
		name, peer string
		lines      []string
		client     string
		trusted    bool
	}{
		{"no proxy", "192.0.2.1", nil, "192.0.2.1", false},
		{"a stranger claims", "192.0.2.1", []string{"X-Forwarded-For: 203.0.113.9"}, "192.0.2.1", false},
		{"one proxy", "10.0.0.1", []string{"X-Forwarded-For: 203.0.113.9"}, "203.0.113.9", true},
		{"the client forged one in front", "10.0.0.1", []string{"X-Forwarded-For: 1.1.1.1, 203.0.113.9"}, "203.0.113.9", true},
		{"two proxies", "10.0.0.1", []string{"X-Forwarded-For: 203.0.113.9, 10.0.0.2"}, "203.0.113.9", true},
		{"several fields are one list", "10.0.0.1", []string{"X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 203.0.113.9"}, "203.0.113.9", true},
		{"all are proxies", "10.0.0.1", []string{"X-Forwarded-For: 10.0.0.3, 10.0.0.2"}, "10.0.0.3", true},
		{"with a port", "10.0.0.1", []string{"X-Forwarded-For: 203.0.113.9:4711"}, "203.0.113.9", true},
		{"IPv6", "fd00::1", []string{"X-Forwarded-For: 2001:db8::7"}, "2001:db8::7", true},
		{"IPv6 with a port", "fd00::1", []string{"X-Forwarded-For: [2001:db8::7]:80"}, "2001:db8::7", true},
		{"IPv4 in IPv6", "::ffff:10.0.0.1", []string{"X-Forwarded-For: ::ffff:203.0.113.9"}, "203.0.113.9", true},
		{"garbage stops the walk", "10.0.0.1", []string{"X-Forwarded-For: 203.0.113.9, unknown"}, "10.0.0.1", true},
		{"an empty element stops the walk", "10.0.0.1", []string{"X-Forwarded-For: 203.0.113.9,"}, "10.0.0.1", true},
		{"Forwarded", "10.0.0.1", []string{`Forwarded: for=1.1.1.1;proto=http, for="203.0.113.9:80"`}, "203.0.113.9", true},
		{"Forwarded with IPv6", "10.0.0.1", []string{`Forwarded: For="[2001:db8::7]:80"`}, "2001:db8::7", true},
		{"Forwarded, obfuscated", "10.0.0.1", []string{`Forwarded: for=_hidden`}, "10.0.0.1", true},
		{"X-Forwarded-For goes first", "10.0.0.1", []string{"Forwarded: for=1.1.1.1", "X-Forwarded-For: 203.0.113.9"}, "203.0.113.9", true},
		{"nothing said", "10.0.0.1", nil, "10.0.0.1", true},
	} {
		x := request(c.peer, c.lines...)
		trusted.identify(x)
		if x.Client.String() != c.client || x.Trusted != c.trusted {
			t.Errorf("%s: client %v, trusted %v", c.name, x.Client, x.Trusted)
		}
	}
}

func TestWhatAStrangerClaimsIsRemoved(t *testing.T) {
	x := request("192.0.2.1", "Accept: */*", "X-Forwarded-For: 1.1.1.1", "x-forwarded-proto: https", "X-Forwarded-Host: h",
		"X-Forwarded-Port: 1", "X-Forwarded-Prefix: /p", "X-Forwarded-Server: s", "Forwarded: for=1.1.1.1", "X-Real-IP: 1.1.1.1",
		"Client-Cert: :x:", "Client-Cert-Chain: :x:", "X-Request-Id: mine", "X-Forward: stays", "User-Agent: u")
	proxies(nil).identify(x)
	if got := names(&x.Request.Header); got != "Accept X-Forward User-Agent" {
		t.Errorf("left: %s", got)
	}
}

func TestIdentifyingAStrangerDoesNotAllocate(t *testing.T) {
	x := request("192.0.2.1", "Accept: */*", "User-Agent: u", "X-Custom-Header-Of-Length: v")
	trusted := proxies{netip.MustParsePrefix("10.0.0.0/8")}
	if n := testing.AllocsPerRun(100, func() { trusted.identify(x) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzIdentify(f *testing.F) {
	f.Add("203.0.113.9, 10.0.0.2", "for=1.1.1.1")
	f.Add("[::1]:80,,", `for="[::1]"`)
	trusted := proxies{netip.MustParsePrefix("10.0.0.0/8")}
	f.Fuzz(func(t *testing.T, xff, fwd string) {
		for _, lines := range [][]string{{"X-Forwarded-For: " + xff}, {"Forwarded: " + fwd}} {
			x := request("10.0.0.1", lines...)
			trusted.identify(x)
			if !x.Client.IsValid() || x.Client.Zone() != "" || x.Client.Is4In6() {
				t.Errorf("%q: client %v", lines, x.Client)
			}
		}
	})
}
