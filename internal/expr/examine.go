package expr

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp/syntax"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// examine finds what CEL's own check would not find, or would say in words that do
// not help: names that are nothing, with the name that was meant; names of headers
// in upper case; patterns and time zones that are not literals.
func examine(env *cel.Env, text string, tree *ast.AST) error {
	e := examiner{env: env, text: text, tree: tree, locals: map[string]bool{}, handled: map[int64]bool{}}
	ast.PreOrderVisit(tree.Expr(), ast.NewExprVisitor(func(x ast.Expr) {
		if x.Kind() == ast.ComprehensionKind {
			c := x.AsComprehension()
			e.locals[c.IterVar()], e.locals[c.AccuVar()] = true, true
			if c.HasIterVar2() {
				e.locals[c.IterVar2()] = true
			}
		}
	}))
	ast.PreOrderVisit(tree.Expr(), ast.NewExprVisitor(e.visit))
	return join(e.found)
}

type examiner struct {
	env     *cel.Env
	text    string
	tree    *ast.AST
	locals  map[string]bool // variables of macros
	handled map[int64]bool  // nodes that an error has covered
	found   []*Error
}

func (e *examiner) visit(x ast.Expr) {
	if e.handled[x.ID()] {
		return
	}
	switch x.Kind() {
	case ast.IdentKind:
		e.ident(x)
	case ast.SelectKind:
		e.selection(x)
	case ast.CallKind:
		e.call(x)
	case ast.StructKind:
		e.report(x, "objects cannot be made")
	}
}

func (e *examiner) report(x ast.Expr, format string, args ...any) {
	e.handled[x.ID()] = true
	e.found = append(e.found, &Error{Offset: e.offset(x), Message: fmt.Sprintf(format, args...)})
}

// offset is where x is named. CEL says where its operator is, or its parenthesis.
func (e *examiner) offset(x ast.Expr) int {
	if x.Kind() == ast.SelectKind && x.AsSelect().IsTestOnly() { // has()
		return e.offset(x.AsSelect().Operand())
	}
	r, ok := e.tree.SourceInfo().GetOffsetRange(x.ID())
	if !ok {
		return 0
	}
	at := bytesOf(e.text, int(r.Start))
	switch x.Kind() {
	case ast.SelectKind:
		if strings.HasPrefix(e.text[at:], ".") {
			at++
		}
	case ast.CallKind:
		if name := x.AsCall().FunctionName(); strings.HasSuffix(e.text[:at], name) {
			at -= len(name)
		}
	}
	return at
}

// skip has nothing said about x and what is in it.
func (e *examiner) skip(x ast.Expr) {
	ast.PreOrderVisit(x, ast.NewExprVisitor(func(x ast.Expr) { e.handled[x.ID()] = true }))
}

func (e *examiner) ident(x ast.Expr) {
	name := x.AsIdent()
	if e.locals[name] {
		return
	}
	if typ, ok := variables[name]; ok {
		if fields, ok := structs[typ.TypeName()]; ok {
			e.report(x, "%s is no value by itself, there are %s", name, list(name+".", names(fields)))
		}
		return
	}
	if _, ok := e.env.CELTypeProvider().FindIdent(name); ok {
		return // the name of a type
	}
	known := names(variables)
	for variable, typ := range variables {
		for f := range structs[typ.TypeName()] {
			if f == name {
				e.report(x, "there is no %s, did you mean %s.%s?", name, variable, f)
				return
			}
		}
	}
	e.report(x, "there is no %s, %s", name, suggest(name, "", known))
}

func (e *examiner) selection(x ast.Expr) {
	s := x.AsSelect()
	of := s.Operand()
	if e.isHeaders(of) {
		e.headerName(x, s.FieldName())
		return
	}
	if of.Kind() != ast.IdentKind || e.locals[of.AsIdent()] {
		return
	}
	typ, ok := variables[of.AsIdent()]
	if !ok {
		return
	}
	fields, ok := structs[typ.TypeName()]
	if !ok {
		return
	}
	e.handled[of.ID()] = true
	if _, ok := fields[s.FieldName()]; !ok {
		e.report(x, "there is no %s.%s, %s", of.AsIdent(), s.FieldName(), suggest(s.FieldName(), of.AsIdent()+".", names(fields)))
	}
}

// isHeaders reports whether x is request.headers.
func (e *examiner) isHeaders(x ast.Expr) bool {
	if x.Kind() != ast.SelectKind || x.AsSelect().FieldName() != "headers" {
		return false
	}
	of := x.AsSelect().Operand()
	return of.Kind() == ast.IdentKind && of.AsIdent() == "request" && !e.locals["request"]
}

func (e *examiner) headerName(x ast.Expr, name string) {
	if lower := strings.ToLower(name); lower != name {
		e.report(x, "names of headers are in lower case here: write %q", lower)
	}
}

func (e *examiner) call(x ast.Expr) {
	c := x.AsCall()
	args := c.Args()
	switch name := c.FunctionName(); name {
	case operators.Subtract:
		if header, ok := e.dashed(x); ok {
			e.skip(x)
			for x.Kind() == ast.CallKind {
				x = x.AsCall().Args()[0]
			}
			e.report(x, "this subtracts: write request.headers[%q]", header)
		}
	case operators.Index:
		if e.isHeaders(args[0]) {
			if s, ok := literal(args[1]); ok {
				e.headerName(args[1], s)
			}
		}
	case operators.In:
		if e.isHeaders(args[1]) {
			if s, ok := literal(args[0]); ok {
				e.headerName(args[0], s)
			}
		}
	case "matches":
		if len(args) == 0 {
			return
		}
		e.pattern(args[len(args)-1])
	case operators.Map, operators.Filter:
		e.skip(x)
		e.report(x, "there is no %s here, only has, all, exists and exists_one", name)
	default:
		if !e.env.HasFunction(name) && !strings.HasPrefix(name, "@") {
			for _, a := range args {
				e.skip(a)
			}
			e.report(x, "there is no function %s, %s", name, suggest(name, "", functions(e.env)))
			return
		}
		if c.IsMemberFunction() && len(args) == 1 && strings.HasPrefix(name, "get") {
			e.zone(args[0])
		}
	}
}

// pattern checks that of a matches. A pattern from a request could be made to cost
// what it likes.
func (e *examiner) pattern(x ast.Expr) {
	text, ok := literal(x)
	if !ok {
		e.skip(x)
		e.report(x, "a pattern must be written out, as in matches(\"^a+$\")")
		return
	}
	if _, err := syntax.Parse(text, syntax.Perl); err != nil {
		e.report(x, "%v", err)
	}
}

// zone checks the time zone of getHours and the like. It is looked up in the
// machine's files each time.
func (e *examiner) zone(x ast.Expr) {
	name, ok := literal(x)
	if !ok {
		e.report(x, "a time zone must be written out, as in getHours(\"Europe/Berlin\")")
		return
	}
	if strings.Contains(name, ":") {
		return // an offset; CEL reads it
	}
	if _, err := time.LoadLocation(name); err != nil {
		e.report(x, "there is no time zone %q on this machine", name)
	}
}

// dashed returns the name of the header that was meant by request.headers.x-cost,
// which CEL reads as a subtraction.
func (e *examiner) dashed(x ast.Expr) (string, bool) {
	switch x.Kind() {
	case ast.SelectKind:
		s := x.AsSelect()
		return s.FieldName(), e.isHeaders(s.Operand())
	case ast.CallKind:
		c := x.AsCall()
		if c.FunctionName() != operators.Subtract || c.Args()[1].Kind() != ast.IdentKind {
			return "", false
		}
		rest := c.Args()[1].AsIdent()
		if _, ok := variables[rest]; ok || e.locals[rest] {
			return "", false
		}
		name, ok := e.dashed(c.Args()[0])
		return name + "-" + rest, ok
	}
	return "", false
}

func literal(x ast.Expr) (string, bool) {
	if x.Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := x.AsLiteral().(types.String)
	return string(s), ok
}

// functions are the names of those that can be written.
func functions(env *cel.Env) []string {
	var all []string
	for name := range env.Functions() {
		if c := name[0]; 'a' <= c && c <= 'z' {
			all = append(all, name)
		}
	}
	for _, m := range macros {
		all = append(all, m.Function())
	}
	return all
}

func names[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// readable prints operators as they are written.
var readable = func() *strings.Replacer {
	pairs := []string{"Syntax error: mismatched input '<EOF>'", "it ends too early", "Syntax error: ", "", "'_?_:_'", "'? :'", "'_[_]'", "'[]'", "'!_'", "'!'", "'-_'", "'-'", "'@in'", "'in'", "'_&&_'", "'&&'", "'_||_'", "'||'"}
	for _, op := range []string{"+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">="} {
		pairs = append(pairs, "'_"+op+"_'", "'"+op+"'")
	}
	return strings.NewReplacer(pairs...)
}()

// translate makes errors of CEL's.
func translate(text string, issues []*cel.Error) error {
	var found []*Error
	if len(issues) > 0 && strings.TrimSpace(text) == "" {
		return &Error{Message: "it is empty"}
	}
	for _, i := range issues {
		message, _, _ := strings.Cut(i.Message, " expecting {") // the list of all there is
		found = append(found, &Error{Offset: offset(text, i.Location.Line(), i.Location.Column()), Message: readable.Replace(message)})
	}
	return join(found)
}

func join(found []*Error) error {
	slices.SortStableFunc(found, func(a, b *Error) int { return cmp.Compare(a.Offset, b.Offset) })
	all := make([]error, len(found))
	for i, e := range found {
		all[i] = e
	}
	return errors.Join(all...)
}

// offset is where a line (from 1) and a column (characters, from 0) are.
func offset(text string, line, column int) int {
	at := 0
	for ; line > 1; line-- {
		i := strings.IndexByte(text[at:], '\n')
		if i < 0 {
			break
		}
		at += i + 1
	}
	return at + bytesOf(text[at:], max(column, 0))
}

// bytesOf is how many bytes the first n characters of text have.
func bytesOf(text string, n int) int {
	for i := range text {
		if n == 0 {
			return i
		}
		n--
	}
	return len(text)
}
