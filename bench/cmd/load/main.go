//go:build linux

// Command load puts HTTP load on one server and reports errors and latencies. It
// is the generator of the bench, for use by hand:
//
//	go run ./cmd/load -c 64 -d 5s http://127.0.0.1:8080/users/1
//	go run ./cmd/load -c 64 -d 5s -rate 10000 https://127.0.0.1:8443/users/1
//	go run ./cmd/load -c 16 -streams 4 -d 5s https://127.0.0.1:8443/users/1
//
// It asks only addresses of this machine.
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-gateway/sluice/bench/internal/load"
	"github.com/sluice-gateway/sluice/bench/internal/proc"
)

type fields []string

func (f *fields) String() string { return strings.Join(*f, ", ") }

func (f *fields) Set(s string) error {
	if !strings.Contains(s, ":") {
		return fmt.Errorf("%q is not Name: value", s)
	}
	*f = append(*f, s)
	return nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var head fields
	set := flag.NewFlagSet("load", flag.ExitOnError)
	conns := set.Int("c", 64, "connections")
	threads := set.Int("t", 1, "threads")
	streams := set.Int("streams", 0, "speak HTTP/2 (https only) with so many streams on each connection")
	window := set.Duration("d", 5*time.Second, "how long to measure")
	warm := set.Duration("warm", 500*time.Millisecond, "how long to load before that")
	rate := set.Float64("rate", 0, "requests per second, open loop; 0: closed loop")
	method := set.String("m", "GET", "method")
	size := set.Int("body", 0, "size of the request body, bytes")
	host := set.String("host", "", "Host; default: the URL's")
	status := set.Int("status", 200, "expected status")
	length := set.Int64("length", -1, "expected length of the response body; -1: any")
	timeout := set.Duration("timeout", 5*time.Second, "of one request")
	set.Var(&head, "H", "header field, \"Name: value\"; may be repeated")
	if err := set.Parse(args); err != nil {
		return err
	}
	if set.NArg() != 1 {
		return fmt.Errorf("one URL is wanted, such as http://127.0.0.1:8080/users/1")
	}
	target, err := parse(set.Arg(0), *host, *streams)
	if err != nil {
		return err
	}
	target.Status, target.Length = *status, *length
	u, _ := url.Parse(set.Arg(0))
	if *host == "" {
		*host = u.Host
	}
	target.Requests = []*load.Request{load.NewRequest(*method, u.Scheme, *host, u.RequestURI(), head, make([]byte, *size))}

	if err := proc.RaiseFiles(uint64(*conns) + 64); err != nil {
		return err
	}
	before := proc.Self()
	res, err := load.Do(target, load.Plan{
		Conns: *conns, Threads: *threads, Rate: *rate, Warm: *warm, Window: *window, Timeout: *timeout,
	}, ctx.Done())
	if err != nil {
		return err
	}
	spent := proc.Self() - before
	report(res, *window, spent)
	if n := res.Errors.Total(); n > 0 {
		return fmt.Errorf("%d of %d requests failed: %s", n, res.OK+n, res.Errors)
	}
	return nil
}

func parse(raw, host string, streams int) (load.Target, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return load.Target{}, err
	}
	addr, err := netip.ParseAddrPort(u.Host)
	if err != nil || !addr.Addr().IsLoopback() {
		return load.Target{}, fmt.Errorf("%q is not a loopback address with a port, such as 127.0.0.1:8080", u.Host)
	}
	target := load.Target{Addr: addr, Streams: streams}
	switch {
	case u.Scheme == "https":
		proto := "http/1.1"
		if streams > 0 {
			proto = "h2"
		}
		target.TLS = &tls.Config{InsecureSkipVerify: true, ServerName: host, NextProtos: []string{proto}}
	case u.Scheme != "http":
		return load.Target{}, fmt.Errorf("scheme %q is neither http nor https", u.Scheme)
	case streams > 0:
		return load.Target{}, fmt.Errorf("-streams needs an https URL")
	}
	return target, nil
}

func report(res load.Result, window, spent time.Duration) {
	at := func(q float64) time.Duration {
		return time.Duration(res.Latency.ValueAtQuantile(q)).Round(100 * time.Nanosecond)
	}
	fmt.Printf("requests    %d in %v, %.0f/s\n", res.Recorded, window, float64(res.Recorded)/window.Seconds())
	fmt.Printf("errors      %s\n", res.Errors)
	if res.Reconnects > 0 {
		fmt.Printf("reconnects  %d\n", res.Reconnects)
	}
	fmt.Printf("latency     p50 %v  p99 %v  p99.9 %v  max %v\n", at(50), at(99), at(99.9), time.Duration(res.Latency.Max()))
	if res.Lag.TotalCount() > 0 {
		fmt.Printf("sent late   p50 %v  p99 %v  max %v\n", time.Duration(res.Lag.ValueAtQuantile(50)),
			time.Duration(res.Lag.ValueAtQuantile(99)), time.Duration(res.Lag.Max()))
	}
	if res.OK > 0 {
		fmt.Printf("load's CPU  %.2f µs a request\n", float64(spent.Nanoseconds())/1e3/float64(res.OK))
	}
}
