package demo

import (
	"net/http"

	"github.com/coder/websocket"
)

// websocket sends every message back as it came, text or binary, up to a
// mebibyte, until the client closes.
func (b backend) websocket(w http.ResponseWriter, r *http.Request) {
	// Pages of any origin may try it: there is nothing here to steal.
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{OriginPatterns: []string{"*"}, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return // Accept has answered
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(maxBody)
	for {
		kind, message, err := conn.Read(r.Context())
		if err != nil {
			return // closed by the client, or lost
		}
		if conn.Write(r.Context(), kind, message) != nil {
			return
		}
	}
}
