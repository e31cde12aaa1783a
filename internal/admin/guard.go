package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// guard decides whether a request may be looked at; nil: it may.
//
// With a token that is the token. It is compared by its hash and in constant
// time, so that neither its bytes nor its length can be found out by measuring.
//
// Without one the connection came over loopback, and it must not come from a web
// page: the Host is checked because DNS rebinding gives a name of the attacker's
// the address 127.0.0.1, Origin and Sec-Fetch-Site because browsers tell with
// them who asks. Scripts and curl send neither.
func (s *Server) guard(r *http.Request) *problem {
	if s.guarded() {
		return s.authenticate(r)
	}
	switch site := r.Header.Get("Sec-Fetch-Site"); {
	case !loopbackHost(r.Host):
		return forbidden("Without admin.token only a Host of this machine is answered, such as 127.0.0.1 or localhost.")
	case len(r.Header.Values("Origin")) > 0, site != "" && site != "none" && site != "same-origin":
		return forbidden("Without admin.token requests from web pages are not answered.")
	}
	return nil
}

func (s *Server) authenticate(r *http.Request) *problem {
	given := r.Header.Values("Authorization")
	if len(given) == 1 {
		scheme, token, _ := strings.Cut(given[0], " ")
		sum := sha256.Sum256([]byte(strings.TrimLeft(token, " ")))
		if strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(sum[:], s.token[:]) == 1 {
			return nil
		}
	}
	return &problem{
		Status: http.StatusUnauthorized, Code: "unauthenticated", Title: "Unauthenticated",
		Detail: "The admin API needs `Authorization: Bearer` with the value of admin.token.",
	}
}

// readable checks the content type of what changes something. A web page cannot
// send these without being asked for its origin first.
func readable(r *http.Request, types []string) *problem {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err == nil {
		for _, t := range types {
			if t == kind {
				return nil
			}
		}
	}
	return &problem{
		Status: http.StatusUnsupportedMediaType, Code: "unsupported_media_type", Title: "Unsupported media type",
		Detail: "The content type must be one of " + strings.Join(types, ", ") + ".",
	}
}

// loopbackHost reports whether a Host names this machine, with or without a port.
func loopbackHost(host string) bool {
	if h, port, err := net.SplitHostPort(host); err == nil && strings.Trim(port, "0123456789") == "" {
		host = h
	} else if strings.HasPrefix(host, "[") {
		host = strings.TrimSuffix(host[1:], "]")
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Zone() == "" && a.Unmap().IsLoopback()
}

func loopbackAddr(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
