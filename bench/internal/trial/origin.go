//go:build linux

package trial

import (
	"context"
	"embed"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"text/template"
	"time"

	"github.com/sluice-gateway/sluice/bench/internal/gateways"
)

// origin is what the gateways forward to: nginx with one worker, and a sink for
// uploads, a small Go program, since nginx answers before it has read a body that
// it does not keep.
type origin struct {
	web, sink         *process
	webAddr, sinkAddr string
}

//go:embed origin.conf.tmpl
var templates embed.FS

// startOrigin starts both; path is nginx.
func startOrigin(ctx context.Context, sp *spawner, path, dir string, cpus []int) (*origin, error) {
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	o := &origin{webAddr: ports[0], sinkAddr: ports[1]}
	conf := filepath.Join(dir, "origin.conf")
	if err := os.Mkdir(filepath.Join(dir, "files"), 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "files", "16k.json"), []byte(answer(largeAnswer)), 0o644); err != nil {
		return nil, err
	}
	t, err := template.ParseFS(templates, "origin.conf.tmpl")
	if err != nil {
		return nil, err
	}
	f, err := os.Create(conf)
	if err != nil {
		return nil, err
	}
	err = t.Execute(f, map[string]any{"Root": os.Getuid() == 0, "Listen": o.webAddr, "Dir": dir, "Answer": answer(usualAnswer), "Serial": serialField, "Count": countPath})
	if err := f.Close(); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	o.web, err = sp.run("origin", dir, gateways.Command{Path: path, Args: []string{"-p", dir, "-e", "stderr", "-c", conf}}, cpus)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		o.stop()
		return nil, err
	}
	o.sink, err = sp.run("sink", dir, gateways.Command{Path: self, Args: []string{SinkCommand, o.sinkAddr}}, cpus)
	if err != nil {
		o.stop()
		return nil, err
	}
	for _, p := range []struct {
		*process
		addr string
	}{{o.web, o.webAddr}, {o.sink, o.sinkAddr}} {
		err := p.await(ctx, 10*time.Second, func() error {
			c, err := net.Dial("tcp", p.addr)
			if err == nil {
				c.Close()
			}
			return err
		})
		if err != nil {
			o.stop()
			return nil, err
		}
	}
	return o, nil
}

func (o *origin) stop() {
	for _, p := range []*process{o.web, o.sink} {
		if p != nil {
			p.stop()
		}
	}
}

// of is the process and address that serve a scenario.
func (o *origin) of(sc *Scenario) (*process, string) {
	if sc.Upload {
		return o.sink, o.sinkAddr
	}
	return o.web, o.webAddr
}

// freePorts finds loopback addresses that nobody listens on.
func freePorts(n int) ([]string, error) {
	var addrs []string
	var open []net.Listener
	defer func() {
		for _, l := range open {
			l.Close()
		}
	}()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		open = append(open, l)
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}

// SinkCommand is the first argument with which the bench's program is the sink.
const SinkCommand = "sink"

// ServeSink reads request bodies and answers with how long they were, or with 400
// when that is not uploadSize. It uses one core, as the other origin does, until
// ctx is done.
func ServeSink(ctx context.Context, addr string) error {
	runtime.GOMAXPROCS(1)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	buffers := make(chan []byte, 1024)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var buf []byte
		select {
		case buf = <-buffers:
		default:
			buf = make([]byte, 128<<10)
		}
		var n int64
		var err error
		for err == nil {
			var k int
			k, err = r.Body.Read(buf)
			n += int64(k)
		}
		select {
		case buffers <- buf:
		default:
		}
		if err != io.EOF {
			return // the client is gone
		}
		text := received(n)
		if n != uploadSize {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
		_, _ = io.WriteString(w, text)
	})}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// received is the sink's answer to a body of n bytes.
func received(n int64) string { return fmt.Sprintf("{\"received\":%d}\n", n) }
