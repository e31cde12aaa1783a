package semantics

// understood reports whether what RFC 9110 §15 says of a final status is obeyed
// here, as must-understand asks (RFC 9111 §5.2.2.3). 206 and 304 are: they are
// not stored. 306 is reserved, and 418 means nothing.
func understood(status int) bool {
	switch {
	case status >= 200 && status <= 206,
		status >= 300 && status <= 308 && status != 306,
		status >= 400 && status <= 417,
		status == 421, status == 422, status == 426,
		status >= 500 && status <= 505:
		return true
	}
	return false
}

// heuristic reports whether a status may be given a lifetime that the response
// did not state (RFC 9110 §15.1).
func heuristic(status int) bool {
	switch status {
	case 200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501:
		return true
	}
	return false
}

// defaulted reports whether Rules.TTL is for a status.
func defaulted(status int) bool {
	switch status {
	case 200, 203, 204, 300, 301, 404, 410:
		return true
	}
	return false
}

// storable reports whether a response with that status can be stored at all.
// Not those that are no final ones or parts of one (RFC 9111 §3); not those
// that answer what only one request said of itself: its preconditions, its Range,
// its Expect (412, 416, 417); nor those of which RFC 6585 §3 to §6 says that
// they MUST NOT be stored (428, 429, 431, 511).
func storable(status int) bool {
	switch status {
	case 206, 304, 412, 416, 417, 428, 429, 431, 511:
		return false
	}
	return status >= 200 && status <= 599
}

// Unsafe reports whether a method may change what is stored (RFC 9110 §9.2.1,
// RFC 9111 §4.4). Safe are those that the IANA registry of methods calls so:
// GET, HEAD, OPTIONS, TRACE (RFC 9110), QUERY (RFC 10008), PROPFIND (RFC 4918),
// REPORT (RFC 3253), SEARCH (RFC 5323), PRI (RFC 9113). An unknown one is
// unsafe, and so is one in other letters.
func Unsafe(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "QUERY", "PROPFIND", "REPORT", "SEARCH", "PRI":
		return false
	}
	return true
}
