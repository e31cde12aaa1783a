//go:build linux

package load

import (
	"strings"
	"testing"
)

type answer struct {
	status  int
	length  int64
	closing bool
}

// readAll feeds a stream in pieces of the given size.
func readAll(stream string, piece int) ([]answer, error) {
	var r reader
	var out []answer
	for len(stream) > 0 {
		p := []byte(stream[:min(piece, len(stream))])
		stream = stream[len(p):]
		for len(p) > 0 {
			n, done, err := r.next(p, false)
			if err != nil {
				return out, err
			}
			if done {
				out = append(out, answer{r.status, r.length, r.closing})
			}
			p = p[n:]
		}
	}
	return out, nil
}

func TestReaderReadsResponsesHoweverTheyAreCut(t *testing.T) {
	long := strings.Repeat("x", 5000)
	cases := []struct {
		name, stream string
		want         []answer
	}{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", []answer{{200, 5, false}}},
		{"empty", "HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n", []answer{{200, 0, false}}},
		{"two", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nbc", []answer{{200, 1, false}, {404, 2, false}}},
		{"no body", "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n", []answer{{204, 0, false}}},
		{"interim", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + long, []answer{{200, 5000, false}}},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1388;x=y\r\n" + long + "\r\n0\r\nT: v\r\n\r\n", []answer{{200, 5005, false}}},
		{"close", "HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 1\r\n\r\na", []answer{{200, 1, true}}},
		{"1.0", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", []answer{{200, 1, true}}},
		{"chunked twice", strings.Repeat("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", 2), []answer{{200, 1, false}, {200, 1, false}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for piece := 1; piece <= len(c.stream); piece++ {
				got, err := readAll(c.stream, piece)
				if err != nil || len(got) != len(c.want) {
					t.Fatalf("pieces of %d: %v, %v; want %v", piece, got, err, c.want)
				}
				for i := range got {
					if got[i] != c.want[i] {
						t.Fatalf("pieces of %d: %v, want %v", piece, got, c.want)
					}
				}
			}
		})
	}
}

func TestReaderRefusesWhatHasNoClearLength(t *testing.T) {
	cases := []struct {
		name, stream string
		want         error
	}{
		{"close-delimited", "HTTP/1.1 200 OK\r\nX: y\r\n\r\nbody", errFrames},
		{"not HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n", errHead},
		{"bad length", "HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\n", errHead},
		{"bad chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", errChunk},
		{"chunk without end", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", errChunk},
		{"long head", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 20000), errLong},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, piece := range []int{1, 7, len(c.stream)} {
				if c.want == errLong && piece == len(c.stream) {
					continue // no piece is longer than a read buffer
				}
				if _, err := readAll(c.stream, piece); err != c.want {
					t.Errorf("pieces of %d: error %v, want %v", piece, err, c.want)
				}
			}
		})
	}
}

func TestReadingAResponseAllocatesNothing(t *testing.T) {
	msg := []byte("HTTP/1.1 200 OK\r\nServer: x\r\nDate: Mon, 02 Jan 2006 15:04:05 GMT\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nhello")
	var r reader
	if n := testing.AllocsPerRun(100, func() { _, _, _ = r.next(msg, false) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
