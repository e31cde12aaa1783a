package expr

import (
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"
)

// The types of client and request, as they appear in errors.
const (
	clientType  = "Client"
	requestType = "Request"
)

var (
	textMap  = types.NewMapType(types.StringType, types.StringType)
	textList = types.NewListType(types.StringType)
)

// variables are what an expression sees, see the package's documentation.
var variables = map[string]*types.Type{
	"client":  types.NewObjectType(clientType),
	"request": types.NewObjectType(requestType),
	"params":  textMap,
	"claims":  types.NewMapType(types.StringType, types.DynType),
	"now":     types.TimestampType,
}

// field is one field of client or request. get returns a string, a []string or a
// *table.
type field struct {
	typ *types.Type
	get func(*view) any
}

var structs = map[string]map[string]field{
	clientType: {
		"id":          {types.StringType, (*view).clientID},
		"plan":        {types.StringType, (*view).clientPlan},
		"roles":       {textList, (*view).clientRoles},
		"permissions": {textList, (*view).clientPermissions},
		"attributes":  {textMap, func(v *view) any { return &v.attributes }},
	},
	requestType: {
		"method":     {types.StringType, func(v *view) any { return v.x.Request.Method }},
		"host":       {types.StringType, func(v *view) any { return string(v.x.Request.Host) }},
		"path":       {types.StringType, func(v *view) any { return string(v.x.Request.Path) }},
		"route_path": {types.StringType, (*view).routePath},
		"ip":         {types.StringType, (*view).ip},
		"headers":    {textMap, func(v *view) any { return &v.headers }},
		"query":      {textMap, func(v *view) any { return &v.query }},
	},
}

// macros are those that build no list or map.
var macros = []cel.Macro{cel.HasMacro, cel.AllMacro, cel.ExistsMacro, cel.ExistsOneMacro}

// environment is made once, since it takes a while, and does not change.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	registry, err := types.NewRegistry()
	if err != nil {
		return nil, err
	}
	options := []cel.EnvOption{
		cel.CustomTypeAdapter(registry),
		cel.CustomTypeProvider(provider{registry}),
		cel.ClearMacros(),
		cel.Macros(macros...),
		ext.Strings(ext.StringsVersion(5)), // the first whose functions have costs
		cel.CrossTypeNumericComparisons(true),
		cel.DefaultUTCTimeZone(true),
		cel.ParserExpressionSizeLimit(MaxLength),
		cel.ParserRecursionLimit(64),
		cel.ParserErrorRecoveryLimit(8),
		cel.ExpressionNodeLimit(2000),
		cel.RegexProgramSizeLimit(1000),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateComprehensionNestingLimit(2)),
	}
	for name, typ := range variables {
		options = append(options, cel.Variable(name, typ))
	}
	return cel.NewEnv(options...)
})

// provider adds the types of client and request to those of CEL.
type provider struct{ *types.Registry }

func (p provider) FindStructType(name string) (*types.Type, bool) {
	if _, ok := structs[name]; ok {
		return types.NewTypeTypeWithParam(types.NewObjectType(name)), true
	}
	return p.Registry.FindStructType(name)
}

func (p provider) FindStructFieldNames(name string) ([]string, bool) {
	if fields, ok := structs[name]; ok {
		return names(fields), true
	}
	return p.Registry.FindStructFieldNames(name)
}

func (p provider) FindStructFieldType(name, of string) (*types.FieldType, bool) {
	fields, ok := structs[name]
	if !ok {
		return p.Registry.FindStructFieldType(name, of)
	}
	f, ok := fields[of]
	if !ok {
		return nil, false
	}
	return &types.FieldType{
		Type:    f.typ,
		IsSet:   func(target any) bool { return isSet(f.get(target.(*view))) },
		GetFrom: func(target any) (any, error) { return f.get(target.(*view)), nil },
	}, true
}

// isSet is has(): there is something in it.
func isSet(value any) bool {
	switch v := value.(type) {
	case string:
		return v != ""
	case []string:
		return len(v) > 0
	case *table:
		return v.Size().(types.Int) > 0
	}
	return false
}

// What the limits of the gateway leave of a request, for estimates of the cost.
const (
	maxText  = 32 << 10 // limits.max_header_size
	maxName  = 256
	maxItems = 100
)

// sizes is how large the things that an expression sees can become.
type sizes struct{}

func (sizes) EstimateSize(node cost.AstNode) *cost.SizeEstimate {
	path := node.Path()
	if len(path) == 0 {
		return nil
	}
	switch node.Type().Kind() {
	case types.ListKind, types.MapKind:
		return &cost.SizeEstimate{Max: maxItems}
	case types.StringKind:
		last := path[len(path)-1]
		if path[0] == "client" || last == "@keys" || last == "method" || last == "host" || last == "ip" || last == "route_path" {
			return &cost.SizeEstimate{Max: maxName}
		}
		return &cost.SizeEstimate{Max: maxText}
	case types.DynKind:
		return &cost.SizeEstimate{Max: maxText}
	}
	return nil
}

func (sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}
