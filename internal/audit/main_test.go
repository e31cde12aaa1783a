package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// childEnv makes the test binary the process that a test kills or starves.
const childEnv = "SLUICE_AUDIT_TEST_CHILD"

func TestMain(m *testing.M) {
	if role := os.Getenv(childEnv); role != "" {
		if err := children[role](os.Args[1]); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// open opens the log audit.jsonl in dir until the test ends.
func open(t *testing.T, dir string, change ...func(*Options)) *Log {
	t.Helper()
	o := Options{File: "audit.jsonl", Dir: dir}
	for _, c := range change {
		c(&o)
	}
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, l) })
	return l
}

func shut(t *testing.T, l *Log) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	if err := l.Close(ctx); err != nil {
		t.Error(err)
	}
}

func commit(t *testing.T, l *Log, e Event) {
	t.Helper()
	if err := l.Commit(t.Context(), e); err != nil {
		t.Fatal(err)
	}
}

// files are the files of the chain in dir, oldest first.
func files(t testing.TB, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "audit.0*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	if _, err := os.Stat(filepath.Join(dir, "audit.jsonl")); err == nil {
		names = append(names, filepath.Join(dir, "audit.jsonl"))
	}
	return names
}

// verify reads files as one chain.
func verify(names ...string) (Chain, error) {
	var c Chain
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return c, err
		}
		err = c.Read(f)
		_ = f.Close()
		if err != nil {
			return c, fmt.Errorf("%s: %w", filepath.Base(name), err)
		}
	}
	return c, nil
}

// whole fails the test unless the files are one chain from its beginning.
func whole(t *testing.T, names ...string) Chain {
	t.Helper()
	c, err := verify(names...)
	if err != nil || c.First != 1 || c.Last != uint64(c.Lines) {
		t.Fatalf("%v: %+v, %v", names, c, err)
	}
	return c
}

// written are the lines of files.
func written(t *testing.T, names ...string) []document {
	t.Helper()
	var all []document
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			var d document
			if err := json.Unmarshal([]byte(line), &d); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			all = append(all, d)
		}
	}
	return all
}

// kinds are the kinds of lines.
func kinds(lines []document) []string {
	var all []string
	for _, d := range lines {
		all = append(all, d.Kind)
	}
	return all
}

func equal(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("got  %q\nwant %q", got, want)
	}
}
