package gateways

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
)

// caddy is built from the module proxy, at the version that bench/caddy/go.mod
// pins, with the modules that its main.go names.
type caddy struct{ path string }

func (g *caddy) Name() string { return "caddy" }

func (g *caddy) Prepare(ctx context.Context, tools *Tools) (string, error) {
	path, err := tools.Build(ctx, "caddy", filepath.Join(tools.Root, "bench", "caddy"), ".")
	if err != nil {
		return "", err
	}
	g.path = path
	version, err := output(ctx, path, "version")
	version, _, _ = strings.Cut(version, " ")
	return version, err
}

func (g *caddy) Lacks(s *Setup) string {
	if s.Limit != nil {
		return "has no rate limit without a module that is not part of it"
	}
	if s.Cache {
		return "has no cache without a module that is not part of it"
	}
	return ""
}

func (g *caddy) Write(s *Setup) (Command, error) {
	text, err := json.MarshalIndent(caddyConfig(s), "", "  ")
	if err != nil {
		return Command{}, err
	}
	conf := filepath.Join(s.Dir, "caddy.json")
	return Command{Path: g.path, Args: []string{"run", "--config", conf}}, os.WriteFile(conf, text, 0o644)
}

func (g *caddy) Notes() []string {
	return []string{"Caddy: GOMAXPROCS as the cores, 512 idle connections to the origin, no access log, routes as two levels of path matchers (X-Forwarded-* are its own default)."}
}

type object map[string]any

func caddyConfig(s *Setup) object {
	handler := object{
		"handler":   "reverse_proxy",
		"upstreams": []object{{"dial": s.Origin}},
		"transport": object{
			"protocol": "http", "versions": []string{"1.1"}, "compression": false,
			"keep_alive": object{"enabled": true, "max_idle_conns": 1024, "max_idle_conns_per_host": 512, "idle_timeout": "300s"},
		},
	}
	if s.Answer != "" {
		handler = object{
			"handler": "static_response", "status_code": 200, "body": s.Answer,
			"headers": object{"Content-Type": []string{"application/json"}},
		}
	}
	named := object{}
	if len(s.Routes) > 1 {
		// One proxy, and so one pool, that all the routes invoke.
		named["origin"] = object{"handle": []object{handler}}
		handler = object{"handler": "invoke", "name": "origin"}
	}
	server := object{
		"named_routes":    named,
		"listen":          []string{s.Listen},
		"routes":          caddyRoutes(s.Routes, handler),
		"automatic_https": object{"disable": true},
		"idle_timeout":    "300s",
		"protocols":       []string{"h1"},
	}
	apps := object{"http": object{"servers": object{"bench": server}}}
	if s.TLS != nil {
		server["protocols"] = []string{"h1", "h2"}
		policy := object{}
		if !s.HTTP2 {
			server["protocols"] = []string{"h1"}
			policy["alpn"] = []string{"http/1.1"}
		}
		server["tls_connection_policies"] = []object{policy}
		apps["tls"] = object{"certificates": object{"load_files": []object{{"certificate": s.TLS.Cert, "key": s.TLS.Key}}}}
	}
	return object{
		"admin":   object{"disabled": true, "config": object{"persist": false}},
		"logging": object{"logs": object{"default": object{"level": "ERROR"}}},
		"storage": object{"module": "file_system", "root": filepath.Join(s.Dir, "storage")},
		"apps":    apps,
	}
}

// caddyRoutes tries few routes in turn, and many in two levels.
func caddyRoutes(routes []string, handler object) []object {
	one := func(prefix string, h object) object {
		return object{"match": []object{{"path": []string{prefix + "*"}}}, "handle": []object{h}, "terminal": true}
	}
	var out []object
	for _, g := range groups(routes) {
		if len(g.Routes) == 1 {
			out = append(out, one(g.Routes[0], handler))
			continue
		}
		var inner []object
		for _, r := range g.Routes {
			inner = append(inner, one(r, handler))
		}
		out = append(out, one(g.Prefix, object{"handler": "subroute", "routes": inner}))
	}
	return append(out, object{"handle": []object{{"handler": "static_response", "status_code": 404}}})
}
