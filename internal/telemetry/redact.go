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
	// lengths are those of the names of params, firsts their first letters in
	// either case: most names of a query need no more to be let through.
	lengths [longestName + 1]bool
	firsts  [256]bool
}

func newRedaction(names []string) redaction {
	r := redaction{headers: map[string]struct{}{}, params: map[string]struct{}{}}
	for _, n := range credentialParams {
		r.hideParam(n)
	}
	for _, n := range names {
		n = strings.ToLower(n)
		r.headers[n] = struct{}{}
		r.hideParam(n[:min(len(n), longestName)])
	}
	return r
}

func (r *redaction) hideParam(name string) {
	if name == "" {
		return
	}
	r.params[name] = struct{}{}
	r.lengths[len(name)] = true
	c := name[0]
	r.firsts[c] = true
	if 'a' <= c && c <= 'z' {
		r.firsts[c&^0x20] = true
	}
	if c == ' ' {
		r.firsts['+'] = true
	}
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
	done := 0 // what of q is in dst
	for from := 0; from < len(q); {
		end := bytes.IndexByte(q[from:], '&')
		if end < 0 {
			end = len(q)
		} else {
			end += from
		}
		if eq := bytes.IndexByte(q[from:end], '='); eq >= 0 && from+eq+1 < end && r.hides(q[from:from+eq]) {
			dst = append(dst, q[done:from+eq+1]...)
			dst = append(dst, masked...)
			done = end
		}
		from = end + 1
	}
	return append(dst, q[done:]...)
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
	if len(name) == 0 {
		return false
	}
	if c := name[0]; !r.firsts[c] && c != '%' {
		return false
	}
	var room [longestName]byte
	plain := unescape(room[:0], name)
	if !r.lengths[len(plain)] {
		return false
	}
	_, hide := r.params[string(plain)]
	return hide
}

// unescape appends what a server reads, in lower case, up to the room of dst.
func unescape(dst, name []byte) []byte {
	for i := 0; i < len(name) && len(dst) < cap(dst); i++ {
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
		dst = append(dst, c)
	}
	return dst
}

func unhex(c byte) byte {
	if 'A' <= c && c <= 'F' {
		c |= 0x20
	}
	return hexValue[c]
}
