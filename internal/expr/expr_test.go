package expr

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// request returns an exchange with something of everything.
func request() *exchange.Exchange {
	x := &exchange.Exchange{
		Start:  time.Date(2026, 11, 25, 13, 5, 0, 0, time.UTC),
		Client: netip.MustParseAddr("2001:db8::7"),
		Route:  &exchange.Route{Pattern: "/v1/users/{id}"},
		Params: []exchange.Param{{Name: "id", Value: []byte("acme")}, {Name: "rest", Value: []byte("a/b")}},
		Caller: &exchange.Caller{
			ID: "acme", Plan: "standard", Roles: []string{"reader", "admin"}, Permissions: []string{"users:read"},
			Attributes: map[string]string{"tier": "gold", "empty": ""},
		},
	}
	q := &x.Request
	q.Method, q.Host, q.Path = "POST", []byte("api.example.com"), []byte("/v1/users/acme")
	q.Query = []byte("n=12&q=a%20b+c&&n=13&na%6De=x&flag&p=%zz%4&%")
	for _, f := range [][2]string{
		{"Host", "api.example.com"}, {"X-Cost", "7"}, {"Accept", "a"}, {"ACCEPT", "b"}, {"Cookie", "a=1"}, {"cookie", "b=2"}, {"X-Empty", ""},
	} {
		q.Header.Add([]byte(f[0]), []byte(f[1]))
	}
	return x
}

func nobody() *exchange.Exchange { return &exchange.Exchange{} }

func compile(t testing.TB, text string, k Kind) *Program {
	t.Helper()
	p, err := Compile(text, k)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return p
}

func TestConditions(t *testing.T) {
	yes := []string{
		`true`,
		`client.id == params.id || "admin" in client.roles`,
		`client.id == "acme" && client.plan == "standard"`,
		`client.roles == ["reader", "admin"] && client.roles[1] == "admin" && size(client.roles) == 2`,
		`client.permissions.exists(p, p.startsWith("users:"))`,
		`client.roles.all(r, r != "root") && client.roles.exists_one(r, r == "admin")`,
		`client.attributes.tier == "gold" && client.attributes["tier"] == "gold" && client.attributes.empty == ""`,
		`has(client.attributes.tier) && !has(client.attributes.none) && "tier" in client.attributes && !("none" in client.attributes)`,
		`has(client.id) && has(client.plan) && has(client.roles) && has(client.attributes)`,
		`client.attributes.exists(k, client.attributes[k] == "gold") && size(client.attributes) == 2`,
		`request.method == "POST" && request.host.endsWith(".example.com") && request.ip == "2001:db8::7"`,
		`request.path.startsWith("/v1/") && request.route_path == "/v1/users/{id}" && request.path.matches("^/v1/[a-z]+/[a-z]+$")`,
		`request.headers["x-cost"] == "7" && request.headers.accept == "a, b" && request.headers.cookie == "a=1; b=2"`,
		`"x-cost" in request.headers && !("x-none" in request.headers) && request.headers["x-empty"] == ""`,
		`size(request.headers) == 5 && request.headers.exists(h, h == "x-empty") && request.headers.all(h, h == h.lowerAscii())`,
		`request.query.n == "12" && request.query.q == "a b c" && request.query.name == "x" && request.query.flag == "" && request.query.p == "%zz%4"`,
		`size(request.query) == 6 && "%" in request.query && !("none" in request.query)`,
		`params.rest == "a/b" && size(params) == 2 && !("none" in params) && params == {"id": "acme", "rest": "a/b"}`,
		`int(request.query.n) > 10 && double(request.headers["x-cost"]) < 7.5 && 7 < 7.5`,
		`now == timestamp("2026-11-25T13:05:00Z") && now.getHours() == 13 && now.getHours("Europe/Berlin") == 14 && now.getHours("+05:30") == 18`,
		`now.getDayOfWeek() == 3 && now - duration("1h") < now`,
		`claims == {} && !("sub" in claims) && !has(claims.sub)`,
		`request.path.split("/")[3] == "acme" && request.path.substring(4) == "users/acme" && "A".lowerAscii() == "a"`,
		`client.id == "acme" ? true : request.headers.none == "x"`,
	}
	x := request()
	for _, text := range yes {
		if got, err := compile(t, text, Bool).Bool(x); !got || err != nil {
			t.Errorf("%s: %v %v", text, got, err)
		}
	}
}

func TestNobodyIsEmpty(t *testing.T) {
	for _, text := range []string{
		`client.id == "" && client.plan == "" && client.roles == [] && client.permissions == [] && client.attributes == {}`,
		`!has(client.id) && !has(client.roles) && !has(client.attributes) && !("admin" in client.roles) && !("tier" in client.attributes)`,
		`request.method == "" && request.host == "" && request.path == "" && request.route_path == "" && request.ip == ""`,
		`request.headers == {} && request.query == {} && params == {} && claims == {}`,
	} {
		if got, err := compile(t, text, Bool).Bool(nobody()); !got || err != nil {
			t.Errorf("%s: %v %v", text, got, err)
		}
	}
}

func TestNumbers(t *testing.T) {
	for text, want := range map[string]float64{
		`1`:                                 1,
		`2u`:                                2,
		`2.5`:                               2.5,
		`-3`:                                -3,
		`1.0/0.0`:                           math.Inf(1),
		`request.method == "POST" ? 10 : 1`: 10,
		`"x-cost" in request.headers ? double(request.headers["x-cost"]) : 1.0`: 7,
		`int(request.query.n) / 5`:                2,
		`size(request.path) + size(client.roles)`: 16,
		`0.1 * double(size(request.path))`:        1.4000000000000001,
	} {
		if got, err := compile(t, text, Number).Number(request()); got != want || err != nil {
			t.Errorf("%s: %v %v, want %v", text, got, err, want)
		}
	}
	if got, err := compile(t, `0.0/0.0`, Number).Number(nobody()); !math.IsNaN(got) || err != nil {
		t.Errorf("%v %v", got, err)
	}
}

func TestErrorsAtRunTime(t *testing.T) {
	for text, want := range map[string]string{
		`request.headers["x-none"] == "1"`:     "expr: no such key: x-none",
		`request.headers.none == "1"`:          "expr: no such key: none",
		`request.query.none == "1"`:            "expr: no such key: none",
		`params.none == "1"`:                   "expr: no such key: none",
		`client.attributes.none == "1"`:        "expr: no such key: none",
		`claims.sub == "1"`:                    "expr: no such key: sub",
		`int(request.headers.accept) == 1`:     "expr: ",
		`1 / (size(request.query) - 6) == 1`:   "expr: division by zero",
		`client.roles[7] == "x"`:               "expr: index out of bounds: 7",
		`9223372036854775807 + size("a") == 1`: "expr: integer overflow",
	} {
		got, err := compile(t, text, Bool).Bool(request())
		if err == nil || !strings.HasPrefix(err.Error(), want) || got {
			t.Errorf("%s: %v %v, want %q", text, got, err, want)
		}
	}
	if _, err := compile(t, `int(request.query.none)`, Number).Number(request()); err == nil {
		t.Error("no error")
	}
	if _, err := compile(t, `1`, Number).Bool(request()); err == nil || err.Error() != "expr: it did not yield a number" {
		t.Error(err)
	}
}

func TestErrorsAtLoad(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{``, `offset 0: it is empty`},
		{" \n", `offset 0: it is empty`},
		{`client.idd == "a"`, `offset 7: there is no client.idd, did you mean client.id?`},
		{`clinet.id == "a"`, `offset 0: there is no clinet, did you mean client?`},
		{"client.id == \"ü\" &&\n  request.pth == \"/x\"", `offset 31: there is no request.pth, did you mean request.path?`},
		{`client.nothing == "a"`, `offset 7: there is no client.nothing, there are client.attributes, client.id, client.permissions, client.plan, client.roles`},
		{`has(client.pln)`, `offset 4: there is no client.pln, did you mean client.plan?`},
		{`method == "GET"`, `offset 0: there is no method, did you mean request.method?`},
		{`user == "GET"`, `offset 0: there is no user, there are claims, client, now, params, request`},
		{`client == request`, "offset 0: client is no value by itself, there are client.attributes, client.id, client.permissions, client.plan, client.roles\n" +
			`offset 10: request is no value by itself, there are request.headers, request.host, request.ip, request.method, request.path, request.query, request.route_path`},
		{`dyn(client).idd == 1`, `offset 4: client is no value by itself, there are client.attributes, client.id, client.permissions, client.plan, client.roles`},
		{`client.idd == 1 || request.pat == 1`, "offset 7: there is no client.idd, did you mean client.id?\noffset 27: there is no request.pat, did you mean request.path?"},
		{`request.headers.x-rate-cost == "1"`, `offset 16: this subtracts: write request.headers["x-rate-cost"]`},
		{`request.headers["X-Cost"] == "1"`, `offset 16: names of headers are in lower case here: write "x-cost"`},
		{`request.headers.Accept == "1"`, `offset 16: names of headers are in lower case here: write "accept"`},
		{`"X-Cost" in request.headers`, `offset 0: names of headers are in lower case here: write "x-cost"`},
		{`client.id`, `offset 0: it yields string, a bool is needed: compare it with something`},
		{`1`, `offset 0: it yields int, a bool is needed: compare it with something`},
		{`claims.admin`, `offset 0: it has no type, a bool is needed: compare it, as in claims.admin == true`},
		{`client.id == 1`, `offset 10: found no matching overload for '==' applied to '(string, int)'`},
		{`!client.id`, `offset 0: found no matching overload for '!' applied to '(string)'`},
		{`client.id && true`, `offset 6: expected type 'bool' but found 'string'`},
		{`client.id.size.x == 1`, `offset 9: type 'string' does not support field selection`},
		{`client.roles.exsts(r, r == "a")`, `offset 13: there is no function exsts, did you mean exists?`},
		{`request.path.upperAsci() == "A"`, `offset 13: there is no function upperAsci, did you mean upperAscii?`},
		{`fetch("http://x") == "A"`, `offset 0: there is no function fetch, see the documentation of CEL for what there is`},
		{`client.roles.map(r, r) == []`, `offset 13: there is no map here, only has, all, exists and exists_one`},
		{`client.roles.filter(r, r == "a") == []`, `offset 13: there is no filter here, only has, all, exists and exists_one`},
		{`Client{id: "a"}.id == "a"`, `offset 6: objects cannot be made`},
		{`request.path.matches(request.query.p)`, `offset 35: a pattern must be written out, as in matches("^a+$")`},
		{`request.path.matches("a" + "b")`, `offset 25: a pattern must be written out, as in matches("^a+$")`},
		{`request.path.matches("a(")`, "offset 21: error parsing regexp: missing closing ): `a(`"},
		{`request.path.matches("(a{1000}){1000}")`, "offset 21: error parsing regexp: invalid repeat count: `{1000}`"},
		{`now.getHours("Eurpe/Berlin") < 8`, `offset 13: there is no time zone "Eurpe/Berlin" on this machine`},
		{`now.getHours(params.tz) < 8`, `offset 20: a time zone must be written out, as in getHours("Europe/Berlin")`},
		{`now > timestamp("yesterday")`, `offset 16: invalid timestamp argument`},
		{`now - now > duration("1 week")`, `offset 21: invalid duration argument`},
		{`1 +`, `offset 3: it ends too early`},
		{`a b`, `offset 2: extraneous input 'b' expecting <EOF>`},
		{`client.permissions.all(p, client.roles.exists(r, r == p))`, `offset 0: the largest request could cost it 320603 units of work, 100000 are the limit: look at fewer things in it`},
		{`request.query.a.contains(request.query.b)`, `offset 0: the largest request could cost it 10737425 units of work, 100000 are the limit: look at fewer things in it`},
	} {
		_, err := Compile(c.text, Bool)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s\n got %v\nwant %s", c.text, err, c.want)
		}
		if _, ok := errors.AsType[*Error](err); !ok {
			t.Errorf("%s: %v is no *Error", c.text, err)
		}
	}
	for text, want := range map[string]string{
		`client.id`:             `offset 0: it yields string, a number is needed: convert it with double(…), or choose with … ? 1 : 2`,
		`true`:                  `offset 0: it yields bool, a number is needed: convert it with double(…), or choose with … ? 1 : 2`,
		`claims.cost`:           `offset 0: it has no type, a number is needed: convert it, as in double(claims.cost)`,
		`size(client.id) * 0.5`: `offset 16: found no matching overload for '*' applied to '(int, double)'`,
	} {
		if _, err := Compile(text, Number); err == nil || err.Error() != want {
			t.Errorf("%s\n got %v\nwant %s", text, err, want)
		}
	}
}

func TestWhatIsTooLargeIsRefused(t *testing.T) {
	for what, text := range map[string]string{
		"length":      `"` + strings.Repeat("a", MaxLength) + `" == ""`,
		"nesting":     strings.Repeat("(", 500) + "true" + strings.Repeat(")", 500),
		"lists":       strings.Repeat("[", 300) + strings.Repeat("]", 300) + " == []",
		"nodes":       "[" + strings.Repeat("1,", 2000) + "1] == []",
		"macros":      `[1,2].all(a, [1,2].all(b, [1,2].all(c, a == b && b == c)))`,
		"pattern":     `request.path.matches("` + strings.Repeat("a{900}", 10) + `")`,
		"nul":         "client.id == \x00",
		"not UTF-8":   "client.id == \"\xff\" + \xfe",
		"conditional": strings.Repeat("true ? ", 700) + "true" + strings.Repeat(" : false", 700),
	} {
		begin := time.Now()
		if _, err := Compile(text, Bool); err == nil {
			t.Errorf("%s: compiled", what)
		} else if len(err.Error()) > 2000 {
			t.Errorf("%s: an error of %d bytes", what, len(err.Error()))
		}
		if d := time.Since(begin); d > 5*time.Second {
			t.Errorf("%s took %v", what, d)
		}
	}
}

// TestTheCostIsLimited gives programs a request beyond the limits that their
// estimate was made for.
func TestTheCostIsLimited(t *testing.T) {
	x := request()
	x.Request.Path = []byte(strings.Repeat("a", 256<<10))
	for i := range 12_000 {
		x.Request.Header.Add(fmt.Appendf(nil, "x-%d", i), []byte("v"))
	}
	for _, text := range []string{
		`request.path.matches("(a|aa|aaa|aaaa)+$")`,
		`request.headers.all(h, h != "b" && h != "c" && h != "d")`,
		`request.path.split("a")[0] == "b"`,
	} {
		p := compile(t, text, Bool)
		if _, err := p.Bool(x); err == nil || !strings.Contains(err.Error(), "cost limit exceeded") {
			t.Errorf("%s: %v", text, err)
		}
		if _, err := p.Bool(request()); err != nil {
			t.Errorf("%s, behind it: %v", text, err)
		}
	}
}

func TestHostileRequests(t *testing.T) {
	x := request()
	x.Request.Query = []byte("a=%00%ff&%=%&=&==&&&;a=1&\xff=\xfe")
	x.Request.Path = []byte("/\xff\xfe\x00")
	x.Request.Header.Add([]byte("x-bytes"), []byte("\xff\x00\xc3"))
	x.Params[0].Value = []byte("\xed\xa0\x80")
	x.Caller.ID = strings.Repeat("i", 10_000)
	for text, want := range map[string]bool{
		`request.query.a == "\x00"`: false,
		`size(request.query.a) == 2 && request.query[""] == "" && "%" in request.query`: true,
		`request.query[";a"] == "1"`:                            true,
		`size(request.path) == 4 && request.path.matches("^/")`: true,
		`request.headers["x-bytes"].lowerAscii() == "a"`:        false,
		`params.id == "x" || size(params.id) == 3`:              true,
		`client.id.startsWith("i") && size(client.id) == 10000`: true,
	} {
		if got, err := compile(t, text, Bool).Bool(x); got != want || err != nil {
			t.Errorf("%s: %v %v, want %v", text, got, err, want)
		}
	}
}

func TestAProgramIsSharedAndForgetsTheExchange(t *testing.T) {
	p := compile(t, `size(request.headers) > 0 && client.id == params.id && client.attributes.exists(a, a == "tier") && size(request.query) == 6`, Bool)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			x, want := request(), i%2 == 0
			if !want {
				x = nobody()
			}
			for range 200 {
				if got, err := p.Bool(x); got != want || err != nil {
					t.Error(got, err)
				}
			}
		})
		wg.Go(func() {
			if _, err := Compile(`client.id == "a"`, Bool); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{`client.id == params.id`, `request.headers.x-y`, `[1].all(x, x > 0)`, `now.getHours("UTC") < 8`, `"a".matches("b")`, "1 ? \n"} {
		f.Add(s, "q=1")
	}
	f.Fuzz(func(t *testing.T, text, query string) {
		p, err := Compile(text, Bool)
		if err != nil {
			for _, e := range unjoin(err) {
				if one, ok := errors.AsType[*Error](e); !ok || one.Offset < 0 || one.Offset > len(text) || one.Message == "" {
					t.Errorf("%q: %v", text, e)
				}
			}
			return
		}
		x := request()
		x.Request.Query = []byte(query)
		first, err1 := p.Bool(x)
		if again, err2 := p.Bool(x); again != first || (err1 == nil) != (err2 == nil) {
			t.Errorf("%q: %v %v, then %v %v", text, first, err1, again, err2)
		}
	})
}

func unjoin(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		return j.Unwrap()
	}
	return []error{err}
}

func BenchmarkEval(b *testing.B) {
	for _, text := range []string{
		`client.id == params.id || "admin" in client.roles`,
		`request.method == "POST"`,
		`request.headers["x-cost"] == "7"`,
		`"x-cost" in request.headers`,
		`request.query.n == "12"`,
		`request.path.matches("^/v1/[a-z]+/[a-z]+$")`,
		`client.permissions.exists(p, p.startsWith("users:"))`,
		`request.headers.exists(h, h == "x-empty")`,
		`now.getHours("Europe/Berlin") < 8`,
	} {
		b.Run(text, func(b *testing.B) {
			p, x := compile(b, text, Bool), request()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.Bool(x); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("number", func(b *testing.B) {
		p, x := compile(b, `request.method == "POST" ? 10 : 1`, Number), request()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := p.Number(x); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		compile(b, `client.id == params.id || "admin" in client.roles`, Bool)
	}
}
