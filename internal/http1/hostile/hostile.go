// Package hostile is a conformance table: HTTP/1.1 messages that are malformed,
// or that two parsers could read in two ways, with the verdict each must get and
// the section of the RFC that says so. Where RFC 9110 and RFC 9112 leave a
// choice, the table has the strict one. It is read by tests only: those of the
// codec, and those that send each message to a running gateway and look at the
// bytes that an origin receives.
//
// # The files
//
// requests/*.txt and responses/*.txt hold cases like this one:
//
//	case two lengths that differ
//	rfc 9112 §6.3
//	    POST / HTTP/1.1\r\n
//	    Host: a.example\r\n
//	    Content-Length: 5\r\n
//	    Content-Length: 6\r\n
//	    \r\n
//	    hello!
//	want 400
//
// Lines indented by four spaces are the message: what stands behind the four
// spaces, one line after the other, without the file's own line ends. \r, \n, \t,
// \\ and \xHH are escapes, and \repeat{3}{ab} is ababab. A line may not end in
// white space (write \x20), nor hold a tab. Lines that begin with # are comments.
//
// A verdict is one of
//
//	want 400              refused, with that status, and the connection closed
//	want 400 in body      the head is in order; its body is not
//	want wait             unfinished: neither refused nor forwarded
//	want forward none     forwarded; the framing read is none, length, chunked,
//	                      close (responses) or upgraded (101)
//
// and may be followed by what must hold for a message that is forwarded:
//
//	body hello            the body without its framing; none when left out
//	host b.example        who is asked, in lower case, without the port
//	target /x             the request target as received
//	absent X_Key, Te      names that must not reach the other side
//	gateway 405           the codec reads it, but the gateway refuses it so
//
// A response may say `method HEAD` behind its rfc line: what was asked; GET when
// left out.
package hostile

import (
	"embed"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// Case is one message and what must become of it.
type Case struct {
	Name   string // one among all cases
	Pos    string // file:line, for failures
	RFC    string // number and section: "9112 §6.3"
	Method string // of responses: the method that was asked with
	Raw    []byte
	Want   Verdict
}

// Verdict is what must become of a message. Exactly one of Status, Wait and
// Framing is set.
type Verdict struct {
	Status  int    // of the refusal; 0: not refused
	InBody  bool   // the head is in order, the refusal comes with the body
	Wait    bool   // more bytes are awaited, and nothing is forwarded until then
	Framing string // as read: none, length, chunked, close, upgraded

	// What must hold for a message that is forwarded.
	Body    []byte
	Host    string   // "": not said
	Target  string   // "": not said
	Absent  []string // names that must not reach the other side
	Gateway int      // status with which the gateway refuses what the codec accepts; 0: it does not
}

//go:embed requests responses
var files embed.FS

// Cases returns the hostile requests, in the order of the files.
func Cases() ([]Case, error) { return load(files, "requests") }

// Responses returns the hostile responses, in the order of the files.
func Responses() ([]Case, error) { return load(files, "responses") }

func load(fsys fs.FS, dir string) ([]Case, error) {
	names, err := fs.Glob(fsys, dir+"/*.txt")
	if err != nil {
		return nil, err
	}
	var all []Case
	seen := map[string]string{}
	for _, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		cases, err := parse(name, string(text))
		if err != nil {
			return nil, err
		}
		for _, c := range cases {
			if at, ok := seen[c.Name]; ok {
				return nil, fmt.Errorf("%s: case %q is there already, at %s", c.Pos, c.Name, at)
			}
			seen[c.Name] = c.Pos
		}
		all = append(all, cases...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no case in %s/*.txt", dir)
	}
	return all, nil
}

// parse reads the cases of one file.
func parse(name, text string) ([]Case, error) {
	var all []Case
	var c *Case
	finish := func() error {
		if c == nil {
			return nil
		}
		return c.complete()
	}
	for i, line := range strings.Split(text, "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		pos := fmt.Sprintf("%s:%d", name, i+1)
		var err error
		switch title, ok := strings.CutPrefix(line, "case "); {
		case strings.TrimRight(line, " \t\r") != line || strings.Contains(line, "\t"):
			err = fmt.Errorf(`white space at the end, or a tab: write \x20 and \t`)
		case ok:
			if err := finish(); err != nil {
				return nil, err
			}
			all = append(all, Case{Name: title, Pos: pos, Method: "GET"})
			c = &all[len(all)-1]
		case c == nil:
			err = fmt.Errorf("a line outside a case")
		default:
			err = c.line(line)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", pos, err)
		}
	}
	return all, finish()
}

// line takes in one line of a case.
func (c *Case) line(line string) error {
	if piece, ok := strings.CutPrefix(line, "    "); ok {
		b, err := unescape(piece)
		c.Raw = append(c.Raw, b...)
		return err
	}
	key, value, _ := strings.Cut(line, " ")
	if value == "" {
		return fmt.Errorf("%q has no value", key)
	}
	w := &c.Want
	var err error
	switch key {
	case "rfc":
		c.RFC = value
	case "method":
		c.Method = value
	case "want":
		err = w.want(value)
	case "body":
		w.Body, err = unescape(value)
	case "host":
		w.Host = value
	case "target":
		w.Target = value
	case "absent":
		w.Absent = strings.Split(value, ", ")
	case "gateway":
		w.Gateway, err = strconv.Atoi(value)
	default:
		err = fmt.Errorf("%q is none of rfc, method, want, body, host, target, absent, gateway", key)
	}
	return err
}

func (w *Verdict) want(text string) error {
	if w.set() {
		return fmt.Errorf("a second verdict")
	}
	if framing, ok := strings.CutPrefix(text, "forward "); ok {
		switch framing {
		case "none", "length", "chunked", "close", "upgraded":
			w.Framing = framing
			return nil
		}
		return fmt.Errorf("%q is no framing", framing)
	}
	if text == "wait" {
		w.Wait = true
		return nil
	}
	status, inBody := strings.CutSuffix(text, " in body")
	n, err := strconv.Atoi(status)
	if err != nil || n < 400 || n > 599 {
		return fmt.Errorf("%q is no verdict", text)
	}
	w.Status, w.InBody = n, inBody
	return nil
}

func (w *Verdict) set() bool { return w.Status != 0 || w.Wait || w.Framing != "" }

func (c *Case) complete() error {
	forwarded := c.Want.Framing != ""
	about := c.Want.Body != nil || c.Want.Host != "" || c.Want.Target != "" || c.Want.Absent != nil || c.Want.Gateway != 0
	switch {
	case c.RFC == "":
		return fmt.Errorf("%s: case %q has no rfc", c.Pos, c.Name)
	case len(c.Raw) == 0:
		return fmt.Errorf("%s: case %q has no message", c.Pos, c.Name)
	case !c.Want.set():
		return fmt.Errorf("%s: case %q has no verdict", c.Pos, c.Name)
	case !forwarded && about:
		return fmt.Errorf("%s: case %q is not forwarded, so nothing more holds for it", c.Pos, c.Name)
	}
	return nil
}

// unescape reads \r \n \t \\ \xHH and \repeat{N}{text}.
func unescape(s string) ([]byte, error) {
	var out []byte
	for s != "" {
		at := strings.IndexByte(s, '\\')
		if at < 0 {
			return append(out, s...), nil
		}
		out = append(out, s[:at]...)
		s = s[at+1:]
		var b []byte
		var err error
		if b, s, err = escape(s); err != nil {
			return nil, err
		}
		out = append(out, b...)
	}
	return out, nil
}

// escape reads what stands behind a backslash, and returns what follows it.
func escape(s string) (b []byte, rest string, err error) {
	if rest, ok := strings.CutPrefix(s, "repeat{"); ok {
		return repeat(rest)
	}
	switch {
	case strings.HasPrefix(s, "r"):
		return []byte{'\r'}, s[1:], nil
	case strings.HasPrefix(s, "n"):
		return []byte{'\n'}, s[1:], nil
	case strings.HasPrefix(s, "t"):
		return []byte{'\t'}, s[1:], nil
	case strings.HasPrefix(s, `\`):
		return []byte{'\\'}, s[1:], nil
	case strings.HasPrefix(s, "x") && len(s) >= 3:
		n, err := strconv.ParseUint(s[1:3], 16, 8)
		if err != nil {
			return nil, "", fmt.Errorf(`\%s is no byte`, s[:3])
		}
		return []byte{byte(n)}, s[3:], nil
	}
	return nil, "", fmt.Errorf(`a backslash is followed by none of r n t \ xHH repeat{N}{text}`)
}

// maxRepeat bounds the bytes of one repeat form.
const maxRepeat = 1 << 20

func repeat(s string) ([]byte, string, error) {
	count, rest, ok := strings.Cut(s, "}{")
	text, rest, closed := strings.Cut(rest, "}")
	n, err := strconv.Atoi(count)
	if !ok || !closed || err != nil || n < 1 {
		return nil, "", fmt.Errorf(`write \repeat{N}{text}, N from 1`)
	}
	unit, err := unescape(text)
	if err != nil {
		return nil, "", err
	}
	if n*len(unit) > maxRepeat {
		return nil, "", fmt.Errorf("%d bytes repeated %d times are too many", len(unit), n)
	}
	return []byte(strings.Repeat(string(unit), n)), rest, nil
}
