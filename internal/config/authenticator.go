package config

// Authenticator is one way to find out who is calling. Exactly one kind is given.
type Authenticator struct {
	// An API key of a client.
	APIKey *APIKeyAuth `yaml:"api_key"`
	// A JSON Web Token.
	JWT *JWTAuth `yaml:"jwt"`
	// A JSON Web Token of an AWS Cognito user pool.
	Cognito *CognitoAuth `yaml:"cognito"`
	// A verified client certificate.
	MTLS *MTLSAuth `yaml:"mtls"`
	// A token that its issuer is asked about (RFC 7662).
	Introspection *IntrospectionAuth `yaml:"introspection"`
	// A service of one's own that decides.
	HTTP *HTTPAuth `yaml:"http"`
	// An AWS Lambda authorizer.
	Lambda *LambdaAuth `yaml:"lambda"`
	// An HTTP message signature (RFC 9421).
	Signature *SignatureAuth `yaml:"signature"`
	// A name and a password (RFC 7617).
	Basic *BasicAuth `yaml:"basic"`
	// A token of the gateway's own issuer.
	Issued *IssuedAuth `yaml:"issued"`
	// Whether the identity found is a client of `clients` of the same id. Default: only for `api_key`.
	Join *bool `yaml:"join"`
	// Whether the credential is sent on to the upstream. Default: not for `api_key` and `basic`.
	Forward *bool `yaml:"forward"`
}

// APIKeyAuth finds an API key.
type APIKeyAuth struct {
	// Where the key may stand, in this order.
	From []string `yaml:"from" default:"header:X-Api-Key" enum:"header:NAME|query:NAME|cookie:NAME"`
}

// JWTAuth verifies JSON Web Tokens. `exp` is required in the token.
type JWTAuth struct {
	// The `iss` that tokens must have.
	Issuer string `yaml:"issuer" need:"true"`
	// The `aud` of which tokens must have one. Absent: not looked at.
	Audience []string `yaml:"audience"`
	// The algorithms that are accepted. A token of any other is refused.
	Algorithms []string `yaml:"algorithms" need:"true" enum:"RS256|RS384|RS512|PS256|PS384|PS512|ES256|ES384|ES512|EdDSA|HS256|HS384|HS512"`
	// Where the keys are: a JSON Web Key Set. HTTPS or loopback.
	JWKSURL string `yaml:"jwks_url" check:"credential_url"`
	// Find the keys through the issuer's OpenID discovery document.
	Discovery bool `yaml:"discovery"`
	// Files of keys: JWK or JWK Set.
	Keys []string `yaml:"keys" check:"file"`
	// The shared secret of HS256, HS384 and HS512.
	Secret Secret `yaml:"secret"`
	// The `typ` headers that are accepted, such as `at+jwt`. Empty: any.
	Types []string `yaml:"types"`
	// How far clocks may differ.
	Leeway Duration `yaml:"leeway" default:"30s"`
	// Where the token may stand, in this order.
	From []string `yaml:"from" default:"header:Authorization" enum:"header:NAME|query:NAME|cookie:NAME"`
	// Which claims say who the caller is.
	Claims ClaimNames `yaml:"claims"`
}

// ClaimNames says which claims hold what, as paths: `realm_access.roles`.
type ClaimNames struct {
	// The client's id.
	Client string `yaml:"client" default:"sub"`
	// The roles.
	Roles string `yaml:"roles"`
	// The permissions, a list or a string split on spaces.
	Permissions string `yaml:"permissions" default:"scope"`
	// The plan.
	Plan string `yaml:"plan"`
}

// CognitoAuth verifies tokens of an AWS Cognito user pool.
type CognitoAuth struct {
	// The AWS region.
	Region string `yaml:"region" need:"true"`
	// The user pool's id.
	UserPool string `yaml:"user_pool" need:"true"`
	// The app clients whose tokens are accepted. Absent: all of the pool's.
	AppClients []string `yaml:"app_clients"`
	// Which of the pool's tokens is accepted.
	Use string `yaml:"use" default:"access" enum:"access|id"`
}

// MTLSAuth takes the identity from a client certificate that the listener verified.
type MTLSAuth struct {
	// The part of the certificate that is the client's id.
	Client string `yaml:"client" default:"subject.cn" enum:"subject.cn|subject.dn|san.dns|san.uri|san.email|fingerprint"`
}

// IntrospectionAuth asks the issuer about a token (RFC 7662).
type IntrospectionAuth struct {
	// The introspection endpoint. HTTPS or loopback.
	URL string `yaml:"url" need:"true" check:"credential_url"`
	// The gateway's own id there.
	ClientID string `yaml:"client_id"`
	// The gateway's own secret there.
	ClientSecret Secret `yaml:"client_secret"`
	// How long an answer is kept, never past the token's own end. 0: not at all.
	CacheTTL Duration `yaml:"cache_ttl" default:"30s"`
	// How long an answer may take.
	Timeout Duration `yaml:"timeout" default:"1s" min:"1ms"`
	// Which members of the answer say who the caller is.
	Claims ClaimNames `yaml:"claims"`
}

// HTTPAuth asks a service of one's own: 2xx admits; 408, 429, 5xx and no answer are 503, anything else refuses.
type HTTPAuth struct {
	// The service. HTTPS or loopback.
	URL string `yaml:"url" need:"true" check:"credential_url"`
	// Request headers that are sent to it.
	Send []string `yaml:"send" default:"Authorization" check:"header"`
	// Headers of its answer that are sent on to the upstream. Clients' own are removed first.
	Receive []string `yaml:"receive" check:"header"`
	// How long an answer is kept. 0: not at all.
	CacheTTL Duration `yaml:"cache_ttl" default:"30s"`
	// How long an answer may take.
	Timeout Duration `yaml:"timeout" default:"1s" min:"1ms"`
}

// LambdaAuth asks an AWS Lambda authorizer.
type LambdaAuth struct {
	// The function's name or ARN.
	Function string `yaml:"function" need:"true"`
	// The AWS region.
	Region string `yaml:"region"`
	// Another address than AWS's own, such as a local emulator's.
	Endpoint string `yaml:"endpoint" check:"credential_url"`
	// What the function is sent: the token alone, or the request.
	Type string `yaml:"type" default:"token" enum:"token|request"`
	// The identity sources: what answers are kept under, and what must be present.
	Identity []string `yaml:"identity" default:"header:Authorization" enum:"header:NAME|query:NAME|cookie:NAME|context:NAME|stage_variable:NAME"`
	// How long an answer is kept. 0: not at all.
	CacheTTL Duration `yaml:"cache_ttl" default:"300s"`
	// How long the function may take.
	Timeout Duration `yaml:"timeout" default:"10s" min:"1ms"`
}

// SignatureAuth verifies HTTP message signatures (RFC 9421).
type SignatureAuth struct {
	// A file: the JWK Set of those who sign.
	Keys string `yaml:"keys" need:"true" check:"file"`
	// Components that a signature must cover.
	Required []string `yaml:"required" default:"@method, @target-uri, content-digest"`
	// The oldest signature that is accepted. None is accepted twice.
	MaxAge Duration `yaml:"max_age" default:"5m" min:"1s"`
}

// BasicAuth verifies a name and a password.
type BasicAuth struct {
	// A file of names and bcrypt hashes, as `htpasswd -B` writes it.
	Htpasswd string `yaml:"htpasswd" need:"true" check:"file"`
}

// IssuedAuth verifies tokens of the gateway's own issuer.
type IssuedAuth struct{}
