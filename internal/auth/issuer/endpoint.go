package issuer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/store"
)

// This file is what the endpoints decide: token (RFC 6749 §4.4 and §6), revoke
// (RFC 7009) and introspect (RFC 7662).

const (
	clientCredentials = "client_credentials"
	refreshGrant      = "refresh_token"
)

// begin reads the form and finds out which client asks. A refusal is not nil.
func (s *Server) begin(q *Request) (form, *Client, *Reply) {
	f, err := parseForm(q)
	if err != nil {
		r := s.refuse(invalidRequest, text(err), nil)
		return nil, nil, &r
	}
	id, secret, err := credentials(q, f)
	if errors.Is(err, errTwice) {
		r := s.refuse(invalidRequest, text(err), nil)
		return nil, nil, &r
	}
	var c *Client
	if err == nil {
		c, err = s.o.Clients.Authenticate(id, secret)
	}
	if errors.Is(err, ErrAway) {
		r := s.away(err)
		return nil, nil, &r
	}
	if errors.Is(err, ErrForbidden) {
		r := s.refuse(unauthorizedClient, "This client may have no tokens: its plan or one of its roles is not known here.", err)
		return nil, nil, &r
	}
	if err != nil {
		r := s.refuse(invalidClient, "The client credentials are missing or wrong: client_id is the id of an API key, client_secret the whole key.", err)
		return nil, nil, &r
	}
	return f, c, nil
}

// text is an error as a sentence.
func text(err error) string {
	s := err.Error()
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

// tokens is the reply of RFC 6749 §5.1.
type tokens struct {
	Access    string `json:"access_token"`
	Type      string `json:"token_type"`
	ExpiresIn int64  `json:"expires_in"`
	Refresh   string `json:"refresh_token,omitempty"`
	Scope     string `json:"scope,omitempty"`
}

func (s *Server) grant(access []byte, refresh string, scope []string) Reply {
	return Reply{Status: 200, Body: object(tokens{
		Access: string(access), Type: "Bearer", ExpiresIn: int64(s.o.AccessTTL / time.Second), Refresh: refresh, Scope: strings.Join(scope, " "),
	})}
}

// Token answers a request for tokens.
func (s *Server) Token(ctx context.Context, q *Request) Reply {
	f, c, refusal := s.begin(q)
	if refusal != nil {
		return *refusal
	}
	requested, err := f.scope()
	if err != nil {
		return s.refuse(invalidScope, text(err), nil)
	}
	switch f["grant_type"] {
	case clientCredentials:
		return s.first(ctx, c, requested)
	case refreshGrant:
		return s.refresh(ctx, c, f[refreshGrant], requested)
	case "":
		return s.refuse(invalidRequest, "There is no grant_type.", nil)
	}
	return s.refuse(unsupportedGrant, "The grant_type must be client_credentials or refresh_token.", nil)
}

// beyond is the refusal of a scope that a client has not.
func (s *Server) beyond(c *Client) Reply {
	return s.refuse(invalidScope, "The scope names a permission that this key does not have.", fmt.Errorf("%s asks for more than its key has", c.ID))
}

// first gives the first tokens of a family. While the store is away, they are an
// access token alone.
func (s *Server) first(ctx context.Context, c *Client, requested []string) Reply {
	scope, ok := s.scopes(requested, c.Permissions)
	if !ok {
		return s.beyond(c)
	}
	now := s.i.now()
	name := newName()
	access, last, err := s.sign(c, scope, name, now)
	if err != nil {
		return s.failed(err)
	}
	refresh := ""
	if s.i.records != nil && s.i.grants.take(c.Key, now) {
		refresh = newRefresh(name)
		f := &family{Client: c.ID, Key: c.Key, Scope: scope, Current: digest(refresh), Issued: now.Unix(), Last: last.Unix()}
		if err := s.i.put(ctx, name, f, 0, now.Add(s.o.RefreshTTL)); err != nil {
			s.log().Warn("a refresh token cannot be recorded, an access token is given without one", "client", c.ID, "error", err)
			refresh = ""
		}
	}
	return s.grant(access, refresh, scope)
}

func (s *Server) failed(err error) Reply {
	if errors.Is(err, errLong) {
		return s.refuse(invalidScope, "The access token would be too long, ask for a narrower scope.", err)
	}
	if errors.Is(err, ErrAway) || errors.Is(err, store.ErrUnavailable) {
		return s.away(err)
	}
	r := s.refuse("server_error", "The token service has failed.", err)
	r.Status = 500
	return r
}

const badRefresh = "The refresh token does not hold: it is unknown, expired, revoked, of another client, or was used before."

// refresh gives the next tokens of a family for its refresh token, which holds no
// more from then on. Of requests with one token that overlap, one gets tokens. A
// token that was used before ends its family: somebody else may have it.
func (s *Server) refresh(ctx context.Context, c *Client, token string, requested []string) Reply {
	if s.i.records == nil {
		return s.refuse(unsupportedGrant, "Refresh tokens need a store, and this gateway has none.", nil)
	}
	if token == "" {
		return s.refuse(invalidRequest, "There is no refresh_token.", nil)
	}
	name, ok := parseRefresh(token)
	if !ok {
		return s.refuse(invalidGrant, badRefresh, errors.New("it is no refresh token"))
	}
	f, err := s.i.open(ctx, name)
	switch {
	case errors.Is(err, errNoFamily):
		return s.refuse(invalidGrant, badRefresh, err)
	case err != nil:
		return s.failed(err)
	case f.Key != c.Key || f.Client != c.ID:
		return s.refuse(invalidGrant, badRefresh, fmt.Errorf("it is of another key than that of %s", c.ID))
	}
	now := s.i.now()
	if !f.holds(token) {
		if err := s.i.end(ctx, name, s.latest(f, now)); err != nil {
			return s.failed(err)
		}
		s.log().Warn("a refresh token was used again, all tokens that came from the same grant are revoked", "client", c.ID, "key", c.Key)
		return s.refuse(invalidGrant, badRefresh, errors.New("it was used before, its family is revoked"))
	}
	if _, ok := s.scopes(requested, f.Scope); !ok {
		return s.beyond(c)
	}
	scope, ok := s.scopes(requested, c.Permissions)
	if !ok {
		return s.beyond(c)
	}
	if requested == nil {
		scope = speakable(s.o.Narrow(c.Permissions, f.Scope)) // what the key has lost since is lost
	}
	access, last, err := s.sign(c, scope, name, now)
	if err != nil {
		return s.failed(err)
	}
	next := f.family
	fresh := newRefresh(name)
	next.Current, next.Issued, next.Last = digest(fresh), now.Unix(), max(f.Last, last.Unix())
	switch err := s.i.put(ctx, name, &next, f.version, now.Add(s.o.RefreshTTL)); {
	case errors.Is(err, store.ErrConflict):
		return s.refuse(invalidGrant, badRefresh, errors.New("another request with it was faster"))
	case err != nil:
		return s.failed(err)
	}
	return s.grant(access, fresh, scope)
}

// latest is when the last access token of a family ends: one may be about to be given
// by a request that overlaps.
func (s *Server) latest(f *found, now time.Time) time.Time {
	last := now.Add(s.o.AccessTTL)
	if f != nil && f.Last > last.Unix() {
		last = time.Unix(f.Last, 0)
	}
	return last
}

// Revoke ends the family of a token (RFC 7009). That one does not know the token, or
// that it has ended already, is no error.
func (s *Server) Revoke(ctx context.Context, q *Request) Reply {
	f, c, refusal := s.begin(q)
	if refusal != nil {
		return *refusal
	}
	token := f["token"]
	if token == "" {
		return s.refuse(invalidRequest, "There is no token.", nil)
	}
	name, owner, last, err := s.owner(ctx, token)
	switch {
	case errors.Is(err, ErrAway):
		return s.away(err)
	case err != nil:
		return Reply{Status: 200}
	case owner != c.ID:
		return s.refuse(unauthorizedClient, "The token is of another client.", fmt.Errorf("%s would revoke a token of %s", c.ID, owner))
	}
	if err := s.i.end(ctx, name, last); err != nil {
		return s.failed(err)
	}
	return Reply{Status: 200}
}

// owner finds the family of a token that holds, whose it is, and when its last access
// token ends. An error that does not wrap ErrAway says that there is nothing to revoke.
func (s *Server) owner(ctx context.Context, token string) (name, client string, last time.Time, err error) {
	now := s.i.now()
	var f *found
	name, isRefresh := parseRefresh(token)
	if isRefresh {
		if s.i.records == nil {
			return "", "", last, errNoFamily
		}
		f, err = s.i.open(ctx, name)
		if err != nil {
			return "", "", last, err
		}
		return name, f.Client, s.latest(f, now), nil
	}
	a, err := s.Verify([]byte(token), now)
	if err != nil {
		return "", "", last, err
	}
	last = s.latest(nil, now)
	if a.Expires.After(last) {
		last = a.Expires
	}
	if s.i.records != nil {
		switch f, err = s.i.open(ctx, a.family); {
		case errors.Is(err, ErrAway):
			return "", "", last, err
		case err == nil && time.Unix(f.Last, 0).After(last):
			last = time.Unix(f.Last, 0)
		}
	}
	return a.family, a.Client, last, nil
}

// introspection is the reply of RFC 7662 §2.2.
type introspection struct {
	Active   bool   `json:"active"`
	Scope    string `json:"scope,omitempty"`
	Client   string `json:"client_id,omitempty"`
	Token    string `json:"token_type,omitempty"`
	Expires  int64  `json:"exp,omitempty"`
	IssuedAt int64  `json:"iat,omitempty"`
	Subject  string `json:"sub,omitempty"`
	Audience string `json:"aud,omitempty"`
	Issuer   string `json:"iss,omitempty"`
	ID       string `json:"jti,omitempty"`
	Type     string `json:"type,omitempty"` // access or refresh
}

// Introspect says what a token is worth. Every client may ask about access tokens,
// because those that get them are clients too; about a refresh token only its own.
func (s *Server) Introspect(ctx context.Context, q *Request) Reply {
	f, c, refusal := s.begin(q)
	if refusal != nil {
		return *refusal
	}
	token := f["token"]
	if token == "" {
		return s.refuse(invalidRequest, "There is no token.", nil)
	}
	answer, err := s.look(ctx, c, token)
	if errors.Is(err, ErrAway) {
		return s.away(err)
	}
	if err != nil {
		answer = introspection{}
	}
	return Reply{Status: 200, Body: object(answer)}
}

func (s *Server) look(ctx context.Context, c *Client, token string) (introspection, error) {
	now := s.i.now()
	name, isRefresh := parseRefresh(token)
	if !isRefresh {
		a, err := s.Verify([]byte(token), now)
		if err == nil {
			err = s.Live(a)
		}
		if err != nil {
			return introspection{}, err
		}
		return introspection{
			Active: true, Scope: strings.Join(a.Scope, " "), Client: KeyID(a.Key), Token: "Bearer", Expires: a.Expires.Unix(), IssuedAt: a.issued.Unix(),
			Subject: a.Client, Audience: s.o.Issuer, Issuer: s.o.Issuer, ID: a.id, Type: "access",
		}, nil
	}
	if s.i.records == nil {
		return introspection{}, errNoFamily
	}
	r, err := s.i.open(ctx, name)
	if err != nil {
		return introspection{}, err
	}
	if !r.holds(token) || r.Client != c.ID || !s.o.Clients.Live(r.Key) {
		return introspection{}, errNoFamily
	}
	return introspection{
		Active: true, Scope: strings.Join(r.Scope, " "), Client: KeyID(r.Key), Expires: r.expires.Unix(), IssuedAt: r.Issued,
		Subject: r.Client, Issuer: s.o.Issuer, Type: "refresh",
	}, nil
}
