package expr

import (
	"slices"
	"strings"
)

// suggest says what a word that is not among the candidates should be: the nearest
// one, or all of them when they are few.
func suggest(word, prefix string, candidates []string) string {
	slices.Sort(candidates)
	best, distance := "", max(1, len(word)/3)+1
	for _, c := range candidates {
		if d := edits(strings.ToLower(word), strings.ToLower(c)); d < distance {
			best, distance = c, d
		}
	}
	if best != "" {
		return "did you mean " + prefix + best + "?"
	}
	if len(candidates) <= 10 {
		return "there are " + list(prefix, candidates)
	}
	return "see the documentation of CEL for what there is"
}

func list(prefix string, words []string) string {
	return prefix + strings.Join(words, ", "+prefix)
}

// edits is the number of insertions, deletions, replacements and swaps of
// neighbours that make b of a (optimal string alignment).
func edits(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
