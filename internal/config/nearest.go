package config

import "strings"

// nearest returns the candidate that a misspelt word most likely stands for, or
// "" when none is near: within a third of its length in edits, at least one.
func nearest(word string, candidates []string) string {
	best, distance := "", max(1, len(word)/3)+1
	for _, c := range candidates {
		if d := edits(strings.ToLower(word), strings.ToLower(c), distance); d < distance {
			best, distance = c, d
		}
	}
	if best == "" && len(word) >= 3 {
		for _, c := range candidates {
			if strings.HasPrefix(c, word) || strings.HasPrefix(word, c) && len(c) >= 3 {
				return c
			}
		}
	}
	return best
}

// edits is the number of insertions, deletions, replacements and swaps of
// neighbours that make b of a (optimal string alignment), or at least the limit
// when it is not below it.
func edits(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit || len(a) > 256 || len(b) > 256 {
		return limit
	}
	before, above, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range above {
		above[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		least := i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
			least = min(least, row[j])
		}
		if least >= limit {
			return limit
		}
		before, above, row = above, row, before
	}
	return above[len(b)]
}

// suggest says what a word that is not among the candidates should be: the
// nearest one, or all of them when they are not too many. many is what they are.
func suggest(word string, candidates []string, many string) string {
	const most = 24
	if c := nearest(word, candidates); c != "" {
		return "did you mean " + quote(c) + "?"
	}
	switch {
	case len(candidates) == 0:
		return "there are no " + many
	case len(candidates) > most:
		return "the " + many + " are " + strings.Join(candidates[:most], ", ") + " and others"
	case len(candidates) == 1:
		return "the only choice is " + candidates[0]
	}
	return "the " + many + " are " + strings.Join(candidates, ", ")
}
