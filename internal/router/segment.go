package router

import (
	"encoding/binary"
	"math/bits"
)

// A segment is scanned and hashed in one pass, eight bytes at a time. The table
// that the hash is for is the operator's and not the client's, so it need not
// resist chosen keys, only tell usual ones apart; what it finds is compared
// whole.

const (
	ones    = 0x0101010101010101
	highs   = 0x8080808080808080
	slashes = '/' * ones
	mulA    = 0x9E3779B97F4A7C15
	mulB    = 0xD6E8FEB86659FD93
)

// scan returns where the segment that begins at path[at] ends, and its hash.
// at is at most len(path).
func scan(path []byte, at int) (end int, hash uint32) {
	h := uint64(mulB)
	for ; len(path)-at >= 8; at += 8 {
		w := binary.LittleEndian.Uint64(path[at:])
		// The lowest set bit marks the first slash: a borrow of the subtraction can
		// only mark bytes behind it wrongly.
		x := w ^ slashes
		if found := (x - ones) &^ x & highs; found != 0 {
			n := bits.TrailingZeros64(found) &^ 7
			return at + n>>3, fold(h, w&(1<<n-1))
		}
		h = mix(h^w, mulA)
	}
	var w uint64
	for n := 0; at < len(path) && path[at] != '/'; at, n = at+1, n+8 {
		w |= uint64(path[at]) << n
	}
	return at, fold(h, w)
}

// fold ends a hash with the last bytes, fewer than eight, that belong to it.
func fold(h, w uint64) uint32 { return uint32(mix(h^w, mulB)) }

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// hash is the hash of a whole key without a slash, as scan makes it.
func hash(key []byte) uint32 {
	_, h := scan(key, 0)
	return h
}

// segmentEnd is where the segment that begins at path[at] ends.
func segmentEnd(path []byte, at int) int {
	end, _ := scan(path, at)
	return end
}
