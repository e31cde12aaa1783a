package apikey

import (
	"crypto/sha256"
	"math"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestNewKeysAreReadBack(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id, key, err := New()
		if err != nil {
			t.Fatal(err)
		}
		got, ok := Parse([]byte(key))
		if !ok || string(got) != id || len(key) != Len || len(id) != IDLen || !IsOwn([]byte(key)) || seen[id] || seen[key] {
			t.Fatalf("%s with id %s reads as %s, %v", key, id, got, ok)
		}
		seen[id], seen[key] = true, true
	}
}

// made is a key that is like others have to be: it is in the manual too.
const made = "slk_0123456789AB_" + "0000000000000000000000000000000000000000000_"

func TestTheChecksumIsWhatTheManualSays(t *testing.T) {
	// CRC-32/ISCSI of the bytes before the last `_`, by another implementation.
	want := uint32(0)
	sum := checksum([]byte(strings.TrimSuffix(made, "_")))
	for _, c := range sum {
		want = want*62 + uint32(strings.IndexByte(digits, c))
	}
	const other = 0x98b4941c
	if want != other {
		t.Errorf("%#x, the other says %#x", want, other)
	}
}

func TestEveryOtherSpellingIsRefused(t *testing.T) {
	_, key, err := New()
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(key) {
		for _, c := range []byte("0_z~\x00") {
			if changed := key[:i] + string(c) + key[i+1:]; changed != key {
				if _, ok := Parse([]byte(changed)); ok {
					t.Errorf("%q at %d is accepted", c, i)
				}
			}
		}
		if _, ok := Parse([]byte(key[:i])); ok {
			t.Errorf("cut at %d it is accepted", i)
		}
		for j := range i {
			b := []byte(key)
			if b[i], b[j] = b[j], b[i]; string(b) != key {
				if _, ok := Parse(b); ok {
					t.Errorf("with %d and %d swapped it is accepted", j, i)
				}
			}
		}
	}
	for _, s := range []string{"", "slk_", "SLK_" + key[4:], key + "0", " " + key, key + "\n", strings.Repeat("slk_", 17)[:Len]} {
		if _, ok := Parse([]byte(s)); ok {
			t.Errorf("%q is accepted", s)
		}
	}
}

func TestIsOwn(t *testing.T) {
	for s, want := range map[string]bool{"": false, "slk": false, "slk_": true, "slk_x": true, "SLK_x": false, "xslk_": false} {
		if IsOwn([]byte(s)) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
}

func TestBase62IsThatOfBigNumbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "number")
		want := new(big.Int).SetBytes(b).Text(62) // 0-9a-zA-Z
		want = strings.Map(func(c rune) rune {
			switch {
			case 'a' <= c && c <= 'z':
				return c - 'a' + 'A'
			case 'A' <= c && c <= 'Z':
				return c - 'A' + 'a'
			}
			return c
		}, want)
		want = strings.Repeat("0", secretLen-len(want)) + want
		if got := string(appendBase62(nil, b, secretLen)); got != want {
			t.Fatalf("%x: %s, want %s", b, got, want)
		}
	})
	if most := new(big.Int).Exp(big.NewInt(62), big.NewInt(secretLen), nil); most.BitLen() <= 256 {
		t.Errorf("62^%d has %d bits", secretLen, most.BitLen())
	}
	if math.Pow(62, sumLen) < 1<<32 {
		t.Error("a checksum does not fit")
	}
}

func TestDigestsAreSHA256(t *testing.T) {
	if Digest([]byte("abc")) != sha256.Sum256([]byte("abc")) {
		t.Error("of another key")
	}
	_, key, err := New()
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(key, "_")
	if Fingerprint([]byte(key)) != sha256.Sum256([]byte(parts[2])) {
		t.Error("of one of the gateway's own")
	}
}

func TestReadingDoesNotAllocate(t *testing.T) {
	_, key, err := New()
	if err != nil {
		t.Fatal(err)
	}
	b := []byte(key)
	if n := testing.AllocsPerRun(100, func() {
		_, _ = Parse(b)
		_ = Fingerprint(b)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(made + "000000"))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, ok := Parse(b)
		if !ok {
			return
		}
		if sum := checksum(b[:Len-sumLen-1]); len(id) != IDLen || string(b[Len-sumLen:]) != string(sum[:]) {
			t.Errorf("%q is accepted", b)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	_, key, _ := New()
	k := []byte(key)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := Parse(k); !ok {
			b.Fatal()
		}
	}
}

func BenchmarkFingerprint(b *testing.B) {
	_, key, _ := New()
	k := []byte(key)
	b.ReportAllocs()
	for b.Loop() {
		kept = Fingerprint(k)
	}
}

var kept [sha256.Size]byte // so that the work is not left out
