package jose

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// maxTries is how many keys a signature is tried with.
const maxTries = 8

// header is the part of a JOSE header that counts.
type header struct{ alg, kid, typ string }

// unwelcome are the header parameters that a token is refused for: extensions that
// must be understood (RFC 7515 §4.1.11), a payload that is not encoded (RFC 7797),
// keys of the sender's own choice, and those of encryption.
var unwelcome = [...]string{"crit", "b64", "jwk", "jku", "x5u", "enc", "zip"}

// Verify reads a token and checks its header, claims and signature. The error is for
// the log; one that wraps ErrUnavailable is that of the source.
func (r *Rules) Verify(token []byte, keys Source, now time.Time) (*Token, error) {
	head, payload, signature, err := split(token)
	if err != nil {
		return nil, err
	}
	h, err := r.header(head)
	if err != nil {
		return nil, err
	}
	data, err := decode(payload)
	if err != nil {
		return nil, err
	}
	claims, err := parseObject(data)
	if err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	t := &Token{Type: h.typ, KeyID: h.kid, Algorithm: h.alg, Claims: claims}
	if err := r.claims(t, now); err != nil {
		return nil, err
	}
	sig, err := decode(signature)
	if err != nil {
		return nil, err
	}
	candidates, err := keys.Keys(h.kid)
	if err != nil {
		return nil, err
	}
	if err := h.signed(candidates, token[:len(head)+1+len(payload)], sig); err != nil {
		return nil, err
	}
	return t, nil
}

// signed checks the signature with the keys that fit.
func (h *header) signed(candidates []Key, input, signature []byte) error {
	a := algorithms[h.alg]
	tries := 0
	for i := range candidates {
		if !candidates[i].fits(h.alg, a) {
			continue
		}
		if tries++; tries > maxTries {
			return fmt.Errorf("more than %d keys could have signed it: give keys and tokens a kid", maxTries)
		}
		if a.verify(candidates[i].material, input, signature) == nil {
			return nil
		}
	}
	if tries == 0 {
		return fmt.Errorf("no key fits kid %.64q and alg %s", h.kid, h.alg)
	}
	return errSignature
}

// header reads and checks the JOSE header.
func (r *Rules) header(text []byte) (header, error) {
	var h header
	data, err := decode(text)
	if err != nil {
		return h, err
	}
	m, err := parseObject(data)
	if err != nil {
		return h, fmt.Errorf("header: %w", err)
	}
	for _, name := range unwelcome {
		if _, given := m[name]; given {
			return h, fmt.Errorf("header: %s is not accepted", name)
		}
	}
	var ok [4]bool
	h.alg, ok[0] = optional(m, "alg")
	h.kid, ok[1] = optional(m, "kid")
	h.typ, ok[2] = optional(m, "typ")
	cty, isText := optional(m, "cty")
	ok[3] = isText && !strings.EqualFold(mediaType(cty), "JWT") // a token within a token (RFC 7519 §5.2)
	if ok != [4]bool{true, true, true, true} || len(h.kid) > maxID {
		return h, errors.New("header: alg, kid, typ or cty is not as it must be")
	}
	if _, known := algorithms[h.alg]; !known || !slices.Contains(r.Algorithms, h.alg) {
		return h, fmt.Errorf("header: alg %.32q is not one of %s", h.alg, strings.Join(r.Algorithms, ", "))
	}
	if len(r.Types) > 0 && !slices.ContainsFunc(r.Types, func(t string) bool { return strings.EqualFold(mediaType(t), mediaType(h.typ)) }) {
		return h, fmt.Errorf("header: typ %.64q is not one of %s", h.typ, strings.Join(r.Types, ", "))
	}
	return h, nil
}

// mediaType is a typ without the prefix that may be left out (RFC 7515 §4.1.9).
func mediaType(typ string) string {
	const prefix = "application/"
	if len(typ) > len(prefix) && strings.EqualFold(typ[:len(prefix)], prefix) && !strings.Contains(typ[len(prefix):], "/") {
		return typ[len(prefix):]
	}
	return typ
}

// claims checks the registered claims (RFC 7519 §4.1).
func (r *Rules) claims(t *Token, now time.Time) error {
	for _, name := range [...]string{"iss", "sub", "jti"} {
		if _, ok := optional(t.Claims, name); !ok {
			return fmt.Errorf("claims: %s is no string", name)
		}
	}
	if iss, _ := t.Claims["iss"].(string); r.Issuer != "" && iss != r.Issuer {
		return fmt.Errorf("claims: iss is %.128q, not %q", iss, r.Issuer)
	}
	if err := r.audience(t.Claims); err != nil {
		return err
	}
	if err := r.times(t, now); err != nil {
		return err
	}
	var err error
	t.Confirm, err = confirmation(t.Claims)
	return err
}

// audience checks `aud`, which is a string or a list of them.
func (r *Rules) audience(claims map[string]any) error {
	aud, given := claims["aud"]
	list, isList := aud.([]any)
	if !isList && given {
		list = []any{aud}
	}
	meant := len(r.Audience) == 0
	for _, a := range list {
		s, ok := a.(string)
		if !ok {
			return errors.New("claims: aud is no string and no list of them")
		}
		meant = meant || slices.Contains(r.Audience, s)
	}
	if !meant {
		return fmt.Errorf("claims: aud has none of %s", strings.Join(r.Audience, ", "))
	}
	return nil
}

// times checks when the token holds: from `nbf` on and before `exp`, which must be
// there. Leeway is given on both sides.
func (r *Rules) times(t *Token, now time.Time) error {
	var err error
	if t.Expires, err = numericDate(t.Claims, "exp"); err != nil {
		return err
	}
	if t.NotBefore, err = numericDate(t.Claims, "nbf"); err != nil {
		return err
	}
	if t.IssuedAt, err = numericDate(t.Claims, "iat"); err != nil {
		return err
	}
	switch {
	case t.Expires.IsZero():
		return errors.New("claims: there is no exp")
	case !now.Before(t.Expires.Add(r.Leeway)):
		return fmt.Errorf("claims: it expired at %s", t.Expires.UTC().Format(time.RFC3339))
	case now.Add(r.Leeway).Before(t.NotBefore):
		return fmt.Errorf("claims: it does not hold before %s", t.NotBefore.UTC().Format(time.RFC3339))
	case now.Add(r.Leeway).Before(t.IssuedAt):
		return fmt.Errorf("claims: it was issued in the future, at %s", t.IssuedAt.UTC().Format(time.RFC3339))
	}
	return nil
}

// latest is the last second that is taken for a time: the end of the year 9999.
const latest = 253402300799

// numericDate reads seconds since 1970 (RFC 7519 §2); the zero time when there are
// none.
func numericDate(claims map[string]any, name string) (time.Time, error) {
	v, given := claims[name]
	if !given {
		return time.Time{}, nil
	}
	f, ok := v.(float64)
	if !ok || f < 0 || f > latest {
		return time.Time{}, fmt.Errorf("claims: %s is no number of seconds from 0 to %d", name, int64(latest))
	}
	whole, part := math.Modf(f)
	return time.Unix(int64(whole), int64(part*1e9)), nil
}

// confirmation reads `cnf` (RFC 7800). A token that is bound to what cannot be checked
// here is refused: its holder proved nothing.
func confirmation(claims map[string]any) (string, error) {
	v, given := claims["cnf"]
	if !given {
		return "", nil
	}
	m, _ := v.(map[string]any)
	text, _ := m["x5t#S256"].(string)
	if sum, err := decode([]byte(text)); err != nil || len(sum) != 32 || len(m) != 1 {
		return "", errors.New("claims: cnf is not the x5t#S256 of a certificate alone, and nothing else can be checked")
	}
	return text, nil
}
