package apptest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestCommands runs the scripts of testdata/script: the commands that answer and
// end.
func TestCommands(t *testing.T) {
	t.Parallel()
	dir := filepath.Dir(sluice(t, false))
	scripts, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(scripts) < 8 {
		t.Fatalf("%d scripts, %v", len(scripts), err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", dir+string(os.PathListSeparator)+e.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// match FILE PATTERNS: line by line, the file matches the patterns.
			"match": func(ts *testscript.TestScript, neg bool, args []string) {
				got := strings.Split(strings.TrimSpace(ts.ReadFile(args[0])), "\n")
				want := strings.Split(strings.TrimSpace(ts.ReadFile(args[1])), "\n")
				for i, pattern := range want {
					if i >= len(got) || !regexp.MustCompile(pattern).MatchString(got[i]) {
						ts.Fatalf("line %d does not match %s in\n%s", i+1, pattern, strings.Join(got, "\n"))
					}
				}
				if len(got) > len(want) {
					ts.Fatalf("%d lines, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
				}
			},
			// lines FILE N: the file has N lines that are not empty.
			"lines": func(ts *testscript.TestScript, neg bool, args []string) {
				n := 0
				for l := range strings.Lines(ts.ReadFile(args[0])) {
					if strings.TrimSpace(l) != "" {
						n++
					}
				}
				if want := args[1]; want != strconv.Itoa(n) {
					ts.Fatalf("%s has %d lines, want %s:\n%s", args[0], n, want, ts.ReadFile(args[0]))
				}
			},
		},
	})
}

var curlLine = regexp.MustCompile(`(?m)^\s*(?:\$ )?(curl .+)$`)

// TestDemo starts the demo as README says and runs every curl line it prints.
func TestDemo(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"curl", "sh"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("this test needs %s: apt-get install %[1]s", tool)
		}
	}
	_, port, _ := strings.Cut(freeAddress(t), ":")
	cmd := exec.Command(sluice(t, false), "demo", "--port", port)
	cmd.Dir = t.TempDir() // nothing of the repository is needed
	out, errs := newOutput(), newOutput()
	cmd.Stdout, cmd.Stderr = out, errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	text := out.await(t, "two curl lines", func(s string) bool { return len(curlLine.FindAllString(s, -1)) >= 2 && strings.HasSuffix(s, "\n") })
	// The lines come in one piece; what more there is has come with them.
	lines := curlLine.FindAllStringSubmatch(text, -1)
	for _, l := range lines {
		if !strings.Contains(l[1], ":"+port) {
			t.Errorf("%s does not go to port %s", l[1], port)
		}
		// A comment behind the command is for people.
		got, err := exec.Command("sh", "-c", "exec "+l[1]).CombinedOutput()
		if err != nil || len(got) == 0 {
			t.Errorf("%s: %v\n%s", l[1], err, got)
		}
		if strings.Contains(string(got), "upstream_unavailable") || strings.Contains(string(got), `"internal"`) {
			t.Errorf("%s:\n%s", l[1], got)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("SIGINT: %v, want exit status 0\n%s", err, errs)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("still there 10 s after SIGINT")
	}
	if strings.Contains(errs.String(), "DATA RACE") {
		t.Error(errs.String())
	}
}

// TestRunRefuses ends with status 1 and a reason when it cannot run.
func TestRunRefuses(t *testing.T) {
	t.Parallel()
	taken := newEcho(t)
	for name, c := range map[string]struct{ config, says string }{
		"a broken config":       {"listeners: [{address: \"127.0.0.1:0\"}]\nupstream: {}\n", `sluice\.yaml:2:1: .*upstreams`},
		"a taken address":       {"listeners: [{address: \"" + taken.addr() + "\"}]\nadmin: {address: \"" + freeAddress(t) + "\"}\n", "address already in use"},
		"a taken admin address": {"listeners: [{address: \"127.0.0.1:0\"}]\nadmin: {address: \"" + taken.addr() + "\"}\n", "address already in use"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "sluice.yaml"), c.config)
			cmd := exec.Command(sluice(t, false), "run", "-c", "sluice.yaml")
			cmd.Dir = dir
			var out, errs strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &errs
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			late := time.AfterFunc(15*time.Second, func() { _ = cmd.Process.Kill() })
			_ = cmd.Wait()
			late.Stop()
			if code := cmd.ProcessState.ExitCode(); code != 1 {
				t.Errorf("exit status %d, want 1", code)
			}
			if !regexp.MustCompile(c.says).MatchString(errs.String()) {
				t.Errorf("stderr %q, want %s", errs.String(), c.says)
			}
		})
	}
}
