// Command oidc is an OpenID provider for the tests of the gateway: zitadel's example
// server, as it is, with signing keys that can be changed and fetches that are
// counted.
//
//	POST /test/publish   makes a new key and publishes it
//	POST /test/sign      signs with the newest key from now on
//	POST /test/withdraw  publishes the key that signs alone
//	GET  /test/fetches   how often the keys were fetched
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"
)

func main() {
	address := flag.String("address", "127.0.0.1:0", "where to listen")
	flag.Parse()
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	issuer := "http://" + listener.Addr().String() + "/"
	keys := &keys{Storage: storage.NewStorage(storage.NewUserStore(issuer))}
	keys.publish()
	keys.sign()
	log.SetOutput(io.Discard)
	provider := exampleop.SetupServer(issuer, keys, slog.New(slog.DiscardHandler), false, op.WithAllowInsecure())
	var fetches atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("POST /test/publish", func(http.ResponseWriter, *http.Request) { keys.publish() })
	mux.HandleFunc("POST /test/sign", func(http.ResponseWriter, *http.Request) { keys.sign() })
	mux.HandleFunc("POST /test/withdraw", func(http.ResponseWriter, *http.Request) { keys.withdraw() })
	mux.HandleFunc("GET /test/fetches", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, fetches.Load()) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/keys" {
			fetches.Add(1)
		}
		provider.ServeHTTP(w, r)
	})
	fmt.Println(issuer)
	log.Fatal(http.Serve(listener, mux))
}

// keys is the example's storage with keys that change, RSA and EC in turn.
type keys struct {
	*storage.Storage
	mu      sync.Mutex
	all     []*key
	signing *key
}

func (k *keys) publish() {
	k.mu.Lock()
	defer k.mu.Unlock()
	next := &key{id: fmt.Sprintf("key-%d", len(k.all)), algorithm: jose.RS256}
	var err error
	if len(k.all)%2 == 0 {
		next.private, err = rsa.GenerateKey(rand.Reader, 2048)
		next.public = &next.private.(*rsa.PrivateKey).PublicKey
	} else {
		next.algorithm = jose.ES256
		next.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		next.public = &next.private.(*ecdsa.PrivateKey).PublicKey
	}
	if err != nil {
		log.Fatal(err)
	}
	k.all = append(k.all, next)
}

func (k *keys) sign() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.signing = k.all[len(k.all)-1]
}

func (k *keys) withdraw() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, one := range k.all {
		one.gone = one != k.signing
	}
}

// SigningKey returns the key that signs now.
func (k *keys) SigningKey(context.Context) (op.SigningKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return private{k.signing}, nil
}

// SignatureAlgorithms returns those of the keys.
func (k *keys) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.RS256, jose.ES256}, nil
}

// KeySet returns the keys that are published.
func (k *keys) KeySet(context.Context) ([]op.Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []op.Key
	for _, one := range k.all {
		if !one.gone {
			out = append(out, public{one})
		}
	}
	return out, nil
}

// ClientCredentials returns the service user sid1, whose access tokens are JWTs here.
func (k *keys) ClientCredentials(ctx context.Context, id, secret string) (op.Client, error) {
	c, err := k.Storage.ClientCredentials(ctx, id, secret)
	return jwtClient{c}, err
}

type jwtClient struct{ op.Client }

func (jwtClient) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }

type key struct {
	id              string
	algorithm       jose.SignatureAlgorithm
	private, public any
	gone            bool
}

type (
	private struct{ *key }
	public  struct{ *key }
)

func (p private) ID() string                                  { return p.id }
func (p private) SignatureAlgorithm() jose.SignatureAlgorithm { return p.algorithm }
func (p private) Key() any                                    { return p.private }
func (p public) ID() string                                   { return p.id }
func (p public) Algorithm() jose.SignatureAlgorithm           { return p.algorithm }
func (p public) Use() string                                  { return "sig" }
func (p public) Key() any                                     { return p.public }
