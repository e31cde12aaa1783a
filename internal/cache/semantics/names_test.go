package semantics_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/cache/semantics"
)

func TestTags(t *testing.T) {
	long := strings.Repeat("x", 256)
	many := make([]string, 70)
	for i := range many {
		many[i] = fmt.Sprint("t", i)
	}
	table := []struct {
		lines string
		want  []string
	}{
		{"", nil},
		{"Surrogate-Key:", nil},
		{"Surrogate-Key: a", []string{"a"}},
		{"surrogate-key: a b", []string{"a", "b"}},
		{"Surrogate-Key: a,b", []string{"a", "b"}},
		{"Surrogate-Key:  a ,\t b,, c ", []string{"a", "b", "c"}},
		{"Surrogate-Key: b a b A", []string{"b", "a", "A"}},
		{"Surrogate-Key: a|Surrogate-Key: b a", []string{"a", "b"}},
		{"Surrogate-Key: user/1:x \"q\"", []string{"user/1:x", "\"q\""}},
		{"Surrogate-Key: " + long + " " + long + "x", []string{long}},
		{"Surrogate-Key: " + strings.Join(many, " "), many[:64]},
		{"Other: a", nil},
	}
	for _, row := range table {
		if got := semantics.Tags(header(row.lines), []byte("Surrogate-Key")); !slices.Equal(got, row.want) {
			t.Errorf("%q: %q, want %q", row.lines, got, row.want)
		}
	}
}

// RFC 9875 §2 and §3.
func TestGroups(t *testing.T) {
	var many, quotedMany []string
	for i := range 40 {
		many = append(many, fmt.Sprintf("%032d", i))
		quotedMany = append(quotedMany, fmt.Sprintf("%q", many[i]))
	}
	table := []struct {
		lines string
		want  []string
	}{
		{"", nil},
		{"Cache-Groups:", nil},
		{"Cache-Groups: \"a\"", []string{"a"}},
		{"cache-groups: \"a\", \"b\"", []string{"a", "b"}},
		{"Cache-Groups: \"b\",\"a\"", []string{"b", "a"}},
		{"Cache-Groups: \"a\", \"a\", \"A\"", []string{"a", "A"}},
		{"Cache-Groups: \"a\"|Cache-Groups: \"b\"", []string{"a", "b"}},
		{"Cache-Groups: \"a\";x=1;y, \"b\";z=?0", []string{"a", "b"}},
		{"Cache-Groups: \"a, b\"", []string{"a, b"}},
		{"Cache-Groups: \"a\\\"b\\\\c\"", []string{"a\"b\\c"}},
		{"Cache-Groups: \"\"", []string{""}},
		{"Cache-Groups: \" a \"", []string{" a "}},
		{"Cache-Groups: \"" + strings.Repeat("x", 33) + "\", \"a\"", []string{"a"}},
		{"Cache-Groups: " + strings.Join(quotedMany, ", "), many[:32]},
		// No list of strings.
		{"Cache-Groups: a", nil},
		{"Cache-Groups: \"a\", b", nil},
		{"Cache-Groups: \"a\" \"b\"", nil},
		{"Cache-Groups: \"a\",", nil},
		{"Cache-Groups: \"a\", , \"b\"", nil},
		{"Cache-Groups: \"a", nil},
		{"Cache-Groups: (\"a\" \"b\")", nil},
		{"Cache-Groups: 1", nil},
		{"Cache-Groups: \"a\", :YQ==:", nil},
		{"Cache-Groups: 'a'", nil},
		{"Cache-Groups: \"\xc3\xa9\"", nil},
		{"Cache-Groups: \"a\"|Cache-Groups: b", nil},
	}
	for _, row := range table {
		if got := semantics.Groups(header(row.lines), []byte("Cache-Groups")); !slices.Equal(got, row.want) {
			t.Errorf("%q: %q, want %q", row.lines, got, row.want)
		}
	}
}
