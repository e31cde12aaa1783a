package auth

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/internal/auth/ask"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// outside is what the authenticators that ask somebody have in common: introspection,
// http and lambda. T is what an answer comes to. See package ask for how requests share
// answers.
type outside[T any] struct {
	realm  *realm
	name   string
	config *config.Authenticator
	ttl    time.Duration
	client *http.Client
	desk   *ask.Desk[T]
}

// refusedFor is how long a refusal is kept at most: a credential may become good.
const refusedFor = 10 * time.Second

func newOutside[T any](r *realm, name string, c *config.Authenticator, ttl, timeout config.Duration, alone bool) outside[T] {
	return outside[T]{
		realm: r, name: name, config: c, ttl: ttl.Duration, client: ask.NewClient(),
		desk: ask.NewDesk[T](ask.Options{Timeout: timeout.Duration, Keep: ttl.Duration > 0, Alone: alone && ttl.Duration <= 0, Now: r.engine.now}),
	}
}

// Close ends calls that are under way, and the connections.
func (o *outside[T]) Close() error {
	err := o.desk.Close()
	o.client.CloseIdleConnections()
	return err
}

// ask asks about what is not kept. The request waits, and its deadline and its client
// end the waiting.
func (o *outside[T]) ask(x *exchange.Exchange, key ask.Key, call ask.Call[T]) (T, error) {
	ctx, stop := x.Context()
	defer stop()
	v, err := o.desk.Ask(ctx, key, call)
	if err != nil {
		return v, away(err)
	}
	return v, nil
}

// silent reports whether nobody may be asked: explain and check ask nobody.
func (o *outside[T]) silent(dry bool) bool { return dry || o.realm.engine.offline }

// good is an answer that holds as long as answers are kept, and no longer than end,
// which is zero when the answer names none. size is that of the reply, bytes.
func (o *outside[T]) good(v T, asked, end time.Time, size int) ask.Answer[T] {
	a := ask.Answer[T]{Value: v, Until: asked.Add(o.ttl)}
	if !end.IsZero() && end.Before(a.Until) {
		a.Until = end
	}
	if size > ask.MaxKept {
		a.Until = time.Time{}
	}
	return a
}

// bad is a refusal.
func (o *outside[T]) bad(v T, asked time.Time) ask.Answer[T] {
	return ask.Answer[T]{Value: v, Until: asked.Add(min(o.ttl, refusedFor)), Refusal: true}
}

// badID says what is wrong with an id, nil: nothing. Ids stand in logs, keys and
// headers.
func badID(id string) error {
	switch {
	case id == "":
		return errors.New("is empty")
	case len(id) > maxID:
		return fmt.Errorf("is longer than %d bytes", maxID)
	case !utf8.ValidString(id):
		return errors.New("is not UTF-8")
	case strings.ContainsFunc(id, unicode.IsControl):
		return errors.New("has control characters in it")
	}
	return nil
}

// challengeOf is the scheme for WWW-Authenticate of what is read from these places.
func challengeOf(from sources) string {
	for i := range from {
		if from[i].kind == inHeader && from[i].id == exchange.Authorization {
			return "Bearer"
		}
	}
	return "Custom"
}
