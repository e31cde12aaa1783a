package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// Chain is what has been read of a chain of lines: each line's hash fits its content,
// its number is one more than that of the line before, and it names that line's hash.
// The zero value is one before its first file. It shows that nothing was changed,
// removed or put in between the first line and the last. It cannot show that lines at
// the end are missing, nor that somebody who can write the file has not made
// all of it anew: for that the last hash has to be known from elsewhere.
type Chain struct {
	Lines int    // of all files
	First uint64 // number of the first line; 1: the chain is there from its beginning
	Last  uint64 // number of the last line
	Hash  string // of the last line, 64 hex digits
}

// Broken is the first line that does not hold.
type Broken struct {
	Line int    // in its file, from 1
	Why  string // what is wrong with it
}

// Error says which line it is and what is wrong.
func (b *Broken) Error() string { return fmt.Sprintf("line %d %s", b.Line, b.Why) }

// Read reads the next file of the chain to its end. The error is a *Broken, or what r
// says.
func (c *Chain) Read(r io.Reader) error {
	lines := bufio.NewReaderSize(r, maxLine)
	for n := 1; ; n++ {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0:
			return nil
		case errors.Is(err, io.EOF):
			return &Broken{n, "has no end: it was being written, or was cut off; a gateway that starts moves it to a file of its own and says so"}
		case errors.Is(err, bufio.ErrBufferFull):
			return &Broken{n, "is too long to be a line of an audit log"}
		case err != nil:
			return fmt.Errorf("line %d cannot be read: %w", n, err)
		}
		if why := c.add(line[:len(line)-1]); why != "" {
			return &Broken{n, why}
		}
	}
}

// add takes the next line; what is wrong with it is told in words.
func (c *Chain) add(line []byte) (wrong string) {
	p, wrong := parse(line)
	switch {
	case wrong != "":
		return wrong
	case c.Lines == 0 && p.seq == 1 && p.prev != first:
		return "is number 1 and names a line before it"
	case c.Lines == 0 && (p.seq == 0 || p.seq > 1 && p.prev == first):
		return "begins a chain and does not have the number 1"
	case c.Lines == 0:
		c.First = p.seq
	case p.seq != c.Last+1:
		return fmt.Sprintf("has the number %d behind %d: lines are missing, or in the wrong order", p.seq, c.Last)
	case p.prev != c.Hash:
		return fmt.Sprintf("does not follow line number %d as it stands: that one was replaced", c.Last)
	}
	c.Lines++
	c.Last, c.Hash = p.seq, p.hash
	return ""
}

// Verify checks a file by itself and returns how many of its lines hold. The error
// names the first that does not.
func Verify(r io.Reader) (lines int, err error) {
	var c Chain
	err = c.Read(r)
	return c.Lines, err
}
