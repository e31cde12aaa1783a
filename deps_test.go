package sluice_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// This file is the law of the house: who may import whom, and how large things
// may grow. docs/adr says why. Lists of exceptions only shrink.

const module = "github.com/sluice-gateway/sluice/"

// rooms lists every package and what of ours it may import, lowest first.
var rooms = map[string][]string{
	"internal/exchange":     {},
	"internal/config":       {},
	"internal/router":       {},
	"internal/demo":         {},
	"internal/telemetry":    {"exchange", "config"},
	"internal/http1":        {"exchange"},
	"internal/sock":         {},
	"internal/limit/meter":  {},
	"internal/store":        {"limit/meter"},
	"internal/store/redis":  {"limit/meter", "store", "config"},
	"internal/expr":         {"exchange", "router"},
	"internal/policy":       {"exchange", "config", "telemetry"},
	"internal/audit":        {"exchange", "config", "telemetry", "policy"},
	"internal/auth/apikey":  {},
	"internal/auth/jose":    {},
	"internal/auth/verdict": {},
	"internal/auth/keyset":  {"auth/jose"},
	"internal/auth/issuer":  {"auth/jose", "auth/apikey", "store"},
	"internal/auth/iam":     {},
	"internal/auth/ask":     {"auth/verdict", "auth/iam", "auth/jose"},
	"internal/auth/httpsig": {"auth/jose"},
	"internal/auth": {
		"exchange", "config", "telemetry", "policy", "store", "expr", "router", "auth/apikey", "auth/jose", "auth/verdict", "auth/keyset",
		"auth/issuer", "auth/iam", "auth/ask", "auth/httpsig",
	},
	"internal/cache/semantics": {"exchange"},
	"internal/cache/object":    {"exchange"},
	"internal/cache/memory":    {"cache/object"},
	"internal/cache": {
		"exchange", "config", "telemetry", "router", "policy", "store", "cache/semantics", "cache/object", "cache/memory",
	},
	"internal/limit":                 {"exchange", "config", "telemetry", "router", "policy", "store", "limit/meter", "expr"},
	"internal/upstream":              {"exchange", "http1", "sock", "config", "telemetry"},
	"internal/server":                {"exchange", "http1", "sock", "config", "telemetry"},
	"internal/gateway":               {"exchange", "config", "router", "telemetry", "http1", "policy", "auth", "limit", "upstream"},
	"internal/admin":                 {"exchange", "config", "telemetry", "policy", "audit", "auth", "limit", "cache", "upstream", "gateway"},
	"cmd/sluice":                     {"exchange", "config", "telemetry", "policy", "store", "store/redis", "audit", "auth", "limit", "cache", "upstream", "server", "gateway", "admin", "demo"},
	"internal/http1/hostile":         {},
	"internal/config/generate":       {"config"},
	"internal/gatetest":              nil, // test only: may import all
	"internal/cache/conformance":     nil,
	"internal/store/redis/redistest": nil,
	"internal/store/recordtest":      nil,
	"apptest":                        nil,
}

// external lists the modules from outside that a room may use, beside the
// standard library. No type of one crosses the room's wall.
var external = map[string][]string{
	"internal/telemetry":    {"github.com/prometheus"},
	"internal/sock":         {"golang.org/x/sys"},
	"internal/demo":         {"github.com/coder/websocket"},
	"internal/admin":        {"golang.org/x/net/netutil"},
	"internal/server":       {"github.com/fsnotify/fsnotify", "golang.org/x/sys", "golang.org/x/net"},
	"internal/store":        {"go.etcd.io/bbolt", "golang.org/x/sys"},
	"internal/store/redis":  {"github.com/redis/rueidis"},
	"internal/auth":         {"golang.org/x/crypto"},
	"internal/cache/memory": {"github.com/maypok86/otter"},
	"internal/auth/ask":     {"github.com/aws/aws-sdk-go-v2", "github.com/aws/smithy-go"},
	"internal/auth/httpsig": {"github.com/dunglas/httpsfv"},
	"internal/expr":         {"cel.dev/cel-go", "google.golang.org/protobuf", "google.golang.org/genproto"},
	"cmd/sluice":            {"github.com/spf13/cobra", "github.com/fsnotify/fsnotify"},
}

type listed struct {
	ImportPath string
	Imports    []string
	Module     *struct{ Path string }
	Standard   bool
}

func packages(t *testing.T) []listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Standard", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p listed
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func TestRoomsImportOnlyWhatStandsBelowThem(t *testing.T) {
	seen := 0
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if name == strings.TrimSuffix(module, "/") {
			continue
		}
		allowed, ok := rooms[name]
		if !ok {
			t.Errorf("%s is a new room: it needs a place in rooms, and an ADR", name)
			continue
		}
		seen++
		if allowed == nil {
			continue
		}
		for _, i := range p.Imports {
			switch {
			case strings.HasPrefix(i, module):
				if !slices.Contains(allowed, strings.TrimPrefix(strings.TrimPrefix(i, module), "internal/")) {
					t.Errorf("%s imports %s", name, strings.TrimPrefix(i, module))
				}
			case strings.Contains(strings.SplitN(i, "/", 2)[0], "."):
				if !slices.ContainsFunc(external[name], func(m string) bool { return strings.HasPrefix(i, m) }) {
					t.Errorf("%s uses %s", name, i)
				}
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d rooms were looked at", seen)
	}
}

// The budgets of size. A room that needs more has an idea missing.
const (
	maxFileLines     = 600
	maxFunctionLines = 80
	maxStructFields  = 30
	maxMethods       = 5 // of an interface, exclusive
)

// exceptions are places over a budget, with the reason. The list only shrinks.
var exceptions = map[string]string{
	"internal/exchange/exchange.go: interface Tunnel": "what io, net and tls all have of a connection",
	"internal/exchange/exchange.go: struct Exchange":  "cross-filter facts are typed fields, by design",
}

func TestNothingOutgrowsItsBudget(t *testing.T) {
	used := map[string]bool{}
	over := func(at, format string, args ...any) {
		if _, ok := exceptions[at]; ok {
			used[at] = true
			return
		}
		t.Errorf("%s: "+format, append([]any{at}, args...)...)
	}
	files := 0
	walk(t, func(path string, fset *token.FileSet, f *ast.File) {
		files++
		if n := fset.Position(f.End()).Line; n > maxFileLines {
			over(path, "%d lines, %d are the budget", n, maxFileLines)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				if n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line; n > maxFunctionLines {
					over(fmt.Sprintf("%s: func %s", path, fn.Name.Name), "%d lines, %d are the budget", n, maxFunctionLines)
				}
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			switch typ := spec.Type.(type) {
			case *ast.StructType:
				if n := typ.Fields.NumFields(); n >= maxStructFields {
					over(fmt.Sprintf("%s: struct %s", path, spec.Name.Name), "%d fields, under %d are the budget", n, maxStructFields)
				}
			case *ast.InterfaceType:
				if n := typ.Methods.NumFields(); n >= maxMethods {
					over(fmt.Sprintf("%s: interface %s", path, spec.Name.Name), "%d methods, under %d are the budget", n, maxMethods)
				}
			}
			return true
		})
	})
	for at := range exceptions {
		if !used[at] {
			t.Errorf("%s is within its budget: take it off the exceptions", at)
		}
	}
	if files < 20 {
		t.Errorf("only %d files were looked at", files)
	}
}

func TestThereIsNoHiddenStart(t *testing.T) {
	walk(t, func(path string, _ *token.FileSet, f *ast.File) {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == "init" && fn.Recv == nil {
				t.Errorf("%s has an init function", path)
			}
		}
		for _, word := range []string{"util", "common", "helpers", "types", "manager", "base"} {
			if f.Name.Name == word {
				t.Errorf("%s: package %s says nothing", path, word)
			}
		}
	})
}

// walk parses every Go file that is no test.
func walk(t *testing.T, visit func(string, *token.FileSet, *ast.File)) {
	t.Helper()
	for _, root := range []string{"cmd", "internal"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			visit(path, fset, f)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
