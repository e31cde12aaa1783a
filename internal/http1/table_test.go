package http1_test

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/exchange"
	"github.com/sluice-gateway/sluice/internal/http1"
	"github.com/sluice-gateway/sluice/internal/http1/hostile"
)

// framings are the table's words for what describeFraming says.
var framings = map[string]string{
	"none": "none", "length": "length", "chunked": "chunked", "close": "until close", "upgraded": "upgraded",
}

func requests(t testing.TB) []hostile.Case {
	t.Helper()
	all, err := hostile.Cases()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func responses(t testing.TB) []hostile.Case {
	t.Helper()
	all, err := hostile.Responses()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestHostileRequestsGetTheirVerdict(t *testing.T) {
	for _, c := range requests(t) {
		t.Run(c.Name, func(t *testing.T) {
			m := readRequest(c.Raw, atOnce, usual)
			judge(t, &c, m)
			if m.err != nil {
				if m.err.Side != exchange.Client || !m.err.Close || m.err.Detail == "" {
					t.Errorf("the refusal is %+v: it must be the client's, close the connection, and say why", m.err)
				}
				return
			}
			_, start, _ := strings.Cut(m.head, " ")
			target, _, _ := strings.Cut(start, " ")
			if c.Want.Target != "" && target != c.Want.Target {
				t.Errorf("%s: target %q, want %q", c.Pos, target, c.Want.Target)
			}
			if c.Want.Host != "" && !strings.Contains(m.head, `, host "`+c.Want.Host+`", `) {
				t.Errorf("%s: want host %q in\n%s", c.Pos, c.Want.Host, m.head)
			}
			if strings.Contains(m.head, ", upgrade ") {
				m.sent += "Upgrade: from what was read\r\n"
			}
			absent(t, &c, m.sent+m.tail)
		})
	}
}

func TestHostileResponsesGetTheirVerdict(t *testing.T) {
	for _, c := range responses(t) {
		t.Run(c.Name, func(t *testing.T) {
			m := readResponse(c.Raw, atOnce, usual, c.Method)
			judge(t, &c, m)
			if e := m.err; e != nil {
				if e.Side != exchange.Upstream || e.Code != exchange.BadUpstreamResponse || !e.Close || e.Cause == nil ||
					e.ProxyError == "" || e.Retry || e.Detail != "" {
					t.Errorf("the failure is %+v: it must be the upstream's, close the connection, have a cause and a "+
						"proxy error, allow no retry, and tell the client nothing", e)
				}
				return
			}
			absent(t, &c, m.sent+m.tail)
		})
	}
}

// judge compares what was read with the verdict.
func judge(t *testing.T, c *hostile.Case, m message) {
	t.Helper()
	w := &c.Want
	switch {
	case w.Status != 0:
		if m.err == nil || m.err.HTTPStatus() != w.Status || m.inBody != w.InBody {
			t.Errorf("%s: got %v (%v), want %d, in body: %v (RFC %s)\n%s", c.Pos, m, m.err, w.Status, w.InBody, c.RFC, m.head)
		}
	case w.Wait:
		if !m.wait {
			t.Errorf("%s: got %v (%v), want wait (RFC %s)\n%s", c.Pos, m, m.err, c.RFC, m.head)
		}
	default:
		_, framing, _ := strings.Cut("\n"+m.head, "\n"+framings[w.Framing])
		if m.err != nil || framing == "" || framing[0] != ',' && framing[0] != ' ' {
			t.Errorf("%s: got %v (%v), want forward %s (RFC %s)\n%s", c.Pos, m, m.err, w.Framing, c.RFC, m.head)
			return
		}
		if w.Gateway == 0 && (!m.whole || m.body != string(w.Body)) {
			t.Errorf("%s: body %q, whole: %v, want %q", c.Pos, m.body, m.whole, w.Body)
		}
	}
}

func absent(t *testing.T, c *hostile.Case, sent string) {
	t.Helper()
	for _, name := range c.Want.Absent {
		if hasField(sent, name) {
			t.Errorf("%s: %s is passed on:\n%s", c.Pos, name, sent)
		}
	}
}

// What is forwarded is written afresh, so that another parser reads one message
// with the same body in it and nothing behind.
func TestHostileRequestsAreUnambiguousWhenForwarded(t *testing.T) {
	seen := 0
	for _, c := range requests(t) {
		if c.Want.Framing == "" || c.Want.Gateway != 0 {
			continue
		}
		seen++
		out := forward(t, &c)
		r := bufio.NewReader(bytes.NewReader(out))
		req, err := http.ReadRequest(r)
		if err != nil {
			t.Errorf("%s: %v\n%q", c.Pos, err, out)
			continue
		}
		body, err := io.ReadAll(req.Body)
		if err != nil || !bytes.Equal(body, c.Want.Body) {
			t.Errorf("%s: body %q, %v, want %q\n%q", c.Pos, body, err, c.Want.Body, out)
		}
		if rest, _ := io.ReadAll(r); len(rest) > 0 {
			t.Errorf("%s: %q is behind the message", c.Pos, rest)
		}
	}
	if seen < 50 {
		t.Errorf("only %d cases are forwarded", seen)
	}
}

// forward reads the message of c and writes it as an upstream would get it.
func forward(t *testing.T, c *hostile.Case) []byte {
	t.Helper()
	var r exchange.Request
	n, f, err := http1.ParseRequest(c.Raw, usual, &r)
	if err != nil {
		t.Fatalf("%s: %v", c.Pos, err)
	}
	out := http1.AppendRequestLine(nil, r.Method, r.Target)
	out = http1.AppendHeaderExcept(out, &r.Header, http1.SkipOf(exchange.Host))
	out = http1.AppendField(out, []byte("Host"), r.Authority)
	out = http1.AppendFraming(out, f)
	out = append(out, "\r\n"...)
	var d http1.Decoder
	d.Reset(f, exchange.Client, usual, &r.Trailer)
	for b := c.Raw[n:]; ; {
		piece, n, err := d.Next(b)
		b = b[n:]
		switch {
		case len(piece) > 0 && f.Kind == http1.Chunked:
			out = http1.AppendChunkHead(out, len(piece))
			out = append(append(out, piece...), "\r\n"...)
		default:
			out = append(out, piece...)
		}
		if err == io.EOF {
			if f.Kind == http1.Chunked {
				out = http1.AppendLastChunk(out, &r.Trailer)
			}
			return out
		}
		if err != nil {
			t.Fatalf("%s: %v", c.Pos, err)
		}
	}
}

// A message means the same in whatever pieces it arrives.
func TestHostileMessagesInPiecesGetTheSameVerdict(t *testing.T) {
	for _, c := range requests(t) {
		whole := readRequest(c.Raw, atOnce, usual)
		for name, cut := range manners(len(c.Raw)) {
			sameReading(t, &c, name, readRequest(c.Raw, cut, usual), whole)
		}
	}
	for _, c := range responses(t) {
		whole := readResponse(c.Raw, atOnce, usual, c.Method)
		for name, cut := range manners(len(c.Raw)) {
			sameReading(t, &c, name, readResponse(c.Raw, cut, usual, c.Method), whole)
		}
	}
}

// manners are ways in which n bytes can arrive.
func manners(n int) map[string]cuts {
	if n > 2000 {
		return map[string]cuts{"in large pieces": bySeed([]byte{255, 1, 254, 253})}
	}
	return map[string]cuts{"singly": singly, "in sevens": bySeed([]byte{7}), "unevenly": bySeed([]byte{1, 200, 2, 63, 5})}
}

func sameReading(t *testing.T, c *hostile.Case, name string, got, want message) {
	t.Helper()
	if got.String() != want.String() || got.head != want.head || got.rest != want.rest || got.sent != want.sent || got.tail != want.tail ||
		want.err == nil && got.body != want.body {
		t.Errorf("%s: %s, it is read as %v %q %q, at once as %v %q %q", c.Pos, name, got, got.head, got.body, want, want.head, want.body)
	}
}

// Only the bytes that are taken are read: what is behind them changes nothing,
// and a head that is cut anywhere is unfinished.
func TestHeadsAreReadToTheirEndAndNoFurther(t *testing.T) {
	for _, c := range requests(t) {
		if len(c.Raw) > 2000 {
			continue
		}
		var r exchange.Request
		n, f, err := http1.ParseRequest(c.Raw, usual, &r)
		if err != nil {
			continue
		}
		want := describeRequest(&r, f)
		for k := range n {
			var part exchange.Request
			if n, _, err := http1.ParseRequest(c.Raw[:k:k], usual, &part); err != http1.ErrIncomplete || n != 0 {
				t.Errorf("%s: %d of %d bytes: %d taken, %v", c.Pos, k, len(c.Raw), n, err)
			}
		}
		for _, tail := range []string{"\r\n\r\n", "\n\n", "X: 1\r\n\r\n", "\x00", strings.Repeat("A", 64)} {
			b := append(c.Raw[:n:n], tail...)
			var r exchange.Request
			m, f, err := http1.ParseRequest(b, usual, &r)
			for i := n; i < len(b); i++ {
				b[i] = 'Z'
			}
			if got := describeRequest(&r, f); m != n || err != nil || got != want {
				t.Errorf("%s: with %q behind: %d taken, %v\n%s", c.Pos, tail, m, err, got)
			}
		}
	}
}
