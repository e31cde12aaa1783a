package iam

import (
	"testing"
)

// The pages of AWS that say what the answer is, in its IAM User Guide and its API
// Gateway Developer Guide.
const (
	logic         = "Policy evaluation logic"
	actionPage    = "IAM JSON policy elements: Action"
	notAction     = "IAM JSON policy elements: NotAction"
	resourcePage  = "IAM JSON policy elements: Resource"
	notResource   = "IAM JSON policy elements: NotResource"
	principalPage = "AWS JSON policy elements: Principal"
	notPrincipal  = "AWS JSON policy elements: NotPrincipal"
	variablesPage = "IAM policy elements: Variables and tags"
	versionPage   = "IAM JSON policy elements: Version"
	examples      = "API Gateway resource policy examples"
	languagePage  = "Access policy language overview for Amazon API Gateway"
	output        = "Output from an API Gateway Lambda authorizer"
)

const pet = "arn:aws:execute-api:us-east-1:123456789012:a1b2c3/prod/GET/pets"

func TestAPolicyDecidesAsAWSSays(t *testing.T) {
	type change = func(*Request)
	for _, c := range []struct {
		page, name string
		statements []string
		change     change
		want       Decision
	}{
		{logic, "nothing matches: implicit deny", []string{`{"Action": "execute-api:ManageConnections"}`}, nil, NotAllowed},
		{logic, "an allow", []string{`{}`}, nil, Allowed},
		{logic, "an explicit deny wins behind an allow", []string{`{}`, `{"Effect": "Deny"}`}, nil, Denied},
		{logic, "an explicit deny wins before an allow", []string{`{"Effect": "Deny"}`, `{}`}, nil, Denied},
		{logic, "a deny that does not match", []string{`{}`, `{"Effect": "Deny", "Resource": "execute-api:/dev/*"}`}, nil, Allowed},
		{logic, "only a deny that does not match", []string{`{"Effect": "Deny", "Resource": "execute-api:/dev/*"}`}, nil, NotAllowed},
		{logic, "the second allow matches", []string{`{"Resource": "execute-api:/dev/*"}`, `{}`}, nil, Allowed},

		{actionPage, "all actions", []string{`{"Action": "*"}`}, nil, Allowed},
		{actionPage, "all actions of the service", []string{`{"Action": "execute-api:*"}`}, nil, Allowed},
		{actionPage, "actions are the same in both cases", []string{`{"Action": "Execute-API:invoke"}`}, nil, Allowed},
		{actionPage, "a wildcard within", []string{`{"Action": "execute-api:In*e"}`}, nil, Allowed},
		{actionPage, "a list", []string{`{"Action": ["execute-api:ManageConnections", "execute-api:Invoke"]}`}, nil, Allowed},
		{actionPage, "a question mark is one character", []string{`{"Action": "execute-api:Invok?"}`}, nil, Allowed},
		{notAction, "the action that is named", []string{`{"NotAction": "execute-api:Invoke"}`}, nil, NotAllowed},
		{notAction, "all but what is named", []string{`{"NotAction": "execute-api:ManageConnections"}`}, nil, Allowed},
		{notAction, "a deny of all but what is named", []string{`{}`, `{"Effect": "Deny", "NotAction": "execute-api:Invoke"}`}, nil, Allowed},

		{resourcePage, "the very resource", []string{`{"Resource": "` + pet + `/1"}`}, nil, Allowed},
		{resourcePage, "its parent", []string{`{"Resource": "` + pet + `"}`}, nil, NotAllowed},
		{resourcePage, "an asterisk reaches over slashes", []string{`{"Resource": "arn:aws:execute-api:us-east-1:123456789012:a1b2c3/*"}`}, nil, Allowed},
		{resourcePage, "an asterisk in the middle", []string{`{"Resource": "arn:aws:execute-api:us-east-1:123456789012:*/GET/pets/1"}`}, nil, Allowed},
		{resourcePage, "a question mark", []string{`{"Resource": "` + pet + `/?"}`}, nil, Allowed},
		{resourcePage, "a question mark is not two", []string{`{"Resource": "` + pet + `/?"}`}, to(pet + "/12"), NotAllowed},
		{resourcePage, "a question mark is a whole letter", []string{`{"Resource": "` + pet + `/?"}`}, to(pet + "/ü"), Allowed},
		{resourcePage, "a question mark is not nothing", []string{`{"Resource": "` + pet + `/?"}`}, to(pet + "/"), NotAllowed},
		{resourcePage, "cases differ", []string{`{"Resource": "` + pet + `/ONE"}`}, to(pet + "/one"), NotAllowed},
		{resourcePage, "another region", []string{`{"Resource": "arn:aws:execute-api:eu-west-1:123456789012:a1b2c3/*"}`}, nil, NotAllowed},
		{resourcePage, "another account", []string{`{"Resource": "arn:aws:execute-api:us-east-1:999999999999:a1b2c3/*"}`}, nil, NotAllowed},
		{resourcePage, "any region and account", []string{`{"Resource": "arn:aws:execute-api:*:*:a1b2c3/prod/*"}`}, nil, Allowed},
		{resourcePage, "an asterisk at the end of an incomplete ARN is all the rest", []string{`{"Resource": "arn:aws:execute-api:us-east-1:*"}`}, nil, Allowed},
		{resourcePage, "the same for another region", []string{`{"Resource": "arn:aws:execute-api:us-west-1:*"}`}, nil, NotAllowed},
		{resourcePage, "a list", []string{`{"Resource": ["execute-api:/dev/*", "execute-api:/prod/*"]}`}, nil, Allowed},
		{resourcePage, "an asterisk of the request is no wildcard", []string{`{"Resource": "execute-api:/prod/GET/a"}`}, to("execute-api:/prod/GET/*"), NotAllowed},
		{resourcePage, "colons of a path are the resource's", []string{`{"Resource": "` + pet + `/a:b:*"}`}, to(pet + "/a:b:c:d"), Allowed},
		{resourcePage, "another service", []string{`{"Resource": "execute-api:/*"}`}, to("arn:aws:sqs:us-east-1:123456789012:a1b2c3/prod/GET/pets/1"), NotAllowed},
		{notResource, "what is named", []string{`{"NotResource": "execute-api:/prod/*"}`}, nil, NotAllowed},
		{notResource, "all but what is named", []string{`{"NotResource": "execute-api:/dev/*"}`}, nil, Allowed},
		{notResource, "a deny of all but what is named", []string{`{}`, `{"Effect": "Deny", "NotResource": "execute-api:/dev/*"}`}, nil, Denied},

		{examples, "the short form is that of this API", []string{`{"Resource": "execute-api:/prod/GET/pets/1"}`}, nil, Allowed},
		{examples, "all stages, methods and paths", []string{`{"Resource": "execute-api:/*"}`}, nil, Allowed},
		{examples, "one stage", []string{`{"Resource": "execute-api:/prod/*"}`}, nil, Allowed},
		{examples, "another method", []string{`{"Resource": "execute-api:/prod/POST/*"}`}, nil, NotAllowed},
		{examples, "any stage and method", []string{`{"Resource": "execute-api:/*/*/pets/*"}`}, nil, Allowed},
		{examples, "an API without an id of AWS", []string{`{"Resource": "` + pet + `/*"}`}, to("execute-api:/prod/GET/pets/1"), Allowed},
		{examples, "the same for another method", []string{`{"Resource": "` + pet + `/*"}`}, to("execute-api:/prod/POST/pets/1"), NotAllowed},
		{examples, "the same with an asterisk over id and stage", []string{`{"Resource": "arn:aws:execute-api:us-east-1:123456789012:*/GET/pets/1"}`}, to("execute-api:/prod/GET/pets/1"), Allowed},
		{examples, "the same with an asterisk for the id", []string{`{"Resource": "arn:aws:execute-api:*:*:*/prod/GET/*"}`}, to("execute-api:/prod/GET/pets/1"), Allowed},
		{examples, "the same with an asterisk for the id of another stage", []string{`{"Resource": "arn:aws:execute-api:*:*:*/dev/GET/*"}`}, to("execute-api:/prod/GET/dev/GET/1"), Allowed}, // * reaches over slashes
		{examples, "the same with an id of question marks", []string{`{"Resource": "arn:aws:execute-api:*:*:??????/prod/GET/*"}`}, to("execute-api:/prod/GET/pets/1"), Allowed},
		{examples, "the same without an id", []string{`{"Resource": "arn:aws:execute-api:*:*:/prod/GET/*"}`}, to("execute-api:/prod/GET/pets/1"), NotAllowed},
		{examples, "the same, ended early", []string{`{"Resource": "arn:aws:execute-api:*"}`}, to("execute-api:/prod/GET/pets/1"), Allowed},
		{examples, "a resource that is none", []string{`{"Resource": "execute-api:/*"}`}, to("arn:aws:execute-api"), NotAllowed},

		{principalPage, "everybody, nobody known too", []string{`{"Principal": "*"}`}, nobodyKnown, Allowed},
		{principalPage, "the same as {AWS: *}", []string{`{"Principal": {"AWS": "*"}}`}, nobodyKnown, Allowed},
		{principalPage, "a user by its ARN", []string{`{"Principal": {"AWS": "arn:aws:iam::123456789012:user/acme"}}`}, nil, Allowed},
		{principalPage, "a user with a path", []string{`{"Principal": {"AWS": "arn:aws:iam::123456789012:user/division/acme"}}`}, nil, Allowed},
		{principalPage, "another user", []string{`{"Principal": {"AWS": "arn:aws:iam::123456789012:user/other"}}`}, nil, NotAllowed},
		{principalPage, "names of users have cases", []string{`{"Principal": {"AWS": "ACME"}}`}, nil, NotAllowed},
		{principalPage, "one of several", []string{`{"Principal": {"AWS": ["other", "acme"]}}`}, nil, Allowed},
		{principalPage, "a role", []string{`{"Principal": {"AWS": "arn:aws:iam::123456789012:role/writer"}}`}, nil, Allowed},
		{principalPage, "a role that the caller does not have", []string{`{"Principal": {"AWS": "arn:aws:iam::123456789012:role/admin"}}`}, nil, NotAllowed},
		{principalPage, "a user is no role", []string{`{"Principal": {"AWS": "arn:aws:iam::123456789012:user/writer"}}`}, nil, NotAllowed},
		{principalPage, "a user and nobody known", []string{`{"Principal": {"AWS": "acme"}}`}, nobodyKnown, NotAllowed},
		{notPrincipal, "who is named is not denied", []string{`{}`, `{"Effect": "Deny", "NotPrincipal": {"AWS": "acme"}}`}, nil, Allowed},
		{notPrincipal, "everybody else is", []string{`{}`, `{"Effect": "Deny", "NotPrincipal": {"AWS": "acme"}}`}, by("other"), Denied},
		{notPrincipal, "nobody known is", []string{`{}`, `{"Effect": "Deny", "NotPrincipal": {"AWS": "acme"}}`}, nobodyKnown, Denied},

		{variablesPage, "a variable in a resource", []string{`{"Resource": "execute-api:/prod/GET/${aws:username}/*"}`}, to("execute-api:/prod/GET/acme/1"), Allowed},
		{variablesPage, "somebody else's", []string{`{"Resource": "execute-api:/prod/GET/${aws:username}/*"}`}, to("execute-api:/prod/GET/other/1"), NotAllowed},
		{variablesPage, "names of keys are the same in both cases", []string{`{"Resource": "execute-api:/prod/GET/${AWS:UserName}/*"}`}, to("execute-api:/prod/GET/acme/1"), Allowed},
		{variablesPage, "a variable without a value equals no resource", []string{`{"Resource": "execute-api:/prod/GET/${aws:username}*"}`}, nobodyKnown, NotAllowed},
		{variablesPage, "a tag", []string{`{"Resource": "execute-api:/prod/GET/${aws:PrincipalTag/tier}"}`}, to("execute-api:/prod/GET/gold"), Allowed},
		{
			variablesPage, "a value with an asterisk is no wildcard",
			[]string{`{"Resource": "execute-api:/prod/GET/${aws:username}"}`},
			func(q *Request) { q.Caller.ID, q.Resource = "*", []byte("execute-api:/prod/GET/other") }, NotAllowed,
		},
		{variablesPage, "${*} is an asterisk", []string{`{"Resource": "execute-api:/prod/GET/${*}"}`}, to("execute-api:/prod/GET/*"), Allowed},
		{variablesPage, "${*} is no wildcard", []string{`{"Resource": "execute-api:/prod/GET/${*}"}`}, to("execute-api:/prod/GET/a"), NotAllowed},
		{variablesPage, "${?} is a question mark", []string{`{"Resource": "execute-api:/prod/GET/${?}"}`}, to("execute-api:/prod/GET/?"), Allowed},
		{variablesPage, "${$} is a dollar", []string{`{"Resource": "execute-api:/prod/GET/${$}{aws:username}"}`}, to("execute-api:/prod/GET/${aws:username}"), Allowed},
		{variablesPage, "a default, unused", []string{`{"Resource": "execute-api:/prod/GET/${aws:username, 'anonymous'}"}`}, to("execute-api:/prod/GET/acme"), Allowed},
		{
			variablesPage, "a default, used",
			[]string{`{"Resource": "execute-api:/prod/GET/${aws:username, 'anonymous'}"}`},
			func(q *Request) { q.Caller, q.Resource = Caller{}, []byte("execute-api:/prod/GET/anonymous") }, Allowed,
		},
		{languagePage, "who may read and who may write", []string{
			`{"Principal": {"AWS": "other"}, "Resource": "execute-api:/prod/POST/*"}`, `{"Principal": {"AWS": "acme"}, "Resource": "execute-api:/prod/GET/*"}`,
		}, nil, Allowed},
	} {
		var filled []string
		for _, s := range c.statements {
			filled = append(filled, fill(s))
		}
		q := request()
		if c.change != nil {
			c.change(q)
		}
		if got, why := mustParse(t, document(filled...)).Evaluate(q); got != c.want {
			t.Errorf("%s: %s: %v, because %s; want %v", c.page, c.name, got, why, c.want)
		}
	}
}

func TestVariablesNeedTheirVersion(t *testing.T) {
	for _, c := range []struct {
		version  string
		resource string
		want     Decision
	}{
		{`"Version": "2012-10-17", `, "execute-api:/prod/GET/acme", Allowed},
		{`"Version": "2008-10-17", `, "execute-api:/prod/GET/acme", NotAllowed},
		{`"Version": "2008-10-17", `, "execute-api:/prod/GET/${aws:username}", Allowed},
		{``, "execute-api:/prod/GET/acme", NotAllowed},
		{``, "execute-api:/prod/GET/${aws:username}", Allowed},
	} {
		p := mustParse(t, `{`+c.version+`"Statement": `+fill(`{"Resource": "execute-api:/prod/GET/${aws:username}"}`)+`}`)
		if got, _ := p.Evaluate(request(to(c.resource))); got != c.want {
			t.Errorf("%s: %q, %s: %v", versionPage, c.version, c.resource, got)
		}
	}
}

func TestTheDocumentOfAnAuthorizerIsAboutWhoeverCalls(t *testing.T) {
	p, err := Parse([]byte(`{"Version": "2012-10-17", "Statement": [{"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": "` + pet + `/*"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for resource, want := range map[string]Decision{pet + "/1": Allowed, pet: NotAllowed} {
		if got, _ := p.Evaluate(request(to(resource), nobodyKnown)); got != want {
			t.Errorf("%s: %s: %v", output, resource, got)
		}
	}
}

func TestThereIsAWordForWhatDecided(t *testing.T) {
	p := mustParse(t, `{
  "Version": "2012-10-17",
  "Statement": [
    {"Effect": "Allow", "Principal": "*", "Action": "execute-api:Invoke", "Resource": "execute-api:/prod/GET/*",
     "Condition": {"Bool": {"aws:SecureTransport": "true"}, "IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}},
    {"Sid": "admins", "Effect": "Allow", "Principal": {"AWS": "root"}, "NotAction": "execute-api:ManageConnections", "NotResource": "execute-api:/dev/*"},
    {"Sid": "blocked", "Effect": "Deny", "Principal": {"AWS": "mallory"}, "Action": "*", "Resource": "*"}
  ]
}`)
	for _, c := range []struct {
		name string
		q    *Request
		want string
	}{
		{"allowed", request(), "statement 1 (line 4) allows it"},
		{"denied", request(by("mallory")), `statement 3 "blocked" (line 7) denies it`},
		{"the condition", request(from("198.51.100.1")), "no statement allows it; statement 1 (line 4) would, but for its condition IpAddress aws:SourceIp"},
		{"the other condition", request(plain), "no statement allows it; statement 1 (line 4) would, but for its condition Bool aws:SecureTransport"},
		{"the resource", request(to("execute-api:/prod/POST/a")), "no statement allows it; statement 1 (line 4) would, but for its Resource"},
		{"not the resource", request(by("root"), to("execute-api:/dev/POST/a")), "no statement allows it; statement 1 (line 4) would, but for its Resource"},
		{"the action", request(func(q *Request) { q.Action = "execute-api:InvalidateCache" }), "no statement allows it; statement 1 (line 4) would, but for its Action"},
	} {
		if got := p.Explain(c.q); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
	two := mustParse(t, document(fill(`{"Resource": "execute-api:/dev/*"}`), fill(`{}`), fill(`{}`)))
	if got := two.Explain(request()); got != "statement 2 (line 1) allows it" {
		t.Error(got)
	}
	only := mustParse(t, document(fill(`{"Effect": "Deny", "Resource": "execute-api:/dev/*"}`)))
	if got := only.Explain(request()); got != "no statement allows it" {
		t.Error(got)
	}
	for want, s := range map[string]string{
		"its Principal":   `{"Principal": {"AWS": "other"}}`,
		"its NotAction":   `{"NotAction": "execute-api:*"}`,
		"its NotResource": `{"NotResource": "*"}`,
	} {
		p := mustParse(t, document(fill(s)))
		if got := p.Explain(request()); got != "no statement allows it; statement 1 (line 1) would, but for "+want {
			t.Error(got)
		}
	}
}

func TestDeciding(t *testing.T) {
	p := mustParse(t, document(
		fill(`{"Principal": {"AWS": ["other", "arn:aws:iam::123456789012:role/writer"]}, "Resource": ["execute-api:/dev/*", "arn:aws:execute-api:*:*:*/prod/*/pets/*"]}`),
		fill(`{"Effect": "Deny", "Condition": {"NotIpAddress": {"aws:SourceIp": ["203.0.113.0/24", "2001:db8::/32"]}}}`),
		fill(`{"Effect": "Deny", "Condition": {"Bool": {"aws:PrincipalTag/tier": "true"}, "StringEquals": {"aws:username": "mallory"}, "DateGreaterThan": {"aws:CurrentTime": "2027-01-01T00:00:00Z"}}}`),
	))
	q := request(to("execute-api:/prod/GET/pets/1"))
	if n := testing.AllocsPerRun(1000, func() {
		if got, _ := p.Evaluate(q); got != Allowed {
			t.Fatal(got)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkEvaluate(b *testing.B) {
	for _, c := range []struct {
		name       string
		statements []string
	}{
		{"one allow", []string{`{"Resource": "execute-api:/prod/GET/pets/*"}`}},
		{"address and resource", []string{
			`{"Resource": "execute-api:/prod/GET/pets/*"}`, `{"Effect": "Deny", "Condition": {"NotIpAddress": {"aws:SourceIp": ["203.0.113.0/24", "2001:db8::/32"]}}}`,
		}},
		{"user agent", []string{`{"Condition": {"StringLike": {"aws:UserAgent": "*curl*"}}}`}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var filled []string
			for _, s := range c.statements {
				filled = append(filled, fill(s))
			}
			p := mustParse(b, document(filled...))
			q := request(to("execute-api:/prod/GET/pets/1"))
			b.ReportAllocs()
			for b.Loop() {
				if got, _ := p.Evaluate(q); got != Allowed {
					b.Fatal(got)
				}
			}
		})
	}
}
