package admin

import (
	"context"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/internal/audit"
)

// What the audit log has of the admin API. Of each request that may change something there
// are two lines: one with `stage: intent`, which is on disk before anything is done, and
// one with `stage: outcome` and the status. The second follows the answer by some
// milliseconds: an intent without an outcome is what a crash leaves, and says that the
// change may have been made. Of requests that do not pass the guard there is one line.
//
// Bodies are never in it. What was made or changed is the target: the path, and of
// something new the Location of the answer.

// auditTimeout is how long a change waits for its line to be on disk.
const auditTimeout = 5 * time.Second

// audited puts the audit log in front of every endpoint that changes something.
func (s *Server) audited() {
	if s.Audit == nil {
		return
	}
	for _, list := range s.endpoints {
		for i := range list {
			if list[i].changes() {
				list[i].serve = s.recorded(list[i])
			}
		}
	}
}

// changes reports whether requests to an endpoint may change something.
func (e *endpoint) changes() bool {
	return e.method != http.MethodGet && e.path != "/v1/explain"
}

// recorded is what an endpoint serves, between its two lines.
func (s *Server) recorded(e endpoint) func(http.ResponseWriter, *http.Request) *problem {
	return func(w http.ResponseWriter, r *http.Request) (p *problem) {
		event := s.event(&e, w, r)
		ctx, stop := context.WithTimeout(r.Context(), auditTimeout)
		err := s.Audit.Commit(ctx, staged(event, "intent", nil))
		stop()
		if err != nil {
			s.Log.Error("the admin API changed nothing: the audit log cannot be written", "id", event.Request, "what", event.Kind, "cause", err)
			event.Status, event.Reason = http.StatusServiceUnavailable, "the audit log could not be written: nothing was changed"
			s.Audit.Write(staged(event, "outcome", nil))
			return unrecorded()
		}
		answer := &watchedWriter{ResponseWriter: w}
		event.Status = http.StatusInternalServerError // of a panic
		defer func() {
			last := staged(event, "outcome", w.Header())
			maps.Copy(last.Detail, answer.detail)
			s.Audit.Write(last)
		}()
		p = e.serve(answer, r)
		switch at := w.Header().Get("Location"); {
		case p != nil:
			event.Status, event.Reason = p.Status, p.Code
			if p.Status == http.StatusRequestEntityTooLarge { // which net/http would say, could it see its own writer
				w.Header().Set("Connection", "close")
			}
		case at != "":
			event.Target = at
			fallthrough
		default:
			event.Status = max(answer.status, http.StatusOK)
		}
		return p
	}
}

// event says who asks for what.
func (s *Server) event(e *endpoint, w http.ResponseWriter, r *http.Request) audit.Event {
	event := audit.Event{
		Kind: "admin." + e.method + " " + e.path, Actor: "loopback", Address: peer(r),
		Request: w.Header().Get("X-Request-Id"), Target: r.URL.Path,
	}
	if s.guarded() {
		event.Actor = "token"
	}
	if r.URL.RawQuery != "" { // only parameters that the endpoint takes
		event.Target += "?" + r.URL.RawQuery
	}
	return event
}

// staged is an event at one of its two stages. header is that of the answer, which
// may name the version that was made.
func staged(e audit.Event, stage string, header http.Header) audit.Event {
	e.Detail = map[string]any{"stage": stage}
	if tag := header.Get("ETag"); tag != "" && e.Status < http.StatusMultipleChoices {
		e.Detail["etag"] = tag
	}
	return e
}

// refusals notes requests that do not pass the guard.
func (s *Server) refusals(next http.Handler) http.Handler {
	if s.Audit == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		if slices.ContainsFunc(s.endpoints[r.URL.Path], func(e endpoint) bool { return e.open }) {
			return
		}
		p := s.guard(r)
		if p == nil {
			return
		}
		kind := audit.Refused
		if p.Status == http.StatusForbidden {
			kind = audit.Forbidden
		}
		s.Audit.Write(audit.Event{
			Kind: kind, Address: peer(r), Request: w.Header().Get("X-Request-Id"),
			Target: r.Method + " " + r.URL.Path, Status: p.Status, Reason: "admin API: " + p.Detail,
		})
	})
}

// peer is who has opened the connection.
func peer(r *http.Request) netip.Addr {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{} // of a test
	}
	return a.Addr().Unmap()
}

// watchedWriter knows the status that was sent.
type watchedWriter struct {
	http.ResponseWriter
	status int            // 0: 200, as soon as something is sent
	detail map[string]any // for the line of the outcome
}

// note adds to the line of the outcome what was asked for.
func (w *watchedWriter) note(name string, value any) {
	if w.detail == nil {
		w.detail = map[string]any{}
	}
	w.detail[name] = value
}

// WriteHeader notes the status of the answer.
func (w *watchedWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *watchedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// unrecorded is the answer while nothing can be changed because nothing can be recorded.
func unrecorded() *problem {
	p := unavailable()
	p.Detail = "The audit log cannot be written, and audit.on_fault is closed: nothing was changed. Make room where audit.file is; the log says why."
	return p
}
