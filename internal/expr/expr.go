// Package expr evaluates expressions of the configuration over an exchange: what
// a request costs, and whether a caller may. The language is CEL, the Common
// Expression Language (cel.dev): typed, without loops that do not end and without
// effects.
//
// # What an expression sees
//
//	client   id, plan: string; roles, permissions: list(string); attributes: map(string, string)
//	request  method, host, path, route_path, ip: string; headers, query: map(string, string)
//	params   map(string, string), the path's parameters
//	claims   map(string, dyn)
//	now      timestamp, when the request head was complete
//
// For nobody known, what is a string of client is "", and the rest is empty. path is what
// the client asked for, route_path the pattern of the route that was chosen. Names of
// headers are in lower case, and several fields of one name are joined as RFC 9110
// §5.3 says. Of several query parameters with one name the first counts.
//
// # What is bounded
//
// A program is checked when it is compiled: names, types, the literals of patterns
// and time zones, and what it can cost at most. What it does cost is counted while it
// runs, in CEL's units: about one per operation, one per ten bytes of text read. Over
// MaxCost it ends with an error. Of CEL's macros only has, all, exists and
// exists_one are there, which build nothing; patterns are literals, and RE2 matches
// them in linear time.
package expr

import (
	"errors"
	"fmt"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// MaxCost is how much a program may cost, in CEL's units: some milliseconds at worst.
const MaxCost = 100_000

// MaxLength is how long an expression may be, in characters.
const MaxLength = 4096

// Kind is what an expression has to yield.
type Kind uint8

// The kinds.
const (
	Bool   Kind = iota
	Number      // int, uint or double
)

func (k Kind) String() string { return [...]string{"bool", "number"}[k] }

// Error is one thing that is wrong with the text of an expression.
type Error struct {
	Offset  int // bytes from the beginning of the text
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("offset %d: %s", e.Offset, e.Message) }

// Program is a compiled expression. It does not change; any number of goroutines
// may use it.
type Program struct {
	kind    Kind
	program cel.Program
	views   sync.Pool // of *view
}

// Compile checks and compiles text. Its error joins an *Error for each thing that
// is wrong, in the order of the text (see errors.Join).
func Compile(text string, k Kind) (*Program, error) {
	env, err := environment()
	if err != nil {
		return nil, err
	}
	parsed, issues := env.Parse(text)
	if err := translate(text, issues.Errors()); err != nil {
		return nil, err
	}
	if err := examine(env, text, parsed.NativeRep()); err != nil {
		return nil, err
	}
	checked, issues := env.Check(parsed)
	if err := translate(text, issues.Errors()); err != nil {
		return nil, err
	}
	if err := checkResult(checked.OutputType(), k); err != nil {
		return nil, err
	}
	estimate, err := env.EstimateCost(checked, sizes{})
	if err != nil {
		return nil, fmt.Errorf("expr: the cost cannot be told: %w", err)
	}
	if estimate.Max > MaxCost {
		return nil, &Error{Message: fmt.Sprintf("the largest request could cost it %s units of work, %d are the limit: look at fewer things in it", count(estimate.Max), MaxCost)}
	}
	program, err := env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(MaxCost))
	if err != nil {
		return nil, fmt.Errorf("expr: %w", err)
	}
	return &Program{kind: k, program: program, views: sync.Pool{New: func() any { return newView() }}}, nil
}

func checkResult(t *cel.Type, k Kind) error {
	switch t.Kind() {
	case types.BoolKind:
		if k == Bool {
			return nil
		}
	case types.IntKind, types.UintKind, types.DoubleKind:
		if k == Number {
			return nil
		}
	case types.DynKind, types.AnyKind:
		if k == Bool {
			return &Error{Message: "it has no type, a bool is needed: compare it, as in claims.admin == true"}
		}
		return &Error{Message: "it has no type, a number is needed: convert it, as in double(claims.cost)"}
	}
	if k == Bool {
		return &Error{Message: fmt.Sprintf("it yields %s, a bool is needed: compare it with something", t)}
	}
	return &Error{Message: fmt.Sprintf("it yields %s, a number is needed: convert it with double(…), or choose with … ? 1 : 2", t)}
}

// Bool evaluates a program of that Kind.
func (p *Program) Bool(x *exchange.Exchange) (bool, error) {
	v, err := p.eval(x)
	if b, ok := v.(types.Bool); ok && err == nil {
		return bool(b), nil
	}
	return false, p.failed(err)
}

// Number evaluates a program of that Kind. The number may be anything, also
// negative, infinite or NaN.
func (p *Program) Number(x *exchange.Exchange) (float64, error) {
	v, err := p.eval(x)
	if err == nil {
		switch n := v.(type) {
		case types.Int:
			return float64(n), nil
		case types.Uint:
			return float64(n), nil
		case types.Double:
			return float64(n), nil
		}
	}
	return 0, p.failed(err)
}

func (p *Program) eval(x *exchange.Exchange) (any, error) {
	v := p.views.Get().(*view)
	v.x = x
	result, _, err := p.program.Eval(v)
	v.reset()
	p.views.Put(v)
	return result, err
}

func (p *Program) failed(err error) error {
	if err == nil {
		err = errors.New("it did not yield a " + p.kind.String())
	}
	return fmt.Errorf("expr: %w", err)
}

// count prints n, which may stand for "without a bound".
func count(n uint64) string {
	if n > 1e12 {
		return "any number of"
	}
	return fmt.Sprint(n)
}
