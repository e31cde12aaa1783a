package issuer

import (
	"encoding/base64"
	"errors"
	"fmt"
	"mime"
	"net/url"
	"strings"
	"unicode/utf8"
)

// Request is what came to an endpoint.
type Request struct {
	// Authorization is the value of the field; Several: it is there more than once.
	Authorization string
	Several       bool
	ContentType   string
	Body          []byte
}

// Bounds of a form. A refresh token is 93 bytes, an access token a few hundred.
const (
	maxForm   = 64 << 10
	maxFields = 32
	maxScopes = 64
)

// form is the parameters of a request, each at most once (RFC 6749 §3.2). One
// without a value is as if it was not there.
type form map[string]string

func parseForm(q *Request) (form, error) {
	if t, _, err := mime.ParseMediaType(q.ContentType); err != nil || t != "application/x-www-form-urlencoded" {
		return nil, errors.New("the body must be application/x-www-form-urlencoded")
	}
	if len(q.Body) > maxForm {
		return nil, fmt.Errorf("the body is longer than %d bytes", maxForm)
	}
	if strings.Count(string(q.Body), "&") >= maxFields {
		return nil, fmt.Errorf("there are more than %d parameters", maxFields)
	}
	values, err := url.ParseQuery(string(q.Body))
	if err != nil {
		return nil, errors.New("the body is no well-formed form")
	}
	f := form{}
	for name, all := range values {
		if len(all) > 1 {
			return nil, errors.New("a parameter is there more than once")
		}
		if !utf8.ValidString(all[0]) || strings.ContainsRune(all[0], 0) {
			return nil, errors.New("a parameter is no UTF-8 text")
		}
		if all[0] != "" {
			f[name] = all[0]
		}
	}
	return f, nil
}

// scope splits a scope (RFC 6749 §3.3), nil when there is none.
func (f form) scope() ([]string, error) {
	text, given := f["scope"]
	if !given {
		return nil, nil
	}
	for _, c := range []byte(text) {
		if c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			return nil, errors.New("scope has a character that it cannot have")
		}
	}
	list := strings.Fields(text)
	if len(list) == 0 || len(list) > maxScopes {
		return nil, fmt.Errorf("scope must have 1 to %d permissions", maxScopes)
	}
	return list, nil
}

// errNoClient says that a request has no credentials of a client.
var errNoClient = errors.New("there are no client credentials")

// errTwice says that it has too many.
var errTwice = errors.New("client credentials are there in two ways, use one")

// credentials returns the client's id and secret from the Authorization field, where
// both are form-encoded first (RFC 6749 §2.3.1), or from the form.
func credentials(q *Request, f form) (id, secret string, err error) {
	if q.Several {
		return "", "", errTwice
	}
	if q.Authorization == "" {
		id, secret = f["client_id"], f["client_secret"]
		if id == "" || secret == "" {
			return "", "", errNoClient
		}
		return id, secret, nil
	}
	scheme, text, _ := strings.Cut(q.Authorization, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", "", errNoClient
	}
	b, err := base64.StdEncoding.Strict().DecodeString(strings.TrimLeft(text, " "))
	if err != nil {
		return "", "", errNoClient
	}
	rawID, rawSecret, ok := strings.Cut(string(b), ":")
	if rest, more, isConfig := strings.Cut(rawSecret, ":"); rawID == "config" && isConfig {
		rawID, rawSecret = rawID+":"+rest, more // config:client/name, not encoded
	}
	id, wrong := url.QueryUnescape(rawID)
	secret, wrongToo := url.QueryUnescape(rawSecret)
	if !ok || wrong != nil || wrongToo != nil || id == "" || secret == "" {
		return "", "", errNoClient
	}
	if other, given := f["client_id"]; f["client_secret"] != "" || given && other != id {
		return "", "", errTwice
	}
	return id, secret, nil
}
