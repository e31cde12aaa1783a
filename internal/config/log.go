package config

// Log is what the gateway writes about its work.
type Log struct {
	// The least important lines that are written to standard error.
	Level string `yaml:"level" default:"info" enum:"debug|info|warn|error"`
	// The access log.
	Access AccessLog `yaml:"access"`
}

// AccessLog is one line for each request.
type AccessLog struct {
	// How a line is written.
	Format string `yaml:"format" default:"json" enum:"json|combined"`
	// Where lines go: `stdout`, `stderr`, `none`, or a file.
	Output string `yaml:"output" default:"stdout" check:"output"`
	// The share of requests that is written.
	Sample Percent `yaml:"sample" default:"100%"`
	// Headers whose values are never written.
	Redact []string `yaml:"redact" default:"Authorization, Cookie, X-Api-Key" check:"header"`
}

// Audit is the log of who changed what and who was refused, each line chained to the one before by a hash.
type Audit struct {
	// The file. It is only ever appended to.
	File string `yaml:"file" default:"data/audit.jsonl" check:"place"`
	// What becomes of requests while the log cannot be written: they pass, or are refused with 503.
	OnFault string `yaml:"on_fault" default:"open" enum:"open|closed"`
}

// Tracing sends spans to a collector.
type Tracing struct {
	// The collector's OTLP address, `http://host:4318`. Empty: off.
	OTLP string `yaml:"otlp" check:"url"`
	// The share of traces that begin here. Those that a trusted caller began follow its choice.
	Sample Percent `yaml:"sample" default:"1%"`
}
