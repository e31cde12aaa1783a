package auth

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"io"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-gateway/sluice/internal/auth/httpsig"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

// pieces is a body that comes in pieces, all in the same memory, as a connection's
// does. ready says how many are there.
type pieces struct {
	all      [][]byte
	together bool // io.EOF comes with the last one
	failure  error
	ready    int
	memory   []byte
	canceled bool
}

func (p *pieces) Next() ([]byte, error) {
	if len(p.all) == 0 {
		if p.failure != nil {
			return nil, p.failure
		}
		return nil, io.EOF
	}
	for i := range p.memory {
		p.memory[i] = '!' // the last piece does not hold any more
	}
	p.memory = append(p.memory[:0], p.all[0]...)
	p.all = p.all[1:]
	p.ready--
	if len(p.all) == 0 && p.together {
		return p.memory, io.EOF
	}
	return p.memory, nil
}

func (p *pieces) Ready() bool  { return p.ready > 0 }
func (p *pieces) Close() error { return nil }
func (p *pieces) Cancel()      { p.canceled = true }

func sha(body []byte) []httpsig.Digest {
	a, b := sha256.Sum256(body), sha512.Sum512(body)
	return []httpsig.Digest{{Algorithm: "sha-256", Sum: a[:]}, {Algorithm: "sha-512", Sum: b[:]}}
}

// Whatever the pieces are, a body that is the signed one comes through as it is, and of
// one that is not, the end never comes.
func TestDigestBody(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 1, 40), 0, 8).Draw(t, "pieces")
		whole := bytes.Join(all, nil)
		known, wrong := rapid.Bool().Draw(t, "length known"), rapid.Bool().Draw(t, "another body")
		signed := whole
		if wrong {
			signed = append(bytes.Clone(whole), 'x')
			if len(whole) > 0 && rapid.Bool().Draw(t, "changed") {
				signed = bytes.Clone(whole)
				signed[rapid.IntRange(0, len(whole)-1).Draw(t, "at")] ^= 1
			}
		}
		length := int64(exchange.Unknown)
		if known {
			length = int64(len(whole))
		}
		source := &pieces{all: all, together: rapid.Bool().Draw(t, "together"), ready: rapid.IntRange(0, 9).Draw(t, "ready")}
		b := newDigestBody(source, sha(signed), length)
		var got []byte
		for {
			if rapid.Bool().Draw(t, "asks") {
				b.Ready()
			}
			piece, err := b.Next()
			if len(piece) == 0 && err == nil {
				t.Fatal("an empty piece")
			}
			got = append(got, piece...)
			if err == io.EOF {
				if wrong || !bytes.Equal(got, whole) {
					t.Fatalf("passed %q of %q", got, whole)
				}
				break
			}
			if err != nil {
				if !wrong || codeOf(err) != "unauthenticated" || !errors.Is(err, errBody) {
					t.Fatal(err)
				}
				break
			}
			if wrong && len(got) == len(whole) {
				t.Fatal("all of it has passed")
			}
		}
		if wrong && len(whole) > 0 && len(got) >= len(whole) || wrong && !errors.Is(b.failure, errBody) {
			t.Fatalf("passed %d of %d bytes", len(got), len(whole))
		}
		piece, err := b.Next()
		if len(piece) > 0 || wrong != (codeOf(err) == "unauthenticated") || !wrong && err != io.EOF {
			t.Fatalf("behind its end: %q, %v", piece, err)
		}
	})
}

func TestDigestBodyDoesNotWaitWhenItIsReady(t *testing.T) {
	source := &pieces{all: [][]byte{[]byte("a"), []byte("b"), []byte("c")}, together: true}
	b := newDigestBody(source, sha([]byte("abc")), exchange.Unknown)
	for _, c := range []struct {
		ready int
		want  bool
	}{{0, false}, {1, false}, {2, true}} { // one is kept back
		source.ready = c.ready
		source.all = [][]byte{[]byte("a"), []byte("b"), []byte("c")}
		b = newDigestBody(source, sha([]byte("abc")), exchange.Unknown)
		if b.Ready() != c.want {
			t.Errorf("%d pieces are there: ready is %v", c.ready, !c.want)
		}
	}
	if piece, err := b.Next(); string(piece) != "a" || err != nil {
		t.Errorf("%q, %v", piece, err)
	}
	b.Cancel()
	if !source.canceled || b.Close() != nil {
		t.Error("the source is not told")
	}
}

func TestDigestBodyPassesFailuresOn(t *testing.T) {
	gone := &exchange.Error{Code: exchange.ClientGone}
	for _, length := range []int64{exchange.Unknown, 10} {
		b := newDigestBody(&pieces{all: [][]byte{[]byte("a")}, failure: gone}, sha([]byte("a")), length)
		var err error
		for err == nil {
			_, err = b.Next()
		}
		if err != error(gone) {
			t.Errorf("%v", err)
		}
		if _, err := b.Next(); err != error(gone) {
			t.Errorf("again: %v", err)
		}
	}
}
