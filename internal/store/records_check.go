package store

import (
	"errors"
	"fmt"
	"time"
)

// What one Apply may be given. The bounds keep what others wait for short: a commit
// of the file, and the time in which Redis does nothing else.
const (
	MaxRecordKey   = 512      // bytes
	MaxRecordValue = 64 << 10 // bytes
	MaxChanges     = 256      // in one Apply
	MaxApply       = 1 << 20  // bytes of keys and values in one Apply
)

// CheckChanges tells whether a store takes changes at all, whatever it holds. The
// error is the caller's mistake, and no ErrUnavailable.
func CheckChanges(changes []Change) error {
	if len(changes) > MaxChanges {
		return fmt.Errorf("store: %d changes at once: at most %d can be made, make several calls", len(changes), MaxChanges)
	}
	size := 0
	keys := make(map[string]bool, len(changes))
	for i := range changes {
		c := &changes[i]
		if err := CheckRecordKey(c.Key); err != nil {
			return err
		}
		switch {
		case keys[c.Key]:
			return fmt.Errorf("store: record %.60q is changed twice at once", c.Key)
		case len(c.Value) > MaxRecordValue:
			return fmt.Errorf("store: record %.60q would have %d bytes: at most %d can be kept", c.Key, len(c.Value), MaxRecordValue)
		case c.If < Always:
			return fmt.Errorf("store: record %.60q: %d is no version", c.Key, c.If)
		}
		keys[c.Key] = true
		size += len(c.Key) + len(c.Value)
	}
	if size > MaxApply {
		return fmt.Errorf("store: %d bytes of changes at once: at most %d can be made, make several calls", size, MaxApply)
	}
	return nil
}

// CheckRecordKey tells whether key can be a record's.
func CheckRecordKey(key string) error {
	switch {
	case key == "":
		return errors.New("store: a record needs a key, kind/id")
	case len(key) > MaxRecordKey:
		return fmt.Errorf("store: record %.60q…: its key has %d bytes, at most %d are possible", key, len(key), MaxRecordKey)
	}
	return nil
}

// latest is the last time that a record can expire at, Unix µs: what a double, which
// scripts count with, holds exactly. It is in the year 2112.
const latest = 1 << 52

// Micros is when a record expires as stores keep it: Unix µs, rounded up, 1 to 2^52;
// 0 is never.
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	us := t.UnixMicro()
	if t.Nanosecond()%1000 != 0 {
		us++
	}
	return min(max(us, 1), latest)
}

// FromMicros is the time that Micros was made from, in UTC.
func FromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
