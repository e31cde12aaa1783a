package conformance

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/gatetest"
)

// counter is the field in which the origin says how often it was asked for a
// resource, this time included. The body begins with the same number.
const counter = "Origin-Count"

// answer is what the origin says to the requests for a resource. Besides fields
// there are acts:
//
//	:body TEXT      the body is TEXT, in which {n} is the counter; "#{n}." when left out
//	:size N         the body goes on to N bytes
//	:chunked        the body is sent in chunks
//	:eof            the end of the connection ends the body
//	:short N        the length that is declared is N more than what is sent
//	:torn           the end of the connection would end the body, but it is a reset
//	:cut            the last chunk never comes
//	:close          the connection is closed instead of an answer
//	:reset          the same, rudely
//	:nodate         no Date is added; otherwise it is that of the moment
//	:uncounted      no counter is added
//	:interim N F    an informational response goes before it
type answer struct {
	status  int
	fields  gatetest.Fields
	body    string
	hasBody bool
	acts    map[string]string
}

func (a *answer) take(line string) error {
	if n, err := strconv.Atoi(line); err == nil {
		a.status = n
		return nil
	}
	if act, ok := strings.CutPrefix(line, ":"); ok {
		name, value, _ := strings.Cut(act, " ")
		switch name {
		case "body":
			a.body, a.hasBody = value, true
		case "chunked", "eof", "torn", "size", "short", "cut", "close", "reset", "nodate", "uncounted", "interim":
			if a.acts == nil {
				a.acts = map[string]string{}
			}
			a.acts[name] = value
		default:
			return fmt.Errorf("no act is called %q", name)
		}
		return nil
	}
	name, value, ok := cutField(line)
	if !ok {
		return fmt.Errorf("field line %q", line)
	}
	a.fields = append(a.fields, gatetest.Field{Name: name, Value: value})
	return nil
}

func (a *answer) does(act string) bool {
	_, ok := a.acts[act]
	return ok
}

// fails reports whether a is not a whole response.
func (a *answer) fails() bool {
	return a.does("close") || a.does("reset") || a.does("short") || a.does("cut") || a.does("torn")
}

var (
	lifetimes = regexp.MustCompile(`(?i)(?:^|[ ,])(s-maxage|max-age)="?(\d+)`)
	noCache   = regexp.MustCompile(`(?i)(?:^|[ ,])no-cache(?:$|,)`)
)

// lasts reports whether a stored answer can be used for a while without the origin.
// Others do not go to level 2, where nobody could use them.
func (a *answer) lasts(r *resource) bool {
	date := func(name string) (time.Time, bool) {
		t, err := http.ParseTime(r.expand(a.fields.Get(name)))
		return t, err == nil
	}
	born, ok := date("Date")
	if !ok {
		born = r.at
	}
	age, _ := strconv.Atoi(strings.Trim(strings.SplitN(a.fields.Get("Age"), ",", 2)[0], " \t")) // 0: none
	age = max(age, int(r.at.Sub(born).Seconds()))
	said := strings.Join(append(a.fields.Values("Cache-Control"), a.fields.Values("Sluice-Cache-Control")...), ", ")
	lifetime := 3600
	if a.fields.Has("Expires") {
		expires, _ := date("Expires") // what is none is past
		lifetime = int(expires.Sub(born).Seconds())
	}
	for i, m := range lifetimes.FindAllStringSubmatch(said, -1) {
		n, _ := strconv.Atoi(m[2]) // digits
		if strings.EqualFold(m[1], "s-maxage") {
			lifetime = n
			break
		}
		if i == 0 || n < lifetime {
			lifetime = n
		}
	}
	return age < lifetime && age < 3600 && !a.fails() && len(a.acts["size"]) < 7 && !noCache.MatchString(said)
}

// wire is the answer number n as it goes out, and whether the connection ends
// behind it.
func (a *answer) wire(method string, n int, r *resource) (text string, end bool) {
	var b strings.Builder
	if v, ok := a.acts["interim"]; ok {
		status, fields, _ := strings.Cut(v, " ")
		fmt.Fprintf(&b, "HTTP/1.1 %s Interim\r\n%s\r\n\r\n", status, fields)
	}
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", a.status, http.StatusText(a.status))
	for _, f := range a.fields {
		fmt.Fprintf(&b, "%s: %s\r\n", f.Name, r.expand(f.Value))
	}
	if !a.fields.Has("Date") && !a.does("nodate") {
		fmt.Fprintf(&b, "Date: %s\r\n", time.Now().UTC().Format(http.TimeFormat))
	}
	if a.status != http.StatusNotModified && !a.does("uncounted") {
		fmt.Fprintf(&b, "%s: %d\r\n", counter, n)
	}
	body := "#{n}."
	if a.hasBody {
		body = a.body
	}
	body = strings.ReplaceAll(body, "{n}", strconv.Itoa(n))
	if size, _ := strconv.Atoi(a.acts["size"]); size > len(body) { // 0 when it is not there
		body += strings.Repeat("x", size-len(body))
	}
	switch {
	case a.status == http.StatusNoContent || a.status == http.StatusNotModified:
		return b.String() + "\r\n", false
	case a.does("chunked") || a.does("cut"):
		b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
		if method == http.MethodHead {
			return b.String(), false
		}
		half := len(body) / 2
		for _, part := range []string{body[:half], body[half:]} {
			if part != "" {
				fmt.Fprintf(&b, "%x\r\n%s\r\n", len(part), part)
			}
		}
		if a.does("cut") {
			return b.String(), true
		}
		b.WriteString("0\r\n\r\n")
		return b.String(), false
	case a.does("eof") || a.does("torn"):
		return b.String() + "Connection: close\r\n\r\n" + body, true
	}
	more, _ := strconv.Atoi(a.acts["short"]) // 0 when it is not there
	if !a.fields.Has("Content-Length") {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body)+more)
	}
	b.WriteString("\r\n")
	if method != http.MethodHead {
		b.WriteString(body)
	}
	return b.String(), more > 0
}

// origin serves the resources of all cases of a run.
type origin struct {
	*gatetest.Origin
	mu  sync.Mutex
	all map[string]*resource // by the first two segments of the path
}

// resource is what the origin knows of one case.
type resource struct {
	path string
	at   time.Time // the moment of all dates

	mu   sync.Mutex
	now  *answer
	n    int
	seen []*gatetest.Seen
	told chan struct{} // closed and replaced with every request
}

func newOrigin(t testing.TB) *origin {
	o := &origin{all: map[string]*resource{}}
	o.Origin = gatetest.NewOrigin(t, o.serve)
	return o
}

// resource makes the resource of a case.
func (o *origin) resource(path string, now time.Time) *resource {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := &resource{path: path, at: now, told: make(chan struct{})}
	o.all[path] = r
	return r
}

func (o *origin) find(target string) *resource {
	path, _, _ := strings.Cut(target, "?")
	parts := strings.SplitN(path, "/", 4)
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(parts) < 3 {
		return nil
	}
	return o.all["/"+parts[1]+"/"+parts[2]]
}

func (o *origin) serve(p *gatetest.Peer) {
	for {
		s, err := p.Next()
		if err != nil {
			return
		}
		r := o.find(s.Target)
		if r == nil {
			_ = p.Send("HTTP/1.1 500 Nobody Knows\r\nContent-Length: 0\r\n\r\n")
			return
		}
		a, n := r.ask(s)
		if a.does("close") {
			return
		}
		if a.does("reset") {
			p.Reset()
			return
		}
		text, end := a.wire(s.Method, n, r)
		if p.Send(text) != nil || end {
			if a.does("torn") {
				p.Reset()
			}
			return
		}
	}
}

// ask counts a request and returns what to say.
func (r *resource) ask(s *gatetest.Seen) (*answer, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	r.seen = append(r.seen, s)
	close(r.told)
	r.told = make(chan struct{})
	return r.now, r.n
}

func (r *resource) set(a *answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = a
}

func (r *resource) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

func (r *resource) last() *gatetest.Seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.seen) == 0 {
		return nil
	}
	return r.seen[len(r.seen)-1]
}

// await waits until n requests came, and reports whether they did.
func (r *resource) await(n int) bool {
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		r.mu.Lock()
		have, told := r.n, r.told
		r.mu.Unlock()
		if have >= n {
			return true
		}
		select {
		case <-told:
		case <-late.C:
			return false
		}
	}
}
