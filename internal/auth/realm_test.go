package auth

import (
	"sync"
	"testing"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/policy"
)

// A configuration that fails is taken apart route by route while it is made. What it
// shares with the one that runs must be given back once.
func TestAFailedConfigurationTakesNothingFromOthers(t *testing.T) {
	p := publish(t, jwksOf(t, "ed"))
	e := New(Options{})
	defer func() { _ = e.Close(t.Context()) }()
	file := func() *config.File {
		return &config.File{Authenticators: map[string]*config.Authenticator{"idp": jwtOf(config.JWTAuth{Issuer: "https://idp.example.com", JWKSURL: p.URL})}}
	}
	route := &config.Route{Auth: &config.Auth{Use: [][]string{{"idp"}}}}
	running, err := e.newAuthenticate(route, &policy.Env{File: file(), Common: new(sync.Map)})
	if err != nil {
		t.Fatal(err)
	}
	failing := &policy.Env{File: file(), Common: new(sync.Map)}
	for range 3 {
		f, err := e.newAuthenticate(route, failing)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.(policy.Closer).Close(); err != nil { // another filter of the route failed
			t.Fatal(err)
		}
	}
	set := running.(*authenticate).realm.authenticators["idp"].(*jwtAuth).set
	if again := e.keySets.registry.Acquire(set.Place()); again != set {
		t.Error("the key set of the running configuration was closed")
	} else {
		e.keySets.registry.Release(again)
	}
	if err := running.(policy.Closer).Close(); err != nil {
		t.Fatal(err)
	}
}
