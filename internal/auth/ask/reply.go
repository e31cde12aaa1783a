package ask

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Reply is what an authorizer function answers, in one of two forms (API Gateway
// Developer Guide, "Output from an API Gateway Lambda authorizer" and "Lambda
// authorizers for HTTP APIs").
type Reply struct {
	// Simple says that the reply is isAuthorized alone, which is Authorized.
	Simple, Authorized bool
	Principal          string
	Policy             []byte         // the policyDocument, JSON; nil with Simple
	Allows             bool           // a statement of Policy allows something
	Context            map[string]any // numbers are json.Number
	UsageKey           string         // an API key, empty: none
	Size               int            // bytes
}

// ReadReply reads the reply of a function. An error says what is wrong with it, and
// quotes nothing of it.
func ReadReply(data []byte) (*Reply, error) {
	whole, err := object(data)
	if err != nil {
		return nil, err
	}
	r := &Reply{Size: len(data)}
	for name, into := range map[string]*string{"principalId": &r.Principal, "usageIdentifierKey": &r.UsageKey} {
		switch v := whole[name].(type) {
		case nil:
		case string:
			*into = v
		default:
			return nil, fmt.Errorf("has a %s that is no text", name)
		}
	}
	switch v := whole["context"].(type) {
	case nil:
	case map[string]any:
		r.Context = v
	default:
		return nil, errors.New("has a context that is no object")
	}
	authorized, simple := whole["isAuthorized"]
	policy, documented := whole["policyDocument"]
	switch {
	case simple && documented:
		return nil, errors.New("has both isAuthorized and policyDocument, which may not agree")
	case simple:
		var ok bool
		if r.Authorized, ok = authorized.(bool); !ok {
			return nil, errors.New("has an isAuthorized that is neither true nor false")
		}
		r.Simple = true
		return r, nil
	case !documented:
		return nil, errors.New("has neither policyDocument nor isAuthorized")
	}
	if r.Principal == "" {
		return nil, errors.New("has no principalId")
	}
	document, ok := policy.(map[string]any)
	if !ok {
		return nil, errors.New("has a policyDocument that is no object")
	}
	r.Allows = allows(document["Statement"])
	r.Policy, err = json.Marshal(policy)
	return r, err
}

// allows reports whether one of the statements allows anything. It is no verdict: it
// tells answers that are worth their place from those that can only refuse.
func allows(statements any) bool {
	list, ok := statements.([]any)
	if !ok {
		list = []any{statements}
	}
	for _, s := range list {
		if one, ok := s.(map[string]any); ok && one["Effect"] == "Allow" {
			return true
		}
	}
	return false
}
