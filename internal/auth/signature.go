package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/sluice-gateway/sluice/internal/auth/httpsig"
	"github.com/sluice-gateway/sluice/internal/auth/jose"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/policy"
)

// signatureAuth verifies signatures of requests (RFC 9421; package httpsig). Who calls
// is the kid of the key.
//
// None is accepted twice: a signed text is remembered until it is too old anyway (see
// usedOnce). It is the text that counts, not the bytes of the signature, because an
// ECDSA signature has a second form that holds too. A client that may send two equal
// requests within one second tells them apart with a nonce.
//
// A digest that a signature covers is compared with the body as that passes, see
// digestBody. The body's end is what proves it, so an upstream must not act on a body
// that breaks off.
type signatureAuth struct {
	realm    *realm
	name     string
	verifier *httpsig.Verifier
	who      map[string]*resolved // by kid
	strips   bool
}

// signatureChallenge is no registered scheme; RFC 9421 has none, and a 401 needs one.
const signatureChallenge = "Signature"

var signatureInput, signatureField = []byte("Signature-Input"), []byte("Signature")

func newSignatureAuth(r *realm, name string, c *config.Authenticator) (authenticator, error) {
	s := c.Signature
	content, err := readBeside(r.engine.dir, s.Keys)
	if err != nil {
		return nil, policy.At("signature.keys", err)
	}
	keys, err := jose.ParseKeys(content)
	if err != nil {
		return nil, policy.At("signature.keys", fmt.Errorf("%s: %w", s.Keys, err))
	}
	if _, err := httpsig.New(keys, nil, 0); err != nil {
		return nil, policy.At("signature.keys", fmt.Errorf("%s: %w", s.Keys, err))
	}
	v, err := httpsig.New(keys, s.Required, s.MaxAge.Duration)
	if err != nil {
		return nil, policy.At("signature.required", err)
	}
	a := &signatureAuth{realm: r, name: name, verifier: v, who: map[string]*resolved{}, strips: !forwards(c)}
	for _, id := range v.KeyIDs() {
		if !plainText([]byte(id)) {
			return nil, policy.At("signature.keys", fmt.Errorf("%s: the kid %q has control characters", s.Keys, id))
		}
		a.who[id] = r.resolve(name, c, identity{id: id})
	}
	r.engine.guard.used.begin(r.engine.now())
	return a, nil
}

func (a *signatureAuth) find(x *exchange.Exchange) []byte {
	h := &x.Request.Header
	if v := h.Get(signatureInput); v != nil {
		return v
	}
	return h.Get(signatureField)
}

func (a *signatureAuth) check(x *exchange.Exchange, _ []byte, dry bool) (*exchange.Caller, error) {
	now := a.realm.engine.now()
	r, err := a.verifier.Verify(signedMessage(x), now.Unix())
	if err != nil {
		return nil, refuse(err)
	}
	caller, err := a.who[r.KeyID].caller(now.UnixNano())
	if err != nil {
		return nil, err
	}
	if len(r.Digests) > 0 && x.Request.Body == nil && !newDigestBody(nil, r.Digests, 0).holds() {
		return nil, refuse(errBody)
	}
	for _, one := range append(r.Others, r) {
		if err := a.use(x, one, now.Unix(), dry); err != nil {
			return nil, err
		}
	}
	if len(r.Digests) > 0 && x.Request.Body != nil && !dry {
		x.Request.Body = newDigestBody(x.Request.Body, r.Digests, x.Request.ContentLength)
	}
	return caller, nil
}

// use lets a signature pass once. Each authenticator counts for itself, so that two
// of them may agree about one request.
func (a *signatureAuth) use(x *exchange.Exchange, r *httpsig.Result, now int64, dry bool) error {
	used := &a.realm.engine.guard.used
	sum := sha256.Sum256(append([]byte(a.name+"\x00"), r.Base[:]...))
	ctx, stop := context.Background(), func() {}
	if used.records.Load() != nil && !dry {
		ctx, stop = x.Context()
	}
	defer stop()
	switch err := used.take(ctx, usedKey(sum[:len(usedKey{})]), r.Created, r.Until, now, dry); {
	case err == nil:
		return nil
	case errors.Is(err, errUsed) || errors.Is(err, errTooOld):
		return refuse(fmt.Errorf("the signature of %q %w", r.KeyID, err))
	default:
		return away(err)
	}
}

// signedMessage is the request as the client saw it: a trusted proxy says how the
// client spoke to it.
func signedMessage(x *exchange.Exchange) *httpsig.Message {
	q := &x.Request
	m := &httpsig.Message{
		Method: q.Method, Scheme: "http", Authority: q.Authority, Target: q.Target, Path: q.RawPath, Query: q.Query, HasQuery: q.HasQuery,
		NoBody: q.Body == nil,
		Fields: func(name string) (values [][]byte) {
			for v := range q.Header.Values([]byte(name)) {
				values = append(values, v)
			}
			return values
		},
	}
	if q.TLS {
		m.Scheme = "https"
	}
	if x.Trusted {
		switch string(q.Header.GetID(exchange.XForwardedProto)) {
		case "https":
			m.Scheme = "https"
		case "http":
			m.Scheme = "http"
		}
	}
	return m
}

func (a *signatureAuth) strip(x *exchange.Exchange) {
	if a.strips {
		x.Request.Header.Del(signatureInput)
		x.Request.Header.Del(signatureField)
	}
}

func (a *signatureAuth) scheme() string { return signatureChallenge }
