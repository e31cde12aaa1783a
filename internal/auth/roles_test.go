package auth

import (
	"slices"
	"testing"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/policy"
)

func roleOf(inherits []string, permissions ...string) *config.Role {
	return &config.Role{Inherits: inherits, Permissions: permissions}
}

func TestRolesHaveWhatTheyInherit(t *testing.T) {
	granted := permissionsOf(map[string]*config.Role{
		"reader": roleOf(nil, "users:read"),
		"writer": roleOf([]string{"reader"}, "users:write"),
		"admin":  roleOf([]string{"writer", "reader"}, "users:*", "users:read"),
		"both":   roleOf([]string{"left", "right"}),
		"left":   roleOf([]string{"reader"}, "left"),
		"right":  roleOf([]string{"reader"}, "right"),
		"lost":   roleOf([]string{"nobody"}, "lost"),
		"empty":  nil,
		"self":   roleOf([]string{"self"}, "self"),
		"ping":   roleOf([]string{"pong"}, "ping"),
		"pong":   roleOf([]string{"ping"}, "pong"),
	})
	for role, want := range map[string][]string{
		"reader": {"users:read"},
		"writer": {"users:write", "users:read"},
		"admin":  {"users:*", "users:read", "users:write"},
		"both":   {"left", "right", "users:read"},
		"lost":   {"lost"},
		"empty":  nil,
		"self":   {"self"},
		"ping":   {"ping", "pong"},
		"pong":   {"pong", "ping"},
	} {
		got, ok := granted[role]
		if !ok || !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", role, got, want)
		}
	}
	if _, ok := granted["nobody"]; ok {
		t.Error("a role that there is not has permissions")
	}
}

func TestCirclesOfRolesAreErrors(t *testing.T) {
	for _, c := range []struct {
		name  string
		roles map[string]*config.Role
		want  []string // place and text
	}{
		{"a tree", map[string]*config.Role{"a": roleOf(nil), "b": roleOf([]string{"a"}), "c": roleOf([]string{"a", "b"}), "d": nil, "e": roleOf([]string{"d", "x"})}, nil},
		{"itself", map[string]*config.Role{"a": roleOf([]string{"a"})}, []string{"roles.a.inherits: a inherits itself: a → a; take one of these steps out"}},
		{
			"three",
			map[string]*config.Role{"a b": roleOf([]string{"c"}), "c": roleOf([]string{"x", "d"}), "d": roleOf([]string{"a b"}), "x": roleOf(nil)},
			[]string{`roles["a b"].inherits: a b inherits itself: a b → c → d → a b; take one of these steps out`},
		},
		{
			"two",
			map[string]*config.Role{"a": roleOf([]string{"a"}), "b": roleOf([]string{"c", "a"}), "c": roleOf([]string{"b"})},
			[]string{"roles.a.inherits: a inherits itself: a → a; take one of these steps out", "roles.b.inherits: b inherits itself: b → c → b; take one of these steps out"},
		},
		{
			"behind one that is none",
			map[string]*config.Role{"a": roleOf([]string{"b"}), "b": roleOf([]string{"c"}), "c": roleOf([]string{"b"})},
			[]string{"roles.b.inherits: b inherits itself: b → c → b; take one of these steps out"},
		},
	} {
		e := New(Options{})
		_, err := e.newAuthorize(&config.Route{}, &policy.Env{File: &config.File{Roles: c.roles}, At: "routes[0]"})
		var got []string
		if err != nil {
			for _, f := range policy.Faults(err, "") {
				got = append(got, f.At+": "+f.Error())
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want)
		}
	}
}

func TestPermissionsCover(t *testing.T) {
	for _, c := range []struct {
		has, needed string
		want        bool
	}{
		{"users:read", "users:read", true},
		{"users:read", "users:write", false},
		{"users:read", "users:*", false},
		{"users:*", "users:read", true},
		{"users:*", "users:", true},
		{"users:*", "users", false},
		{"users:*", "users:*", true},
		{"users:*", "users:a:b", true},
		{"users:*", "user:read", false},
		{"users:a:*", "users:b:c", false},
		{"*", "users:read", true},
		{"", "users:read", false},
		{"Users:read", "users:read", false},
		{"users:rea?", "users:read", false},
		{"us*:read", "users:read", false},
	} {
		if got := covers(c.has, c.needed); got != c.want {
			t.Errorf("%q covers %q: %v", c.has, c.needed, got)
		}
	}
}
