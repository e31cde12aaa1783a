package config

import (
	"fmt"
	"strings"
	"testing"
)

// manyRoutes is a configuration of n routes in one api.
func manyRoutes(n int) []byte {
	var b strings.Builder
	b.WriteString("upstreams:\n  users: {targets: [http://127.0.0.1:9001]}\napis:\n  - name: a\n    base_path: /v1\n    defaults: {timeout: 7s}\n    routes:\n")
	for i := range n {
		fmt.Fprintf(&b, "      - name: r%d\n        methods: [GET, POST]\n        path: /users%d/{id}\n        when: {headers: {X-Version: \"2\"}}\n        upstream: users\n        max_body_size: 5MiB # c\n", i, i)
	}
	return []byte(b.String())
}

func BenchmarkParse10000Routes(b *testing.B) {
	src := manyRoutes(10_000)
	b.ReportAllocs()
	for b.Loop() {
		f, ds := Parse("sluice.yaml", src, Env{})
		if ds.Err() != nil || len(f.APIs[0].Routes) != 10_000 {
			b.Fatal(ds)
		}
	}
}
