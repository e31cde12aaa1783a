package meter

import (
	"sync/atomic"
	"time"
)

// Fixed window and sliding window. A word is one window's counter:
//
//	index (24 bits) << 40 | count (40 bits)
//
// where index is the number of the window since the Unix epoch, or of the calendar
// period; its low 24 bits are compared as on a clock's face, so a cell can be idle
// for 2^23 windows (97 days of seconds) before its count might be taken for a new
// one, and then for one window only. A counter of a past window counts nothing.
// One of a future window is explained at Cell: up to one window (or second) ahead
// the request is late and belongs to the counter's window; further ahead the clock
// was set back and the count is carried into the current window.
//
// Worst case against the exact log:
//
//	FixedWindow    2·Capacity in a window: all of one just before its end, all of
//	               the next at its start
//	SlidingWindow  less than 2·Capacity in a window, and at most Capacity·(1 + T/W)
//	               in any time T up to W: like a bucket, where the fixed window
//	               lets all through at once. It refuses too early when the last
//	               window's requests came early in it: by at most what its counter
//	               still weighs, prev·(W-e)/W. With evenly spread traffic both
//	               errors vanish.
//
// The sliding window reads two words and swaps one. Requests that other cores
// decide in the very moment of a window's turn can be missed by the estimate, but
// no window's counter ever exceeds the capacity.

const (
	countBits = 40
	countMask = 1<<countBits - 1
	indexMask = 1<<(64-countBits) - 1

	day  = 24 * int64(time.Hour)
	week = 7 * day
	// firstMonday is 1969-12-29, the Monday of the week of the Unix epoch.
	firstMonday = -3 * day
)

// word is a counter.
func word(index, count int64) uint64 { return uint64(index)<<countBits | uint64(count) }

// counted is the count of a counter.
func counted(w uint64) int64 { return int64(w & countMask) }

// ahead is by how many windows a counter is later than index.
func ahead(w uint64, index int64) int64 {
	const unused = 64 - countBits
	return int64((w>>countBits-uint64(index))<<countBits) >> (64 - unused)
}

// slot is the word of a sliding window's counter.
func (c *Cell) slot(index int64) *atomic.Uint64 {
	if index&1 == 0 {
		return &c.a
	}
	return &c.b
}

// Index is the number of now's window: since the Unix epoch, or for calendar
// periods the day since 1970-01-01, the week since that of 1969-12-29 and the
// month since January 1970. It is 0 for what has no windows.
func (l *Limit) Index(now int64) int64 {
	switch l.Period {
	case Day:
		return clamp(now) / day
	case Week:
		return (clamp(now) - firstMonday) / week
	case Month:
		y, m, _ := time.Unix(0, clamp(now)).UTC().Date()
		return int64(y-1970)*12 + int64(m-1)
	}
	if l.Window == 0 {
		return 0
	}
	return l.tick(now) / l.Window
}

// Ends is how long the window of now still lasts; 0 for what has no windows.
func (l *Limit) Ends(now int64) time.Duration {
	if l.Window == 0 && l.Period == None {
		return 0
	}
	return l.until(now, l.Index(now))
}

// until is the time from now to the end of a window, in whole ticks.
func (l *Limit) until(now, index int64) time.Duration {
	var end int64
	switch l.Period {
	case Day:
		end = (index + 1) * day
	case Week:
		end = (index+1)*week + firstMonday
	case Month:
		end = time.Date(1970, time.Month(index+2), 1, 0, 0, 0, 0, time.UTC).UnixNano()
	default:
		return time.Duration((index+1)*l.Window-l.tick(now)) * l.Tick
	}
	return time.Duration(end - l.tick(now)*int64(l.Tick))
}

// late tells a request that comes late, by as many windows, from a clock set back.
func (l *Limit) late(windows int64) bool {
	return windows == 1 || l.Window > 0 && windows <= ceil(l.second(), l.Window)
}

// window is what a FixedWindow's cell holds for a time.
type window struct {
	word  uint64
	index int64 // that a charge is counted in: now's, or the counter's if now is late
	count int64
}

func (l *Limit) fixed(c *Cell, now int64) (s window, live bool) {
	index := l.Index(now)
	for {
		s = window{word: c.a.Load(), index: index}
		if s.word == retired {
			return s, false
		}
		count := counted(s.word)
		if count == 0 {
			return s, true
		}
		switch n := ahead(s.word, index); {
		case n < 0:
			return s, true
		case n == 0 || l.late(n):
			s.index += n
			s.count = count
			return s, true
		}
		c.a.CompareAndSwap(s.word, word(index, count))
	}
}

// takeFixed is Take (charge) or Peek.
func (l *Limit) takeFixed(c *Cell, now, cost int64, charge bool) (Verdict, bool) {
	for {
		s, live := l.fixed(c, now)
		if !live {
			return Verdict{}, false
		}
		v := l.verdict(s.count, cost)
		v.Reset = l.until(now, s.index)
		if !v.OK && v.Retry != Never {
			v.Retry = v.Reset
		}
		if !v.OK || !charge || cost == 0 || c.a.CompareAndSwap(s.word, word(s.index, s.count+cost)) {
			return v, true
		}
	}
}

func (l *Limit) forceFixed(c *Cell, now, cost int64) bool {
	for {
		s, live := l.fixed(c, now)
		if !live {
			return false
		}
		if add := l.room(s.count, cost); add == 0 || c.a.CompareAndSwap(s.word, word(s.index, s.count+add)) {
			return true
		}
	}
}

// refundWindow takes cost from a counter if it still is index's.
func refundWindow(a *atomic.Uint64, index, cost int64) {
	for {
		w := a.Load()
		if w == retired || ahead(w, index) != 0 {
			return
		}
		if a.CompareAndSwap(w, w-uint64(min(cost, counted(w)))) {
			return
		}
	}
}

// Load sets the state of a FixedWindow that Save returned earlier, perhaps in
// another process: index is the number of the window (see Index), count its units,
// at most 2^39. On a retired cell it does nothing.
func (l *Limit) Load(c *Cell, index, count int64) {
	next := word(index, min(max(count, 0), 2*maxCount))
	for {
		w := c.a.Load()
		if w == retired || c.a.CompareAndSwap(w, next) {
			return
		}
	}
}

// Save is the state of a FixedWindow: the number of the window that was charged
// last and its count. Of index it keeps 24 bits, which holds every calendar period
// whole. A cell never charged, or retired, is 0, 0.
func (l *Limit) Save(c *Cell) (index, count int64) {
	w := c.a.Load()
	if w == retired {
		return 0, 0
	}
	return int64(w >> countBits), counted(w)
}

// slide is what a SlidingWindow's cell holds for a time.
type slide struct {
	slot      *atomic.Uint64 // of the current window
	word      uint64         // in it
	index     int64          // of the current window: now's, or a later counter's if now is late
	wait, pos int64          // ticks until the window begins (when now is late), ticks into it
	cur, prev int64
	used      int64 // units × Window
}

// sliding reads both counters. A counter too far ahead is carried to the current
// or the last window, whichever its slot is for.
func (l *Limit) sliding(c *Cell, now int64) (s slide, live bool) {
	tick := l.tick(now)
	index := tick / l.Window
again:
	words := [2]uint64{c.a.Load(), c.b.Load()}
	if words[0] == retired || words[1] == retired {
		return slide{}, false
	}
	s = slide{index: index}
	for i, w := range words {
		count := counted(w)
		if count == 0 {
			continue
		}
		n := ahead(w, index)
		if n <= 0 {
			continue
		}
		if !l.late(n) {
			to := index - (index^int64(i))&1
			c.slot(to).CompareAndSwap(w, word(to, count))
			goto again
		}
		s.index = max(s.index, index+n)
	}
	begin := s.index * l.Window
	s.wait = max(begin-tick, 0)
	s.pos = tick + s.wait - begin
	s.slot, s.word = c.slot(s.index), words[s.index&1]
	if ahead(s.word, s.index) == 0 {
		s.cur = counted(s.word)
	}
	if w := words[s.index&1^1]; ahead(w, s.index-1) == 0 {
		s.prev = counted(w)
	}
	s.used = s.cur*l.Window + s.prev*(l.Window-s.pos)
	return s, true
}

// takeSliding is Take (charge) or Peek.
func (l *Limit) takeSliding(c *Cell, now, cost int64, charge bool) (Verdict, bool) {
	for {
		s, live := l.sliding(c, now)
		if !live {
			return Verdict{}, false
		}
		full := l.Capacity * l.Window
		v := Verdict{Reset: time.Duration(s.wait+l.Window-s.pos) * l.Tick}
		if cost > l.Capacity {
			v.Remaining = max(full-s.used, 0) / l.Window
			v.Retry = Never
			return v, true
		}
		left := full - s.used - cost*l.Window
		if cost > 0 && left < 0 {
			v.Remaining = max(full-s.used, 0) / l.Window
			v.Retry = time.Duration(s.wait+l.slid(s, cost)) * l.Tick
			return v, true
		}
		v.OK = true
		v.Remaining = max(left, 0) / l.Window
		if !charge || cost == 0 || s.slot.CompareAndSwap(s.word, word(s.index, s.cur+cost)) {
			return v, true
		}
	}
}

// slid is how many ticks after s a refused cost fits, the first tick at which
//
//	cur·W + prev·(W-e) + cost·W ≤ Capacity·W
//
// in this window, or in the next one, where cur has become prev, or behind that.
func (l *Limit) slid(s slide, cost int64) int64 {
	free := l.Capacity - cost // of which cur is taken
	if s.cur <= free && s.prev > 0 {
		if e := l.Window - (free-s.cur)*l.Window/s.prev; e < l.Window {
			return e - s.pos
		}
	}
	rest := l.Window - s.pos // of this window
	if s.cur <= free {
		return rest
	}
	return rest + l.Window - free*l.Window/s.cur
}

func (l *Limit) forceSliding(c *Cell, now, cost int64) bool {
	for {
		s, live := l.sliding(c, now)
		if !live {
			return false
		}
		if add := l.room(s.cur, cost); add == 0 || s.slot.CompareAndSwap(s.word, word(s.index, s.cur+add)) {
			return true
		}
	}
}

// retireSliding retires one word after the other; in between every Take sees that
// the cell is not live. If the second was charged meanwhile by a Take that had read
// both before, the first is put back.
func (l *Limit) retireSliding(c *Cell, now int64, evenIfUsed bool) bool {
	for {
		a, b := c.a.Load(), c.b.Load()
		if a == retired && b == retired {
			return true
		}
		if !evenIfUsed && (a == retired || l.Used(c, now) > 0) {
			return false // used, or another Retire is at work
		}
		if a != retired && !c.a.CompareAndSwap(a, retired) {
			continue
		}
		if c.b.CompareAndSwap(b, retired) {
			return true
		}
		if !evenIfUsed {
			c.a.Store(a)
			return false
		}
	}
}
