package upstream

import (
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// tunnel is a connection that speaks another protocol since a 101. It remains in
// flight on its endpoint until it is closed.
type tunnel struct {
	x       *exchange.Exchange
	ep      *endpoint
	c       *conn
	early   []byte // what came behind the head; read first
	closing sync.Once
}

// upgrade makes x.Response.Tunnel of the connection.
func (k *call) upgrade() *fault {
	x := k.x
	if len(x.Request.Upgrade) == 0 {
		return malformed(errUnasked, "http_upgrade_failed")
	}
	k.last = time.Now()
	x.Usage.Head = k.last.Sub(x.Start)
	x.Usage.Waited += k.last.Sub(k.now)
	t := &tunnel{x: x, ep: k.ep, c: k.conn, early: append([]byte(nil), k.in.b[k.start:k.end]...)}
	k.putIn()
	t.c.within(k.last, 0)
	t.c.sock.Stall = 0 // how long a tunnel may stand still is the driver's to say
	x.Response.Tunnel = t
	k.ep, k.conn = nil, nil
	return nil
}

// Read reads what the target sends.
func (t *tunnel) Read(p []byte) (int, error) {
	if len(t.early) > 0 {
		n := copy(p, t.early)
		t.early = t.early[n:]
		return n, nil
	}
	if t.c.tls != nil {
		return t.c.tls.Read(p)
	}
	return t.c.sock.Read(p)
}

// Write sends p whole.
func (t *tunnel) Write(p []byte) (int, error) {
	if t.c.tls != nil {
		return t.c.tls.Write(p)
	}
	return t.c.sock.Write(p)
}

// CloseWrite passes on the end of the client's output.
func (t *tunnel) CloseWrite() error {
	if t.c.tls != nil {
		return t.c.tls.CloseWrite()
	}
	return t.c.sock.CloseWrite()
}

// SetDeadline sets when reads and writes fail, also those that wait.
func (t *tunnel) SetDeadline(at time.Time) error {
	err := t.c.sock.SetDeadline(at)
	t.c.hold()
	return err
}

// Close ends the tunnel. Reads and writes that wait fail.
func (t *tunnel) Close() error {
	t.closing.Do(func() {
		t.x.OnCancel(nil)
		t.c.cut()
		t.ep.drop()
		t.ep.leave()
	})
	return nil
}

var _ exchange.Tunnel = (*tunnel)(nil)
