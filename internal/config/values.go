package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// check applies a named check to a text. It returns the text as it is to be kept,
// or a code and a phrase that follows the quoted text.
//
//	file            a file that exists; becomes absolute and is watched
//	place           a file or folder to be written; becomes absolute
//	output          stdout, stderr, none, or a place
//	address         host:port to listen on
//	host_port       host:port to connect to
//	host            a host or *.host, without port; becomes lower case
//	hostname        a host name
//	upstream_host   client, target, or a host with or without port
//	url             http:// or https://, with a host and no credentials
//	credential_url  the same, https or loopback
//	target          the same as url, without query
//	slash           begins with /
//	base_path       the same, loses its last /
//	route_path      the same, no query, no fragment
//	method          an HTTP method, upper case
//	header          a header field's name
//	free_header     the same, but for the fields that frame messages
//	header_or_star  a header field's name, or *
//	header_value    a header field's value
//	key_hash        sha256: and 64 hex digits
//	name            a name in printable ASCII without quotes
func (d *decoder) check(name string, n *node, text string) (kept, code, problem string) {
	switch name {
	case "file":
		path := d.l.locate(d.src, text)
		if _, err := d.l.readFile(path); err != nil {
			return path, "config.unreadable", "cannot be read: " + fileProblem(err)
		}
		return path, "", ""
	case "place":
		return d.l.locate(d.src, text), "", ""
	case "output":
		switch text {
		case "stdout", "stderr", "none":
			return text, "", ""
		}
		return d.l.locate(d.src, text), "", ""
	case "host":
		text = strings.ToLower(text)
	case "url", "credential_url", "target":
		// What stands before an @ may be a password.
		n.hidden = n.hidden || strings.Contains(text, "@")
	case "base_path":
		text = strings.TrimRight(text, "/")
		if text == "" {
			return "", "", ""
		}
	}
	code, problem = checkText(name, text)
	return text, code, problem
}

// checkText is the part of check that needs no files.
func checkText(name, text string) (code, problem string) {
	switch name {
	case "address":
		return "config.bad_address", addressProblem(text, true)
	case "host_port":
		return "config.bad_address", addressProblem(text, false)
	case "host":
		return "config.bad_host", hostProblem(strings.TrimPrefix(text, "*."))
	case "hostname":
		return "config.bad_host", hostProblem(text)
	case "upstream_host":
		return "config.bad_host", upstreamHostProblem(text)
	case "url", "credential_url", "target":
		return "config.bad_url", urlProblem(name, text)
	case "slash", "base_path", "route_path":
		return "config.bad_path", pathProblem(name, text)
	case "method":
		return "config.bad_method", methodProblem(text)
	case "header", "free_header":
		return "config.bad_header", headerProblem(name, text)
	case "header_or_star":
		if text == "*" {
			return "", ""
		}
		return "config.bad_header", headerProblem(name, text)
	case "header_value":
		return "config.bad_header", valueProblem(text)
	case "key_hash":
		return "config.bad_value", hashProblem(text)
	case "name":
		return "config.bad_name", nameProblem(text)
	}
	panic("config: no check " + name)
}

// fileProblem is what went wrong with a file, without repeating its path.
func fileProblem(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "there is no such file, relative paths start at the folder of this configuration file"
	case errors.Is(err, fs.ErrPermission):
		return "permission denied, let the gateway's user read it"
	}
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err.Error()
	}
	return err.Error()
}

// hostPortOf splits host:port and reports whether it is one.
func hostPortOf(text string) (host string, port int, ok bool) {
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return "", 0, false
	}
	host = text[:i]
	n, err := strconv.ParseUint(text[i+1:], 10, 16)
	if err != nil || leadingDigits(text[i+1:]) == "" {
		return "", 0, false
	}
	if inner, found := strings.CutPrefix(host, "["); found {
		inner, found = strings.CutSuffix(inner, "]")
		addr, err := netip.ParseAddr(inner)
		return inner, int(n), found && err == nil && addr.Is6()
	}
	return host, int(n), !strings.Contains(host, ":")
}

func addressProblem(text string, listen bool) string {
	host, port, ok := hostPortOf(text)
	switch {
	case !ok && strings.Contains(text, "://"):
		return `is a URL where host:port belongs, try "127.0.0.1:8080"`
	case !ok && leadingDigits(text) == text:
		return fmt.Sprintf(`has no host, try ":%s" for every interface`, text)
	case !ok:
		return `is not an address, try ":8080", "127.0.0.1:8080" or "[::1]:8080"`
	case host == "" && !listen:
		return fmt.Sprintf(`has no host, try "127.0.0.1:%d"`, port)
	case port == 0 && !listen:
		return "has port 0, which nothing listens on"
	case host != "" && !strings.Contains(host, ":"):
		return hostProblem(host)
	}
	return ""
}

// hostProblem checks a DNS name or an IP address.
func hostProblem(host string) string {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		if _, err := netip.ParseAddr(inner); ok && err == nil {
			return ""
		}
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return ""
	}
	switch {
	case host == "" || host == "*":
		return `is not a host, try "api.example.com" or "*.example.com", or leave it out for every host`
	case strings.Contains(host, "://"):
		return `is a URL where a host belongs, try "api.example.com"`
	case strings.Contains(host, ":"):
		return "has a port, which is not looked at: leave it out"
	case strings.Contains(host, "*"):
		return `has a * that is not its first label, try "*.example.com"`
	case len(host) > 253:
		return "is longer than 253 characters"
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
		if label == "" || len(label) > 63 || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return `is not a host: its parts between dots have 1 to 63 letters, digits, - and _`
		}
		for i := range len(label) {
			c := label[i]
			if c >= 0x80 {
				return "is not ASCII, write it in punycode: xn--…"
			}
			if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return `is not a host: its parts between dots have 1 to 63 letters, digits, - and _`
			}
		}
	}
	return ""
}

func upstreamHostProblem(text string) string {
	if text == "client" || text == "target" {
		return ""
	}
	if host, _, ok := hostPortOf(text); ok && host != "" {
		if strings.Contains(host, ":") {
			return ""
		}
		return hostProblem(host)
	}
	return hostProblem(text)
}

func urlProblem(name, text string) string {
	u, err := url.Parse(text)
	switch {
	case err != nil || !strings.Contains(text, "://"):
		if err == nil && !strings.ContainsAny(text, " /") || strings.Contains(fmt.Sprint(err), "first path segment") {
			return "is not a URL, try http://" + text
		}
		return "is not a URL, try http://127.0.0.1:9001"
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Sprintf("has the scheme %q, only http:// and https:// are spoken", u.Scheme)
	case u.User != nil:
		return "holds a user or password, which a URL here must not"
	case u.Hostname() == "":
		return "has no host, try http://127.0.0.1:9001"
	case u.Fragment != "":
		return "has a #fragment, which is never sent: leave it out"
	case name == "target" && (u.RawQuery != "" || u.ForceQuery):
		return "has a query, which a target cannot have: leave it out"
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return "has a port that is not from 1 to 65535"
		}
	} else if strings.HasSuffix(u.Host, ":") {
		return "has a colon and no port"
	}
	if trouble := hostProblem(u.Hostname()); trouble != "" {
		return "has a bad host: " + quote(u.Hostname()) + " " + trouble
	}
	if name == "credential_url" && u.Scheme == "http" && !loopback(u.Hostname()) {
		return "would send credentials in plain text, use https:// or a loopback address"
	}
	return ""
}

// loopback reports whether a host is this machine.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

func pathProblem(name, text string) string {
	if !strings.HasPrefix(text, "/") {
		return fmt.Sprintf("does not begin with a slash, try %q", "/"+text)
	}
	for _, c := range text {
		switch {
		case c <= ' ' || c == 0x7f:
			return "holds a space or control character, write it percent-encoded"
		case c == '?' || c == '#':
			return fmt.Sprintf("holds a %c, only a path belongs here", c)
		}
	}
	if name == "base_path" && strings.ContainsAny(text, "{}") {
		return "holds a parameter, which a base path cannot have: move it to the routes"
	}
	return ""
}

func methodProblem(text string) string {
	if trouble := tokenProblem(text); trouble {
		return "is not an HTTP method, try GET"
	}
	upper := strings.ToUpper(text)
	switch {
	case upper != text:
		return "is not upper case as methods are, try " + upper
	case text == "TRACE" || text == "CONNECT":
		return "is refused on every route with 405, leave it out"
	}
	return ""
}

// tokenProblem reports whether a text is no token of RFC 9110 §5.6.2.
func tokenProblem(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return true
		}
	}
	return s == ""
}

func headerProblem(name, text string) string {
	if tokenProblem(text) {
		return "is not a header name, try one like X-Request-Id"
	}
	if name == "free_header" {
		switch strings.ToLower(text) {
		case "connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade":
			return "is a header that the gateway writes itself, leave it out"
		}
	}
	return ""
}

// valueProblem checks a field value (RFC 9110 §5.5).
func valueProblem(text string) string {
	for i := range len(text) {
		if c := text[i]; c < ' ' && c != '\t' || c == 0x7f {
			return "holds a line end or control character, which a header value cannot have"
		}
	}
	if strings.Trim(text, " \t") != text {
		return "begins or ends with a space, which a header value cannot keep"
	}
	return ""
}

func hashProblem(text string) string {
	hex, ok := strings.CutPrefix(text, "sha256:")
	if !ok || len(hex) != 64 || strings.Trim(hex, "0123456789abcdefABCDEF") != "" {
		return "is not a hash of a key: write sha256: and 64 hex digits"
	}
	return ""
}

func nameProblem(text string) string {
	if text == "" || len(text) > 128 {
		return "is not a name: names have 1 to 128 characters"
	}
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return `is not a name: names are printable ASCII without " and \`
		}
	}
	if strings.TrimSpace(text) != text {
		return "begins or ends with a space"
	}
	return ""
}
