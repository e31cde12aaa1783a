package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/sluice-gateway/sluice/internal/store"
)

const (
	// ringScale is the size of the library's queue of one connection, 2^ringScale.
	// It must hold maxInFlight and a few heartbeats.
	ringScale   = 10
	maxInFlight = 512
)

// A call is commands that are sent together, by a goroutine of its own, while the
// caller waits for the budget. What comes first, the end of the goroutine or that
// of the wait, decides: a call that was given up belongs to its goroutine, which
// ends with the reply or with the connection.
type call struct {
	op       Op
	bulk     bool          // on the connection of large values
	room     chan struct{} // a place is given back to it when the call has ended; nil: none
	commands []command
	replies  []reply
	groups   [][]int // which charges or settlements each command is for
	kinds    []kind  // what each command's are
	tags     []string
	buf      []byte // to pack arguments in
	done     chan struct{}
	timer    *time.Timer
	state    atomic.Uint32
	begun    time.Time
}

const (
	waiting uint32 = iota
	ended          // by the goroutine
	givenUp        // by the caller
)

// command is a script with its keys and arguments; without a script it is what verb says.
type command struct {
	verb   verb
	script *script
	full   *script // for what script leaves undecided, if it may: it answers ''
	keys   []string
	args   [3]string
}

// verb is a command that is no script.
type verb uint8

const (
	del    verb = iota
	set         // to args[0], for stagedLife
	getAll      // MGET
)

type reply struct {
	text string   // a string reply
	n    int64    // an integer reply
	many [][]byte // a list of strings, nil for those that are not there
	err  error    // wraps store.ErrUnavailable
	// bad has an error for each key that the script could not do, by its place among
	// the command's keys; nil when it did all.
	bad []error
}

// of is what became of the j-th key.
func (r *reply) of(j int) error {
	if r.err != nil || r.bad == nil {
		return r.err
	}
	return r.bad[j]
}

// calls are the calls in flight, and those to use again.
type calls struct {
	n    atomic.Int64
	pool sync.Pool
	shut atomic.Bool
	idle chan struct{} // of one: the last call of a shut client has ended
}

func (s *calls) get() *call {
	if k, ok := s.pool.Get().(*call); ok {
		return k
	}
	k := &call{done: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
	k.timer.Stop()
	return k
}

// release gives back a call that ended with err. One that was given up is its
// goroutine's.
func (s *calls) release(k *call, err error) {
	if err != errLate && err != errGone {
		s.put(k)
	}
}

func (s *calls) put(k *call) {
	for i := range k.commands {
		keys := k.commands[i].keys
		clear(keys)
		k.commands[i] = command{keys: keys[:0]}
	}
	clear(k.replies)
	clear(k.tags)
	k.bulk, k.room = false, nil
	k.commands, k.replies = k.commands[:0], k.replies[:0]
	k.groups, k.kinds, k.tags, k.buf = k.groups[:0], k.kinds[:0], k.tags[:0], k.buf[:0]
	k.state.Store(waiting)
	s.pool.Put(k)
}

func (s *calls) leave() {
	if s.n.Add(-1) == 0 && s.shut.Load() {
		notify(s.idle)
	}
}

// drain waits until no call is in flight; none may begin any more.
func (s *calls) drain() {
	s.shut.Store(true)
	for s.n.Load() > 0 {
		<-s.idle
	}
}

func (k *call) add(s *script, keys []string, args ...string) {
	if n := len(k.commands); n < cap(k.commands) { // with room for keys
		k.commands = k.commands[:n+1]
		k.commands[n] = command{script: s, keys: append(k.commands[n].keys[:0], keys...)}
	} else {
		k.commands = append(k.commands, command{script: s, keys: keys})
	}
	copy(k.commands[len(k.commands)-1].args[:], args)
	k.replies = append(k.replies, reply{})
}

// allow says whether a call may be made now. It costs a few loads.
func (c *Client) allow(op Op) error {
	if !c.breaker.up.Load() {
		c.stats.add(op, NotMade)
		return errOpen
	}
	if c.calls.n.Load() >= maxInFlight {
		c.stats.add(op, NotMade)
		return errBusy
	}
	return nil
}

// ask makes a call and counts how it ends. Errors of single commands are in the
// replies, and the first one is returned, too.
func (c *Client) ask(ctx context.Context, k *call, wait time.Duration) error {
	key, op := k.commands[0].keys[0], k.op // a call that was given up is not ours to read
	sent := time.Now()
	err := c.do(ctx, k, wait)
	if err == errGone || err == errClosed {
		return err
	}
	failed := err != nil && !errors.Is(err, store.ErrKey) && !((op == OpRecords || op == OpPurges) && forbidden(err))
	if failed {
		if err != errLate {
			key = k.commands[k.failed()].keys[0]
		}
		c.suspect.Store(&key)
	}
	c.breaker.ended(sent, time.Now(), failed, err)
	return err
}

// failed is the first command that has an error.
func (k *call) failed() int {
	i, _ := k.worst()
	return i
}

// worst is the first error that says something about the server, or else about a key,
// and which command's it is.
func (k *call) worst() (command int, err error) {
	for i := range k.replies {
		r := &k.replies[i]
		for j := range max(len(r.bad), 1) {
			if e := r.of(j); e != nil && (err == nil || errors.Is(err, store.ErrKey) && !errors.Is(e, store.ErrKey)) {
				command, err = i, e
			}
		}
	}
	return command, err
}

// inspect reads which keys of the scripts of Post and Settle have failed. It stands
// behind the numbers of the reply: for each, its place and the length of the error's
// text, as doubles, and the text.
func (k *call) inspect() {
	size := 0
	switch k.op {
	case OpPost:
	case OpSettle:
		size = grantSize
	default:
		return
	}
	for i := range k.replies {
		r, n := &k.replies[i], len(k.commands[i].keys)
		if r.err != nil || len(r.text) == n*size {
			continue
		}
		bad := make([]error, n)
		rest := r.text[min(n*size, len(r.text)):]
		for len(rest) >= 16 {
			at, length := double(rest, 0), double(rest, 1)
			rest = rest[16:]
			if at < 0 || at >= int64(n) || length < 0 || length > int64(len(rest)) {
				break
			}
			bad[at] = refusal(rest[:length])
			rest = rest[length:]
		}
		if r.text, r.bad = r.text[:min(n*size, len(r.text))], bad; rest != "" || len(r.text) != n*size {
			r.err = errReply
		}
	}
}

// do makes a call and waits for it.
func (c *Client) do(ctx context.Context, k *call, wait time.Duration) error {
	op := k.op
	c.calls.n.Add(1)
	if c.calls.shut.Load() {
		k.vacate()
		c.calls.leave()
		return errClosed
	}
	k.begun = time.Now()
	k.timer.Reset(wait)
	go c.run(k)
	select {
	case <-k.done:
	case <-k.timer.C:
		if !c.stalled(k, wait) && k.state.CompareAndSwap(waiting, givenUp) {
			c.stats.add(op, Late)
			return errLate
		}
		<-k.done
	case <-ctx.Done():
		if k.state.CompareAndSwap(waiting, givenUp) {
			c.stats.add(op, Late)
			return errGone
		}
		<-k.done
	}
	k.timer.Stop()
	if _, err := k.worst(); err != nil {
		c.stats.add(op, Failed)
		return err
	}
	c.stats.add(op, Answered)
	c.stats.trip(time.Since(k.begun))
	return nil
}

// Who waits for an answer is woken late when this process has no core for it. Then
// the answer was delayed as well, at each of the few goroutines that it passes
// through, and may be here already: the store is not to blame.
const (
	stallHops = 4 // wake-ups between the store and who waits
	stallMost = 4 // budgets that a call may wait in all because of it
)

// stalled is asked when the budget is over. It waits as much longer as this process
// was late, and reports whether the answer came.
func (c *Client) stalled(k *call, wait time.Duration) bool {
	late := time.Since(k.begun) - wait
	more := min(stallHops*late, (stallMost-1)*wait)
	if more < stallLeast {
		return false
	}
	k.timer.Reset(more)
	select {
	case <-k.done:
		k.done <- struct{}{} // for do
		return true
	case <-k.timer.C:
		return false
	}
}

// stallLeast is what is worth waiting.
const stallLeast = 500 * time.Microsecond

// run sends the call and ends it.
func (c *Client) run(k *call) {
	defer c.calls.leave()
	p := c.client.Load()
	if k.bulk {
		p = c.bulk.Load()
	}
	if p == nil {
		for i := range k.replies {
			k.replies[i].err = errAway
		}
	} else if len(k.commands) == 1 {
		k.replies[0] = once(*p, &k.commands[0])
	} else {
		together(*p, k)
	}
	k.inspect()
	k.vacate()
	if k.state.CompareAndSwap(waiting, ended) {
		k.done <- struct{}{}
		return
	}
	k.timer.Stop()
	c.calls.put(k)
}

func (k *call) vacate() {
	if k.room != nil {
		<-k.room
	}
}

// forget makes a call that nobody waits for. It is released.
func (c *Client) forget(k *call) {
	c.calls.n.Add(1)
	if c.calls.shut.Load() {
		k.vacate()
		c.calls.leave()
		c.calls.put(k)
		return
	}
	k.state.Store(givenUp)
	go c.run(k)
}

// once executes one command. A slot that is being moved (TRYAGAIN) is asked once
// more a moment later: nothing was executed then. What else fails is not repeated:
// nobody knows whether it was executed.
func once(client rueidis.Client, m *command) reply {
	r := read(client.Do(context.Background(), build(client, m, false)))
	if r.redis("NOSCRIPT") {
		r = read(client.Do(context.Background(), build(client, m, true)))
	}
	if r.redis("TRYAGAIN") {
		time.Sleep(time.Millisecond)
		r = read(client.Do(context.Background(), build(client, m, true)))
	}
	if r.undecided(m) {
		m.script, m.full = m.full, nil
		return once(client, m)
	}
	return r
}

func (r *reply) undecided(m *command) bool { return m.full != nil && r.err == nil && r.text == "" }

// together executes the commands in one round trip to each node.
func together(client rueidis.Client, k *call) {
	all := make(rueidis.Commands, len(k.commands))
	for i := range k.commands {
		all[i] = build(client, &k.commands[i], false)
	}
	for i, r := range client.DoMulti(context.Background(), all...) {
		k.replies[i] = read(r)
	}
	for i := range k.replies {
		if r := &k.replies[i]; r.redis("NOSCRIPT") || r.redis("TRYAGAIN") || r.undecided(&k.commands[i]) {
			*r = once(client, &k.commands[i])
		}
	}
}

// build is the command, with the script's text or only its name.
func build(client rueidis.Client, m *command, text bool) rueidis.Completed {
	b := client.B()
	n := int64(len(m.keys))
	switch {
	case m.script == nil && m.verb == set:
		return b.Set().Key(m.keys[0]).Value(m.args[0]).PxMilliseconds(stagedLife.Milliseconds()).Build()
	case m.script == nil && m.verb == getAll:
		return b.Mget().Key(m.keys...).Build()
	case m.script == nil:
		return b.Del().Key(m.keys...).Build()
	case text:
		return b.Eval().Script(m.script.text).Numkeys(n).Key(m.keys...).Arg(m.args[:]...).Build()
	default:
		return b.Evalsha().Sha1(m.script.sha).Numkeys(n).Key(m.keys...).Arg(m.args[:]...).Build()
	}
}

// read is the reply of a command: a string, an integer or a list of strings.
func read(r rueidis.RedisResult) reply {
	m, err := r.ToMessage()
	if err != nil {
		return reply{err: unavailable(err)}
	}
	if m.IsInt64() {
		n, err := m.AsInt64()
		if err != nil {
			return reply{err: unavailable(err)}
		}
		return reply{n: n}
	}
	if m.IsArray() {
		return readMany(m)
	}
	text, err := m.ToString()
	if err != nil {
		return reply{err: unavailable(err)}
	}
	return reply{text: text}
}

func readMany(m rueidis.RedisMessage) reply {
	all, err := m.ToArray()
	if err != nil {
		return reply{err: unavailable(err)}
	}
	many := make([][]byte, len(all))
	for i := range all {
		if all[i].IsNil() {
			continue
		}
		if many[i], err = all[i].AsBytes(); err != nil {
			return reply{err: unavailable(err)}
		}
	}
	return reply{many: many}
}

func (r *reply) redis(kind string) bool {
	var answer *answerError
	return r.err != nil && errors.As(r.err, &answer) && strings.HasPrefix(answer.text, kind)
}

// answerError is an error that the server answered with, or a node of it.
type answerError struct{ text string }

func (e *answerError) Error() string { return "redis: " + e.text }

// unavailable wraps an error of the library's in store.ErrUnavailable. What the
// server answers with an error it has not done: scripts write last, and where one
// key's trouble must not stop the others they answer with it (see inspect).
func unavailable(err error) error {
	if answer, ok := rueidis.IsRedisErr(err); ok {
		return refusal(answer.Error())
	}
	of := store.ErrUnavailable
	if unsent(err) {
		of = store.ErrNotDone
	}
	return fmt.Errorf("%w: redis: %v", of, err) // no type of the library leaves this room
}

// refusal is an error that the server answered with. It says nothing about the
// server's health, it is store.ErrKey, when the key is of another type, or holds what
// the script does not understand.
func refusal(text string) error {
	of := store.ErrNotDone
	if strings.HasPrefix(text, "WRONGTYPE") || strings.Contains(text, "user_script") &&
		(strings.HasPrefix(text, "ERR ") || strings.HasPrefix(text, "user_script") || strings.HasPrefix(text, "@user_script")) {
		of = store.ErrKey
	}
	return fmt.Errorf("%w: %w", of, &answerError{text})
}

// forbidden says that the user of Redis may not run a command of a script: other
// scripts may work.
func forbidden(err error) bool {
	var answer *answerError
	return errors.As(err, &answer) && strings.Contains(answer.text, "user_script") &&
		(strings.Contains(answer.text, "can't run this command") || strings.Contains(answer.text, "no permissions") || strings.HasPrefix(answer.text, "NOPERM"))
}

// unsent says that there was no connection to send the command on.
func unsent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" || errors.Is(err, errRedial) || errors.Is(err, errDials) ||
		errors.Is(err, errStopped) || errors.Is(err, rueidis.ErrNoSlot)
}
