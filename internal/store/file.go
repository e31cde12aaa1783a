package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// The embedded file is bbolt: a B+tree of pages that are never changed in place.
// A commit writes new pages, syncs, and then writes the new root into one of two
// head pages, in turns, and syncs again. So a crash or a torn write at any moment
// leaves a head page that leads to all that was committed before; at most the
// commit that was under way is missing, all of it. This holds as long as the disk
// keeps what it says it has synced.
//
// What stands in it:
//
//	bucket "meta":   "format" → 1, four bytes
//	bucket "quotas": key → index and count as varints, CRC-32C of key and value, four bytes
//
// and what records_file.go says, from the first record on
//
// (numbers in big-endian order). bbolt checks neither the file nor its records:
// check.go looks at the structure before bbolt maps the file, and each record has
// a checksum.
//
// A new file is made under another name and renamed, so that a state.db that is
// there was whole once.

const (
	ownerName = "owner"
	fileName  = "state.db"
	newSuffix = ".new"

	// format is the version of what stands in the file. A file of a later one is
	// refused.
	format = 1

	// growth is by how much a file of more than this grows at once, bytes.
	growth = 1 << 20
	// fill is how full a page is left when it is split. New keys come sorted, and
	// records hardly change in length, so pages may be fuller than bbolt's half.
	fill = 0.85
	// maxRead is how many quotas are read in one transaction: a long one would keep
	// pages from being used again, and stop a commit that has to map the file anew.
	maxRead = 1024
)

var (
	metaBucket   = []byte("meta")
	formatKey    = []byte("format")
	quotasBucket = []byte("quotas")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// File is the embedded file in a folder that belongs to one gateway at a time.
// Its methods may be called from any goroutine; writes wait for each other. What
// a write returned nil for is on disk.
type File struct {
	path    string
	owner   *os.File // its lock is ours
	db      *bbolt.DB
	writing sync.Mutex
	failed  atomic.Pointer[error] // why the file is not written any more
	commits commits
	watcher watcher
	now     func() time.Time // what records expire by
}

// OpenFile opens the state in dir, which is made when it is not there, for this
// user alone. It fails at once when another gateway has it, naming that one; when
// the folder cannot be written or is open to others; and when the file in it is
// damaged or of a later format. It does not wait.
func OpenFile(dir string) (*File, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("store: state.dir: %w", err)
	}
	if err := prepare(dir); err != nil {
		return nil, err
	}
	owner, err := own(dir)
	if err != nil {
		return nil, err
	}
	f := &File{path: filepath.Join(dir, fileName), owner: owner, now: time.Now}
	f.watcher.init()
	if err := f.open(); err != nil {
		disown(owner)
		return nil, err
	}
	return f, nil
}

func (f *File) open() error {
	info, err := os.Lstat(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := f.create(); err != nil {
			return fmt.Errorf("store: %s cannot be made: %w", f.path, err)
		}
	case err != nil:
		return fmt.Errorf("store: %w", err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("store: %s is not a plain file", f.path)
	case info.Mode().Perm() != 0o600:
		if err := os.Chmod(f.path, 0o600); err != nil {
			return fmt.Errorf("store: %s is open to others: %w", f.path, err)
		}
	}
	if err := check(f.path); err != nil {
		return f.damaged(err)
	}
	return f.guard(func() error {
		db, err := openDB(f.path)
		if errors.Is(err, bolterrors.ErrTimeout) {
			return fmt.Errorf("store: %s is locked by another program", f.path)
		}
		if err != nil {
			return f.damaged(err)
		}
		if err := db.View(f.checkFormat); err != nil {
			_ = db.Close() // nothing was written
			return err
		}
		f.db = db
		return nil
	})
}

// create makes an empty file, whole or not at all.
func (f *File) create() error {
	made := f.path + newSuffix
	if err := os.Remove(made); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := openDB(made)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucket(metaBucket)
		if err != nil {
			return err
		}
		if _, err := tx.CreateBucket(quotasBucket); err != nil {
			return err
		}
		return meta.Put(formatKey, binary.BigEndian.AppendUint32(nil, format))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := os.Rename(made, f.path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(f.path))
}

func openDB(path string) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: 1, // none: with 0 it would wait for ever
		// The list of free pages is found again when the file is opened. It is not
		// written with each commit, and cannot be damaged.
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
		NoStatistics:   true,
	})
	if err == nil {
		db.AllocSize = growth
	}
	return db, err
}

func (f *File) checkFormat(tx *bbolt.Tx) error {
	meta, quotas := tx.Bucket(metaBucket), tx.Bucket(quotasBucket)
	if meta == nil || quotas == nil {
		return fmt.Errorf("store: %s is not a state of sluice", f.path)
	}
	v := meta.Get(formatKey)
	if len(v) != 4 {
		return fmt.Errorf("store: %s is not a state of sluice", f.path)
	}
	if n := binary.BigEndian.Uint32(v); n != format {
		return fmt.Errorf("store: %s has format %d, this sluice knows %d: run the sluice that wrote it, or give this one its own state.dir", f.path, n, format)
	}
	return nil
}

// damaged says what to do about a file that cannot be read.
func (f *File) damaged(err error) error {
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("store: state cannot be read: %w", err)
	}
	return fmt.Errorf("store: %s is damaged: %w; put a backup in its place, or move it away to begin with nothing", f.path, err)
}

// Quota returns what is kept under key.
func (f *File) Quota(key string) (q Quota, ok bool, err error) {
	err = f.guard(func() error {
		return f.db.View(func(tx *bbolt.Tx) error {
			v := tx.Bucket(quotasBucket).Get([]byte(key))
			if v == nil {
				return nil
			}
			q, ok = decodeQuota(key, v)
			if !ok {
				return f.badRecord(key)
			}
			return nil
		})
	})
	if err != nil {
		return Quota{}, false, f.named("read", err)
	}
	return q, ok, nil
}

// Quotas yields every quota that is kept, sorted by key, until yield returns
// false. What is saved or dropped meanwhile may be seen or not; yield may do either.
func (f *File) Quotas(yield func(Quota) bool) error {
	batch := make([]Quota, 0, maxRead)
	for from := []byte{}; from != nil; {
		batch = batch[:0]
		err := f.guard(func() error {
			return f.db.View(func(tx *bbolt.Tx) (err error) {
				batch, from, err = f.read(tx, batch, from)
				return err
			})
		})
		if err != nil {
			return f.named("read", err)
		}
		for _, q := range batch {
			if !yield(q) {
				return nil
			}
		}
	}
	return nil
}

// read fills batch from the first key at or behind from, and returns the key to
// go on with, nil at the end.
func (f *File) read(tx *bbolt.Tx, batch []Quota, from []byte) ([]Quota, []byte, error) {
	c := tx.Bucket(quotasBucket).Cursor()
	for k, v := c.Seek(from); k != nil; k, v = c.Next() {
		if len(batch) == maxRead {
			return batch, slices.Clone(k), nil
		}
		key := string(k)
		q, ok := decodeQuota(key, v)
		if !ok {
			return nil, nil, f.badRecord(key)
		}
		batch = append(batch, q)
	}
	return batch, nil, nil
}

// SaveQuotas keeps all of quotas, in place of what their keys had, or none when it
// returns an error. Of two with the same key the later counts. A key has 1 to
// 32,768 bytes. It syncs once, which takes as long as the disk does.
func (f *File) SaveQuotas(quotas []Quota) error {
	if len(quotas) == 0 {
		return nil
	}
	sorted := slices.Clone(quotas)
	slices.SortStableFunc(sorted, func(a, b Quota) int { return strings.Compare(a.Key, b.Key) })
	values := make([]byte, 0, 16*len(sorted)) // they stay there until the commit
	return f.update(func(b *bbolt.Bucket) error {
		for i := range sorted {
			at := len(values)
			values = appendQuota(values, &sorted[i])
			if err := b.Put([]byte(sorted[i].Key), values[at:len(values):len(values)]); err != nil {
				return fmt.Errorf("quota %.60q: %w", sorted[i].Key, err)
			}
		}
		return nil
	})
}

// DropQuotas forgets quotas, all or, with an error, none. Keys that are not there
// are no error. The file keeps its size; what becomes free in it is used again.
func (f *File) DropQuotas(keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	sorted := slices.Clone(keys)
	slices.Sort(sorted)
	return f.update(func(b *bbolt.Bucket) error {
		for _, k := range sorted {
			if err := b.Delete([]byte(k)); err != nil {
				return err
			}
		}
		return nil
	})
}

// update changes the quotas in one transaction.
func (f *File) update(change func(*bbolt.Bucket) error) error {
	_, err := f.write(func(tx *bbolt.Tx) error {
		b := tx.Bucket(quotasBucket)
		b.FillPercent = fill
		return change(b)
	})
	return err
}

// write makes changes in one transaction. With an error nothing was changed, unless
// it is unclear: then it may be.
func (f *File) write(change func(*bbolt.Tx) error) (unclear bool, err error) {
	f.writing.Lock()
	defer f.writing.Unlock()
	if failed := f.failed.Load(); failed != nil {
		return false, fmt.Errorf("store: %s is not written any more: %w; restart the gateway when the disk is well", f.path, *failed)
	}
	var id int
	err = f.guard(func() error {
		err := f.db.Update(func(tx *bbolt.Tx) error {
			id = tx.ID()
			return change(tx)
		})
		if err == nil {
			return nil
		}
		// A commit that fails before its head page is written leaves nothing behind,
		// and the next may succeed: the disk was full, say. One whose head page may or
		// may not be on disk must be the last: another would use the pages again that
		// the older head page leads to.
		return errors.Join(err, f.db.View(func(tx *bbolt.Tx) error {
			if tx.ID() >= id && id > 0 {
				f.fail(err)
			}
			return nil
		}))
	})
	switch {
	case err == nil:
		return false, nil
	case f.failed.Load() != nil:
		return true, fmt.Errorf("store: %s may have been changed or not: %w; it is not written any more, restart the gateway when the disk is well", f.path, err)
	}
	return false, f.named("changed", err)
}

func (f *File) named(done string, err error) error {
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return fmt.Errorf("store: %s is closed", f.path)
	}
	return fmt.Errorf("store: %s was not %s: %w", f.path, done, err)
}

func (f *File) badRecord(key string) error {
	return fmt.Errorf("the record of %.60q is damaged", key)
}

func (f *File) fail(err error) { f.failed.CompareAndSwap(nil, &err) }

// guard runs work, which reads pages of the mapped file. When the disk cannot
// deliver one, or one holds nonsense, reading it panics inside bbolt; here that
// becomes an error, and the last thing that was done with the file.
func (f *File) guard(work func() error) (err error) {
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		if p := recover(); p != nil {
			err = fmt.Errorf("reading it failed: %v", p)
			f.fail(err)
		}
	}()
	return work()
}

// Close ends the use of the file, behind the write that is under way. Every later
// call fails.
func (f *File) Close() error {
	f.watcher.close()
	var err error
	if f.failed.Load() == nil { // else bbolt may hold locks for ever
		err = f.db.Close()
	}
	disown(f.owner)
	if err != nil {
		return fmt.Errorf("store: %s: %w", f.path, err)
	}
	return nil
}

// appendQuota appends the value of q.
func appendQuota(dst []byte, q *Quota) []byte {
	at := len(dst)
	dst = binary.AppendVarint(dst, q.Index)
	dst = binary.AppendVarint(dst, q.Count)
	return binary.BigEndian.AppendUint32(dst, checksum(q.Key, dst[at:]))
}

func decodeQuota(key string, v []byte) (Quota, bool) {
	if len(v) < 4 {
		return Quota{}, false
	}
	body, sum := v[:len(v)-4], binary.BigEndian.Uint32(v[len(v)-4:])
	index, n := binary.Varint(body)
	if n <= 0 {
		return Quota{}, false
	}
	count, m := binary.Varint(body[n:])
	if m <= 0 || n+m != len(body) || checksum(key, body) != sum {
		return Quota{}, false
	}
	return Quota{Key: key, Index: index, Count: count}, true
}

func checksum(key string, value []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(key), castagnoli), castagnoli, value)
}
