package ask

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Introspection is an endpoint of RFC 7662.
type Introspection struct {
	Client     *http.Client
	URL        string
	ID, Secret string // the gateway's own credentials there; an empty ID: none
}

// Introspected is what the endpoint says of a token.
type Introspected struct {
	Active bool
	// Claims are all members of the answer but `active`. Numbers are json.Number.
	Claims             map[string]any
	Expires, NotBefore time.Time // zero: not given
	// Refresh says that it is a refresh token, which nobody may call with.
	Refresh bool
	// Thumbprint is the SHA-256 of the certificate that the token is bound to, as
	// base64url (RFC 8705 §3.2). Empty: it is bound to none.
	Thumbprint string
	Size       int // of the answer, bytes
}

// Ask asks about one token. An error says that the endpoint cannot tell; the token and
// the secret are not in it.
func (i *Introspection) Ask(ctx context.Context, token string) (*Introspected, error) {
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, i.URL, strings.NewReader(form))
	if err != nil {
		return nil, cause(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "sluice")
	// Asking twice does no harm, so a kept connection that was closed meanwhile may be
	// given up for another. An empty list is never sent.
	r.Header["Idempotency-Key"] = nil
	if i.ID != "" { // RFC 6749 §2.3.1: both are form-encoded first
		r.SetBasicAuth(url.QueryEscape(i.ID), url.QueryEscape(i.Secret))
	}
	res, err := i.Client.Do(r)
	if err != nil {
		return nil, cause(err)
	}
	defer func() { _ = res.Body.Close() }() // it was read, or is given up
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, cause(err)
	}
	switch {
	case res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden:
		return nil, fmt.Errorf("the introspection endpoint answers %d to the gateway itself: check client_id and client_secret", res.StatusCode)
	case res.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the introspection endpoint answers with status %d", res.StatusCode)
	}
	if media, _, err := mime.ParseMediaType(res.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return nil, fmt.Errorf("the introspection endpoint's answer is of type %q, only application/json is read", res.Header.Get("Content-Type"))
	}
	a, err := readIntrospected(body)
	if err != nil {
		return nil, fmt.Errorf("the introspection endpoint's answer %w", err)
	}
	return a, nil
}

// readIntrospected reads an answer (RFC 7662 §2.2).
func readIntrospected(body []byte) (*Introspected, error) {
	o, err := object(body)
	if err != nil {
		return nil, err
	}
	active, ok := o["active"].(bool)
	if !ok {
		return nil, errors.New("has no boolean active")
	}
	delete(o, "active")
	a := &Introspected{Active: active, Claims: o, Size: len(body)}
	if !active {
		a.Claims = nil
		return a, nil
	}
	a.Refresh = saysRefresh(o)
	if a.Expires, err = instant(o, "exp"); err != nil {
		return nil, err
	}
	if a.NotBefore, err = instant(o, "nbf"); err != nil {
		return nil, err
	}
	a.Thumbprint, err = confirmation(o)
	return a, err
}

// instant reads a NumericDate (RFC 7519 §2).
func instant(o map[string]any, name string) (time.Time, error) {
	v, there := o[name]
	if !there {
		return time.Time{}, nil
	}
	n, ok := v.(json.Number)
	if !ok {
		return time.Time{}, fmt.Errorf("has a %s that is no number", name)
	}
	f, err := n.Float64()
	if err != nil || math.Abs(f) > 1<<40 {
		return time.Time{}, fmt.Errorf("has a %s that is no time", name)
	}
	whole, part := math.Modf(f)
	return time.Unix(int64(whole), int64(part*1e9)), nil
}

// confirmation reads what a token is bound to. A binding that is not understood cannot
// be verified, so the answer is of no use.
func confirmation(o map[string]any) (string, error) {
	v, there := o["cnf"]
	if !there {
		return "", nil
	}
	cnf, ok := v.(map[string]any)
	if ok && len(cnf) == 1 {
		if s, ok := cnf["x5t#S256"].(string); ok && s != "" {
			return s, nil
		}
	}
	return "", errors.New("binds the token by a cnf that is not understood, only x5t#S256 is")
}

// saysRefresh reports whether a member that tells kinds of tokens apart names a refresh
// token. RFC 7662 has token_type only, and issuers that describe refresh tokens each have
// a member of their own: token_use of Cognito, typ of Keycloak (whose offline tokens are
// refresh tokens without an end), type of this gateway. RFC 8693 names kinds by URNs.
func saysRefresh(o map[string]any) bool {
	for _, member := range [...]string{"token_type", "token_use", "typ", "type"} {
		kind, _ := o[member].(string)
		kind = strings.ToLower(kind)
		kind = kind[strings.LastIndexByte(kind, ':')+1:]
		switch strings.NewReplacer("-", "_", "+", "_").Replace(kind) {
		case "refresh", "refresh_token", "refresh_jwt", "rt_jwt", "offline", "offline_token":
			return true
		}
	}
	return false
}
