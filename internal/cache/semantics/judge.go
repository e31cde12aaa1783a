package semantics

import "github.com/sluice-gateway/sluice/internal/exchange"

// Judge says whether a shared cache stores a response, and how it may use it
// (RFC 9111 §3, §4.2). Its directives are those of Sluice-Cache-Control, which
// then stand for Cache-Control and Expires (RFC 9213 §2.2), or of Cache-Control.
//
// Nothing is stored that could never be of use: what has no lifetime, no leave to
// be used stale, and no validator.
//
// To judge a stored response anew, after a 304 or in the light of an updated
// header, the caller passes its status, the updated header, and the times of the
// 304.
func Judge(r *Rules, a *Answer) Verdict {
	v := Verdict{StaleWhileRevalidate: -1, StaleIfError: -1}
	s := readSaid(a.Header)
	if v.Why = refuse(a, &s); v.Why != "" {
		return v
	}
	v.NoCache = s.noCache
	v.MustRevalidate = s.mustRevalidate || s.proxyRevalidate || s.sMaxAge != Absent
	v.Open = s.public || s.shared || s.mustRevalidate && a.Authorization
	v.Drop = s.drop
	age := v.born(a)
	v.lifetime(r, a, &s)
	v.stale(r, &s)
	v.Why = useless(&v, a, &s, age)
	v.Store = v.Why == ""
	return v
}

// refuse says why a response must not be stored, "" when it may.
func refuse(a *Answer, s *said) string {
	switch {
	case a.Method != "GET" && a.Method != "QUERY":
		// RFC 9111 §2, RFC 10008 §2.7. HEAD has no body to store; POST is left out,
		// though RFC 9110 §9.3.3 would have a narrow use for it.
		return "the method is not cached"
	case !storable(a.Status):
		return "the status is not stored"
	case a.Ask.NoStore:
		return "the request has no-store" // §5.2.1.5
	case s.mustUnderstand && !understood(a.Status):
		return "the status is not understood, and must-understand is there" // §5.2.2.3
	case s.noStore && !s.overrides:
		return "the response has no-store" // §5.2.2.5
	case s.private:
		return "the response is private" // §5.2.2.7
	case find(a.Header, exchange.Other, contentRange, 0) >= 0:
		return "the response is a part" // §3.3
	}
	spec, ok := VaryOf(a.Header)
	switch {
	case !ok:
		return "Vary has *, or cannot be read" // §4.1
	case a.Authorization && !s.public && !s.shared && !s.mustRevalidate:
		return "the request has Authorization" // §3.5
	case a.Cookie && !s.public && !s.shared && !specHas(spec, "cookie"):
		return "the request has Cookie"
	case !s.public && !s.shared && !s.targeted && a.Header.Has(exchange.SetCookie) && !s.names("set-cookie"):
		return "the response has Set-Cookie"
	}
	return ""
}

var contentRange = []byte("Content-Range")

// useless says why a response that may be stored would be of no use.
func useless(v *Verdict, a *Answer, s *said, age int64) string {
	have := ReadValidators(a.Header)
	validated := len(have.ETag) > 0 && !s.names("etag") || have.LastModified != 0 && !s.names("last-modified")
	fresh := v.Lifetime > 0 && (age < v.Lifetime || !v.MustRevalidate)
	switch {
	case v.NoCache && !validated:
		return "each use needs validation, and there is no validator"
	case fresh && !v.NoCache, v.StaleWhileRevalidate > 0, v.StaleIfError > 0:
		return ""
	case !validated && v.Explicit:
		return "it is stale, and there is no validator"
	case !v.Explicit && !s.public && !v.NoCache:
		return "nothing says how long it is fresh"
	case !validated:
		return "nothing says how long it is fresh, and there is no validator"
	}
	return ""
}
