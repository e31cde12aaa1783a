package issuer

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth/jose"
)

// Settings are what one configuration says about tokens.
type Settings struct {
	Issuer     string // the `iss` and `aud` of access tokens
	Algorithm  string // ES256, EdDSA, RS256, or HS256 with a Secret
	Secret     []byte // at least 32 bytes
	AccessTTL  time.Duration
	RefreshTTL time.Duration
	Path       string // below which the endpoints are
	Clients    Clients
	// Narrow returns what two sets of permissions have in common, wildcards included.
	// It never returns more than held.
	Narrow func(held, wanted []string) []string
}

// Client is who asks for tokens: the holder of an API key.
type Client struct {
	ID          string // of the client
	Key         string // the id of its key, and behind a ~ what tells it from another of that id
	Plan        string
	Roles       []string
	Permissions []string // all that the key has, those of roles included
}

// Clients tells who may have tokens. Its methods are called from any goroutine.
type Clients interface {
	// Authenticate returns the client whose key has this id and this whole text.
	Authenticate(id, secret string) (*Client, error)
	// Live reports whether a key of this id is there and may be used.
	Live(key string) bool
}

// Errors that Clients tell apart. Every other one says that the credentials are wrong.
var (
	// ErrAway says that something cannot be decided now.
	ErrAway = errors.New("cannot be decided now")
	// ErrForbidden says that the credentials are right and the client may have no tokens.
	ErrForbidden = errors.New("the client may have no tokens")
)

// Server is an Issuer with the settings of one configuration. It is safe for use by
// many goroutines, and is closed with its configuration.
type Server struct {
	i        *Issuer
	o        Settings
	hmac     *jose.Signer // of HS256
	metadata []byte
}

// longest is how long a token can hold, whatever is asked for: times stay such as
// records can have.
const longest = 20 * 365 * 24 * time.Hour

// Serve makes a server. Its keys are made here if there are none yet, which takes as
// long as the records and, for RS256, a tenth of a second.
func (i *Issuer) Serve(o Settings) (*Server, error) {
	o.AccessTTL, o.RefreshTTL = min(o.AccessTTL, longest), min(o.RefreshTTL, longest)
	s := &Server{i: i, o: o}
	if o.Algorithm == "HS256" {
		if len(o.Secret) < 32 {
			return nil, errors.New("HS256 needs a secret of at least 32 bytes, make a longer one")
		}
		s.hmac = jose.HMACSigner(o.Secret, hmacID(o.Secret))
	}
	u, err := url.Parse(o.Issuer)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("the issuer %q is no URL, write one such as https://api.example.com", o.Issuer)
	}
	if s.metadata, err = s.describe(u); err != nil {
		return nil, err
	}
	i.use(s)
	return s, nil
}

// Close says that the server is not used any more.
func (s *Server) Close() { s.i.leave(s) }

func (s *Server) log() *slog.Logger { return s.i.log }

// describe is the metadata of RFC 8414, with what OpenID Connect discovery demands
// besides, so that verifiers which know only that can find the keys.
func (s *Server) describe(u *url.URL) ([]byte, error) {
	base := u.Scheme + "://" + u.Host + s.o.Path
	methods := []string{"client_secret_basic", "client_secret_post"}
	m := struct {
		Issuer            string   `json:"issuer"`
		Token             string   `json:"token_endpoint"`
		JWKS              string   `json:"jwks_uri"`
		Revocation        string   `json:"revocation_endpoint"`
		Introspection     string   `json:"introspection_endpoint"`
		Grants            []string `json:"grant_types_supported"`
		ResponseTypes     []string `json:"response_types_supported"`
		TokenAuth         []string `json:"token_endpoint_auth_methods_supported"`
		RevocationAuth    []string `json:"revocation_endpoint_auth_methods_supported"`
		IntrospectionAuth []string `json:"introspection_endpoint_auth_methods_supported"`
		SubjectTypes      []string `json:"subject_types_supported"`
		SigningAlgorithms []string `json:"id_token_signing_alg_values_supported"`
	}{
		Issuer: s.o.Issuer, Token: base + TokenPath, JWKS: base + KeysPath, Revocation: base + RevokePath, Introspection: base + IntrospectPath,
		Grants: []string{clientCredentials}, ResponseTypes: []string{},
		TokenAuth: methods, RevocationAuth: methods, IntrospectionAuth: methods,
		SubjectTypes: []string{"public"}, SigningAlgorithms: []string{s.o.Algorithm},
	}
	if s.i.records != nil {
		m.Grants = append(m.Grants, refreshGrant)
	}
	return json.Marshal(m)
}

// The endpoints, below Settings.Path.
const (
	TokenPath      = "/token"
	RevokePath     = "/revoke"
	IntrospectPath = "/introspect"
	KeysPath       = "/jwks"
)

// Reply is what an endpoint answers.
type Reply struct {
	Status    int
	Body      []byte        // JSON; empty: none
	MaxAge    time.Duration // how long others may keep it; 0: not at all
	Challenge string        // for WWW-Authenticate
	// Cause is why it is a refusal, for the log. It has no secret in it.
	Cause error
	// Guess says that credentials or a token were wrong: it counts as a failed attempt.
	Guess bool
}

// publicAge is how long others may keep the key set and the metadata. It is far less
// than notice.
const publicAge = time.Hour

// Keys is the key set (RFC 7517 §5). With HS256 it is empty: a secret is not published.
func (s *Server) Keys() Reply {
	if s.i.records != nil && !s.i.ring.ready() {
		return s.away(errors.New("the signing keys have not been read yet"))
	}
	return Reply{Status: 200, Body: s.i.ring.jwks(), MaxAge: publicAge}
}

// Metadata is the authorization server's description (RFC 8414 §3).
func (s *Server) Metadata() Reply { return Reply{Status: 200, Body: s.metadata, MaxAge: publicAge} }

// oauthError is an error of RFC 6749 §5.2.
type oauthError struct {
	Error       string `json:"error"`
	Description string `json:"error_description,omitempty"`
}

// The codes of errors.
const (
	invalidRequest     = "invalid_request"
	invalidClient      = "invalid_client"
	invalidGrant       = "invalid_grant"
	invalidScope       = "invalid_scope"
	unauthorizedClient = "unauthorized_client"
	unsupportedGrant   = "unsupported_grant_type"
	unavailable        = "temporarily_unavailable"
)

// refuse makes an error reply. description is for the client; why, which may be nil,
// for the log.
func (s *Server) refuse(code, description string, why error) Reply {
	if why == nil {
		why = errors.New(description)
	}
	r := Reply{Status: 400, Cause: fmt.Errorf("%s: %w", code, why)}
	switch code {
	case invalidClient:
		r.Status, r.Challenge, r.Guess = 401, `Basic realm="tokens", charset="UTF-8"`, true
	case invalidGrant:
		r.Guess = true
	case unavailable:
		r.Status = 503
	}
	r.Body = object(oauthError{code, description})
	return r
}

func (s *Server) away(why error) Reply {
	return s.refuse(unavailable, "The token service cannot decide this now. Try again later.", why)
}

// object writes a reply, which is of texts and numbers: that cannot fail.
func object(v any) []byte {
	b, _ := json.Marshal(v)
	return b
}

// scopes returns the permissions that a request names, or all of held when it names
// none. ok is false when it names one that is not held.
func (s *Server) scopes(requested, held []string) (granted []string, ok bool) {
	if requested == nil {
		return speakable(held), true
	}
	for _, one := range requested {
		if !slices.Contains(s.o.Narrow(held, []string{one}), one) {
			return nil, false
		}
	}
	return requested, true
}

// speakable are the permissions that a scope can name: others have a space or another
// character in them that would make something else of them (RFC 6749 §3.3).
func speakable(permissions []string) []string {
	return slices.DeleteFunc(slices.Clone(permissions), func(p string) bool {
		return p == "" || strings.ContainsFunc(p, func(c rune) bool { return c <= ' ' || c > '~' || c == '"' || c == '\\' })
	})
}
