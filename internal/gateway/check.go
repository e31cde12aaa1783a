package gateway

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/internal/auth"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/limit"
	"github.com/sluice-gateway/sluice/internal/policy"
)

// Check completes what reading f has found, when there are errors, by all that can
// be found wrong in spite of them: the paths and conditions of routes, and limits.
// What is wrong in a place that was found wrong is not told again. The problems are
// in file order. f may be nil. Without errors found is all there is, and Prepare
// finds the rest.
func Check(f *config.File, found config.Diagnostics) config.Diagnostics {
	if f == nil || found.Err() == nil {
		return found
	}
	b := &builder{file: f, s: &Snapshot{}, reported: map[config.Diagnostic]bool{}}
	b.routeTable(place(f))
	b.faults(limit.Check(f), "")
	b.identity()
	told := map[config.Diagnostic]bool{}
	for _, d := range found {
		told[byPath(d)], told[byPlace(d)] = true, true
	}
	for _, d := range b.found {
		if strings.HasPrefix(d.Path, "authenticators.") && slices.ContainsFunc(found, func(was config.Diagnostic) bool { return within(was.Path, d.Path) }) {
			continue // what is wrong there was told with more sense
		}
		if !told[byPath(d)] && !told[byPlace(d)] {
			found = append(found, d)
		}
	}
	found.Sort()
	return found
}

// within reports whether one of two places of one authenticator holds the other.
func within(a, b string) bool {
	return strings.HasPrefix(a+".", b+".") || strings.HasPrefix(b+".", a+".")
}

// identity finds what authenticators, roles, documents and conditions cannot be made of.
func (b *builder) identity() {
	who := auth.New(auth.Options{Offline: true})
	defer func() { _ = who.Close(context.Background()) }() // it has opened nothing
	specs := who.Specs()
	for _, p := range place(b.file) {
		env := policy.Env{Log: slog.New(slog.DiscardHandler), File: b.file, At: p.at, Common: &b.common, Route: exchange.Route{Name: p.route.Name}}
		if p.api != nil {
			env.Route.API, env.Route.Stage = p.api.Name, p.api.Stage
		}
		for i := range specs {
			made, err := specs[i].New(p.route, &env)
			b.faults(err, p.at)
			if c, ok := made.(policy.Closer); ok {
				_ = c.Close() // it has opened nothing
			}
		}
	}
}

// byPath is the same for all that is said of a value.
func byPath(d config.Diagnostic) config.Diagnostic {
	return config.Diagnostic{File: d.File, Path: d.Path}
}

// byPlace is that too for a value that aliases let stand in several places. The
// first key of a block is where the block is, so the place alone says nothing.
func byPlace(d config.Diagnostic) config.Diagnostic {
	return config.Diagnostic{File: d.File, Line: d.Line, Col: d.Col, Path: d.Path[strings.LastIndexAny(d.Path, ".[")+1:]}
}

// unrouted reports whether f has something that no filter of a route was made of.
func unrouted(f *config.File) bool {
	for i := range f.APIs {
		if len(f.APIs[i].Routes) == 0 && len(f.APIs[i].Defaults.RateLimit) > 0 {
			return true
		}
	}
	return len(place(f)) == 0
}

// faults reports what filters of the route at a path could not be made of, each
// once: what routes have in common, such as a named limit, fails for each of them.
func (b *builder) faults(err error, at string) {
	if err == nil {
		return
	}
	for _, f := range policy.Faults(err, at) {
		if f.Code == "" {
			f.Code = "config.policy"
		}
		d := b.file.Diagnose(f.At, f.Code, "%v", f)
		key := d
		key.Path = "" // an alias is the same place by another path
		if !b.reported[key] {
			b.reported[key] = true
			b.found = append(b.found, d)
		}
	}
}
