package auth

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/sluice-gateway/sluice/internal/config"
)

// maxID is the longest id of a client that a token may give, bytes.
const maxID = 256

// identityOf reads who calls out of claims.
func identityOf(claims map[string]any, names *config.ClaimNames) (identity, error) {
	who := identity{claims: claims}
	id, err := textOf(claims, names.Client)
	if err != nil {
		return who, err
	}
	if id == "" || len(id) > maxID || strings.ContainsFunc(id, unicode.IsControl) {
		return who, fmt.Errorf("claim %s is no id of a client: it must be text of 1 to %d bytes", names.Client, maxID)
	}
	who.id = id
	if who.plan, err = textOf(claims, names.Plan); err != nil {
		return who, err
	}
	if who.roles, err = wordsOf(claims, names.Roles); err != nil {
		return who, err
	}
	who.permissions, err = wordsOf(claims, names.Permissions)
	return who, err
}

// claimAt returns the claim at a path such as realm_access.roles, nil when there is
// none. A claim whose own name has the dots in it comes first.
func claimAt(claims map[string]any, path string) any {
	if v, ok := claims[path]; ok {
		return v
	}
	for i := range len(path) {
		if path[i] != '.' {
			continue
		}
		if inner, ok := claims[path[:i]].(map[string]any); ok {
			if v := claimAt(inner, path[i+1:]); v != nil {
				return v
			}
		}
	}
	return nil
}

// textOf returns a claim that is text, empty when there is none or no path.
func textOf(claims map[string]any, path string) (string, error) {
	if path == "" {
		return "", nil
	}
	v := claimAt(claims, path)
	s, ok := v.(string)
	if !ok && v != nil {
		return "", fmt.Errorf("claim %s is no text", path)
	}
	return s, nil
}

var errWords = errors.New("is neither text nor a list of it")

// wordsOf returns a claim that is a list of texts, or one text split on spaces; nil
// when there is none or no path.
func wordsOf(claims map[string]any, path string) ([]string, error) {
	if path == "" {
		return nil, nil
	}
	switch v := claimAt(claims, path).(type) {
	case nil:
		return nil, nil
	case string:
		return strings.Fields(v), nil
	case []any:
		words := make([]string, len(v))
		for i := range v {
			s, ok := v[i].(string)
			if !ok {
				return nil, fmt.Errorf("claim %s %w", path, errWords)
			}
			words[i] = s
		}
		return words, nil
	}
	return nil, fmt.Errorf("claim %s %w", path, errWords)
}
