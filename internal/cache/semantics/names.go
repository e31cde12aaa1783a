package semantics

import (
	"slices"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

const (
	maxTags     = 64
	maxTag      = 256 // bytes
	maxGroups   = 32
	maxGroupLen = 32 // characters
)

// Tags reads the surrogate tags in a field: separated by spaces or commas, at
// most 64, each of at most 256 bytes and once. Longer ones and further ones are
// left out.
func Tags(h *exchange.Header, name []byte) []string {
	var tags []string
	for v := range h.Values(name) {
		for start, i := 0, 0; i <= len(v); i++ {
			if i < len(v) && v[i] != ',' && !isSpace(v[i]) {
				continue
			}
			tag := v[start:i]
			start = i + 1
			if len(tag) == 0 || len(tag) > maxTag || len(tags) == maxTags || slices.Contains(tags, string(tag)) {
				continue
			}
			tags = append(tags, string(tag))
		}
	}
	return tags
}

// Groups reads Cache-Groups or Cache-Group-Invalidation (RFC 9875): a list of
// strings, parameters ignored. A field that is none counts for nothing. As many
// count as the RFC asks for, 32 of 32 characters; longer ones and further ones
// are left out.
func Groups(h *exchange.Header, name []byte) []string {
	v := joined(h, name)
	if v == nil {
		return nil
	}
	r := reader{b: v}
	r.spaces()
	var groups []string
	for r.more() {
		it, ok := r.value()
		if !ok || it.kind != kindString {
			return nil
		}
		if len(it.text) <= maxGroupLen && len(groups) < maxGroups && !slices.Contains(groups, string(it.text)) {
			groups = append(groups, string(it.text))
		}
		last, ok := r.comma()
		if !ok {
			return nil
		}
		if last {
			break
		}
	}
	return groups
}
