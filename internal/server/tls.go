package server

import (
	"crypto/tls"
	"errors"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/sock"
)

// handshake makes the conn a TLS one. It reports whether HTTP/1 is spoken on it;
// a connection that agreed on HTTP/2 is handed over.
func (c *conn) handshake() bool {
	now := time.Now()
	c.wire = &wire{Conn: c.sock, c: c}
	if d := c.set.header; d > 0 {
		_ = c.wire.SetDeadline(now.Add(d)) // an error shows at the handshake
	}
	c.tls = tls.Server(c.wire, c.l.resume)
	if err := c.tls.Handshake(); err != nil {
		c.l.badHandshakes.Add(1)
		c.server.log.Debug("TLS handshake failed", "listener", c.info.Listener, "peer", c.info.Peer, "cause", err)
		return false
	}
	_ = c.wire.SetDeadline(time.Time{}) // an error shows at the next read
	state := c.tls.ConnectionState()
	c.info.TLS = infoOf(&state)
	if state.NegotiatedProtocol == "h2" {
		c.handOver(nil)
		return false
	}
	return true
}

// infoOf is what the rest of the gateway may know of a handshake.
func infoOf(s *tls.ConnectionState) *exchange.TLSInfo {
	info := &exchange.TLSInfo{
		Version:    tls.VersionName(s.Version),
		Cipher:     tls.CipherSuiteName(s.CipherSuite),
		ServerName: s.ServerName,
		ALPN:       s.NegotiatedProtocol,
	}
	if len(s.VerifiedChains) > 0 {
		chain := s.VerifiedChains[0]
		info.Client = chain[0].Raw
		info.Subject = chain[0].Subject.ToRDNSequence().String()
		for _, above := range chain[1:] {
			info.Chain = append(info.Chain, above.Raw)
		}
	}
	return info
}

// wire is the socket under a TLS connection. TLS writes one record at a time, the
// first ones of a connection small; cork gathers the records of one response, so
// that they leave in one system call.
type wire struct {
	*sock.Conn
	c *conn

	// noWait makes reads fail rather than ask the socket. It belongs to the
	// goroutine that reads.
	noWait bool

	mu     sync.Mutex
	corked bool
	lent   *buffer
	held   []byte
}

// errNoWait is a temporary error, which TLS does not take for its end.
type errNoWait struct{}

func (errNoWait) Error() string   { return "server: nothing is buffered" }
func (errNoWait) Timeout() bool   { return true }
func (errNoWait) Temporary() bool { return true }

// SetWriteDeadline sets an exact end for writes, as TLS does for its last alert.
func (w *wire) SetWriteDeadline(t time.Time) error {
	w.c.bound.Store(!t.IsZero())
	return w.Conn.SetWriteDeadline(t)
}

// SetDeadline sets the ends of reads and writes.
func (w *wire) SetDeadline(t time.Time) error {
	return errors.Join(w.Conn.SetReadDeadline(t), w.SetWriteDeadline(t))
}

// Read reads from the socket.
func (w *wire) Read(p []byte) (int, error) {
	if w.noWait {
		return 0, errNoWait{}
	}
	return w.Conn.Read(p)
}

// Write sends or gathers p.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.corked {
		return w.c.send(p)
	}
	if len(w.held)+len(p) > cap(w.held) {
		if err := w.flush(); err != nil {
			return 0, err
		}
		if len(p) > cap(w.held) {
			return w.c.send(p)
		}
	}
	w.held = append(w.held, p...)
	return len(p), nil
}

// cork gathers what is written from now on.
func (w *wire) cork() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.corked = true
	w.lent = w.c.server.buffers.getLarge()
	w.held = w.lent.b[:0]
}

// uncork sends what was gathered.
func (w *wire) uncork() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.flush()
	w.c.server.buffers.put(w.lent)
	w.corked, w.lent, w.held = false, nil, nil
	return err
}

func (w *wire) flush() error {
	if len(w.held) == 0 {
		return nil
	}
	_, err := w.c.send(w.held)
	w.held = w.held[:0]
	return err
}
