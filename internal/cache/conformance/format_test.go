package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/gatetest"
)

// A file of testdata is read line by line; a line that is empty or begins with #
// is nothing.
//
//	section 9111 §5.2.2.1 max-age   the rules that the cases below show
//	about TEXT                      why the next case expects what it does
//	case NAME                       begins a case
//	on ROUTE                        the route of gateway_test.go it runs on; "plain"
//	                                when left out
//
// and its steps:
//
//	< 200                   what the origin answers from here on: a status, 200 when
//	< Name: value           left out, fields, and acts (see answer)
//	> GET /sub?a=1 = cache  a request: method, what stands behind the case's own path,
//	> Name: value           and where the reply must come from (see verdict)
//	= Name: value           the reply has the field. "!Name": it has not; "Name: ~x": it
//	                        matches the expression x; "Name: 1..9": it is such a number
//	% name=value            the same of the parameters of Sluice's member of Cache-Status
//	@ Name: value           the same of the last request that the origin got; "@ :method"
//	                        and "@ :target" are of its request line
//	~                       the origin is asked once more, in the background: wait for that
//
// A case of two requests stands on one line: FIELDS are the origin's, separated
// by " ++ ", and the second request is answered from the cache ("reused"), by the
// origin ("asked"), or from the cache after the origin's 304 ("validated").
//
//	reused NAME | FIELDS
//	asked NAME | FIELDS
//
// Values may hold \t and \xNN, {self} for the case's own path, and {date now-1h} for
// a date (also {rfc850 …}, {asctime …}, now alone, and d for 24 hours).
type suite struct {
	cases   []*testCase
	section string
	about   string
	names   map[string]bool // of the files and cases that are read
}

// testCase is one case: steps on a resource of its own.
type testCase struct {
	file    string
	line    int
	section string
	name    string
	about   string
	route   string
	steps   []*step
}

// step is a request and what must become of it.
type step struct {
	line    int
	origin  *answer // nil: as before
	method  string
	suffix  string
	host    string
	header  gatetest.Fields
	body    string
	want    verdict
	reply   []check
	status  []check // parameters of Cache-Status
	seen    []check
	refetch int // background requests that must come
}

// verdict is where a reply comes from.
//
//	origin     the origin was asked once, and this is what it said
//	cache      the origin was not asked
//	stale      the same, and the response was stale
//	validated  the origin was asked once, with a condition, said 304, and the reply is
//	           what was stored
//	rescued    the origin was asked, failed, and the reply is what was stored
//	gateway    the gateway refuses; the origin was not asked
//	failed     the gateway says that the origin failed
//	broken     the reply ends before its end
//	any        not looked at
//
// A status may follow, 200 when left out, and #N, the answer of the origin that
// it must be. "eventually" before it: the request is repeated until it is so.
type verdict struct {
	eventually bool
	from       string
	status     int
	n          int
}

var places = []string{"origin", "cache", "stale", "validated", "rescued", "gateway", "failed", "broken", "any"}

// check is one expectation of a field.
type check struct {
	name   string
	absent bool
	value  string
	match  *regexp.Regexp
	ranged bool
	lo, hi int64
}

// readSuite reads all files of testdata.
func readSuite() (*suite, error) {
	files, err := filepath.Glob("testdata/*.cases")
	if err != nil {
		return nil, err
	}
	s := &suite{names: map[string]bool{}}
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		s.section = ""
		for i, line := range strings.Split(string(src), "\n") {
			if err := s.take(filepath.Base(name), i+1, strings.TrimRight(line, " ")); err != nil {
				return nil, fmt.Errorf("%s:%d: %w", name, i+1, err)
			}
		}
	}
	for _, c := range s.cases {
		if err := c.valid(); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", c.file, c.line, err)
		}
	}
	return s, nil
}

func (c *testCase) valid() error {
	if len(c.steps) == 0 || c.steps[0].origin == nil {
		return fmt.Errorf("%s: no request, or no answer before it", c.name)
	}
	for _, st := range c.steps {
		if st.method == "" {
			return fmt.Errorf("%s: an answer without a request", c.name)
		}
		if !slices.Contains(places, st.want.from) {
			return fmt.Errorf("%s, line %d: no verdict is called %q", c.name, st.line, st.want.from)
		}
	}
	return nil
}

func (s *suite) take(file string, n int, line string) error {
	word, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	switch {
	case word == "" || word[0] == '#':
		return nil
	case word == "section":
		s.section = rest
		return nil
	case word == "about":
		s.about = rest
		return nil
	case word == "case":
		_, err := s.begin(file, n, rest)
		return err
	case word == "reused" || word == "asked" || word == "validated":
		return s.pair(file, n, word, rest)
	}
	if len(s.cases) == 0 {
		return fmt.Errorf("%q before the first case", word)
	}
	c := s.cases[len(s.cases)-1]
	if word == "on" {
		c.route = rest
		return nil
	}
	return c.take(n, word, rest)
}

func (s *suite) begin(file string, n int, name string) (*testCase, error) {
	switch {
	case s.section == "":
		return nil, fmt.Errorf("%s stands under no section", name)
	case slug(name) == "" || s.names[file+slug(name)]:
		return nil, fmt.Errorf("a second case %q", name)
	}
	s.names[file+slug(name)] = true
	c := &testCase{file: file, line: n, section: s.section, name: name, about: s.about, route: "plain"}
	s.about = ""
	s.cases = append(s.cases, c)
	return c, nil
}

// pair reads a case of one line.
func (s *suite) pair(file string, n int, word, rest string) error {
	name, fields, ok := strings.Cut(rest, "|")
	if !ok {
		return fmt.Errorf("%s: no fields", word)
	}
	c, err := s.begin(file, n, strings.TrimSpace(name))
	if err != nil {
		return err
	}
	for _, f := range strings.Split(fields, " ++ ") {
		if err := c.take(n, "<", strings.TrimSpace(f)); err != nil {
			return err
		}
	}
	status := strconv.Itoa(c.steps[0].origin.status)
	second := map[string]string{"reused": "cache " + status, "asked": "origin " + status, "validated": "validated " + status}[word]
	if err := c.take(n, ">", "GET = origin "+status); err != nil {
		return err
	}
	if word == "validated" {
		if err := c.take(n, "<", "304"); err != nil {
			return err
		}
	}
	return c.take(n, ">", "GET = "+second)
}

var method = regexp.MustCompile(`^[A-Z]+( |$)`)

// take reads a line of a step.
func (c *testCase) take(n int, word, rest string) (err error) {
	var last *step
	if len(c.steps) > 0 {
		last = c.steps[len(c.steps)-1]
	}
	switch {
	case word == "<":
		// The first line behind a request begins another answer.
		if last == nil || last.method != "" {
			last = &step{origin: &answer{status: 200}}
			c.steps = append(c.steps, last)
		}
		return last.origin.take(unescape(rest))
	case word == ">" && method.MatchString(rest):
		if last == nil || last.method != "" {
			last = &step{}
			c.steps = append(c.steps, last)
		}
		last.line = n
		return last.request(rest)
	case last == nil || last.method == "":
		return fmt.Errorf("%q before a request", word)
	}
	switch word {
	case ">":
		return last.field(rest)
	case "=":
		last.reply, err = addCheck(last.reply, unescape(rest), ":")
	case "%":
		last.status, err = addCheck(last.status, rest, "=")
	case "@":
		last.seen, err = addCheck(last.seen, rest, ":")
	case "~":
		last.refetch++
	default:
		err = fmt.Errorf("a line cannot begin with %q", word)
	}
	return err
}

func (st *step) request(line string) error {
	call, want, ok := strings.Cut(line, " = ")
	if !ok {
		return fmt.Errorf("no verdict in %q", line)
	}
	st.method, st.suffix, _ = strings.Cut(strings.TrimSpace(call), " ")
	st.want.status = 200
	for _, w := range strings.Fields(want) {
		switch {
		case w == "eventually":
			st.want.eventually = true
		case w[0] == '#':
			n, err := strconv.Atoi(w[1:])
			if err != nil {
				return err
			}
			st.want.n = n
		case w[0] >= '0' && w[0] <= '9':
			n, err := strconv.Atoi(w)
			if err != nil {
				return err
			}
			st.want.status = n
		default:
			st.want.from = w
		}
	}
	return nil
}

func (st *step) field(line string) error {
	name, value, ok := cutField(line)
	switch {
	case !ok:
		return fmt.Errorf("field line %q", line)
	case name == ":body":
		st.body = unescape(value)
	case name == "Host":
		st.host = value
	default:
		st.header = append(st.header, gatetest.Field{Name: name, Value: unescape(value)})
	}
	return nil
}

// cutField cuts "Name: value", where the name may begin with a colon.
func cutField(line string) (name, value string, ok bool) {
	at := strings.Index(strings.TrimPrefix(line, ":"), ":")
	if at < 0 {
		return line, "", false
	}
	at += len(line) - len(strings.TrimPrefix(line, ":"))
	return line[:at], strings.TrimSpace(line[at+1:]), true
}

func addCheck(all []check, line, sep string) ([]check, error) {
	var c check
	if name, ok := strings.CutPrefix(line, "!"); ok {
		return append(all, check{name: name, absent: true}), nil
	}
	if sep == ":" {
		var ok bool
		if c.name, c.value, ok = cutField(line); !ok {
			return nil, fmt.Errorf("expectation %q", line)
		}
	} else {
		c.name, c.value, _ = strings.Cut(line, sep)
	}
	if x, ok := strings.CutPrefix(c.value, "~"); ok {
		var err error
		c.match, err = regexp.Compile("^(?:" + x + ")$")
		return append(all, c), err
	}
	if lo, hi, ok := strings.Cut(c.value, ".."); ok {
		var err1, err2 error
		c.lo, err1 = strconv.ParseInt(lo, 10, 64)
		c.hi, err2 = strconv.ParseInt(hi, 10, 64)
		c.ranged = err1 == nil && err2 == nil
	}
	return append(all, c), nil
}

var escape = regexp.MustCompile(`\\t|\\x[0-9a-f]{2}`)

func unescape(s string) string {
	return escape.ReplaceAllStringFunc(s, func(e string) string {
		if e == `\t` {
			return "\t"
		}
		n, _ := strconv.ParseUint(e[2:], 16, 8) // two hex digits
		return string([]byte{byte(n)})
	})
}

var dated = regexp.MustCompile(`\{(date|rfc850|asctime) now(?:([+-])(\d+)([smhd]))?\}`)

// expand writes the path and the dates of a case in s.
func (r *resource) expand(s string) string {
	s = strings.ReplaceAll(s, "{self}", r.path)
	return dated.ReplaceAllStringFunc(s, func(e string) string {
		m := dated.FindStringSubmatch(e)
		n, _ := strconv.Atoi(m[3]) // digits, or nothing
		d := time.Duration(n) * map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[m[4]]
		if m[2] == "-" {
			d = -d
		}
		layout := map[string]string{"date": "Mon, 02 Jan 2006 15:04:05 GMT", "rfc850": "Monday, 02-Jan-06 15:04:05 GMT", "asctime": time.ANSIC}[m[1]]
		return r.at.UTC().Add(d).Format(layout)
	})
}

// holds says what is wrong with the values that a field has, "" when nothing is.
func (c *check) holds(values []string, r *resource) string {
	got, want := strings.Join(values, ", "), r.expand(c.value)
	switch {
	case c.absent:
		if len(values) > 0 {
			return fmt.Sprintf("%s is %q, want none", c.name, got)
		}
		return ""
	case len(values) == 0:
		return fmt.Sprintf("no %s, want %q", c.name, want)
	case c.match != nil:
		if !c.match.MatchString(got) {
			return fmt.Sprintf("%s is %q, want one like %s", c.name, got, c.match)
		}
	case c.ranged:
		if n, err := strconv.ParseInt(got, 10, 64); err != nil || n < c.lo || n > c.hi {
			return fmt.Sprintf("%s is %q, want %d to %d", c.name, got, c.lo, c.hi)
		}
	case got != want:
		return fmt.Sprintf("%s is %q, want %q", c.name, got, want)
	}
	return ""
}
