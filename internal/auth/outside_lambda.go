package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/internal/auth/ask"
	"github.com/sluice-gateway/sluice/internal/auth/iam"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
)

// lambdaAuth asks an AWS Lambda authorizer, as API Gateway does.
//
// The identity sources must all be there and not empty, or the function is not called.
// An answer is kept under them, together with the api and its stage, so that one answer
// serves many requests: a policy in it is evaluated for each of them, a simple reply
// holds for all. Without cache_ttl every request is a call of its own.
type lambdaAuth struct {
	outside[*authorized]
	function ask.Lambda
	token    bool // of the type TOKEN
	identity []identitySource
	from     sources // those of the identity sources that are in the request
	arn      arnOf
	apis     map[string]*config.API
	heads    map[exchange.Route]bool // routes that name HEAD, by API and Name
}

var _ authenticator = (*lambdaAuth)(nil)

// authorized is what the function said.
type authorized struct {
	refusal *exchange.Error // nil: the policy decides, or there is none and it admits
	is      *resolved
	policy  *iam.Policy // nil: the reply was a simple one
	usage   string      // id of the API key whose plan counts; empty: none
}

// identitySource is one of `identity`: a place in the request, or something that is
// known of it.
type identitySource struct {
	place *source
	known func(a *lambdaAuth, x *exchange.Exchange) []byte
}

func newLambdaAuth(r *realm, name string, c *config.Authenticator) (authenticator, error) {
	l := c.Lambda
	if err := emulator(l.Endpoint); err != nil {
		return nil, policy.At("lambda.endpoint", err)
	}
	a := &lambdaAuth{
		function: ask.Lambda{Function: l.Function, Region: l.Region, Endpoint: l.Endpoint},
		token:    l.Type != "request", arn: newARNOf(l), apis: map[string]*config.API{},
	}
	for i, word := range l.Identity {
		s, err := parseIdentity(word)
		if err != nil {
			return nil, policy.At(fmt.Sprintf("lambda.identity[%d]", i), err)
		}
		a.identity = append(a.identity, s)
		if s.place != nil {
			a.from = append(a.from, *s.place)
		}
	}
	switch {
	case a.token && (len(a.identity) != 1 || len(a.from) != 1):
		return nil, policy.At("lambda.identity", errors.New("of the type token is the one place where the token stands: give one header, query or cookie, or write type: request"))
	case len(a.identity) == 0 && l.CacheTTL.Duration > 0:
		return nil, policy.At("lambda.identity", errors.New("is what answers are kept under, and is empty: name what the function decides by, or write cache_ttl: 0s"))
	}
	for i := range r.file.APIs {
		a.apis[r.file.APIs[i].Name] = &r.file.APIs[i]
	}
	a.heads = namingHEAD(r.file)
	a.outside = newOutside[*authorized](r, name, c, l.CacheTTL, l.Timeout, true)
	a.function.Client = a.client
	return a, nil
}

// emulator checks that another address than AWS's own is not sent tokens in plain text,
// unless it is on this machine.
func emulator(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" || strings.EqualFold(u.Hostname(), "localhost") {
		return nil // what is no URL was reported as it was read
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil && addr.IsLoopback() {
		return nil
	}
	return errors.New("would send credentials in plain text, use https:// or a loopback address")
}

// parseIdentity reads one identity source.
func parseIdentity(word string) (identitySource, error) {
	kind, name, _ := strings.Cut(word, ":")
	switch kind {
	case "context":
		known := contextVariables[name]
		if known == nil {
			return identitySource{}, fmt.Errorf("%q is no context variable that there is, use one of %s", name, strings.Join(sortedNames(contextVariables), ", "))
		}
		return identitySource{known: known}, nil
	case "stage_variable":
		if name == "" {
			return identitySource{}, errors.New("names nothing, write stage_variable:NAME")
		}
		return identitySource{known: func(a *lambdaAuth, x *exchange.Exchange) []byte {
			return []byte(a.variables(x)[name])
		}}, nil
	}
	s, err := parseSources([]string{word})
	if err != nil {
		return identitySource{}, err
	}
	return identitySource{place: &s[0]}, nil
}

// find returns the token, or all identity sources as one; nil when one is missing or
// empty.
func (a *lambdaAuth) find(x *exchange.Exchange) []byte {
	if a.token {
		if v := a.from[0].value(x); len(v) > 0 {
			return v
		}
		return nil
	}
	all := empty
	for i := range a.identity {
		var v []byte
		if s := &a.identity[i]; s.place != nil {
			v = s.place.value(x)
		} else {
			v = s.known(a, x)
		}
		if len(v) == 0 {
			return nil
		}
		all = ask.AppendPart(append(x.Scratch(len(all) + len(v) + 10)[:0], all...), v)
	}
	return all
}

func (a *lambdaAuth) scheme() string { return challengeOf(a.from) }

func (a *lambdaAuth) strip(x *exchange.Exchange) {
	if !forwards(a.config) {
		a.from.strip(x)
	}
}

func (a *lambdaAuth) check(x *exchange.Exchange, credential []byte, dry bool) (*exchange.Caller, error) {
	route := routeOf(x)
	parts := x.Scratch(len(route.API) + len(route.Stage) + len(credential) + 30)[:0]
	parts = ask.AppendPart(ask.AppendPart(parts, []byte(route.API)), []byte(route.Stage))
	key := ask.KeyOf(ask.AppendPart(parts, credential))
	answer, ok := a.desk.Kept(&key)
	if !ok {
		if a.silent(dry) {
			return nil, errDry
		}
		event, err := json.Marshal(a.event(x, credential))
		if err != nil {
			return nil, away(fmt.Errorf("the event for the function cannot be written: %w", err))
		}
		anonymous := nobody(credential)
		if answer, err = a.ask(x, key, func(ctx context.Context) (ask.Answer[*authorized], error) { return a.call(ctx, event, anonymous) }); err != nil {
			return nil, err
		}
	}
	if answer.refusal != nil {
		return nil, answer.refusal
	}
	if answer.usage != "" && !a.realm.live(answer.usage) {
		return nil, forbid(errUsageKey)
	}
	caller, err := answer.is.caller(a.realm.engine.now().UnixNano())
	if err != nil || answer.policy == nil {
		return caller, err
	}
	q := iam.Request{
		Action: iam.Invoke, Resource: a.arn.append(x.Scratch(a.arn.size(x))[:0], x, a.resource(x)),
		Caller: iam.Caller{ID: answer.is.who.id, Authenticator: a.name, Plan: caller.Plan, Roles: caller.Roles, Permissions: caller.Permissions, Attributes: caller.Attributes},
		Source: x.Client, Now: x.Start, Secure: secure(x),
	}
	if answer.policy.NeedsHeaders() {
		q.UserAgent, q.Referer = x.Request.Header.Get(userAgentName), x.Request.Header.Get(refererName)
	}
	if decision, rule := a.decide(x, answer.policy, &q); decision != iam.Allowed {
		if dry {
			rule = answer.policy.Explain(&q)
		}
		return nil, forbid(fmt.Errorf("the function's policy: %s", rule))
	}
	return caller, nil
}

// decide evaluates a policy. As in a resource policy, what denies GET denies a HEAD
// that its route serves too. Behind it q is the request that was decided about.
func (a *lambdaAuth) decide(x *exchange.Exchange, p *iam.Policy, q *iam.Request) (iam.Decision, string) {
	decision, rule := p.Evaluate(q)
	r := routeOf(x)
	if decision != iam.Allowed || x.Request.Method != "HEAD" || a.heads[exchange.Route{API: r.API, Name: r.Name}] {
		return decision, rule
	}
	head := q.Resource
	x.Request.Method = "GET"
	q.Resource = a.arn.append(x.Scratch(a.arn.size(x))[:0], x, a.resource(x))
	x.Request.Method = "HEAD"
	if as, denies := p.Evaluate(q); as == iam.Denied {
		return as, denies
	}
	q.Resource = head
	return decision, rule
}

// namingHEAD are the routes that name HEAD among their methods, by API and Name.
func namingHEAD(f *config.File) map[exchange.Route]bool {
	all := map[exchange.Route]bool{}
	note := func(api string, routes []config.Route) {
		for i := range routes {
			if slices.Contains(routes[i].Methods, "HEAD") && routes[i].Name != "" {
				all[exchange.Route{API: api, Name: routes[i].Name}] = true
			}
		}
	}
	for i := range f.APIs {
		if name := f.APIs[i].Name; name != "" {
			note(name, f.APIs[i].Routes)
		}
	}
	note("", f.Routes)
	return all
}

// event is what the function is sent. It holds as long as the exchange.
func (a *lambdaAuth) event(x *exchange.Exchange, credential []byte) any {
	if !a.token {
		return a.requestEvent(x)
	}
	arn := a.arn.append(nil, x, a.resource(x))
	return &ask.TokenEvent{Type: "TOKEN", AuthorizationToken: string(credential), MethodARN: string(arn)}
}

// call calls the function.
func (a *lambdaAuth) call(ctx context.Context, event []byte, anonymous string) (ask.Answer[*authorized], error) {
	asked := a.realm.engine.now()
	payload, err := a.function.Invoke(ctx, event)
	if errors.Is(err, ask.ErrUnauthorized) {
		return a.bad(&authorized{refusal: refuse(err)}, asked), nil
	}
	if err != nil {
		return ask.Answer[*authorized]{}, err
	}
	reply, err := ask.ReadReply(payload)
	if err != nil {
		return ask.Answer[*authorized]{}, fmt.Errorf("the function's reply %w", err)
	}
	if reply.Simple && !reply.Authorized {
		return a.bad(&authorized{refusal: forbid(errors.New("the function says isAuthorized: false"))}, asked), nil
	}
	who, err := replied(reply, anonymous)
	if err != nil {
		return ask.Answer[*authorized]{}, fmt.Errorf("the function's reply %w", err)
	}
	v := &authorized{}
	if reply.UsageKey != "" {
		if err = a.uses(v, &who, reply.UsageKey); err != nil {
			return ask.Answer[*authorized]{}, err
		}
		if v.refusal != nil {
			return a.bad(v, asked), nil
		}
	}
	v.is = a.realm.resolve(a.name, a.config, who)
	if !reply.Simple {
		if v.policy, err = iam.Parse(reply.Policy); err != nil {
			return ask.Answer[*authorized]{}, fmt.Errorf("the function's policyDocument: %w", err)
		}
	}
	answer := a.good(v, asked, asked.Add(a.ttl), reply.Size)
	answer.Refusal = reply.Policy != nil && !reply.Allows
	return answer, nil
}

// replied is the identity in a reply that may admit: the principalId, in a simple reply
// that of the context, else that of nobody; and the context as attributes.
func replied(reply *ask.Reply, anonymous string) (identity, error) {
	who := identity{id: reply.Principal}
	if who.id == "" {
		who.id, _ = reply.Context["principalId"].(string)
	}
	if who.id == "" {
		who.id = anonymous
	}
	if err := badID(who.id); err != nil {
		return who, fmt.Errorf("names a principalId that %w", err)
	}
	for name, v := range reply.Context {
		if v == nil {
			delete(reply.Context, name)
		}
	}
	who.attributes = texts(reply.Context)
	return who, nil
}

var errUsageKey = errors.New("the usageIdentifierKey of the function's reply is no key that works")

// uses takes the plan from the API key that the function names. A key that does not work
// is a 403, as API Gateway has it; an error says that it cannot be told now.
func (a *lambdaAuth) uses(v *authorized, who *identity, key string) error {
	c, err := a.realm.verify([]byte(key), a.realm.engine.now())
	if err != nil {
		if exchange.AsError(err).Code == exchange.DependencyUnavailable {
			return fmt.Errorf("the usageIdentifierKey of the function's reply cannot be looked up: %w", exchange.AsError(err).Cause)
		}
		v.refusal = forbid(errUsageKey)
		return nil
	}
	client, ok := a.realm.client(c.client)
	if !ok || !a.realm.owns(c) {
		v.refusal = forbid(errUsageKey)
		return nil
	}
	who.plan, who.key, v.usage = client.Plan, c.name, c.id
	return nil
}

// variables are the stage variables of the api that was called.
func (a *lambdaAuth) variables(x *exchange.Exchange) map[string]string {
	if api := a.apis[routeOf(x).API]; api != nil {
		return api.Variables
	}
	return nil
}

// resource is the canonical path behind the api's base path.
func (a *lambdaAuth) resource(x *exchange.Exchange) []byte {
	api := a.apis[routeOf(x).API]
	if api == nil {
		return x.Request.Path
	}
	return bytes.TrimPrefix(x.Request.Path, []byte(strings.TrimSuffix(api.BasePath, "/")))
}

var noRoute exchange.Route

func routeOf(x *exchange.Exchange) *exchange.Route {
	if x.Route == nil {
		return &noRoute
	}
	return x.Route
}

// arnOf names methods as API Gateway does:
//
//	arn:aws:execute-api:REGION:ACCOUNT:API/STAGE/METHOD/PATH
//
// REGION and ACCOUNT are those of the function, API and STAGE those of the
// configuration. `*` and `$` in the path are percent-encoded: an authorizer may give the
// ARN back as the resource that it allows, in which they would stand for more.
type arnOf struct{ prefix string }

func newARNOf(l *config.LambdaAuth) arnOf {
	region, account := l.Region, ask.ARNAccount(l.Function)
	if region == "" {
		region = ask.ARNRegion(l.Function)
	}
	if region == "" {
		region = noRegion
	}
	if account == "" {
		account = noAccount
	}
	return arnOf{prefix: "arn:aws:execute-api:" + region + ":" + account + ":"}
}

// What stands in an ARN for what the configuration does not say.
const (
	noRegion  = "us-east-1"
	noAccount = "000000000000"
	noAPI     = "default"
	noStage   = "$default"
)

func apiID(r *exchange.Route) string {
	if r.API == "" {
		return noAPI
	}
	return r.API
}

func stageOf(r *exchange.Route) string {
	if r.Stage == "" {
		return noStage
	}
	return r.Stage
}

// size is the most that append appends, bytes.
func (a *arnOf) size(x *exchange.Exchange) int {
	r := routeOf(x)
	return len(a.prefix) + len(r.API) + len(noAPI) + len(r.Stage) + len(noStage) + 3*len(x.Request.Method) + 3*len(x.Request.Path) + 3
}

// append appends the ARN of a request with a resource path.
func (a *arnOf) append(b []byte, x *exchange.Exchange, path []byte) []byte {
	r := routeOf(x)
	b = append(append(append(b, a.prefix...), apiID(r)...), '/')
	b = plainARN(append(append(b, stageOf(r)...), '/'), x.Request.Method)
	if len(path) == 0 || path[0] != '/' {
		b = append(b, '/')
	}
	return plainARN(b, path)
}

// plainARN appends text so that nothing in it is a wildcard or a variable.
func plainARN[T string | []byte](b []byte, text T) []byte {
	for i := range len(text) {
		switch c := text[i]; c {
		case '*':
			b = append(b, "%2A"...)
		case '$':
			b = append(b, "%24"...)
		case '?':
			b = append(b, "%3F"...)
		default:
			b = append(b, c)
		}
	}
	return b
}
