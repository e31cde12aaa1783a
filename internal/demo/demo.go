// Package demo is what `sluice demo` shows: a sample backend, a configuration
// that puts the gateway in front of it, and command lines to try. It is also
// the origin that the documentation's examples talk to. Nothing in it is part
// of a gateway that somebody runs.
//
// The backend keeps nothing: users are made from their number, and what is
// posted is sent back. So it can run for ever and be asked by anybody.
package demo

import (
	"bytes"
	_ "embed"
	"strings"
	"text/template"
)

//go:embed demo.yaml
var configText string

//go:embed tries.txt
var triesText string

// Settings are what the sample configuration depends on.
type Settings struct {
	Listen  string // address of the gateway, such as 127.0.0.1:8080
	Admin   string // address of the admin API
	Backend string // URL of the backend, without a path: http://127.0.0.1:9001
}

// Config returns the sample configuration. It can be saved and used with
// `sluice run`.
func Config(s Settings) ([]byte, error) {
	t, err := template.New("demo.yaml").Parse(configText)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, s); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Try is one command line and what it shows.
type Try struct {
	Shows   string // one sentence
	Command string // for a POSIX shell; it begins with "curl"
}

// Tries returns the command lines to try, in an order that makes sense to read.
// gateway and admin are the URLs of the gateway and of its admin API, without a path:
// http://127.0.0.1:8080.
func Tries(gateway, admin string) []Try {
	var tries []Try
	urls := strings.NewReplacer("BASE", gateway, "ADMIN", admin)
	shows := ""
	for line := range strings.Lines(triesText) {
		switch line = strings.TrimSpace(line); {
		case line == "":
		case strings.HasPrefix(line, "# "):
			shows = line[2:]
		default:
			tries = append(tries, Try{Shows: shows, Command: urls.Replace(line)})
		}
	}
	return tries
}
