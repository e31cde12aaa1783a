package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"go.etcd.io/bbolt"
)

// Records in the embedded file. They stand in two buckets that are made with the
// first one, so files of before are opened as they are:
//
//	bucket "records": key → version and expiry (Unix µs, 0: never) as varints, value, CRC-32C of key and all this
//	bucket "expiry":  expiry, eight bytes, and key → nothing; for the sweep
//	bucket "meta":    "version" → the latest version, eight bytes, and its CRC-32C
//
// (numbers in big-endian order). A version is the time in µs, or one more than the
// latest where the clock is behind that: so one is never used twice, not even by a
// file that was put back from a backup. Records that have expired are there for nobody;
// each Apply also removes some of them for good.
//
// An Apply is one commit, and is on disk when it returns. Those that wait for the
// disk at the same time share the next commit; each of them is still made as a whole
// or not at all, in the order in which they came.

var _ Records = (*File)(nil)

var (
	recordsBucket = []byte("records")
	expiryBucket  = []byte("expiry")
	versionKey    = []byte("version")
)

const (
	// maxSweep is how many expired records one commit removes. It is more than are
	// made in one, so that they do not pile up.
	maxSweep = 2 * MaxChanges
	// readAtOnce is how many records All reads in one transaction.
	readAtOnce = 256
)

// damagedRecord is an error that names a record.
type damagedRecord string

func (d damagedRecord) Error() string {
	return fmt.Sprintf("the record of %.60q is damaged", string(d))
}

// commits are the Applies that wait for the next commit. One of them makes it for all.
type commits struct {
	mu      sync.Mutex
	busy    bool // somebody commits
	waiting []*applying
}

// applying is one Apply. version and err belong to who commits until it is told.
type applying struct {
	changes []Change
	version int64
	err     error
	turn    chan bool // of one: true: commit what waits; false: it has been done
}

// Get implements Records.
func (f *File) Get(ctx context.Context, key string) (Record, error) {
	if err := CheckRecordKey(key); err != nil {
		return Record{}, err
	}
	if err := ctx.Err(); err != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrNotDone, err)
	}
	var r Record
	err := f.view(func(tx *bbolt.Tx) (err error) {
		r, err = getRecord(tx, []byte(key), f.now().UnixMicro())
		return err
	})
	return r, err
}

// Apply implements Records.
func (f *File) Apply(ctx context.Context, changes []Change) (int64, error) {
	if len(changes) == 0 {
		return 0, nil
	}
	if err := CheckChanges(changes); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNotDone, err)
	}
	a := &applying{changes: changes, turn: make(chan bool, 1)}
	c := &f.commits
	c.mu.Lock()
	c.waiting = append(c.waiting, a)
	turn := !c.busy
	c.busy = true
	c.mu.Unlock()
	if turn || <-a.turn {
		f.commitAll()
	}
	return a.version, a.err
}

// commitAll commits what waits, and gives the turn to the first of those that have
// come meanwhile.
func (f *File) commitAll() {
	c := &f.commits
	c.mu.Lock()
	batch := c.waiting
	c.waiting = nil
	c.mu.Unlock()
	f.commit(batch)
	c.mu.Lock()
	if c.busy = len(c.waiting) > 0; c.busy {
		c.waiting[0].turn <- true
	}
	c.mu.Unlock()
	for _, a := range batch {
		a.turn <- false
	}
}

// All implements Records. The records come sorted by key.
func (f *File) All(ctx context.Context, prefix string, yield func(Record) bool) error {
	batch := make([]Record, 0, readAtOnce)
	for from := []byte(prefix); from != nil; {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		batch = batch[:0]
		err := f.view(func(tx *bbolt.Tx) (err error) {
			batch, from, err = readRecords(tx, batch, from, []byte(prefix), f.now().UnixMicro())
			return err
		})
		if err != nil {
			return err
		}
		for _, r := range batch {
			if !yield(r) {
				return nil
			}
		}
	}
	return nil
}

// Watch implements Records. Only this process changes the file, so what f is told is
// what Apply has done.
func (f *File) Watch(changed func(keys []string)) { f.watcher.watch(changed) }

// view reads records.
func (f *File) view(read func(*bbolt.Tx) error) error {
	err := f.guard(func() error { return f.db.View(read) })
	_, damaged := errors.AsType[damagedRecord](err)
	switch {
	case err == nil || errors.Is(err, ErrNoRecord):
		return err
	case damaged:
		return f.named("read", err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, f.named("read", err))
}

// errNoChange ends a commit of which nothing is left.
var errNoChange = errors.New("there is nothing to change")

// commit makes what is applied in batch, each as a whole, in one transaction.
func (f *File) commit(batch []*applying) {
	unclear, err := f.write(func(tx *bbolt.Tx) error {
		k, err := newKeeper(tx, f.now().UnixMicro())
		if err != nil {
			return err
		}
		if err := k.sweep(); err != nil {
			return err
		}
		made := false
		for _, a := range batch {
			a.version, a.err = k.apply(a.changes)
			switch {
			case a.err == nil:
				made = true
			case !errors.Is(a.err, ErrConflict):
				return a.err
			}
		}
		if !made {
			return errNoChange
		}
		return k.finish()
	})
	for _, a := range batch {
		switch {
		case err == nil && a.err == nil:
			f.watcher.tell(a.changes)
		case err == nil || errors.Is(err, errNoChange): // a conflict
		default:
			a.version, a.err = 0, applyError(unclear, err)
		}
	}
}

// applyError is what who applies is told of a commit that failed.
func applyError(unclear bool, err error) error {
	if _, damaged := errors.AsType[damagedRecord](err); damaged {
		return err
	}
	if unclear {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return fmt.Errorf("%w: %w", ErrNotDone, err)
}

// keeper changes records within a transaction.
type keeper struct {
	meta, records, expiry *bbolt.Bucket
	now                   int64 // Unix µs
	version               int64 // the latest
}

func newKeeper(tx *bbolt.Tx, now int64) (*keeper, error) {
	k := &keeper{meta: tx.Bucket(metaBucket), now: now}
	var err error
	if k.records, err = tx.CreateBucketIfNotExists(recordsBucket); err != nil {
		return nil, err
	}
	if k.expiry, err = tx.CreateBucketIfNotExists(expiryBucket); err != nil {
		return nil, err
	}
	if v := k.meta.Get(versionKey); v != nil {
		if len(v) != 12 || checksum(string(versionKey), v[:8]) != binary.BigEndian.Uint32(v[8:]) {
			return nil, damagedRecord(versionKey)
		}
		k.version = int64(binary.BigEndian.Uint64(v))
	}
	return k, nil
}

// apply makes changes, or none with ErrConflict. Any other error must be the end of
// the transaction.
func (k *keeper) apply(changes []Change) (int64, error) {
	for i := range changes {
		c := &changes[i]
		if c.If == Always {
			continue
		}
		r, err := decodeLive([]byte(c.Key), k.records.Get([]byte(c.Key)), k.now)
		if err != nil && !errors.Is(err, ErrNoRecord) {
			return 0, err
		}
		if r.Version != c.If {
			return 0, fmt.Errorf("%w: %.60q", ErrConflict, c.Key)
		}
	}
	k.version = max(k.version+1, k.now)
	for i := range changes {
		if err := k.put(&changes[i]); err != nil {
			return 0, err
		}
	}
	return k.version, nil
}

func (k *keeper) put(c *Change) error {
	key := []byte(c.Key)
	if v := k.records.Get(key); v != nil {
		old, ok := decodeRecord(key, v)
		if !ok {
			return damagedRecord(c.Key)
		}
		if err := k.expiry.Delete(expiryKey(Micros(old.Expires), key)); err != nil {
			return err
		}
	}
	if c.Value == nil {
		return k.records.Delete(key)
	}
	ends := Micros(c.Expires)
	if ends != 0 {
		if err := k.expiry.Put(expiryKey(ends, key), nil); err != nil {
			return err
		}
	}
	return k.records.Put(key, encodeRecord(key, c.Value, k.version, ends))
}

// sweep removes records that have expired, the oldest first.
func (k *keeper) sweep() error {
	var gone [][]byte
	c := k.expiry.Cursor()
	for e, _ := c.First(); e != nil && len(gone) < maxSweep; e, _ = c.Next() {
		if len(e) < 8 || int64(binary.BigEndian.Uint64(e)) > k.now {
			break
		}
		gone = append(gone, slices.Clone(e)) // the cursor does not outlast a change
	}
	for _, e := range gone {
		if err := k.expiry.Delete(e); err != nil {
			return err
		}
		key := e[8:]
		v := k.records.Get(key)
		if v == nil {
			continue
		}
		// What expires is what the record itself says, which has a checksum.
		if r, ok := decodeRecord(key, v); !ok || !bytes.Equal(expiryKey(Micros(r.Expires), key), e) {
			continue
		}
		if err := k.records.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

func (k *keeper) finish() error {
	v := binary.BigEndian.AppendUint64(nil, uint64(k.version))
	return k.meta.Put(versionKey, binary.BigEndian.AppendUint32(v, checksum(string(versionKey), v)))
}

func expiryKey(ends int64, key []byte) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(key)), uint64(ends)), key...)
}

// getRecord returns a record that is there at now, Unix µs.
func getRecord(tx *bbolt.Tx, key []byte, now int64) (Record, error) {
	b := tx.Bucket(recordsBucket)
	if b == nil {
		return Record{}, ErrNoRecord
	}
	return decodeLive(key, b.Get(key), now)
}

// readRecords fills batch with those that begin with prefix, from the first at or
// behind from, and returns the key to go on with, nil at the end.
func readRecords(tx *bbolt.Tx, batch []Record, from, prefix []byte, now int64) ([]Record, []byte, error) {
	b := tx.Bucket(recordsBucket)
	if b == nil {
		return nil, nil, nil
	}
	c := b.Cursor()
	for k, v := c.Seek(from); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		if len(batch) == readAtOnce {
			return batch, slices.Clone(k), nil
		}
		r, err := decodeLive(k, v, now)
		switch {
		case err == nil:
			batch = append(batch, r)
		case !errors.Is(err, ErrNoRecord):
			return nil, nil, err
		}
	}
	return batch, nil, nil
}

// encodeRecord makes what stands under key.
func encodeRecord(key, value []byte, version, ends int64) []byte {
	b := make([]byte, 0, 2*binary.MaxVarintLen64+len(value)+4)
	b = binary.AppendVarint(b, version)
	b = binary.AppendVarint(b, ends)
	b = append(b, value...)
	return binary.BigEndian.AppendUint32(b, checksum(string(key), b))
}

// decodeRecord reads what stands under key; the result owns its value.
func decodeRecord(key, v []byte) (Record, bool) {
	if len(v) < 4 {
		return Record{}, false
	}
	body, sum := v[:len(v)-4], binary.BigEndian.Uint32(v[len(v)-4:])
	if checksum(string(key), body) != sum {
		return Record{}, false
	}
	version, n := binary.Varint(body)
	if n <= 0 {
		return Record{}, false
	}
	ends, m := binary.Varint(body[n:])
	if m <= 0 {
		return Record{}, false
	}
	return Record{Key: string(key), Value: append([]byte{}, body[n+m:]...), Version: version, Expires: FromMicros(ends)}, true
}

// decodeLive is decodeRecord for what may be nil or have expired, ErrNoRecord then.
func decodeLive(key, v []byte, now int64) (Record, error) {
	if v == nil {
		return Record{}, ErrNoRecord
	}
	r, ok := decodeRecord(key, v)
	switch {
	case !ok:
		return Record{}, damagedRecord(key)
	case !r.Expires.IsZero() && r.Expires.UnixMicro() <= now:
		return Record{}, ErrNoRecord
	}
	return r, nil
}
