package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// A state folder belongs to one gateway. Who has it holds the kernel's lock
// (flock) on the file `owner`, and has written into it who it is. The kernel ends
// the lock with the process, however that ends, so what a crashed owner has left
// in the file is in nobody's way. The file is never removed: somebody could be
// waiting for the lock of the removed one.

// owner is what stands in the file, for those who come second.
type owner struct {
	PID   int       `json:"pid"`
	Host  string    `json:"host"`
	Since time.Time `json:"since"`
}

// prepare makes dir, or sees to it that only this user can use it.
func prepare(dir string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(dir, 0o700); err == nil {
			err = syncFolder(filepath.Dir(dir))
		}
		if err != nil {
			return fmt.Errorf("store: state.dir cannot be made: %w", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("store: state.dir: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("store: state.dir %s is not a folder", dir)
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	const own = "give the gateway a folder of its own, for example %s, which it makes itself"
	at := filepath.Join(dir, "sluice")
	if s, ok := info.Sys().(*syscall.Stat_t); ok && int(s.Uid) != os.Geteuid() {
		return fmt.Errorf("store: state.dir %s is open to others (mode %o) and belongs to uid %d, not to %d: "+own,
			dir, info.Mode().Perm(), s.Uid, os.Geteuid(), at)
	}
	// A folder with other things in it may be /tmp or a home: not ours to close.
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("store: state.dir: %w", err)
	}
	for _, e := range entries {
		if !slices.Contains([]string{ownerName, fileName, fileName + newSuffix}, e.Name()) {
			return fmt.Errorf("store: state.dir %s is open to others (mode %o) and holds other files, such as %s: "+own+", or chmod 700 it",
				dir, info.Mode().Perm(), e.Name(), at)
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("store: state.dir is open to others: %w", err)
	}
	return nil
}

// own takes the lock of dir, or says who has it.
func own(dir string) (*os.File, error) {
	path := filepath.Join(dir, ownerName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: state.dir cannot be written by uid %d: %w", os.Geteuid(), err)
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close() // nothing was written
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, inUse(dir)
		}
		return nil, fmt.Errorf("store: %s cannot be locked: %w", path, err)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	text, err := json.Marshal(owner{PID: os.Getpid(), Host: host, Since: time.Now().UTC().Truncate(time.Second)})
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		// On a full disk nobody learns who has the folder; the lock holds nevertheless.
		_, _ = f.WriteAt(append(text, '\n'), 0)
	}
	if err != nil {
		disown(f)
		return nil, fmt.Errorf("store: %s: %w", path, err)
	}
	return f, nil
}

// disown gives the lock back. Losing it is all that Close can fail at, and then
// it is lost too.
func disown(f *os.File) {
	_ = f.Truncate(0)
	_ = f.Close()
}

func inUse(dir string) error {
	const todo = "stop it or give this gateway its own state.dir"
	var o owner
	text, err := os.ReadFile(filepath.Join(dir, ownerName))
	if err != nil || json.Unmarshal(text, &o) != nil || o.PID == 0 {
		return fmt.Errorf("store: state in %s is used by another sluice; %s", dir, todo)
	}
	return fmt.Errorf("store: state in %s is used by sluice pid %d on host %s, since %s; %s",
		dir, o.PID, o.Host, o.Since.Format(time.RFC3339), todo)
}

// syncFolder makes what was made or renamed in dir last.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) { // some file systems do not know it, and need it not
		err = nil
	}
	return errors.Join(err, d.Close())
}
