package telemetry

import "strings"

// The values of the labels method and code come from fixed tables, so that no
// client can make series.

// methods are the values of the label method; the last stands for all others.
var methods = [...]string{
	"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "CONNECT", "TRACE", "other",
}

func methodIndex(m string) int {
	switch m {
	case "GET":
		return 0
	case "HEAD":
		return 1
	case "POST":
		return 2
	case "PUT":
		return 3
	case "PATCH":
		return 4
	case "DELETE":
		return 5
	case "OPTIONS":
		return 6
	case "QUERY":
		return 7
	case "CONNECT":
		return 8
	case "TRACE":
		return 9
	}
	return len(methods) - 1
}

// statuses are the values of the label code: the registered status codes (IANA
// HTTP Status Code Registry), 499 for a client that did not wait, and behind
// them one value for all others of each class. 0 is a response without status.
var statuses = [...]string{
	"0", "1xx", "2xx", "3xx", "4xx", "5xx",
	"100", "101", "102", "103", "104",
	"200", "201", "202", "203", "204", "205", "206", "207", "208", "226",
	"300", "301", "302", "303", "304", "305", "307", "308",
	"400", "401", "402", "403", "404", "405", "406", "407", "408", "409", "410", "411", "412", "413", "414", "415", "416", "417", "418",
	"421", "422", "423", "424", "425", "426", "428", "429", "431", "451", "499",
	"500", "501", "502", "503", "504", "505", "506", "507", "508", "511",
}

// statusIndices leads from a status code to its place in statuses.
var statusIndices = func() (index [600]uint8) {
	for code := 100; code < len(index); code++ {
		index[code] = uint8(code / 100)
	}
	for i, s := range statuses[6:] {
		code := int(s[0]-'0')*100 + int(s[1]-'0')*10 + int(s[2]-'0')
		index[code] = uint8(6 + i)
	}
	return index
}()

func statusIndex(code int) int {
	if code < 0 || code >= len(statusIndices) {
		return 0
	}
	return int(statusIndices[code])
}

// label makes a name of the configuration fit for the exposition format, which
// refuses what is not UTF-8.
func label(name string) string { return strings.ToValidUTF8(name, "\ufffd") }
