package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/sluice-gateway/sluice/internal/store"
)

// Objects in Redis. One URI's lie in one slot:
//
//	{c:HASH(uri)}:o:HASH(variant)  a value behind its header (objects_value.go)
//	{c:HASH(uri)}:m                the number of the URI's last purge (purges.go)
//	{c:HASH(uri)}:l:HASH(variant)  the lock (lua/lead.lua), or a note for those who ask for it
//	{c:HASH(uri)}:p:…              a value that is being put, for a moment
//	{t:HASH(tag)}:m                the number of the tag's last purge, in a slot of its own
//
// HASH is 16 bytes of SHA-256, of variants all 32. A value is valid if its stamp is not
// below any number that concerns it. A number that is missing, evicted say, makes
// invalid: when it is made anew it is the stamp of who makes it, so nothing that it
// once forbade is allowed again. Each gateway also remembers the last 10,000 purges
// itself, and all prefixes (purges_known.go): these have no keys.
//
// # Apart from limits
//
// A large value is in the way of all that stands behind it on its connection, so objects
// have one of their own. They have a breaker of their own, too: what it counts (not late
// Puts, not a full server) makes calls for objects rest for a while and never opens the
// client's. That one, when open, stops calls for objects as well. Values do not pass
// through Lua, which would copy them while the server waits. At most maxPuts puts and
// maxLooks other calls are in flight, those given up included.

const (
	objectWait = time.Second // for Put and Release
	restWait   = 250 * time.Millisecond
	fullWait   = time.Second // without Puts, when the server has no room
	maxPuts    = 8
	maxLooks   = 256
	// stagedLife is how long a value that is being put may wait for its place.
	stagedLife = 10 * time.Second
)

var (
	_ store.Objects = (*Objects)(nil)

	errRest   = fmt.Errorf("%w: redis does not answer for objects in time, they are not asked for", store.ErrNotDone)
	errRoom   = fmt.Errorf("%w: redis has no room for objects", store.ErrNotDone)
	errBehind = fmt.Errorf("%w: what was purged is not known", store.ErrNotDone)
)

// Objects is store.Objects on a Client.
type Objects struct {
	c       *Client
	known   *knowledge
	hidden  *queue // URIs that are being purged
	breaker breaker
	until   atomic.Int64 // when the breaker closes again, Unix ns
	full    atomic.Int64 // until when nothing is put, Unix ns
	puts    chan struct{}
	looks   chan struct{}
	serial  atomic.Uint64 // tells leads, and the keys of values on their way, apart
	leads   leads
	count   events
	told    atomic.Bool // the log knows of a right that is missing
}

// Cache starts what a cache needs, with a connection of its own. It is called once,
// before Close.
func (c *Client) Cache() (*Objects, *Purges) {
	known := newKnowledge()
	o := &Objects{c: c, known: known, hidden: newQueue(), puts: make(chan struct{}, maxPuts), looks: make(chan struct{}, maxLooks)}
	o.breaker.up.Store(true)
	c.level2.Store(o)
	c.done.Go(c.connect)
	return o, &Purges{c: c, known: known, queue: o.hidden, count: &o.count, wake: make(chan struct{}, 1), began: time.Now()}
}

// connect makes the connection for objects as soon as the server is there.
func (c *Client) connect() {
	option := c.option
	option.ClientName += "-cache"
	for c.stopped.Err() == nil {
		if c.Up() {
			if client, err := rueidis.NewClient(option); err == nil {
				c.bulk.Store(&client)
				return
			}
		}
		c.sleep(redial)
	}
}

// Get implements store.Objects.
func (o *Objects) Get(ctx context.Context, key store.ObjectKey) ([]byte, error) {
	begun := time.Now()
	if o.hidden.has(key.URI) {
		o.count.add(Missed)
		return nil, nil
	}
	if !o.known.current() {
		return nil, errBehind
	}
	keys := o.keys(key)
	replies, err := o.look(ctx, OpGet, o.c.budget, command{verb: getAll, keys: []string{keys.value, keys.mark}})
	if err != nil {
		return nil, err
	}
	text, mark := replies[0].many[0], replies[0].many[1]
	if text == nil {
		o.count.add(Missed)
		return nil, nil
	}
	v, ok := readValue(text)
	if !ok {
		o.count.add(Damaged)
		o.drop(keys.value)
		return nil, nil
	}
	valid := !overtakes(mark, v.stamp)
	if valid && len(v.tags) > 0 {
		if valid, err = o.tagsAllow(ctx, &v, o.c.budget-time.Since(begun)); err != nil {
			return nil, err
		}
	}
	// Last, with what has become known meanwhile.
	if !o.known.current() {
		return nil, errBehind
	}
	if !valid || !o.known.valid(v.life, v.stamp, key.URI, v.tags) || o.hidden.has(key.URI) {
		o.count.add(Overtaken)
		return nil, nil
	}
	o.count.add(Hit)
	return v.body, nil
}

// tagsAllow looks at the purges of the value's tags.
func (o *Objects) tagsAllow(ctx context.Context, v *value, left time.Duration) (bool, error) {
	var commands []command
	for i := range v.tags {
		key := o.c.tagKey(v.tags[i])
		if i == 0 || o.c.cluster.Load() { // each tag has its slot
			commands = append(commands, command{verb: getAll})
		}
		last := &commands[len(commands)-1]
		last.keys = append(last.keys, key)
	}
	replies, err := o.look(ctx, OpGet, max(left, 0), commands...)
	if err != nil {
		return false, err
	}
	for _, r := range replies {
		for _, mark := range r.many {
			if overtakes(mark, v.stamp) {
				return false, nil
			}
		}
	}
	return true, nil
}

// Lead implements store.Objects. A lead that is taken when nobody waits for it any more is
// given back behind it; should that be lost, it ends by itself.
func (o *Objects) Lead(ctx context.Context, key store.ObjectKey, d time.Duration) (store.Turn, error) {
	keys := o.keys(key)
	name := fmt.Sprintf("%s-%d", o.c.gateway, o.serial.Add(1))
	lead := command{script: leadScript, keys: []string{keys.lock, keys.value, keys.mark}}
	lead.args = [3]string{name, millis(d)}
	replies, err := o.look(ctx, OpLead, o.c.budget, lead)
	if err != nil {
		if lost(err) {
			o.later(release(keys, name, 0))
		}
		return store.Lead, err
	}
	switch replies[0].n {
	case 0:
		o.count.add(Led)
		o.leads.begin(keys.lock, name, time.Now(), d)
		return store.Lead, nil
	case 1:
		return store.Wait, nil
	default:
		return store.Pass, nil
	}
}

// Release implements store.Objects.
func (o *Objects) Release(ctx context.Context, key store.ObjectKey, pass time.Duration) error {
	keys := o.keys(key)
	name := o.leads.end(keys.lock)
	if name == "" && pass <= 0 {
		return nil
	}
	_, err := o.look(ctx, OpLead, objectWait, release(keys, name, pass))
	return err
}

// release ends the lead of that name, if it has not ended.
func release(keys objectKeys, name string, pass time.Duration) command {
	m := command{script: releaseScript, keys: []string{keys.lock}}
	m.args = [3]string{name, "0"}
	if pass > 0 {
		m.args[1] = millis(pass)
	}
	return m
}

// Put implements store.Objects.
func (o *Objects) Put(ctx context.Context, key store.ObjectKey, s store.Stored) error {
	if len(s.Value) > store.MaxObject || len(s.Tags) > store.MaxObjectTags {
		return fmt.Errorf("redis: an object of %d bytes with %d tags: at most %d and %d are kept", len(s.Value), len(s.Tags), store.MaxObject, store.MaxObjectTags)
	}
	keys, tags := o.keys(key), tagHashes(s.Tags)
	lead := ""
	if s.Lead {
		lead = o.leads.end(keys.lock)
	}
	life, open := o.known.open(s.Stamp, key.URI, tags)
	var err error
	switch {
	case !o.known.current():
		err = errBehind
	case !open || o.hidden.has(key.URI):
		o.count.add(Refused)
	case s.TTL < time.Millisecond:
	case time.Now().UnixNano() < o.full.Load():
		err = errRoom
	default:
		return o.put(ctx, keys, s.TTL, lead, value{life: life, stamp: s.Stamp, tags: tags, body: s.Value})
	}
	if err != nil {
		o.count.add(Dropped)
	}
	o.endLead(keys, lead)
	return err
}

// put sends the value and has it put in its place, in one round trip, and the lead of that
// name end; "": none.
func (o *Objects) put(ctx context.Context, keys objectKeys, life time.Duration, lead string, v value) error {
	ttl := millis(min(life, store.MaxObjectLife))
	commands := make([]command, 0, len(v.tags)+2)
	for _, t := range v.tags {
		commands = append(commands, command{script: tagScript, keys: []string{o.c.tagKey(t)}, args: [3]string{number(int64(v.stamp)), ttl}})
	}
	staged := fmt.Sprintf("%s:p:%s-%d", keys.slot, o.c.gateway, o.serial.Add(1))
	place := command{script: putScript, keys: []string{keys.value, keys.mark, keys.lock, staged}}
	place.args = [3]string{number(int64(v.stamp)), ttl, lead}
	commands = append(commands, command{verb: set, keys: []string{staged}, args: [3]string{v.text()}}, place)
	replies, err := o.call(ctx, OpPut, o.puts, objectWait, commands...)
	if err == nil {
		return o.placed(replies)
	}
	switch {
	case full(err):
		o.full.Store(time.Now().Add(fullWait).UnixNano())
		o.count.add(Full)
		err = errRoom
	case errors.Is(err, store.ErrNotDone):
		o.count.add(Dropped)
	default:
		o.count.add(Unknown)
	}
	o.endLead(keys, lead)
	return err
}

// placed reads what became of a value. If only the purge of a tag has overtaken it, it is
// there and not valid.
func (o *Objects) placed(replies []reply) error {
	last := len(replies) - 1
	result := replies[last].n
	if result >= 16 {
		o.count.add(Damaged)
		result -= 16
	}
	for _, r := range replies[:last-1] {
		if r.n == 0 && result == 1 {
			result = 0
		}
	}
	switch result {
	case 0:
		o.count.add(Refused)
	case 1:
		o.count.add(Kept)
	case 3: // evicted on the way
		o.count.add(Dropped)
		return errRoom
	default:
		o.full.Store(time.Now().Add(fullWait).UnixNano())
		o.count.add(Full)
		return errRoom
	}
	return nil
}

// endLead ends the lead of that name, if there is one, soon.
func (o *Objects) endLead(keys objectKeys, name string) {
	if name != "" {
		o.later(release(keys, name, 0))
	}
}

// drop removes a key that holds nothing useful, soon.
func (o *Objects) drop(key string) { o.later(command{verb: del, keys: []string{key}}) }

// later makes a call that nobody waits for, if one may be made.
func (o *Objects) later(m command) {
	if o.c.allow(OpLead) != nil {
		return
	}
	k := o.c.calls.get()
	k.op, k.bulk = OpLead, true
	k.put(m)
	o.c.forget(k)
}

// look makes a call that is answered with little, but for Get.
func (o *Objects) look(ctx context.Context, op Op, wait time.Duration, commands ...command) ([]reply, error) {
	return o.call(ctx, op, o.looks, wait, commands...)
}

// call makes a call on the connection for objects. The replies are the caller's.
func (o *Objects) call(ctx context.Context, op Op, room chan struct{}, wait time.Duration, commands ...command) ([]reply, error) {
	if err := o.allow(ctx, op); err != nil {
		return nil, err
	}
	select {
	case room <- struct{}{}:
	default:
		o.c.stats.add(op, NotMade)
		return nil, errBusy
	}
	k := o.c.calls.get()
	k.op, k.bulk, k.room = op, true, room
	for i := range commands {
		k.put(commands[i])
	}
	sent := time.Now()
	err := o.c.do(ctx, k, wait)
	var replies []reply
	if err == nil {
		replies = append(replies, k.replies...)
		err = whole(commands, replies)
	}
	o.c.calls.release(k, err)
	o.ended(op, sent, err)
	if err == errLate && wait >= objectWait {
		err = errSlow
	}
	return replies, err
}

// whole checks that the replies have the form of what was asked.
func whole(commands []command, replies []reply) error {
	for i := range commands {
		if m := &commands[i]; m.script == nil && m.verb == getAll && len(replies[i].many) != len(m.keys) {
			return errReply
		}
	}
	return nil
}

func (o *Objects) allow(ctx context.Context, op Op) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", store.ErrNotDone, ctx.Err())
	}
	if err := o.c.allow(op); err != nil {
		return err
	}
	if !o.breaker.up.Load() {
		if time.Now().UnixNano() < o.until.Load() {
			o.c.stats.add(op, NotMade)
			return errRest
		}
		o.breaker.restore()
	}
	return nil
}

// ended counts a call for the breaker of objects.
func (o *Objects) ended(op Op, sent time.Time, err error) {
	if lost(err) && (op == OpPut || err == errGone) || err == errClosed || errors.Is(err, errAway) {
		return
	}
	if denied(err) && !o.told.Swap(true) {
		o.c.log.Error("a right that objects in redis need is missing", "error", o.c.redact(err))
	}
	now := time.Now()
	failed := err != nil && !errors.Is(err, store.ErrKey) && !full(err) && !denied(err)
	if o.breaker.ended(sent, now, failed, err) {
		o.until.Store(now.Add(restWait).UnixNano())
	}
}

// full says that the server has reached its maxmemory.
func full(err error) bool {
	var answer *answerError
	return errors.As(err, &answer) && (strings.HasPrefix(answer.text, "OOM") || strings.Contains(answer.text, "-OOM"))
}

// denied says that the user of Redis may not do it, in a script or without.
func denied(err error) bool {
	var answer *answerError
	return forbidden(err) || errors.As(err, &answer) && strings.HasPrefix(answer.text, "NOPERM")
}

// put adds a command.
func (k *call) put(m command) {
	k.add(m.script, m.keys, m.args[:]...)
	k.commands[len(k.commands)-1].verb = m.verb
}

// millis is d in ms as Redis takes it: at least 1.
func millis(d time.Duration) string { return number(max(d.Milliseconds(), 1)) }
