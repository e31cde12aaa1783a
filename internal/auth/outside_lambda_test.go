package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

const authorizerARN = "arn:aws:lambda:us-east-1:123456789012:function:my-authorizer"

// lambdaOf is an authorizer of the test's server.
func lambdaOf(kind string, ttl time.Duration, identity ...string) func(url string) *config.Authenticator {
	return func(url string) *config.Authenticator {
		return &config.Authenticator{Lambda: &config.LambdaAuth{
			Function: authorizerARN, Endpoint: url, Type: kind, Identity: identity, CacheTTL: ofDuration(ttl), Timeout: ofDuration(30 * time.Second),
		}}
	}
}

// policyReply is a reply with a policy of one statement.
func policyReply(effect, resource string) string {
	return fmt.Sprintf(`{"principalId":"acme","policyDocument":{"Version":"2012-10-17","Statement":[{"Action":"execute-api:Invoke","Effect":%q,"Resource":%q}]},"context":{"stringKey":"value","numberKey":1,"booleanKey":true,"nullKey":null}}`, effect, resource)
}

// eventOf is the event that the function was sent for x.
func eventOf(t *testing.T, a *outsideRig, x *exchange.Exchange) map[string]any {
	t.Helper()
	var event map[string]any
	a.answers(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(body, &event); err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, `{"isAuthorized":true}`)
	})
	a.verdictOf(x)
	return event
}

func jsonOf(t *testing.T, text string) (v map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// underV1 is a configuration whose api begins with /v1.
func underV1() *config.File {
	return &config.File{APIs: []config.API{{Name: "public", BasePath: "/v1/"}}}
}

func TestTokenEventsAreAsAWSDocumentsThem(t *testing.T) {
	awsOf(t)
	for _, c := range []struct {
		identity, field, value string
		change                 func(x *exchange.Exchange)
		want                   string
	}{
		{
			"header:Authorization", "Authorization", "allow", func(*exchange.Exchange) {},
			`{"type":"TOKEN","authorizationToken":"allow","methodArn":"arn:aws:execute-api:us-east-1:123456789012:public/production/GET/users/7"}`,
		},
		{
			"header:X-Token", "x-token", "Bearer a b", func(x *exchange.Exchange) { x.Request.Method = "POST" },
			`{"type":"TOKEN","authorizationToken":"Bearer a b","methodArn":"arn:aws:execute-api:us-east-1:123456789012:public/production/POST/users/7"}`,
		},
		{
			"cookie:session", "Cookie", "a=b; session=s", func(x *exchange.Exchange) { x.Request.Path = []byte("/v1") },
			`{"type":"TOKEN","authorizationToken":"s","methodArn":"arn:aws:execute-api:us-east-1:123456789012:public/production/GET/"}`,
		},
		{
			"header:A", "A", "a", func(x *exchange.Exchange) { x.Route = &exchange.Route{Name: "r"} },
			`{"type":"TOKEN","authorizationToken":"a","methodArn":"arn:aws:execute-api:us-east-1:123456789012:default/$default/GET/v1/users/7"}`,
		},
		// What an authorizer gives back as a resource must not stand for more.
		{
			"header:A", "A", "a", func(x *exchange.Exchange) { x.Request.Path = []byte("/v1/*/${aws:username}") },
			`{"type":"TOKEN","authorizationToken":"a","methodArn":"arn:aws:execute-api:us-east-1:123456789012:public/production/GET/%2A/%24{aws:username}"}`,
		},
	} {
		a := outsideOf(t, underV1(), lambdaOf("token", 0, c.identity))
		x := outsideRequest(c.field, c.value)
		c.change(x)
		if got := eventOf(t, a, x); !reflect.DeepEqual(got, jsonOf(t, c.want)) {
			t.Errorf("%s: %v", c.identity, got)
		}
	}
}

func TestRequestEventsAreAsAWSDocumentsThem(t *testing.T) {
	awsOf(t)
	a := outsideOf(t, &config.File{APIs: []config.API{{Name: "public", BasePath: "/v1", Variables: map[string]string{"StageVar1": "stageValue1"}}}},
		lambdaOf("request", 0, "header:HeaderAuth1", "query:QueryString1", "stage_variable:StageVar1", "context:identity.sourceIp"))
	x := outsideRequest("HeaderAuth1", "headerValue1", "Accept", "*/*", "X-Many", "a", "x-many", "b", "User-Agent", "curl", "X-Api-Key", "key-1")
	x.Request.Header.Append(exchange.Field{Name: []byte("Connection"), Value: []byte("close"), ID: exchange.Connection, Hop: true})
	x.Request.Query, x.Request.HasQuery = []byte("QueryString1=query+V%61lue1&b=1&b=2&c&bad=%zz&&"), true
	x.Params = []exchange.Param{{Name: "id", Value: []byte("7")}}
	x.Route.Pattern = "/v1/users/{id}/{rest...}"
	x.Conn.Local = netip.MustParseAddrPort("[2001:db8::1]:443")
	der, text := certificateOf(t)
	x.Conn.TLS = &exchange.TLSInfo{Client: der}
	want := jsonOf(t, `{
		"type": "REQUEST",
		"methodArn": "arn:aws:execute-api:us-east-1:123456789012:public/production/GET/users/7",
		"resource": "/v1/users/{id}/{rest+}",
		"path": "/v1/users/7",
		"httpMethod": "GET",
		"headers": {"HeaderAuth1": "headerValue1", "Accept": "*/*", "X-Many": "b", "User-Agent": "curl", "X-Api-Key": "key-1",
			"Host": "api.example.com:8443", "X-Forwarded-For": "192.0.2.7", "X-Forwarded-Port": "443", "X-Forwarded-Proto": "https"},
		"multiValueHeaders": {"HeaderAuth1": ["headerValue1"], "Accept": ["*/*"], "X-Many": ["a", "b"], "User-Agent": ["curl"], "X-Api-Key": ["key-1"],
			"Host": ["api.example.com:8443"], "X-Forwarded-For": ["192.0.2.7"], "X-Forwarded-Port": ["443"], "X-Forwarded-Proto": ["https"]},
		"queryStringParameters": {"QueryString1": "query Value1", "b": "2", "c": "", "bad": "%zz"},
		"multiValueQueryStringParameters": {"QueryString1": ["query Value1"], "b": ["1", "2"], "c": [""], "bad": ["%zz"]},
		"pathParameters": {"id": "7"},
		"stageVariables": {"StageVar1": "stageValue1"},
		"requestContext": {
			"path": "/v1/users/7",
			"accountId": "123456789012",
			"resourceId": "get-user",
			"stage": "production",
			"requestId": "id-1",
			"domainName": "api.example.com",
			"protocol": "HTTP/1.1",
			"requestTime": "25/Nov/2026:12:00:00 +0000",
			"requestTimeEpoch": 1795608000000,
			"identity": {
				"apiKey": "key-1",
				"sourceIp": "192.0.2.7",
				"userAgent": "curl",
				"clientCert": {
					"clientCertPem": "",
					"subjectDN": "CN=www.example.com",
					"issuerDN": "CN=www.example.com",
					"serialNumber": "a1:02:ff",
					"validity": {"notBefore": "May 28 12:30:02 2019 GMT", "notAfter": "Aug  5 09:36:04 2021 GMT"}
				}
			},
			"resourcePath": "/v1/users/{id}/{rest+}",
			"httpMethod": "GET",
			"apiId": "public"
		}
	}`)
	want["requestContext"].(map[string]any)["identity"].(map[string]any)["clientCert"].(map[string]any)["clientCertPem"] = text
	got := eventOf(t, a, x)
	for name := range want {
		if !reflect.DeepEqual(got[name], want[name]) {
			t.Errorf("%s: %v\nwant %v", name, got[name], want[name])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d members: %v", len(got), got)
	}
	// Nothing is null, as in AWS's events of authorizers.
	if b, _ := json.Marshal(eventOf(t, a, outsideRequest("HeaderAuth1", "a"))); strings.Contains(string(b), ":null,") {
		t.Errorf("%s", b)
	}
}

func certificateOf(t *testing.T) (der []byte, text string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(0xa102ff), Subject: pkix.Name{CommonName: "www.example.com"},
		NotBefore: time.Date(2019, 5, 28, 12, 30, 2, 0, time.UTC), NotAfter: time.Date(2021, 8, 5, 9, 36, 4, 0, time.UTC),
	}
	if der, err = x509.CreateCertificate(rand.Reader, c, c, key.Public(), key); err != nil {
		t.Fatal(err)
	}
	return der, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestRepliesOfFunctions(t *testing.T) {
	awsOf(t)
	const own = "arn:aws:execute-api:us-east-1:123456789012:public/production/GET/users/7"
	for _, c := range []struct {
		name  string
		reply http.HandlerFunc
		want  string
		calls int64 // for two requests
	}{
		{"its own ARN", replying(200, policyReply("Allow", own)), "acme", 1},
		{"wildcards", replying(200, policyReply("Allow", "arn:aws:execute-api:*:*:*/*/GET/users/*")), "acme", 1},
		{
			"another method", replying(200, policyReply("Allow", "arn:aws:execute-api:us-east-1:123456789012:public/production/POST/users/7")),
			"forbidden: the function's policy: no statement allows it", 1,
		},
		{
			"another stage", replying(200, policyReply("Allow", "arn:aws:execute-api:us-east-1:123456789012:public/test/GET/*")),
			"forbidden: the function's policy: no statement allows it", 1,
		},
		{"deny", replying(200, policyReply("Deny", own)), "forbidden: the function's policy: statement 1 (line 1) denies it", 1},
		{"simple", replying(200, `{"isAuthorized":true,"context":{"principalId":"acme"}}`), "acme", 1},
		{"simple, for nobody", replying(200, `{"isAuthorized":true}`), "credential-e3b98a4da31a127d", 1},
		{"simple, refused", replying(200, `{"isAuthorized":false}`), "forbidden: the function says isAuthorized: false", 1},
		{"Unauthorized", replying(200, `{"errorMessage":"Unauthorized"}`, "X-Amz-Function-Error", "Unhandled"), "unauthenticated: the function says Unauthorized", 1},
		{
			"another failure", replying(200, `{"errorMessage":"SECRET","errorType":"Error"}`, "X-Amz-Function-Error", "Unhandled"),
			`dependency_unavailable: the function fails: "Unhandled" of type "Error", see its own log`, 2,
		},
		{"a condition that is not understood", replying(200, strings.Replace(policyReply("Allow", own), `"Effect"`, `"Condition":{"StringEquals":{"aws:VpcSourceIp":"a"}},"Effect"`, 1)), "", 2},
		{"nothing", replying(200, ``), "dependency_unavailable: the function's reply cannot be used: JSON is no object", 2},
		{"null", replying(200, `null`), "dependency_unavailable: the function's reply cannot be used: JSON is no object", 2},
		{"nobody", replying(200, `{"policyDocument":{}}`), "dependency_unavailable: the function's reply has no principalId", 2},
		{"a name with a line break", replying(200, `{"isAuthorized":true,"principalId":"a\nb"}`), "dependency_unavailable: the function's reply names a principalId that has control characters in it", 2},
		{
			"a usage key of nobody", replying(200, strings.Replace(policyReply("Allow", "*"), `{"prin`, `{"usageIdentifierKey":"no-such-key","prin`, 1)),
			"forbidden: the usageIdentifierKey of the function's reply is no key that works", 1,
		},
		{"a usage key", replying(200, strings.Replace(policyReply("Allow", "*"), `{"prin`, `{"usageIdentifierKey":"key-of-a-client-of-ours","prin`, 1)), "acme", 1},
	} {
		f := &config.File{
			APIs:    underV1().APIs,
			Plans:   map[string]*config.Plan{"gold": {}},
			Clients: []config.Client{{ID: "ours", Plan: "gold", Keys: []config.ClientKey{{Name: "k", Value: config.NewSecret("key-of-a-client-of-ours")}}}},
		}
		a := outsideOf(t, f, lambdaOf("token", time.Minute, "header:Authorization"))
		a.answers(c.reply)
		for range 2 {
			got := a.verdictOf(outsideRequest("Authorization", "t"))
			if c.want != "" && got != c.want || c.want == "" && !strings.HasPrefix(got, "dependency_unavailable: the function's policyDocument: ") {
				t.Errorf("%s: %s", c.name, got)
			}
		}
		if a.calls.Load() != c.calls {
			t.Errorf("%s: %d calls", c.name, a.calls.Load())
		}
		if c.name == "a usage key" {
			x := outsideRequest("Authorization", "t")
			got, err := a.check(x, a.find(x), false)
			want := &exchange.Caller{Authenticator: "outside", ID: "acme", Plan: "gold", Key: "k", Attributes: map[string]string{"stringKey": "value", "numberKey": "1", "booleanKey": "true"}}
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%+v, %v", got, err)
			}
		}
	}
}

func TestAnAnswerEndsWithItsUsageKey(t *testing.T) {
	awsOf(t)
	end := noon.Add(10 * time.Second)
	f := &config.File{Clients: []config.Client{{ID: "ours", Keys: []config.ClientKey{{Value: config.NewSecret("key-of-a-client-of-ours"), ExpiresAt: &end}}}}}
	a := outsideOf(t, f, lambdaOf("token", time.Minute, "header:Authorization"))
	a.answers(replying(200, strings.Replace(policyReply("Allow", "*"), `{"prin`, `{"usageIdentifierKey":"key-of-a-client-of-ours","prin`, 1)))
	for _, want := range []string{"acme", "forbidden: the usageIdentifierKey of the function's reply is no key that works"} {
		if got := a.verdictOf(outsideRequest("Authorization", "t")); got != want || a.calls.Load() != 1 {
			t.Errorf("%s, %d calls", got, a.calls.Load())
		}
		a.pass(10 * time.Second)
	}
}

func TestAPolicyIsEvaluatedForEveryRequest(t *testing.T) {
	awsOf(t)
	a := outsideOf(t, underV1(), lambdaOf("token", 300*time.Second, "header:Authorization"))
	a.answers(replying(200, policyReply("Allow", "arn:aws:execute-api:us-east-1:123456789012:public/*/GET/users/*")))
	for _, c := range []struct {
		method, path, stage string
		want                string
		calls               int64
	}{
		{"GET", "/v1/users/7", "production", "acme", 1},
		{"GET", "/v1/users/8", "production", "acme", 1},
		{"DELETE", "/v1/users/8", "production", "forbidden: the function's policy: no statement allows it", 1},
		{"GET", "/v1/jobs", "production", "forbidden: the function's policy: no statement allows it", 1},
		{"GET", "/v1/users/8", "test", "acme", 2}, // answers belong to a stage
	} {
		x := outsideRequest("Authorization", "t")
		x.Request.Method, x.Request.Path, x.Route.Stage = c.method, []byte(c.path), c.stage
		if got := a.verdictOf(x); got != c.want || a.calls.Load() != c.calls {
			t.Errorf("%s %s: %s, %d calls", c.method, c.path, got, a.calls.Load())
		}
	}
}

func TestAFunctionThatDeniesGETDeniesItsHEAD(t *testing.T) {
	awsOf(t)
	file := underV1()
	file.APIs[0].Routes = []config.Route{{Name: "get", Methods: []string{"GET"}}, {Name: "any"}, {Name: "head", Methods: []string{"HEAD"}}}
	const arn = "arn:aws:execute-api:us-east-1:123456789012:public/*/"
	statement := func(effect, resource string) string {
		return fmt.Sprintf(`{"Effect":%q,"Action":"execute-api:Invoke","Resource":%q}`, effect, arn+resource)
	}
	const denied, no = "forbidden: the function's policy: statement 2", "forbidden: the function's policy: no statement allows it"
	for _, c := range []struct{ allow, deny, route, method, want string }{
		{"*", "GET/secret", "get", "HEAD", denied},
		{"*", "GET/secret", "any", "HEAD", denied},
		{"*", "GET/secret", "head", "HEAD", "acme"},
		{"*", "GET/secret", "get", "GET", denied},
		{"*", "HEAD/secret", "get", "GET", "acme"},
		{"*", "GET/other", "get", "HEAD", "acme"},
		{"GET/*", "GET/other", "get", "HEAD", no}, // what allows GET allows no more
	} {
		a := outsideOf(t, file, lambdaOf("token", 300*time.Second, "header:Authorization"))
		a.answers(replying(200, `{"principalId":"acme","policyDocument":{"Version":"2012-10-17","Statement":[`+statement("Allow", c.allow)+","+statement("Deny", c.deny)+`]}}`))
		x := outsideRequest("Authorization", "t")
		x.Request.Method, x.Request.Path, x.Route.Name = c.method, []byte("/v1/secret"), c.route
		if got := a.verdictOf(x); !strings.HasPrefix(got, c.want) || x.Request.Method != c.method {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestIdentitySourcesMustBeThereAndAreTheKey(t *testing.T) {
	awsOf(t)
	file := &config.File{APIs: []config.API{{Name: "public", Variables: map[string]string{"table": "users"}}}}
	a := outsideOf(t, file, lambdaOf("request", time.Minute, "header:Auth", "query:name", "cookie:c", "context:httpMethod", "stage_variable:table"))
	a.answers(replying(200, `{"isAuthorized":true,"principalId":"acme"}`))
	for _, c := range []struct {
		name   string
		change func(x *exchange.Exchange)
		want   string
		calls  int64
	}{
		{"all", func(*exchange.Exchange) {}, "acme", 1},
		{"all, again", func(x *exchange.Exchange) { x.Request.Path = []byte("/v1/other") }, "acme", 1},
		{"another header", func(x *exchange.Exchange) { x.Request.Header.Set([]byte("Auth"), []byte("b")) }, "acme", 2},
		{"another query", func(x *exchange.Exchange) { x.Request.Query = []byte("name=b") }, "acme", 3},
		{"another method", func(x *exchange.Exchange) { x.Request.Method = "PUT" }, "acme", 4},
		{"no header", func(x *exchange.Exchange) { x.Request.Header.Del([]byte("Auth")) }, "none", 4},
		{"an empty header", func(x *exchange.Exchange) { x.Request.Header.Set([]byte("Auth"), nil) }, "none", 4},
		{"no query", func(x *exchange.Exchange) { x.Request.Query = nil }, "none", 4},
		{"an empty query", func(x *exchange.Exchange) { x.Request.Query = []byte("name=") }, "none", 4},
		{"no cookie", func(x *exchange.Exchange) { x.Request.Header.DelID(exchange.Cookie) }, "none", 4},
		{"no stage variable", func(x *exchange.Exchange) { x.Route.API = "other" }, "none", 4},
	} {
		x := outsideRequest("Auth", "a", "Cookie", "c=1")
		x.Request.Query, x.Request.HasQuery = []byte("name=a"), true
		c.change(x)
		if got := a.verdictOf(x); got != c.want || a.calls.Load() != c.calls {
			t.Errorf("%s: %s, %d calls", c.name, got, a.calls.Load())
		}
	}
}

func TestWithoutACacheEveryRequestIsACall(t *testing.T) {
	awsOf(t)
	a := outsideOf(t, nil, lambdaOf("request", 0))
	a.answers(replying(200, `{"isAuthorized":true,"principalId":"acme"}`))
	for i := range int64(3) {
		if got := a.verdictOf(outsideRequest()); got != "acme" || a.calls.Load() != i+1 {
			t.Errorf("%s, %d calls", got, a.calls.Load())
		}
	}
}

func TestLambdaAuthorizersThatCannotBe(t *testing.T) {
	for _, c := range []struct {
		l    config.LambdaAuth
		want string
	}{
		{config.LambdaAuth{Type: "token"}, "of the type token is the one place where the token stands: give one header, query or cookie, or write type: request"},
		{config.LambdaAuth{Type: "token", Identity: []string{"header:A", "header:B"}}, "of the type token is the one place where the token stands: give one header, query or cookie, or write type: request"},
		{config.LambdaAuth{Type: "token", Identity: []string{"context:path"}}, "of the type token is the one place where the token stands: give one header, query or cookie, or write type: request"},
		{config.LambdaAuth{Type: "request", CacheTTL: ofDuration(1)}, "is what answers are kept under, and is empty: name what the function decides by, or write cache_ttl: 0s"},
		{config.LambdaAuth{Type: "request", Identity: []string{"context:authorizer.x"}}, `"authorizer.x" is no context variable that there is, use one of apiId, domainName, httpMethod, identity.sourceIp, identity.userAgent, path, protocol, requestId, resourcePath, routeKey, stage`},
		{config.LambdaAuth{Type: "request", Identity: []string{"stage_variable:"}}, "names nothing, write stage_variable:NAME"},
		{config.LambdaAuth{Type: "request", Identity: []string{"body:a"}}, `"body:a" is no place of a credential, write header:NAME, query:NAME or cookie:NAME`},
		{config.LambdaAuth{Type: "request", Endpoint: "http://emulator:4566"}, "would send credentials in plain text, use https:// or a loopback address"},
		{config.LambdaAuth{Type: "request", Endpoint: "http://192.0.2.1"}, "would send credentials in plain text, use https:// or a loopback address"},
	} {
		_, err := newLambdaAuth(&realm{engine: New(Options{}), file: &config.File{}}, "a", &config.Authenticator{Lambda: &c.l})
		if err == nil || err.Error() != c.want {
			t.Errorf("%+v: %v", c.l, err)
		}
	}
	for _, endpoint := range []string{"", "http://127.0.0.1:4566", "http://[::1]:4566", "http://localhost:4566", "https://emulator:4566"} {
		if err := emulator(endpoint); err != nil {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}

func TestWhetherCredentialsGoToTheUpstream(t *testing.T) {
	awsOf(t)
	no := false
	for _, c := range []struct {
		name  string
		entry *config.Authenticator
	}{
		{"introspection", &config.Authenticator{Introspection: &config.IntrospectionAuth{}}},
		{"http", &config.Authenticator{HTTP: &config.HTTPAuth{Send: []string{"Authorization"}}}},
		{"lambda", &config.Authenticator{Lambda: &config.LambdaAuth{Type: "token", Identity: []string{"header:Authorization"}}}},
	} {
		for _, forward := range []*bool{nil, &no} {
			c.entry.Forward = forward
			a := outsideOf(t, nil, func(string) *config.Authenticator { return c.entry })
			x := outsideRequest("Authorization", "Bearer t", "Accept", "*/*")
			a.strip(x)
			if x.Request.Header.Has(exchange.Authorization) != (forward == nil) || x.Request.Header.Get([]byte("Accept")) == nil {
				t.Errorf("%s: forward %v: %d fields", c.name, forward, x.Request.Header.Len())
			}
		}
		if a := outsideOf(t, nil, func(string) *config.Authenticator { return c.entry }); a.scheme() != "Bearer" {
			t.Errorf("%s: %s", c.name, a.scheme())
		}
	}
}
