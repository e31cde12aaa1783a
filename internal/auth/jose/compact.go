package jose

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
)

// maxToken is the longest token that is looked at, bytes.
const maxToken = 16 << 10

var (
	errSize   = fmt.Errorf("the token is longer than %d bytes", maxToken)
	errParts  = errors.New("the token is not three parts with dots between them")
	errBase64 = errors.New("the token has a part that is not canonical base64url without padding")
)

// split cuts a compact JWS (RFC 7515 §7.1) into its parts, which are not empty.
func split(token []byte) (header, payload, signature []byte, err error) {
	if len(token) > maxToken {
		return nil, nil, nil, errSize
	}
	header, rest, _ := bytes.Cut(token, dot)
	payload, signature, _ = bytes.Cut(rest, dot)
	if len(header) == 0 || len(payload) == 0 || len(signature) == 0 || bytes.IndexByte(signature, '.') >= 0 {
		return nil, nil, nil, errParts
	}
	return header, payload, signature, nil
}

var dot = []byte(".")

var strict = base64.RawURLEncoding.Strict()

// decode reads base64url without padding; there is one spelling of any bytes.
func decode(text []byte) ([]byte, error) {
	// The decoder of the standard library passes over line ends.
	if bytes.IndexByte(text, '\n') >= 0 || bytes.IndexByte(text, '\r') >= 0 {
		return nil, errBase64
	}
	out, err := strict.AppendDecode(make([]byte, 0, strict.DecodedLen(len(text))), text)
	if err != nil {
		return nil, errBase64
	}
	return out, nil
}

// Issuer returns the `iss` that a token claims, which nobody has verified, to choose
// who verifies it. isJWS reports whether it has the form of a compact JWS whose
// payload is a JSON object; without an `iss` that is a string, iss is empty.
func Issuer(token []byte) (iss string, isJWS bool) {
	_, payload, _, err := split(token)
	if err != nil {
		return "", false
	}
	data, err := decode(payload)
	if err != nil {
		return "", false
	}
	claims, err := parseObject(data)
	if err != nil {
		return "", false
	}
	iss, _ = claims["iss"].(string)
	return iss, true
}
