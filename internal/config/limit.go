package config

// RateLimit is one limit on how often requests may come.
type RateLimit struct {
	// How requests are counted.
	Algorithm string `yaml:"algorithm" default:"token_bucket" enum:"token_bucket|leaky_bucket|fixed_window|sliding_window|sliding_log|concurrency"`
	// Requests in a time. The time is the window of the window algorithms. Needed by all but `concurrency`.
	Rate *Rate `yaml:"rate"`
	// Requests that may come at once, for buckets. Default: what `rate` gives in one second, rounded up, at least 1.
	Burst *int64 `yaml:"burst" min:"1"`
	// Requests at work at one time, for `concurrency`.
	Limit *int64 `yaml:"limit" min:"1"`
	// What is counted apart; several make a combination.
	Per []string `yaml:"per" default:"client" enum:"client|ip|route|global|header:NAME|query:NAME|claim:NAME|attribute:NAME"`
	// What one request counts: a number, or a CEL expression over client, request, params
	// and now. What comes to no finite number of at least 0 counts as 1.
	Cost Expression `yaml:"cost" default:"1"`
	// Where it is counted: in this process, in `state.redis` for each request, or there in batches.
	// Default: `leased` with `state.redis`, else `local`.
	Scope string `yaml:"scope" enum:"local|exact|leased"`
	// For `leased`: the most that all gateways together may let through above the limit.
	MaxOvershoot Percent `yaml:"max_overshoot" default:"1%"`
	// What decides while `state.redis` cannot be reached: this gateway's share, everybody passes, or nobody.
	OnFault string `yaml:"on_fault" default:"local" enum:"local|open|closed"`
	// For `leaky_bucket`: requests that may wait for their turn instead of a 429.
	Queue int `yaml:"queue" default:"0" min:"0"`
	// How long one may wait in `queue`.
	MaxWait Duration `yaml:"max_wait" default:"1s"`
	// `shadow` only logs what it would refuse, and sends no headers.
	Mode string `yaml:"mode" default:"enforce" enum:"enforce|shadow"`
}

// Plan is what a client is entitled to.
type Plan struct {
	// The client's requests over all routes.
	Throttle *Throttle `yaml:"throttle"`
	// The client's requests over a day, week or month. Its use is kept in `state.redis`,
	// or in `state.dir` over restarts.
	Quota *Quota `yaml:"quota"`
	// The apis that clients of the plan may call, by name. Absent: all. Others: 403.
	APIs []string `yaml:"apis"`
	// Routes, by name, with a throttle of their own instead of the plan's.
	Routes map[string]*PlanRoute `yaml:"routes"`
	// What decides while `state.redis` cannot be reached: this gateway's share, everybody passes, or nobody.
	OnFault string `yaml:"on_fault" default:"local" enum:"local|open|closed"`
}

// Throttle is a token bucket.
type Throttle struct {
	// Requests in a time.
	Rate Rate `yaml:"rate" need:"true"`
	// Requests that may come at once. Default: what `rate` gives in one second, rounded up, at least 1.
	Burst *int64 `yaml:"burst" min:"1"`
}

// Quota is a number of requests over a calendar period, UTC. Each request counts
// 1, those answered from the cache too.
type Quota struct {
	// Requests in the period.
	Limit int64 `yaml:"limit" need:"true" min:"0"`
	// The period.
	Period string `yaml:"period" need:"true" enum:"day|week|month"`
}

// PlanRoute is what a plan says of one route.
type PlanRoute struct {
	// The throttle that replaces the plan's on this route.
	Throttle *Throttle `yaml:"throttle"`
}
