package auth

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

func prefixes(list ...string) (all []netip.Prefix) {
	for _, p := range list {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

func TestIPRules(t *testing.T) {
	for _, c := range []struct {
		name        string
		allow, deny []string
		client      string
		ok          bool
		why         string
	}{
		{"deny only, inside", nil, []string{"192.0.2.0/24"}, "192.0.2.7", false, "192.0.2.7 is in ip.deny 192.0.2.0/24"},
		{"deny only, outside", nil, []string{"192.0.2.0/24"}, "192.0.3.7", true, "192.0.3.7 is in no range of ip.deny"},
		{"allow only, inside", []string{"10.0.0.0/8"}, nil, "10.1.2.3", true, "10.1.2.3 is in ip.allow 10.0.0.0/8"},
		{"allow only, outside", []string{"10.0.0.0/8"}, nil, "192.0.2.7", false, "192.0.2.7 is in no range of ip.allow"},
		{"deny wins", []string{"10.0.0.0/8"}, []string{"10.1.0.0/16"}, "10.1.2.3", false, "10.1.2.3 is in ip.deny 10.1.0.0/16"},
		{"IPv6", []string{"2001:db8::/32"}, nil, "2001:db8::1", true, "2001:db8::1 is in ip.allow 2001:db8::/32"},
		{"IPv6 against IPv4 rules", []string{"10.0.0.0/8"}, nil, "2001:db8::1", false, "2001:db8::1 is in no range of ip.allow"},
	} {
		r := &config.Route{IP: &config.IPRules{Allow: prefixes(c.allow...), Deny: prefixes(c.deny...)}}
		f, err := IP.New(r, &policy.Env{})
		if err != nil {
			t.Fatal(err)
		}
		x := &exchange.Exchange{Client: netip.MustParseAddr(c.client)}
		err = f.Request(x)
		var refusal *exchange.Error
		if (err == nil) != c.ok || err != nil && (!errors.As(err, &refusal) || refusal.Code != exchange.Forbidden) {
			t.Errorf("%s: %v", c.name, err)
		}
		if o := f.Explain(x); o.Reason != c.why || (o.Verdict == telemetry.Allowed) != c.ok || (o.Refusal == nil) != c.ok {
			t.Errorf("%s: explained as %+v", c.name, o)
		}
	}
}

func TestARouteWithoutIPRulesHasNoFilter(t *testing.T) {
	if f, err := IP.New(&config.Route{}, &policy.Env{}); f != nil || err != nil {
		t.Errorf("%v, %v", f, err)
	}
}
