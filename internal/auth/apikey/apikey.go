// Package apikey makes and reads the gateway's own API keys:
//
//	slk_<id>_<secret>_<checksum>
//
// The id is 12 characters that name the key and are no secret. The secret is 256
// random bits, 43 characters. The checksum is the CRC-32C (Castagnoli, RFC 9260
// appendix A) of everything that stands before the last `_`, 6 characters. It is no
// protection: with it a key that was mistyped or made up is told from one that may
// exist without a look-up, and scanners find keys that were published by mistake
// without false alarms. CRC-32C, because processors compute it: 11 ns for a key
// instead of 37.
//
// All three are base 62 with the digits 0-9A-Za-z, the most significant first, and
// of fixed length, so that a key has 67 bytes, no other way of writing it, and is
// selected whole by a double click.
package apikey

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"math/bits"
)

// Prefix is what all keys begin with.
const Prefix = "slk_"

// The lengths of the parts of a key, in bytes.
const (
	IDLen     = 12
	secretLen = 43 // the least n with 62ⁿ ≥ 2²⁵⁶
	sumLen    = 6  // 62⁶ > 2³²
	Len       = len(Prefix) + IDLen + 1 + secretLen + 1 + sumLen
)

const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// values has the value of each byte as a digit, and noDigit of those that are none.
var values = func() (t [256]uint8) {
	for i := range t {
		t[i] = noDigit
	}
	for i, c := range []byte(digits) {
		t[c] = uint8(i)
	}
	return t
}()

const noDigit = 1 << 7

// New makes a key. The error is that of the system's random numbers.
func New() (id, key string, err error) {
	var random [16 + 32]byte
	if _, err := rand.Read(random[:]); err != nil {
		return "", "", err
	}
	b := make([]byte, 0, Len)
	b = append(b, Prefix...)
	// Of 128 bits the 12 lowest digits of base 62: uniform but for 2⁻⁵⁶.
	b = appendBase62(b, random[:16], IDLen)
	id = string(b[len(Prefix):])
	b = append(b, '_')
	b = appendBase62(b, random[16:], secretLen)
	sum := checksum(b)
	b = append(b, '_')
	b = append(b, sum[:]...)
	return id, string(b), nil
}

// appendBase62 appends the n lowest digits of a number that is big-endian and a
// multiple of 8 bytes, at most 32 long.
func appendBase62(to, number []byte, n int) []byte {
	var words [4]uint64
	w := words[:len(number)/8]
	for i := range w {
		w[i] = binary.BigEndian.Uint64(number[8*i:])
	}
	start := len(to)
	to = append(to, make([]byte, n)...)
	for i := len(to) - 1; i >= start; i-- {
		rest := uint64(0)
		for j := range w {
			w[j], rest = bits.Div64(rest, w[j], uint64(len(digits)))
		}
		to[i] = digits[rest]
	}
	return to
}

// checksum is the last part of a key that begins with b.
func checksum(b []byte) (sum [sumLen]byte) {
	c := crc32.Checksum(b, castagnoli)
	for i := sumLen - 1; i >= 0; i-- {
		sum[i] = digits[c%uint32(len(digits))]
		c /= uint32(len(digits))
	}
	return sum
}

// IsOwn reports whether a key claims to be one of the gateway's own.
func IsOwn(key []byte) bool {
	return len(key) >= len(Prefix) && string(key[:len(Prefix)]) == Prefix
}

// Parse returns the id of a key; ok is false when it has another shape or the
// checksum is wrong. It does not allocate: the id is a part of key.
func Parse(key []byte) (id []byte, ok bool) {
	const second, third = len(Prefix) + IDLen, Len - sumLen - 1
	if len(key) != Len || !IsOwn(key) || key[second] != '_' || key[third] != '_' {
		return nil, false
	}
	// Nothing here depends on the secret, so it may end early. What the secret's bytes
	// are the digest tells.
	sum, none := uint64(0), uint8(0)
	for _, c := range key[Len-sumLen : Len] {
		sum = sum*uint64(len(digits)) + uint64(values[c])
		none |= values[c]
	}
	for _, c := range key[len(Prefix):second] {
		none |= values[c]
	}
	if none&noDigit != 0 || sum != uint64(crc32.Checksum(key[:third], castagnoli)) {
		return nil, false
	}
	return key[len(Prefix):second], true
}

// Digest is the SHA-256 of a key, whatever its shape: what a configuration holds of
// it. Keys are random, so that neither salt nor a slow hash would make them harder to
// guess.
func Digest(key []byte) [sha256.Size]byte { return sha256.Sum256(key) }

// Fingerprint is what is kept of one of the gateway's own keys, for which Parse is
// true: the SHA-256 of its secret alone, which stands in one piece and is done in one
// step: 97 ns instead of 152 for the whole key. That the id is the right one is left to
// be compared.
func Fingerprint(key []byte) [sha256.Size]byte {
	const secret = len(Prefix) + IDLen + 1
	return sha256.Sum256(key[secret : secret+secretLen])
}
