package ask

// TokenEvent is what an authorizer of the type TOKEN is sent, field by field as AWS
// documents it (API Gateway Developer Guide, "Input to an API Gateway Lambda
// authorizer").
type TokenEvent struct {
	Type               string `json:"type"` // TOKEN
	AuthorizationToken string `json:"authorizationToken"`
	MethodARN          string `json:"methodArn"`
}

// RequestEvent is what an authorizer of the type REQUEST is sent, as AWS documents it
// for REST APIs (the same page). The maps with one value for each name have the last
// one; the lists have all.
type RequestEvent struct {
	Type                  string              `json:"type"` // REQUEST
	MethodARN             string              `json:"methodArn"`
	Resource              string              `json:"resource"` // the route's pattern
	Path                  string              `json:"path"`
	HTTPMethod            string              `json:"httpMethod"`
	Headers               map[string]string   `json:"headers"`
	MultiValueHeaders     map[string][]string `json:"multiValueHeaders"`
	QueryStringParameters map[string]string   `json:"queryStringParameters"`
	MultiValueQuery       map[string][]string `json:"multiValueQueryStringParameters"`
	PathParameters        map[string]string   `json:"pathParameters"`
	StageVariables        map[string]string   `json:"stageVariables"`
	RequestContext        RequestContext      `json:"requestContext"`
}

// RequestContext is the `requestContext` of a RequestEvent.
type RequestContext struct {
	Path             string   `json:"path"` // with the stage, or the base path, in front
	AccountID        string   `json:"accountId"`
	ResourceID       string   `json:"resourceId"`
	Stage            string   `json:"stage"`
	RequestID        string   `json:"requestId"`
	DomainName       string   `json:"domainName,omitempty"`
	Protocol         string   `json:"protocol"`
	RequestTime      string   `json:"requestTime"`      // 09/Apr/2015:12:34:56 +0000
	RequestTimeEpoch int64    `json:"requestTimeEpoch"` // Unix ms
	Identity         Identity `json:"identity"`
	ResourcePath     string   `json:"resourcePath"`
	HTTPMethod       string   `json:"httpMethod"`
	APIID            string   `json:"apiId"`
}

// Identity is the `identity` of a RequestContext.
type Identity struct {
	APIKey     string      `json:"apiKey,omitempty"`
	SourceIP   string      `json:"sourceIp"`
	UserAgent  string      `json:"userAgent,omitempty"`
	ClientCert *ClientCert `json:"clientCert,omitempty"`
}

// ClientCert is a client's certificate.
type ClientCert struct {
	PEM          string   `json:"clientCertPem"`
	Subject      string   `json:"subjectDN"`
	Issuer       string   `json:"issuerDN"`
	SerialNumber string   `json:"serialNumber"` // a1:a1:…
	Validity     Validity `json:"validity"`
}

// Validity is how long a certificate holds: May 28 12:30:02 2019 GMT.
type Validity struct {
	NotBefore string `json:"notBefore"`
	NotAfter  string `json:"notAfter"`
}
