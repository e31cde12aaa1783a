package config

import "encoding/json"

// CORS lets pages of other origins call a route (WHATWG Fetch).
type CORS struct {
	// The origins, `https://app.example.com`, `https://*.example.com`, or `*` for all.
	Origins []string `yaml:"origins" need:"true"`
	// The methods allowed besides the simple ones. Absent: the route's.
	Methods []string `yaml:"methods" check:"method"`
	// The request headers allowed besides the simple ones.
	Headers []string `yaml:"headers" check:"header_or_star"`
	// The response headers that pages may read besides the simple ones.
	Expose []string `yaml:"expose" check:"header_or_star"`
	// Whether pages may send cookies and credentials. An error together with the origin `*`.
	Credentials bool `yaml:"credentials"`
	// How long browsers may keep the answer to a preflight.
	MaxAge Duration `yaml:"max_age" default:"10m"`
	// `shadow` only logs what it would refuse.
	Mode string `yaml:"mode" default:"enforce" enum:"enforce|shadow"`
}

// WAF is the web application firewall.
type WAF struct {
	// `shadow` only logs what it would refuse.
	Mode string `yaml:"mode" default:"enforce" enum:"enforce|shadow"`
}

// Validate is what requests must look like. What does not is a 400, or a 415 by its content type.
type Validate struct {
	// A schema of the path parameters, which are coerced to its types first.
	Path *JSONSchema `yaml:"path"`
	// A schema of the query parameters.
	Query *JSONSchema `yaml:"query"`
	// A schema of the header fields, by lower-case names.
	Headers *JSONSchema `yaml:"headers"`
	// A schema of the body.
	Body *JSONSchema `yaml:"body"`
	// The content types admitted. Absent: any.
	ContentTypes []string `yaml:"content_types"`
	// `shadow` only logs what it would refuse.
	Mode string `yaml:"mode" default:"enforce" enum:"enforce|shadow"`
}

// JSONSchema is a JSON Schema: the path of a file, or the schema in place.
type JSONSchema struct {
	// The schema's file, absolute, when it has one.
	File string
	// The schema as JSON, when it stands in place.
	Inline json.RawMessage
}

// Idempotency answers a repeated `Idempotency-Key` with the first answer.
type Idempotency struct {
	// How long answers are kept.
	TTL Duration `yaml:"ttl" default:"24h" min:"1s"`
	// Refuse requests without the header.
	Required bool `yaml:"required"`
	// `shadow` only logs what it would refuse.
	Mode string `yaml:"mode" default:"enforce" enum:"enforce|shadow"`
}

// RequestRewrite is what is changed on the way to the upstream.
type RequestRewrite struct {
	// A path instead of the client's. `{id}` is the path parameter of that name. It is
	// appended to the path of the target's URL.
	Path string `yaml:"path" check:"slash"`
	// Changes to the header fields.
	Headers *HeaderEdit `yaml:"headers"`
	// Changes to the query.
	Query *QueryEdit `yaml:"query"`
	// A new body.
	Body *BodyMap `yaml:"body"`
}

// ResponseRewrite is what is changed on the way back to the client.
type ResponseRewrite struct {
	// Changes to the header fields.
	Headers *HeaderEdit `yaml:"headers"`
	// A new body.
	Body *BodyMap `yaml:"body"`
}

// HeaderEdit changes header fields: first `remove`, then `rename`, `set` and `add`.
type HeaderEdit struct {
	// Fields that have this value, whatever they were. Values may hold `{client.id}`, `{params.id}` and the like.
	Set map[string]string `yaml:"set" keys:"free_header" check:"header_value"`
	// Fields that get one more value.
	Add map[string]string `yaml:"add" keys:"free_header" check:"header_value"`
	// Fields that are taken away.
	Remove []string `yaml:"remove" check:"free_header"`
	// Fields that get another name: old to new.
	Rename map[string]string `yaml:"rename" keys:"free_header" check:"free_header"`
}

// QueryEdit changes query parameters: first `remove`, then `rename`, `set` and `add`.
type QueryEdit struct {
	// Parameters that have this value, whatever they were.
	Set map[string]string `yaml:"set"`
	// Parameters that get one more value.
	Add map[string]string `yaml:"add"`
	// Parameters that are taken away.
	Remove []string `yaml:"remove"`
	// Parameters that get another name: old to new.
	Rename map[string]string `yaml:"rename"`
}

// BodyMap makes a new body from the old. Either `map` or `jq` is given.
type BodyMap struct {
	// Fields of the new body, each from a field of the old.
	Map []FieldMap `yaml:"map"`
	// What becomes of fields that no rule names.
	Unmapped string `yaml:"unmapped" default:"drop" enum:"drop|keep"`
	// A jq program that makes the new body.
	JQ string `yaml:"jq"`
}

// FieldMap makes one field of a new body.
type FieldMap struct {
	// The field of the old body: `a.b`, `items[0].id`, `items[*].id`.
	From string `yaml:"from"`
	// The field of the new body. Default: as `from`.
	To string `yaml:"to"`
	// A value instead of a field.
	Value any `yaml:"value"`
	// A missing field is an error.
	Required bool `yaml:"required"`
	// A function that fails drops the field instead of refusing the message.
	Optional bool `yaml:"optional"`
	// Functions, applied in turn: `lower upper trim string int number bool rfc3339 unix
	// date:LAYOUT default:V split:S join:S mask:N sha256 base64 json`.
	Apply []string `yaml:"apply" enum:"lower|upper|trim|string|int|number|bool|rfc3339|unix|date:LAYOUT|default:V|split:S|join:S|mask:N|sha256|base64|json"`
}

// RouteCache answers requests from the cache (RFC 9111). Times are counted in whole
// seconds, as HTTP does, and rounded up.
type RouteCache struct {
	// Freshness of responses with status 200, 203, 204, 300, 301, 404 or 410 that say nothing
	// about it themselves. 0: only explicit freshness.
	TTL Duration `yaml:"ttl" default:"0s"`
	// The longest freshness, whatever the response says. 0: no bound.
	MaxTTL Duration `yaml:"max_ttl" default:"0s"`
	// The share of the time since `Last-Modified` that a response without explicit freshness
	// counts as fresh, at most a day (RFC 9111 §4.2.2). Where `ttl` is for the status, `ttl`
	// holds. Whole percents; 0%: none.
	Heuristic Percent `yaml:"heuristic" default:"0%"`
	// What tells one object from another, besides method, scheme, host and path.
	Key CacheKey `yaml:"key"`
	// How long a stale response may be served while a fresh one is fetched, when the response does not say.
	StaleWhileRevalidate Duration `yaml:"stale_while_revalidate" default:"0s"`
	// How long a stale response may be served while the upstream fails, when the response does not say.
	StaleIfError Duration `yaml:"stale_if_error" default:"0s"`
	// The response header that holds the object's tags, for purging. Absent: objects have none.
	Tags string `yaml:"tags" check:"header"`
}

// CacheKey is what tells one object from another. Credentials are no part of it.
type CacheKey struct {
	// The query parameters that count. Absent: all of them, sorted. `[]`: none.
	Query *[]string `yaml:"query"`
	// Request headers that count.
	Headers []string `yaml:"headers" check:"header"`
	// Whether every client has its own object. `false` says that responses do not depend on who
	// asks. Default: true on routes whose `auth` is not `[]`.
	Client *bool `yaml:"client"`
	// Stated tells a client that the file gives from the default.
	Stated bool
}
