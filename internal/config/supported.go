package config

import "strings"

// notSupported lists what the document may hold and the gateway cannot do yet.
// To use any of it is an error, so that nothing is accepted in silence. A line
// goes when its feature lands.
//
// A pattern is a path: * is any key or index, ROUTE any route and the defaults of
// any api, and =value at the end matches that value only.
var notSupported = [...]string{
	"upstreams.*.protocol=h2",
	"upstreams.*.protocol=h2c",
	"upstreams.*.hedge",
	"upstreams.*.health",
	"upstreams.*.outlier",
	"upstreams.*.breaker",
	"upstreams.*.lambda",
	"apis.*.openapi",
	"ROUTE.cors",
	"ROUTE.waf",
	"ROUTE.validate",
	"ROUTE.idempotency",
	"ROUTE.request.headers",
	"ROUTE.request.query",
	"ROUTE.request.body",
	"ROUTE.response",
	"tracing",
}

// routePlaces is what ROUTE stands for.
var routePlaces = [...]string{"routes.*", "apis.*.routes.*", "apis.*.defaults"}

// refuseUnsupported reports every use of what is not supported.
func (l *loader) refuseUnsupported(f *File) {
	for _, p := range f.doc.parts {
		for _, pattern := range notSupported {
			rest, isRoute := strings.CutPrefix(pattern, "ROUTE.")
			if !isRoute {
				l.refuse(p.src, p.tree.root, nil, nil, pattern)
				continue
			}
			for _, place := range routePlaces {
				l.refuse(p.src, p.tree.root, nil, nil, place+"."+rest)
			}
		}
	}
}

// refuse reports what a pattern finds below a node; key is the node's own.
func (l *loader) refuse(src *source, n, key *node, p path, pattern string) {
	if n == nil {
		return
	}
	if pattern == "" {
		at, name := n, ""
		if key != nil {
			at, name = key, key.text
		}
		l.report(src, at, p, "config.not_supported", quote(name)+" is not supported yet, remove it")
		return
	}
	step, rest, _ := strings.Cut(pattern, ".")
	step, value, hasValue := strings.Cut(step, "=")
	if step != "*" {
		e := n.find(step)
		switch {
		case e == nil:
		case !hasValue:
			l.refuse(src, e.value, e.key, p.key(step), rest)
		case e.value.kind == scalarKind && e.value.text == value:
			l.report(src, e.value, p.key(step), "config.not_supported", e.value.subject()+" is not supported yet, choose another value")
		}
		return
	}
	for _, e := range n.entries {
		l.refuse(src, e.value, e.key, p.key(e.key.text), rest)
	}
	for i, item := range n.items {
		l.refuse(src, item, item, p.index(i), rest)
	}
}
