package auth

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/policy"
)

// permissionsOf is the permissions of each role, those it inherits included, each
// once. A role that inherits itself in the end is as if that one step were not there;
// circles reports it.
func permissionsOf(roles map[string]*config.Role) map[string][]string {
	granted := make(map[string][]string, len(roles))
	for name := range roles {
		var all []string
		seen := map[string]bool{name: true}
		for queue := []string{name}; len(queue) > 0; queue = queue[1:] {
			role := roles[queue[0]]
			if role == nil {
				continue
			}
			all = union(all, role.Permissions)
			for _, parent := range role.Inherits {
				if !seen[parent] {
					seen[parent] = true
					queue = append(queue, parent)
				}
			}
		}
		granted[name] = all
	}
	return granted
}

// heirs are roles and all that inherit one of them, whichever way.
func heirs(roles map[string]*config.Role, of []string) []string {
	all := slices.Clone(of)
	for i := 0; i < len(all); i++ {
		for _, name := range slices.Sorted(maps.Keys(roles)) {
			if r := roles[name]; r != nil && slices.Contains(r.Inherits, all[i]) && !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	return all
}

// circles is an error at each role that inherits itself, with the way that leads
// back. Of a circle only one role is told, the first in the alphabet.
func circles(roles map[string]*config.Role) error {
	var failed []error
	told := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(roles)) {
		if told[name] {
			continue
		}
		if way := wayBack(roles, name); way != nil {
			for _, role := range way {
				told[role] = true
			}
			failed = append(failed, policy.At(keyed("roles", name)+".inherits", fmt.Errorf("%s inherits itself: %s; take one of these steps out", name, strings.Join(way, " → "))))
		}
	}
	return errors.Join(failed...)
}

// wayBack is the shortest way from a role to itself; nil when there is none.
func wayBack(roles map[string]*config.Role, name string) []string {
	from := map[string]string{} // the role that leads to this one
	for queue := []string{name}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if roles[at] == nil {
			continue
		}
		for _, parent := range roles[at].Inherits {
			if parent == name {
				way := []string{name}
				for step := at; step != name; step = from[step] {
					way = append(way, step)
				}
				way = append(way, name)
				slices.Reverse(way)
				return way
			}
			if _, seen := from[parent]; !seen {
				from[parent] = at
				queue = append(queue, parent)
			}
		}
	}
	return nil
}

// keyed is the path of a named thing, as the configuration's reader writes it.
func keyed(at, name string) string {
	plain := func(c rune) bool {
		return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-'
	}
	if strings.ContainsFunc(name, func(c rune) bool { return !plain(c) }) {
		return at + "[" + strconv.Quote(name) + "]"
	}
	return at + "." + name
}
