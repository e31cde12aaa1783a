package admin

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth"
	"github.com/sluice-gateway/sluice/internal/config"
)

// Key is an API key, of either owner, but for the key itself.
type Key struct {
	ID          string     `json:"id"`
	Client      string     `json:"client"`
	Owner       string     `json:"owner"`
	Name        string     `json:"name,omitempty"`
	Enabled     bool       `json:"enabled"`
	State       string     `json:"state"`                 // see stateOf
	Permissions *[]string  `json:"permissions,omitempty"` // absent: all of the client's
	CreatedAt   *time.Time `json:"created_at,omitempty"`  // not of one that the configuration declares
	ExpiresAt   *time.Time `json:"expires_at,omitempty"`
	LastUsedAt  *time.Time `json:"last_used_at,omitempty"`
	RevokedAt   *time.Time `json:"revoked_at,omitempty"`
}

// KeyList is the answer of GET /v1/keys.
type KeyList struct {
	Keys []Key `json:"keys"`
}

// KeyRequest is the body of POST /v1/keys.
type KeyRequest struct {
	Client      string     `json:"client"`
	Name        string     `json:"name,omitempty"`
	ExpiresAt   *time.Time `json:"expires_at,omitempty"`
	Permissions *[]string  `json:"permissions,omitempty"`
}

// NewKey is the answer of POST /v1/keys: the one time that the key itself is shown.
type NewKey struct {
	ID          string     `json:"id"`
	Key         string     `json:"key"`
	Client      string     `json:"client"`
	Owner       string     `json:"owner"`
	Name        string     `json:"name,omitempty"`
	Enabled     bool       `json:"enabled"`
	Permissions *[]string  `json:"permissions,omitempty"`
	CreatedAt   time.Time  `json:"created_at"`
	ExpiresAt   *time.Time `json:"expires_at,omitempty"`
	// Replaces is the key that was rotated, which ends at its own expires_at.
	Replaces *Key `json:"replaces,omitempty"`
}

// KeyChange is the body of PATCH /v1/keys/{id}.
type KeyChange struct {
	Enabled *bool `json:"enabled"`
}

// Rotation is the body of POST /v1/keys/{id}/rotate.
type Rotation struct {
	Overlap string `json:"overlap,omitempty"` // how long the old key holds, as 24h, which is the default
}

const defaultOverlap = 24 * time.Hour

// stamp is a time that may not be there.
func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func permissionsOf(list []string) *[]string {
	if list == nil {
		return nil
	}
	return &list
}

// The states of a key. Only a live one is accepted.
const (
	keyLive     = "live"
	keyDisabled = "disabled"
	keyOrphaned = "client_gone" // the client that it was made for is not there any more
	keyExpired  = "expired"
	keyRevoked  = "revoked"
)

// stateOf is the state of a key, the one that lasts longest when there are several.
func stateOf(k *Key, orphan bool) string {
	switch {
	case k.RevokedAt != nil:
		return keyRevoked
	case k.ExpiresAt != nil && !time.Now().Before(*k.ExpiresAt):
		return keyExpired
	case orphan:
		return keyOrphaned
	case !k.Enabled:
		return keyDisabled
	}
	return keyLive
}

func (s *Server) storedKey(k auth.Key) Key {
	_, declared := s.declared(k.Client)
	out := Key{
		ID: k.ID, Client: k.Client, Owner: ownedByAPI, Name: k.Name, Enabled: k.Enabled, Permissions: permissionsOf(k.Permissions),
		CreatedAt: stamp(k.CreatedAt), ExpiresAt: stamp(k.ExpiresAt), LastUsedAt: stamp(k.LastUsedAt), RevokedAt: stamp(k.RevokedAt),
	}
	out.State = stateOf(&out, k.Orphan && !declared)
	return out
}

// declaredKeys are the keys that the running configuration declares, of one client or
// of all.
func (s *Server) declaredKeys(client string) []Key {
	var all []Key
	f := s.Configuration.Running()
	if f == nil {
		return nil
	}
	for i := range f.Clients {
		c := &f.Clients[i]
		if client != "" && c.ID != client {
			continue
		}
		for j, id := range auth.DeclaredKeyIDs(c) {
			k := &c.Keys[j]
			one := Key{ID: id, Client: c.ID, Owner: ownedByConfig, Name: k.Name, Enabled: true, Permissions: permissionsOf(k.Permissions), ExpiresAt: k.ExpiresAt}
			one.State = stateOf(&one, false)
			all = append(all, one)
		}
	}
	return all
}

// declaredKey returns a key of the running configuration.
func (s *Server) declaredKey(id string) (Key, bool) {
	all := s.declaredKeys("")
	if i := slices.IndexFunc(all, func(k Key) bool { return k.ID == id }); i >= 0 {
		return all[i], true
	}
	return Key{}, false
}

func (s *Server) getKeys(w http.ResponseWriter, r *http.Request) *problem {
	q := r.URL.Query()
	withRevoked := false
	switch q.Get("revoked") {
	case "", "0":
	case "1":
		withRevoked = true
	default:
		return badRequest("revoked is 1, or left out.")
	}
	client := q.Get("client")
	all := s.declaredKeys(client)
	stored, err := s.Identities.Keys(r.Context(), client)
	if err != nil && !errors.Is(err, auth.ErrNoStore) {
		return s.trouble(err)
	}
	for _, k := range stored {
		if k.RevokedAt.IsZero() || withRevoked {
			all = append(all, s.storedKey(k))
		}
	}
	if client != "" && len(all) == 0 && !withRevoked { // who is gone may have left keys behind
		if p := s.hasClient(client); p != nil {
			return p
		}
	}
	slices.SortStableFunc(all, func(a, b Key) int { return strings.Compare(a.Client, b.Client) })
	if all == nil {
		all = []Key{}
	}
	send(w, http.StatusOK, "application/json", KeyList{all})
	return nil
}

// hasClient is the problem with a client that there is not; nil: there is.
func (s *Server) hasClient(id string) *problem {
	if _, ok := s.declared(id); ok {
		return nil
	}
	_, err := s.Identities.Client(id)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, auth.ErrNotFound), errors.Is(err, auth.ErrNoStore):
		return noClient(id)
	}
	return s.trouble(err)
}

func (s *Server) getKey(w http.ResponseWriter, r *http.Request) *problem {
	if k, ok := s.declaredKey(r.PathValue("id")); ok {
		send(w, http.StatusOK, "application/json", k)
		return nil
	}
	k, err := s.Identities.Key(r.Context(), r.PathValue("id"))
	if errors.Is(err, auth.ErrNoStore) {
		err = auth.ErrNotFound
	}
	if err != nil {
		return s.trouble(err)
	}
	send(w, http.StatusOK, "application/json", s.storedKey(k))
	return nil
}

func (s *Server) postKey(w http.ResponseWriter, r *http.Request) *problem {
	var q KeyRequest
	if p := readBody(w, r, &q); p != nil {
		return p
	}
	k := auth.Key{Client: q.Client, Name: q.Name}
	var err error
	if q.Name != "" {
		err = validName("name", q.Name)
	}
	if q.Permissions != nil {
		if k.Permissions = *q.Permissions; k.Permissions == nil {
			k.Permissions = []string{}
		}
		err = errors.Join(err, validPermissions(k.Permissions))
	}
	if q.ExpiresAt != nil {
		if k.ExpiresAt = *q.ExpiresAt; !k.ExpiresAt.After(time.Now()) {
			err = errors.Join(err, errors.New("expires_at is over already"))
		}
	}
	switch {
	case err != nil:
		return badRequest(sentence(strings.ReplaceAll(err.Error(), "\n", ", and ")))
	case q.Client == "":
		return badRequest("A key needs a client: its id.")
	}
	if p := s.hasClient(q.Client); p != nil {
		return p
	}
	made, text, err := s.Identities.CreateKey(r.Context(), k)
	if err != nil {
		return s.trouble(err)
	}
	s.sendNew(w, made, text, nil)
	return nil
}

// sendNew shows a key for the one time.
func (s *Server) sendNew(w http.ResponseWriter, k auth.Key, text string, replaces *Key) {
	w.Header().Set("Location", "/v1/keys/"+url.PathEscape(k.ID))
	send(w, http.StatusCreated, "application/json", NewKey{
		ID: k.ID, Key: text, Client: k.Client, Owner: ownedByAPI, Name: k.Name, Enabled: k.Enabled, Permissions: permissionsOf(k.Permissions),
		CreatedAt: k.CreatedAt, ExpiresAt: stamp(k.ExpiresAt), Replaces: replaces,
	})
}

func (s *Server) patchKey(w http.ResponseWriter, r *http.Request) *problem {
	var q KeyChange
	if p := readBody(w, r, &q); p != nil {
		return p
	}
	if q.Enabled == nil {
		return badRequest("enabled is missing: true or false.")
	}
	if _, ok := s.declaredKey(r.PathValue("id")); ok {
		return owned("key")
	}
	k, err := s.Identities.EnableKey(r.Context(), r.PathValue("id"), *q.Enabled)
	if err != nil {
		return s.trouble(err)
	}
	send(w, http.StatusOK, "application/json", s.storedKey(k))
	return nil
}

func (s *Server) deleteKey(w http.ResponseWriter, r *http.Request) *problem {
	if _, ok := s.declaredKey(r.PathValue("id")); ok {
		return owned("key")
	}
	if err := s.Identities.RevokeKey(r.Context(), r.PathValue("id")); err != nil {
		return s.trouble(err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) rotateKey(w http.ResponseWriter, r *http.Request) *problem {
	var q Rotation
	if r.ContentLength != 0 {
		if p := readBody(w, r, &q); p != nil {
			return p
		}
	}
	overlap := defaultOverlap
	if q.Overlap != "" {
		d, err := config.ParseDuration(q.Overlap)
		if err != nil {
			return badRequest("overlap " + q.Overlap + " " + err.Error() + ".")
		}
		overlap = d.Duration
	}
	if _, ok := s.declaredKey(r.PathValue("id")); ok {
		return owned("key")
	}
	if p := s.orphaned(r); p != nil {
		return p
	}
	next, text, old, err := s.Identities.RotateKey(r.Context(), r.PathValue("id"), overlap)
	if err != nil {
		return s.trouble(err)
	}
	was := s.storedKey(old)
	s.sendNew(w, next, text, &was)
	return nil
}

// orphaned is the problem with a key whose client is gone: a successor would be refused
// as it is.
func (s *Server) orphaned(r *http.Request) *problem {
	k, err := s.Identities.Key(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil // who asked has the same error, or a better one
	}
	if s.storedKey(k).State != keyOrphaned {
		return nil
	}
	return conflict("The client "+k.Client+" that the key was made for is not there any more; revoke the key, and make one for a client that is.", ownedByAPI)
}
