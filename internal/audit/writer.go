package audit

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"
)

// writer is the one that has the file. All of it runs in one goroutine; before that
// has begun, in Open.
type writer struct {
	l        *Log
	rotateAt int64
	path     string // of the file; empty: there is none
	file     *file  // nil: it has to be opened
	end      link   // the last line that is on disk
	after    string // name of the file that has it, when that is not file

	own   []*entry // lines about the log itself, for the front of the next group
	batch []*entry // the group that is being written; stays while that fails
	buf   []byte
}

const (
	// maxOwn bounds the lines about the log itself that wait.
	maxOwn = 16
	// maxWrite is after how many bytes the rest of a group waits for the next write.
	maxWrite = 1 << 20
)

// run writes until the log is closed.
func (w *writer) run() {
	defer close(w.l.done)
	timer := time.NewTimer(groupDelay)
	armed := true
	for {
		select {
		case <-w.l.wake:
			if !armed {
				timer.Reset(groupDelay)
				armed = true
			}
			continue
		case f := <-w.l.orders:
			f(w)
		case <-w.l.urgent:
			w.group()
		case <-timer.C:
			w.group()
		case <-w.l.stop:
			timer.Stop()
			w.finish()
			return
		}
		timer.Stop()
		if armed = len(w.batch)+len(w.own) > 0 || w.l.failing.Load(); armed {
			timer.Reset(retryDelay)
		} else if w.l.waiting() {
			timer.Reset(groupDelay)
			armed = true
		}
	}
}

// waiting reports whether something is queued.
func (l *Log) waiting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue)+l.lost+l.leftOut > 0
}

// take empties the queue. What was lost in front of it becomes a line.
func (l *Log) take() []*entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	batch := l.queue
	l.queue = nil
	if l.lost+l.leftOut > 0 {
		detail := map[string]any{}
		if l.lost > 0 {
			detail["lost"], detail["since"] = l.lost, l.since.UTC()
		}
		if l.leftOut > 0 {
			detail["left_out"] = l.leftOut
		}
		batch = append(batch, newEntry(Event{Kind: kindLost, Detail: detail}, l.now()))
		l.lost, l.leftOut = 0, 0
	}
	l.full.Store(false)
	return batch
}

// refuse tells whoever waits in the queue that it will take longer.
func (l *Log) refuse(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.queue {
		e.answer(err)
	}
}

// add puts a line about the log itself in front of the next group.
func (w *writer) add(e Event) {
	if len(w.own) < maxOwn {
		w.own = append(w.own, newEntry(e, w.l.now()))
	}
}

// group writes what waits, with one write and one fsync, and tells who waits for it.
func (w *writer) group() {
	defer w.l.watch()()
	if len(w.batch) == 0 {
		w.batch = w.l.take()
	}
	if w.path == "" {
		for _, e := range w.batch {
			e.answer(nil)
		}
		w.batch = nil
		return
	}
	if err := w.ready(); err != nil {
		w.fail(err)
		return
	}
	w.batch = append(w.own, w.batch...)
	w.own = nil
	for len(w.batch) > 0 {
		n, err := w.write()
		if err != nil {
			w.fail(err)
			return
		}
		w.works()
		w.l.count.lines.Add(uint64(n))
		for _, e := range w.batch[:n] {
			e.answer(nil)
		}
		w.batch = w.batch[n:]
	}
	w.batch = nil
	w.works() // also when there was nothing to write
}

// write appends the first of the group to the file, at most maxWrite bytes, and
// returns how many they were. On an error nothing has changed.
func (w *writer) write() (int, error) {
	buf, end, n := w.buf[:0], w.end, 0
	if w.file.cut {
		buf = append(buf, '\n')
	}
	for n < len(w.batch) && len(buf) < maxWrite {
		buf = end.append(buf, w.batch[n])
		n++
	}
	w.buf = buf
	written, err := w.file.f.Write(buf)
	if err == nil && written < len(buf) {
		err = io.ErrShortWrite
	}
	if err == nil {
		err = w.file.f.Sync()
	}
	if err != nil {
		// Behind a failed fsync nobody knows what is on disk, and the next one may
		// say that all is well: so all of it is taken back, and written anew.
		if w.file.f.Truncate(w.file.size) != nil {
			w.leave()
		}
		return 0, err
	}
	w.file.size += int64(len(buf))
	w.file.cut = false
	w.end = end
	return n, nil
}

// watch has the log said to fail when stop does not follow within slowDisk: a disk
// that hangs returns no error.
func (l *Log) watch() (stop func() bool) {
	return time.AfterFunc(slowDisk, func() {
		if !l.failing.Swap(true) {
			l.count.failures.Add(1)
			l.log.Error("the audit log cannot be written", "cause", "its disk has not answered for "+slowDisk.String())
		}
		tell(l.wake) // should it just have answered: the next group shows that all is well
	}).Stop
}

// answer tells who waits, once.
func (e *entry) answer(err error) {
	if e.done != nil {
		e.done <- err
		e.done = nil
	}
}

// works notes that the log can be written.
func (w *writer) works() {
	if w.l.failing.Swap(false) {
		w.l.log.Info("the audit log is written again", "file", w.path, "lost", w.l.count.lost.Load())
	}
}

// fail notes that the group could not be written. It stays, for the next attempt;
// whoever waits for it is told.
func (w *writer) fail(err error) {
	w.l.count.failures.Add(1)
	known := w.l.failing.Swap(true)
	w.l.refuse(err) // first: who comes after an answer may have mended what was wrong
	for _, e := range w.batch {
		e.answer(err)
	}
	if known {
		return
	}
	follows := "requests pass, and what does not fit into memory is lost"
	if w.l.closed.Load() {
		follows = "requests are refused until it can be"
	}
	w.l.log.Error("the audit log cannot be written", "file", w.path, "cause", err, "on_fault", follows)
}

// ready sees to it that the file is the one that its name stands for, is as it was
// left, and has room; if need be it opens another.
func (w *writer) ready() error {
	if w.file != nil {
		if err := w.inspect(); err != nil {
			return err
		}
	}
	if w.file != nil {
		return nil
	}
	f, err := openFile(w.path)
	if err != nil {
		return err
	}
	w.use(f)
	return nil
}

// inspect looks at the file under its name, and leaves it when it is full or another.
func (w *writer) inspect() error {
	is, err := os.Stat(w.path)
	if errors.Is(err, os.ErrNotExist) {
		w.leave()
		return nil
	}
	if err != nil {
		return err
	}
	was, err := w.file.f.Stat()
	if err != nil {
		return err
	}
	switch size := is.Size(); {
	case !os.SameFile(is, was):
		w.leave()
	case size != w.file.size:
		w.changed(size)
	case size >= w.rotateAt:
		full := beside(w.path, "", w.end.seq)
		if err := os.Rename(w.path, full); err != nil {
			return err
		}
		w.leave()
		w.after = filepath.Base(full)
	}
	return nil
}

// changed notes that somebody else has written to the file, or cut it: it has size
// bytes now. The chain goes on as if nothing had happened, so that whoever verifies
// it finds the place.
func (w *writer) changed(size int64) {
	w.l.log.Error("somebody has changed the audit log", "file", w.path, "bytes", size, "expected", w.file.size)
	w.add(Event{Kind: kindChanged, Detail: map[string]any{"bytes": size, "expected": w.file.size}})
	w.file.size = size
	end := []byte{'\n'}
	if size > 0 {
		_, _ = w.file.f.ReadAt(end, size-1) // what cannot be read is found by the write
	}
	w.file.cut = end[0] != '\n'
}

// leave lets the file go.
func (w *writer) leave() {
	w.after = filepath.Base(w.path)
	w.file.close()
	w.file = nil
}

// use goes on in a file: behind its last line, or at its beginning behind the last line
// of the file before.
func (w *writer) use(f *file) {
	began := w.end.seq > 0 // there was another file
	w.path, w.file = f.path, f
	w.l.current.Store(&f.path)
	switch {
	case f.size > 0:
		if began && f.end != w.end {
			w.add(Event{Kind: kindStarted, Detail: map[string]any{"left": w.after, "left_at": w.end.seq, "left_hash": w.end.hash}})
		}
		w.end = f.end
	case began:
		w.opened(w.after)
	default:
		w.end = f.end
		w.opened(f.after)
	}
	if t := f.torn; t != nil {
		w.add(Event{Kind: kindRepaired, Detail: map[string]any{"bytes": t.bytes, "sha256": t.sum, "kept": t.kept}})
		w.l.log.Warn("the audit log had a torn end, which was moved away", "file", f.path, "bytes", t.bytes, "to", t.kept)
	}
	w.l.log.Info("audit log", "file", w.path, "line", w.end.seq, "hash", w.end.hash)
}

// opened puts the first line of a file in front of all that waits.
func (w *writer) opened(after string) {
	e := Event{Kind: kindOpened}
	if after != "" {
		e.Detail = map[string]any{"after": after}
	}
	w.own = append([]*entry{newEntry(e, w.l.now())}, w.own...)
}

// swap goes on in another file; nil: in none.
func (w *writer) swap(next *file) {
	if w.path != "" {
		w.group()
		reason := "the configuration names no audit log"
		if next != nil {
			reason = "the configuration names another file"
		}
		if len(w.batch) == 0 {
			w.add(Event{Kind: kindStopped, Reason: reason})
			w.group()
		}
	}
	if w.file != nil {
		w.leave()
	}
	w.path, w.own = "", nil
	w.l.current.Store(nil)
	w.l.on.Store(next != nil)
	if next == nil {
		w.end, w.after = link{}, ""
		w.l.failing.Store(false)
		w.group()
		return
	}
	w.use(next)
	w.group()
}

// finish writes what waits, and the last line, and closes the file.
func (w *writer) finish() {
	w.l.mu.Lock()
	w.l.ended = true
	w.l.mu.Unlock()
	if w.path != "" {
		w.group() // what an earlier attempt has left
		if !w.l.failing.Load() {
			w.batch = append(w.l.take(), newEntry(Event{Kind: kindStopped}, w.l.now()))
			w.group()
		}
		w.l.log.Info("audit log closed", "file", w.path, "line", w.end.seq, "hash", w.end.hash)
	}
	for _, e := range append(w.batch, w.l.take()...) {
		e.answer(errClosed)
	}
	if w.file != nil {
		w.file.close()
	}
}
