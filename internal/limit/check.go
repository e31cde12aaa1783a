package limit

import (
	"errors"
	"fmt"
	"slices"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/policy"
)

// unread is an error about what is not there, or could not be read: whoever read
// the configuration has told of it.
type unread string

func (u unread) Error() string { return string(u) }

// Check finds what is wrong with the limits of f: the named ones, those of plans,
// and those in place, of routes and of the defaults of apis. f may have other
// errors; what could not be read of it is passed over. The error is nil, or joins
// errors of policy.At. Nothing is started or held.
func Check(f *config.File) error {
	e := &Engine{}
	failed := []error{e.compile(f).failed}
	seen := map[*config.RateLimit]bool{} // routes share those of their api's defaults
	inline := func(r *config.Route, at string) {
		for i, use := range r.RateLimit {
			if use.Inline != nil && !seen[use.Inline] {
				seen[use.Inline] = true
				_, err := e.rule(f, use.Inline, "", "", fmt.Sprintf("%s.rate_limit[%d]", at, i))
				failed = append(failed, err)
			}
		}
	}
	for a := range f.APIs {
		inline(&f.APIs[a].Defaults, fmt.Sprintf("apis[%d].defaults", a))
		for r := range f.APIs[a].Routes {
			inline(&f.APIs[a].Routes[r], fmt.Sprintf("apis[%d].routes[%d]", a, r))
		}
	}
	for r := range f.Routes {
		inline(&f.Routes[r], fmt.Sprintf("routes[%d]", r))
	}
	return untold(errors.Join(failed...))
}

// untold leaves out what the reader of the configuration has told.
func untold(err error) error {
	if err == nil {
		return nil
	}
	faults := slices.DeleteFunc(policy.Faults(err, ""), func(f *policy.Fault) bool {
		_, told := errors.AsType[unread](f)
		return told
	})
	var rest []error
	for _, f := range faults {
		rest = append(rest, f)
	}
	return errors.Join(rest...)
}
