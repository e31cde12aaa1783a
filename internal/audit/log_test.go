package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

func TestACommittedLineIsInTheFile(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	for i := range 5 {
		commit(t, l, Event{Kind: "test", Target: fmt.Sprint(i)})
		if got := written(t, files(t, dir)...); got[len(got)-1].Target != fmt.Sprint(i) {
			t.Fatalf("%v is the last line", got[len(got)-1])
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "audit.jsonl")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

func TestWritesAreOnDiskWithinTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		l := open(t, dir)
		synctest.Wait()
		time.Sleep(groupDelay)
		synctest.Wait()
		for range 10 {
			l.Write(Event{Kind: "test"})
		}
		synctest.Wait()
		if n := len(written(t, files(t, dir)...)); n != 2 {
			t.Fatalf("%d lines at once", n)
		}
		time.Sleep(groupDelay)
		synctest.Wait()
		if c := whole(t, files(t, dir)...); c.Lines != 12 {
			t.Fatalf("%d lines after %v", c.Lines, groupDelay)
		}
		shut(t, l)
	})
}

func TestCommitsShareAnFsync(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			for range 20 {
				if err := l.Commit(t.Context(), Event{Kind: "test", Target: fmt.Sprint(i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	shut(t, l)
	if c := whole(t, files(t, dir)...); c.Lines != 32*20+3 {
		t.Errorf("%d lines", c.Lines)
	}
}

func TestARestartGoesOnInTheChain(t *testing.T) {
	dir := t.TempDir()
	for range 3 {
		l := open(t, dir)
		l.Write(Event{Kind: "test"})
		shut(t, l)
		l.Write(Event{Kind: "late"})
		if err := l.Commit(t.Context(), Event{Kind: "late"}); err != nil {
			t.Error("with on_fault open, closed:", err)
		}
	}
	whole(t, files(t, dir)...)
	equal(t, kinds(written(t, files(t, dir)...)),
		kindOpened, kindStarted, "test", kindStopped, kindStarted, "test", kindStopped, kindStarted, "test", kindStopped)
}

func TestAFullFileGivesWayToTheNext(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, func(o *Options) { o.RotateAt = 2000 })
	for i := range 40 {
		commit(t, l, Event{Kind: "test", Target: fmt.Sprint(i)})
	}
	shut(t, l)
	names := files(t, dir)
	if len(names) < 5 {
		t.Fatalf("%q", names)
	}
	whole(t, names...)
	for i, name := range names {
		got := written(t, name)
		if got[0].Kind != kindOpened {
			t.Errorf("%s begins with %s", name, got[0].Kind)
		}
		if i > 0 && string(got[0].Detail) != `{"after":"`+filepath.Base(names[i-1])+`"}` {
			t.Errorf("%s begins with %s", name, got[0].Detail)
		}
		if info, _ := os.Stat(name); info.Size() > 2500 {
			t.Errorf("%s has %d bytes", name, info.Size())
		}
	}
	// One missing file is found.
	if _, err := verify(slices.Delete(slices.Clone(names), 1, 2)...); err == nil {
		t.Error("a missing file is not found")
	}
	// A crash between the renaming and the new file.
	if err := os.Rename(filepath.Join(dir, "audit.jsonl"), beside(filepath.Join(dir, "audit.jsonl"), "", whole(t, names...).Last)); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir)
	shut(t, l)
	if again := files(t, dir); len(again) != len(names)+1 {
		t.Errorf("%q", again)
	}
	whole(t, files(t, dir)...)
}

func TestRotationByOthersKeepsTheChain(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	l := open(t, dir)
	commit(t, l, Event{Kind: "test"})
	// logrotate renames, and sends SIGHUP.
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	l.Reopen()
	commit(t, l, Event{Kind: "test"})
	whole(t, path+".1", path)
	// It renames, makes the new file itself, and nobody sends anything.
	if err := errors.Join(os.Rename(path+".1", path+".2"), os.Rename(path, path+".1"), os.WriteFile(path, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	commit(t, l, Event{Kind: "test"})
	whole(t, path+".2", path+".1", path)
	if got := written(t, path)[0]; got.Kind != kindOpened || string(got.Detail) != `{"after":"audit.jsonl"}` {
		t.Errorf("%+v", got)
	}
	// It renames while the gateway is not there.
	shut(t, l)
	if err := errors.Join(os.Rename(path+".2", path+".3"), os.Rename(path+".1", path+".2"), os.Rename(path, path+".1")); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir)
	commit(t, l, Event{Kind: "test"})
	shut(t, l)
	whole(t, path+".3", path+".2", path+".1", path)
	if got := written(t, path)[0]; string(got.Detail) != `{"after":"audit.jsonl.1"}` {
		t.Errorf("%+v", got)
	}
}

func TestChangesByOthersAreFound(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(path string) error
		broken int // line; 0: the chain holds
	}{
		{"a line is put in", func(p string) error { return appendTo(p, "{\"seq\":4}\n") }, 4},
		{"a part of a line is put in", func(p string) error { return appendTo(p, "{\"seq\":4") }, 4},
		{"the end is cut off", func(p string) error { return os.Truncate(p, int64(len(firstLines(p, 2)))) }, 3},
		{"it is cut within a line", func(p string) error { return os.Truncate(p, int64(len(firstLines(p, 2)))+20) }, 3},
		{"it is emptied", func(p string) error { return os.Truncate(p, 0) }, 0},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "audit.jsonl")
		var log bytes.Buffer
		l := open(t, dir, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		commit(t, l, Event{Kind: "test"})
		if err := c.change(path); err != nil {
			t.Fatal(err)
		}
		commit(t, l, Event{Kind: "behind"})
		commit(t, l, Event{Kind: "behind"})
		shut(t, l)
		_, err := verify(path)
		var broken *Broken
		if c.broken == 0 && err != nil || c.broken > 0 && (!errors.As(err, &broken) || broken.Line != c.broken) {
			t.Errorf("%s: %v", c.name, err)
		}
		text, _ := os.ReadFile(path)
		if !bytes.Contains(text, []byte(kindChanged)) || !strings.Contains(log.String(), "somebody has changed the audit log") {
			t.Errorf("%s: it is not told:\n%s%s", c.name, text, &log)
		}
	}
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func firstLines(path string, n int) string {
	text, _ := os.ReadFile(path)
	return strings.Join(strings.SplitAfter(string(text), "\n")[:n], "")
}

func TestAFileHasOneWriter(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	commit(t, l, Event{Kind: "test"})
	if l, err := Open(Options{File: "audit.jsonl", Dir: dir}); err == nil || !strings.Contains(err.Error(), "its own audit.file") {
		shut(t, l)
		t.Errorf("beside another: %v", err)
	}
}

func TestRefusalsAreBounded(t *testing.T) {
	dir := t.TempDir()
	now := time.Unix(1000, 0)
	l := open(t, dir, func(o *Options) { o.Now = func() time.Time { return now } })
	for range maxRefusals + 500 {
		l.Write(Event{Kind: Refused})
	}
	commit(t, l, Event{Kind: "test"})
	shut(t, l)
	got := written(t, files(t, dir)...)
	n, left := 0, ""
	for _, d := range got {
		switch d.Kind {
		case Refused:
			n++
		case kindLost:
			left += string(d.Detail)
		}
	}
	if n != maxRefusals || left != `{"left_out":500}` {
		t.Errorf("%d lines, and %s", n, left)
	}
	whole(t, files(t, dir)...)
}

func TestTheConfigurationMayChangeTheFile(t *testing.T) {
	dir := t.TempDir()
	tel := metrics(t)
	l, err := Open(Options{Dir: dir, Telemetry: tel})
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, l)
	change := func(c *config.Audit) {
		t.Helper()
		ch, err := l.Prepare(c)
		if err != nil {
			t.Fatal(err)
		}
		ch.Commit(Event{Kind: "config.swap"})
	}
	commit(t, l, Event{Kind: "nowhere"})
	change(nil)
	change(&config.Audit{File: "a.jsonl"})
	commit(t, l, Event{Kind: "a"})
	change(&config.Audit{File: "a.jsonl", OnFault: "closed"})
	l.Write(Event{Kind: "a"})
	if _, err := l.Prepare(&config.Audit{File: "/dev/null"}); err == nil {
		t.Error("/dev/null is taken")
	}
	ch, err := l.Prepare(&config.Audit{File: "c.jsonl"})
	if err != nil {
		t.Fatal(err)
	}
	ch.Discard()
	change(&config.Audit{File: filepath.Join(dir, "b.jsonl")})
	commit(t, l, Event{Kind: "b"})
	change(nil)
	commit(t, l, Event{Kind: "nowhere"})
	change(&config.Audit{File: "a.jsonl"})
	commit(t, l, Event{Kind: "a"})
	shut(t, l)
	if ch, err := l.Prepare(&config.Audit{File: "d.jsonl"}); err == nil {
		ch.Commit(Event{}) // behind Close it changes nothing, and leaves nothing open
	}
	a, b := filepath.Join(dir, "a.jsonl"), filepath.Join(dir, "b.jsonl")
	equal(t, kinds(written(t, a)), kindOpened, "config.swap", "a", "config.swap", "a", "config.swap", kindStopped, "config.swap", "a", kindStopped)
	equal(t, kinds(written(t, b)), kindOpened, "b", "config.swap", kindStopped)
	whole(t, a)
	if got := written(t, b)[0]; got.Seq != 8 || string(got.Detail) != `{"after":"a.jsonl"}` {
		t.Errorf("%+v", got)
	}
}

func TestALogThatIsNotThereDoesNothing(t *testing.T) {
	var l *Log
	l.Write(Event{})
	l.Note(nil)
	l.Reopen()
	ch, err := l.Prepare(&config.Audit{File: "x"})
	ch.Commit(Event{})
	ch.Discard()
	if err := errors.Join(err, l.Commit(t.Context(), Event{}), l.Close(t.Context())); err != nil || !l.Healthy() || l.Specs() != nil {
		t.Error(err)
	}
}

func metrics(t *testing.T) *telemetry.Telemetry {
	t.Helper()
	tel, err := telemetry.New(telemetry.Options{Log: config.Log{Level: "error", Access: config.AccessLog{Output: "none"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tel.Close(context.Background()) })
	return tel
}

// smallDisk mounts a disk of 64 KiB on a new folder; "" where that is not allowed.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=64k,mode=700"); err != nil {
		// Only root can; TestAFileThatCannotGrow sees the same from below.
		t.Logf("no small disk: %v", err)
		return ""
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestAFullDisk(t *testing.T) {
	for _, fault := range []string{"open", "closed"} {
		dir := smallDisk(t)
		if dir == "" {
			return
		}
		var log bytes.Buffer
		l, err := Open(Options{File: "audit.jsonl", Dir: dir, OnFault: fault, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		ballast(t, dir)
		fillUp(t, l, fault == "closed")
		if l.Healthy() {
			t.Errorf("%s: it is full and says it is not", fault)
		}
		before := whole(t, files(t, dir)...)
		// Who asks behind the first failure is told at once, too.
		ctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
		if err := l.Commit(ctx, Event{Kind: "test"}); (err != nil) != (fault == "closed") || ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", fault, err)
		}
		stop()
		// The queue is bounded; what does not fit is counted.
		for range 3 * maxQueue {
			l.Write(Event{Kind: "flood"})
		}
		if n := l.count.lost.Load(); n < maxQueue/2 || n > 3*maxQueue {
			t.Errorf("%s: %d lost", fault, n)
		}
		if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount("none", dir, "tmpfs", syscall.MS_REMOUNT, "size=8m,mode=700"); err != nil {
			t.Fatal(err)
		}
		l.Reopen()
		deadline := time.Now().Add(10 * time.Second)
		for !l.Healthy() && time.Now().Before(deadline) {
			_ = l.Commit(t.Context(), Event{Kind: "again"}) // it fails until it does not
		}
		shut(t, l)
		lost := ""
		for _, d := range written(t, files(t, dir)...) {
			if d.Kind == kindLost {
				lost += string(d.Detail)
			}
		}
		if !strings.Contains(lost, fmt.Sprintf(`"lost":%d,"since":"`, l.count.lost.Load())) {
			t.Errorf("%s: %d were lost, the file says %s", fault, l.count.lost.Load(), lost)
		}
		if c := whole(t, files(t, dir)...); c.Lines <= before.Lines {
			t.Errorf("%s: nothing was written behind line %d", fault, before.Last)
		}
		if n := strings.Count(log.String(), "the audit log cannot be written"); n != 1 || !strings.Contains(log.String(), "no space left on device") || !strings.Contains(log.String(), "is written again") {
			t.Errorf("%s: logged %s", fault, &log)
		}
	}
}

// ballast takes most of a small disk.
func ballast(t *testing.T, dir string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 40<<10), 0o600); err != nil {
		t.Fatal(err)
	}
}

// fillUp commits until the disk is full, and checks what Commit says then.
func fillUp(t *testing.T, l *Log, closed bool) {
	t.Helper()
	for i := 0; l.Healthy(); i++ {
		err := l.Commit(t.Context(), Event{Kind: "fill", Address: netip.MustParseAddr("192.0.2.1"), Reason: strings.Repeat("x", 400)})
		if full := !l.Healthy(); (err != nil) != (full && closed) {
			t.Fatalf("full %v, closed %v: %v", full, closed, err)
		}
		if i > 1000 {
			t.Fatal("it is never full")
		}
	}
}

func TestAStartOnAFullDiskFollowsOnFault(t *testing.T) {
	dir := smallDisk(t)
	if dir == "" {
		return
	}
	f, err := os.Create(filepath.Join(dir, "ballast"))
	for err == nil {
		_, err = f.Write(make([]byte, 512))
	}
	_ = f.Close() // it is full
	l, err := Open(Options{File: "audit.jsonl", Dir: dir, OnFault: "closed"})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Commit(t.Context(), Event{Kind: "test"}); !errors.Is(err, syscall.ENOSPC) || l.Healthy() {
		t.Errorf("full: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
		t.Fatal(err)
	}
	// An attempt that began when it was full may still fail.
	for err = l.Commit(t.Context(), Event{Kind: "again"}); errors.Is(err, syscall.ENOSPC); {
		err = l.Commit(t.Context(), Event{Kind: "again"})
	}
	shut(t, l)
	whole(t, files(t, dir)...)
	equal(t, slices.Compact(kinds(written(t, files(t, dir)...))), kindOpened, kindStarted, "test", "again", kindStopped)
}

func TestADiskThatDoesNotAnswerIsAFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var log bytes.Buffer
		l, err := Open(Options{Dir: dir, OnFault: "closed", File: "audit.jsonl", Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		commit(t, l, Event{Kind: "test"})
		release := make(chan struct{})
		go l.order(func(w *writer) { // as a write that hangs
			stop := l.watch()
			<-release
			stop()
		})
		synctest.Wait()
		if !l.Healthy() {
			t.Error("it fails at once")
		}
		ctx, stop := context.WithTimeout(t.Context(), slowDisk+time.Second)
		defer stop()
		if err := l.Commit(ctx, Event{Kind: "late"}); !errors.Is(err, context.DeadlineExceeded) || l.Healthy() {
			t.Errorf("%v, healthy %v", err, l.Healthy())
		}
		if err := l.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		close(release)
		shut(t, l)
		if !l.Healthy() || strings.Count(log.String(), "cannot be written") != 1 {
			t.Errorf("it has not recovered: %s", &log)
		}
		equal(t, kinds(written(t, files(t, dir)...)), kindOpened, kindStarted, "test", "late", kindStopped)
	})
}

// A disk that answers in the very moment in which it is given up is found to be well.
func TestALateAnswerDoesNotLeaveTheLogFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, t.TempDir(), func(o *Options) { o.OnFault = "closed" })
		commit(t, l, Event{Kind: "test"})
		l.watch()
		time.Sleep(slowDisk + groupDelay + time.Millisecond)
		synctest.Wait()
		if !l.Healthy() {
			t.Error("it stays failing")
		}
		shut(t, l)
	})
}
