package admin

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/config"
)

const secretive = `# the key is hunter2
admin: {token: t0ken-written-out}
upstreams:
  hello: {respond: {status: 200, headers: {X-Key: "${file:key.txt}", X-Set: "${SET}"}}}
routes:
  - {name: hello, path: "/<hello>", upstream: hello, timeout: 1.50s}
`

func TestConfigIsShownWithoutSecrets(t *testing.T) {
	n := newNode(t, secretive)
	s := start(t, n, config.Admin{})
	const wantJSON = `{
  "admin": {
    "token": "***"
  },
  "upstreams": {
    "hello": {
      "respond": {
        "status": 200,
        "headers": {
          "X-Key": "${file:key.txt}",
          "X-Set": "${SET}"
        }
      }
    }
  },
  "routes": [
    {
      "name": "hello",
      "path": "/<hello>",
      "upstream": "hello",
      "timeout": "1.50s"
    }
  ]
}
`
	for _, accept := range []string{"", "*/*", "application/json", "application/json, application/yaml", "text/html"} {
		r := s.ask("GET", "/v1/config", "", "Accept", accept)
		if r.status != 200 || r.header.Get("Content-Type") != "application/json" || r.body != wantJSON {
			t.Errorf("Accept %q: %d %s %s", accept, r.status, r.header.Get("Content-Type"), r.body)
		}
	}
	for _, accept := range []string{"application/yaml", "text/yaml;q=0.9, */*", "Application/X-YAML"} {
		r := s.ask("GET", "/v1/config", "", "Accept", accept)
		for _, gone := range []string{"t0ken-written-out", "hunter2", "k3y-of-the-file", "value-of-SET"} {
			if strings.Contains(r.body, gone) {
				t.Errorf("Accept %q: %s is shown in\n%s", accept, gone, r.body)
			}
		}
		if r.status != 200 || r.header.Get("Content-Type") != "application/yaml" || !strings.Contains(r.body, "token: \"***\"") && !strings.Contains(r.body, "token: '***'") ||
			!strings.Contains(r.body, `"${file:key.txt}"`) {
			t.Errorf("Accept %q: %d %s %s", accept, r.status, r.header.Get("Content-Type"), r.body)
		}
	}
}

func TestConfigHasATagOfItsContent(t *testing.T) {
	n := newNode(t, document)
	s := start(t, n, config.Admin{})
	r := s.ask("GET", "/v1/config", "")
	tag := r.header.Get("ETag")
	if len(tag) != 34 || tag[0] != '"' || r.header.Get("Vary") != "Accept" {
		t.Errorf("ETag %q, Vary %q", tag, r.header.Get("Vary"))
	}
	for _, match := range []string{tag, "*", `"a", ` + tag} {
		r := s.ask("GET", "/v1/config", "", "If-None-Match", match)
		if r.status != 304 || r.body != "" || r.header.Get("ETag") != tag {
			t.Errorf("If-None-Match %s: %d %s", match, r.status, r.body)
		}
	}
	if r := s.ask("GET", "/v1/config", "", "If-None-Match", `"a"`); r.status != 200 {
		t.Errorf("another tag: %d", r.status)
	}
	again, _ := n.Parse([]byte(document))
	if got := `"` + Version(again) + `"`; got != tag {
		t.Errorf("the same text has the tags %s and %s", tag, got)
	}
	other, _ := n.Parse([]byte(document + "# a remark\n"))
	if got := `"` + Version(other) + `"`; got == tag {
		t.Error("another text has the same tag")
	}
}

func TestTheTagFollowsWhatIncludesAndVariablesComeTo(t *testing.T) {
	n := newNode(t, document)
	text := []byte("include: [more.yaml]\nupstreams: {a: {respond: {status: 200, body: \"${SET}\"}}}\n")
	parse := func(variable, included string) string {
		f, found := config.Parse(n.dir+"/sluice.yaml", text, config.Env{
			Lookup:   func(string) (string, bool) { return variable, true },
			ReadFile: func(string) ([]byte, error) { return []byte(included), nil },
		})
		if found.Err() != nil {
			t.Fatal(found.Err())
		}
		return Version(f)
	}
	const routes = "routes: [{name: a, path: /a, upstream: a}]"
	first := parse("x", routes)
	if again := parse("x", routes); again != first {
		t.Errorf("the same has the tags %s and %s", first, again)
	}
	if parse("y", routes) == first {
		t.Error("another value of a variable has the same tag")
	}
	if parse("x", strings.Replace(routes, "/a", "/b", 1)) == first {
		t.Error("another included file has the same tag")
	}
}

// put sends a document as YAML.
func (s *Server) put(query, text string, header ...string) reply {
	return s.ask("PUT", "/v1/config"+query, text, append([]string{"Content-Type", "application/yaml"}, header...)...)
}

const added = document + "  - {name: added, path: /added, upstream: hello}\n"

func TestPutReplacesTheConfiguration(t *testing.T) {
	for _, c := range []struct {
		query  string
		want   Applied
		change Change
	}{
		{"", Applied{Applied: true}, Change{}},
		{"?dry_run=0&persist=false", Applied{Applied: true}, Change{}},
		{"?dry_run=1", Applied{}, Change{DryRun: true}},
		{"?dry_run", Applied{}, Change{DryRun: true}},
		{"?persist=1", Applied{Applied: true, Persisted: true}, Change{Persist: true}},
		{"?persist=true&dry_run=true", Applied{}, Change{DryRun: true, Persist: true}},
	} {
		n := newNode(t, document)
		s := start(t, n, config.Admin{})
		before := s.ask("GET", "/v1/config", "").header.Get("ETag")
		c.change.From = n.running
		r := s.put(c.query, added)
		got := decode[Applied](t, r.body)
		c.want.Warnings = config.Diagnostics{}
		if r.status != 200 || !reflect.DeepEqual(got, c.want) || len(n.changes) != 1 || n.changes[0] != c.change {
			t.Errorf("%s: %d %s, changes %+v", c.query, r.status, r.body, n.changes)
		}
		after := s.ask("GET", "/v1/config", "").header.Get("ETag")
		if r.header.Get("ETag") != after || (after == before) != c.change.DryRun {
			t.Errorf("%s: ETag %s became %s, the answer has %s", c.query, before, after, r.header.Get("ETag"))
		}
	}
}

func TestPutTakesWhatGetGave(t *testing.T) {
	n := newNode(t, document)
	s := start(t, n, config.Admin{})
	for _, kind := range []string{"application/json", "application/yaml"} {
		got := s.ask("GET", "/v1/config", "", "Accept", kind)
		if r := s.ask("PUT", "/v1/config", got.body, "Content-Type", kind, "If-Match", got.header.Get("ETag")); r.status != 200 {
			t.Errorf("%s: %d %s", kind, r.status, r.body)
		}
	}
	for _, kind := range documentTypes {
		if r := s.ask("PUT", "/v1/config", s.ask("GET", "/v1/config", "").body, "Content-Type", kind+"; charset=utf-8"); r.status != 200 {
			t.Errorf("%s: %d %s", kind, r.status, r.body)
		}
	}
}

func TestPutWithAStaleTagChangesNothing(t *testing.T) {
	n := newNode(t, document)
	s := start(t, n, config.Admin{})
	tag := s.ask("GET", "/v1/config", "").header.Get("ETag")
	for _, match := range []string{`"another"`, "W/" + tag, "", strings.Trim(tag, `"`)} {
		r := s.put("", added, "If-Match", match)
		r.refused(t, 412, "precondition_failed")
		if r.header.Get("ETag") != tag {
			t.Errorf("If-Match %q: the answer has the tag %q, want %q", match, r.header.Get("ETag"), tag)
		}
	}
	if len(n.changes) != 0 {
		t.Errorf("changes: %v", n.changes)
	}
	for _, match := range []string{"*", `"another", `} {
		if match != "*" {
			match += s.ask("GET", "/v1/config", "").header.Get("ETag")
		}
		if r := s.put("", added, "If-Match", match); r.status != 200 {
			t.Errorf("If-Match %q: %d %s", match, r.status, r.body)
		}
	}
}

func TestPutThatIsOvertaken(t *testing.T) {
	n := newNode(t, document)
	s := start(t, n, config.Admin{})
	between, _ := n.Parse([]byte(document + "# from another\n"))
	n.overtake = func() { n.running = between }
	tag := s.ask("GET", "/v1/config", "").header.Get("ETag")
	s.put("", added, "If-Match", tag).refused(t, 412, "precondition_failed")
	if n.running != between {
		t.Error("the other change was lost")
	}
	n.overtake = func() { n.running = n.started }
	if r := s.put("", added); r.status != 200 || len(n.changes) != 1 {
		t.Errorf("without If-Match: %d %s", r.status, r.body)
	}
	var again func()
	again = func() { n.running, _ = n.Parse([]byte(document)); n.overtake = again }
	n.overtake = again
	s.put("", added).refused(t, 500, "internal")
}

// found lists code and path of the errors of a problem.
func found(p problem) []string {
	var list []string
	for _, d := range p.Errors {
		list = append(list, fmt.Sprintf("%d:%d %s %s", d.Line, d.Col, d.Path, d.Code))
	}
	return list
}

func TestPutRefusesWhatCannotRun(t *testing.T) {
	n := newNode(t, "include: [apis/*.yaml]\n"+document)
	s := start(t, n, config.Admin{})
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"unknown keys", document + "x: 1\ny: 2\n", []string{"10:1 x config.unknown_key", "11:1 y config.unknown_key"}},
		{"a mask", strings.Replace(document, "${ADMIN_TOKEN:-}", `"***"`, 1), []string{"2:1 admin config.needs_restart", "4:3 admin.token config.masked"}},
		{"a file of its own", strings.Replace(document, "key.txt", "/etc/shadow", 1), []string{"7:46  config.foreign_reference"}},
		{"a variable of its own", document + "log: {level: \"${HOME:-info}\"}\n", []string{"10:15  config.foreign_reference"}},
		{"an include of its own", "include: [/etc/passwd]\n" + document, []string{"0:0 include config.foreign_reference"}},
		{"one include of its own", "include: /etc/passwd\n" + document, []string{"0:0 include config.foreign_reference"}},
		{"the admin API", strings.Replace(document, "127.0.0.1:0", "127.0.0.1:1", 1), []string{"2:1 admin config.needs_restart"}},
		{"no admin API", strings.Replace(document, "admin:\n  address: 127.0.0.1:0\n  token: ${ADMIN_TOKEN:-}\n", "", 1), []string{"2:1 admin config.needs_restart"}},
		{"the state", document + "state: {dir: elsewhere}\n", []string{"10:1 state config.needs_restart"}},
	} {
		p := s.put("", c.text).refused(t, 422, "config_invalid")
		if got := found(p); !slices.Equal(got, c.want) {
			t.Errorf("%s: found %q, want %q", c.name, got, c.want)
		}
	}
	for _, text := range []string{"", "{", "- a\n", "a: b: c", "\x00", "--- 1\n--- 2\n"} {
		if p := s.put("", text).refused(t, 422, "config_invalid"); len(p.Errors) == 0 {
			t.Errorf("%q: no reason is given", text)
		}
	}
	if slices.ContainsFunc(n.changes, func(c Change) bool { return !c.DryRun }) {
		t.Errorf("changes: %v", n.changes)
	}
	s.put("", document+"#"+strings.Repeat("x", maxDocument)).refused(t, 413, "payload_too_large")
}

// What a PUT must not hold does not hide what is found behind it.
func TestPutTellsEverythingAtOnce(t *testing.T) {
	n := newNode(t, document)
	s := start(t, n, config.Admin{})
	text := strings.Replace(document, "${ADMIN_TOKEN:-}", `"***"`, 1)
	f, _ := n.Parse([]byte(text))
	n.refuse = config.Diagnostics{f.Diagnose("upstreams.hello", "config.upstream", "cannot be made")}
	want := []string{"2:1 admin config.needs_restart", "4:3 admin.token config.masked", "6:3 upstreams.hello config.upstream"}
	for _, query := range []string{"", "?dry_run=1", "?persist=1"} {
		if got := found(s.put(query, text).refused(t, 422, "config_invalid")); !slices.Equal(got, want) {
			t.Errorf("%q: found %q, want %q", query, got, want)
		}
	}
}

func TestPutOfAReferenceTheFileHasInAnotherForm(t *testing.T) {
	n := newNode(t, "include: [apis/*.yaml]\n"+document)
	s := start(t, n, config.Admin{})
	text := strings.Replace(document, "${file:key.txt}", "a ${file:key.txt} $${HOME} ${ADMIN_TOKEN:-none}", 1)
	for _, text := range []string{text, "include: [apis/*.yaml]\n" + text, "include: apis/*.yaml\n" + text} {
		if r := s.put("", text); r.status != 200 {
			t.Errorf("%d %s", r.status, r.body)
		}
	}
}

func TestPutTellsWhatTheGatewayFound(t *testing.T) {
	n := newNode(t, document)
	s := start(t, n, config.Admin{})
	n.refuse = config.Diagnostics{n.running.Diagnose("routes[0]", "config.conflict", "clashes")}
	p := s.put("", added).refused(t, 422, "config_invalid")
	if got := found(p); !slices.Equal(got, []string{"9:5 routes[0] config.conflict"}) || p.Errors[0].Message != "clashes" {
		t.Errorf("found %q", got)
	}
	n.refuse, n.fail = nil, errors.New("writing sluice.yaml: no space left on device")
	p = s.put("?persist=1", added).refused(t, 500, "internal")
	if p.Detail != "Writing sluice.yaml: no space left on device. Nothing was changed." {
		t.Errorf("detail %q", p.Detail)
	}
}

func TestPutReportsWarnings(t *testing.T) {
	n := newNode(t, "include: [nothing/*.yaml]\n"+document)
	s := start(t, n, config.Admin{})
	r := s.put("", "include: [nothing/*.yaml]\n"+document)
	got := decode[Applied](t, r.body)
	if r.status != 200 || len(got.Warnings) != 1 || got.Warnings[0].Code != "config.no_match" || !got.Warnings[0].Warning {
		t.Errorf("%d %s", r.status, r.body)
	}
}

func TestBeforeTheFirstConfigurationNothingIsShownOrReplaced(t *testing.T) {
	n := newNode(t, document)
	n.running = nil
	s := start(t, n, config.Admin{})
	s.ask("GET", "/v1/config", "").refused(t, 503, "not_ready")
	s.put("", added).refused(t, 503, "not_ready")
}
