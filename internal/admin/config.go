package admin

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/internal/config"
)

// The configuration as a resource. GET shows the text of the running one as it
// was written: references such as ${NAME} stay references, and secrets that were
// written out are masked. PUT replaces it. The ETag is a hash of the content, so
// the same configuration has the same tag, however it came to run.
//
// A PUT is made by somebody who has the admin API, but perhaps not the machine.
// So it may refer only to what the configuration's own file refers to already:
// otherwise ${file:/etc/shadow} in an error message, or in the answer of a
// `respond` target, would read any file and any variable for him.

// maxDocument bounds the body of PUT /v1/config.
const maxDocument = 10 << 20

// maxJSON bounds a configuration as JSON: a few aliases can stand for very much.
const maxJSON = 64 << 20

// maxRaces bounds how often a PUT without If-Match begins again because another
// change came first.
const maxRaces = 5

// Version is a hash of a configuration's content: of its text, and of what it
// comes to with its includes and variables. Secrets behind references are not in
// it.
func Version(f *config.File) string {
	h := sha256.New()
	h.Write(f.Source())
	if effective, err := json.Marshal(f); err == nil {
		h.Write(effective)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// version keeps the tag of the configuration that runs, which may be large.
type version struct {
	last atomic.Pointer[tagged]
}

type tagged struct {
	file *config.File
	etag string
}

func (v *version) of(f *config.File) string {
	if t := v.last.Load(); t != nil && t.file == f {
		return t.etag
	}
	t := &tagged{f, `"` + Version(f) + `"`}
	v.last.Store(t)
	return t.etag
}

func (s *Server) getConfig(w http.ResponseWriter, r *http.Request) *problem {
	f := s.Configuration.Running()
	if f == nil {
		return notReady()
	}
	etag := s.version.of(f)
	h := w.Header()
	h.Set("ETag", etag)
	h.Set("Vary", "Accept")
	if matches(r.Header.Values("If-None-Match"), etag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	kind := "application/yaml"
	text, err := config.Mask(f.Source())
	if err == nil && !acceptsYAML(r.Header.Get("Accept")) {
		kind = "application/json"
		text, err = config.ToJSON(text, maxJSON)
	}
	if err != nil {
		return internal("The running configuration cannot be shown: " + err.Error() + ".")
	}
	h.Set("Content-Type", kind)
	_, _ = w.Write(text) // what fails here is the connection
	return nil
}

// acceptsYAML reports whether a client asks for YAML by name; all others get
// JSON, which is YAML too.
func acceptsYAML(accept string) bool {
	for kind := range strings.SplitSeq(accept, ",") {
		kind, _, _ = strings.Cut(kind, ";")
		switch strings.ToLower(strings.TrimSpace(kind)) {
		case "application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml":
			return true
		case "application/json":
			return false
		}
	}
	return false
}

// matches reports whether a list of entity tags (RFC 9110 §13.1) names etag. Weak
// tags never match: for If-Match the RFC wants it so, and ours are strong.
func matches(fields []string, etag string) bool {
	for _, field := range fields {
		for tag := range strings.SplitSeq(field, ",") {
			if tag = strings.TrimSpace(tag); tag == "*" || tag == etag {
				return true
			}
		}
	}
	return false
}

// Applied is the answer of PUT /v1/config.
type Applied struct {
	Applied   bool               `json:"applied"` // false for a dry run
	Persisted bool               `json:"persisted"`
	Warnings  config.Diagnostics `json:"warnings"`
}

func (s *Server) putConfig(w http.ResponseWriter, r *http.Request) *problem {
	query := r.URL.Query()
	var c Change
	for name, flag := range map[string]*bool{"dry_run": &c.DryRun, "persist": &c.Persist} {
		switch v := query[name]; {
		case len(v) == 0 || len(v) == 1 && (v[0] == "0" || v[0] == "false"):
		case len(v) == 1 && (v[0] == "" || v[0] == "1" || v[0] == "true"):
			*flag = true
		default:
			return badRequest(name + " is 1 or 0.")
		}
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxDocument))
	if err != nil {
		return unreadable(err, "10 MiB")
	}
	condition := r.Header.Values("If-Match")
	for range maxRaces {
		c.From = s.Configuration.Running()
		if c.From == nil {
			return notReady()
		}
		if etag := s.version.of(c.From); len(condition) > 0 && !matches(condition, etag) {
			return stale(etag)
		}
		p, err := s.replace(w, r, text, c)
		if !errors.Is(err, ErrChanged) {
			return p
		}
	}
	return internal("The configuration changes too often to be replaced.")
}

// replace applies a document to what ran when it was compared. ErrChanged says
// that it does not run any more.
func (s *Server) replace(w http.ResponseWriter, r *http.Request, text []byte, c Change) (*problem, error) {
	f, found := s.read(text)
	if found.Err() != nil {
		if f != nil {
			found = append(found, barred(f, text, c.From)...)
			found.Sort()
		}
		return invalid(found), nil
	}
	if no := barred(f, text, c.From); len(no) > 0 {
		found = append(found, no...)
		c.DryRun = true // to find what else is wrong
	}
	more, err := s.Configuration.Apply(f, c)
	if errors.Is(err, ErrChanged) {
		return nil, err
	}
	found = append(found, more...)
	found.Sort()
	id := w.Header().Get("X-Request-Id")
	if err != nil {
		s.Log.Error("a configuration could not be written", "id", id, "peer", r.RemoteAddr, "cause", err)
		return internal(sentence(err.Error()) + " Nothing was changed."), nil
	}
	if found.Err() != nil {
		return invalid(found), nil
	}
	if !c.DryRun {
		s.Log.Info("the admin API replaced the configuration", "id", id, "peer", r.RemoteAddr, "persisted", c.Persist)
	}
	if found == nil {
		found = config.Diagnostics{}
	}
	w.Header().Set("ETag", s.version.of(s.Configuration.Running()))
	send(w, http.StatusOK, "application/json", Applied{!c.DryRun, c.Persist && !c.DryRun, found})
	return nil, nil
}

// read parses a document, without reading what it has no right to refer to.
func (s *Server) read(text []byte) (*config.File, config.Diagnostics) {
	if found := s.foreign(text); found.Err() != nil {
		return nil, found
	}
	return s.Configuration.Parse(text)
}

// barred finds what a file may hold and a PUT may not.
func barred(f *config.File, text []byte, running *config.File) config.Diagnostics {
	var found config.Diagnostics
	for _, place := range config.Masks(text) {
		found = append(found, f.Diagnose(place, "config.masked",
			"holds the *** that GET shows in the place of a secret: write the secret, or better a reference such as ${NAME}"))
	}
	if !reflect.DeepEqual(f.State, running.State) {
		found = append(found, f.Diagnose("state", "config.needs_restart", "cannot change while the gateway runs, it needs a restart"))
	}
	if !reflect.DeepEqual(f.Admin, running.Admin) {
		found = append(found, f.Diagnose("admin", "config.needs_restart", "cannot change while the gateway runs, it needs a restart"))
	}
	return found
}

// foreign finds references and included files that the configuration's own file
// does not have.
func (s *Server) foreign(text []byte) config.Diagnostics {
	started := s.Configuration.Started()
	name := nameOf(started)
	var found config.Diagnostics
	known := started.References()
	for _, ref := range config.References(text) {
		if !slices.Contains(known, ref) {
			line, col := locate(text, ref)
			found = append(found, config.Diagnostic{
				File: name, Line: line, Col: col, Code: "config.foreign_reference",
				Message: fmt.Sprintf("%s is not in the configuration's file: what is put may refer only to what that file refers to", ref),
			})
		}
	}
	files := config.Included(started.Source())
	for _, pattern := range config.Included(text) {
		if !slices.Contains(files, pattern) {
			found = append(found, config.Diagnostic{
				File: name, Path: "include", Code: "config.foreign_reference",
				Message: fmt.Sprintf("%q is not included by the configuration's file: what is put may include only what that file includes", pattern),
			})
		}
	}
	return found
}

// nameOf is the name that diagnostics call a configuration's own file by.
func nameOf(f *config.File) string { return f.Diagnose("", "", "").File }

// locate returns where text has a reference, the line and the column in
// characters; 0 when it does not write it in one piece.
func locate(text []byte, ref string) (line, col int) {
	at := bytes.Index(text, []byte(strings.TrimSuffix(ref, "}")))
	if at < 0 {
		return 0, 0
	}
	before := text[:at]
	start := bytes.LastIndexByte(before, '\n') + 1
	return bytes.Count(before, []byte("\n")) + 1, utf8.RuneCount(before[start:]) + 1
}
