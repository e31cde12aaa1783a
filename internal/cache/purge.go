package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/internal/cache/semantics"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/router"
	"github.com/sluice-gateway/sluice/internal/store"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// Purge is what is to be forgotten. Exactly one field is set.
type Purge struct {
	URL    string `json:"url,omitempty"`    // absolute; all variants and all clients' responses
	Prefix string `json:"prefix,omitempty"` // absolute; every URL that begins so
	Tag    string `json:"tag,omitempty"`
	All    bool   `json:"all,omitempty"`
}

// ErrPurge says that a Purge is not one. Test with errors.Is.
var ErrPurge = errors.New("not a purge")

func badPurge(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrPurge, fmt.Sprintf(format, args...))
}

// Purge forgets, in both levels and in every gateway that shares level 2: when the error is
// nil, none of them answers any more with what was fetched before. Caches in front are told
// in the background. The error is an ErrPurge or a store.ErrUnavailable; behind the latter
// some gateways may have forgotten, and it is to be tried again.
func (e *Engine) Purge(ctx context.Context, p Purge) error {
	all, err := e.purge(p)
	if err != nil {
		return err
	}
	if e.purges == nil {
		e.forget(all)
	} else if err := e.purges.Purge(ctx, all); err != nil {
		e.forget(all) // at least here, where it was asked for
		return err
	}
	e.hooks.tell(p)
	return nil
}

// purge is what the stores know of p.
func (e *Engine) purge(p Purge) ([]store.Purge, error) {
	given := 0
	for _, is := range [...]bool{p.URL != "", p.Prefix != "", p.Tag != "", p.All} {
		if is {
			given++
		}
	}
	switch {
	case given != 1:
		return nil, badPurge("give one of url, prefix, tag and all")
	case p.All:
		return []store.Purge{{Kind: store.PurgeAll}}, nil
	case p.Tag != "":
		if len(p.Tag) > 256 || strings.ContainsAny(p.Tag, " ,\t\r\n\x00") {
			return nil, badPurge("a tag is at most 256 bytes without spaces and commas")
		}
		return []store.Purge{{Kind: store.PurgeTag, Name: "t:" + p.Tag}}, nil
	case p.Prefix != "":
		u, err := parseURL(p.Prefix, "prefix")
		if err != nil {
			return nil, err
		}
		if u.RawQuery != "" || u.ForceQuery {
			return nil, badPurge("a prefix has no query; purge the url, or a prefix of its path")
		}
		at := origin(u)
		path, err := canonical(u)
		if err != nil {
			return nil, err
		}
		return []store.Purge{{Kind: store.PurgePrefix, Name: at + path}}, nil
	}
	u, err := parseURL(p.URL, "url")
	if err != nil {
		return nil, err
	}
	uris, err := e.uris(u)
	if err != nil {
		return nil, err
	}
	return named(uris), nil
}

func named(uris []string) []store.Purge {
	all := make([]store.Purge, len(uris))
	for i, u := range uris {
		all[i] = store.Purge{Kind: store.PurgeURI, Name: u}
	}
	return all
}

func parseURL(text, what string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return nil, badPurge("%s: give an absolute URL such as https://api.example.com/users/1", what)
	}
	return u, nil
}

// origin is the scheme and the host as the key has them.
func origin(u *url.URL) string {
	host := strings.ToLower(u.Host)
	if port := u.Port(); port == "80" && u.Scheme == "http" || port == "443" && u.Scheme == "https" {
		host = strings.TrimSuffix(host, ":"+port)
	}
	return u.Scheme + "://" + strings.TrimSuffix(host, ":")
}

func canonical(u *url.URL) (string, error) {
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	b, err := router.Canonicalize(nil, []byte(path), router.PathOptions{KeepEncodedSlash: true, KeepParameters: true})
	if err != nil {
		return "", badPurge("the path: %v", err)
	}
	return string(b), nil
}

// uris are the URIs that a URL stands for: routes differ in which parameters count.
func (e *Engine) uris(u *url.URL) ([]string, error) {
	path, err := canonical(u)
	if err != nil {
		return nil, err
	}
	return e.spellings(origin(u)+path, []byte(u.RawQuery), u.RawQuery != "" || u.ForceQuery), nil
}

// spellings are a URI with its query as each of the routes counts it.
func (e *Engine) spellings(base string, query []byte, has bool) []string {
	all := []string{base}
	if !has {
		return all
	}
	for _, only := range append([][]string{nil}, e.settings.Load().queries...) {
		text := string(appendQuery([]byte(base), query, only))
		if !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	if len(query) > 0 {
		all = all[1:] // the URI without its query is another one, unless a route counts none of it
		if e.ignoresQuery(query) {
			all = append(all, base)
		}
	}
	return all
}

// ignoresQuery reports whether a route takes the URI with this query for the one without.
func (e *Engine) ignoresQuery(query []byte) bool {
	for _, only := range e.settings.Load().queries {
		if only != nil && len(appendQuery(nil, query, only)) == 0 {
			return true
		}
	}
	return false
}

// forget applies purges to level 1; nil: everything.
func (e *Engine) forget(purges []store.Purge) {
	if purges == nil {
		e.count(store.PurgeAll)
		e.memory.PurgeAll()
		return
	}
	for _, p := range purges {
		e.count(p.Kind)
		switch p.Kind {
		case store.PurgeURI:
			e.memory.PurgeURI(p.Name)
		case store.PurgeTag:
			e.tagged.Add(1)
			e.memory.PurgeTag(p.Name)
		case store.PurgePrefix:
			e.memory.PurgePrefix(p.Name)
		default:
			e.memory.PurgeAll()
		}
	}
}

const purgeKinds = int(store.PurgeAll) + 1

func (e *Engine) count(k store.PurgeKind) { e.stats.purges[min(int(k), purgeKinds-1)].Add(1) }

var (
	cacheGroups       = []byte("Cache-Groups")
	groupInvalidation = []byte("Cache-Group-Invalidation")
	contentLocation   = []byte("Content-Location")
)

// groupTag is the tag of a group of one origin (RFC 9875 §2).
func groupTag(origin, group string) string { return "g:" + origin + "\x00" + group }

// originOf is the scheme and the host of a URI.
func originOf(uri string) string {
	at := strings.Index(uri, "://") + len("://")
	if end := strings.IndexByte(uri[at:], '/'); end >= 0 {
		return uri[:at+end]
	}
	return uri
}

// changed forgets what an unsafe request that succeeded has changed (RFC 9111 §4.4): its
// target, Location and Content-Location at the same origin, and the groups that the
// response names (RFC 9875 §3).
func (e *Engine) changed(x *exchange.Exchange) {
	if s := x.Response.Status; x.Err != nil || s < 200 || s > 399 || !semantics.Unsafe(x.Request.Method) {
		return
	}
	at := string(appendOrigin(nil, x))
	uris := e.spellings(at+string(x.Request.Path), x.Request.Query, x.Request.HasQuery)
	for _, f := range [...][]byte{x.Response.Header.GetID(exchange.Location), x.Response.Header.Get(contentLocation)} {
		uris = append(uris, e.pointed(x, at, f)...)
	}
	var groups []store.Purge
	for _, g := range semantics.Groups(&x.Response.Header, groupInvalidation) {
		groups = append(groups, store.Purge{Kind: store.PurgeTag, Name: groupTag(at, g)})
	}
	if e.purges != nil { // first: or else what is forgotten here comes back from level 2
		e.purges.Invalidate(uris)
		e.groups.add(groups)
	}
	e.forget(append(named(uris), groups...))
}

// pointed are the URIs that a field of the response points to, if they are of the same
// origin.
func (e *Engine) pointed(x *exchange.Exchange, at string, field []byte) []string {
	if len(field) == 0 || bytes.IndexByte(field, 0) >= 0 {
		return nil
	}
	base, err := url.Parse(at + string(x.Request.Path))
	if err != nil {
		return nil
	}
	u, err := base.Parse(string(field))
	if err != nil || origin(u) != at {
		return nil
	}
	uris, err := e.uris(u)
	if err != nil {
		return nil
	}
	return uris
}

// forgetter is the filter of routes without a cache, through which things are changed that
// other routes keep.
type forgetter struct{ e *Engine }

// Request does nothing.
func (f *forgetter) Request(*exchange.Exchange) error { return nil }

// Response forgets what the request has changed.
func (f *forgetter) Response(x *exchange.Exchange) error {
	f.e.changed(x)
	return nil
}

// Explain implements policy.Filter.
func (f *forgetter) Explain(x *exchange.Exchange) policy.Opinion {
	if !semantics.Unsafe(x.Request.Method) {
		return policy.Opinion{Verdict: telemetry.Allowed, Reason: "the route has no cache"}
	}
	return policy.Opinion{Verdict: telemetry.Allowed, Reason: "the route has no cache; when the request succeeds, what is stored of its URL is forgotten"}
}
