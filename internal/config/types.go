package config

import (
	"net/netip"
	"time"
)

// Duration is a length of time such as 500ms, 5s, 1h or 7d. Text is how it was written.
type Duration struct {
	time.Duration
	Text string
}

// Size is a number of bytes such as 64KiB, 10MiB or 1GiB.
type Size struct {
	Bytes int64
	Text  string
}

// Rate is N events in Per: 100/s, 300/90s.
type Rate struct {
	N    int64
	Per  time.Duration
	Text string
}

// Percent is a share such as 20%, as a number from 0 to 1.
type Percent struct {
	Of   float64
	Text string
}

// Secret is a value that is never printed.
type Secret struct{ value string }

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return s.value }

// String hides the secret.
func (s Secret) String() string { return "***" }

// File is a whole configuration. It is data: nothing in it changes after Load.
type File struct {
	Listeners      []Listener           `yaml:"listeners"`
	TrustedProxies []netip.Prefix       `yaml:"trusted_proxies"`
	Limits         Limits               `yaml:"limits"`
	Admin          Admin                `yaml:"admin"`
	Upstreams      map[string]*Upstream `yaml:"upstreams"`
	APIs           []API                `yaml:"apis"`
	Routes         []Route              `yaml:"routes"`
	Log            Log                  `yaml:"log"`
}

// Listener is an address to accept connections on.
type Listener struct {
	Name     string       `yaml:"name"`
	Address  string       `yaml:"address"`
	Redirect string       `yaml:"redirect"` // "https": answer 308 to the same URL there
	TLS      *ListenerTLS `yaml:"tls"`
}

// ListenerTLS makes a listener speak TLS.
type ListenerTLS struct {
	Certificates []Certificate `yaml:"certificates"`
	ClientCA     string        `yaml:"client_ca"`
	ClientAuth   string        `yaml:"client_auth"` // none | optional | required
}

// Certificate is a PEM certificate chain and its key.
type Certificate struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// Limits bound what clients may use. 0 is no limit.
type Limits struct {
	HeaderTimeout       Duration  `yaml:"header_timeout"`
	BodyIdleTimeout     Duration  `yaml:"body_idle_timeout"`
	MinBodyRate         Size      `yaml:"min_body_rate"`
	IdleTimeout         Duration  `yaml:"idle_timeout"`
	RequestTimeout      Duration  `yaml:"request_timeout"`
	WriteIdleTimeout    Duration  `yaml:"write_idle_timeout"`
	TunnelIdleTimeout   Duration  `yaml:"tunnel_idle_timeout"`
	DrainDelay          Duration  `yaml:"drain_delay"`
	DrainTimeout        Duration  `yaml:"drain_timeout"`
	MaxHeaderSize       Size      `yaml:"max_header_size"`
	MaxBodySize         Size      `yaml:"max_body_size"`
	MaxConnections      int       `yaml:"max_connections"`
	MaxConnectionsPerIP int       `yaml:"max_connections_per_ip"`
	BufferMemory        Size      `yaml:"buffer_memory"`
	Admission           Admission `yaml:"admission"`
}

// Admission bounds the exchanges at work at one time.
type Admission struct {
	MaxInFlight  int      `yaml:"max_in_flight"`
	Queue        int      `yaml:"queue"`
	QueueTimeout Duration `yaml:"queue_timeout"`
}

// Admin is the admin API's listener.
type Admin struct {
	Address string `yaml:"address"`
	Token   Secret `yaml:"token"`
	Probes  string `yaml:"probes"`
	Metrics string `yaml:"metrics"`
	Pprof   bool   `yaml:"pprof"`
}

// Upstream is one kind of target and how to talk to it. Exactly one of Targets,
// Lambda and Respond is given.
type Upstream struct {
	Targets        []Target    `yaml:"targets"`
	Balance        string      `yaml:"balance"` // p2c | round_robin | least_requests | hash
	HashOn         string      `yaml:"hash_on"` // client | ip | path | header:NAME | query:NAME | cookie:NAME
	Protocol       string      `yaml:"protocol"`
	Host           string      `yaml:"host"` // client | target | a name
	ConnectTimeout Duration    `yaml:"connect_timeout"`
	Timeout        Duration    `yaml:"timeout"`
	MaxConnections int         `yaml:"max_connections"`
	Retry          *Retry      `yaml:"retry"`
	TLS            UpstreamTLS `yaml:"tls"`
	Respond        *Respond    `yaml:"respond"`
}

// Target is one address of an upstream.
type Target struct {
	URL    string `yaml:"url"`
	Weight int    `yaml:"weight"`
}

// Retry says which failed attempts are made again.
type Retry struct {
	Attempts int      `yaml:"attempts"`
	On       []string `yaml:"on"`
	Budget   Percent  `yaml:"budget"`
}

// UpstreamTLS is how the gateway speaks TLS to targets.
type UpstreamTLS struct {
	CA         string `yaml:"ca"`
	Cert       string `yaml:"cert"`
	Key        string `yaml:"key"`
	ServerName string `yaml:"server_name"`
}

// Respond is an answer that needs no upstream.
type Respond struct {
	Status  int               `yaml:"status"`
	Headers map[string]string `yaml:"headers"`
	Body    string            `yaml:"body"`
}

// API is a group of routes under hosts and a base path.
type API struct {
	Name          string   `yaml:"name"`
	Hosts         []string `yaml:"hosts"`
	BasePath      string   `yaml:"base_path"`
	StripBasePath *bool    `yaml:"strip_base_path"`
	Stage         string   `yaml:"stage"`
	Listeners     []string `yaml:"listeners"`
	Defaults      Route    `yaml:"defaults"`
	Routes        []Route  `yaml:"routes"`
}

// Route is one set of requests and what becomes of them.
type Route struct {
	Name           string          `yaml:"name"`
	Methods        []string        `yaml:"methods"`
	Path           string          `yaml:"path"`
	When           *Match          `yaml:"when"`
	IP             *IPRules        `yaml:"ip"`
	Upstream       []WeightedName  `yaml:"upstream"` // one name, or a weighted split
	Timeout        *Duration       `yaml:"timeout"`
	MaxBodySize    *Size           `yaml:"max_body_size"`
	PathParameters string          `yaml:"path_parameters"` // keep: admit ';' in segments
	EncodedSlash   string          `yaml:"encoded_slash"`   // keep: admit %2F
	Request        *RequestRewrite `yaml:"request"`
}

// Match are further conditions of a route.
type Match struct {
	Headers map[string]string `yaml:"headers"`
	Query   map[string]string `yaml:"query"`
}

// IPRules admit or refuse addresses; deny wins.
type IPRules struct {
	Allow []netip.Prefix `yaml:"allow"`
	Deny  []netip.Prefix `yaml:"deny"`
	Mode  string         `yaml:"mode"`
}

// WeightedName is an upstream and its share of the traffic.
type WeightedName struct {
	Name   string `yaml:"name"`
	Weight int    `yaml:"weight"`
}

// RequestRewrite is what is changed on the way to the upstream.
type RequestRewrite struct {
	Path string `yaml:"path"`
}

// Log is what is written about the gateway's work.
type Log struct {
	Level  string    `yaml:"level"` // debug | info | warn | error
	Access AccessLog `yaml:"access"`
}

// AccessLog is one line for each request.
type AccessLog struct {
	Format string   `yaml:"format"` // json | combined
	Output string   `yaml:"output"` // stdout | stderr | none | a file
	Sample Percent  `yaml:"sample"`
	Redact []string `yaml:"redact"`
}
