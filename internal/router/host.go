package router

import (
	"fmt"
	"strings"
)

// parseHost checks one host of a route and returns it in lower case, without
// the "*." of a wildcard.
func parseHost(host string) (name string, wild bool, err error) {
	name, wild = strings.CutPrefix(strings.ToLower(host), "*.")
	name = strings.TrimSuffix(name, ".")
	switch {
	case host == "":
		return "", false, fmt.Errorf("the host is empty; leave hosts out for every host")
	case host == "*":
		return "", false, fmt.Errorf(`"*" is no host; leave hosts out for every host`)
	case strings.Contains(host, "://"):
		return "", false, fmt.Errorf("%q is a URL; write the name alone", host)
	case strings.HasPrefix(name, "["):
		if wild || !strings.HasSuffix(name, "]") || strings.Trim(name[1:len(name)-1], "0123456789abcdef:.") != "" {
			return "", false, fmt.Errorf("%q is no host: an IPv6 address stands alone in brackets, without a port", host)
		}
		return name, false, nil
	case strings.Contains(name, ":"):
		return "", false, fmt.Errorf("%q has a port; routes go by the name alone, and by listener", host)
	case strings.Contains(name, "*"):
		return "", false, fmt.Errorf(`%q: a wildcard is "*." in front of a name, for exactly one label`, host)
	}
	for label := range strings.SplitSeq(name, ".") {
		if !hostLabel(label) {
			return "", false, fmt.Errorf("%q is no host name; labels are letters, digits, - and _ (international names in their xn-- form)", host)
		}
	}
	return name, wild, nil
}

func hostLabel(label string) bool {
	for i := range len(label) {
		if c := label[i]; !isLetter(c) && !isDigit(c) && c != '-' && c != '_' {
			return false
		}
	}
	return label != "" && len(label) <= 63
}
