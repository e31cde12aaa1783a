package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/demo"
)

func demoCommand() *cobra.Command {
	var port int
	var show bool
	cmd := &cobra.Command{
		Use:   "demo [--port N]",
		Short: "Try it: a sample backend with a gateway in front",
		Long: `Demo starts a sample backend and a gateway in front of it, and prints what to try.
It needs no file, no network and no other program, and ends with Ctrl-C.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if port < 0 || port > 65535 {
				return usageError{fmt.Errorf("--port %d is no port; use 0 to 65535", port)}
			}
			if show {
				text, err := demo.Config(demo.Settings{
					Listen: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Admin: "127.0.0.1:9901", Backend: "http://127.0.0.1:9001",
				})
				if err != nil {
					return err
				}
				_, err = cmd.OutOrStdout().Write(text)
				return err
			}
			return runDemo(cmd.Context(), port, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().IntVar(&port, "port", 8080, "the `port` of the gateway on 127.0.0.1; 0 takes a free one")
	cmd.Flags().BoolVar(&show, "print-config", false, "print the configuration of the demo instead of running it")
	return cmd
}

func runDemo(ctx context.Context, port int, stdout, stderr io.Writer) (err error) {
	origin, stop, err := startBackend()
	if err != nil {
		return err
	}
	defer stop()
	text, err := demo.Config(demo.Settings{
		Listen: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Admin: "127.0.0.1:0", Backend: "http://" + origin,
	})
	if err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	name := filepath.Join(dir, "demo.yaml")
	f, found := config.Parse(name, text, config.Env{})
	if found.Err() != nil {
		return found.Err()
	}
	f.State.Dir = "" // what is tried leaves nothing behind
	f.Log.Level = "warn"
	f.Log.Access.Output = "none"
	n, err := start(name, f, stdout, stderr)
	if err != nil {
		return fmt.Errorf("%w; is port %d in use? try --port 0", err, port)
	}
	n.unwatched = true // there is no file
	for _, addr := range n.server.Addrs() {
		invite(stdout, "http://"+addr.String(), "http://"+n.admin.Addr().String(), origin)
	}
	return n.run(ctx, nil)
}

// startBackend serves the sample backend on a free port of the loopback.
func startBackend() (address string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	srv := &http.Server{Handler: demo.Backend(), ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // it ends with Close
	}()
	return l.Addr().String(), func() { _ = srv.Close(); <-done }, nil
}

// invite prints where everything is, and what to try.
func invite(w io.Writer, gateway, admin, origin string) {
	fmt.Fprintf(w, "gateway   %s\nadmin API %s/v1/routes  (metrics: %s/metrics)\nbackend   http://%s\n\n", gateway, admin, admin, origin)
	fmt.Fprintf(w, "Try, in another terminal:\n")
	for _, t := range demo.Tries(gateway, admin) {
		fmt.Fprintf(w, "\n# %s\n%s\n", t.Shows, t.Command)
	}
	fmt.Fprintf(w, "\nThe configuration: sluice demo --print-config\nCtrl-C ends it.\n")
}
