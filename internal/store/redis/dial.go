package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/sluice-gateway/sluice/internal/config"
)

const (
	dialTimeout = time.Second // connecting, TLS and the first commands
	// silence is after how long without any answer a connection is given up. Twice
	// that can pass: a connection is asked for a sign of life once a second.
	silence  = time.Second
	maxDials = 4 // at one time, to all nodes
	// Behind a failed attempt an address is left alone for half of redial to redial.
	redial = 100 * time.Millisecond
)

// options makes the library's options from ours. It reads the TLS files.
func (c *Client) options(o Options) (rueidis.ClientOption, error) {
	secure, err := newTLS(o.Config.TLS, o.Dir)
	if err != nil {
		return rueidis.ClientOption{}, fmt.Errorf("state.redis.%w", err)
	}
	d := &dialer{stopped: c.stopped, slots: make(chan struct{}, maxDials), after: map[string]time.Time{}}
	dial := net.Dialer{Timeout: dialTimeout, KeepAlive: silence}
	password := o.Config.Password.Reveal()
	option := rueidis.ClientOption{
		InitAddress: o.Config.Addresses,
		Username:    o.Config.Username,
		Password:    password,
		ClientName:  "sluice-" + o.Gateway,
		TLSConfig:   secure,
		Dialer:      dial,
		DialCtxFn:   d.dial,

		// One connection a node, on which everything is pipelined. Its ring holds more
		// calls than are ever in flight, because a full one would wait without end.
		PipelineMultiplex: -1,
		AlwaysPipelining:  true,
		RingScaleEachConn: ringScale,
		ConnWriteTimeout:  silence,

		ReadBufferEachConn:  64 << 10,
		WriteBufferEachConn: 64 << 10,
		ClientSetInfo:       rueidis.DisableClientSetInfo,
		DisableCache:        true, // of replies: nothing here is read twice
		DisableRetry:        true, // a charge is not repeated, see once
		ClusterOption:       rueidis.ClusterOption{MaxMovedRedirections: 3},
	}
	if o.Config.Sentinel != "" {
		// Sentinels that ask for a password are given the same one. A user of Redis is
		// none of theirs.
		option.Sentinel = rueidis.SentinelOption{
			MasterSet: o.Config.Sentinel, Password: password, TLSConfig: secure, Dialer: dial,
			TopologyRefreshInterval: time.Second,
		}
	}
	return option, nil
}

// newTLS reads the TLS settings; nil is plain text.
func newTLS(c *config.ClientTLS, dir string) (*tls.Config, error) {
	if c == nil {
		return nil, nil
	}
	if (c.Cert == "") != (c.Key == "") {
		return nil, errors.New("tls.cert and tls.key belong together")
	}
	on := c.CA != "" || c.Cert != "" || c.ServerName != ""
	if c.Enabled != nil {
		on = *c.Enabled
	}
	if !on {
		return nil, nil
	}
	at := func(path string) string {
		if filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(dir, path)
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName, ClientSessionCache: tls.NewLRUClientSessionCache(16)}
	if c.CA != "" {
		pem, err := os.ReadFile(at(c.CA))
		if err != nil {
			return nil, fmt.Errorf("tls.ca: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.ca: %s holds no PEM certificate", c.CA)
		}
	}
	if c.Cert != "" {
		pair, err := tls.LoadX509KeyPair(at(c.Cert), at(c.Key))
		if err != nil {
			return nil, fmt.Errorf("tls.cert: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// dialer makes connections, a few at a time, and leaves an address alone for a
// while when one failed, so that a server that comes back is not stormed.
type dialer struct {
	stopped context.Context
	slots   chan struct{}
	mu      sync.Mutex
	after   map[string]time.Time // by address, the few nodes there are
}

var (
	errDials   = errors.New("too many connections are being made")
	errRedial  = errors.New("the last connection failed just now")
	errStopped = errors.New("the client is closed")
)

func (d *dialer) dial(ctx context.Context, addr string, n *net.Dialer, secure *tls.Config) (net.Conn, error) {
	if d.stopped.Err() != nil {
		return nil, errStopped
	}
	d.mu.Lock()
	wait := time.Until(d.after[addr])
	d.mu.Unlock()
	if wait > 0 {
		return nil, errRedial
	}
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	default:
		return nil, errDials
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	defer context.AfterFunc(d.stopped, cancel)()
	var conn net.Conn
	var err error
	if secure != nil {
		conn, err = (&tls.Dialer{NetDialer: n, Config: secure}).DialContext(ctx, "tcp", addr)
	} else {
		conn, err = n.DialContext(ctx, "tcp", addr)
	}
	d.mu.Lock()
	if err != nil {
		d.after[addr] = time.Now().Add(redial/2 + rand.N(redial/2))
	} else {
		delete(d.after, addr)
	}
	d.mu.Unlock()
	return conn, err
}
