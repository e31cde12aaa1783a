package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/config"
)

var update = flag.Bool("update", false, "write the expected problems of testdata")

// told is the problems of sluice.yaml in dir as check prints them, a line each.
func told(t *testing.T, dir string) string {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := checkCommand()
	cmd.SetArgs([]string{"-c", filepath.Join(dir, "sluice.yaml")})
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	if err := cmd.Execute(); !errors.Is(err, errReported) || out.Len() > 0 {
		t.Errorf("check: %v, and on stdout %q", err, &out)
	}
	return strings.ReplaceAll(errs.String(), dir+string(filepath.Separator), "")
}

// What is wrong with limits is told together with all other errors, once, by check
// and in the same words by a PUT.
func TestOtherErrorsHideNoBadLimits(t *testing.T) {
	const golden = "testdata/limits/want.txt"
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/limits")); err != nil {
		t.Fatal(err)
	}
	got := told(t, dir)
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("check says\n%s\nwant\n%s", got, want)
	}

	f := folder{t, dir}
	document, more := f.read("sluice.yaml"), f.read("more.yaml")
	f.write("more.yaml", "routes: []\n")
	n := f.start(runs)
	defer f.stop(n)
	f.write("more.yaml", more)
	for _, query := range []string{"?dry_run=1", ""} {
		if got := f.refused(n, query, document); got != string(want) {
			t.Errorf("PUT %s says\n%s\nwant\n%s", query, got, want)
		}
	}
	// A PUT has reasons of its own to refuse, which hide nothing. Without a route no
	// filter is made, and limits are checked all the same.
	f.write("more.yaml", "routes: []\n")
	for _, c := range []struct{ text, want string }{
		{strings.Replace(runs, "admin: {", "admin: {pprof: true, ", 1) + "rate_limits: {a: {rate: 1/s, cost: x}}\n", "warning admin rate_limits.a.cost"},
		{"admin: {address: \"127.0.0.1:0\"}\nrate_limits: {a: {rate: 1/s, cost: x}}\n", "warning rate_limits.a.cost"},
	} {
		var at []string
		for line := range strings.Lines(f.refused(n, "?dry_run=1", c.text)) {
			at = append(at, strings.Split(line, ": ")[1])
		}
		if got := strings.Join(at, " "); got != c.want {
			t.Errorf("a PUT of\n%s is refused for %s, want %s", c.text, got, c.want)
		}
	}
}

// runs has what testdata/limits may refer to in a PUT.
const runs = `include: [more.yaml]
admin: {address: "127.0.0.1:0"}
log: {access: {output: none}}
listeners: [{address: "127.0.0.1:0"}]
upstreams: {hello: {respond: {body: "${SLUICE_NOT_SET:-hello}"}}}
`

func (f folder) read(name string) string {
	f.t.Helper()
	text, err := os.ReadFile(filepath.Join(f.dir, name))
	if err != nil {
		f.t.Fatal(err)
	}
	return string(text)
}

func (f folder) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// refused puts a configuration and returns the problems of it, a line each.
func (f folder) refused(n *node, query, text string) string {
	f.t.Helper()
	var url string
	for _, addr := range n.admin.Addrs() {
		url = "http://" + addr.String() + "/v1/config" + query
	}
	r, err := http.NewRequest("PUT", url, strings.NewReader(text))
	if err != nil {
		f.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/yaml")
	r.Close = true
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var p struct{ Errors config.Diagnostics }
	if err := json.NewDecoder(res.Body).Decode(&p); err != nil || res.StatusCode != http.StatusUnprocessableEntity {
		f.t.Fatalf("%s: %v", res.Status, err)
	}
	var lines strings.Builder
	for _, d := range p.Errors {
		lines.WriteString(strings.TrimPrefix(d.String(), f.dir+string(filepath.Separator)) + "\n")
	}
	return lines.String()
}
