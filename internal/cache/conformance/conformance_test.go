// Package conformance holds the response cache to the RFCs: a table of cases, each
// under the section that it is derived from, is run through whole gateways over
// real sockets, with memory alone and with Redis as the second level. The table is
// in testdata; format_test.go says how it is written.
//
// Nothing here waits for time to pass: what is old is old by the Age, the Date and
// the Expires of the origin's answer.
package conformance

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"
	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/internal/gatetest"
	"github.com/sluice-gateway/sluice/internal/store/redis/redistest"
)

// patience bounds the wait for what must come in the background.
const patience = 10 * time.Second

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(m)
}

// way is one way to run the table.
type way struct {
	name   string
	driver string
	shared bool // Redis is the second level
	pair   bool // the first request of a case goes to one gateway, the others to another
}

var ways = []way{
	{name: "memory", driver: "h1"},
	{name: "memory-h2", driver: "h2c"},
	{name: "redis", driver: "h1", shared: true},
	{name: "redis-pair", driver: "h1", shared: true, pair: true},
}

// TestConformance runs every case in every way.
func TestConformance(t *testing.T) {
	s, err := readSuite()
	if err != nil {
		t.Fatal(err)
	}
	if len(s.cases) < 300 {
		t.Fatalf("%d cases, want at least 300", len(s.cases))
	}
	var store *redistest.Server
	runs := 0
	for _, w := range ways {
		if w.shared && store == nil {
			store = redistest.Start(t)
		}
		t.Run(w.name, func(t *testing.T) {
			r := newRig(t, w, store)
			for _, c := range s.cases {
				runs++
				t.Run(strings.TrimSuffix(c.file, ".cases")+"/"+slug(c.name), func(t *testing.T) {
					t.Parallel()
					r.run(t, c)
				})
			}
		})
	}
	t.Logf("%d cases, run %d times", len(s.cases), runs)
}

// rig is what the cases of one way share.
type rig struct {
	way    way
	origin *origin
	sets   chan []*node // the gateways of one case
}

// pairs is how many pairs of gateways there are. A pair has one case at a time, whose
// writes to level 2 it counts.
const pairs = 4

// together is how many cases one gateway has at a time.
const together = 16

func newRig(t *testing.T, w way, store *redistest.Server) *rig {
	r := &rig{way: w, origin: newOrigin(t)}
	addr := ""
	if w.shared {
		addr = store.Addr()
	}
	start := func(name string) *node { return startNode(t, w.name+name, r.origin.Addr, addr, w.name+":") }
	if w.pair {
		r.sets = make(chan []*node, pairs)
		for i := range pairs {
			r.sets <- []*node{start(fmt.Sprint("-a", i)), start(fmt.Sprint("-b", i))}
		}
	} else {
		r.sets = make(chan []*node, together)
		one := []*node{start("")}
		for range together {
			r.sets <- one
		}
	}
	t.Cleanup(func() {
		if bad := r.origin.Bad(); bad != nil {
			t.Errorf("the origin got what can be read in two ways: %v", bad)
		}
	})
	return r
}

// slug makes a name fit for a path.
func slug(name string) string {
	return strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(name), "-"), "-")
}

// runner is a case under way.
type runner struct {
	*rig
	t        *testing.T
	c        *testCase
	path     string
	res      *resource
	gateways []*node
	clients  []*gatetest.Client
}

func (r *rig) run(t *testing.T, c *testCase) {
	path := "/" + c.route + "/" + strings.TrimSuffix(c.file, ".cases") + "-" + slug(c.name)
	set := <-r.sets
	defer func() { r.sets <- set }()
	run := &runner{rig: r, t: t, c: c, path: path, gateways: set, res: r.origin.resource(path, time.Now().Truncate(time.Second))}
	d := gatetest.Drivers[slices.IndexFunc(gatetest.Drivers[:], func(d gatetest.Driver) bool { return d.Name == r.way.driver })]
	for _, g := range set {
		client := gatetest.NewClient(d, g.addr, nil)
		defer client.CloseIdleConnections()
		run.clients = append(run.clients, client)
	}
	// The other gateway of a pair knows what went to level 2, no more.
	lasts := c.steps[0].origin.lasts(run.res)
	for i, st := range c.steps {
		if st.origin != nil {
			run.res.set(st.origin)
		}
		at := 0
		if i > 0 && lasts {
			at = len(set) - 1
		}
		if !run.step(i, st, at, lasts) {
			return
		}
	}
}

// step makes the request of st to gateway number at and reports whether all was
// as it must be. What is expected of the next steps depends on that.
func (r *runner) step(i int, st *step, at int, lasts bool) bool {
	r.t.Helper()
	late := time.Now().Add(patience)
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	settles := r.way.pair && i == 0 && lasts
	puts := 0.0
	if settles {
		puts = r.gateways[at].puts()
	}
	for {
		before := r.res.count()
		reply, err := r.send(st, at)
		wrong := r.judge(st, reply, err, before)
		switch {
		case len(wrong) == 0:
			if settles {
				r.settle(reply, at, puts)
			}
			return true
		case st.want.eventually && time.Now().Before(late):
			<-again.C
			continue
		}
		about := ""
		if r.c.about != "" {
			about = "\n" + r.c.about
		}
		r.t.Errorf("testdata/%s:%d: RFC %s: request %d, %s %s: %s%s\n%s", r.c.file, st.line, r.c.section, i+1,
			st.method, st.suffix, strings.Join(wrong, "; "), about, transcript(reply, r.res.last()))
		return false
	}
}

func (r *runner) send(st *step, at int) (*gatetest.Reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	m := gatetest.Message{Method: st.method, Host: "cache.test", Target: r.path + st.suffix, Body: st.body}
	if st.host != "" {
		m.Host = st.host
	}
	if rest, ok := strings.CutPrefix(st.suffix, "!"); ok { // in the place of the path
		m.Target = rest
	}
	for _, f := range st.header {
		m.Header = append(m.Header, gatetest.Field{Name: f.Name, Value: r.res.expand(f.Value)})
	}
	return r.clients[at].Do(ctx, m)
}

// settle waits until what a gateway of a pair has stored can be seen by the other.
func (r *runner) settle(reply *gatetest.Reply, at int, puts float64) {
	r.t.Helper()
	if m, _ := ours(reply); m == nil || !has(m, "stored") {
		return
	}
	late := time.Now().Add(patience)
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for r.gateways[at].puts() <= puts {
		if time.Now().After(late) {
			r.t.Fatalf("testdata/%s:%d: what was stored never came to the second level", r.c.file, r.c.line)
		}
		<-again.C
	}
}

// judge says what is wrong with a reply; before is how often the origin had been
// asked.
func (r *runner) judge(st *step, reply *gatetest.Reply, err error, before int) []string {
	if st.want.from == "broken" {
		if err == nil {
			return []string{"the reply is whole"}
		}
		return nil
	}
	if err != nil {
		return []string{err.Error()}
	}
	for range st.refetch {
		before++ // the one in the background
		if !r.res.await(before) {
			return []string{"the origin was not asked again in the background"}
		}
	}
	wrong := r.place(st, reply, before)
	if reply.Status != st.want.status && st.want.from != "any" {
		wrong = append(wrong, fmt.Sprintf("status %d, want %d", reply.Status, st.want.status))
	}
	wrong = append(wrong, sound(st, reply)...)
	add := func(why string) {
		if why != "" {
			wrong = append(wrong, why)
		}
	}
	for _, c := range st.reply {
		add(c.holds(r.values(reply, c.name), r.res))
	}
	member, _ := ours(reply)
	for _, c := range st.status {
		add(c.holds(parameter(member, c.name), r.res))
	}
	seen := r.res.last()
	for _, c := range st.seen {
		if seen == nil {
			add("the origin was never asked")
			break
		}
		add(c.holds(seenValues(seen, c.name), r.res))
	}
	return wrong
}

// place compares where a reply comes from.
func (r *runner) place(st *step, reply *gatetest.Reply, before int) (wrong []string) {
	asked := r.res.count() - before
	n := number(reply)
	member, bad := ours(reply)
	if bad != "" && r.c.route != "none" {
		wrong = append(wrong, bad)
	}
	hit := has(member, "hit")
	fresh := true
	if ttl := parameter(member, "ttl"); len(ttl) == 1 {
		fresh = !strings.HasPrefix(ttl[0], "-")
	}
	expect := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	current := before + asked
	switch from := st.want.from; from {
	case "origin", "validated", "rescued":
		expect(asked == 1 || asked > 0 && from == "rescued", "the origin was asked %d times, want once (%s)", asked, from)
		if n != 0 && st.want.n == 0 {
			expect((n == current) == (from == "origin"), "it is the origin's answer %d of %d (%s)", n, current, from)
		}
	case "cache", "stale":
		expect(asked == 0, "the origin was asked, want it from the cache")
		expect(hit, "no hit in Cache-Status")
		expect(!hit || fresh == (from == "cache"), "it is fresh: %v, want %s", fresh, from)
	case "gateway":
		expect(asked == 0, "the origin was asked, want an answer of the gateway's own")
		expect(n == 0, "it is the origin's answer %d, want one of the gateway's own", n)
	case "failed":
		expect(asked > 0, "the origin was not asked")
		expect(n == 0, "it is the origin's answer %d, want a failure", n)
	}
	if st.want.n != 0 {
		expect(n == st.want.n, "it is the origin's answer %d, want %d", n, st.want.n)
	}
	return wrong
}

// sound says what no reply through a cache may have.
func sound(st *step, reply *gatetest.Reply) (wrong []string) {
	member, _ := ours(reply)
	hit := has(member, "hit")
	if hit && has(member, "fwd") {
		wrong = append(wrong, "both hit and fwd in Cache-Status (RFC 9211 §2.2)")
	}
	ages := reply.Header.Values("Age")
	if hit && reply.Status != http.StatusRequestedRangeNotSatisfiable && (len(ages) != 1 || strings.Trim(ages[0], "0123456789") != "") {
		wrong = append(wrong, fmt.Sprintf("Age is %q on a hit (RFC 9111 §4)", ages))
	}
	if st.method == http.MethodHead && reply.Body != "" {
		wrong = append(wrong, "a reply to HEAD has a body")
	}
	if st.method != http.MethodHead && reply.Status != http.StatusNotModified && reply.Length >= 0 && reply.Length != int64(len(reply.Body)) {
		wrong = append(wrong, "Content-Length is not the body's")
	}
	for _, name := range []string{"Proxy-Connection", "Te", "Upgrade"} {
		if reply.Header.Get(name) != "" {
			wrong = append(wrong, name+" in the reply")
		}
	}
	for _, name := range []string{"Date", "Expires", "Last-Modified", "ETag", "Content-Length"} {
		if v := reply.Header.Values(name); len(v) > 1 && hit && name != "Expires" {
			wrong = append(wrong, fmt.Sprintf("%s is there %d times", name, len(v)))
		}
	}
	return wrong
}

var numbered = regexp.MustCompile(`^#([0-9]+)\.`)

// number is the origin's number of what is in a reply, 0 when there is none.
func number(reply *gatetest.Reply) int {
	v := reply.Header.Get(counter)
	if m := numbered.FindStringSubmatch(reply.Body); m != nil {
		v = m[1]
	}
	n, _ := strconv.Atoi(v) // 0 when it is not there
	return n
}

// ours is Sluice's member of Cache-Status, which must be the last (RFC 9211 §2),
// nil when there is none.
func ours(reply *gatetest.Reply) (*httpsfv.Params, string) {
	if reply == nil || len(reply.Header.Values("Cache-Status")) == 0 {
		return nil, ""
	}
	list, err := httpsfv.UnmarshalList(reply.Header.Values("Cache-Status"))
	if err != nil || len(list) == 0 {
		return nil, fmt.Sprintf("Cache-Status %q is no list: %v", reply.Header.Values("Cache-Status"), err)
	}
	item, ok := list[len(list)-1].(httpsfv.Item)
	if !ok || item.Value != httpsfv.Token("sluice") {
		return nil, fmt.Sprintf("the last member of Cache-Status %q is not sluice", reply.Header.Values("Cache-Status"))
	}
	return item.Params, ""
}

func has(p *httpsfv.Params, name string) bool { return len(parameter(p, name)) > 0 }

// parameter is a parameter as a field's values: none when it is not there or false.
func parameter(p *httpsfv.Params, name string) []string {
	if p == nil {
		return nil
	}
	v, ok := p.Get(name)
	if !ok || v == false {
		return nil
	}
	if v == true {
		return []string{""}
	}
	return []string{fmt.Sprint(v)}
}

// values are the reply's of a field, or ":body", ":interim", ":path".
func (r *runner) values(reply *gatetest.Reply, name string) []string {
	switch name {
	case ":body":
		return []string{reply.Body}
	case ":size":
		return []string{strconv.Itoa(len(reply.Body))}
	case ":interim":
		var all []string
		for _, i := range reply.Interim {
			all = append(all, strconv.Itoa(i.Status))
		}
		return all
	}
	return reply.Header.Values(name)
}

func seenValues(s *gatetest.Seen, name string) []string {
	switch name {
	case ":method":
		return []string{s.Method}
	case ":target":
		return []string{s.Target}
	case ":body":
		return []string{string(s.Body)}
	}
	return s.Header.Values(name)
}

// transcript is what came back and what the origin got last, for whoever reads of
// a failure.
func transcript(reply *gatetest.Reply, seen *gatetest.Seen) string {
	var b strings.Builder
	if reply != nil {
		b.WriteString("\treply:  " + strings.ReplaceAll(strings.TrimSpace(reply.Text()), "\n", "\n\t        ") + "\n")
	}
	if seen != nil {
		b.WriteString("\torigin: " + strings.ReplaceAll(strings.TrimSpace(seen.Text("")), "\n", "\n\t        ") + "\n")
	}
	return b.String()
}
