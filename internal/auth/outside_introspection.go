package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth/ask"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// introspectionAuth asks the issuer about a token (RFC 7662). It reads every Bearer
// token of the Authorization field: which of a route's authenticators gets to see one
// is the order of its list.
type introspectionAuth struct {
	outside[*introspected]
	endpoint ask.Introspection
	claims   config.ClaimNames
	from     sources
}

var _ authenticator = (*introspectionAuth)(nil)

// introspected is what the issuer said of one token.
type introspected struct {
	refusal    *exchange.Error // nil: the token is active
	is         *resolved
	thumbprint string // SHA-256 of the certificate it is bound to, base64url; empty: none
}

// maxToken is the longest token that anybody is asked about, bytes.
const maxToken = 16 << 10

func newIntrospectionAuth(r *realm, name string, c *config.Authenticator) (authenticator, error) {
	i := c.Introspection
	from, err := parseSources([]string{"header:Authorization"})
	if err != nil {
		return nil, err
	}
	a := &introspectionAuth{
		outside: newOutside[*introspected](r, name, c, i.CacheTTL, i.Timeout, false),
		claims:  i.Claims, from: from,
	}
	a.endpoint = ask.Introspection{Client: a.client, URL: i.URL, ID: i.ClientID, Secret: i.ClientSecret.Reveal()}
	return a, nil
}

func (a *introspectionAuth) find(x *exchange.Exchange) []byte { return bearer(a.from.find(x)) }

func (a *introspectionAuth) scheme() string { return "Bearer" }

func (a *introspectionAuth) strip(x *exchange.Exchange) {
	if !forwards(a.config) {
		a.from.strip(x)
	}
}

var (
	errNoToken  = errors.New("what stands behind Bearer is no token")
	errRefresh  = errors.New("the issuer says that it is a refresh token")
	errInactive = errors.New("the issuer says that the token is not active")
	errBound    = errors.New("the token is bound to another client certificate than this connection has")
)

func (a *introspectionAuth) check(x *exchange.Exchange, token []byte, dry bool) (*exchange.Caller, error) {
	if !isToken68(token) {
		return nil, refuse(errNoToken)
	}
	key := ask.KeyOf(token)
	t, ok := a.desk.Kept(&key)
	if !ok {
		if a.silent(dry) {
			return nil, errDry
		}
		text := string(token)
		var err error
		if t, err = a.ask(x, key, func(ctx context.Context) (ask.Answer[*introspected], error) { return a.call(ctx, text) }); err != nil {
			return nil, err
		}
	}
	if t.refusal != nil {
		return nil, t.refusal
	}
	if t.thumbprint != "" && !presents(x, t.thumbprint) {
		return nil, refuse(errBound)
	}
	return t.is.caller(a.realm.engine.now().UnixNano())
}

// call asks the issuer about a token.
func (a *introspectionAuth) call(ctx context.Context, token string) (ask.Answer[*introspected], error) {
	asked := a.realm.engine.now()
	said, err := a.endpoint.Ask(ctx, token)
	if err != nil {
		return ask.Answer[*introspected]{}, err
	}
	now := a.realm.engine.now()
	refusal := errInactive
	var who identity
	switch {
	case !said.Active:
	case said.Refresh:
		refusal = errRefresh
	case !said.Expires.IsZero() && !now.Before(said.Expires):
		refusal = fmt.Errorf("the issuer says that the token is active and has run out at %s", said.Expires.UTC().Format(time.RFC3339))
	case now.Before(said.NotBefore):
		refusal = fmt.Errorf("the token holds from %s on", said.NotBefore.UTC().Format(time.RFC3339))
	default:
		who, refusal = claimed(&a.claims, said.Claims)
	}
	if refusal != nil {
		answer := a.bad(&introspected{refusal: refuse(refusal)}, asked)
		if now.Before(said.NotBefore) && said.NotBefore.Before(answer.Until) {
			answer.Until = said.NotBefore
		}
		return answer, nil
	}
	t := &introspected{is: a.realm.resolve(a.name, a.config, who), thumbprint: said.Thumbprint}
	return a.good(t, asked, said.Expires, said.Size), nil
}

// presents reports whether the client showed a certificate with this SHA-256, as
// base64url (RFC 8705 §3.2). It is looked at for every request: connections differ.
func presents(x *exchange.Exchange, thumbprint string) bool {
	if x.Conn == nil || x.Conn.TLS == nil || len(x.Conn.TLS.Client) == 0 {
		return false
	}
	sum := sha256.Sum256(x.Conn.TLS.Client)
	var text [43]byte
	base64.RawURLEncoding.Encode(text[:], sum[:])
	return subtle.ConstantTimeCompare(text[:], []byte(thumbprint)) == 1
}

// isToken68 reports whether v is a b64token (RFC 6750 §2.1) of a length that somebody
// can be asked about. Two tokens that were joined, or none, are not.
func isToken68(v []byte) bool {
	if len(v) == 0 || len(v) > maxToken {
		return false
	}
	end := len(v)
	for end > 0 && v[end-1] == '=' {
		end--
	}
	for _, c := range v[:end] {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '-', c == '.', c == '_', c == '~', c == '+', c == '/':
		default:
			return false
		}
	}
	return end > 0
}

// claimed is the identity that the members of an issuer's answer give. Where the
// configuration names no other member the client's id is `sub`, and without one the
// `username`, or the `client_id` of a token that is for no user (RFC 7662 §2.2).
func claimed(names *config.ClaimNames, claims map[string]any) (identity, error) {
	n := *names
	if n.Client == "" || n.Client == "sub" {
		n.Client = "sub"
		for _, member := range [...]string{"sub", "username", "client_id"} {
			if claims[member] != nil {
				n.Client = member
				break
			}
		}
	}
	return identityOf(claims, &n)
}
