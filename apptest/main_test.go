// Package apptest tests the sluice binary as its users meet it: it builds it,
// writes config files, starts it on free ports of the loopback interface, and
// speaks to it over sockets. But for the oracle of
// rate limits, which is internal/limit/meter, nothing here knows the code.
//
// Measurements (memory, latency) are made on a plain build; everything else runs
// on a race-enabled one when the tests themselves are built with -race.
// The figures that a user was promised are asserted as promised; -long asserts
// them at their full size where `go test` takes a smaller one to stay within
// minutes.
package apptest

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

var long = flag.Bool("long", false, "run the tests at their full size, and those that take minutes")

// binaries are the builds of cmd/sluice, made when they are first asked for.
type binaries struct {
	dir   string
	plain func() (string, error)
	race  func() (string, error)
}

var built binaries

func newBinaries(dir string) binaries {
	return binaries{
		dir:   dir,
		plain: sync.OnceValues(func() (string, error) { return build(filepath.Join(dir, "plain", "sluice")) }),
		race:  sync.OnceValues(func() (string, error) { return build(filepath.Join(dir, "race", "sluice"), "-race") }),
	}
}

func build(to string, flags ...string) (string, error) {
	args := append(append([]string{"build"}, flags...), "-o", to, "../cmd/sluice")
	out, err := exec.Command("go", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go %v: %w\n%s", args, err, out)
	}
	return to, nil
}

// sluice returns the build that tests run on; measured wants the plain one.
func sluice(t testing.TB, measured bool) string {
	t.Helper()
	build := built.plain
	if raceEnabled && !measured {
		build = built.race
	}
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "apptest")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := raiseFiles(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	built = newBinaries(dir)
	code := m.Run()
	if code != 0 {
		return code
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "goroutines left behind:", err)
		return 1
	}
	return 0
}

// raiseFiles lifts the soft limit on open files to the hard one, for this
// process and those that it starts.
func raiseFiles() error {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return err
	}
	if lim.Max < 11000 {
		return errors.New("apptest: 10,000 connections need a limit of 11,000 open files or more: ulimit -Hn says " + fmt.Sprint(lim.Max))
	}
	lim.Cur = lim.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim)
}
