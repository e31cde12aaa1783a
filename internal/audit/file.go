package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// A file belongs to one gateway, which has the kernel's lock (flock) on it as long as
// it writes. Files of one chain:
//
//	audit.jsonl                    what is written now
//	audit.000000120000.jsonl       full; line 120000 is its last
//	audit.torn-000000120345.jsonl  what a crash left behind line 120344, as it was found
//
// Each file begins with an audit.opened line, whose prev is the hash of the last line
// of the file that it names.
//
// A crash within a write can leave a part of a group behind the last whole line.
// Nobody was told that those lines are there. Opening the file moves them to a file of
// their own, so that nothing is thrown away, and an audit.repaired line says so; the chain goes
// on behind the last line that holds by itself.

// maxTail bounds what may stand behind the last whole line, in bytes: more than one
// write.
const maxTail = 2 << 20

// seqDigits is how many digits the number of a line has in the name of a file, so
// that names sort as lines do.
const seqDigits = 12

// file is an open file of the log. One goroutine uses it.
type file struct {
	path  string
	f     *os.File
	size  int64  // up to which its lines are whole and on disk
	end   link   // its last line; that of the file before when it is empty
	after string // the name of the file before, when this one is empty
	cut   bool   // somebody else has left a line without its end
	torn  *torn  // what opening it has moved away; nil: nothing
}

// torn is what was found behind the last whole line.
type torn struct {
	bytes int
	sum   string // SHA-256, in hex
	kept  string // name of the file that has it now
}

// path is where a configured file is.
func (l *Log) path(name string) string {
	if !filepath.IsAbs(name) {
		name = filepath.Join(l.dir, name)
	}
	return filepath.Clean(name)
}

// openFile opens or makes the file at path, locks it, and repairs its end.
func openFile(path string) (_ *file, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("audit: the folder of audit.file cannot be made: %w", err)
	}
	// Not O_TRUNC, ever: it may be anything that the configuration names by mistake.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit: audit.file cannot be written: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close() // the first error is the one to tell
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("audit: %s is not a plain file; name another as audit.file", path)
	}
	if err := lock(f); err != nil {
		return nil, fmt.Errorf("audit: %s cannot be locked: %w; another gateway may be writing it: give each its own audit.file", path, err)
	}
	a := &file{path: path, f: f, size: info.Size()}
	if a.size == 0 {
		if a.end, a.after, err = before(path); err != nil {
			return nil, err
		}
		return a, syncFolder(filepath.Dir(path))
	}
	return a, a.repair()
}

func lock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

func (a *file) close() { _ = a.f.Close() } // every group was synced

// repair finds the last whole line, and moves what stands behind it away.
func (a *file) repair() error {
	end, whole, err := tail(a.f, a.size)
	if err != nil {
		return fmt.Errorf("audit: %s: %w; move that file away, or name another as audit.file", a.path, err)
	}
	a.end = end
	if whole == a.size {
		return nil
	}
	rest := make([]byte, a.size-whole)
	if _, err := a.f.ReadAt(rest, whole); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	sum := sha256.Sum256(rest)
	kept := beside(a.path, "torn-", end.seq+1)
	if err := keep(kept, rest); err != nil {
		return fmt.Errorf("audit: what a crash has left in %s cannot be moved away: %w", a.path, err)
	}
	if err := errors.Join(a.f.Truncate(whole), a.f.Sync()); err != nil {
		return fmt.Errorf("audit: %s cannot be repaired: %w", a.path, err)
	}
	a.size = whole
	a.torn = &torn{len(rest), hex.EncodeToString(sum[:]), filepath.Base(kept)}
	if whole == 0 { // the very first line was torn
		a.end, a.after, err = before(a.path)
	}
	return err
}

// keep appends bytes to a file of their own.
func keep(path string, rest []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(rest)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = syncFolder(filepath.Dir(path))
	}
	return err
}

// tail returns the last line of r that holds by itself, and where it ends. An error
// says that what stands there was never the log's.
func tail(r io.ReaderAt, size int64) (end link, whole int64, err error) {
	from := max(0, size-maxTail-maxLine)
	text := make([]byte, size-from)
	if _, err := r.ReadAt(text, from); err != nil {
		return end, 0, err
	}
	end, at, rest := link{hash: first}, 0, text // without a line that holds, all is the rest
	for stop := bytes.LastIndexByte(text, '\n'); stop >= 0; {
		start := bytes.LastIndexByte(text[:stop], '\n')
		if p, wrong := parse(text[start+1 : stop]); wrong == "" {
			end, at, rest = link{p.seq, p.hash}, stop+1, text[stop+1:]
			break
		}
		stop = start
	}
	if at == 0 && from > 0 || len(rest) > maxTail || !plausible(rest) {
		return end, 0, errors.New("what stands at its end is no line of an audit log")
	}
	return end, from + int64(at), nil
}

// plausible reports whether bytes behind a whole line can be the rest of a write that
// broke off: they begin as a line does, or the disk had made room and no more.
func plausible(rest []byte) bool {
	return bytes.HasPrefix(rest, []byte(lineStart)) || bytes.HasPrefix([]byte(lineStart), rest) || rest[0] == 0
}

// before finds the end of the chain that a new file at path goes on: that of the
// newest file beside it. Without one the chain begins.
func before(path string) (end link, name string, err error) {
	end = link{hash: first}
	stem, ext := split(filepath.Base(path))
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return end, "", fmt.Errorf("audit: %w", err)
	}
	newest := ""
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), stem+".")
		digits, more := strings.CutSuffix(digits, ext)
		if ok && more && len(digits) == seqDigits && strings.Trim(digits, "0123456789") == "" {
			newest = max(newest, e.Name())
		}
	}
	if newest != "" {
		end, err = last(filepath.Join(filepath.Dir(path), newest))
		if err != nil {
			return end, "", fmt.Errorf("audit: %s has the lines before %s: %w; move it away to begin a new chain", newest, path, err)
		}
		name = newest
	}
	// What logrotate calls the newest file. Something else may have that name.
	if other, err := last(path + ".1"); err == nil && other.seq > end.seq {
		return other, filepath.Base(path) + ".1", nil
	}
	return end, name, nil
}

// last returns the last line of a file that is not written any more.
func last(path string) (link, error) {
	f, err := os.Open(path)
	if err != nil {
		return link{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return link{}, err
	}
	end, whole, err := tail(f, info.Size())
	if err == nil && whole != info.Size() {
		err = errors.New("its last line is torn")
	}
	return end, err
}

// beside is the name of a file of the chain: path with the number of a line in it.
func beside(path, what string, seq uint64) string {
	stem, ext := split(path)
	digits := strconv.FormatUint(seq, 10)
	return stem + "." + what + strings.Repeat("0", max(0, seqDigits-len(digits))) + digits + ext
}

func split(path string) (stem, ext string) {
	ext = filepath.Ext(path)
	return strings.TrimSuffix(path, ext), ext
}

// syncFolder makes the names in a folder last.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("audit: %s: %w", dir, err)
	}
	return nil
}

// isFull reports whether an error says that there is no room: it goes away when
// somebody makes some.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
