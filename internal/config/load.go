package config

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"
)

// A configuration is loaded in these steps, each over everything before the next,
// so that one run reports all problems:
//
//	read and parse the main file            tree.go
//	expand ${…} in its values               expand.go
//	the same for the files it includes      here
//	decode each file by itself              decode*.go, values.go
//	join them                               join.go
//	merge the defaults of apis into routes  join.go
//	check what needs more than one value    check*.go
//	refuse what is not built yet            supported.go

// Env is what a configuration is read with.
type Env struct {
	// Lookup finds an environment variable. nil: os.LookupEnv.
	Lookup func(name string) (value string, found bool)
	// ReadFile reads a file. nil: from disk, at most 16 MiB. The patterns of `include`
	// are matched on disk in any case.
	ReadFile func(name string) ([]byte, error)
	// Now is the time that certificates are checked against. nil: time.Now.
	Now func() time.Time
}

// maxProblems is how many problems are listed.
const maxProblems = 1000

// maxIncluded is how many files may be included.
const maxIncluded = 10_000

// Load reads the configuration in a file. It returns all that is wrong with it, in
// file order. When Diagnostics.Err is not nil the File, if there is one, is
// incomplete, and of use only for finding more that is wrong.
func Load(path string, env Env) (*File, Diagnostics) {
	l := newLoader(env)
	src, err := l.openMain(path)
	if err != nil {
		return nil, Diagnostics{{File: path, Message: "cannot be read: " + fileProblem(err), Code: "config.unreadable"}}
	}
	return l.load(src)
}

// Parse reads a configuration from memory. The name stands in messages, and its
// folder is where relative paths start.
func Parse(name string, text []byte, env Env) (*File, Diagnostics) {
	l := newLoader(env)
	return l.load(l.addSource(name, text))
}

// loader is one run of Load or Parse.
type loader struct {
	env      Env
	sources  []*source
	trees    []tree
	files    map[string]bool // absolute paths of everything read or referenced
	patterns []string        // absolute patterns of include
	contents map[string]readResult
	plans    map[reflect.Type]*structPlan
	defaults map[defaultKey]reflect.Value

	totalBytes    int
	expandedBytes int

	problems Diagnostics
	seen     map[Diagnostic]bool
}

type readResult struct {
	data []byte
	err  error
}

func newLoader(env Env) *loader {
	if env.Lookup == nil {
		env.Lookup = os.LookupEnv
	}
	if env.ReadFile == nil {
		env.ReadFile = ReadFile
	}
	if env.Now == nil {
		env.Now = time.Now
	}
	return &loader{
		env:      env,
		files:    map[string]bool{},
		contents: map[string]readResult{},
		plans:    map[reflect.Type]*structPlan{},
		defaults: map[defaultKey]reflect.Value{},
		seen:     map[Diagnostic]bool{},
	}
}

// ReadFile reads a file from disk, as Load does by itself: at most 16 MiB.
func ReadFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSource+1))
	if err == nil && len(data) > maxSource {
		return nil, fmt.Errorf("larger than %d MiB", maxSource>>20)
	}
	return data, err
}

// openMain reads the main file without keeping its contents twice.
func (l *loader) openMain(path string) (*source, error) {
	data, err := l.env.ReadFile(absolute(path))
	if err != nil {
		return nil, err
	}
	src := l.addSource(path, data)
	l.files[src.path] = true
	return src, nil
}

// readFile reads a file once per load, and puts it on the watch list.
func (l *loader) readFile(path string) ([]byte, error) {
	l.files[path] = true
	if r, ok := l.contents[path]; ok {
		return r.data, r.err
	}
	data, err := l.env.ReadFile(path)
	if err == nil {
		if l.totalBytes += len(data); l.totalBytes > maxTotal {
			data, err = nil, fmt.Errorf("all files together are larger than %d MiB", maxTotal>>20)
		}
	}
	l.contents[path] = readResult{data, err}
	return data, err
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

func (l *loader) addSource(name string, text []byte) *source {
	src := &source{name: name, path: absolute(name), order: len(l.sources), text: string(text)}
	l.sources = append(l.sources, src)
	return src
}

// report adds a problem at a node. The same problem at the same place, met again
// through an alias, is listed once.
func (l *loader) report(src *source, n *node, p path, code, message string) {
	l.add(Diagnostic{
		File: src.name, order: src.order, Line: n.line, Col: n.col,
		Path: p.String(), Message: message, Code: code,
	})
}

func (l *loader) add(d Diagnostic) {
	key := d
	if d.Line > 0 {
		key.Path = ""
	}
	if l.seen[key] || len(l.problems) > maxProblems {
		return
	}
	l.seen[key] = true
	if len(l.problems) == maxProblems {
		d = Diagnostic{
			File: d.File, order: len(l.sources), Code: "config.too_many",
			Message: fmt.Sprintf("there are more than %d problems, the others are not listed", maxProblems),
		}
	}
	l.problems = append(l.problems, d)
}

func (l *loader) load(src *source) (*File, Diagnostics) {
	f := l.read(src)
	if f != nil {
		l.include(f)
		l.join(f)
		l.mergeDefaults(f)
		fill(f)
		l.check(f)
		l.refuseUnsupported(f)
		f.doc.finish(l)
	}
	l.problems.Sort()
	return f, l.problems
}

// read parses, expands and decodes the main file.
func (l *loader) read(src *source) *File {
	t := l.parse(src)
	if t.root == nil {
		return nil
	}
	f := new(File)
	(&decoder{l: l, src: src}).structure(reflect.ValueOf(f).Elem(), t.root)
	f.doc = &document{}
	f.doc.addPart(src, t, f)
	return f
}

// parse parses and expands a source.
func (l *loader) parse(src *source) tree {
	before := len(l.problems)
	t := parseTree(src, false, l.add)
	if t.root == nil && len(l.problems) == before {
		l.add(Diagnostic{
			File: src.name, order: src.order, Code: "config.missing",
			Message: "holds no configuration, begin with upstreams: and routes:",
		})
	}
	if t.root != nil {
		l.expandTree(src, t.root, nil)
	}
	l.trees = append(l.trees, t)
	return t
}

// include reads the files that the main file includes and decodes them.
func (l *loader) include(f *File) {
	main, root := l.sources[0], l.trees[0].root
	list := root.get("include")
	if list == nil {
		return
	}
	taken := map[string]bool{main.path: true}
	for i, pattern := range f.Include {
		at, p := list, path{}.key("include")
		if list.kind == sequenceKind {
			at, p = list.items[i], p.index(i)
		}
		if pattern == "" {
			if at.kind == scalarKind && at.text == "" {
				l.report(main, at, p, "config.bad_value", "is empty, name a file or remove the item")
			}
			continue
		}
		for _, name := range l.matches(main, at, p, pattern) {
			abs := l.locate(main, name)
			if abs == main.path {
				l.report(main, at, p, "config.include_cycle", at.subject()+" includes this file itself, keep the included files in a folder of their own")
				continue
			}
			if taken[abs] {
				continue
			}
			taken[abs] = true
			if len(l.sources) > maxIncluded {
				l.report(main, at, p, "config.too_large", fmt.Sprintf("includes more than %d files, put several into one", maxIncluded))
				return
			}
			l.includeOne(f, main, at, p, name)
		}
	}
}

// matches are the files that a pattern names, sorted, as seen from the folder of the main file.
func (l *loader) matches(main *source, at *node, p path, pattern string) []string {
	if !strings.ContainsAny(pattern, `*?[\`) {
		return []string{pattern}
	}
	l.patterns = append(l.patterns, l.locate(main, pattern))
	found, err := filepath.Glob(l.locate(main, pattern))
	if err != nil {
		l.report(main, at, p, "config.bad_value", at.subject()+" is not a pattern, close its [ ]")
		return nil
	}
	if len(found) == 0 {
		d := Diagnostic{
			File: main.name, order: main.order, Line: at.line, Col: at.col, Path: p.String(),
			Message: at.subject() + " matches no file", Code: "config.no_match", Warning: true,
		}
		l.add(d)
	}
	slices.Sort(found)
	if filepath.IsAbs(pattern) {
		return found
	}
	for i := range found {
		if rel, err := filepath.Rel(filepath.Dir(main.path), found[i]); err == nil {
			found[i] = rel
		}
	}
	return found
}

// includeOne reads one included file and decodes what it may hold.
func (l *loader) includeOne(f *File, main *source, at *node, p path, name string) {
	data, err := l.readFile(l.locate(main, name))
	if err != nil {
		l.report(main, at, p, "config.unreadable", quote(name)+" cannot be read: "+fileProblem(err))
		return
	}
	shown := name
	if !filepath.IsAbs(name) {
		shown = filepath.Join(filepath.Dir(main.name), name)
	}
	src := l.addSource(shown, data)
	src.path = l.locate(main, name)
	t := l.parse(src)
	if t.root == nil {
		return
	}
	part := new(File)
	d := &decoder{l: l, src: src}
	plan := l.plan(reflect.TypeFor[File]())
	v := reflect.ValueOf(part).Elem()
	for _, e := range t.root.entries {
		d.path = path{}.key(e.key.text)
		key := e.key.text
		field := plan.field(key)
		switch {
		case field == nil:
			d.report(e.key, "config.unknown_key", "unknown key %s, %s", quote(key), suggest(key, []string{"apis", "routes", "upstreams"}, "keys of an included file"))
		case key == "include":
			d.report(e.key, "config.include_cycle", "an included file cannot include others, list them in %s", main.name)
		case key != "apis" && key != "routes" && key != "upstreams":
			d.report(e.key, "config.not_allowed_here", "%q cannot stand in an included file, only apis, routes and upstreams can: move it to %s", key, main.name)
		default:
			d.value(v.Field(field.index), e.value, &field.rules)
		}
	}
	f.doc.addPart(src, t, part)
}
