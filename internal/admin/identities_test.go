package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/auth"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/store"
)

// drawer keeps records in memory.
type drawer struct {
	mu      sync.Mutex
	records map[string]store.Record
	version int64
	away    bool
}

func (d *drawer) Watch(func([]string)) {} // there is nobody else

func (d *drawer) lock() error {
	d.mu.Lock()
	if d.away {
		return store.ErrUnavailable
	}
	return nil
}

func (d *drawer) fail(away bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.away = away
}

func (d *drawer) Get(_ context.Context, key string) (store.Record, error) {
	err := d.lock()
	defer d.mu.Unlock()
	if err != nil {
		return store.Record{}, err
	}
	r, ok := d.records[key]
	if !ok {
		return r, store.ErrNoRecord
	}
	return r, nil
}

func (d *drawer) Apply(_ context.Context, changes []store.Change) (int64, error) {
	err := d.lock()
	defer d.mu.Unlock()
	if err != nil {
		return 0, err
	}
	for _, c := range changes {
		if c.If != store.Always && d.records[c.Key].Version != c.If {
			return 0, store.ErrConflict
		}
	}
	d.version++
	for _, c := range changes {
		if c.Value == nil {
			delete(d.records, c.Key)
		} else {
			d.records[c.Key] = store.Record{Key: c.Key, Value: c.Value, Version: d.version}
		}
	}
	return d.version, nil
}

func (d *drawer) All(_ context.Context, prefix string, yield func(store.Record) bool) error {
	err := d.lock()
	all := maps.Clone(d.records)
	d.mu.Unlock()
	if err != nil {
		return err
	}
	for key, r := range all {
		if strings.HasPrefix(key, prefix) && !yield(r) {
			break
		}
	}
	return nil
}

// keep gives the node a place for clients and keys.
func (n *node) keep(t *testing.T) {
	n.records = &drawer{records: map[string]store.Record{}}
	e := auth.New(auth.Options{Records: n.records})
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	n.directory = e.Directory()
}

var asJSON = []string{"Content-Type", "application/json"}

// checkIdentities brings about every documented answer about clients and keys.
func checkIdentities(t *testing.T, n *node, s *Server, check func(s *Server, method, target, body string, header ...string)) {
	text := strings.TrimSuffix(document, "\n") + "\nclients: [{id: acme, keys: [{value: a-key-of-twenty-characters}]}]\n"
	was := n.running
	f, found := n.Parse([]byte(text))
	if found.Err() != nil {
		t.Fatal(found.Err())
	}
	n.running = f
	huge := `{"id": "` + strings.Repeat("x", maxIdentity) + `"}`
	for _, c := range []struct{ method, target, body string }{
		{"GET", "/v1/clients", ""},
		{"POST", "/v1/clients", `{"id": "made"}`},
		{"POST", "/v1/clients", `{"id": "made"}`},
		{"POST", "/v1/clients", `{"id": ""}`},
		{"POST", "/v1/clients", huge},
		{"GET", "/v1/clients/made", ""},
		{"PATCH", "/v1/clients/made", `{"attributes": {"a": 1}}`},
		{"PATCH", "/v1/clients/made", `{"plan": "none"}`},
		{"PATCH", "/v1/clients/acme", `{}`},
		{"PATCH", "/v1/clients/nobody", `{}`},
		{"PATCH", "/v1/clients/made", huge},
		{"DELETE", "/v1/clients/acme", ""},
		{"GET", "/v1/keys", ""},
		{"GET", "/v1/keys?client=nobody", ""},
		{"GET", "/v1/keys?revoked=yes", ""},
		{"POST", "/v1/keys", `{"client": "made"}`},
		{"POST", "/v1/keys", `{"client": "nobody"}`},
		{"POST", "/v1/keys", huge},
		{"PATCH", "/v1/keys/config:acme%2F0", `{"enabled": false}`},
		{"DELETE", "/v1/keys/config:acme/0", ""},
		{"POST", "/v1/keys/config:acme/0/rotate", "{}"},
		{"DELETE", "/v1/keys/config:acme%2F0", ""},
		{"PATCH", "/v1/keys/nothing", `{"enabled": false}`},
		{"PATCH", "/v1/keys/nothing", huge},
		{"POST", "/v1/keys/config:acme%2F0/rotate", "{}"},
		{"POST", "/v1/keys/nothing/rotate", `{"overlap": "soon"}`},
		{"POST", "/v1/keys/nothing/rotate", "{}"},
		{"POST", "/v1/keys/nothing/rotate", huge},
	} {
		check(s, c.method, c.target, c.body, asJSON...)
	}
	var made NewKey
	if err := json.Unmarshal([]byte(s.ask("POST", "/v1/keys", `{"client": "made"}`, asJSON...).body), &made); err != nil {
		t.Fatal(err)
	}
	check(s, "GET", "/v1/keys/"+made.ID, "")
	check(s, "PATCH", "/v1/keys/"+made.ID, `{"enabled": true}`, asJSON...)
	check(s, "POST", "/v1/keys/"+made.ID+"/rotate", "{}", asJSON...)
	for _, path := range []string{"/v1/clients", "/v1/clients/x", "/v1/keys", "/v1/keys/x", "/v1/keys/x/rotate"} {
		for _, method := range []string{"POST", "PATCH"} {
			if template, _ := idOf(request(method, path)); hasMethod(s, template, method) {
				check(s, method, path, "x", "Content-Type", "text/plain")
			}
		}
	}
	n.records.fail(true)
	check(s, "POST", "/v1/clients", `{"id": "other"}`, asJSON...)
	check(s, "PATCH", "/v1/clients/made", `{}`, asJSON...)
	check(s, "DELETE", "/v1/clients/made", "")
	check(s, "POST", "/v1/keys", `{"client": "made"}`, asJSON...)
	check(s, "PATCH", "/v1/keys/"+made.ID, `{"enabled": true}`, asJSON...)
	check(s, "DELETE", "/v1/keys/"+made.ID, "")
	check(s, "POST", "/v1/keys/"+made.ID+"/rotate", "{}", asJSON...)
	// Another gateway has never seen the store.
	blind := auth.New(auth.Options{Records: n.records})
	defer func() {
		if err := blind.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	own := s.Identities
	s.Identities = blind.Directory()
	for _, path := range []string{"/v1/clients", "/v1/clients/x", "/v1/keys", "/v1/keys/x"} {
		check(s, "GET", path, "")
	}
	s.Identities = own
	n.records.fail(false)
	check(s, "DELETE", "/v1/keys/"+made.ID, "")
	check(s, "DELETE", "/v1/clients/made", "")
	n.running = was
}

func request(method, path string) *http.Request {
	r, err := http.NewRequest(method, path, nil)
	if err != nil {
		panic(err)
	}
	return r
}

func hasMethod(s *Server, path, method string) bool {
	for _, e := range s.endpoints[path] {
		if e.method == method {
			return true
		}
	}
	return false
}

func TestClientsAndKeysOfBothOwners(t *testing.T) {
	const text = document + `
plans: {gold: {quota: {limit: 10, period: day}}}
roles: {reader: {permissions: ["users:read"]}}
clients:
  - {id: acme, plan: gold, keys: [{name: main, value: a-key-of-twenty-characters}, {value: another-of-twenty-characters, permissions: []}]}
`
	n := newNode(t, text)
	n.keep(t)
	s := start(t, n, config.Admin{})
	r := s.ask("POST", "/v1/clients", `{"id": "a/b", "plan": "gold", "roles": ["reader"], "attributes": {"tier": "gold"}}`, asJSON...)
	if c := decode[Client](t, r.body); r.status != 201 || r.header.Get("Location") != "/v1/clients/a%2Fb" || c.Owner != "api" || c.CreatedAt == nil || c.Plan != "gold" {
		t.Fatalf("%d %s", r.status, r.body)
	}
	all := decode[ClientList](t, s.ask("GET", "/v1/clients", "").body).Clients
	if len(all) != 2 || all[0].ID != "a/b" || all[0].Owner != "api" || all[1].ID != "acme" || all[1].Owner != "config" || all[1].CreatedAt != nil {
		t.Errorf("%+v", all)
	}
	if c := decode[Client](t, s.ask("GET", "/v1/clients/a%2Fb", "").body); c.ID != "a/b" || c.Attributes["tier"] != "gold" {
		t.Errorf("%+v", c)
	}
	r = s.ask("PATCH", "/v1/clients/a%2Fb", `{"roles": null, "permissions": ["users:*"]}`, "Content-Type", "application/merge-patch+json")
	if c := decode[Client](t, r.body); r.status != 200 || c.Plan != "gold" || c.Roles != nil || len(c.Permissions) != 1 || c.Attributes["tier"] != "gold" {
		t.Errorf("%d %s", r.status, r.body)
	}
	later := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	var made []NewKey
	for _, client := range []string{"a/b", "acme"} {
		r = s.ask("POST", "/v1/keys", fmt.Sprintf(`{"client": %q, "name": "ci", "permissions": ["users:read"], "expires_at": %q}`, client, later.Format(time.RFC3339)), asJSON...)
		k := decode[NewKey](t, r.body)
		if r.status != 201 || r.header.Get("Location") != "/v1/keys/"+k.ID || k.Client != client || k.Owner != "api" || !strings.HasPrefix(k.Key, "slk_"+k.ID+"_") || !k.ExpiresAt.Equal(later) || k.CreatedAt.IsZero() || !k.Enabled {
			t.Fatalf("%d %s", r.status, r.body)
		}
		made = append(made, k)
	}
	keys := decode[KeyList](t, s.ask("GET", "/v1/keys", "").body).Keys
	if got := fmt.Sprint(idsOf(keys)); got != fmt.Sprint([]string{made[0].ID, "config:acme/main", "config:acme/1", made[1].ID}) {
		t.Errorf("all: %s", got)
	}
	keys = decode[KeyList](t, s.ask("GET", "/v1/keys?client=a%2Fb", "").body).Keys
	if len(keys) != 1 || keys[0].ID != made[0].ID || keys[0].Permissions == nil || keys[0].LastUsedAt != nil {
		t.Errorf("of one: %+v", keys)
	}
	if k := decode[Key](t, s.ask("GET", "/v1/keys/config:acme%2F1", "").body); k.Owner != "config" || !k.Enabled || k.Permissions == nil || len(*k.Permissions) != 0 {
		t.Errorf("%+v", k)
	}
	if k := decode[Key](t, s.ask("PATCH", "/v1/keys/"+made[0].ID, `{"enabled": false}`, asJSON...).body); k.Enabled {
		t.Errorf("%+v", k)
	}
	if p := s.ask("POST", "/v1/keys/"+made[0].ID+"/rotate", `{}`, asJSON...).refused(t, 409, "conflict"); p.Owner != "api" {
		t.Errorf("%+v", p)
	}
	r = s.ask("POST", "/v1/keys/"+made[1].ID+"/rotate", `{"overlap": "10m"}`, asJSON...)
	next := decode[NewKey](t, r.body)
	if r.status != 201 || next.Name != "ci" || next.Key == made[1].Key || next.Replaces == nil || next.Replaces.ID != made[1].ID || !next.Replaces.ExpiresAt.Before(later) {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := s.ask("POST", "/v1/keys/"+next.ID+"/rotate", "", asJSON...); r.status != 201 {
		t.Errorf("with the default: %d %s", r.status, r.body)
	}
	for range 2 {
		if r := s.ask("DELETE", "/v1/keys/"+made[0].ID, ""); r.status != 204 || r.body != "" {
			t.Errorf("%d %s", r.status, r.body)
		}
	}
	if k := decode[Key](t, s.ask("GET", "/v1/keys/"+made[0].ID, "").body); k.RevokedAt == nil || k.Enabled {
		t.Errorf("revoked: %+v", k)
	}
	for query, want := range map[string]int{"": 0, "&revoked=0": 0, "&revoked=1": 1} {
		if keys := decode[KeyList](t, s.ask("GET", "/v1/keys?client=a%2Fb"+query, "").body).Keys; len(keys) != want {
			t.Errorf("%s: %+v", query, keys)
		}
	}
	for _, c := range []struct{ method, path, body string }{
		{"PATCH", "/v1/clients/acme", "{}"},
		{"DELETE", "/v1/clients/acme", ""},
		{"POST", "/v1/clients", `{"id": "acme"}`},
		{"PATCH", "/v1/keys/config:acme%2Fmain", `{"enabled": false}`},
		{"DELETE", "/v1/keys/config:acme%2Fmain", ""},
		{"POST", "/v1/keys/config:acme%2Fmain/rotate", "{}"},
	} {
		if p := s.ask(c.method, c.path, c.body, asJSON...).refused(t, 409, "conflict"); p.Owner != "config" {
			t.Errorf("%s %s: %+v", c.method, c.path, p)
		}
	}
	usage := decode[UsageList](t, s.ask("GET", "/v1/usage?client=a%2Fb&period=day", "").body).Usage
	if len(usage) != 2 || usage[0].Client != "a/b" || usage[0].Plan != "gold" { // the limiter of these tests always tells of acme
		t.Errorf("%+v", usage)
	}
	if r := s.ask("DELETE", "/v1/clients/a%2Fb", ""); r.status != 204 {
		t.Errorf("%d %s", r.status, r.body)
	}
	s.ask("GET", "/v1/clients/a%2Fb", "").refused(t, 404, "not_found")
	for path, r := range n.records.records {
		if strings.Contains(string(r.Value), made[0].Key) || strings.Contains(string(r.Value), made[0].Key[17:60]) {
			t.Errorf("%s has a key in it", path)
		}
	}
}

func idsOf(keys []Key) (ids []string) {
	for _, k := range keys {
		ids = append(ids, k.ID)
	}
	return ids
}

func TestBadClientsAndKeysAreRefused(t *testing.T) {
	n := newNode(t, document)
	n.keep(t)
	s := start(t, n, config.Admin{})
	if r := s.ask("POST", "/v1/clients", `{"id": "acme"}`, asJSON...); r.status != 201 {
		t.Fatal(r.body)
	}
	for _, c := range []struct{ method, path, body, detail string }{
		{"POST", "/v1/clients", `{}`, "id must have 1 to 128 characters."},
		{"POST", "/v1/clients", `{"id": "a\"b"}`, `id must be printable ASCII without " and \.`},
		{"POST", "/v1/clients", `{"id": " a"}`, "id must not begin or end with a space."},
		{"POST", "/v1/clients", `{"id": "a", "plan": "gold"}`, `The configuration has no plan "gold".`},
		{"POST", "/v1/clients", `{"id": "a", "roles": ["x"]}`, `The configuration has no role "x".`},
		{"POST", "/v1/clients", `{"id": "a", "permissions": [""]}`, "A permission must have 1 to 128 characters."},
		{"POST", "/v1/clients", `{"id": "a", "keys": []}`, `The body cannot be read: json: unknown field "keys".`},
		{"POST", "/v1/clients", `{"id": "a"} {}`, "There is more than one document in the body."},
		{"POST", "/v1/clients", ``, "The body is empty."},
		{"PATCH", "/v1/clients/acme", `{"id": "b"}`, `A client has no "id" that can be changed.`},
		{"PATCH", "/v1/clients/acme", `{"roles": "x"}`, "Roles cannot be read: json: cannot unmarshal string into Go value of type []string."},
		{"POST", "/v1/keys", `{}`, "A key needs a client: its id."},
		{"POST", "/v1/keys", `{"client": "acme", "expires_at": "2020-01-01T00:00:00Z"}`, "expires_at is over already."},
		{"POST", "/v1/keys", `{"client": "acme", "name": "\n"}`, `Name must be printable ASCII without " and \.`},
		{"PATCH", "/v1/keys/x", `{}`, "enabled is missing: true or false."},
		{"POST", "/v1/keys/x/rotate", `{"overlap": "soon"}`, "overlap soon is not a duration, try 5s, 500ms, 1h or 7d."},
	} {
		if p := s.ask(c.method, c.path, c.body, asJSON...).refused(t, 400, "bad_request"); p.Detail != c.detail {
			t.Errorf("%s %s %s: %s", c.method, c.path, c.body, p.Detail)
		}
	}
	for _, path := range []string{"/v1/keys/", "/v1/clients/", "/v1/keys/x/y", "/v1/keys/x/rotate/", "/v1/keys/%zz"} {
		if r := s.ask("POST", strings.ReplaceAll(path, "%zz", "%25"), "{}", asJSON...); r.status != 404 && r.status != 405 {
			t.Errorf("%s: %d", path, r.status)
		}
	}
	without := start(t, newNode(t, document), config.Admin{})
	for _, c := range [][3]string{{"POST", "/v1/clients", `{"id": "a"}`}, {"DELETE", "/v1/clients/a", ""}, {"DELETE", "/v1/keys/a", ""}} {
		if p := without.ask(c[0], c[1], c[2], asJSON...).refused(t, 503, "dependency_unavailable"); !strings.Contains(p.Detail, "set state.dir, or state.redis") {
			t.Errorf("%v: %s", c, p.Detail)
		}
	}
	if r := without.ask("GET", "/v1/clients", ""); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
}

func TestClientsAndKeysAreMadeFromYAMLToo(t *testing.T) {
	n := newNode(t, document)
	n.keep(t)
	s := start(t, n, config.Admin{})
	r := s.ask("POST", "/v1/clients", "id: acme\npermissions: [a, b]\nattributes:\n  tier: gold\n  seats: 7\n", asYAML...)
	if c := decode[Client](t, r.body); r.status != 201 || c.ID != "acme" || len(c.Permissions) != 2 || c.Attributes["tier"] != "gold" || c.Attributes["seats"] != 7.0 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	r = s.ask("PATCH", "/v1/clients/acme", "permissions: null\n", "Content-Type", "text/yaml")
	if c := decode[Client](t, r.body); r.status != 200 || c.Permissions != nil || c.Attributes["tier"] != "gold" {
		t.Errorf("%d %s", r.status, r.body)
	}
	r = s.ask("POST", "/v1/keys", "client: acme\nname: ci\nexpires_at: 2999-01-31T00:00:00Z\n", "Content-Type", "application/x-yaml")
	made := decode[NewKey](t, r.body)
	if r.status != 201 || made.Name != "ci" || made.ExpiresAt == nil || made.ExpiresAt.Year() != 2999 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	if r := s.ask("PATCH", "/v1/keys/"+made.ID, "enabled: true", asYAML...); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := s.ask("POST", "/v1/keys/"+made.ID+"/rotate", "overlap: 10m", asYAML...); r.status != 201 {
		t.Errorf("%d %s", r.status, r.body)
	}
	bomb := "a: &a [x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c]\ne: &e [*d, *d, *d, *d, *d, *d, *d, *d]\nf: [*e, *e, *e, *e]\n"
	for _, c := range []struct{ body, detail string }{
		{"", "The body is empty."},
		{" \n", "The body is empty."},
		{"id: [", "The body cannot be read: 1:"},
		{"id: a\nid: b", "The body cannot be read: 2:1:"},
		{"id: 7", "The body cannot be read: id is of another type than it should be, a number."},
		{"id: a\nsecret: b", `The body cannot be read: json: unknown field "secret".`},
		{"id: a\n---\nid: b", "The body cannot be read: 3:1: this begins a second document: one file holds one, remove the --- or move it to a file of its own."},
		{bomb, "The body cannot be read: it is too large to be written as JSON"},
	} {
		if p := s.ask("POST", "/v1/clients", c.body, asYAML...).refused(t, 400, "bad_request"); !strings.HasPrefix(p.Detail, c.detail) || strings.Contains(p.Detail, "\n") {
			t.Errorf("%q: %s", c.body, p.Detail)
		}
	}
}

func TestAKeyIsRotatedWithoutABody(t *testing.T) {
	n := newNode(t, document)
	n.keep(t)
	s := start(t, n, config.Admin{})
	s.ask("POST", "/v1/clients", `{"id": "acme"}`, asJSON...)
	made := decode[NewKey](t, s.ask("POST", "/v1/keys", `{"client": "acme"}`, asJSON...).body)
	path := "/v1/keys/" + made.ID + "/rotate"
	for _, kind := range []string{"application/x-www-form-urlencoded", "text/plain", ""} { // as browsers send for a form
		s.ask("POST", path, "", "Content-Type", kind).refused(t, 415, "unsupported_media_type")
	}
	s.ask("POST", path, "{}").refused(t, 415, "unsupported_media_type")
	s.ask("POST", "/v1/keys", "").refused(t, 415, "unsupported_media_type")
	r := s.ask("POST", path, "")
	next := decode[NewKey](t, r.body)
	if r.status != 201 || next.Replaces == nil || next.Replaces.ID != made.ID || next.Replaces.ExpiresAt == nil {
		t.Errorf("%d %s", r.status, r.body)
	}
}

// A key whose client has left the file is nobody's, and is shown so.
func TestAKeyOfAClientThatIsGone(t *testing.T) {
	n := newNode(t, document+"\nclients: [{id: acme}]\n")
	n.keep(t)
	s := start(t, n, config.Admin{})
	declared := n.running
	bare, found := n.Parse([]byte(document))
	if found.Err() != nil {
		t.Fatal(found.Err())
	}
	made := decode[NewKey](t, s.ask("POST", "/v1/keys", `{"client": "acme"}`, asJSON...).body)
	state := func(when, want string) {
		t.Helper()
		one := decode[Key](t, s.ask("GET", "/v1/keys/"+made.ID, "").body)
		all := decode[KeyList](t, s.ask("GET", "/v1/keys?revoked=1", "").body).Keys
		of := decode[KeyList](t, s.ask("GET", "/v1/keys?revoked=1&client=acme", "").body).Keys
		for i, k := range append(append([]Key{one}, all...), of...) {
			if k.ID == made.ID && k.State != want || len(of) == 0 {
				t.Errorf("%s: %d is %q, want %q", when, i, k.State, want)
			}
		}
	}
	state("declared", "live")
	n.running = bare
	state("it has left the file", "client_gone")
	s.ask("GET", "/v1/clients/acme", "").refused(t, 404, "not_found")
	if keys := decode[KeyList](t, s.ask("GET", "/v1/keys?client=acme", "").body).Keys; len(keys) != 1 { // what is left can be found
		t.Errorf("%+v", keys)
	}
	s.ask("GET", "/v1/keys?client=nobody", "").refused(t, 404, "not_found")
	if p := s.ask("POST", "/v1/keys/"+made.ID+"/rotate", "").refused(t, 409, "conflict"); p.Owner != "api" || !strings.HasPrefix(p.Detail, "The client acme that the key was made for is not there any more") {
		t.Errorf("%+v", p)
	}
	s.ask("POST", "/v1/keys", `{"client": "acme"}`, asJSON...).refused(t, 404, "not_found")
	if r := s.ask("POST", "/v1/clients", `{"id": "acme"}`, asJSON...); r.status != 201 {
		t.Fatal(r.body)
	}
	state("another has its id", "client_gone")
	s.ask("POST", "/v1/keys/"+made.ID+"/rotate", "").refused(t, 409, "conflict")
	fresh := decode[NewKey](t, s.ask("POST", "/v1/keys", `{"client": "acme"}`, asJSON...).body)
	if k := decode[Key](t, s.ask("GET", "/v1/keys/"+fresh.ID, "").body); k.State != "live" {
		t.Errorf("a key of the other: %+v", k)
	}
	n.running = declared
	state("it is in the file again", "live")
	s.ask("PATCH", "/v1/keys/"+made.ID, `{"enabled": false}`, asJSON...)
	state("disabled", "disabled")
	n.running = bare
	state("disabled, and gone again", "client_gone")
	if r := s.ask("DELETE", "/v1/keys/"+made.ID, ""); r.status != 204 {
		t.Error(r.body)
	}
	state("revoked", "revoked")
}
