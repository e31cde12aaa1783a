package gatetest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
)

// RequestID is the form of the ids that the gateway makes (RFC 9562, UUIDv7).
var RequestID = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// Problem reads a problem document (RFC 9457) with all the members that each has,
// and no other. It returns its code.
func Problem(status int, header http.Header, body string) (code string, err error) {
	if ct := header.Get("Content-Type"); ct != "application/problem+json" {
		return "", fmt.Errorf("content type %q, want application/problem+json", ct)
	}
	var doc map[string]any
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		return "", fmt.Errorf("%w in %q", err, body)
	}
	want := []string{"code", "detail", "instance", "status", "title", "type"}
	if got := slices.Sorted(maps.Keys(doc)); !slices.Equal(got, want) {
		return "", fmt.Errorf("members %v, want %v", got, want)
	}
	if doc["status"] != float64(status) {
		return "", fmt.Errorf("member status %v, want %d", doc["status"], status)
	}
	for _, member := range []string{"type", "title", "detail", "code"} {
		if s, _ := doc[member].(string); s == "" {
			return "", fmt.Errorf("member %s is %v, want text", member, doc[member])
		}
	}
	if id := header.Get("X-Request-Id"); id == "" || doc["instance"] != id {
		return "", fmt.Errorf("instance %v, want the request id %q", doc["instance"], id)
	}
	return doc["code"].(string), nil
}
