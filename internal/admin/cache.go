package admin

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
)

// Cache is the response cache, to be told and asked. Its methods are called from any
// goroutine.
type Cache interface {
	// Purge returns nil when no gateway will serve what p names any more, and ErrBadPurge
	// when p names nothing. After any other error nobody knows whether all of them were told.
	Purge(ctx context.Context, p Purge) error
	// Hot lists the n objects that are used the most, in this gateway's memory, the most
	// used first.
	Hot(n int) []HotObject
}

// Purge is the body of POST /v1/cache/purge. One of its members is given.
type Purge struct {
	URL    string `json:"url,omitempty"`    // one URL, with its query
	Prefix string `json:"prefix,omitempty"` // what the URLs begin with
	Tag    string `json:"tag,omitempty"`    // a tag of the objects
	All    bool   `json:"all,omitempty"`
}

// Purged is the answer of POST /v1/cache/purge.
type Purged struct {
	Purged bool `json:"purged"`
}

// HotObject is a cached response that is used much.
type HotObject struct {
	Key   string `json:"key"`   // its URL
	Count uint64 `json:"count"` // answers that it gave, about
	Bytes uint64 `json:"bytes"` // of memory
}

// HotObjectList is the answer of GET /v1/hot?what=cache.
type HotObjectList struct {
	What string      `json:"what"`
	Hot  []HotObject `json:"hot"`
}

// ErrBadPurge says that a purge names nothing that could be purged.
var ErrBadPurge = errors.New("admin: this cannot be purged")

const (
	// purgeTimeout is how long a purge may take to be known by all gateways.
	purgeTimeout = 5 * time.Second
	// maxTag is the longest tag that an object has, bytes.
	maxTag = 256
)

func (s *Server) purge(w http.ResponseWriter, r *http.Request) *problem {
	var q Purge
	if p := readBody(w, r, &q); p != nil {
		return p
	}
	if err := q.valid(); err != nil {
		return badRequest(sentence(err.Error()))
	}
	if !s.caches() {
		return noCache()
	}
	ctx, stop := context.WithTimeout(r.Context(), purgeTimeout)
	defer stop()
	if n, ok := w.(interface{ note(string, any) }); ok {
		n.note("purge", q)
	}
	switch err := s.Cache.Purge(ctx, q); {
	case errors.Is(err, ErrBadPurge):
		return badRequest("This names nothing that could be in the cache: write the URL as clients ask for it, such as https://api.example.com/v1/users?page=2.")
	case err != nil:
		s.Log.Warn("a purge is not known to be complete", "id", w.Header().Get("X-Request-Id"), "cause", err)
		p := unavailable()
		p.Detail = "Not every gateway could be told within its time, so the purge may not be complete: ask again. The log says why."
		return p
	}
	send(w, http.StatusOK, "application/json", Purged{true})
	return nil
}

// valid checks that a purge names one thing, and that this can be in a cache.
func (p *Purge) valid() error {
	given := 0
	for _, is := range [...]bool{p.URL != "", p.Prefix != "", p.Tag != "", p.All} {
		if is {
			given++
		}
	}
	switch {
	case given == 0:
		return errors.New(`the body names nothing: send {"url": …}, {"prefix": …}, {"tag": …} or {"all": true}`)
	case given > 1:
		return errors.New("the body names more than one thing: send one of url, prefix, tag and all at a time")
	case p.URL != "":
		return absolute("url", p.URL, true)
	case p.Prefix != "":
		return absolute("prefix", p.Prefix, false)
	case len(p.Tag) > maxTag:
		return errors.New("the tag is longer than 256 bytes, and no object has such a tag")
	case strings.ContainsFunc(p.Tag, func(c rune) bool { return c <= ' ' || c == 0x7f || c == ',' }):
		return errors.New("the tag has a space, comma or control character in it, and no object has such a tag: send one tag at a time")
	}
	return nil
}

// absolute checks that a text is an absolute URL, or the beginning of one with at least
// the whole host.
func absolute(name, text string, whole bool) error {
	scheme, rest, found := strings.Cut(text, "://")
	host, _, _ := strings.Cut(rest, "/")
	host, _, _ = strings.Cut(host, "?")
	scheme = strings.ToLower(scheme)
	switch {
	case !found || scheme != "http" && scheme != "https" || host == "":
		return errors.New("the " + name + " must have scheme and host, such as https://api.example.com/v1/users")
	case strings.Contains(text, "#"):
		return errors.New("the " + name + " has a #fragment, which no request has: leave it out")
	case strings.Contains(host, "@"):
		return errors.New("the " + name + " has a user before its host, which no request has: leave it out")
	}
	if u, err := url.Parse(text); whole && (err != nil || u.Hostname() == "") {
		return errors.New("the " + name + " cannot be read as a URL: write it as clients ask for it, such as https://api.example.com/v1/users?page=2")
	}
	return nil
}

// caches reports whether the running configuration has a route with a cache.
func (s *Server) caches() bool {
	f := s.Configuration.Running()
	if s.Cache == nil || f == nil {
		return false
	}
	cached := func(r config.Route) bool { return r.Cache != nil }
	return slices.ContainsFunc(f.Routes, cached) || slices.ContainsFunc(f.APIs, func(a config.API) bool { return slices.ContainsFunc(a.Routes, cached) })
}

func noCache() *problem {
	return conflict("No route of the running configuration has a cache; add cache: {} to one.", "")
}

// hotObjects answers GET /v1/hot?what=cache.
func (s *Server) hotObjects(w http.ResponseWriter) *problem {
	if !s.caches() {
		return noCache()
	}
	list := s.Cache.Hot(hotKeys)
	if list == nil {
		list = []HotObject{}
	}
	send(w, http.StatusOK, "application/json", HotObjectList{"cache", list})
	return nil
}
