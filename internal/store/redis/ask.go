package redis

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/limit/meter"
	"github.com/sluice-gateway/sluice/internal/store"
)

// This file says in commands what is asked, and reads the answers. A script is
// given one argument of doubles for all its keys (lua/head.lua has the layout), and
// answers with one string of doubles.

// maxKeys is how many keys one script is asked for at most: while it runs the
// server does nothing else.
const maxKeys = 32

// exact is the largest number that is passed to a script; larger costs are as
// hopeless.
const exact = 1 << 52

// Take implements store.Shared. In a cluster, charges of several slots are taken
// at once but one by one, and given back when one refuses.
func (c *Client) Take(ctx context.Context, charges []store.Charge, out []meter.Verdict) error {
	if len(charges) == 0 {
		return nil
	}
	if err := c.allow(OpTake); err != nil {
		return err
	}
	k := c.calls.get()
	k.op = OpTake
	c.charge(k, &takeScripts, charges, len(charges), true)
	err := c.ask(ctx, k, c.budget)
	if err == nil {
		err = readVerdicts(k, charges, out)
	}
	if lost(err) {
		return err // k is not ours any more
	}
	if len(k.groups) > 1 {
		err = c.undo(ctx, k, charges, err)
	}
	c.calls.release(k, err)
	return err
}

// undo gives back what the slots that admitted have taken when others have not. It
// returns the error of the Take.
func (c *Client) undo(ctx context.Context, k *call, charges []store.Charge, err error) error {
	var back []store.Charge
	refused := err != nil
	for g, group := range k.groups {
		if k.replies[g].err != nil {
			continue
		}
		var taken []store.Charge
		text := k.replies[g].text
		for j, i := range group {
			if len(text) < (j+1)*verdictSize || double(text, 5*j) == 0 {
				refused, taken = true, nil
				break
			}
			charge := charges[i]
			charge.Cost = -charge.Cost
			taken = append(taken, charge)
		}
		back = append(back, taken...)
	}
	if refused && len(back) > 0 && c.Post(context.WithoutCancel(ctx), back, make([]error, len(back))) != nil {
		return errUndo // what was taken stays taken
	}
	for g := range k.replies { // of several errors the one that says least
		if e := k.replies[g].err; e != nil && !errors.Is(e, store.ErrNotDone) {
			return e
		}
	}
	return err
}

// lost says that the caller did not wait for the call: it belongs to its goroutine.
func lost(err error) bool { return err == errLate || err == errGone }

// Post implements store.Shared. In a cluster each slot's charges are a script of their
// own.
func (c *Client) Post(ctx context.Context, charges []store.Charge, out []error) error {
	if len(charges) == 0 {
		return nil
	}
	if err := c.allow(OpPost); err != nil {
		spread(out, err)
		return err
	}
	k := c.calls.get()
	k.op = OpPost
	c.charge(k, &postScripts, charges, maxKeys, false)
	err := c.ask(ctx, k, c.patience(len(charges)))
	if lost(err) || err == errClosed { // there are no replies
		spread(out, err)
	} else {
		for g, group := range k.groups {
			for j, i := range group {
				out[i] = k.replies[g].of(j)
			}
		}
	}
	c.calls.release(k, err)
	return err
}

func spread(out []error, err error) {
	for i := range out {
		out[i] = err
	}
}

// Settle implements store.Shared.
func (c *Client) Settle(ctx context.Context, in []store.Settlement, out []store.Grant) error {
	if len(in) == 0 {
		return nil
	}
	if err := c.allow(OpSettle); err != nil {
		fail(out, err)
		return err
	}
	k := c.calls.get()
	k.op = OpSettle
	c.settlements(k, in)
	err := c.ask(ctx, k, c.patience(len(in)))
	if lost(err) || err == errClosed { // there are no replies
		fail(out, err)
	} else if e := readGrants(k, in, out); err == nil {
		err = e
	}
	c.calls.release(k, err)
	return err
}

// fail is the answer to settlements that got none.
func fail(out []store.Grant, err error) {
	for i := range out {
		out[i] = store.Grant{Err: err}
	}
}

// settlements makes the commands for settlements.
func (c *Client) settlements(k *call, in []store.Settlement) {
	k.group(c, len(in), maxKeys, func(i int) (string, *meter.Limit) { return in[i].Key, in[i].Limit })
	wall := c.wall()
	for g, group := range k.groups {
		k.buf = k.buf[:0]
		for _, i := range group {
			s := &in[i]
			most := 2 * s.Limit.Capacity
			within := func(n int64) int64 { return min(max(n, 0), most) }
			k.pack(s.Limit, wall)
			k.doubles(within(s.Hold), within(s.Give), within(s.Need), max(within(s.Ask), within(s.Need)), min(max(s.Slack, 0), exact), min(max(s.Sent, 0), 2*exact-1))
		}
		k.commands[g].script = k.kinds[g].of(&settleScripts)
		k.commands[g].args = [3]string{c.now(), c.gateway, string(k.buf)}
	}
}

// patience is the budget of a call for n keys: those that ask for many do it in
// the background.
func (c *Client) patience(n int) time.Duration {
	return c.budget * time.Duration(1+n/maxKeys)
}

// charge makes the commands for charges.
func (c *Client) charge(k *call, s *scripts, charges []store.Charge, most int, positive bool) {
	k.group(c, len(charges), most, func(i int) (string, *meter.Limit) { return charges[i].Key, charges[i].Limit })
	wall := c.wall()
	for g, group := range k.groups {
		k.buf = k.buf[:0]
		for _, i := range group {
			cost := min(max(charges[i].Cost, -exact), exact)
			if positive {
				cost = max(cost, 0)
			}
			k.pack(charges[i].Limit, wall)
			k.doubles(cost)
			if s == &postScripts {
				k.doubles(truth(charges[i].Whole && charges[i].Limit.Algorithm == meter.Concurrency))
			}
		}
		if k.commands[g].script = k.kinds[g].of(s); s == &takeScripts && k.plain(g, charges) {
			k.commands[g].script, k.commands[g].full = fastScript, k.commands[g].script
		}
		k.commands[g].args = [3]string{c.now(), c.gateway, string(k.buf)}
	}
}

// plain reports whether the fast script of Take may decide the group.
func (k *call) plain(g int, charges []store.Charge) bool {
	keys := k.commands[g].keys
	for j, i := range k.groups[g] {
		if charges[i].Limit.Algorithm > meter.SlidingWindow || slices.Contains(keys[:j], keys[j]) {
			return false
		}
	}
	return true
}

// kind is what kinds of counters a command asks for: one, or several.
type kind struct {
	algorithm meter.Algorithm
	mixed     bool
}

func (k kind) of(s *scripts) *script {
	if k.mixed {
		return s.all
	}
	return s.of(k.algorithm)
}

// group makes a command for each group of keys that one script may have: in a
// cluster those of one slot, and most at a time.
func (k *call) group(c *Client, n, most int, at func(i int) (string, *meter.Limit)) {
	cluster := c.cluster.Load()
	tags := k.tags[:0]
	for i := range n {
		name, l := at(i)
		name, tag := c.key(name)
		if !cluster {
			tag = ""
		}
		g := 0
		for g < len(tags) && (tags[g] != tag || len(k.groups[g]) >= most) {
			g++
		}
		if g == len(tags) {
			tags = append(tags, tag)
			k.add(nil, nil)
			if len(k.groups) < cap(k.groups) {
				k.groups = k.groups[:g+1]
				k.groups[g] = k.groups[g][:0]
			} else {
				k.groups = append(k.groups, nil)
			}
			k.kinds = append(k.kinds, kind{algorithm: l.Algorithm})
		}
		k.groups[g] = append(k.groups[g], i)
		k.commands[g].keys = append(k.commands[g].keys, name)
		if !like(k.kinds[g].algorithm, l.Algorithm) {
			k.kinds[g].mixed = true
		}
	}
	k.tags = tags
}

func like(a, b meter.Algorithm) bool { return takeScripts.of(a) == takeScripts.of(b) }

// key is the whole key, and its hash tag: the first {…} that is not empty. A key
// without one is made one, so that the leases beside it lie in its slot.
func (c *Client) key(name string) (key, tag string) {
	key = c.prefix + name
	if i := strings.IndexByte(key, '{'); i >= 0 {
		if n := strings.IndexByte(key[i+1:], '}'); n > 0 {
			return key, key[i+1 : i+1+n]
		}
	}
	return c.prefix + "{" + name + "}", name
}

// pack writes a limit.
func (k *call) pack(l *meter.Limit, wall int64) {
	var index, left int64
	if l.Period != meter.None {
		index, left = l.Index(wall), int64(l.Ends(wall)/l.Tick)
	}
	k.doubles(int64(l.Algorithm), l.Capacity, l.Queue, l.Num, l.Den, l.Tick.Microseconds(), l.Window, l.Scale, index, left)
}

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func (k *call) doubles(all ...int64) {
	for _, n := range all {
		k.buf = binary.LittleEndian.AppendUint64(k.buf, math.Float64bits(float64(n)))
	}
}

const (
	verdictSize = 5 * 8
	grantSize   = 4 * 8
)

// double is the i-th number of a reply.
func double(text string, i int) int64 {
	var b [8]byte
	copy(b[:], text[8*i:])
	return int64(math.Float64frombits(binary.LittleEndian.Uint64(b[:])))
}

// ticks is a time in a reply.
func ticks(l *meter.Limit, n int64) time.Duration {
	if n < 0 {
		return meter.Never
	}
	return time.Duration(n) * l.Tick
}

func readVerdicts(k *call, charges []store.Charge, out []meter.Verdict) error {
	for g, group := range k.groups {
		text := k.replies[g].text
		if len(text) != len(group)*verdictSize {
			return errReply
		}
		for j, i := range group {
			l := charges[i].Limit
			out[i] = meter.Verdict{
				OK:        double(text, 5*j) != 0,
				Remaining: double(text, 5*j+1),
				Reset:     ticks(l, double(text, 5*j+2)),
				Retry:     ticks(l, double(text, 5*j+3)),
				Delay:     ticks(l, double(text, 5*j+4)),
			}
		}
	}
	return nil
}

// readGrants also returns the first error of them.
func readGrants(k *call, in []store.Settlement, out []store.Grant) error {
	var first error
	for g, group := range k.groups {
		text := k.replies[g].text
		for j, i := range group {
			err := k.replies[g].of(j)
			if err == nil && len(text) != len(group)*grantSize {
				err = errReply
			}
			if err != nil {
				out[i] = store.Grant{Err: err}
				first = cmp.Or(first, err)
				continue
			}
			l := in[i].Limit
			out[i] = store.Grant{
				Granted: double(text, 4*j),
				Level:   double(text, 4*j+1),
				Reset:   ticks(l, double(text, 4*j+2)),
				Retry:   ticks(l, double(text, 4*j+3)),
				Valid:   meter.Usable,
			}
			if l.Den == 0 { // a window's grants end with it
				out[i].Valid = min(out[i].Valid, out[i].Reset)
			}
		}
	}
	return first
}

func number(n int64) string { return strconv.FormatInt(n, 10) }
