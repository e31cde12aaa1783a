package redis

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/store"
)

// Records in Redis: five keys in one slot, which lua/records.lua describes. Each
// method is one script, All one for each page. A version is the server's time in µs,
// or one more than the latest where its clock is behind that: so a version is not
// used twice even if changes are lost in a failover, and who demands one with If
// cannot be deceived.
//
// These calls have a budget of their own, recordWait: nobody's request is decided by
// them. Otherwise they are calls as all others: none while the breaker is open, and
// those that fail count for it.

var _ store.Records = (*Client)(nil)

// recordWait is the budget of one call, of All for each page.
const recordWait = time.Second

var errSlow = fmt.Errorf("%w: redis did not answer within %s", store.ErrUnavailable, recordWait)

// recordKeys are the keys in the order of the scripts. The first one is also the
// channel on which changes are told.
func (c *Client) recordKeys() []string {
	at := c.prefix + "{records}:"
	return []string{at + "data", at + "keys", at + "expiry", at + "log", at + "head"}
}

// Get implements store.Records.
func (c *Client) Get(ctx context.Context, key string) (store.Record, error) {
	if err := store.CheckRecordKey(key); err != nil {
		return store.Record{}, err
	}
	text, err := c.record(ctx, recordScript, key, "")
	switch {
	case err != nil:
		return store.Record{}, err
	case text == "":
		return store.Record{}, store.ErrNoRecord
	}
	return readRecord(key, text)
}

// Apply implements store.Records. What is kept of it when Redis itself ends is for
// Redis' persistence to say.
func (c *Client) Apply(ctx context.Context, changes []store.Change) (int64, error) {
	if len(changes) == 0 {
		return 0, nil
	}
	if err := store.CheckChanges(changes); err != nil {
		return 0, err
	}
	text, err := c.record(ctx, applyScript, rand.Text(), packChanges(changes))
	if err != nil {
		return 0, err
	}
	if len(text) != 8 {
		return 0, errReply
	}
	version := double(text, 0)
	if version >= 0 {
		notify(c.news.wake)
		return version, nil
	}
	if -version > int64(len(changes)) {
		return 0, errReply
	}
	return 0, fmt.Errorf("%w: %.60q", store.ErrConflict, changes[-version-1].Key)
}

// All implements store.Records. The records come sorted by key, a page of at most 256
// records or about 256 KiB at a time.
func (c *Client) All(ctx context.Context, prefix string, yield func(store.Record) bool) error {
	from, to := "["+prefix, behind(prefix)
	for {
		text, err := c.record(ctx, pageScript, from, to)
		if err != nil {
			return err
		}
		if text == "" {
			return errReply
		}
		r := fields{text: text[1:]}
		more, last := text[0] != 0, r.next()
		for r.text != "" && !r.bad {
			key, value := r.next(), r.next()
			if r.bad {
				break
			}
			record, err := readRecord(key, value)
			if err != nil {
				return err
			}
			if !yield(record) {
				return nil
			}
		}
		switch {
		case r.bad:
			return errReply
		case !more:
			return nil
		}
		from = "(" + last
	}
}

// behind is the bound, for ZRANGE BYLEX, of the keys that begin with prefix.
func behind(prefix string) string {
	for n := len(prefix); n > 0; n-- {
		if last := prefix[n-1]; last < 0xFF {
			return "(" + prefix[:n-1] + string([]byte{last + 1})
		}
	}
	return "+"
}

// record runs a script on the records and returns its answer.
func (c *Client) record(ctx context.Context, s *script, arg2, arg3 string) (string, error) {
	if err := c.allow(OpRecords); err != nil {
		return "", err
	}
	if ctx.Err() != nil {
		return "", fmt.Errorf("%w: %w", store.ErrNotDone, ctx.Err())
	}
	k := c.calls.get()
	k.op = OpRecords
	k.add(s, c.recordKeys(), c.now(), arg2, arg3)
	err := c.ask(ctx, k, recordWait)
	text := ""
	if err == nil {
		text = k.replies[0].text
	}
	c.calls.release(k, err)
	if err == errLate {
		err = errSlow
	}
	return text, err
}

// packChanges makes the argument of apply.lua.
func packChanges(changes []store.Change) string {
	size := 0
	for i := range changes {
		size += 8 + 8 + 1 + 4 + 4 + len(changes[i].Key) + len(changes[i].Value)
	}
	b := make([]byte, 0, size)
	for i := range changes {
		c := &changes[i]
		b = appendDouble(b, c.If)
		b = appendDouble(b, store.Micros(c.Expires))
		b = append(b, byte(truth(c.Value != nil)))
		b = appendField(b, c.Key)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(c.Value)))
		b = append(b, c.Value...)
	}
	return string(b)
}

func appendDouble(b []byte, n int64) []byte {
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(n)))
}

func appendField(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
}

// readRecord reads what is kept under key.
func readRecord(key, text string) (store.Record, error) {
	if len(text) < 16 {
		return store.Record{}, fmt.Errorf("redis: the record of %.60q is damaged", key)
	}
	return store.Record{
		Key: key, Value: []byte(text[16:]),
		Version: double(text, 0), Expires: store.FromMicros(double(text, 1)),
	}, nil
}

// fields are strings behind their lengths, four bytes each.
type fields struct {
	text string
	bad  bool // one is cut off
}

func (f *fields) next() string {
	if len(f.text) < 4 {
		f.bad = true
		return ""
	}
	n := int64(binary.LittleEndian.Uint32([]byte(f.text[:4])))
	if n > int64(len(f.text)-4) {
		f.bad = true
		return ""
	}
	s := strings.Clone(f.text[4 : 4+n])
	f.text = f.text[4+n:]
	return s
}

// news is what changes.lua says.
type news struct {
	version int64
	state   byte
	id      string
	keys    []string
}

// The states.
const (
	newsKeys  = iota // the keys are what has changed
	newsAny          // what has changed is not known any more
	newsOther        // these are other records than before
)

// changesSince asks what has changed.
func (c *Client) changesSince(ctx context.Context, known news) (news, error) {
	text, err := c.record(ctx, changesScript, known.id, number(known.version))
	if err != nil {
		return news{}, err
	}
	if len(text) < 13 {
		return news{}, errReply
	}
	n := news{version: double(text, 0), state: text[8]}
	r := fields{text: text[9:]}
	n.id = r.next()
	for r.text != "" && !r.bad {
		n.keys = append(n.keys, r.next())
	}
	if r.bad || n.state > newsOther {
		return news{}, errReply
	}
	return n, nil
}

// hopeless reports whether records cannot be read however often it is tried: an
// operator has to look at them.
func hopeless(err error) bool { return errors.Is(err, store.ErrKey) || forbidden(err) }
