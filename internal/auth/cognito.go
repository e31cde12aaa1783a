package auth

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth/jose"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/policy"
)

// newCognitoAuth makes a jwtAuth for an AWS Cognito user pool: its issuer and keys
// follow from the pool's id, its groups are roles. AWS, "Verifying JSON web tokens"
// in the Amazon Cognito Developer Guide, says what else must be looked at: `token_use`,
// and the app client, which is `client_id` in an access token and `aud` in an id token.
func newCognitoAuth(r *realm, name string, c *config.Authenticator) (authenticator, error) {
	j, err := cognitoJWT(c.Cognito)
	if err != nil {
		return nil, err
	}
	a, err := makeJWTAuth(r, name, c, j)
	if err != nil {
		return nil, err
	}
	a.also = func(t *jose.Token) error { return cognitoToken(c.Cognito, t) }
	return a, nil
}

// cognitoJWT is what a user pool means as `jwt`.
func cognitoJWT(c *config.CognitoAuth) (*config.JWTAuth, error) {
	if !plainName(c.Region) {
		return nil, policy.At("cognito.region", fmt.Errorf("%q is no AWS region, write one such as us-east-1", c.Region))
	}
	if !strings.HasPrefix(c.UserPool, c.Region+"_") || !plainName(c.UserPool) {
		return nil, policy.At("cognito.user_pool", fmt.Errorf("%q is no user pool of the region: its id begins with %s_", c.UserPool, c.Region))
	}
	domain := "amazonaws.com"
	if strings.HasPrefix(c.Region, "cn-") {
		domain = "amazonaws.com.cn"
	}
	issuer := "https://cognito-idp." + c.Region + "." + domain + "/" + c.UserPool
	return &config.JWTAuth{
		Issuer: issuer, JWKSURL: issuer + "/.well-known/jwks.json", Algorithms: []string{"RS256"},
		Leeway: config.Duration{Duration: 30 * time.Second}, From: []string{"header:Authorization"},
		Claims: config.ClaimNames{Client: "sub", Roles: "cognito:groups", Permissions: "scope"},
	}, nil
}

// plainName reports whether a name can stand in a URL as it is.
func plainName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_'
	})
}

// cognitoToken checks what only Cognito's tokens have.
func cognitoToken(c *config.CognitoAuth, t *jose.Token) error {
	if use, _ := t.Claims["token_use"].(string); use != c.Use {
		return fmt.Errorf("token_use is %.32q, not %s", use, c.Use)
	}
	if len(c.AppClients) == 0 {
		return nil
	}
	app := t.Claims["client_id"]
	if c.Use == "id" {
		app = t.Claims["aud"]
	}
	if text, _ := app.(string); !slices.Contains(c.AppClients, text) {
		return errors.New("it is of an app client that is not one of app_clients")
	}
	return nil
}
