package iam

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// key is a condition key: something of a request that conditions compare.
type key struct {
	of   source
	name string // as messages write it
	arg  string // of PrincipalTag and claim
}

type source uint8

const (
	sourceIP source = iota
	currentTime
	epochTime
	secureTransport
	userAgent
	referer
	userName
	userID
	principalTag
	authenticator
	plan
	role
	permission
	claim
)

// class is what a key's values are.
type class uint8

const (
	isText class = iota
	isAddress
	isMoment
	isTruth
	isAny // a tag or a claim: what it looks like
)

// keys are all that are understood. Names are the same in both cases, and so is what
// stands behind aws:PrincipalTag/; names of claims are not.
var keys = map[string]struct {
	of    source
	name  string
	class class
}{
	"aws:sourceip":         {sourceIP, "aws:SourceIp", isAddress},
	"aws:currenttime":      {currentTime, "aws:CurrentTime", isMoment},
	"aws:epochtime":        {epochTime, "aws:EpochTime", isMoment},
	"aws:securetransport":  {secureTransport, "aws:SecureTransport", isTruth},
	"aws:useragent":        {userAgent, "aws:UserAgent", isText},
	"aws:referer":          {referer, "aws:Referer", isText},
	"aws:username":         {userName, "aws:username", isText},
	"aws:userid":           {userID, "aws:userid", isText},
	"aws:principaltag/":    {principalTag, "aws:PrincipalTag/", isAny},
	"sluice:authenticator": {authenticator, "sluice:authenticator", isText},
	"sluice:plan":          {plan, "sluice:plan", isText},
	"sluice:role":          {role, "sluice:role", isText},
	"sluice:permission":    {permission, "sluice:permission", isText},
	"sluice:claim/":        {claim, "sluice:claim/", isAny},
}

const knownKeys = "aws:SourceIp, aws:CurrentTime, aws:EpochTime, aws:SecureTransport, aws:UserAgent, aws:Referer, aws:username, aws:userid, " +
	"aws:PrincipalTag/NAME, sluice:authenticator, sluice:plan, sluice:role, sluice:permission and sluice:claim/NAME"

// parseKey reads the name of a key.
func parseKey(name string) (key, error) {
	base, arg := name, ""
	if i := strings.IndexByte(name, '/'); i >= 0 {
		base, arg = name[:i+1], name[i+1:]
	}
	known, ok := keys[strings.ToLower(base)]
	if !ok {
		return key{}, fmt.Errorf("%q is no condition key that is understood here; there are %s", name, knownKeys)
	}
	if strings.HasSuffix(known.name, "/") && arg == "" {
		return key{}, fmt.Errorf("%q names nothing behind the slash", name)
	}
	return key{of: known.of, name: known.name + arg, arg: arg}, nil
}

func (k *key) class() class {
	base := k.name
	if k.arg != "" {
		base = base[:len(base)-len(k.arg)]
	}
	return keys[strings.ToLower(base)].class
}

// several reports whether requests may have several values of it by its nature.
func (k *key) several() bool { return k.of == role || k.of == permission }

// value is one value of a key. What it is, is what class says; isAny: nothing that a
// condition could be compared with.
type value struct {
	class class
	text  string // isText
	at    time.Time
	from  netip.Addr
	yes   bool
	epoch bool // isMoment: written in seconds
}

// count is how many values of the key the request has; 0: the key is missing.
func (k *key) count(q *Request) int {
	c := &q.Caller
	switch k.of {
	case sourceIP:
		return oneIf(q.Source.IsValid())
	case currentTime, epochTime, secureTransport:
		return 1
	case userAgent:
		return oneIf(q.UserAgent != nil)
	case referer:
		return oneIf(q.Referer != nil)
	case userName, userID:
		return oneIf(c.ID != "")
	case principalTag:
		_, ok := k.tag(c)
		return oneIf(ok)
	case authenticator:
		return oneIf(c.Authenticator != "")
	case plan:
		return oneIf(c.Plan != "")
	case role:
		return len(c.Roles)
	case permission:
		return len(c.Permissions)
	}
	switch v := k.claim(c).(type) {
	case nil, map[string]any:
		return 0
	case []any:
		return len(v)
	case []string:
		return len(v)
	}
	return 1
}

func oneIf(there bool) int {
	if there {
		return 1
	}
	return 0
}

// value returns the i-th value of those that count counted.
func (k *key) value(q *Request, i int) value {
	c := &q.Caller
	switch k.of {
	case sourceIP:
		return value{class: isAddress, from: q.Source.Unmap()}
	case currentTime, epochTime:
		return value{class: isMoment, at: q.Now.Truncate(time.Second), epoch: k.of == epochTime}
	case secureTransport:
		return value{class: isTruth, yes: q.Secure}
	case userAgent:
		return value{text: string(q.UserAgent)}
	case referer:
		return value{text: string(q.Referer)}
	case userName:
		return value{text: c.ID}
	case userID:
		if c.Authenticator != "" {
			return value{text: c.Authenticator + ":" + c.ID}
		}
		return value{text: c.ID}
	case principalTag:
		text, _ := k.tag(c)
		return value{text: text}
	case authenticator:
		return value{text: c.Authenticator}
	case plan:
		return value{text: c.Plan}
	case role:
		return value{text: c.Roles[i]}
	case permission:
		return value{text: c.Permissions[i]}
	}
	switch v := k.claim(c).(type) {
	case []any:
		return scalar(v[i])
	case []string:
		return value{text: v[i]}
	default:
		return scalar(v)
	}
}

// scalar is a value of JSON. Lists and objects equal nothing.
func scalar(v any) value {
	switch v := v.(type) {
	case string:
		return value{text: v}
	case bool:
		return value{class: isTruth, yes: v}
	case json.Number:
		return value{text: v.String()}
	case float64:
		return value{text: strconv.FormatFloat(v, 'f', -1, 64)}
	case int:
		return value{text: strconv.Itoa(v)}
	case int64:
		return value{text: strconv.FormatInt(v, 10)}
	}
	return value{class: isAny}
}

// single returns the value for a variable; ok is false when there is none, or more
// than one.
func (k *key) single(q *Request) (text string, ok bool) {
	if k.count(q) != 1 {
		return "", false
	}
	v := k.value(q, 0)
	return v.string()
}

// string is the value as text; ok is false for what is no text.
func (v *value) string() (text string, ok bool) {
	switch v.class {
	case isAddress:
		return v.from.String(), true
	case isTruth:
		return strconv.FormatBool(v.yes), true
	case isMoment:
		if v.epoch {
			return strconv.FormatInt(v.at.Unix(), 10), true
		}
		return v.at.UTC().Format(time.RFC3339), true
	}
	return v.text, v.class == isText
}

func (k *key) claim(c *Caller) any {
	if c.Claims == nil {
		return nil
	}
	return c.Claims.Claim(k.arg)
}

// tag returns an attribute by its name. AWS takes names of tags in any case; of
// several that differ in nothing else the first in the alphabet counts.
func (k *key) tag(c *Caller) (string, bool) {
	if v, ok := c.Attributes[k.arg]; ok {
		return v, true
	}
	var found []string
	for name := range c.Attributes {
		if strings.EqualFold(name, k.arg) {
			found = append(found, name)
		}
	}
	if len(found) == 0 {
		return "", false
	}
	return c.Attributes[slices.Min(found)], true
}
