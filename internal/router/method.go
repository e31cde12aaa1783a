package router

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// Methods and listeners are bits of a word while a table is searched. The
// usual methods have fixed bits; others that routes name come behind them, and
// one bit stands for all that no route names.
const (
	bitGet = 1 << iota
	bitHead
	bitPost
	bitPut
	bitPatch
	bitDelete
	bitOptions
	bitTrace
	bitConnect
	bitCustom // the first of the others

	bitUnnamed = 1 << 63

	firstCustom = 9
	maxCustom   = 63 - firstCustom
	maxBits     = 64
)

const (
	neverRouted = bitTrace | bitConnect
	anyMethod   = ^uint64(neverRouted)
	// usualMethods are what Allow says for a route of any method.
	usualMethods = bitGet | bitHead | bitPost | bitPut | bitPatch | bitDelete | bitOptions
)

func standardBit(method string) uint64 {
	switch method {
	case "GET":
		return bitGet
	case "HEAD":
		return bitHead
	case "POST":
		return bitPost
	case "PUT":
		return bitPut
	case "PATCH":
		return bitPatch
	case "DELETE":
		return bitDelete
	case "OPTIONS":
		return bitOptions
	case "TRACE":
		return bitTrace
	case "CONNECT":
		return bitConnect
	}
	return 0
}

func standardName(bit int) string {
	return [firstCustom]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}[bit]
}

func (t *Table) methodBit(method string) uint64 {
	if b := standardBit(method); b != 0 {
		return b
	}
	for i, m := range t.methods {
		if m == method {
			return bitCustom << i
		}
	}
	return bitUnnamed
}

func (t *Table) methodName(bit int) string {
	if bit < firstCustom {
		return standardName(bit)
	}
	return t.methods[bit-firstCustom]
}

func (t *Table) listenerBit(name string) uint64 {
	for i, l := range t.listeners {
		if l == name {
			return 1 << i
		}
	}
	return 0
}

// allowList returns the names of a set of methods. Sets of single nodes were
// made when the table was.
func (t *Table) allowList(set uint64) []string {
	if list, ok := t.allow[set]; ok {
		return list
	}
	return t.makeAllow(set)
}

func (t *Table) makeAllow(set uint64) []string {
	list := make([]string, 0, bits.OnesCount64(set))
	for ; set != 0; set &= set - 1 {
		list = append(list, t.methodName(bits.TrailingZeros64(set)))
	}
	slices.Sort(list)
	return list
}

// checkMethod says what is wrong with a method of a route.
func checkMethod(m string) error {
	switch {
	case !isToken(m):
		return fmt.Errorf("%q is no method name", m)
	case m != strings.ToUpper(m) && standardBit(strings.ToUpper(m)) != 0:
		return fmt.Errorf("%q: methods are case-sensitive, write %s", m, strings.ToUpper(m))
	case standardBit(m)&neverRouted != 0:
		return fmt.Errorf("%s is never routed: the gateway answers it with 405", m)
	}
	return nil
}

// isToken reports whether s is a token (RFC 9110 §5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && !isDigit(c) && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return s != ""
}
