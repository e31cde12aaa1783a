// Command caddy is Caddy with only the modules that the bench configures: the
// HTTP app, TLS from files, the reverse proxy and static answers. It stands in a
// module of its own so that Caddy's dependencies are nobody else's.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	_ "github.com/caddyserver/caddy/v2/modules/caddytls"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
)

func main() { caddycmd.Main() }
