//go:build linux

package trial

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Scenario is a kind of load.
type Scenario struct {
	Name  string
	About string
	Conns []int // measured with each; the first is the usual one

	Streams int  // HTTP/2, so many streams on each connection
	TLS     bool //
	Answer  bool // the gateway answers by itself
	Upload  bool // POST bodies of uploadSize to the sink
	Large   bool // 16 KiB responses
	Many    bool // 10,000 routes
	Cached  bool // answers may be stored, and come from the gateway's cache
	// Limit is where a rate limit for each of limitKeys API keys is counted:
	// "local", "leased" or "exact"; empty: there is none. It never refuses at this
	// load. Every gateway also runs once without it, to tell what it adds.
	Limit string
	// Identity is how the caller is known, and counted by: "key" by an API key, "jwt" by a
	// token of its own beside the key, which is what gateways without tokens count by.
	Identity string
	// Budgeted scenarios have their latency measured in every round, the others in
	// the first three.
	Budgeted bool
}

// Scenarios are all of them, in the order of the report.
func Scenarios() []Scenario {
	return []Scenario{
		{
			Name: "forward", Conns: []int{64, 1, 256}, Budgeted: true,
			About: "GET /users/{id}, 1.1 KB of JSON from the origin, HTTP/1.1 with keep-alive on both sides.",
		},
		{
			Name: "respond", Conns: []int{64}, Answer: true,
			About: "The gateway answers the same 1.1 KB by itself, without an origin. What is added to latency is over the origin's answer to the same request.",
		},
		{
			Name: "forward-16KiB", Conns: []int{64}, Large: true,
			About: "GET of 16 KiB from the origin.",
		},
		{
			Name: "upload-1MiB", Conns: []int{64}, Upload: true,
			About: "POST of 1 MiB to a sink that reads it all, checks the length and then answers. Bodies are streamed.",
		},
		{
			Name: "10k-routes", Conns: []int{64}, Many: true,
			About: "As forward, with 10,000 routes (/svcN/resM/{id}, 100 by 100), requests spread evenly over all of them.",
		},
		{
			Name: "tls-forward", Conns: []int{64}, TLS: true,
			About: "As forward, with TLS 1.3 (AES-128-GCM, P-256) to the client, on connections that stay open. The origin is plain, alone too.",
		},
		{
			Name: "h2-forward", Conns: []int{16}, Streams: 4, TLS: true,
			About: "As forward, with HTTP/2 over TLS to the client: 64 requests under way. The origin speaks plain HTTP/1.1, alone too.",
		},
		{
			Name: "limit-local", Conns: []int{64}, Limit: "local",
			About: "As forward, with a limit of 1,000,000/s for each of 1,000 values of X-Tenant in turn: a token bucket in Sluice's memory, nginx's limit_req, HAProxy's stick table.",
		},
		{
			Name: "limit-leased", Conns: []int{64}, Limit: "leased",
			About: "As limit-local, but Sluice shares the limit with others through a Redis beside it, by leases. " + aloneWithLimit,
		},
		{
			Name: "limit-exact", Conns: []int{64}, Limit: "exact",
			About: "As limit-local, but Sluice asks a Redis beside it about every request. " + aloneWithLimit,
		},
		{
			Name: "key-limit", Conns: []int{64}, Limit: "local", Identity: "key",
			About: "As forward, for 1,000 clients in turn, each with an API key that is looked up and a token bucket of its own (1,000,000/s): clients and keys in Sluice, a map and limit_req in nginx, a map and a stick table in HAProxy. Other keys are refused.",
		},
		{
			Name: "key-limit-hit", Conns: []int{64}, Limit: "local", Identity: "key", Cached: true,
			About: "As key-limit, but everything comes from the gateway's cache: 512 objects of 1.1 KB that the origin lets be stored for an hour, the same for all clients. nginx has proxy_cache, HAProxy its cache. What the key and the limit add is over the same hits without them.",
		},
		{
			Name: "hit", Conns: []int{64}, Cached: true,
			About: "The same hits for anybody, without key and limit.",
		},
		{
			Name: "jwt-limit", Conns: []int{64}, Limit: "local", Identity: "jwt",
			About: "As key-limit, but Sluice knows the clients by tokens signed with ES256, each verified once and then remembered. nginx and HAProxy, which cannot do this without modules, look up the API key that stands beside the token.",
		},
	}
}

const aloneWithLimit = "nginx and HAProxy share with nobody: they count as in limit-local. What Redis itself uses is shown apart."

const (
	host       = "bench.example"
	usersRoute = "/users/"
	filesRoute = "/files/"
	sinkRoute  = "/upload/"
	// cachedRoute is served by the origin as usersRoute is, with leave to store.
	cachedRoute = "/cached/"

	services  = 100
	resources = 100

	limitKeys = 1000
	keyField  = "X-Api-Key"
	// tenantField is what is counted by where nobody is authenticated. Its values are no
	// secrets: Sluice hashes what a header of credentials holds, the rivals do not.
	tenantField = "X-Tenant"
)

// routes are the path prefixes that a gateway serves.
func (s *Scenario) routes() []string {
	switch {
	case s.Large:
		return []string{filesRoute}
	case s.Upload:
		return []string{sinkRoute}
	case s.Cached:
		return []string{cachedRoute}
	case s.Many:
		var all []string
		for i := range services {
			for j := range resources {
				all = append(all, fmt.Sprintf("/svc%d/res%d/", i, j))
			}
		}
		return all
	}
	return []string{usersRoute}
}

// paths are what is asked for, in turn. Those of many routes are shuffled, the
// same way in every run.
func (s *Scenario) paths() []string {
	routes := s.routes()
	n := len(routes)
	if n == 1 {
		n = 512
	}
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%s%d", routes[i%len(routes)], 1000+i)
	}
	random := rand.New(rand.NewPCG(1, 2))
	random.Shuffle(n, func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// key is the i-th API key.
func key(i int) string { return fmt.Sprintf("bench-key-%04d-of-one-client", i%limitKeys) }

// answer is a JSON document of exactly n bytes. It can stand between single
// quotes in any of the products' configurations.
func answer(n int) string {
	const begin, end = `{"id":1042,"name":"Ada Lovelace","email":"ada@example.com","roles":["reader","writer"],"bio":"`, `"}`
	const text = "She wrote the first program for a machine that was never built. "
	fill := n - len(begin) - len(end)
	return begin + strings.Repeat(text, fill/len(text)+1)[:fill] + end
}

const (
	usualAnswer = 1100
	largeAnswer = 16 << 10
	uploadSize  = 1 << 20
)
