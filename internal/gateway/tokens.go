package gateway

import (
	"net/url"
	"strings"

	"github.com/sluice-gateway/sluice/internal/config"
)

// TokensRoute is the name of the routes of the gateway's own token issuer. They are
// as any other route, for every host and listener, but have no upstream: the filter
// of that issuer answers.
const TokensRoute = "sluice.tokens"

// maxTokenForm is how long a form for the issuer may be.
const maxTokenForm = 64 << 10

// tokenRoutes are the routes of the issuer, none without one.
func tokenRoutes(f *config.File) []placed {
	if f.Tokens == nil {
		return nil
	}
	base := strings.TrimRight(f.Tokens.Path, "/")
	var all []placed
	add := func(method, path string) {
		all = append(all, placed{own: true, at: "tokens", route: &config.Route{
			Name: TokensRoute, Path: path, Methods: []string{method}, MaxBodySize: &config.Size{Bytes: maxTokenForm},
		}})
	}
	add("POST", base+"/token")
	add("POST", base+"/revoke")
	add("POST", base+"/introspect")
	add("GET", base+"/jwks")
	for _, name := range [...]string{"oauth-authorization-server", "openid-configuration"} {
		add("GET", "/.well-known/"+name)
	}
	// The path of an issuer stands behind the well-known one (RFC 8414 §3.1), and in
	// OpenID before it.
	if u, err := url.Parse(f.Tokens.Issuer); err == nil {
		if path := strings.TrimRight(u.Path, "/"); path != "" {
			add("GET", "/.well-known/oauth-authorization-server"+path)
			add("GET", path+"/.well-known/openid-configuration")
		}
	}
	return all
}
