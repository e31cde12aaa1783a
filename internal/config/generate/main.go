// Command generate writes what is made from the source of the package config: the doc
// comments that stand in the schema and the manual, and the manual itself. It is
// run by go generate, in the folder of the package.
package main

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"

	"github.com/sluice-gateway/sluice/internal/config"
)

// Where the files stand, seen from the folder of the package config.
const (
	commentsFile  = "comments.json"
	referenceFile = "../../docs/config.md"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("say what to write: comments or reference")
	}
	switch args[0] {
	case "comments":
		text, err := commentsOf(".")
		if err != nil {
			return err
		}
		return os.WriteFile(commentsFile, text, 0o644)
	case "reference":
		if err := os.MkdirAll(filepath.Dir(referenceFile), 0o755); err != nil {
			return err
		}
		return os.WriteFile(referenceFile, config.Reference(), 0o644)
	}
	return fmt.Errorf("cannot write %q, only comments and reference", args[0])
}

// commentsOf reads the doc comments of the exported structs in a folder and of
// their fields, and returns them as JSON by "Type" and "Type.Field".
func commentsOf(folder string) ([]byte, error) {
	names, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		return nil, err
	}
	comments := map[string]string{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		for _, decl := range file.Decls {
			if types, ok := decl.(*ast.GenDecl); ok && types.Tok == token.TYPE {
				collect(types, comments)
			}
		}
	}
	text, err := json.MarshalIndent(comments, "", "  ")
	return append(text, '\n'), err
}

// collect takes the comments of the structs of one declaration.
func collect(decl *ast.GenDecl, comments map[string]string) {
	for _, spec := range decl.Specs {
		t := spec.(*ast.TypeSpec)
		fields, ok := t.Type.(*ast.StructType)
		if !ok || !t.Name.IsExported() || !configures(fields) {
			continue
		}
		doc := t.Doc
		if doc == nil {
			doc = decl.Doc
		}
		comments[t.Name.Name] = oneLine(doc.Text())
		for _, field := range fields.Fields.List {
			for _, name := range field.Names {
				if name.IsExported() {
					comments[t.Name.Name+"."+name.Name] = oneLine(field.Doc.Text())
				}
			}
		}
	}
}

// configures reports whether a struct is part of the document: its fields have keys.
func configures(s *ast.StructType) bool {
	if len(s.Fields.List) == 0 {
		return true
	}
	for _, f := range s.Fields.List {
		if f.Tag != nil && strings.Contains(f.Tag.Value, `yaml:"`) || f.Doc != nil && len(f.Names) == 1 && f.Names[0].Name == "Inline" {
			return true
		}
	}
	return false
}

// oneLine joins the lines of a comment.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
