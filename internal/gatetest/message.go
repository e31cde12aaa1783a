package gatetest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Field is one header or trailer field, spelled as it came.
type Field struct{ Name, Value string }

// Fields is a header in the order of arrival.
type Fields []Field

// Get returns the first value of a name, without regard to case.
func (f Fields) Get(name string) string {
	for _, x := range f {
		if strings.EqualFold(x.Name, name) {
			return x.Value
		}
	}
	return ""
}

// Values returns every value of a name, in order.
func (f Fields) Values(name string) []string {
	var all []string
	for _, x := range f {
		if strings.EqualFold(x.Name, name) {
			all = append(all, x.Value)
		}
	}
	return all
}

// Has reports whether a name is there.
func (f Fields) Has(name string) bool { return len(f.Values(name)) > 0 }

// Seen is one request as an origin received it.
type Seen struct {
	Raw     []byte // every byte, from the request line to the end of the body
	Method  string
	Target  string
	Header  Fields
	Body    []byte // without framing
	Trailer Fields
	Framing Framing
	Length  int64 // of ByLength
	Conn    int   // which connection it came on, from 0
}

// Framing is how the end of a request's body is told.
type Framing string

// The framings.
const (
	NoBody   Framing = "none"
	ByLength Framing = "length"
	Chunked  Framing = "chunked"
)

// maxBody bounds what an origin keeps of one body.
const maxBody = 64 << 20

// readHead reads a request head. It accepts only what two implementations can
// not read in two ways: CRLF line ends, no obs-fold, no space around names, one
// Host, and at most one of one decimal Content-Length and Transfer-Encoding:
// chunked (RFC 9112 §2.2, §3.2, §5.1, §6). It is written apart from the
// gateway's own parser, so that the two check each other.
func readHead(r *bufio.Reader) (*Seen, error) {
	line, err := readLine(r)
	if err != nil {
		return nil, err
	}
	parts := strings.Split(line, " ")
	if len(parts) != 3 || parts[0] == "" || parts[1] == "" || parts[2] != "HTTP/1.1" {
		return nil, fmt.Errorf("request line %q", line)
	}
	s := &Seen{Method: parts[0], Target: parts[1]}
	for _, c := range []byte(s.Target) {
		if c <= 0x20 || c >= 0x7f {
			return nil, fmt.Errorf("byte %#x in target %q", c, s.Target)
		}
	}
	if s.Header, err = readFields(r); err != nil {
		return nil, err
	}
	return s, s.frame()
}

func (s *Seen) frame() error {
	if n := len(s.Header.Values("Host")); n != 1 {
		return fmt.Errorf("%d Host fields", n)
	}
	lengths := s.Header.Values("Content-Length")
	codings := s.Header.Values("Transfer-Encoding")
	switch {
	case len(lengths) > 0 && len(codings) > 0:
		return errors.New("both Content-Length and Transfer-Encoding")
	case len(lengths) > 1:
		return fmt.Errorf("%d Content-Length fields", len(lengths))
	case len(codings) > 1 || len(codings) == 1 && codings[0] != "chunked":
		return fmt.Errorf("Transfer-Encoding %q", codings)
	case len(codings) == 1:
		s.Framing = Chunked
	case len(lengths) == 1:
		n, err := decimal(lengths[0])
		if err != nil {
			return err
		}
		s.Framing, s.Length = ByLength, n
	default:
		s.Framing = NoBody
	}
	return nil
}

func decimal(s string) (int64, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, fmt.Errorf("length %q", s)
	}
	return strconv.ParseInt(s, 10, 64)
}

func (s *Seen) readBody(r *bufio.Reader) (err error) {
	switch s.Framing {
	case ByLength:
		if s.Length > maxBody {
			return fmt.Errorf("body of %d bytes", s.Length)
		}
		s.Body = make([]byte, s.Length)
		_, err = io.ReadFull(r, s.Body)
	case Chunked:
		err = s.readChunks(r)
	}
	return err
}

func (s *Seen) readChunks(r *bufio.Reader) error {
	for {
		line, err := readLine(r)
		if err != nil {
			return err
		}
		if line == "" || strings.Trim(line, "0123456789abcdefABCDEF") != "" {
			return fmt.Errorf("chunk size %q", line)
		}
		n, err := strconv.ParseInt(line, 16, 64)
		if err != nil || n+int64(len(s.Body)) > maxBody {
			return fmt.Errorf("chunk size %q", line)
		}
		if n == 0 {
			s.Trailer, err = readFields(r)
			return err
		}
		at := len(s.Body)
		s.Body = append(s.Body, make([]byte, n)...)
		if _, err := io.ReadFull(r, s.Body[at:]); err != nil {
			return err
		}
		if line, err := readLine(r); err != nil || line != "" {
			return fmt.Errorf("behind a chunk: %q, %w", line, err)
		}
	}
}

func readFields(r *bufio.Reader) (Fields, error) {
	var all Fields
	for {
		line, err := readLine(r)
		if err != nil || line == "" {
			return all, err
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsFunc(name, notToken) {
			return nil, fmt.Errorf("field line %q", line)
		}
		value = strings.Trim(value, " \t")
		if strings.ContainsFunc(value, func(c rune) bool { return c < 0x20 && c != '\t' || c == 0x7f }) {
			return nil, fmt.Errorf("field value %q", value)
		}
		all = append(all, Field{name, value})
	}
}

func notToken(c rune) bool {
	return c <= 0x20 || c >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, c)
}

// readLine reads a line that ends in CRLF and holds no other CR or LF.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		if line != "" && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return "", err
	}
	body, ok := strings.CutSuffix(line, "\r\n")
	if !ok || strings.ContainsAny(body, "\r\n") {
		return "", fmt.Errorf("line end in %q", line)
	}
	return body, nil
}

// sorted returns f by name, keeping the order of equal names.
func (f Fields) sorted() Fields {
	g := slices.Clone(f)
	slices.SortStableFunc(g, func(a, b Field) int {
		return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name))
	})
	return g
}
