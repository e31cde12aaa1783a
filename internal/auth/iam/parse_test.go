package iam

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestWhatIsNotUnderstoodIsAnError(t *testing.T) {
	statement := func(s string) string { return document(fill(s)) }
	condition := func(s string) string { return statement(`{"Condition": {` + s + `}}`) }
	for _, c := range []struct {
		name, text string
		want       []string // each is in one line of the error, in this order
	}{
		{"nothing", ``, []string{"line 1, column 1: this is not JSON"}},
		{"no JSON", "{\n  \"Version\": 2012-10-17\n}", []string{"line 2, column 18: this is not JSON"}},
		{"two values", `{} {}`, []string{"line 1, column 4: this is not JSON"}},
		{"a trailing comma", `{"Statement": [],}`, []string{"line 1, column 18: this is not JSON"}},
		{"no UTF-8", "{\"Id\": \"\xff\"}", []string{"line 1, column 9: this is not UTF-8"}},
		{"half a character", `{"Id": "\ud800"}`, []string{"line 1, column 8: the string has half a character in it"}},
		{"too much", `{"Id": "` + strings.Repeat("x", MaxSize) + `"}`, []string{"65546 bytes, 65536 are the most"}},
		{"deep", strings.Repeat("[", 9) + strings.Repeat("]", 9), []string{"line 1, column 9: no document needs more than 8 levels"}},
		{"twice", `{"Version": "2012-10-17", "Version": "2008-10-17"}`, []string{`line 1, column 27: "Version" is there twice`}},
		{"a list", `[]`, []string{"a policy has to be an object, not a list"}},
		{"a member", `{"statement": []}`, []string{`a policy has no member "statement", only Version, Id, Statement`, "the policy has no Statement"}},
		{"a version", `{"Version": "2012-10-18", "Statement": ` + fill(`{}`) + `}`, []string{`line 1, column 13: Version has to be "2012-10-17"`}},
		{"an id", `{"Id": 7, "Statement": ` + fill(`{}`) + `}`, []string{"Id has to be a string, not a number"}},
		{"no statements", `{"Statement": []}`, []string{"line 1, column 15: Statement is empty"}},
		{"a statement", `{"Statement": "x"}`, []string{"a statement has to be an object, not a string"}},
		{"an empty statement", `{"Statement": {}}`, []string{
			"has no Effect", "neither Principal nor NotPrincipal", "neither Action nor NotAction", "neither Resource nor NotResource",
		}},
		{"an element", statement(`{"Actions": "*"}`), []string{`a statement has no member "Actions"`}},
		{"an effect", statement(`{"Effect": "allow"}`), []string{`Effect has to be "Allow" or "Deny"`}},
		{"a sid", statement(`{"Sid": 1}`), []string{"Sid has to be a string"}},
		{"the same sid", document(fill(`{"Sid": "a"}`), fill(`{"Sid": "a"}`)), []string{`another statement has the Sid "a" already`}},

		{"both actions", statement(`{"Action": "*", "NotAction": "*"}`), []string{"Action and NotAction exclude each other"}},
		{"both resources", statement(`{"Resource": "*", "NotResource": "*"}`), []string{"Resource and NotResource exclude each other"}},
		{"no actions", statement(`{"Action": []}`), []string{"Action is empty"}},
		{"a number as action", statement(`{"Action": 1}`), []string{"Action has to be a string or a list of strings, there is a number"}},
		{"a list in a list", statement(`{"Action": [["execute-api:Invoke"]]}`), []string{"there is a list"}},
		{"an action without a service", statement(`{"Action": "Invoke"}`), []string{`"Invoke" is no action`, `"Invoke" is no action of an API`}},
		{"an action that there is not", statement(`{"Action": "execute-api:Invok"}`), []string{`"execute-api:Invok" is no action of an API: write execute-api:Invoke`}},
		{"an action of another service", statement(`{"NotAction": "s3:*"}`), []string{`"s3:*" is no action of an API`}},
		{"no resource", statement(`{"Resource": "/prod/GET"}`), []string{`"/prod/GET" is no resource: write *, execute-api:/STAGE/METHOD/PATH`}},
		{"an ARN cut off", statement(`{"Resource": "arn:aws:execute-api:us-east-1:1"}`), []string{"is no resource"}},
		{"an ARN of another service", statement(`{"Resource": "arn:aws:s3:::bucket/*"}`), []string{`its service is not execute-api`}},
		{"a variable too early", statement(`{"Resource": "arn:aws:execute-api:${aws:username}:1:a/*"}`), []string{"has a variable before the fifth colon"}},
		{"a variable without an end", statement(`{"Resource": "execute-api:/${aws:username"}`), []string{"${ has no }"}},
		{"a variable that there is not", statement(`{"Resource": "execute-api:/${aws:user}"}`), []string{`"aws:user" is no condition key that is understood here`}},
		{"a variable with several values", statement(`{"Resource": "execute-api:/${sluice:role}"}`), []string{"sluice:role has several values and cannot be a variable"}},
		{"a default without quotes", statement(`{"Resource": "execute-api:/${aws:username, nobody}"}`), []string{"the default of ${aws:username} has to be in single quotes"}},

		{"a principal", statement(`{"Principal": "acme"}`), []string{`Principal has to be "*" or an object`}},
		{"both principals", statement(`{"Principal": "*", "NotPrincipal": "*"}`), []string{"exclude each other"}},
		{"nobody", statement(`{"Principal": {}}`), []string{`Principal names nobody`}},
		{"a list of nobody", statement(`{"Principal": {"AWS": []}}`), []string{`AWS is empty`}},
		{"a service", statement(`{"Principal": {"Service": "lambda.amazonaws.com"}}`), []string{`Principal has no member "Service", only AWS`, "names nobody"}},
		{"an account", statement(`{"Principal": {"AWS": "123456789012"}}`), []string{`"123456789012" is an account of AWS`}},
		{"an account's root", statement(`{"Principal": {"AWS": "arn:aws:iam::123456789012:root"}}`), []string{"is nobody whom a gateway knows"}},
		{"a session", statement(`{"Principal": {"AWS": "arn:aws:sts::123456789012:assumed-role/a/b"}}`), []string{"is nobody whom a gateway knows"}},
		{"a part of a name", statement(`{"Principal": {"AWS": "arn:aws:iam::123456789012:user/*"}}`), []string{"a principal is named whole"}},
		{"allow to all but one", statement(`{"NotPrincipal": {"AWS": "acme"}}`), []string{"NotPrincipal needs the Effect Deny"}},

		{"a condition", statement(`{"Condition": []}`), []string{"Condition has to be an object, not a list"}},
		{"an operator", condition(`"StringMatches": {"aws:username": "a"}`), []string{`"StringMatches" is no condition operator`}},
		{"an operator in another case", condition(`"stringEquals": {"aws:username": "a"}`), []string{`"stringEquals" is no condition operator`}},
		{"an operator that is no object", condition(`"StringEquals": "a"`), []string{"StringEquals has to be an object of condition keys"}},
		{"an operator of nothing", condition(`"StringEquals": {}`), []string{"StringEquals has to be an object of condition keys"}},
		{"a key", condition(`"StringEquals": {"aws:SourceVpc": "vpc-1"}`), []string{`"aws:SourceVpc" is no condition key that is understood here`}},
		{"a key that names nothing", condition(`"StringEquals": {"aws:PrincipalTag/": "a"}`), []string{`names nothing behind the slash`}},
		{"a key without the slash", condition(`"StringEquals": {"aws:PrincipalTag": "a"}`), []string{`"aws:PrincipalTag" is no condition key`}},
		{"no values", condition(`"StringEquals": {"aws:username": []}`), []string{"aws:username is compared with nothing"}},
		{"null", condition(`"StringEquals": {"aws:username": null}`), []string{"aws:username has to be compared with strings, there is null"}},
		{"no number", condition(`"NumericEquals": {"aws:PrincipalTag/a": "ten"}`), []string{`"ten" is no number`}},
		{"infinite", condition(`"NumericLessThan": {"aws:PrincipalTag/a": "1e999"}`), []string{`"1e999" is no number`}},
		{"no date", condition(`"DateEquals": {"aws:CurrentTime": "tomorrow"}`), []string{`"tomorrow" is no date`}},
		{"a year", condition(`"DateEquals": {"aws:CurrentTime": "2026"}`), []string{`"2026" is no date`}},
		{"no truth", condition(`"Bool": {"aws:SecureTransport": "yes"}`), []string{`"yes" is neither true nor false`}},
		{"no base64", condition(`"BinaryEquals": {"aws:PrincipalTag/a": "a"}`), []string{`"a" is not base64`}},
		{"no address", condition(`"IpAddress": {"aws:SourceIp": "203.0.113.0/33"}`), []string{`"203.0.113.0/33" is no address or range`}},
		{"an address with a zone", condition(`"IpAddress": {"aws:SourceIp": "fe80::1%eth0"}`), []string{"is no address or range"}},
		{"a wide range of mapped addresses", condition(`"IpAddress": {"aws:SourceIp": "::ffff:0.0.0.0/90"}`), []string{"is no address or range"}},
		{"no ARN", condition(`"ArnLike": {"aws:PrincipalTag/a": "arn:aws:*"}`), []string{`"arn:aws:*" is no ARN`}},
		{"a variable where none may be", condition(`"IpAddress": {"aws:SourceIp": "${aws:SourceIp}"}`), []string{"only the operators of strings and ARNs take variables"}},
		{"an address as a number", condition(`"NumericEquals": {"aws:SourceIp": "1"}`), []string{"NumericEquals cannot compare aws:SourceIp"}},
		{"a name as an address", condition(`"IpAddress": {"aws:username": "10.0.0.0/8"}`), []string{"IpAddress cannot compare aws:username"}},
		{"several values without a word for them", condition(`"StringEquals": {"sluice:role": "a"}`), []string{"sluice:role has several values: write ForAnyValue:StringEquals or ForAllValues:StringEquals"}},
		{"a set of Null", condition(`"ForAnyValue:Null": {"sluice:role": "true"}`), []string{"Null stands alone"}},
		{"Null if it exists", condition(`"NullIfExists": {"sluice:role": "true"}`), []string{"Null stands alone"}},
		{"any if it exists", condition(`"ForAnyValue:StringEqualsIfExists": {"sluice:role": "true"}`), []string{"contradicts itself"}},
		{
			"all at once, in their order", document(`{"Effect": "Maybe", "Principal": "*", "Action": "execute-api:Nothing", "Resource": "x", "Condition": {"Like": {}, "Bool": {"aws:SecureTransport": "1"}}}`),
			[]string{"Effect has to be", "is no action of an API", "is no resource", `"Like" is no condition operator`, "neither true nor false"},
		},
	} {
		p, err := ParseResource([]byte(c.text))
		got := messages(err)
		if p != nil || len(got) != len(c.want) {
			t.Errorf("%s: %s\n%q", c.name, c.text, got)
			continue
		}
		for i, want := range c.want {
			if !strings.Contains(got[i], want) {
				t.Errorf("%s:\n got %s\nwant %s", c.name, got[i], want)
			}
		}
	}
}

func TestErrorsAreBounded(t *testing.T) {
	_, err := ParseResource([]byte(`{"Statement": [` + strings.Repeat("1, ", 100) + `1]}`))
	if got := messages(err); len(got) != maxFound {
		t.Errorf("%d errors", len(got))
	}
}

func TestAnAuthorizerNamesNoPrincipal(t *testing.T) {
	for _, name := range []string{"Principal", "NotPrincipal"} {
		_, err := Parse([]byte(document(`{"Effect": "Allow", "` + name + `": "*", "Action": "execute-api:Invoke", "Resource": "*"}`)))
		if err == nil || !strings.Contains(err.Error(), name+" has no place here") {
			t.Error(err)
		}
	}
	// What other services know is nothing to refuse in it: it never matches.
	if _, err := Parse([]byte(document(`{"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::bucket/*"}`))); err != nil {
		t.Error(err)
	}
}

func TestHeadersAreNeededWhereTheyAreNamed(t *testing.T) {
	for statement, want := range map[string]bool{
		`{}`: false,
		`{"Condition": {"StringLike": {"aws:UserAgent": "*"}}}`:                    true,
		`{"Condition": {"StringLike": {"aws:username": "${aws:Referer}"}}}`:        true,
		`{"Condition": {"ArnLike": {"aws:username": "a:b:c:d:e:${aws:Referer}"}}}`: true,
		`{"Resource": "execute-api:/${aws:UserAgent}"}`:                            true,
	} {
		if got := mustParse(t, document(fill(statement))).NeedsHeaders(); got != want {
			t.Errorf("%s: %v", statement, got)
		}
	}
}

// FuzzParse holds the parser to what must be true of every text: errors have a place
// in it, and a policy decides alike when it is written in another way, nothing when
// it only denies, and never more when it denies more.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"Effect": "Deny"}`, `{"NotAction": "execute-api:*", "NotResource": ["execute-api:/a/?/${aws:username}*"]}`,
		`{"Principal": {"AWS": ["acme", "arn:aws:iam::1:role/a"]}}`, `{"Effect": "Deny", "NotPrincipal": {"AWS": "acme"}}`,
		`{"Resource": "arn:aws:execute-api:*:*:*/prod/*"}`, `{"Resource": "arn:aws:execute-api:*"}`,
		`{"Condition": {"StringLikeIfExists": {"aws:PrincipalTag/tier": ["g*", "${aws:username, 'x'}"]}}}`,
		`{"Condition": {"ForAnyValue:StringNotLike": {"sluice:role": "r*"}, "Null": {"sluice:claim/x": true}}}`,
		`{"Condition": {"NotIpAddress": {"aws:SourceIp": ["10.0.0.0/8", "2001:db8::/32"]}, "DateLessThan": {"aws:CurrentTime": "2027-01-01"}}}`,
		`{"Condition": {"NumericLessThan": {"sluice:claim/level": 5e3}, "BinaryEquals": {"aws:PrincipalTag/x": "YQ=="}, "ArnLike": {"aws:PrincipalTag/arn": "arn:*:*:*:*:*"}}}`,
	} {
		f.Add([]byte(document(fill(s))))
		f.Add([]byte(`{"Statement": ` + fill(s) + `}`))
	}
	requests := []*Request{
		request(), request(nobodyKnown, bare, plain), request(by("root", "admin"), from("2001:db8::1")),
		request(to("execute-api:/prod/GET/pets/1")), request(to("execute-api:/")), request(to("")), request(to("arn:aws:execute-api:::")),
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParseResource(data)
		if _, other := Parse(data); err == nil && other == nil {
			t.Fatal("both of an identity and of a resource")
		}
		if err != nil {
			got := messages(err)
			if len(got) == 0 || len(got) > maxFound {
				t.Fatalf("%d errors: %v", len(got), err)
			}
			for _, m := range got {
				var line, column int
				if _, err := fmt.Sscanf(m, "line %d, column %d:", &line, &column); err != nil || line < 1 || column < 1 || line > 1+bytes.Count(data, []byte("\n")) {
					t.Fatal(m)
				}
			}
			return
		}
		var again bytes.Buffer
		if err := json.Indent(&again, data, "", "\t"); err != nil {
			t.Fatal(err)
		}
		second, err := ParseResource(again.Bytes())
		if err != nil {
			t.Fatalf("%s\n%v", again.Bytes(), err)
		}
		denied := *p
		denied.statements = append(slices.Clone(p.statements), mustParse(t, document(fill(`{"Effect": "Deny"}`))).statements...)
		allows := slices.ContainsFunc(p.statements, func(s statement) bool { return !s.deny })
		for i, q := range requests {
			got, why := p.Evaluate(q)
			if other, _ := second.Evaluate(q); got != other {
				t.Fatalf("request %d: %v, and %v when it is indented", i, got, other)
			}
			if got == Allowed && !allows {
				t.Fatalf("request %d: allowed by nothing", i)
			}
			if other, _ := denied.Evaluate(q); other != Denied {
				t.Fatalf("request %d: %v although everything is denied", i, other)
			}
			if why == "" || p.Explain(q) == "" {
				t.Fatalf("request %d: no word", i)
			}
		}
	})
}

// FuzzMatch compares patterns with what matching is by its definition.
func FuzzMatch(f *testing.F) {
	for _, s := range [][2]string{{"*", ""}, {"a*b?c", "axxbxc"}, {"**a", "ba"}, {"?*?", "é"}, {"a", "b"}, {"*ab*ab", "abab"}, {"", ""}, {"*??", "€"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, text, s string) {
		if len(text) > 12 || len(s) > 24 {
			return
		}
		p, err := compile(text, wildcards)
		if err != nil {
			t.Fatal(err)
		}
		want := slowly([]byte(text), []byte(s))
		if got := match(&p, nil, s); got != want {
			t.Fatalf("%q of %q: %v", s, text, got)
		}
		if got := match(&p, nil, []byte(s)); got != want {
			t.Fatalf("bytes %q of %q: %v", s, text, got)
		}
	})
}

func slowly(p, s []byte) bool {
	switch {
	case len(p) == 0:
		return len(s) == 0
	case p[0] == '*':
		return slowly(p[1:], s) || len(s) > 0 && slowly(p, s[character(s):]) // a star is whole characters
	case len(s) == 0:
		return false
	case p[0] == '?':
		return slowly(p[1:], s[character(s):])
	}
	return p[0] == s[0] && slowly(p[1:], s[1:])
}
