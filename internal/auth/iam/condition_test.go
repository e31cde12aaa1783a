package iam

import (
	"testing"
	"time"
)

const (
	operatorsPage = "IAM JSON policy elements: Condition operators"
	setPage       = "Single-valued vs. multivalued context keys"
	severalPage   = "Conditions with multiple context keys or values"
	keysPage      = "AWS global condition context keys"
)

// at is a request at another time.
func at(text string) func(*Request) {
	return func(q *Request) {
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			panic(err)
		}
		q.Now = t
	}
}

// tagged is a request whose caller has one attribute.
func tagged(name, value string) func(*Request) {
	return func(q *Request) { q.Caller.Attributes = map[string]string{name: value} }
}

// TestConditionsHoldAsAWSSays asks an Allow with the one condition.
func TestConditionsHoldAsAWSSays(t *testing.T) {
	for _, c := range []struct {
		page, name, condition string
		change                func(*Request)
		want                  bool
	}{
		{operatorsPage, "equal", `"StringEquals": {"aws:username": "acme"}`, nil, true},
		{operatorsPage, "equal but for case", `"StringEquals": {"aws:username": "Acme"}`, nil, false},
		{operatorsPage, "an asterisk is no wildcard of StringEquals", `"StringEquals": {"aws:username": "ac*"}`, nil, false},
		{operatorsPage, "not equal", `"StringNotEquals": {"aws:username": "other"}`, nil, true},
		{operatorsPage, "not equal, equal", `"StringNotEquals": {"aws:username": "acme"}`, nil, false},
		{operatorsPage, "ignoring case", `"StringEqualsIgnoreCase": {"aws:username": "ACME"}`, nil, true},
		{operatorsPage, "not, ignoring case", `"StringNotEqualsIgnoreCase": {"aws:username": "ACME"}`, nil, false},
		{operatorsPage, "like", `"StringLike": {"aws:username": "a*e"}`, nil, true},
		{operatorsPage, "like one character", `"StringLike": {"aws:username": "ac?e"}`, nil, true},
		{operatorsPage, "like has cases", `"StringLike": {"aws:username": "A*"}`, nil, false},
		{operatorsPage, "like without wildcards is no partial match", `"StringLike": {"aws:username": "acm"}`, nil, false},
		{operatorsPage, "not like", `"StringNotLike": {"aws:username": "a*"}`, nil, false},
		{operatorsPage, "not like, unlike", `"StringNotLike": {"aws:username": "b*"}`, nil, true},
		{operatorsPage, "several stars", `"StringLike": {"aws:Referer": "https://*.example.*/p*"}`, nil, true},
		{operatorsPage, "many stars that fail", `"StringLike": {"aws:PrincipalTag/x": "*a*a*a*a*a*a*a*b"}`, tagged("x", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), false},

		{operatorsPage, "a missing key is not equal", `"StringEquals": {"aws:PrincipalTag/none": "a"}`, nil, false},
		{operatorsPage, "a missing key is like nothing", `"StringLike": {"aws:PrincipalTag/none": "*"}`, nil, false},
		{operatorsPage, "a missing key is unequal", `"StringNotEquals": {"aws:PrincipalTag/none": "a"}`, nil, true},
		{operatorsPage, "a missing key is unlike", `"StringNotLike": {"aws:PrincipalTag/none": "*"}`, nil, true},
		{operatorsPage, "a missing number", `"NumericLessThan": {"aws:PrincipalTag/none": "5"}`, nil, false},
		{operatorsPage, "a missing number is unequal", `"NumericNotEquals": {"aws:PrincipalTag/none": "5"}`, nil, true},
		{operatorsPage, "a missing address", `"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}`, bare, false},
		{operatorsPage, "a missing address is in no range", `"NotIpAddress": {"aws:SourceIp": "0.0.0.0/0"}`, bare, true},
		{operatorsPage, "a missing truth", `"Bool": {"aws:PrincipalTag/none": "false"}`, nil, false},
		{operatorsPage, "a missing ARN", `"ArnNotEquals": {"aws:PrincipalTag/none": "arn:aws:sns:*:*:*"}`, nil, true},

		{operatorsPage, "IfExists, missing", `"StringEqualsIfExists": {"aws:PrincipalTag/none": "a"}`, nil, true},
		{operatorsPage, "IfExists, there and equal", `"StringEqualsIfExists": {"aws:PrincipalTag/tier": "gold"}`, nil, true},
		{operatorsPage, "IfExists, there and unequal", `"StringEqualsIfExists": {"aws:PrincipalTag/tier": "silver"}`, nil, false},
		{operatorsPage, "IfExists, negated and missing", `"StringNotEqualsIfExists": {"aws:PrincipalTag/none": "a"}`, nil, true},
		{operatorsPage, "IfExists of a number", `"NumericLessThanIfExists": {"aws:PrincipalTag/none": "1"}`, nil, true},
		{operatorsPage, "IfExists of an address", `"IpAddressIfExists": {"aws:SourceIp": "10.0.0.0/8"}`, bare, true},
		{operatorsPage, "IfExists of an address that is there", `"IpAddressIfExists": {"aws:SourceIp": "10.0.0.0/8"}`, nil, false},
		{operatorsPage, "IfExists of a truth", `"BoolIfExists": {"aws:PrincipalTag/none": "true"}`, nil, true},

		{operatorsPage, "Null true, missing", `"Null": {"aws:PrincipalTag/none": "true"}`, nil, true},
		{operatorsPage, "Null true, there", `"Null": {"aws:PrincipalTag/tier": "true"}`, nil, false},
		{operatorsPage, "Null false, there", `"Null": {"aws:PrincipalTag/tier": "false"}`, nil, true},
		{operatorsPage, "Null false, missing", `"Null": {"aws:PrincipalTag/none": false}`, nil, false},
		{operatorsPage, "Null of several values", `"Null": {"sluice:role": "false"}`, nil, true},
		{operatorsPage, "Null for nobody known", `"Null": {"aws:userid": "true"}`, nobodyKnown, true},

		{operatorsPage, "numbers", `"NumericEquals": {"aws:PrincipalTag/seats": "12"}`, nil, true},
		{operatorsPage, "numbers in another form", `"NumericEquals": {"aws:PrincipalTag/seats": 12.0}`, nil, true},
		{operatorsPage, "numbers, unequal", `"NumericNotEquals": {"aws:PrincipalTag/seats": "12"}`, nil, false},
		{operatorsPage, "less", `"NumericLessThan": {"aws:PrincipalTag/seats": "12"}`, nil, false},
		{operatorsPage, "less, by a fraction", `"NumericLessThan": {"aws:PrincipalTag/seats": "12.5"}`, nil, true},
		{operatorsPage, "less or equal", `"NumericLessThanEquals": {"aws:PrincipalTag/seats": "12"}`, nil, true},
		{operatorsPage, "greater", `"NumericGreaterThan": {"aws:PrincipalTag/seats": "-3"}`, nil, true},
		{operatorsPage, "greater, equal", `"NumericGreaterThan": {"aws:PrincipalTag/seats": "12"}`, nil, false},
		{operatorsPage, "greater or equal", `"NumericGreaterThanEquals": {"aws:PrincipalTag/seats": "12"}`, nil, true},
		{operatorsPage, "what is no number", `"NumericLessThan": {"aws:PrincipalTag/tier": "12"}`, nil, false},
		{operatorsPage, "what is infinite is no number", `"NumericGreaterThan": {"aws:PrincipalTag/x": "12"}`, tagged("x", "Inf"), false},
		{operatorsPage, "whole numbers are exact", `"NumericEquals": {"sluice:claim/level": "9007199254740992"}`, nil, false},
		{operatorsPage, "whole numbers are equal", `"NumericEquals": {"sluice:claim/level": "9007199254740993"}`, nil, true},
		{operatorsPage, "a fraction of a token", `"NumericEquals": {"sluice:claim/score": "2.5"}`, nil, true},

		{operatorsPage, "a date to come", `"DateLessThan": {"aws:CurrentTime": "2026-11-25T12:00:01Z"}`, nil, true},
		{operatorsPage, "this second", `"DateLessThan": {"aws:CurrentTime": "2026-11-25T12:00:00Z"}`, nil, false},
		{operatorsPage, "this second, or before", `"DateLessThanEquals": {"aws:CurrentTime": "2026-11-25T12:00:00Z"}`, nil, true},
		{operatorsPage, "this second is equal", `"DateEquals": {"aws:CurrentTime": "2026-11-25T13:00:00+01:00"}`, nil, true},
		{operatorsPage, "another second", `"DateNotEquals": {"aws:CurrentTime": "2026-11-25T12:00:00Z"}`, at("2026-11-25T12:00:01Z"), true},
		{operatorsPage, "a day", `"DateGreaterThan": {"aws:CurrentTime": "2026-11-25"}`, nil, true},
		{operatorsPage, "a month", `"DateGreaterThanEquals": {"aws:CurrentTime": "2026-12"}`, nil, false},
		{operatorsPage, "seconds", `"DateGreaterThanEquals": {"aws:EpochTime": "1795608000"}`, nil, true},
		{operatorsPage, "seconds as a number", `"NumericLessThan": {"aws:EpochTime": 1795608001}`, nil, true},
		{operatorsPage, "a tag that is a date", `"DateLessThan": {"aws:PrincipalTag/since": "2025-01-02T00:00:00Z"}`, nil, true},
		{operatorsPage, "a tag that is none", `"DateLessThan": {"aws:PrincipalTag/tier": "2025-01-02T00:00:00Z"}`, nil, false},

		{operatorsPage, "over TLS", `"Bool": {"aws:SecureTransport": "true"}`, nil, true},
		{operatorsPage, "over TLS, as JSON", `"Bool": {"aws:SecureTransport": true}`, plain, false},
		{operatorsPage, "not over TLS", `"Bool": {"aws:SecureTransport": "false"}`, plain, true},
		{operatorsPage, "a tag that is true", `"Bool": {"aws:PrincipalTag/beta": "true"}`, nil, true},
		{operatorsPage, "a claim that is true", `"Bool": {"sluice:claim/admin": "true"}`, nil, true},
		{operatorsPage, "a tag that is neither", `"Bool": {"aws:PrincipalTag/tier": "false"}`, nil, false},

		{operatorsPage, "bytes", `"BinaryEquals": {"aws:PrincipalTag/tier": "Z29sZA=="}`, nil, true},
		{operatorsPage, "other bytes", `"BinaryEquals": {"aws:PrincipalTag/tier": "R29sZA=="}`, nil, false},

		{operatorsPage, "in the range", `"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}`, nil, true},
		{operatorsPage, "not in the range", `"IpAddress": {"aws:SourceIp": "203.0.112.0/24"}`, nil, false},
		{operatorsPage, "one address", `"IpAddress": {"aws:SourceIp": "203.0.113.7"}`, nil, true},
		{operatorsPage, "a range with bits behind it", `"IpAddress": {"aws:SourceIp": "203.0.113.99/24"}`, nil, true},
		{operatorsPage, "IPv6", `"IpAddress": {"aws:SourceIp": ["203.0.113.0/24", "2001:DB8:1234:5678::/64"]}`, from("2001:db8:1234:5678::9"), true},
		{operatorsPage, "IPv6 in no range", `"IpAddress": {"aws:SourceIp": ["203.0.113.0/24", "2001:DB8:1234:5678::/64"]}`, from("2001:db8:1234:5679::9"), false},
		{operatorsPage, "IPv4 written as IPv6", `"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}`, from("::ffff:203.0.113.7"), true},
		{operatorsPage, "a range of IPv4 written as IPv6", `"IpAddress": {"aws:SourceIp": "::ffff:203.0.113.0/120"}`, nil, true},
		{operatorsPage, "a tag that is IPv4 written as IPv6", `"IpAddress": {"aws:PrincipalTag/home": "198.51.100.0/24"}`, tagged("home", "::ffff:198.51.100.4"), true},
		{operatorsPage, "all but a range", `"NotIpAddress": {"aws:SourceIp": "203.0.113.0/24"}`, nil, false},
		{operatorsPage, "in neither of two ranges", `"NotIpAddress": {"aws:SourceIp": ["198.51.100.0/24", "203.0.113.0/24"]}`, nil, false},
		{operatorsPage, "a tag that is an address", `"IpAddress": {"aws:PrincipalTag/home": "198.51.100.0/24"}`, nil, true},
		{keysPage, "the address as text", `"StringEquals": {"aws:SourceIp": "203.0.113.7"}`, nil, true},

		{operatorsPage, "a string reaches over the colons of an ARN", `"StringLike": {"aws:PrincipalTag/arn": "arn:aws:sns:*:111122223333:finance/*"}`, nil, true},
		{operatorsPage, "an ARN does not", `"ArnLike": {"aws:PrincipalTag/arn": "arn:aws:sns:*:111122223333:finance/*"}`, nil, false},
		{operatorsPage, "an ARN by its parts", `"ArnLike": {"aws:PrincipalTag/arn": "arn:aws:sns:*:999999999999:store/*"}`, nil, true},
		{operatorsPage, "ArnEquals has wildcards too", `"ArnEquals": {"aws:PrincipalTag/arn": "arn:aws:sns:us-east-?:*:store/*"}`, nil, true},
		{operatorsPage, "another ARN", `"ArnNotLike": {"aws:PrincipalTag/arn": "arn:aws:sns:*:999999999999:store/*"}`, nil, false},
		{operatorsPage, "what is no ARN", `"ArnLike": {"aws:PrincipalTag/tier": "arn:aws:*:*:*:*"}`, nil, false},

		{severalPage, "values are alternatives", `"StringEquals": {"aws:username": ["other", "acme"]}`, nil, true},
		{severalPage, "values of a negated operator are none of them", `"StringNotEquals": {"aws:username": ["other", "acme"]}`, nil, false},
		{severalPage, "keys have all to match", `"StringEquals": {"aws:username": "acme", "aws:PrincipalTag/tier": "silver"}`, nil, false},
		{severalPage, "operators have all to match", `"StringEquals": {"aws:username": "acme"}, "Bool": {"aws:SecureTransport": "true"}`, nil, true},
		{severalPage, "one operator does not", `"StringEquals": {"aws:username": "acme"}, "Bool": {"aws:SecureTransport": "false"}`, nil, false},

		{setPage, "any of them", `"ForAnyValue:StringEquals": {"sluice:role": ["admin", "writer"]}`, nil, true},
		{setPage, "none of them", `"ForAnyValue:StringEquals": {"sluice:role": ["admin"]}`, nil, false},
		{setPage, "any, missing", `"ForAnyValue:StringEquals": {"sluice:role": ["admin"]}`, nobodyKnown, false},
		{setPage, "all of them", `"ForAllValues:StringEquals": {"sluice:role": ["reader", "writer", "admin"]}`, nil, true},
		{setPage, "not all of them", `"ForAllValues:StringEquals": {"sluice:role": ["reader"]}`, nil, false},
		{setPage, "all, missing", `"ForAllValues:StringEquals": {"sluice:role": ["admin"]}`, nobodyKnown, true},
		{setPage, "all, missing, unless Null says that it is there", `"ForAllValues:StringEquals": {"sluice:role": ["admin"]}, "Null": {"sluice:role": "false"}`, nobodyKnown, false},
		{setPage, "all of a list that is empty", `"ForAllValues:StringEquals": {"sluice:claim/none": "blue"}`, nil, true},
		{setPage, "all of an empty string", `"ForAllValues:StringEquals": {"aws:PrincipalTag/empty": "gold"}`, nil, true},
		{setPage, "any of an empty string", `"ForAnyValue:StringLike": {"aws:PrincipalTag/empty": "*"}`, nil, false},
		{setPage, "like, for all", `"ForAllValues:StringLike": {"sluice:role": "*er"}`, nil, true},
		{setPage, "one is different", `"ForAnyValue:StringNotEquals": {"sluice:role": "reader"}`, nil, true},
		{setPage, "none is different", `"ForAnyValue:StringNotEquals": {"sluice:role": ["reader", "writer"]}`, nil, false},
		{setPage, "all are different", `"ForAllValues:StringNotEquals": {"sluice:role": ["admin", "owner"]}`, nil, true},
		{setPage, "not all are different", `"ForAllValues:StringNotEquals": {"sluice:role": ["admin", "writer"]}`, nil, false},
		{setPage, "different, missing", `"ForAnyValue:StringNotEquals": {"sluice:role": "reader"}`, nobodyKnown, false},
		{setPage, "a claim with several values", `"ForAnyValue:StringEquals": {"sluice:claim/groups": "green"}`, nil, true},
		{setPage, "a claim with one", `"ForAllValues:StringEquals": {"sluice:claim/one": "blue"}`, nil, true},
		{setPage, "what is no text is equal to nothing", `"ForAllValues:StringLike": {"sluice:claim/mixed": "*"}`, nil, false},
		{setPage, "permissions", `"ForAnyValue:StringLike": {"sluice:permission": "pets:*"}`, nil, true},

		{variablesPage, "a variable of a condition", `"StringEquals": {"sluice:claim/one": "${aws:PrincipalTag/color}"}`, tagged("color", "blue"), true},
		{variablesPage, "a variable within a pattern", `"StringLike": {"aws:Referer": "https://*/${aws:PrincipalTag/x}"}`, tagged("x", "page"), true},
		{variablesPage, "a value is no pattern", `"StringLike": {"aws:username": "${aws:PrincipalTag/x}"}`, tagged("x", "*"), false},
		{variablesPage, "without a value nothing is equal", `"StringEquals": {"aws:username": "${aws:PrincipalTag/none}"}`, nil, false},
		{variablesPage, "without a value all is unequal", `"StringNotEquals": {"aws:username": "${aws:PrincipalTag/none}"}`, nil, true},
		{variablesPage, "a claim with several values has none", `"StringEquals": {"aws:PrincipalTag/color": "${sluice:claim/groups}"}`, tagged("color", "blue"), false},
		{variablesPage, "time and address are text", `"StringEquals": {"aws:SourceIp": "${aws:SourceIp}", "aws:CurrentTime": "${aws:CurrentTime}", "aws:EpochTime": "1795608000"}`, nil, true},
		{variablesPage, "a default with a brace", `"StringEquals": {"aws:username": "${aws:PrincipalTag/none, 'a}b'}"}`, by("a}b"), true},

		{keysPage, "the referer", `"StringLike": {"aws:Referer": "https://www.example.com/*"}`, nil, true},
		{keysPage, "no referer", `"StringLike": {"aws:Referer": "*"}`, bare, false},
		{keysPage, "the user agent", `"StringLike": {"aws:UserAgent": "curl/*"}`, nil, true},
		{keysPage, "keys have no case", `"StringLike": {"AWS:useragent": "curl/*"}`, nil, true},
		{keysPage, "names of tags have none either", `"StringEquals": {"aws:principaltag/TIER": "gold"}`, nil, true},
		{
			keysPage, "of two tags the first", `"StringEquals": {"aws:principaltag/tier": "a"}`,
			func(q *Request) { q.Caller.Attributes = map[string]string{"TIER": "a", "Tier": "b"} }, true,
		},
		{"", "a plan", `"StringEquals": {"sluice:plan": "gold"}`, nil, true},
		{"", "who vouches", `"StringEquals": {"aws:userid": "staff:acme", "sluice:authenticator": "staff"}`, func(q *Request) { q.Caller.Authenticator = "staff" }, true},
		{"", "nobody vouches for a client", `"StringEquals": {"aws:userid": "acme"}, "Null": {"sluice:authenticator": "true"}`, nil, true},
		{"", "an object is no value", `"Null": {"sluice:claim/address": "true"}`, nil, true},
		{"", "several values without a word for them: one is equal", `"StringEquals": {"sluice:claim/groups": "green"}`, nil, true},
		{"", "several values without a word for them: one is not unequal", `"StringNotEquals": {"sluice:claim/groups": "green"}`, nil, false},
	} {
		p := mustParse(t, document(fill(`{"Condition": {`+c.condition+`}}`)))
		q := request()
		if c.change != nil {
			c.change(q)
		}
		if got, _ := p.Evaluate(q); (got == Allowed) != c.want {
			t.Errorf("%s: %s: %s: %v", c.page, c.name, c.condition, got)
		}
	}
}
