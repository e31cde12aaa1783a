package telemetry

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// accessMode is the mode of an access log's file: others than its group have no
// business with addresses and paths.
const accessMode = 0o640

// opener knows what an access log's output means.
type opener struct {
	dir            string
	stdout, stderr io.Writer
}

// open returns the sink for stdout, stderr, none or the path of a file.
func (o *opener) open(output string) (*sink, error) {
	switch output {
	case "", "none":
		return &sink{w: io.Discard}, nil
	case "stdout":
		return &sink{w: o.stdout}, nil
	case "stderr":
		return &sink{w: o.stderr}, nil
	}
	path := output
	if !filepath.IsAbs(path) {
		path = filepath.Join(o.dir, path)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, accessMode)
	if err != nil {
		return nil, fmt.Errorf("access log: %w; give a path that can be written, or stdout, stderr or none", err)
	}
	return &sink{w: f, file: f}, nil
}

func isFile(output string) bool {
	switch output {
	case "", "none", "stdout", "stderr":
		return false
	}
	return true
}

// sink is where lines go. One goroutine uses it.
type sink struct {
	w    io.Writer
	file *os.File // to be closed; nil: somebody else's
	torn bool     // the last write ended within a line
}

// write writes whole lines. Behind a write that broke off, the next one first
// ends the torn line, so that only that one is lost to a reader.
func (s *sink) write(lines []byte) error {
	if s.torn {
		if _, err := s.w.Write([]byte{'\n'}); err != nil {
			return err
		}
		s.torn = false
	}
	n, err := s.w.Write(lines)
	if err == nil && n < len(lines) {
		err = io.ErrShortWrite
	}
	if err != nil {
		s.torn = n > 0 && lines[n-1] != '\n'
	}
	return err
}

func (s *sink) close() {
	if s.file != nil {
		// Every write has been reported; what close could add nobody could mend.
		_ = s.file.Close()
	}
}
