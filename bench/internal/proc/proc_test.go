//go:build linux

package proc

import (
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseStatSurvivesAnyCommandName(t *testing.T) {
	const tail = " S 1 4242 4242 0 -1 4194560 900 0 3 0 250 75 12 4 20 0 3 0 100 1000 200 18446744073709551615"
	want := stat{parent: 1, user: 2500 * time.Millisecond, system: 750 * time.Millisecond, cuser: 120 * time.Millisecond, csystem: 40 * time.Millisecond}
	for _, name := range []string{"nginx", "a b", "x) S 7 (y", "((", ""} {
		got, err := parseStat([]byte("4242 (" + name + ")" + tail))
		if err != nil || got != want {
			t.Errorf("command %q: %+v, %v; want %+v", name, got, err, want)
		}
	}
	z, err := parseStat([]byte("1 (x) Z" + strings.TrimPrefix(tail, " S")))
	if err != nil || !z.zombie {
		t.Errorf("zombie: %+v, %v", z, err)
	}
}

func TestParseStatRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, line := range []string{"", "1 (x", "1 (x) S 1 2", "1 (x) S a 4242 4242 0 -1 4194560 900 0 3 0 250 75 12 4 20 0 3 0 100 1000"} {
		if got, err := parseStat([]byte(line)); err != errStat {
			t.Errorf("%q: %+v, %v; want an error", line, got, err)
		}
	}
}

func TestKilobytesAreGivenInBytes(t *testing.T) {
	n, err := kilobytes([]byte("Rss:   999 kB\nPss:                 123 kB\nPss_Dirty: 7 kB\n"), "Pss:")
	if n != 123<<10 || err != nil {
		t.Errorf("%d, %v; want %d", n, err, 123<<10)
	}
	if _, err := kilobytes([]byte("Rss: 1 kB\n"), "Pss:"); err == nil {
		t.Error("no error for a key that is not there")
	}
}

func TestTreeIsTheProcessAndAllBelowIt(t *testing.T) {
	got := descend(1, map[int][]int{1: {2, 3}, 3: {4}, 9: {10}})
	if want := []int{1, 2, 3, 4}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestCPUOfAChildAndGrandchildIsSeenExactly(t *testing.T) {
	// The shell waits for a grandchild that burns CPU until its input ends.
	cmd := exec.Command("sh", "-c", "sh -c 'while read line; do i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done; done'; exit 0")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); _ = cmd.Wait() }()
	turn := func() {
		if _, err := in.Write([]byte("go\n")); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 16)); err != nil {
			t.Fatal(err)
		}
	}
	turn() // both are up
	tree, err := Tree(cmd.Process.Pid)
	if err != nil || len(tree) != 2 {
		t.Fatalf("tree %v, %v; want a shell and its child", tree, err)
	}
	before, err := CPU(tree)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	turn()
	wall := time.Since(began)
	after, err := CPU(tree)
	if err != nil {
		t.Fatal(err)
	}
	used := after.Since(before)
	if used.Total <= 0 || used.Total > wall+50*time.Millisecond {
		t.Errorf("used %v in %v of wall time", used.Total, wall)
	}
	user, system := used.Split()
	if user+system != used.Total {
		t.Errorf("user %v + system %v are not the total %v", user, system, used.Total)
	}
	if n, err := Resident(tree); err != nil || n < 100<<10 {
		t.Errorf("resident %d bytes, %v", n, err)
	}
}

func TestTreeOfAProcessThatEndedIsAnError(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if tree, err := Tree(cmd.Process.Pid); err == nil {
		t.Errorf("tree %v of a process that has ended", tree)
	}
}

func TestSelfGrows(t *testing.T) {
	a := Self()
	for i := 0; Self() == a; i++ {
		if i > 1e6 {
			t.Fatal("the clock stands still")
		}
	}
	if err := RaiseFiles(64); err != nil {
		t.Error(err)
	}
}

func TestModelIsTheCPUsName(t *testing.T) {
	if got := model([]byte("processor\t: 0\nmodel name\t: AMD  EPYC 7763\nmodel name\t: other\n"), "amd64"); got != "AMD EPYC 7763" {
		t.Errorf("%q", got)
	}
	if got := model([]byte("processor\t: 0\n"), "arm64"); got != "arm64" {
		t.Errorf("%q, want what is said otherwise", got)
	}
	if m := This(); m.Cores < 1 || m.Kernel == "" || m.Memory == 0 {
		t.Errorf("this machine: %+v", m)
	}
}
