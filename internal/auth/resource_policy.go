package auth

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/sluice-gateway/sluice/internal/auth/iam"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/router"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// resourcePolicy is the IAM document of an api. Its requests are the action
// execute-api:Invoke on
//
//	execute-api:/STAGE/METHOD/PATH
//
// with the api's stage, or $default without one, and the canonical path behind the
// base path. Who calls is the principal. What the document denies, or does not
// allow, is refused with 403.
//
// The METHOD of a HEAD request is HEAD, and has to be allowed as such. Where a route for
// GET serves it, what denies GET denies it too: the fields of a response tell much of it.
type resourcePolicy struct {
	policy *iam.Policy
	file   string
	start  []byte // execute-api:/STAGE/
	base   []byte // what of the path is not the resource's
	heads  bool   // the route names HEAD, which then is no matter of GET
}

var _ policy.Filter = (*resourcePolicy)(nil)

// documents are the policies of a configuration, each read once.
type documents struct {
	mu   sync.Mutex
	read map[string]document // by the place of the api
}

type document struct {
	policy *iam.Policy
	err    error
}

func (e *Engine) newResourcePolicy(route *config.Route, env *policy.Env) (policy.Filter, error) {
	at, _, inside := strings.Cut(env.At, ".routes[")
	var n int
	if _, err := fmt.Sscanf(at, "apis[%d]", &n); !inside || err != nil || n >= len(env.File.APIs) {
		return nil, nil
	}
	api := &env.File.APIs[n]
	if api.ResourcePolicy == "" {
		return nil, nil
	}
	all := policy.Common(env, func() *documents { return &documents{read: map[string]document{}} })
	all.mu.Lock()
	defer all.mu.Unlock()
	d, ok := all.read[at]
	if !ok {
		d.policy, d.err = readDocument(e.dir, api.ResourcePolicy)
		all.read[at] = d
	}
	if d.err != nil {
		return nil, policy.At(at+".resource_policy", d.err)
	}
	base := strings.TrimSuffix(api.BasePath, "/")
	if canonical, err := router.CanonicalPattern(base); err == nil {
		base = canonical
	}
	return &resourcePolicy{
		policy: d.policy, file: api.ResourcePolicy,
		start: []byte("execute-api:/" + cmp.Or(api.Stage, "$default") + "/"), base: []byte(base), heads: slices.Contains(route.Methods, "HEAD"),
	}, nil
}

// readDocument reads the policy of a file. Its error joins one for each thing that is
// wrong, with its place there.
func readDocument(dir, name string) (*iam.Policy, error) {
	data, err := readBeside(dir, name)
	if err != nil {
		return nil, err
	}
	p, err := iam.ParseResource(data)
	if err == nil {
		return p, nil
	}
	found := []error{err}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		found = many.Unwrap()
	}
	for i := range found {
		found[i] = fmt.Errorf("%s: %w", name, found[i])
	}
	return nil, errors.Join(found...)
}

// Request refuses what the document does not allow.
func (f *resourcePolicy) Request(x *exchange.Exchange) error {
	var q iam.Request
	f.describe(x, &q)
	if decision, why := f.decide(x, &q); decision != iam.Allowed {
		return forbid(&disallowed{file: f.file, why: why})
	}
	return nil
}

// decide evaluates the document. Behind it q is the request that was decided about.
func (f *resourcePolicy) decide(x *exchange.Exchange, q *iam.Request) (iam.Decision, string) {
	decision, why := f.policy.Evaluate(q)
	if decision != iam.Allowed || x.Request.Method != "HEAD" || f.heads {
		return decision, why
	}
	head := q.Resource
	q.Resource = f.resource(x, "GET")
	if as, denies := f.policy.Evaluate(q); as == iam.Denied {
		return as, denies
	}
	q.Resource = head
	return decision, why
}

// resource is what x asks for by a method.
func (f *resourcePolicy) resource(x *exchange.Exchange, method string) []byte {
	path := bytes.TrimPrefix(x.Request.Path, f.base)
	resource := x.Scratch(len(f.start) + len(method) + 1 + len(path))[:0]
	resource = append(append(resource, f.start...), method...)
	if len(path) == 0 || path[0] != '/' {
		resource = append(resource, '/')
	}
	return append(resource, path...)
}

// describe fills q with what the document is asked about.
func (f *resourcePolicy) describe(x *exchange.Exchange, q *iam.Request) {
	r := &x.Request
	q.Action, q.Resource = iam.Invoke, f.resource(x, r.Method)
	q.Source, q.Now, q.Secure = x.Client, x.Start, secure(x)
	if f.policy.NeedsHeaders() {
		q.UserAgent, q.Referer = r.Header.Get(userAgentName), r.Header.Get(refererName)
	}
	if c := x.Caller; c != nil {
		q.Caller = iam.Caller{
			ID: c.ID, Authenticator: c.Authenticator, Plan: c.Plan, Roles: c.Roles, Permissions: c.Permissions, Attributes: c.Attributes, Claims: c,
		}
	}
}

// secure reports whether the client came over TLS. Where a trusted proxy did it says
// so in X-Forwarded-Proto, which nobody else can.
func secure(x *exchange.Exchange) bool {
	if x.Trusted && x.Request.Header.Has(exchange.XForwardedProto) {
		return exchange.EqualFold(x.Request.Header.GetID(exchange.XForwardedProto), httpsScheme)
	}
	return x.Request.TLS
}

var httpsScheme = []byte("https")

var userAgentName, refererName = []byte("User-Agent"), []byte("Referer")

// disallowed is a decision of a document, with the statement that made it.
type disallowed struct{ file, why string }

func (d *disallowed) Error() string { return "resource_policy " + d.file + ": " + d.why }

// Explain names the statement that decides; when none allows the request, the one
// that comes closest and what of it does not match.
func (f *resourcePolicy) Explain(x *exchange.Exchange) policy.Opinion {
	var q iam.Request
	f.describe(x, &q)
	decision, _ := f.decide(x, &q)
	why := &disallowed{file: f.file, why: f.policy.Explain(&q)}
	if decision == iam.Allowed {
		return policy.Opinion{Verdict: telemetry.Allowed, Reason: why.Error()}
	}
	why.why = fmt.Sprintf("%s, %s", q.Resource, why.why)
	return policy.Opinion{Verdict: telemetry.Refused, Reason: why.Error(), Refusal: forbid(why)}
}
