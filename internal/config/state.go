package config

// State is where what policies remember is kept.
type State struct {
	// A folder for what outlives the gateway: the use of quotas, clients and keys made through
	// the admin API, and tokens, when they are not in `redis`. It is made, for the gateway's user alone, when something needs
	// it, and belongs to one gateway at a time.
	Dir string `yaml:"dir" default:"data" check:"place"`
	// State shared by several gateways: rate limits and quotas, clients, keys and tokens, and the
	// responses of `cache.shared`. Absent: each keeps its own.
	Redis *Redis `yaml:"redis"`
}

// Redis is a Redis or Valkey server, single, behind sentinels, or a cluster.
type Redis struct {
	// `host:port` of the server, of several of a cluster, or of the sentinels.
	Addresses []string `yaml:"addresses" need:"true" check:"host_port"`
	// The master's name, when the addresses are sentinels.
	Sentinel string `yaml:"sentinel"`
	// The user of Redis ACLs.
	Username string `yaml:"username"`
	// The user's password.
	Password Secret `yaml:"password"`
	// TLS to the server. `{}` or absent: plain text.
	TLS *ClientTLS `yaml:"tls"`
	// The budget for one decision on the request path. Beyond it `on_fault` decides.
	Timeout Duration `yaml:"timeout" default:"5ms" min:"1ms"`
	// The beginning of every key.
	Prefix string `yaml:"prefix" default:"sluice:"`
}

// ClientTLS is how the gateway speaks TLS to a store.
type ClientTLS struct {
	// Speak TLS. Default: true when any other key is given.
	Enabled *bool `yaml:"enabled"`
	// A PEM file of the authorities to trust instead of the system's.
	CA string `yaml:"ca" check:"file"`
	// A PEM file: the gateway's own certificate, for mutual TLS. Needs `key`.
	Cert string `yaml:"cert" check:"file"`
	// A PEM file: the key of `cert`.
	Key string `yaml:"key" check:"file"`
	// The name to ask for and to verify, when it is not the address's.
	ServerName string `yaml:"server_name" check:"hostname"`
}

// Cache is the stores behind the routes' `cache` blocks.
type Cache struct {
	// Level 1, in this process: what all responses kept here may take, with what is kept
	// about them.
	Memory Size `yaml:"memory" default:"256MiB" min:"1MiB"`
	// Level 2, in `state.redis`: responses that several gateways share, and that outlive a restart.
	Shared bool `yaml:"shared"`
	// The largest body of a response that is kept, at most an eighth of `memory`. Default: `1MiB`,
	// or that eighth when it is less.
	MaxObject Size `yaml:"max_object" min:"1KiB"`
	// Level 3: caches of others, in front of the gateway.
	CDN *CDN `yaml:"cdn"`
}

// CDN is what the gateway tells the caches in front of it.
type CDN struct {
	// The targeted cache control header to send (RFC 9213) on routes with a `cache`. One that
	// the upstream sends itself is left as it is.
	Header string `yaml:"header" default:"CDN-Cache-Control" check:"header"`
	// URLs that are told what was purged: a POST with the JSON of the purge, tried up to 5 times.
	// https, or a loopback address; redirects are not followed.
	PurgeHooks []string `yaml:"purge_hooks" check:"url"`
}
