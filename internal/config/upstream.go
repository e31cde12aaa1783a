package config

// Upstream is one kind of target and how to talk to it. Exactly one of
// `targets`, `lambda` and `respond` is given.
type Upstream struct {
	// The servers that share the work. Each is a URL, or a URL with a weight.
	Targets []Target `yaml:"targets"`
	// How a target is chosen: the better of two picked at random (`p2c`), in turn, the
	// one with the fewest requests, or the same one for the same key (`hash`, with bounded load).
	Balance string `yaml:"balance" default:"p2c" enum:"p2c|round_robin|least_requests|hash"`
	// The key of `balance: hash`. `client` is the caller's identity, or its address when it has none.
	HashOn string `yaml:"hash_on" default:"client" enum:"client|ip|path|header:NAME|query:NAME|cookie:NAME"`
	// The protocol toward the targets. `auto` is HTTP/1.1 in plain text, and what TLS negotiates.
	Protocol string `yaml:"protocol" default:"auto" enum:"http1|h2|h2c|auto"`
	// The Host that targets see: the client's, the target's own, or a fixed name.
	// Default: `target` for https targets with a name, else `client`.
	Host string `yaml:"host" check:"upstream_host"`
	// How long connecting to a target may take, TLS included.
	ConnectTimeout Duration `yaml:"connect_timeout" default:"1s"`
	// How long one try may take, from sending the request to the response's head. 0: as long as the route's `timeout`.
	Timeout Duration `yaml:"timeout" default:"0s"`
	// Connections open to each target at one time. 0: no limit.
	MaxConnections int `yaml:"max_connections" default:"0" min:"0"`
	// Which failed tries are made again. Absent: none, but for idle connections that the target had closed.
	Retry *Retry `yaml:"retry"`
	// Send a second request when the first is slow. Absent: off.
	Hedge *Hedge `yaml:"hedge"`
	// Ask the targets whether they are well. Absent: off.
	Health *Health `yaml:"health"`
	// Leave out targets that fail requests. Absent: off.
	Outlier *Outlier `yaml:"outlier"`
	// Refuse requests at once while the upstream is failing. Absent: off.
	Breaker *Breaker `yaml:"breaker"`
	// TLS toward https targets.
	TLS UpstreamTLS `yaml:"tls"`
	// An AWS Lambda function instead of servers.
	Lambda *Lambda `yaml:"lambda"`
	// A fixed answer instead of servers.
	Respond *Respond `yaml:"respond"`
}

// Target is one server of an upstream. As a short form it is its URL alone.
type Target struct {
	// `http://` or `https://`, a host, a port if it is not the scheme's, and a path if
	// requests go below one. A name is resolved again as its addresses change.
	URL string `yaml:"url" need:"true" check:"target"`
	// The share of the requests among the targets. 0: none.
	Weight int `yaml:"weight" default:"1" min:"0" max:"1000000"`
}

// Retry says which failed tries are made again, on another target if there is
// one. Only idempotent methods are retried, or requests of which nothing was sent.
type Retry struct {
	// Tries after the first.
	Attempts int `yaml:"attempts" default:"2" min:"0" max:"10"`
	// What is a failure: no connection, a connection that broke before the response's
	// head, or a status of the upstream's.
	On []string `yaml:"on" default:"connect, reset, 502, 503, 504" enum:"connect|reset|STATUS"`
	// Retries as a share of all requests, so that they do not multiply an overload.
	Budget Percent `yaml:"budget" default:"20%"`
}

// Hedge sends a second request to another target when the first is slow, and takes the first answer.
type Hedge struct {
	// How long to wait for the first.
	After Duration `yaml:"after" default:"50ms" min:"1ms"`
	// Hedges as a share of all requests.
	Budget Percent `yaml:"budget" default:"5%"`
}

// Health asks every target in turn whether it is well.
type Health struct {
	// The path that is asked for; a 2xx or 3xx is well.
	Path string `yaml:"path" default:"/healthz" check:"slash"`
	// The time between two questions.
	Interval Duration `yaml:"interval" default:"5s" min:"100ms"`
	// How long an answer may take.
	Timeout Duration `yaml:"timeout" default:"1s" min:"1ms"`
	// Good answers in a row that bring a target back.
	Healthy int `yaml:"healthy" default:"2" min:"1"`
	// Bad answers in a row that take a target out.
	Unhealthy int `yaml:"unhealthy" default:"3" min:"1"`
}

// Outlier leaves out a target that fails the requests of clients.
type Outlier struct {
	// Failures in a row that take a target out.
	ConsecutiveFailures int `yaml:"consecutive_failures" default:"5" min:"1"`
	// For how long, times the number of times it was taken out.
	Eject Duration `yaml:"eject" default:"30s" min:"1ms"`
	// The largest share of the targets that may be out at one time.
	MaxEjected Percent `yaml:"max_ejected" default:"50%"`
}

// Breaker refuses requests at once while an upstream is failing.
type Breaker struct {
	// Requests that may wait for a connection. 0: none waits.
	MaxPending int `yaml:"max_pending" default:"1024" min:"0"`
	// The share of failures that opens the breaker.
	ErrorRate Percent `yaml:"error_rate" default:"50%"`
	// The time over which failures are counted.
	Window Duration `yaml:"window" default:"10s" min:"1s"`
	// How long the breaker stays open before it tries again.
	Open Duration `yaml:"open" default:"5s" min:"1ms"`
}

// UpstreamTLS is how the gateway speaks TLS to targets. Certificates are always verified.
type UpstreamTLS struct {
	// A PEM file of the authorities to trust instead of the system's.
	CA string `yaml:"ca" check:"file"`
	// A PEM file: the gateway's own certificate, for mutual TLS. Needs `key`.
	Cert string `yaml:"cert" check:"file"`
	// A PEM file: the key of `cert`.
	Key string `yaml:"key" check:"file"`
	// The name to ask for and to verify, when it is not the target's.
	ServerName string `yaml:"server_name" check:"hostname"`
}

// Lambda is an AWS Lambda function that answers requests.
type Lambda struct {
	// The function's name or ARN.
	Function string `yaml:"function" need:"true"`
	// The AWS region.
	Region string `yaml:"region"`
	// Another address than AWS's own, such as a local emulator's.
	Endpoint string `yaml:"endpoint" check:"url"`
	// The version of the proxy event.
	Payload string `yaml:"payload" default:"1.0" enum:"1.0|2.0"`
	// How long the function may take.
	Timeout Duration `yaml:"timeout" default:"29s"`
}

// Respond is an answer that needs no upstream.
type Respond struct {
	// The status.
	Status int `yaml:"status" default:"200" min:"200" max:"599"`
	// The header fields.
	Headers map[string]string `yaml:"headers" keys:"free_header" check:"header_value"`
	// The body.
	Body string `yaml:"body"`
}
