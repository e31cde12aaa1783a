package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth"
	"github.com/sluice-gateway/sluice/internal/config"
)

// Clients and keys have two owners, side by side. What the configuration declares is
// shown here and changed there; what was made here is kept in the store that gateways
// share, or in state.dir. Keys can be made here for clients of either. A client that
// the configuration declares hides one of the same id that was made here.

// The owners.
const (
	ownedByConfig = "config"
	ownedByAPI    = "api"
)

// Client is a client, of either owner.
type Client struct {
	ID          string         `json:"id"`
	Owner       string         `json:"owner"`
	Plan        string         `json:"plan,omitempty"`
	Roles       []string       `json:"roles,omitempty"`
	Permissions []string       `json:"permissions,omitempty"`
	Attributes  map[string]any `json:"attributes,omitempty"`
	CreatedAt   *time.Time     `json:"created_at,omitempty"` // not of one that the configuration declares
}

// ClientList is the answer of GET /v1/clients.
type ClientList struct {
	Clients []Client `json:"clients"`
}

// ClientRequest is the body of POST /v1/clients.
type ClientRequest struct {
	ID          string         `json:"id"`
	Plan        string         `json:"plan,omitempty"`
	Roles       []string       `json:"roles,omitempty"`
	Permissions []string       `json:"permissions,omitempty"`
	Attributes  map[string]any `json:"attributes,omitempty"`
}

// ClientChange is the body of PATCH /v1/clients/{id}: what is there replaces what was,
// null removes it (RFC 7396, but for attributes, which are replaced whole).
type ClientChange struct {
	Plan        *string         `json:"plan,omitempty"`
	Roles       *[]string       `json:"roles,omitempty"`
	Permissions *[]string       `json:"permissions,omitempty"`
	Attributes  *map[string]any `json:"attributes,omitempty"`
}

const (
	// maxIdentity is how large a body about a client, a key or a purge may be.
	maxIdentity = 32 << 10
	// maxAliased is how large it may be with all that aliases in it stand for.
	maxAliased = 256 << 10
)

// idOf finds the template of a path that has an id in it, such as /v1/keys/{id}/rotate,
// and the id. Ids may have slashes in them, encoded; those of declared keys may also
// stand as the lists show them, config:acme/current.
func idOf(r *http.Request) (template, id string) {
	path := r.URL.EscapedPath()
	for _, prefix := range []string{"/v1/clients/", "/v1/keys/"} {
		rest, ok := strings.CutPrefix(path, prefix)
		if !ok {
			continue
		}
		segment, tail, more := strings.Cut(rest, "/")
		if strings.HasPrefix(rest, "config:") {
			segment, more = strings.CutSuffix(rest, "/rotate")
			tail = "rotate"
		}
		id, err := url.PathUnescape(segment)
		if err != nil || id == "" {
			break
		}
		if template = prefix + "{id}"; more {
			template += "/" + tail
		}
		return template, id
	}
	return r.URL.Path, ""
}

// readBody reads a body of JSON or YAML into v, strictly.
func readBody(w http.ResponseWriter, r *http.Request, v any) *problem {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxIdentity))
	if err != nil {
		return unreadable(err, "32 KiB")
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); strings.HasSuffix(kind, "yaml") && len(bytes.TrimSpace(text)) > 0 {
		if text, err = config.ToJSON(text, maxAliased); err != nil {
			first, _, _ := strings.Cut(err.Error(), "\n")
			first, _, _ = strings.Cut(first, " (config.")
			return badRequest("The body cannot be read: " + strings.TrimPrefix(first, "config:") + ".")
		}
	}
	body := json.NewDecoder(bytes.NewReader(text))
	body.DisallowUnknownFields()
	if err := body.Decode(v); err != nil {
		return unreadable(err, "32 KiB")
	}
	if _, err := body.Token(); !errors.Is(err, io.EOF) {
		return badRequest("There is more than one document in the body.")
	}
	return nil
}

// trouble is the problem with a client or key that the directory has.
func (s *Server) trouble(err error) *problem {
	switch {
	case errors.Is(err, auth.ErrNotFound):
		p := notFound()
		p.Detail = "There is no such client or key."
		return p
	case errors.Is(err, auth.ErrTaken):
		return conflict("There is such a client already; PATCH /v1/clients/{id} changes it.", ownedByAPI)
	case errors.Is(err, auth.ErrRotated):
		_, successor, _ := strings.Cut(err.Error(), ": its successor is ")
		return conflict("The key was rotated already; the key to rotate is its successor, "+successor+".", ownedByAPI)
	case errors.Is(err, auth.ErrEnded):
		return conflict("The key is revoked, disabled or expired; make another one.", ownedByAPI)
	case errors.Is(err, auth.ErrBusy):
		return conflict("It is being changed by others; try again.", ownedByAPI)
	case errors.Is(err, auth.ErrNoStore):
		p := unavailable()
		p.Detail = "There is no place to keep clients and keys, and nothing was changed: set state.dir, or state.redis, in the configuration and start the gateway again."
		return p
	}
	s.Log.Warn("clients and keys cannot be read or changed", "cause", err)
	p := unavailable()
	p.Detail = "The store of clients and keys cannot be asked now, and nothing is acknowledged; the log says why."
	return p
}

// declared returns a client of the running configuration.
func (s *Server) declared(id string) (*config.Client, bool) {
	if f := s.Configuration.Running(); f != nil {
		if i := slices.IndexFunc(f.Clients, func(c config.Client) bool { return c.ID == id }); i >= 0 {
			return &f.Clients[i], true
		}
	}
	return nil, false
}

// owned is the problem with changing a client or key of the configuration.
func owned(what string) *problem {
	return conflict("The configuration declares this "+what+"; change it there.", ownedByConfig)
}

func declaredClient(c *config.Client) Client {
	return Client{ID: c.ID, Owner: ownedByConfig, Plan: c.Plan, Roles: c.Roles, Permissions: c.Permissions, Attributes: c.Attributes}
}

func storedClient(c auth.Client) Client {
	out := declaredClient(&c.Client)
	out.Owner, out.CreatedAt = ownedByAPI, &c.CreatedAt
	return out
}

// everybody is the clients of both owners, by id. Without a store there are those of
// the configuration.
func (s *Server) everybody() ([]Client, error) {
	var all []Client
	f := s.Configuration.Running()
	for i := range f.Clients {
		all = append(all, declaredClient(&f.Clients[i]))
	}
	stored, err := s.Identities.Clients()
	if err != nil && !errors.Is(err, auth.ErrNoStore) {
		return nil, err
	}
	for _, c := range stored {
		if _, hidden := s.declared(c.ID); !hidden {
			all = append(all, storedClient(c))
		}
	}
	slices.SortFunc(all, func(a, b Client) int { return strings.Compare(a.ID, b.ID) })
	return all, nil
}

func (s *Server) getClients(w http.ResponseWriter, _ *http.Request) *problem {
	if s.Configuration.Running() == nil {
		return notReady()
	}
	all, err := s.everybody()
	if err != nil {
		return s.trouble(err)
	}
	if all == nil {
		all = []Client{}
	}
	send(w, http.StatusOK, "application/json", ClientList{all})
	return nil
}

func (s *Server) getClient(w http.ResponseWriter, r *http.Request) *problem {
	if c, ok := s.declared(r.PathValue("id")); ok {
		send(w, http.StatusOK, "application/json", declaredClient(c))
		return nil
	}
	c, err := s.Identities.Client(r.PathValue("id"))
	if errors.Is(err, auth.ErrNoStore) {
		err = auth.ErrNotFound
	}
	if err != nil {
		return s.trouble(err)
	}
	send(w, http.StatusOK, "application/json", storedClient(c))
	return nil
}

func (s *Server) postClient(w http.ResponseWriter, r *http.Request) *problem {
	var q ClientRequest
	if p := readBody(w, r, &q); p != nil {
		return p
	}
	c := config.Client{ID: q.ID, Plan: q.Plan, Roles: q.Roles, Permissions: q.Permissions, Attributes: q.Attributes}
	if err := validName("id", q.ID); err != nil {
		return badRequest(sentence(err.Error()))
	}
	if err := s.fits(&c); err != nil {
		return badRequest(sentence(err.Error()))
	}
	if _, ok := s.declared(q.ID); ok {
		return owned("client")
	}
	made, err := s.Identities.CreateClient(r.Context(), c)
	if err != nil {
		return s.trouble(err)
	}
	w.Header().Set("Location", "/v1/clients/"+url.PathEscape(made.ID))
	send(w, http.StatusCreated, "application/json", storedClient(made))
	return nil
}

func (s *Server) patchClient(w http.ResponseWriter, r *http.Request) *problem {
	var q map[string]json.RawMessage
	if p := readBody(w, r, &q); p != nil {
		return p
	}
	id := r.PathValue("id")
	if _, ok := s.declared(id); ok {
		return owned("client")
	}
	var wrong error // of what was sent
	made, err := s.Identities.ChangeClient(r.Context(), id, func(c *config.Client) error {
		if wrong = merge(c, q); wrong == nil {
			wrong = s.fits(c)
		}
		return wrong
	})
	switch {
	case wrong != nil:
		return badRequest(sentence(wrong.Error()))
	case err != nil:
		return s.trouble(err)
	}
	send(w, http.StatusOK, "application/json", storedClient(made))
	return nil
}

// merge changes c by the members of a ClientChange.
func merge(c *config.Client, change map[string]json.RawMessage) error {
	for name, value := range change {
		var to any
		switch name {
		case "plan":
			c.Plan, to = "", &c.Plan
		case "roles":
			c.Roles, to = nil, &c.Roles
		case "permissions":
			c.Permissions, to = nil, &c.Permissions
		case "attributes":
			c.Attributes, to = nil, &c.Attributes
		default:
			return fmt.Errorf("a client has no %q that can be changed", name)
		}
		if err := json.Unmarshal(value, to); err != nil {
			return fmt.Errorf("%s cannot be read: %w", name, err)
		}
	}
	return nil
}

func (s *Server) deleteClient(w http.ResponseWriter, r *http.Request) *problem {
	if _, ok := s.declared(r.PathValue("id")); ok {
		return owned("client")
	}
	if err := s.Identities.DeleteClient(r.Context(), r.PathValue("id")); err != nil {
		return s.trouble(err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// fits checks that the running configuration has the plan and the roles of a client,
// and that its texts are ones.
func (s *Server) fits(c *config.Client) error {
	f := s.Configuration.Running()
	if f == nil {
		return errors.New("the gateway has no configuration yet")
	}
	if c.Plan != "" && f.Plans[c.Plan] == nil {
		return fmt.Errorf("the configuration has no plan %q", c.Plan)
	}
	for _, role := range c.Roles {
		if f.Roles[role] == nil {
			return fmt.Errorf("the configuration has no role %q", role)
		}
	}
	return validPermissions(c.Permissions)
}

func validPermissions(list []string) error {
	for _, p := range list {
		if err := validName("a permission", p); err != nil {
			return err
		}
	}
	return nil
}

// validName checks what the configuration would accept as a name.
func validName(what, text string) error {
	if text == "" || len(text) > 128 {
		return fmt.Errorf("%s must have 1 to 128 characters", what)
	}
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return fmt.Errorf(`%s must be printable ASCII without " and \`, what)
		}
	}
	if strings.TrimSpace(text) != text {
		return fmt.Errorf("%s must not begin or end with a space", what)
	}
	return nil
}
