package http1_test

import (
	"bytes"
	"testing"

	"github.com/sluice-gateway/sluice/internal/http1"
)

// headEnd is what HeadEnd must find, said plainly: the first LF with another
// one, or CR LF, behind it.
func headEnd(b []byte) int {
	for i, c := range b {
		switch {
		case c != '\n':
		case bytes.HasPrefix(b[i+1:], []byte("\n")):
			return i + 2
		case bytes.HasPrefix(b[i+1:], []byte("\r\n")):
			return i + 3
		}
	}
	return 0
}

// resumed looks for the end of a head that arrives as cut says.
func resumed(t testing.TB, raw []byte, cut cuts) int {
	t.Helper()
	from := 0
	for have := 0; ; {
		end, next := http1.HeadEnd(raw[:have:have], from)
		if end > 0 {
			return end
		}
		if next < from || next > have {
			t.Fatalf("%q: of %d bytes, from %d, it goes on at %d", raw, have, from, next)
		}
		from = next
		if have == len(raw) {
			return 0
		}
		have += cut(len(raw) - have)
	}
}

// sameEnd checks that b's end is found, at once and resumed.
func sameEnd(t testing.TB, b []byte, cut cuts) {
	t.Helper()
	want := headEnd(b)
	if end, _ := http1.HeadEnd(b, 0); end != want {
		t.Fatalf("%q: end %d, want %d", b, end, want)
	}
	if end := resumed(t, b, cut); end != want {
		t.Fatalf("%q: resumed, end %d, want %d", b, end, want)
	}
}

// Every text of up to nine bytes that are CR, LF or another.
func TestHeadEndIsTheFirstEmptyLine(t *testing.T) {
	text := make([]byte, 0, 9)
	var grow func()
	seen := 0
	grow = func() {
		seen++
		sameEnd(t, text, singly)
		sameEnd(t, text, bySeed([]byte{2, 1, 3}))
		if len(text) == cap(text) {
			return
		}
		for _, c := range []byte("\r\na") {
			text = append(text, c)
			grow()
			text = text[:len(text)-1]
		}
	}
	grow()
	if seen != 29524 { // (3^10-1)/2
		t.Errorf("%d texts", seen)
	}
}

func TestHeadEndOfTheTables(t *testing.T) {
	for _, c := range requests(t) {
		sameEnd(t, c.Raw, bySeed([]byte{1, 100, 3}))
	}
}

func FuzzHeadEnd(f *testing.F) {
	for _, c := range requests(f) {
		f.Add(c.Raw, []byte{1, 2, 30})
	}
	f.Fuzz(func(t *testing.T, raw, seed []byte) { sameEnd(t, raw, bySeed(seed)) })
}
