package iam

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// family is what an operator compares.
type family uint8

const (
	ofStrings family = iota
	ofNumbers
	ofDates
	ofTruth
	ofBytes
	ofAddresses
	ofARNs
	ofNull
)

// relation is how a number or a date stands to that of the policy.
type relation uint8

const (
	equal relation = 1 << iota
	less
	greater
)

// operator is what a condition compares by. A negated one holds when the other does
// not, and so for a key that is missing too.
type operator struct {
	family   family
	relation relation
	like     bool // wildcards
	fold     bool // letters in any case
	negated  bool
}

var operators = map[string]operator{
	"StringEquals":              {family: ofStrings},
	"StringNotEquals":           {family: ofStrings, negated: true},
	"StringEqualsIgnoreCase":    {family: ofStrings, fold: true},
	"StringNotEqualsIgnoreCase": {family: ofStrings, fold: true, negated: true},
	"StringLike":                {family: ofStrings, like: true},
	"StringNotLike":             {family: ofStrings, like: true, negated: true},
	"NumericEquals":             {family: ofNumbers, relation: equal},
	"NumericNotEquals":          {family: ofNumbers, relation: equal, negated: true},
	"NumericLessThan":           {family: ofNumbers, relation: less},
	"NumericLessThanEquals":     {family: ofNumbers, relation: less | equal},
	"NumericGreaterThan":        {family: ofNumbers, relation: greater},
	"NumericGreaterThanEquals":  {family: ofNumbers, relation: greater | equal},
	"DateEquals":                {family: ofDates, relation: equal},
	"DateNotEquals":             {family: ofDates, relation: equal, negated: true},
	"DateLessThan":              {family: ofDates, relation: less},
	"DateLessThanEquals":        {family: ofDates, relation: less | equal},
	"DateGreaterThan":           {family: ofDates, relation: greater},
	"DateGreaterThanEquals":     {family: ofDates, relation: greater | equal},
	"Bool":                      {family: ofTruth},
	"BinaryEquals":              {family: ofBytes},
	"IpAddress":                 {family: ofAddresses},
	"NotIpAddress":              {family: ofAddresses, negated: true},
	"ArnEquals":                 {family: ofARNs, like: true},
	"ArnLike":                   {family: ofARNs, like: true},
	"ArnNotEquals":              {family: ofARNs, like: true, negated: true},
	"ArnNotLike":                {family: ofARNs, like: true, negated: true},
	"Null":                      {family: ofNull},
}

// fits reports whether values of a class can be what a family compares.
func (f family) fits(c class) bool {
	switch {
	case f == ofStrings || f == ofNull || c == isAny:
		return true
	case f == ofNumbers || f == ofDates:
		return c == isMoment
	case f == ofTruth:
		return c == isTruth
	case f == ofAddresses:
		return c == isAddress
	}
	return c == isText
}

// operand is one value of a condition, read as its operator compares it.
type operand struct {
	pattern pattern
	arn     []pattern
	number  number
	at      time.Time
	prefix  netip.Prefix
	yes     bool
	raw     []byte
}

// operand reads a value of a policy.
func (o *operator) operand(text string, with syntax) (v operand, err error) {
	switch o.family {
	case ofStrings:
		if !o.like {
			with &^= wildcards
		}
		v.pattern, err = compile(text, with)
		v.pattern.fold = o.fold
		return v, err
	case ofARNs:
		v.arn, err = compileARN(text, with)
		return v, err
	}
	if with&variables != 0 && strings.Contains(text, "${") {
		return v, errors.New("only the operators of strings and ARNs take variables")
	}
	switch o.family {
	case ofNumbers:
		if v.number, err = parseNumber(text); err != nil {
			return v, fmt.Errorf("%q is no number", text)
		}
	case ofDates:
		if v.at, err = parseTime(text); err != nil {
			return v, fmt.Errorf("%q is no date: write 2026-11-25T12:00:00Z, 2026-11-25 or seconds since 1970", text)
		}
	case ofTruth, ofNull:
		if v.yes, err = parseTruth(text); err != nil {
			return v, fmt.Errorf("%q is neither true nor false", text)
		}
	case ofBytes:
		if v.raw, err = base64.StdEncoding.Strict().DecodeString(text); err != nil {
			return v, fmt.Errorf("%q is not base64", text)
		}
	case ofAddresses:
		if v.prefix, err = parsePrefix(text); err != nil {
			return v, fmt.Errorf("%q is no address or range: write 203.0.113.0/24", text)
		}
	}
	return v, nil
}

// matches compares a value of a request with one of the policy. A value that is not
// of the operator's kind matches nothing.
func (o *operator) matches(v *operand, q *Request, with *value) bool {
	switch o.family {
	case ofNumbers:
		text, ok := with.string()
		if with.class == isMoment {
			text = strconv.FormatInt(with.at.Unix(), 10)
		}
		n, err := parseNumber(text)
		return ok && err == nil && o.relates(n.compare(v.number))
	case ofDates:
		at := with.at
		if with.class != isMoment {
			text, ok := with.string()
			var err error
			if at, err = parseTime(text); err != nil || !ok {
				return false
			}
		}
		return o.relates(at.Compare(v.at))
	case ofAddresses:
		from := with.from
		if with.class != isAddress {
			text, _ := with.string()
			from, _ = netip.ParseAddr(text)
		}
		return from.IsValid() && v.prefix.Contains(from.Unmap())
	}
	text, ok := with.string()
	switch {
	case !ok:
		return false
	case o.family == ofTruth:
		yes, err := parseTruth(text)
		return err == nil && yes == v.yes
	case o.family == ofBytes:
		return bytes.Equal(v.raw, []byte(text))
	case o.family == ofARNs:
		return matchARN(v.arn, q, text)
	}
	return match(&v.pattern, q, text)
}

// relates reports whether a comparison, as cmp.Compare returns it, is the one that
// the operator asks for.
func (o *operator) relates(n int) bool {
	switch {
	case n < 0:
		return o.relation&less != 0
	case n > 0:
		return o.relation&greater != 0
	}
	return o.relation&equal != 0
}

// number is a whole number, or one that only a float can hold.
type number struct {
	whole   bool
	integer int64
	float   float64
}

var errFormat = errors.New("iam: not in the format")

func parseNumber(text string) (number, error) {
	if text == "" || len(text) > 64 || strings.Trim(text, "0123456789+-.eE") != "" {
		return number{}, errFormat
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return number{whole: true, integer: n, float: float64(n)}, nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(f, 0) {
		return number{}, errFormat
	}
	return number{float: f}, nil
}

func (n number) compare(other number) int {
	a, b := n.float, other.float
	if n.whole && other.whole {
		switch {
		case n.integer < other.integer:
			return -1
		case n.integer > other.integer:
			return 1
		}
		return 0
	}
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

var layouts = []string{time.RFC3339, "2006-01-02T15:04Z07:00", time.DateOnly, "2006-01"}

// parseTime reads a date of the W3C's profile of ISO 8601, but for a year alone,
// which would be seconds too; or seconds since 1970.
func parseTime(text string) (time.Time, error) {
	if len(text) > 4 && len(text) <= 12 && strings.Trim(text, "0123456789") == "" {
		n, err := strconv.ParseInt(text, 10, 64)
		return time.Unix(n, 0), err
	}
	for _, layout := range layouts {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	return time.Time{}, errFormat
}

func parseTruth(text string) (bool, error) {
	switch {
	case strings.EqualFold(text, "true"):
		return true, nil
	case strings.EqualFold(text, "false"):
		return false, nil
	}
	return false, errFormat
}

// parsePrefix reads an address or a range. IPv4 written as IPv6 is IPv4; bits behind
// the prefix are as if they were not there.
func parsePrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, errFormat
	}
	if a := p.Addr(); a.Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, errFormat
		}
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}
