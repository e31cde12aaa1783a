package demo

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Bounds on what the backend does for one request.
const (
	userCount = 1000
	pageSize  = 20
	maxBody   = 1 << 20 // of what is parsed, bytes
	maxBytes  = 1 << 30 // of /bytes/{n}
	maxEvents = 1000
	maxWait   = time.Minute
)

// Backend returns the sample service.
//
//	GET    /users?page=N     twenty users
//	POST   /users            201, the posted object with a user_id
//	GET    /users/{id}       one user, 1 to 1000, about 300 bytes
//	PUT    /users/{id}       the posted object with the user_id
//	DELETE /users/{id}       204
//	GET    /names?page=N     the same as /users, names only
//	any    /echo, /echo/…    the request as it came in, as JSON
//	GET    /events           server-sent events: ?count= (10) ?every= (200, ms)
//	GET    /slow?ms=N        an answer after N ms, at most a minute
//	GET    /bytes/{n}        n bytes, at most 1 GiB: byte i is i mod 251
//	POST   /upload           the length and SHA-256 of the body
//	GET    /ws               a WebSocket that sends every message back
//	any    /status/{code}    that status, 200 to 599
//	GET    /healthz          ok
//
// Everything is there a second time below /canary, where served_by and the
// header X-Backend say "canary" instead of "stable".
func Backend() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", service("stable"))
	mux.Handle("/canary/", http.StripPrefix("/canary", service("canary")))
	return mux
}

// backend is the service under one name.
type backend struct{ name string }

func service(name string) http.Handler {
	b := backend{name}
	mux := http.NewServeMux()
	for pattern, handle := range map[string]http.HandlerFunc{
		"GET /users":         b.listUsers,
		"POST /users":        b.createUser,
		"GET /users/{id}":    b.getUser,
		"PUT /users/{id}":    b.putUser,
		"DELETE /users/{id}": b.deleteUser,
		"GET /names":         b.listNames,
		"/echo":              b.echo,
		"/echo/":             b.echo,
		"GET /events":        b.events,
		"GET /slow":          b.slow,
		"GET /bytes/{n}":     b.bytes,
		"POST /upload":       b.upload,
		"GET /ws":            b.websocket,
		"/status/{code}":     b.status,
		"GET /healthz":       b.healthz,
	} {
		mux.HandleFunc(pattern, handle)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Backend", name)
		mux.ServeHTTP(w, r)
	})
}

// user is one of the sample users, in the spelling that many backends have and
// that clients wish were another.
type user struct {
	UserID    string  `json:"user_id"`
	FirstName string  `json:"first_name"`
	LastName  string  `json:"last_name"`
	Email     string  `json:"email"`
	CreatedAt int64   `json:"created_at"` // unix seconds
	Profile   profile `json:"profile"`
	ServedBy  string  `json:"served_by"`
}

type profile struct {
	Language    string `json:"language"`
	TimeZone    string `json:"time_zone"`
	LoginCount  int    `json:"login_count"`
	IsVerified  bool   `json:"is_verified"`
	LastLoginAt int64  `json:"last_login_at"` // unix seconds
}

// userNumber makes the user with a number from 1 to userCount.
func (b backend) userNumber(n int) user {
	firsts := [...]string{"Ada", "Grace", "Alan", "Edsger", "Barbara", "Donald", "Radia", "Ken"}
	lasts := [...]string{"Lovelace", "Hopper", "Turing", "Dijkstra", "Liskov", "Knuth", "Perlman", "Thompson", "Kay"}
	first, last := firsts[n%len(firsts)], lasts[n%len(lasts)]
	const epoch, day = 1_700_000_000, 24 * 60 * 60
	return user{
		UserID: strconv.Itoa(n), FirstName: first, LastName: last,
		Email:     strings.ToLower(first + "." + last + strconv.Itoa(n) + "@example.com"),
		CreatedAt: epoch + int64(n)*day,
		Profile:   profile{Language: "en", TimeZone: "Europe/London", LoginCount: 7 * n % 100, IsVerified: n%3 != 0, LastLoginAt: epoch + int64(n)*day + 3600},
		ServedBy:  b.name,
	}
}

func (b backend) getUser(w http.ResponseWriter, r *http.Request) {
	if n, ok := b.userID(w, r); ok {
		b.send(w, http.StatusOK, b.userNumber(n))
	}
}

// userID reads the user's number from the path, or answers 404.
func (b backend) userID(w http.ResponseWriter, r *http.Request) (int, bool) {
	n, err := strconv.Atoi(r.PathValue("id"))
	if err != nil || n < 1 || n > userCount {
		b.fail(w, http.StatusNotFound, "there is no user %q; there are 1 to %d", r.PathValue("id"), userCount)
		return 0, false
	}
	return n, true
}

func (b backend) listUsers(w http.ResponseWriter, r *http.Request) {
	if page, users, ok := b.page(w, r); ok {
		b.send(w, http.StatusOK, map[string]any{"page": page, "pages": userCount / pageSize, "users": users})
	}
}

func (b backend) listNames(w http.ResponseWriter, r *http.Request) {
	page, users, ok := b.page(w, r)
	if !ok {
		return
	}
	names := make([]string, len(users))
	for i, u := range users {
		names[i] = u.FirstName + " " + u.LastName
	}
	b.send(w, http.StatusOK, map[string]any{"page": page, "names": names, "served_by": b.name})
}

// page returns the users of the page that is asked for, or answers 400.
func (b backend) page(w http.ResponseWriter, r *http.Request) (page int, users []user, ok bool) {
	page, ok = b.number(w, r, "page", 1, 1, userCount/pageSize)
	for i := range pageSize {
		users = append(users, b.userNumber((page-1)*pageSize+i+1))
	}
	return page, users, ok
}

func (b backend) createUser(w http.ResponseWriter, r *http.Request) {
	if object, ok := b.object(w, r); ok {
		id := strconv.Itoa(userCount + 1)
		object["user_id"], object["served_by"] = id, b.name
		w.Header().Set("Location", "/users/"+id)
		b.send(w, http.StatusCreated, object)
	}
}

func (b backend) putUser(w http.ResponseWriter, r *http.Request) {
	n, ok := b.userID(w, r)
	if !ok {
		return
	}
	if object, ok := b.object(w, r); ok {
		object["user_id"], object["served_by"] = strconv.Itoa(n), b.name
		b.send(w, http.StatusOK, object)
	}
}

func (b backend) deleteUser(w http.ResponseWriter, r *http.Request) {
	if _, ok := b.userID(w, r); ok {
		w.WriteHeader(http.StatusNoContent)
	}
}

// object reads a JSON object, or answers 400 or 413.
func (b backend) object(w http.ResponseWriter, r *http.Request) (map[string]any, bool) {
	var object map[string]any
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.UseNumber()
	err := d.Decode(&object)
	switch tooLong := (*http.MaxBytesError)(nil); {
	case errors.As(err, &tooLong):
		b.fail(w, http.StatusRequestEntityTooLarge, "the body is longer than %d bytes", tooLong.Limit)
	case err != nil || object == nil:
		b.fail(w, http.StatusBadRequest, "the body is no JSON object")
	default:
		return object, true
	}
	return nil, false
}

// echoed is a request as it came in.
type echoed struct {
	Method   string              `json:"method"`
	Path     string              `json:"path"` // as sent, percent-encoded
	Query    string              `json:"query"`
	Host     string              `json:"host"`
	Protocol string              `json:"protocol"`
	Headers  map[string][]string `json:"headers"`
	Trailers map[string][]string `json:"trailers,omitempty"`
	Body     int64               `json:"body_bytes"`
	ServedBy string              `json:"served_by"`
}

func (b backend) echo(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		return // the client has gone; there is nobody to tell
	}
	path, _, _ := strings.Cut(r.RequestURI, "?")
	b.send(w, http.StatusOK, echoed{
		Method: r.Method, Path: path, Query: r.URL.RawQuery, Host: r.Host, Protocol: r.Proto,
		Headers: r.Header, Trailers: r.Trailer, Body: n, ServedBy: b.name,
	})
}

func (b backend) events(w http.ResponseWriter, r *http.Request) {
	count, ok := b.number(w, r, "count", 10, 0, maxEvents)
	if !ok {
		return
	}
	every, ok := b.number(w, r, "every", 200, 1, int(maxWait/time.Millisecond))
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	c := http.NewResponseController(w)
	tick := time.NewTicker(time.Duration(every) * time.Millisecond)
	defer tick.Stop()
	for i := range count {
		fmt.Fprintf(w, "id: %d\nevent: tick\ndata: {\"tick\":%d,\"served_by\":%q}\n\n", i+1, i+1, b.name)
		if c.Flush() != nil {
			return
		}
		if i == count-1 {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

func (b backend) slow(w http.ResponseWriter, r *http.Request) {
	ms, ok := b.number(w, r, "ms", 1000, 0, int(maxWait/time.Millisecond))
	if !ok {
		return
	}
	wait := time.NewTimer(time.Duration(ms) * time.Millisecond)
	defer wait.Stop()
	select {
	case <-wait.C:
		b.send(w, http.StatusOK, map[string]any{"waited_ms": ms, "served_by": b.name})
	case <-r.Context().Done():
	}
}

func (b backend) bytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.PathValue("n"), 10, 64)
	if err != nil || n < 0 || n > maxBytes {
		b.fail(w, http.StatusBadRequest, "%q is no number of bytes from 0 to %d", r.PathValue("n"), maxBytes)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	// A whole number of periods, so that pieces follow each other without a seam.
	piece := make([]byte, 251*256)
	for i := range piece {
		piece[i] = byte(i % 251)
	}
	for n > 0 {
		sent, err := w.Write(piece[:min(n, int64(len(piece)))])
		if err != nil {
			return
		}
		n -= int64(sent)
	}
}

func (b backend) upload(w http.ResponseWriter, r *http.Request) {
	hash := sha256.New()
	n, err := io.Copy(hash, r.Body)
	if err != nil {
		return // the client has gone; there is nobody to tell
	}
	b.send(w, http.StatusOK, map[string]any{"bytes": n, "sha256": hex.EncodeToString(hash.Sum(nil)), "served_by": b.name})
}

func (b backend) status(w http.ResponseWriter, r *http.Request) {
	code, err := strconv.Atoi(r.PathValue("code"))
	switch {
	case err != nil || code < 200 || code > 599:
		b.fail(w, http.StatusBadRequest, "%q is no status from 200 to 599", r.PathValue("code"))
	case code == http.StatusNoContent || code == http.StatusNotModified:
		w.WriteHeader(code)
	default:
		b.send(w, code, map[string]any{"status": code, "served_by": b.name})
	}
}

func (b backend) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "ok\n")
}

// number reads a query parameter, or answers 400.
func (b backend) number(w http.ResponseWriter, r *http.Request, name string, otherwise, low, high int) (int, bool) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return otherwise, true
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		b.fail(w, http.StatusBadRequest, "%s=%q is no number from %d to %d", name, text, low, high)
		return low, false
	}
	return n, true
}

func (b backend) fail(w http.ResponseWriter, status int, format string, args ...any) {
	b.send(w, status, map[string]any{"error": fmt.Sprintf(format, args...), "served_by": b.name})
}

// send writes one line of JSON with its length.
func (b backend) send(w http.ResponseWriter, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	text = append(text, '\n')
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = w.Write(text) // a client that has gone needs no answer
}
