package upstream

import (
	"net/netip"
	"testing"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

func TestHashKeys(t *testing.T) {
	request := func(client, path, query, cookie, tenant string) *exchange.Exchange {
		x := newExchange("GET", path+"?"+query)
		x.Client = netip.MustParseAddr(client)
		if cookie != "" {
			x.Request.Header.Add([]byte("Cookie"), []byte(cookie))
		}
		if tenant != "" {
			x.Request.Header.Add([]byte("x-tenant"), []byte(tenant))
		}
		return x
	}
	for _, c := range []struct {
		on   string
		a, b *exchange.Exchange
		same bool
	}{
		{"client", request("192.0.2.1", "/a", "", "", ""), request("192.0.2.1", "/b", "", "", ""), true},
		{"ip", request("192.0.2.1", "/a", "", "", ""), request("192.0.2.2", "/a", "", "", ""), false},
		{"path", request("192.0.2.1", "/a", "x", "", ""), request("192.0.2.2", "/a", "y", "", ""), true},
		{"path", request("192.0.2.1", "/a", "", "", ""), request("192.0.2.1", "/b", "", "", ""), false},
		{"header:X-Tenant", request("192.0.2.1", "/", "", "", "one"), request("192.0.2.2", "/", "", "", "one"), true},
		{"header:X-Tenant", request("192.0.2.1", "/", "", "", "one"), request("192.0.2.1", "/", "", "", "two"), false},
		{"header:X-Tenant", request("192.0.2.1", "/", "", "", ""), request("192.0.2.2", "/", "", "", ""), false}, // by client
		{"query:id", request("192.0.2.1", "/", "a=1&id=7", "", ""), request("192.0.2.2", "/", "id=7&a=2", "", ""), true},
		{"query:id", request("192.0.2.1", "/", "xid=7&id=1", "", ""), request("192.0.2.1", "/", "xid=7&id=2", "", ""), false},
		{"cookie:s", request("192.0.2.1", "/", "", "a=1; s=7", ""), request("192.0.2.2", "/", "", "s=7;b=2", ""), true},
		{"cookie:s", request("192.0.2.1", "/", "", "as=7; s=1", ""), request("192.0.2.1", "/", "", "as=7; s=2", ""), false},
	} {
		k, err := newHashKey(c.on)
		if err != nil {
			t.Fatal(err)
		}
		check(t, c.on, k.of(c.a) == k.of(c.b), c.same)
	}
}
