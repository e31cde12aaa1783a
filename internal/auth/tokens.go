package auth

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth/issuer"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
	"github.com/sluice-gateway/sluice/internal/store"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// Issuer is the gateway's own token issuer, for all configurations.
type Issuer struct{ *issuer.Issuer }

func newIssuer(e *Engine) *Issuer {
	return &Issuer{issuer.New(issuer.Options{Log: e.log, Now: e.now, Offline: e.offline})}
}

func (i *Issuer) keep(r store.Records)            { i.Keep(r) }
func (i *Issuer) changed(keys []string)           { i.Changed(keys) }
func (i *Issuer) close(ctx context.Context) error { return i.Close(ctx) }

// serve makes the server of a realm, which has a `tokens` block.
func (i *Issuer) serve(r *realm) (*issuer.Server, error) {
	t := r.file.Tokens
	s, err := i.Serve(issuer.Settings{
		Issuer: t.Issuer, Algorithm: t.Algorithm, Secret: []byte(t.Secret.Reveal()),
		AccessTTL: t.AccessTTL.Duration, RefreshTTL: t.RefreshTTL.Duration, Path: t.Path,
		Clients: keyHolders{r}, Narrow: inCommon,
	})
	if err != nil {
		return nil, policy.At("tokens", err)
	}
	return s, nil
}

// inCommon is the permissions that held and wanted have in common. Unlike narrow it
// takes nil for none.
func inCommon(held, wanted []string) []string {
	if wanted == nil {
		wanted = []string{}
	}
	return narrow(held, wanted)
}

// keyHolders are the clients of the token issuer: those who have an API key.
type keyHolders struct{ realm *realm }

// Authenticate finds the client by the id and the text of a key.
func (h keyHolders) Authenticate(id, secret string) (*issuer.Client, error) {
	now := h.realm.engine.now()
	c, err := h.realm.verify([]byte(secret), now)
	if err == nil && c.id != id {
		err = refuse(fmt.Errorf("the key is %s, not the client_id", c.id))
	}
	var who *exchange.Caller
	if err == nil {
		who, err = h.realm.holder(c)
	}
	if err != nil {
		switch e := exchange.AsError(err); e.Code {
		case exchange.DependencyUnavailable:
			return nil, fmt.Errorf("%w: %w", issuer.ErrAway, e.Cause)
		case exchange.Forbidden:
			return nil, fmt.Errorf("%w: %w", issuer.ErrForbidden, e.Cause)
		default:
			return nil, e.Cause
		}
	}
	c.touch(now.UnixNano())
	return &issuer.Client{ID: c.client, Key: cmp.Or(c.bound, c.id), Plan: who.Plan, Roles: who.Roles, Permissions: who.Permissions}, nil
}

// Live reports whether the key of an id may be used now.
func (h keyHolders) Live(id string) bool { return h.realm.live(id) }

// tokensRoute is the name of the route of the issuer's endpoints, which the gateway
// adds to a configuration that has `tokens`.
const tokensRoute = "sluice.tokens"

// tokenServer is what the routes of one configuration have in common.
type tokenServer struct {
	realm  *realm
	server *issuer.Server
	users  atomic.Int64
	once   sync.Once // a configuration that fails lets go more than once
	err    error
}

// tokenFilter answers the endpoints of the issuer. It refuses nobody as a filter does: its
// errors are those of OAuth, but for a 429 and a method that there is not.
type tokenFilter struct {
	*tokenServer
	path string
}

var (
	_ policy.Filter = (*tokenFilter)(nil)
	_ policy.Closer = (*tokenFilter)(nil)
)

func (e *Engine) newTokens(_ *config.Route, env *policy.Env) (policy.Filter, error) {
	if env.Route.Name != tokensRoute || env.File.Tokens == nil {
		return nil, nil
	}
	realm, err := e.realm(env)
	if err != nil {
		return nil, err
	}
	s := policy.Common(env, func() *tokenServer {
		s := &tokenServer{realm: realm}
		s.server, s.err = e.issuer.serve(realm)
		return s
	})
	if s.err != nil {
		return nil, errors.Join(s.err, realm.release())
	}
	s.users.Add(1)
	return &tokenFilter{tokenServer: s, path: env.File.Tokens.Path}, nil
}

// Close lets the server and the realm go.
func (t *tokenFilter) Close() error {
	if t.users.Add(-1) == 0 {
		t.once.Do(t.server.Close)
	}
	return t.realm.release()
}

// The documents that describe the issuer: RFC 8414 §3 and OpenID Connect Discovery
// 1.0 §4. An issuer with a path has it behind the first and before the second.
var (
	wellKnownServer = []byte("/.well-known/oauth-authorization-server")
	wellKnownOpenID = []byte("/.well-known/openid-configuration")
)

// tokenEndpoint is what a path asks for.
type tokenEndpoint uint8

const (
	noEndpoint tokenEndpoint = iota
	atToken
	atRevoke
	atIntrospect
	atKeys
	atMetadata
)

func (t *tokenFilter) endpoint(path []byte) tokenEndpoint {
	if rest, below := bytes.CutPrefix(path, []byte(t.path)); below {
		switch string(rest) {
		case issuer.TokenPath:
			return atToken
		case issuer.RevokePath:
			return atRevoke
		case issuer.IntrospectPath:
			return atIntrospect
		case issuer.KeysPath:
			return atKeys
		}
	}
	if bytes.HasPrefix(path, wellKnownServer) || bytes.HasSuffix(path, wellKnownOpenID) {
		return atMetadata
	}
	return noEndpoint
}

// Request answers.
func (t *tokenFilter) Request(x *exchange.Exchange) error {
	what := t.endpoint(x.Request.Path)
	switch what {
	case noEndpoint:
		return &exchange.Error{Code: exchange.RouteNotFound, Side: exchange.Client, Detail: "The token service has no such path."}
	case atKeys, atMetadata:
		if m := x.Request.Method; m != "GET" && m != "HEAD" {
			return wrongMethod("GET, HEAD")
		}
		if what == atKeys {
			return answerToken(x, t.server.Keys())
		}
		return answerToken(x, t.server.Metadata())
	}
	if x.Request.Method != "POST" {
		return wrongMethod("POST")
	}
	failures, g := &t.realm.file.Limits.AuthFailures, &t.realm.engine.guard
	if err := g.admit(failures, x); err != nil {
		return err
	}
	q, err := tokenForm(x)
	if err != nil {
		return err
	}
	r := t.ask(x, what, q)
	if r.Guess {
		g.failed(failures, x)
	}
	if r.Cause != nil {
		t.realm.engine.log.Info("the token service has refused a request", "request", string(x.ID), "client", x.Client.String(), "error", r.Cause)
	}
	return answerToken(x, r)
}

// ask has the endpoint answer, which may take as long as the store.
func (t *tokenFilter) ask(x *exchange.Exchange, what tokenEndpoint, q *issuer.Request) issuer.Reply {
	ctx, stop := x.Context()
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, tokenTime)
	defer cancel()
	switch what {
	case atRevoke:
		return t.server.Revoke(ctx, q)
	case atIntrospect:
		return t.server.Introspect(ctx, q)
	}
	return t.server.Token(ctx, q)
}

// tokenTime is how long an answer may wait for the store.
const tokenTime = time.Second

func wrongMethod(allow string) *exchange.Error {
	return &exchange.Error{
		Code: exchange.MethodNotAllowed, Side: exchange.Client, Detail: "Use " + allow + " here.",
		Header: []exchange.Field{{Name: []byte("Allow"), Value: []byte(allow)}},
	}
}

// tokenForm reads the request for the issuer. Its body has been read whole.
func tokenForm(x *exchange.Exchange) (*issuer.Request, error) {
	q := &issuer.Request{ContentType: string(x.Request.Header.GetID(exchange.ContentType))}
	for v := range x.Request.Header.ValuesID(exchange.Authorization) {
		q.Several = q.Authorization != ""
		q.Authorization = string(v)
	}
	if x.Request.Body == nil {
		return q, nil
	}
	for {
		piece, err := x.Request.Body.Next()
		q.Body = append(q.Body, piece...)
		if err == io.EOF {
			return q, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// answerToken makes the response of what the issuer answers (RFC 6749 §5.1: nothing of it
// is to be kept, but for what is public).
func answerToken(x *exchange.Exchange, r issuer.Reply) error {
	contentType := ""
	if len(r.Body) > 0 {
		contentType = "application/json"
	}
	x.Answer(r.Status, contentType, r.Body)
	h := &x.Response.Header
	if r.MaxAge > 0 {
		h.AddID(exchange.CacheControl, x.CopyString("public, max-age="+strconv.Itoa(int(r.MaxAge/time.Second))))
	} else {
		h.AddID(exchange.CacheControl, []byte("no-store"))
		h.Add([]byte("Pragma"), []byte("no-cache"))
	}
	if r.Challenge != "" {
		h.Add(wwwAuthenticate, x.CopyString(r.Challenge))
	}
	return exchange.Done
}

// Explain says that the issuer answers. It does not ask it.
func (t *tokenFilter) Explain(x *exchange.Exchange) policy.Opinion {
	if t.endpoint(x.Request.Path) == noEndpoint {
		e := &exchange.Error{Code: exchange.RouteNotFound, Side: exchange.Client}
		return policy.Opinion{Verdict: telemetry.Refused, Reason: "the token service has no such path", Refusal: e}
	}
	return policy.Opinion{Verdict: telemetry.Answered, Reason: "the gateway's own token issuer answers"}
}
