package config

import "net/netip"

// File is a whole configuration, complete: includes merged, variables expanded,
// defaults filled in and the defaults of every api merged into its routes. It is
// data: nothing in it changes after Load, and it may be shared and kept. Paths
// of files in it are absolute.
//
// The fields of this and all other types of the package stand in the order of
// the canonical form (Format). Their tags drive decoding, checking, the schema
// and the reference manual alike; tags.go says what they mean.
type File struct {
	// Files to merge: each may hold `apis`, `routes` and `upstreams` and nothing
	// else. A pattern with `*`, `?` or `[…]` may match any number of files, taken in
	// the order of their names; a plain path must exist. Relative to this file.
	Include []string `yaml:"include"`
	// The addresses to accept connections on. Without any: one plain listener on `:8080`.
	Listeners []Listener `yaml:"listeners"`
	// The networks whose `X-Forwarded-*`, `Forwarded`, `X-Real-IP` and `X-Request-Id`
	// are believed, read from right to left. From everybody else they are removed.
	TrustedProxies []netip.Prefix `yaml:"trusted_proxies"`
	// Bounds on what clients may use. 0 is no limit.
	Limits Limits `yaml:"limits"`
	// The admin API, the probes and the metrics.
	Admin Admin `yaml:"admin"`
	// Where keys, quotas, tokens and counters are kept.
	State State `yaml:"state"`
	// The clients known by name. A request with one of their keys in `X-Api-Key` is theirs;
	// with any other it is nobody's.
	Clients []Client `yaml:"clients"`
	// What clients are entitled to, by the plan's name.
	Plans map[string]*Plan `yaml:"plans" keys:"name"`
	// The plan of a client that names none. Empty: no plan limits.
	DefaultPlan string `yaml:"default_plan"`
	// Named sets of permissions.
	Roles map[string]*Role `yaml:"roles" keys:"name"`
	// Ways to find out who is calling, by the name that `auth` lists use.
	Authenticators map[string]*Authenticator `yaml:"authenticators" keys:"name"`
	// The gateway's own token issuer. Off when absent.
	Tokens *Tokens `yaml:"tokens"`
	// Rate limits that routes name. One counter is shared by all routes that name it.
	RateLimits map[string]*RateLimit `yaml:"rate_limits" keys:"name"`
	// The stores behind the routes' `cache`.
	Cache Cache `yaml:"cache"`
	// The targets that routes send requests to, by name.
	Upstreams map[string]*Upstream `yaml:"upstreams" keys:"name"`
	// Groups of routes with hosts and a base path in common.
	APIs []API `yaml:"apis"`
	// Routes outside any api: every host, no base path.
	Routes []Route `yaml:"routes"`
	// What the gateway writes about its work.
	Log Log `yaml:"log"`
	// The audit log. Off when absent.
	Audit *Audit `yaml:"audit"`
	// Distributed tracing. Off when absent.
	Tracing *Tracing `yaml:"tracing"`

	// doc holds the trees that the fields were read from, for Diagnose, Files and Source.
	doc *document
}
