package admin

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/sluice-gateway/sluice/internal/config"
)

// problemBase is followed by the code; that page describes each one.
const problemBase = "https://github.com/sluice-gateway/sluice/blob/main/docs/operations.md#"

// problem is an answer that is not what was asked for (RFC 9457).
type problem struct {
	Type     string             `json:"type"`
	Title    string             `json:"title"`
	Status   int                `json:"status"`
	Detail   string             `json:"detail"`
	Instance string             `json:"instance"` // the request id
	Code     string             `json:"code"`
	Errors   config.Diagnostics `json:"errors,omitempty"` // of a configuration
	Owner    string             `json:"owner,omitempty"`  // config or api, of 409

	allow string // of 405
	etag  string // of 412
}

func badRequest(detail string) *problem {
	return &problem{Status: http.StatusBadRequest, Code: "bad_request", Title: "Bad request", Detail: detail}
}

func forbidden(detail string) *problem {
	return &problem{Status: http.StatusForbidden, Code: "forbidden", Title: "Forbidden", Detail: detail}
}

func notFound() *problem {
	return &problem{
		Status: http.StatusNotFound, Code: "not_found", Title: "Not found",
		Detail: "The admin API has nothing here; GET /v1/openapi.json lists what it has.",
	}
}

func noClient(id string) *problem {
	p := notFound()
	p.Detail = "There is no client " + strconv.Quote(id) + ", neither declared by the configuration nor made through this API."
	return p
}

func notAllowed(allow string) *problem {
	return &problem{
		Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Title: "Method not allowed",
		Detail: "This path takes " + allow + ".", allow: allow,
	}
}

func tooLarge(limit string) *problem {
	return &problem{
		Status: http.StatusRequestEntityTooLarge, Code: "payload_too_large", Title: "Payload too large",
		Detail: "The body is larger than " + limit + ".",
	}
}

func notReady() *problem {
	return &problem{
		Status: http.StatusServiceUnavailable, Code: "not_ready", Title: "Not ready",
		Detail: "The gateway is starting or draining.",
	}
}

func stale(etag string) *problem {
	return &problem{
		Status: http.StatusPreconditionFailed, Code: "precondition_failed", Title: "Precondition failed",
		Detail: "Another configuration runs than the one that If-Match names; GET /v1/config has it.", etag: etag,
	}
}

func invalid(found config.Diagnostics) *problem {
	return &problem{
		Status: http.StatusUnprocessableEntity, Code: "config_invalid", Title: "Configuration not valid",
		Detail: "Nothing was changed.", Errors: found,
	}
}

func conflict(detail, owner string) *problem {
	return &problem{Status: http.StatusConflict, Code: "conflict", Title: "Conflict", Detail: detail, Owner: owner}
}

func internal(detail string) *problem {
	return &problem{Status: http.StatusInternalServerError, Code: "internal", Title: "Internal error", Detail: detail}
}

func unavailable() *problem {
	return &problem{
		Status: http.StatusServiceUnavailable, Code: "dependency_unavailable", Title: "Dependency unavailable",
		Detail: "What is shared in state.redis cannot be asked now; the log says why.",
	}
}

// write sends the problem; the request id is in the response's header.
func (p *problem) write(w http.ResponseWriter) {
	h := w.Header()
	p.Type, p.Instance = problemBase+p.Code, h.Get("X-Request-Id")
	switch p.Status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="sluice admin"`)
	case http.StatusMethodNotAllowed:
		h.Set("Allow", p.allow)
	case http.StatusPreconditionFailed:
		h.Set("ETag", p.etag)
	}
	send(w, p.Status, "application/problem+json", p)
}

// send writes v as JSON.
func send(w http.ResponseWriter, status int, contentType string, v any) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // what fails here is the connection: nobody is left to tell
}
