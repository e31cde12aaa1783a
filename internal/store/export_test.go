package store

import "time"

// SetNow has records expire by another clock.
func (f *File) SetNow(now func() time.Time) { f.now = now }
