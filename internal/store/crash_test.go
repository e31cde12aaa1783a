package store

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// children are what the test binary does as a child, in the folder it is given.
var children = map[string]func(dir string) error{
	"write":       writeUntilKilled,
	"small":       writeUntilFull,
	"stranger":    openAsStranger,
	"records":     applyUntilKilled,
	"recordsfull": recordsUntilFull,
}

func child(t *testing.T, role, dir string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self, dir)
	c.Env = append(os.Environ(), childEnv+"="+role)
	c.Stderr = os.Stderr
	return c
}

// batch is a save that is seen to be whole or not: all its quotas have one count.
func batch(round int64) []Quota {
	q := make([]Quota, 300)
	for i := range q {
		q[i] = Quota{fmt.Sprintf("client-%04d", i), 1, round}
	}
	return q
}

// round returns the count that all quotas of f have.
func round(t *testing.T, f *File) int64 {
	t.Helper()
	got := all(t, f)
	if len(got) == 0 {
		return 0
	}
	if len(got) != len(batch(0)) {
		t.Fatalf("%d quotas", len(got))
	}
	for _, q := range got {
		if q.Count != got[0].Count {
			t.Fatalf("counts %d and %d: a batch was torn", q.Count, got[0].Count)
		}
	}
	return got[0].Count
}

func writeUntilKilled(dir string) error {
	f, err := OpenFile(dir)
	if err != nil {
		return err
	}
	q, _, err := f.Quota("client-0000")
	for i := q.Count + 1; err == nil; i++ {
		if err = f.SaveQuotas(batch(i)); err == nil {
			fmt.Println(i)
		}
	}
	return err
}

func TestAKilledWriterLosesAtMostTheBatchUnderWay(t *testing.T) {
	dir := t.TempDir()
	last := int64(0)
	for range 8 {
		c := child(t, "write", dir)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		kill := rand.IntN(20) + 1
		for n := 0; lines.Scan(); n++ {
			if _, err := fmt.Sscan(lines.Text(), &last); err != nil {
				t.Fatal(lines.Text())
			}
			if n == kill {
				if _, err := OpenFile(dir); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("sluice pid %d on host", c.Process.Pid)) {
					t.Errorf("beside a running owner: %v", err)
				}
				if err := c.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = c.Wait() // killed
		f := open(t, dir)
		if got := round(t, f); got != last && got != last+1 {
			t.Fatalf("round %d is kept, %d was acknowledged", got, last)
		}
		last = round(t, f)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAPowerCutLosesAtMostTheBatchUnderWay puts together what a disk may hold when
// it stops during a commit: any part of the pages written before the first sync,
// with the old head; or all of them with a torn head.
func TestAPowerCutLosesAtMostTheBatchUnderWay(t *testing.T) {
	t.Run("quotas", func(t *testing.T) {
		powerCut(t, func(f *File, i int64) { save(t, f, batch(i)...) }, round)
	})
	t.Run("records", func(t *testing.T) {
		powerCut(t, func(f *File, i int64) { apply(t, f, roundChanges(i)...) }, func(t *testing.T, f *File) int64 {
			i, err := recordRound(f)
			if err != nil {
				t.Fatal(err)
			}
			return i
		})
	})
}

// powerCut has write make rounds 1, 2, …, and round tell which one there is.
func powerCut(t *testing.T, write func(f *File, i int64), round func(t *testing.T, f *File) int64) {
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	f := open(t, dir)
	for i := range int64(5) {
		write(f, i+1)
	}
	read := func() []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	before := read()
	write(f, 6)
	after := read()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	size := os.Getpagesize()
	page := func(b []byte, i int) []byte { return b[i*size : (i+1)*size] }
	var data, heads []int
	for i := range len(before) / size {
		if bytes.Equal(page(before, i), page(after, i)) {
			continue
		}
		if i < 2 {
			heads = append(heads, i)
		} else {
			data = append(data, i)
		}
	}
	if len(heads) != 1 || len(data) < 3 || len(before) != len(after) {
		t.Fatalf("pages %v and heads %v changed", data, heads)
	}
	try := func(what string, image []byte, want ...int64) {
		at := t.TempDir()
		if err := os.WriteFile(filepath.Join(at, fileName), image, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := OpenFile(at)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer f.Close()
		got := round(t, f)
		if got != want[0] && got != want[len(want)-1] {
			t.Errorf("%s: round %d, want %v", what, got, want)
		}
		write(f, got+1)
	}
	for range 50 {
		image := bytes.Clone(before)
		for _, i := range data {
			if n := rand.IntN(3); n > 0 { // whole, or a sector of it
				copy(page(image, i)[:size>>(3*(n-1))], page(after, i))
			}
		}
		try("the data half written", image, 5)
	}
	for cut := 0; cut <= 96; cut++ {
		image := bytes.Clone(after)
		copy(page(image, heads[0])[cut:], page(before, heads[0])[cut:])
		try(fmt.Sprintf("the head cut at %d", cut), image, 5, 6)
	}
}

// TestADamagedFileIsAnErrorNotACrash changes the file at random. Whatever is read
// from it must be what was saved, or an error.
func TestADamagedFileIsAnErrorNotACrash(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	f := open(t, dir)
	quotas := many(2000)
	want := map[string]Quota{}
	for _, q := range quotas {
		want[q.Key] = q
	}
	save(t, f, quotas[0])
	save(t, f, quotas...)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damage := func(what string, image []byte) (found bool) {
		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := OpenFile(dir)
		if err != nil {
			if !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %v does not name the file", what, err)
			}
			return true
		}
		defer f.Close()
		n := 0
		err = f.Quotas(func(q Quota) bool {
			if want[q.Key] != q {
				t.Errorf("%s: %v was read for %v", what, q, want[q.Key])
			}
			n++
			return true
		})
		// Without the newer head the older one counts, as behind a torn write.
		if err == nil && n != len(want) && n != 1 {
			t.Errorf("%s: %d quotas of %d, without an error", what, n, len(want))
		}
		if err == nil {
			save(t, f, Quota{"client", 1, 1})
		}
		return err != nil
	}
	if damage("nothing", whole) {
		t.Fatal("the whole file is refused")
	}
	for _, n := range []int{0, 1, 100, 4096, 8192, 16384, len(whole) / 2} {
		if !damage(fmt.Sprintf("cut at %d", n), whole[:n]) {
			t.Errorf("cut at %d: not noticed", n)
		}
	}
	found := 0
	for i := range 160 {
		image := bytes.Clone(whole)
		at := rand.IntN(len(image))
		if i%2 == 0 { // in the first bytes of a page, where the structure is
			at = at&^4095 + rand.IntN(200)
		}
		what := fmt.Sprintf("byte %d", at)
		switch i % 4 {
		case 0, 1:
			image[at] ^= 1 << rand.IntN(8)
		case 2:
			copy(image[at:], bytes.Repeat([]byte{0xFF}, 16))
		case 3:
			clear(image[at&^4095:][:4096])
			what = fmt.Sprintf("page %d cleared", at/4096)
		}
		if damage(what, image) {
			found++
		}
	}
	if found < 20 {
		t.Errorf("only %d of 160 damages were noticed", found)
	}
}

// writeUntilFull saves ever more until the limit of its file size stops it.
func writeUntilFull(dir string) error {
	signal.Ignore(syscall.SIGXFSZ)
	f, err := OpenFile(dir)
	if err != nil {
		return err
	}
	limit := syscall.Rlimit{Cur: 2 << 20, Max: 2 << 20}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	if err := fillUp(f); err != nil {
		return err
	}
	fmt.Println("done")
	return f.Close()
}

// fillUp saves batches until one fails, and checks what a full disk must not take.
func fillUp(f *File) error {
	if err := f.SaveQuotas(batch(1)); err != nil {
		return err
	}
	n := 0
	for ; ; n++ {
		q := make([]Quota, 2000)
		for i := range q {
			q[i] = Quota{fmt.Sprintf("filler-%06d-%04d", n, i), 1, 1}
		}
		if err := f.SaveQuotas(q); err != nil {
			if !strings.Contains(err.Error(), "was not changed") {
				return fmt.Errorf("unclear: %w", err)
			}
			fmt.Println("full:", err)
			break
		}
		if n > 1000 {
			return errors.New("it is never full")
		}
	}
	kept := 0
	if err := f.Quotas(func(Quota) bool { kept++; return true }); err != nil {
		return err
	}
	if kept != 300+2000*n {
		return fmt.Errorf("%d quotas are kept, %d were saved", kept, 300+2000*n)
	}
	if f.failed.Load() != nil {
		return errors.New("it gave up")
	}
	// Room is made by dropping, for as long as the little that this needs is there.
	var keys []string
	for i := range 2000 {
		keys = append(keys, fmt.Sprintf("filler-%06d-%04d", 0, i))
	}
	if err := f.DropQuotas(keys); err != nil {
		return err
	}
	if err := f.SaveQuotas(batch(2)); err != nil {
		return err
	}
	q, _, err := f.Quota("client-0000")
	if err == nil && q.Count != 2 {
		return fmt.Errorf("%v was kept", q)
	}
	return err
}

func TestAFileThatCannotGrowKeepsWhatItHas(t *testing.T) {
	dir := t.TempDir()
	out, err := child(t, "small", dir).Output()
	if err != nil || !strings.HasSuffix(string(out), "done\n") || !strings.Contains(string(out), "file too large") {
		t.Fatalf("%v: %s", err, out)
	}
	if q, _, err := open(t, dir).Quota("client-0000"); err != nil || q.Count != 2 {
		t.Errorf("%v %v", q, err)
	}
}

func TestAFullDiskKeepsWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=3m,mode=700"); err != nil {
		// Only root can; TestAFileThatCannotGrowKeepsWhatItHas sees the same from below.
		t.Logf("no small disk: %v", err)
		return
	}
	defer func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	f, err := OpenFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := fillUp(f); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if f, err = OpenFile(dir); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	full := filepath.Join(dir, "more")
	if err := os.Mkdir(full, 0o700); err != nil {
		t.Fatal(err)
	}
	for n := 1 << 20; n >= 1; n /= 2 { // the last byte
		ballast, err := os.OpenFile(filepath.Join(dir, "ballast"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = ballast.Write(make([]byte, n))
		}
		_ = ballast.Close() // it is full
	}
	_, err = OpenFile(full)
	refused(t, err, "cannot be made", "no space left on device")
}

// openAsStranger opens the folder as a user who owns nothing.
func openAsStranger(dir string) error {
	if os.Getuid() == 0 {
		if err := syscall.Setuid(65534); err != nil {
			return err
		}
	}
	_, err := OpenFile(dir)
	return err
}

func TestAFolderOfSomebodyElseIsAClearError(t *testing.T) {
	dir, err := os.MkdirTemp("", "store")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	try := func(mode os.FileMode, at string, words ...string) {
		t.Helper()
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		out, _ := child(t, "stranger", at).Output()
		refused(t, errors.New(string(out)), words...)
	}
	if os.Getuid() == 0 {
		try(0o755, dir, "open to others (mode 755) and belongs to uid 0, not to 65534", "folder of its own")
		try(0o777, dir, "belongs to uid 0")
		try(0o700, dir, "state.dir cannot be written by uid 65534", "permission denied")
		try(0o755, filepath.Join(dir, "new"), "state.dir cannot be made", "permission denied")
	} else {
		try(0o500, dir, "state.dir cannot be written by uid", "permission denied")
		try(0o500, filepath.Join(dir, "new"), "state.dir cannot be made", "permission denied")
	}
}
