package main

import (
	"bufio"
	"context"
	_ "embed"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"
)

// A fleet is a Redis and gateways in front of it, as processes of this machine.
type fleet struct {
	dir      string
	redis    string   // host:port
	gateways []string // host:port each
	admin    []string
	running  []*exec.Cmd
	version  string // of the Redis
}

//go:embed fleet.yaml.tmpl
var fleetConfig string

// programs are what a fleet is made of.
type programs struct{ redis, sluice string }

// launch starts a fleet of n; stop ends it, also after an error.
func launch(ctx context.Context, p programs, n int, limits []limit) (f *fleet, err error) {
	f = &fleet{}
	defer func() {
		if err != nil {
			f.stop()
		}
	}()
	if f.dir, err = os.MkdirTemp("", "sluice-limitsim-"); err != nil {
		return f, err
	}
	ports, err := freePorts(1 + 2*n)
	if err != nil {
		return f, err
	}
	f.redis, f.gateways, f.admin = ports[0], ports[1:1+n], ports[1+n:]
	_, port, err := net.SplitHostPort(f.redis)
	if err != nil {
		return f, err
	}
	if err := f.start(ctx, p.redis, "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", f.dir); err != nil {
		return f, err
	}
	if err := await(ctx, func() error { _, err := f.info("server"); return err }); err != nil {
		return f, err
	}
	server, err := f.info("server")
	if err != nil {
		return f, err
	}
	_, f.version, _ = strings.Cut(server, "redis_version:")
	f.version, _, _ = strings.Cut(f.version, "\r")
	t, err := template.New("").Parse(fleetConfig)
	if err != nil {
		return f, err
	}
	for i := range n {
		var text strings.Builder
		if err := t.Execute(&text, map[string]any{"Listen": f.gateways[i], "Admin": f.admin[i], "Redis": f.redis, "Limits": limits}); err != nil {
			return f, err
		}
		conf := filepath.Join(f.dir, fmt.Sprintf("gateway-%d.yaml", i))
		if err := os.WriteFile(conf, []byte(text.String()), 0o644); err != nil {
			return f, err
		}
		if err := f.start(ctx, p.sluice, "run", "-c", conf); err != nil {
			return f, err
		}
	}
	// All must know of each other.
	return f, await(ctx, func() error {
		for _, addr := range f.admin {
			m, err := metrics(ctx, addr)
			if err != nil {
				return err
			}
			if peers := m["sluice_limit_peers"]; peers != float64(n) {
				return fmt.Errorf("a gateway knows of %g gateways", peers)
			}
		}
		return nil
	})
}

// start starts a program that ends with this one, when f.stop is not called.
func (f *fleet) start(ctx context.Context, path string, args ...string) error {
	cmd := exec.CommandContext(ctx, path, args...)
	log, err := os.Create(filepath.Join(f.dir, fmt.Sprintf("log-%d", len(f.running))))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return err
	}
	f.running = append(f.running, cmd)
	return nil
}

// stop ends all processes, the last one first.
func (f *fleet) stop() {
	for i := len(f.running) - 1; i >= 0; i-- {
		cmd := f.running[i]
		_ = cmd.Process.Signal(syscall.SIGTERM)
		end := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // how it ended is all the same
		end.Stop()
	}
	if f.dir != "" {
		os.RemoveAll(f.dir)
	}
}

func (f *fleet) pids() (all []int) {
	for _, cmd := range f.running {
		all = append(all, cmd.Process.Pid)
	}
	return all
}

// said is what the processes have written, for errors.
func (f *fleet) said() string {
	var b strings.Builder
	for i := range f.running {
		if text, err := os.ReadFile(filepath.Join(f.dir, fmt.Sprintf("log-%d", i))); err == nil && i > 0 {
			b.Write(text)
		}
	}
	return b.String()
}

// info is a section of the Redis's INFO.
func (f *fleet) info(section string) (string, error) {
	c, err := net.DialTimeout("tcp", f.redis, time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(c, "INFO %s\r\n", section); err != nil {
		return "", err
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	n, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "$")))
	if err != nil || line[0] != '$' {
		return "", fmt.Errorf("redis answers %q", line)
	}
	text := make([]byte, n)
	_, err = io.ReadFull(r, text)
	return string(text), err
}

// scripts is how many scripts the Redis has run.
func (f *fleet) scripts() (int64, error) {
	text, err := f.info("commandstats")
	if err != nil {
		return 0, err
	}
	return scriptCalls(text)
}

// metrics is a gateway's, by name with labels as they are written.
func metrics(ctx context.Context, addr string) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	return parseMetrics(string(text)), nil
}

// await polls until check succeeds, for at most 20 s.
func await(ctx context.Context, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain: %w", err)
		case <-poll.C:
		}
	}
}

func freePorts(n int) ([]string, error) {
	var addrs []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // only when all have been found, so that all differ
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}
