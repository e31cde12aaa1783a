package auth

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/expr"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// authorize is what a route asks of its callers: every one of permissions, one of
// roles, and a condition. Whoever does not fulfil all of it is refused: with 403, or
// with 401 when nobody is known, who could do better with credentials. What cannot
// be evaluated is not fulfilled.
type authorize struct {
	realm       *realm // for challenges; nil without authenticators
	challenges  []exchange.Field
	permissions []string
	roles       []string
	admitted    []string      // roles, and those that inherit one of them
	when        *expr.Program // nil: none
	text        string        // of when
	shadow      bool
}

var (
	_ policy.Filter = (*authorize)(nil)
	_ policy.Moded  = (*authorize)(nil)
	_ policy.Closer = (*authorize)(nil)
)

// roleCircles is the error of circles, found once for a configuration.
type roleCircles struct{ err error }

func (e *Engine) newAuthorize(route *config.Route, env *policy.Env) (policy.Filter, error) {
	failed := policy.Common(env, func() *roleCircles { return &roleCircles{circles(env.File.Roles)} }).err
	c := route.Authorize
	if c == nil {
		return nil, failed
	}
	f := &authorize{permissions: c.Permissions, roles: c.Roles, admitted: heirs(env.File.Roles, c.Roles), text: c.When, shadow: c.Mode == "shadow"}
	if c.When != "" {
		var err error
		if f.when, err = expr.Compile(c.When, expr.Bool); err != nil {
			failed = errors.Join(failed, policy.At(env.At+".authorize.when", err))
		}
	}
	if failed != nil {
		return nil, failed
	}
	if len(env.File.Authenticators) == 0 || route.Auth.Open() {
		return f, nil
	}
	realm, err := e.realm(env)
	if err != nil {
		return nil, err
	}
	f.realm = realm
	var who authenticate // whose challenges are those of a 401 here too
	for _, names := range route.Auth.Use {
		for _, name := range names {
			if a := realm.authenticators[name]; a != nil {
				who.challenge(a.scheme())
			}
		}
	}
	f.challenges = slices.Clip(who.challenges) // shared by all refusals: nobody appends in place
	return f, nil
}

// Shadow reports whether refusals are only recorded.
func (f *authorize) Shadow() bool { return f.shadow }

// Close lets the realm go.
func (f *authorize) Close() error {
	if f.realm == nil {
		return nil
	}
	return f.realm.release()
}

// Request refuses who may not.
func (f *authorize) Request(x *exchange.Exchange) error {
	d, ok := f.decide(x)
	if ok {
		return nil
	}
	return f.refusal(d)
}

// refusal is the answer to who lacks something.
func (f *authorize) refusal(d lack) *exchange.Error {
	if d.caller != nil {
		return forbid(&d)
	}
	e := refuse(&d)
	e.Header = f.challenges
	return e
}

// decide returns what the caller lacks, unless it is ok.
func (f *authorize) decide(x *exchange.Exchange) (d lack, ok bool) {
	var permissions, roles []string
	if x.Caller != nil {
		permissions, roles = x.Caller.Permissions, x.Caller.Roles
	}
	d = lack{of: f, caller: x.Caller}
next:
	for i, needed := range f.permissions {
		for _, has := range permissions {
			if covers(has, needed) {
				continue next
			}
		}
		d.what, d.permission = lacksPermission, i
		return d, false
	}
	if len(f.roles) > 0 && !slices.ContainsFunc(f.admitted, func(r string) bool { return slices.Contains(roles, r) }) {
		d.what = lacksRole
		return d, false
	}
	if f.when != nil {
		holds, err := f.when.Bool(x)
		if err != nil {
			d.what, d.err = lacksValue, err
			return d, false
		}
		if !holds {
			d.what = lacksCondition
			return d, false
		}
	}
	return d, true
}

// lack is the very rule that a caller does not fulfil. Its text is made when somebody
// reads it.
type lack struct {
	of         *authorize
	caller     *exchange.Caller // nil: nobody known
	what       lacking
	permission int   // which of them
	err        error // why the condition has no value
}

type lacking uint8

const (
	lacksPermission lacking = iota
	lacksRole
	lacksCondition
	lacksValue
)

// Error says which rule it is, and what the caller has.
func (d *lack) Error() string {
	has := "nobody is known"
	switch d.what {
	case lacksPermission:
		if d.caller != nil {
			has = d.caller.ID + " has " + some(d.caller.Permissions)
		}
		return fmt.Sprintf("permission %s is missing; %s", d.of.permissions[d.permission], has)
	case lacksRole:
		if d.caller != nil {
			has = d.caller.ID + " has " + some(d.caller.Roles)
		}
		if len(d.of.roles) == 1 {
			return fmt.Sprintf("role %s is missing; %s", d.of.roles[0], has)
		}
		return fmt.Sprintf("one of the roles %s is missing; %s", some(d.of.roles), has)
	}
	if d.caller != nil {
		has = "of " + d.caller.ID
	}
	if d.what == lacksValue {
		why := d.err
		if inner := errors.Unwrap(why); inner != nil {
			why = inner
		}
		return fmt.Sprintf("when cannot be evaluated, %v: %s (%s)", why, d.of.text, has)
	}
	return fmt.Sprintf("when is false: %s (%s)", d.of.text, has)
}

// Unwrap is why the condition has no value.
func (d *lack) Unwrap() error { return d.err }

// some lists names, as many as anybody reads.
func some(names []string) string {
	const most = 20
	switch n := len(names); {
	case n == 0:
		return "none"
	case n > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), n-most)
	}
	return strings.Join(names, ", ")
}

// Explain names the very rule.
func (f *authorize) Explain(x *exchange.Exchange) policy.Opinion {
	d, ok := f.decide(x)
	if !ok {
		return policy.Opinion{Verdict: telemetry.Refused, Reason: d.Error(), Refusal: f.refusal(d)}
	}
	var why []string
	if len(f.permissions) > 0 {
		why = append(why, "permissions "+some(f.permissions)+" are there")
	}
	if len(f.roles) > 0 {
		why = append(why, "one of the roles "+some(f.roles)+" is there")
	}
	if f.when != nil {
		why = append(why, "when is true: "+f.text)
	}
	if why == nil {
		why = append(why, "nothing is asked")
	}
	return policy.Opinion{Verdict: telemetry.Allowed, Reason: strings.Join(why, "; ")}
}
