package telemetry

import (
	"bytes"
	"strings"
)

// masked stands for a value that is not shown.
const masked = "***"

// credentialParams are the query parameters whose values are never logged, in
// the spellings in use; `redact` adds to them.
var credentialParams = []string{
	"api_key", "apikey", "api-key", "key", "access_token", "refresh_token", "id_token", "token", "jwt",
	"client_secret", "client_assertion", "secret", "password", "signature", "sig", "x-amz-signature", "x-amz-security-token",
}

// redaction is the names whose values are masked, in lower case. A name holds
// for request headers and query parameters alike.
type redaction struct {
	headers map[string]struct{}
	params  map[string]struct{}
}

func newRedaction(names []string) redaction {
	r := redaction{headers: map[string]struct{}{}, params: map[string]struct{}{}}
	for _, n := range credentialParams {
		r.params[n] = struct{}{}
	}
	for _, n := range names {
		n = strings.ToLower(n)
		r.headers[n] = struct{}{}
		r.params[n[:min(len(n), longestName)]] = struct{}{}
	}
	return r
}

// header returns the value of a header, masked when its name (lower case) is
// listed.
func (r *redaction) header(name string, v []byte) []byte {
	if _, hide := r.headers[name]; hide && len(v) > 0 {
		return []byte(masked)
	}
	return v
}

// appendQuery appends q with the values of credential parameters masked. Names
// are compared as a server reads them: without escapes, in any case.
func (r *redaction) appendQuery(dst, q []byte) []byte {
	for first := true; ; first = false {
		pair, rest, more := bytes.Cut(q, []byte("&"))
		if !first {
			dst = append(dst, '&')
		}
		name, value, _ := bytes.Cut(pair, []byte("="))
		if len(value) > 0 && r.hides(name) {
			dst = append(dst, name...)
			dst = append(dst, '=')
			dst = append(dst, masked...)
		} else {
			dst = append(dst, pair...)
		}
		if !more {
			return dst
		}
		q = rest
	}
}

// appendURL appends a URL with its query masked as appendQuery does.
func (r *redaction) appendURL(dst, u []byte) []byte {
	at := bytes.IndexByte(u, '?')
	if at < 0 {
		return append(dst, u...)
	}
	dst = append(dst, u[:at+1]...)
	return r.appendQuery(dst, u[at+1:])
}

// longestName bounds the names that are looked up; longer ones are compared by
// their first 64 bytes.
const longestName = 64

func (r *redaction) hides(name []byte) bool {
	var plain [longestName]byte
	n := 0
	for i := 0; i < len(name) && n < longestName; i++ {
		c := name[i]
		switch {
		case c == '+':
			c = ' '
		case c == '%' && i+2 < len(name):
			if hi, lo := unhex(name[i+1]), unhex(name[i+2]); hi < 16 && lo < 16 {
				c = hi<<4 | lo
				i += 2
			}
		}
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		plain[n] = c
		n++
	}
	_, hide := r.params[string(plain[:n])]
	return hide
}

func unhex(c byte) byte {
	if 'A' <= c && c <= 'F' {
		c |= 0x20
	}
	return hexValue[c]
}
