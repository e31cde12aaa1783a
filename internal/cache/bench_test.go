package cache

import (
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/cache/object"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
)

// hitRig is a route's lookup filter with an object for each of some requests, and
// exchanges as the router hands them over.
type hitRig struct {
	filter *lookup
	paths  [][]byte
}

func newHitRig(t testing.TB, c config.RouteCache, objects int) *hitRig {
	t.Helper()
	e := New(Options{})
	t.Cleanup(func() { _ = e.Close(t.Context()) })
	f := &config.File{}
	f.Cache.Memory.Bytes = 256 << 20
	e.Configure(f)
	made, err := e.Specs()[0].New(&config.Route{Name: "users", Cache: &c}, &policy.Env{
		Log: e.log, File: f, Route: exchange.Route{API: "public", Name: "users", Pattern: "/users/{id}"},
	})
	if err != nil {
		t.Fatal(err)
	}
	rig := &hitRig{filter: made.(*lookup)}
	for i := range objects {
		rig.paths = append(rig.paths, []byte("/users/"+strconv.Itoa(1000+i)))
		rig.store(t, i)
	}
	return rig
}

// store puts what the i-th request is answered with into level 1.
func (r *hitRig) store(t testing.TB, i int) {
	t.Helper()
	x := r.request(i)
	k, err := r.filter.key(x)
	if err != nil {
		t.Fatal(err)
	}
	var h exchange.Header
	for _, f := range [][2]string{{"Content-Type", "application/json"}, {"Cache-Control", "max-age=3600"}, {"Date", "Wed, 25 Nov 2026 12:00:00 GMT"}, {"ETag", `"v1"`}} {
		h.Add([]byte(f[0]), []byte(f[1]))
	}
	now := time.Now().UnixNano()
	o := &object.Object{
		Key: string(k.b), Primary: string(k.b), URI: string(k.name()), Status: 200, Body: make([]byte, 1024),
		Fields: object.CopyFields(&h, func(*exchange.Field) bool { return true }),
		Born:   now, Stored: now, Lifetime: 3600, Open: true, ETag: []byte(`"v1"`), Stamp: r.filter.e.memory.Stamp(),
	}
	if !r.filter.e.memory.Put(o) {
		t.Fatal("the object is not taken")
	}
}

func (r *hitRig) request(i int) *exchange.Exchange {
	x := &exchange.Exchange{Conn: &exchange.Conn{Peer: netip.MustParseAddrPort("192.0.2.1:4711")}}
	r.fill(x, i)
	return x
}

var (
	hitHost   = []byte("api.example.com")
	hitAgent  = []byte("Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0")
	hitAccept = []byte("Accept")
	hitJSON   = []byte("application/json")
	hitQuery  = []byte("page=2&sort=name")
)

// fill makes x the i-th request, over again.
func (r *hitRig) fill(x *exchange.Exchange, i int) {
	conn := x.Conn
	x.Reset()
	x.Conn, x.Start = conn, time.Now()
	q := &x.Request
	q.Method, q.Proto, q.Host, q.Authority = "GET", exchange.HTTP11, hitHost, hitHost
	q.Path, q.Query, q.HasQuery = r.paths[i%len(r.paths)], hitQuery, true
	q.Header.AddID(exchange.Host, hitHost)
	q.Header.AddID(exchange.UserAgent, hitAgent)
	q.Header.Add(hitAccept, hitJSON)
}

// answer lets the filter answer x and reads the body, as a driver does.
func (r *hitRig) answer(t testing.TB, x *exchange.Exchange) {
	if err := r.filter.Request(x); err != exchange.Done {
		t.Fatalf("%v, want a hit", err)
	}
	if body, _ := x.Response.Body.Next(); len(body) != 1024 || x.Cached.Result != exchange.CacheHit {
		t.Fatalf("%d bytes, %v; want a hit", len(body), x.Cached.Result)
	}
	_ = x.Response.Body.Close()
}

// BenchmarkKey is the making of a primary key: route, URI with its query in order.
func BenchmarkKey(b *testing.B) {
	r := newHitRig(b, config.RouteCache{}, 1)
	x := r.request(0)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%16 == 0 {
			r.fill(x, i) // what a key takes of the scratch memory goes back with the exchange
		}
		if _, err := r.filter.key(x); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLookup is the key and the search for it, the budget's look-up: at most 300 ns.
// Few objects lie in the processor's caches, many do not.
func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{512, 50_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			r := newHitRig(b, config.RouteCache{}, n)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				x := r.request(0)
				now := time.Now().UnixNano()
				for i := 0; pb.Next(); i++ {
					if i%16 == 0 {
						r.fill(x, i) // what a key takes of the scratch memory goes back with the exchange
					}
					x.Request.Path = r.paths[i*7919%len(r.paths)]
					k, err := r.filter.key(x)
					if err != nil {
						b.Fatal(err)
					}
					if p := r.filter.find(x, &k, now); p.object == nil {
						b.Fatal("not found")
					}
				}
			})
		})
	}
}

// BenchmarkFilterHit is the whole of the filter: request directives, key, search,
// freshness, and the answer with its Age and Cache-Status. The time of making the
// exchange anew is in it, and shown apart by BenchmarkFilterBare.
func BenchmarkFilterHit(b *testing.B) {
	for _, n := range []int{512, 50_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			r := newHitRig(b, config.RouteCache{}, n)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				x := r.request(0)
				for i := 0; pb.Next(); i++ {
					r.fill(x, i*7919)
					r.answer(b, x)
				}
			})
		})
	}
}

// BenchmarkFilterBare is what BenchmarkFilterHit does without the filter.
func BenchmarkFilterBare(b *testing.B) {
	r := newHitRig(b, config.RouteCache{}, 512)
	body := make([]byte, 1024)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		x := r.request(0)
		for i := 0; pb.Next(); i++ {
			r.fill(x, i*7919)
			x.Answer(200, "", body)
			_, _ = x.Response.Body.Next()
			_ = x.Response.Body.Close()
		}
	})
}
