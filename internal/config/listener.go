package config

// Listener is an address to accept connections on.
type Listener struct {
	// The name that `apis[].listeners` uses. Default: the address as written.
	Name string `yaml:"name" check:"name"`
	// The address, `host:port`; without a host every interface, `[::1]:8080` for IPv6.
	Address string `yaml:"address" need:"true" check:"address"`
	// `https` answers every request with 308 to the same URL over HTTPS, and serves no routes.
	Redirect string `yaml:"redirect" enum:"https"`
	// TLS on this listener. Absent: plain text.
	TLS *ListenerTLS `yaml:"tls"`
}

// ListenerTLS makes a listener speak TLS 1.2 and 1.3.
type ListenerTLS struct {
	// Chains and keys. The one whose names fit the client's SNI is used, exact names
	// before wildcards, else the first. Reloaded when the files change.
	Certificates []Certificate `yaml:"certificates" need:"true"`
	// A PEM file of the authorities that sign client certificates (mutual TLS).
	ClientCA string `yaml:"client_ca" check:"file"`
	// Whether clients must show a certificate signed by `client_ca`: `optional` admits
	// clients without one, `required` does not. Default: `required` with `client_ca`, else `none`.
	ClientAuth string `yaml:"client_auth" enum:"none|optional|required"`
}

// Certificate is a certificate chain and its key.
type Certificate struct {
	// A PEM file: the certificate, then its intermediates.
	Cert string `yaml:"cert" need:"true" check:"file"`
	// A PEM file: the private key of the certificate.
	Key string `yaml:"key" need:"true" check:"file"`
}

// Limits are bounds on what clients may use. In all of them 0 is no limit.
type Limits struct {
	// From the first byte of a request's head to its end; before it, idle_timeout
	// counts. Slower heads are answered with 408 and cut.
	HeaderTimeout Duration `yaml:"header_timeout" default:"5s"`
	// The longest wait for the next byte of a request body. Then 408, or the connection is cut.
	BodyIdleTimeout Duration `yaml:"body_idle_timeout" default:"10s"`
	// Bytes a second that a body must keep up, averaged after a grace of 5s, in both
	// directions. Slower bodies are answered with 408 or cut.
	MinBodyRate Size `yaml:"min_body_rate" default:"1KiB"`
	// How long a connection may be open with no request on it.
	IdleTimeout Duration `yaml:"idle_timeout" default:"60s"`
	// From the end of the request's head to the head of the response. Then 504, or 408
	// when it was the client's body that was late. A route's `timeout` replaces it.
	RequestTimeout Duration `yaml:"request_timeout" default:"30s"`
	// The longest time a client may take no byte of a response that is ready for it.
	WriteIdleTimeout Duration `yaml:"write_idle_timeout" default:"30s"`
	// The longest silence, in both directions, of an upgraded connection such as a WebSocket.
	TunnelIdleTimeout Duration `yaml:"tunnel_idle_timeout" default:"5m"`
	// On SIGTERM: how long listeners keep accepting after readiness has turned 503.
	DrainDelay Duration `yaml:"drain_delay" default:"0s"`
	// On SIGTERM, after the delay: how long requests in flight may take to finish before they are cut.
	DrainTimeout Duration `yaml:"drain_timeout" default:"30s"`
	// The request line and all header fields of one request. More: 431.
	MaxHeaderSize Size `yaml:"max_header_size" default:"32KiB"`
	// The body of one request, counted while it streams. More: 413. Routes can override it.
	MaxBodySize Size `yaml:"max_body_size" default:"10MiB"`
	// Client connections open at one time, all listeners together.
	MaxConnections int `yaml:"max_connections" default:"20000" min:"0"`
	// Client connections open at one time from one address (IPv6: one /64).
	MaxConnectionsPerIP int `yaml:"max_connections_per_ip" default:"0" min:"0"`
	// Memory for bodies that a policy must see whole, all requests together. Beyond it: 503.
	BufferMemory Size `yaml:"buffer_memory" default:"512MiB"`
	// Bounds on the requests at work at one time.
	Admission Admission `yaml:"admission"`
	// Failed authentications, counted before any credential is checked. More: 429.
	AuthFailures AuthFailures `yaml:"auth_failures"`
}

// Admission bounds the requests at work at one time. What it cannot admit is
// answered with 503 `overloaded`.
type Admission struct {
	// Requests at work at one time. 0 is meant to be adaptive; until that is built it is no limit.
	MaxInFlight int `yaml:"max_in_flight" default:"0" min:"0"`
	// Requests that may wait for their turn. 0: none waits.
	Queue int `yaml:"queue" default:"10000" min:"0"`
	// How long one may wait. 0: as long as its `timeout`.
	QueueTimeout Duration `yaml:"queue_timeout" default:"50ms"`
}

// AuthFailures limits guessing at credentials.
type AuthFailures struct {
	// Failed attempts that are admitted.
	Rate Rate `yaml:"rate" default:"20/m"`
	// Failed attempts that may come at once.
	Burst int64 `yaml:"burst" default:"100" min:"1"`
	// What is counted apart.
	Per []string `yaml:"per" default:"ip" enum:"ip|global|header:NAME"`
}

// Admin is the admin API, with probes and metrics.
type Admin struct {
	// The admin API's address, `host:port`. Empty: no admin API. An address that is not
	// loopback needs a `token`.
	Address string `yaml:"address" default:"127.0.0.1:9901" check:"address"`
	// The bearer token of the admin API. Empty: only loopback clients, and no browsers.
	Token Secret `yaml:"token" default:"${SLUICE_ADMIN_TOKEN:-}"`
	// A second address that serves only `/healthz` and `/readyz`, without a token.
	Probes string `yaml:"probes" check:"address"`
	// A second address that serves only `/metrics`, without a token.
	Metrics string `yaml:"metrics" check:"address"`
	// Serve `/debug/pprof` on the admin API.
	Pprof bool `yaml:"pprof"`
}
