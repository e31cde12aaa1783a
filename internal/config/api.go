package config

import "net/netip"

// API is a group of routes under hosts and a base path.
type API struct {
	// The name, unique in the file, that logs, metrics and plans use.
	Name string `yaml:"name" check:"name"`
	// The hosts served, `api.example.com` or `*.example.com` for exactly one more label.
	// Ports are not compared. Absent: every host.
	Hosts []string `yaml:"hosts" check:"host"`
	// The beginning of every path of the api, in whole segments. Taken off before routing
	// and before the upstream.
	BasePath string `yaml:"base_path" check:"base_path"`
	// `false` keeps the base path on the way to the upstream. Default: true.
	StripBasePath *bool `yaml:"strip_base_path"`
	// The stage, as in AWS API Gateway, for policies, events and logs.
	Stage string `yaml:"stage"`
	// Values for the stage, as in AWS API Gateway, for templates and events. None of
	// those is built yet, so for now they are only kept.
	Variables map[string]string `yaml:"variables"`
	// A JSON file: an IAM policy document that every request of the api must pass.
	ResourcePolicy string `yaml:"resource_policy" check:"file"`
	// An OpenAPI document (3.0 or 3.1) that the api's requests are checked against.
	OpenAPI string `yaml:"openapi" check:"file"`
	// The listeners, by name, that serve the api. Absent: all of them.
	Listeners []string `yaml:"listeners"`
	// Route keys that hold for every route of the api. A key that a route gives itself
	// replaces the same key here whole, but for `rate_limit` and `ip`, which add to it.
	Defaults Route `yaml:"defaults"`
	// The routes. Their order never matters: the most specific one wins.
	Routes []Route `yaml:"routes"`
}

// Route is one set of requests and what becomes of them.
type Route struct {
	// The name, unique in its api, that logs, metrics, headers and plans use.
	Name string `yaml:"name" check:"name"`
	// The methods. Absent: any. GET serves HEAD too, unless HEAD has a route.
	Methods []string `yaml:"methods" check:"method"`
	// The path: `{name}` is one segment, never empty; `{name...}` at the end is the rest, which may be.
	Path string `yaml:"path" check:"route_path"`
	// `keep` admits `;` in path segments, which is a 400 otherwise.
	PathParameters string `yaml:"path_parameters" enum:"keep|refuse"`
	// `keep` admits `%2F` in path segments, which is a 400 otherwise.
	EncodedSlash string `yaml:"encoded_slash" enum:"keep|refuse"`
	// Further conditions. Of routes with the same path the one with more of them wins.
	When *Match `yaml:"when" also:"match"`
	// The addresses that may call.
	IP *IPRules `yaml:"ip"`
	// Cross-origin calls from browsers. Off when absent.
	CORS *CORS `yaml:"cors"`
	// The web application firewall. Off when absent.
	WAF *WAF `yaml:"waf"`
	// Who may call: the authenticators, of which the first that finds its credential decides.
	// `[]` is open to all.
	Auth *Auth `yaml:"auth"`
	// What the caller must be entitled to.
	Authorize *Authorize `yaml:"authorize"`
	// The rate limits, by name or in place. All of them must admit the request.
	RateLimit []RateLimitUse `yaml:"rate_limit"`
	// What requests must look like.
	Validate *Validate `yaml:"validate"`
	// Answer a repeated `Idempotency-Key` with the first answer. Off when absent.
	Idempotency *Idempotency `yaml:"idempotency"`
	// What is changed on the way to the upstream.
	Request *RequestRewrite `yaml:"request"`
	// Answer from the cache. Off when absent.
	Cache *RouteCache `yaml:"cache"`
	// Where requests go: the name of an upstream, or a split over several by weight.
	Upstream []WeightedName `yaml:"upstream"`
	// From the request's head to the response's head. Replaces `limits.request_timeout`. 0: no limit.
	Timeout *Duration `yaml:"timeout"`
	// Replaces `limits.max_body_size`. 0: no limit.
	MaxBodySize *Size `yaml:"max_body_size"`
	// What is changed on the way back to the client.
	Response *ResponseRewrite `yaml:"response"`
}

// Match is further conditions of a route: all must hold.
type Match struct {
	// Header fields and the value each must have.
	Headers map[string]string `yaml:"headers" keys:"header" check:"header_value"`
	// Query parameters and the value each must have.
	Query map[string]string `yaml:"query"`
}

// IPRules admit or refuse client addresses. `deny` wins; with `allow` only what it lists is admitted.
type IPRules struct {
	// Networks or addresses that may call. Absent or empty: all.
	Allow []netip.Prefix `yaml:"allow"`
	// Networks or addresses that may not call.
	Deny []netip.Prefix `yaml:"deny"`
	// `shadow` only logs what it would refuse.
	Mode string `yaml:"mode" default:"enforce" enum:"enforce|shadow"`
}

// WeightedName is an upstream and its share of the requests. As a short form it is the name alone.
type WeightedName struct {
	// The upstream's name.
	Name string `yaml:"name" need:"true"`
	// The share of the requests, relative to the other weights. 0: none.
	Weight int `yaml:"weight" default:"1" min:"0" max:"1000000"`
}

// RateLimitUse is a limit that a route applies: the name of one in `rate_limits`, or a limit in place.
type RateLimitUse struct {
	// The limit's name, when it is named.
	Name string
	// The limit itself, when it stands in place. It belongs to its route alone.
	Inline *RateLimit
}

// Auth is who may call. As a short form it is the list of `use` alone.
type Auth struct {
	// Alternatives: the name of an authenticator, `anonymous` for nobody, or a list of names
	// that must all agree. The first that finds its credential decides.
	Use [][]string `yaml:"use"`
	// `shadow` only logs what it would refuse.
	Mode string `yaml:"mode" default:"enforce" enum:"enforce|shadow"`
}

// Open reports whether everybody may call.
func (a *Auth) Open() bool { return a == nil || len(a.Use) == 0 }

// Authorize is what a caller must be entitled to. All keys that are given must hold.
type Authorize struct {
	// Permissions that the caller must all have.
	Permissions []string `yaml:"permissions"`
	// Roles of which the caller must have one.
	Roles []string `yaml:"roles"`
	// A CEL expression over client, claims, request, params and now.
	When string `yaml:"when"`
	// `shadow` only logs what it would refuse.
	Mode string `yaml:"mode" default:"enforce" enum:"enforce|shadow"`
}
