package gatetest

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/tools/txtar"
)

// Case is a txtar file: a gateway's configuration and, one after the other,
// requests with what must become of them.
//
// The comment says what the case shows. A line of it may be
//
//	drivers: h1 h2c      which drivers it runs over; all four when left out
//	stores: memory redis where limits are counted, each in a run of its own; memory
//	                     when left out
//	raw                  requests are sent as they stand, over HTTP/1.1 only
//	length: any          whether a reply declares its length is not looked at
//
// The files are
//
//	config     the configuration, without listeners: the runner adds "plain"
//	           and "secure"
//	file NAME  a file beside it
//	request    begins a step: a request line, fields, an empty line, the body
//	origin     what the origin answers; several: to several requests in turn.
//	           Without one the origin must not be asked.
//	seen       what the origin must have got, one for each origin section
//	reply      what the client must have got
//	record     members that the access record must have
//
// In a request, "Transfer-Encoding: chunked" stands for a body of unknown length,
// "~Name: value" is a trailer field, and "@from: 127.0.0.2" says where it is
// dialled from. In an origin section the length is added when no framing is given,
// and !reset, !close and !hang are acts (see Script).
//
// Requests and replies are compared whole, in the form that Seen.Text and
// Reply.Text write. What differs from run to run has a name there: <id>,
// <traceparent>; what differs from driver to driver has one in the expectation:
// @scheme@, @via@, @proto@, @origin@. Of the seconds that limits tell, any that are
// a little less than the expected ones will do, and all where <t> is expected.
type Case struct {
	Name    string
	About   string
	Raw     bool
	AnyLen  bool
	Drivers []Driver
	Stores  []string
	Config  string
	Files   map[string]string // beside the configuration
	Steps   []Step
}

// The stores.
const (
	Memory = "memory"
	Redis  = "redis"
)

// Step is one request.
type Step struct {
	Request string
	Origin  []string
	Seen    []string
	Reply   string
	Record  string
}

// ParseCase reads a case.
func ParseCase(name string, src []byte) (*Case, error) {
	a := txtar.Parse(src)
	c := &Case{Name: name, Drivers: Drivers[:], Stores: []string{Memory}}
	for line := range strings.Lines(string(a.Comment)) {
		line = strings.TrimSpace(line)
		names, ok := strings.CutPrefix(line, "drivers:")
		stores, where := strings.CutPrefix(line, "stores:")
		switch {
		case where:
			c.Stores = strings.Fields(stores)
			for _, s := range c.Stores {
				if s != Memory && s != Redis {
					return nil, fmt.Errorf("%s: no store is called %s", name, s)
				}
			}
		case ok:
			c.Drivers = nil
			for _, n := range strings.Fields(names) {
				i := slices.IndexFunc(Drivers[:], func(d Driver) bool { return d.Name == n })
				if i < 0 {
					return nil, fmt.Errorf("%s: no driver is called %s", name, n)
				}
				c.Drivers = append(c.Drivers, Drivers[i])
			}
		case line == "length: any":
			c.AnyLen = true
		case line == "raw":
			c.Raw, c.Drivers = true, Drivers[:2]
		default:
			c.About += line + "\n"
		}
	}
	for _, f := range a.Files {
		if err := c.section(f.Name, strings.TrimSuffix(string(f.Data), "\n")); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	switch {
	case strings.TrimSpace(c.About) == "":
		return nil, fmt.Errorf("%s: the comment says nothing", name)
	case c.Config == "" || len(c.Steps) == 0:
		return nil, fmt.Errorf("%s: no config or no request", name)
	}
	for i, s := range c.Steps {
		if s.Reply == "" || len(s.Origin) != len(s.Seen) {
			return nil, fmt.Errorf("%s: request %d: a reply, and one seen for each origin, must be there", name, i+1)
		}
	}
	return c, nil
}

func (c *Case) section(name, text string) error {
	if name == "config" {
		c.Config = text
		return nil
	}
	if file, ok := strings.CutPrefix(name, "file "); ok {
		if c.Files == nil {
			c.Files = map[string]string{}
		}
		c.Files[file] = text + "\n"
		return nil
	}
	if name == "request" {
		c.Steps = append(c.Steps, Step{Request: text})
		return nil
	}
	if len(c.Steps) == 0 {
		return fmt.Errorf("%s before the first request", name)
	}
	s := &c.Steps[len(c.Steps)-1]
	switch name {
	case "origin":
		s.Origin = append(s.Origin, originReply(text))
	case "seen":
		s.Seen = append(s.Seen, text)
	case "reply":
		s.Reply = text
	case "record":
		s.Record = text
	default:
		return fmt.Errorf("%q is none of config, file NAME, request, origin, seen, reply, record", name)
	}
	return nil
}

// originReply makes a reply for the wire of one for people.
func originReply(text string) string {
	if strings.HasPrefix(text, "!") {
		return text
	}
	head, body, _ := strings.Cut(text+"\n", "\n\n")
	body = strings.TrimSuffix(body, "\n")
	head = strings.ReplaceAll(strings.TrimSuffix(head, "\n"), "\n", "\r\n")
	lower := strings.ToLower(head)
	switch {
	case strings.HasPrefix(lower, "http/1.1 1") && body != "":
		return head + "\r\n\r\n" + originReply(body)
	case strings.Contains(lower, "\r\ntransfer-encoding:"):
		return head + "\r\n\r\n" + chunks(body)
	case strings.Contains(lower, "\r\ncontent-length:"), strings.Contains(lower, "\r\nconnection: close"),
		strings.HasPrefix(lower, "http/1.1 204"), strings.HasPrefix(lower, "http/1.1 304"), strings.HasPrefix(lower, "http/1.1 1"):
		return head + "\r\n\r\n" + body
	}
	return head + "\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
}

// chunks gives a chunked body its line ends, and its last one if need be.
func chunks(body string) string {
	return strings.ReplaceAll(strings.TrimRight(body, "\n"), "\n", "\r\n") + "\r\n\r\n"
}

// Message reads the request of s. from is where it is dialled from, "" for
// anywhere.
func (s *Step) Message() (m Message, from string, err error) {
	head, body, _ := strings.Cut(s.Request+"\n", "\n\n")
	lines := strings.Split(strings.TrimSuffix(head, "\n"), "\n")
	var ok bool
	if m.Method, m.Target, ok = strings.Cut(lines[0], " "); !ok {
		return m, "", fmt.Errorf("request line %q", lines[0])
	}
	m.Target = strings.TrimSuffix(m.Target, " HTTP/1.1")
	m.Body = strings.TrimSuffix(body, "\n")
	for _, l := range lines[1:] {
		name, value, ok := strings.Cut(l, ":")
		value = strings.TrimSpace(value)
		switch {
		case !ok:
			return m, "", fmt.Errorf("field line %q", l)
		case name == "@from":
			from = value
		case name[0] == '~':
			m.Trailer = append(m.Trailer, Field{name[1:], value})
		case name == "Host":
			m.Host = value
		case name == "Expect" && value == "100-continue":
			m.Expect = true
		case name == "Transfer-Encoding":
			m.Unknown = true
		default:
			m.Header = append(m.Header, Field{name, value})
		}
	}
	return m, from, nil
}

// Bytes is the request of s as it stands, with the line ends of HTTP.
func (s *Step) Bytes() []byte {
	head, body, ok := strings.Cut(s.Request+"\n", "\n\n")
	if !ok {
		head = strings.TrimSuffix(head, "\n")
	}
	head = strings.ReplaceAll(head, "\n", "\r\n") + "\r\n\r\n"
	if strings.Contains(strings.ToLower(head), "\r\ntransfer-encoding:") {
		return []byte(head + chunks(body))
	}
	return []byte(head + strings.TrimSuffix(body, "\n"))
}

var traceparent = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)

// Text writes s for comparison: the request line, the fields in lower case and in
// the order of their names, an empty line, the body, and trailer fields as
// "~name: value". id is the request's, which becomes <id>.
func (s *Seen) Text(id string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n", s.Method, s.Target)
	writeFields(&b, "", s.Header, id)
	if len(s.Body) > 0 || len(s.Trailer) > 0 {
		fmt.Fprintf(&b, "\n%s\n", s.Body)
	}
	writeFields(&b, "~", s.Trailer, id)
	return b.String()
}

func writeFields(b *strings.Builder, prefix string, fields Fields, id string) {
	for _, f := range fields.sorted() {
		switch {
		case id != "" && f.Value == id:
			f.Value = "<id>"
		case strings.EqualFold(f.Name, "traceparent") && traceparent.MatchString(f.Value):
			f.Value = "<traceparent>"
		}
		fmt.Fprintf(b, "%s%s: %s\n", prefix, strings.ToLower(f.Name), f.Value)
	}
}

// Text writes r for comparison, as Seen.Text does. Fields of the connection and
// the date are left out. A problem document is written as "problem CODE" when it
// is in order.
func (r *Reply) Text() string {
	var b strings.Builder
	for _, i := range r.Interim {
		fmt.Fprintf(&b, "interim %d\n", i.Status)
		writeFields(&b, "", fieldsOf(i.Header), "")
	}
	fmt.Fprintf(&b, "%d\n", r.Status)
	id := r.Header.Get("X-Request-Id")
	if !RequestID.MatchString(id) {
		id = ""
	}
	body := r.Body
	header := r.Header.Clone()
	if header.Get("Content-Type") == "application/problem+json" {
		if code, err := Problem(r.Status, r.Header, r.Body); err == nil {
			body = "problem " + code
			header.Del("Content-Length")
			header.Del("Content-Type")
		} else if body != "" {
			body = err.Error()
		}
	}
	for _, name := range []string{"Date", "Connection", "Keep-Alive", "Transfer-Encoding", "Trailer"} {
		header.Del(name)
	}
	writeFields(&b, "", fieldsOf(header), id)
	if body != "" || len(r.Trailer) > 0 {
		fmt.Fprintf(&b, "\n%s\n", body)
	}
	writeFields(&b, "~", fieldsOf(r.Trailer), "")
	return b.String()
}

// seconds are those that limits tell: t of RateLimit, w of RateLimit-Policy, and
// Retry-After.
var seconds = regexp.MustCompile(`(;t=|;w=|retry-after: )(\d+|<t>)`)

// tolerance is by how much they may be below what is expected: the time between
// two requests of a case on a machine with much to do.
const tolerance = 30

// settle puts the expected seconds in the place of those that came, where they
// are near enough.
func settle(got, want string) string {
	expected := seconds.FindAllStringSubmatch(want, -1)
	i := -1
	return seconds.ReplaceAllStringFunc(got, func(s string) string {
		if i++; i >= len(expected) {
			return s
		}
		came, name := seconds.FindStringSubmatch(s), expected[i][1]
		n, err := strconv.Atoi(came[2])
		if came[1] != name || err != nil {
			return s
		}
		if most, err := strconv.Atoi(expected[i][2]); err == nil && (n > most || n < most-tolerance || n == 0 && most > 0) {
			return s
		}
		return expected[i][0]
	})
}

func fieldsOf(h map[string][]string) Fields {
	var all Fields
	for name, values := range h {
		for _, v := range values {
			all = append(all, Field{name, v})
		}
	}
	return all
}
