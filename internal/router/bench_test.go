package router

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
)

// bigTable is 10,000 routes as a company with many services has them: 250
// services under a prefix each, 40 routes to a service, of which some share a
// path with other methods. It returns one path that hits each route, and one
// that misses near it.
func bigTable() (routes []Route, hits, misses []string) {
	areas := []string{"accounts", "billing", "catalogue", "delivery", "events", "fulfilment", "gateway", "history", "identity", "journal"}
	things := []string{"items", "orders", "customers", "reports", "settings"}
	for service := range 250 {
		base := fmt.Sprintf("/%s/%s-service-%d/v%d", areas[service%len(areas)], areas[service/len(areas)%len(areas)], service, service%3+1)
		for _, thing := range things {
			for _, r := range []struct{ method, path, hit string }{
				{"GET", "/%s", ""},
				{"POST", "/%s", ""},
				{"GET", "/%s/{id}", "/49f2c1"},
				{"PUT", "/%s/{id}", "/49f2c1"},
				{"DELETE", "/%s/{id}", "/49f2c1"},
				{"GET", "/%s/{id}/history", "/49f2c1/history"},
				{"GET", "/%s/{id}/lines/{line}", "/49f2c1/lines/17"},
				{"GET", "/%s/search", "/search"},
			} {
				pattern := base + fmt.Sprintf(r.path, thing)
				routes = append(routes, Route{ID: len(routes), Pattern: pattern, Methods: []string{r.method}})
				hits = append(hits, r.method+" "+strings.NewReplacer("{id}", "49f2c1", "{line}", "17").Replace(pattern))
				misses = append(misses, "GET "+base+"/"+thing+"/49f2c1/lines/17/parts")
			}
		}
	}
	return routes, hits, misses
}

func benchmarkMatch(b *testing.B, routes []Route, lines []string, found bool) {
	table, conflicts := New(routes)
	if len(conflicts) > 0 {
		b.Fatal(conflicts[0])
	}
	// The table is visited in random order, but the requests lie one behind the
	// other, since in life their bytes have just been read.
	list, arena := make([]Request, 1<<14), make([]byte, 0, 1<<21)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range list {
		list[i] = *request(lines[random.IntN(len(lines))])
		list[i].Method = strings.Clone(list[i].Method)
		for _, field := range []*[]byte{&list[i].Host, &list[i].Path} {
			at := len(arena)
			arena = append(arena, *field...)
			*field = arena[at:len(arena):len(arena)]
		}
	}
	params, at := make(Params, 0, 8), 0
	b.ReportAllocs()
	for b.Loop() {
		at++
		r := &list[at&(len(list)-1)]
		if m := table.Match(r, &params); m.Found != found {
			b.Fatal(string(r.Path), m)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	routes, hits, misses := bigTable()
	b.Run("10000/hit", func(b *testing.B) { benchmarkMatch(b, routes, hits, true) })
	b.Run("10000/miss", func(b *testing.B) { benchmarkMatch(b, routes, misses, false) })
	b.Run("10000/one", func(b *testing.B) { benchmarkMatch(b, routes, hits[5000:5001], true) })
	b.Run("github/hit", func(b *testing.B) { benchmarkMatch(b, githubRoutes(), githubHits(), true) })

	hosted := make([]Route, len(routes))
	for i, r := range routes {
		r.Hosts = []string{"api.example.com", "*.api.example.com"}
		hosted[i] = r
	}
	for _, host := range []string{"api.example.com", "eu.api.example.com"} {
		lines := make([]string, len(hits))
		for i, line := range hits {
			method, path, _ := strings.Cut(line, " ")
			lines[i] = method + " //" + host + path
		}
		b.Run("10000/hosts/"+host, func(b *testing.B) { benchmarkMatch(b, hosted, lines, true) })
	}
}

func BenchmarkNew(b *testing.B) {
	routes, _, _ := bigTable()
	onePath := make([]Route, len(routes))
	for i := range onePath {
		onePath[i] = Route{ID: i, Pattern: "/graphql", Headers: map[string]string{"X-Tenant": fmt.Sprint("t", i), fmt.Sprint("X-", i): "1"}}
	}
	same := make([]Route, len(routes))
	for i := range same {
		same[i] = Route{ID: i, Pattern: "/same/{id}"}
	}
	for _, bb := range []struct {
		name   string
		routes []Route
	}{{"10000", routes}, {"10000 on one path", onePath}, {"10000 in conflict", same}} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				New(bb.routes)
			}
		})
	}
}

func BenchmarkCanonicalize(b *testing.B) {
	for _, tt := range []struct{ name, path string }{
		{"canonical", "/accounts/billing-service-17/v3/orders/49f2c1/lines/17"},
		{"encoded", "/accounts/billing%20service/v3/orders/49f2c1"},
		{"rewritten", "/accounts/./billing-service-17//v3/%6frders/49f2c1"},
	} {
		b.Run(tt.name, func(b *testing.B) {
			raw, dst := []byte(tt.path), make([]byte, 0, 256)
			b.ReportAllocs()
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				if _, err := Canonicalize(dst, raw, PathOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestTenThousandRoutesStaySmall bounds the memory of a table.
func TestTenThousandRoutesStaySmall(t *testing.T) {
	routes, _, _ := bigTable()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	table, _ := New(routes)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > 4<<20 {
		t.Errorf("10,000 routes take %d bytes, want at most 4 MiB", used)
	} else {
		t.Logf("10,000 routes take %d bytes: %d nodes, %d edges, %d entries, %d labels", used, len(table.nodes), len(table.edges), len(table.entries), len(table.labels))
	}
	runtime.KeepAlive(routes)
	runtime.KeepAlive(table)
}
