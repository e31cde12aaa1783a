package router

import (
	"encoding/binary"
	"math/bits"
)

// A segment is scanned and turned into a key in one pass, eight bytes at a
// time. The key of a short segment, of fewer than eight bytes, is the segment
// itself, so equal keys are equal segments; that of a longer one is a hash, and
// what it finds is compared whole. The table that the hash is for is the
// operator's and not the client's, so it need not resist chosen keys, only tell
// usual ones apart.

const (
	short = 8 // a segment with fewer bytes is its own key

	ones    = 0x0101010101010101
	highs   = 0x8080808080808080
	slashes = '/' * ones
	dots    = '.' * ones
	mulA    = 0x9E3779B97F4A7C15
	mulB    = 0xD6E8FEB86659FD93
)

// scan returns where the segment that begins at path[at] ends, and its key. at
// is at most len(path).
func scan(path []byte, at int) (end int, key uint64) {
	if len(path)-at < 8 {
		return scanTail(path, at)
	}
	w := binary.LittleEndian.Uint64(path[at:])
	if found := slashIn(w); found != 0 {
		n := bits.TrailingZeros64(found) &^ 7
		return at + n>>3, w & (1<<n - 1)
	}
	h := mix(w, mulA)
	for at += 8; len(path)-at >= 8; at += 8 {
		w = binary.LittleEndian.Uint64(path[at:])
		if found := slashIn(w); found != 0 {
			n := bits.TrailingZeros64(found) &^ 7
			return at + n>>3, mix(h^w&(1<<n-1), mulB)
		}
		h = mix(h^w, mulA)
	}
	end, w = scanTail(path, at)
	return end, mix(h^w, mulB)
}

// scanTail is scan for the last bytes of a path, fewer than eight.
func scanTail(path []byte, at int) (end int, word uint64) {
	rest := len(path) - at
	if len(path) >= 8 {
		// One load that ends with the path, and a shift that drops what is before at
		// (everything, when nothing is left).
		word = binary.LittleEndian.Uint64(path[len(path)-8:]) >> (64 - 8*rest)
	} else {
		for i := range rest {
			word |= uint64(path[at+i]) << (8 * i)
		}
	}
	if found := slashIn(word); found != 0 {
		n := bits.TrailingZeros64(found) &^ 7
		return at + n>>3, word & (1<<n - 1)
	}
	return len(path), word
}

// slashIn marks the slashes in a word: the lowest set bit belongs to the first.
// A borrow of the subtraction can mark only bytes behind a true one.
func slashIn(w uint64) uint64 {
	x := w ^ slashes
	return (x - ones) &^ x & highs
}

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// slot is where a key belongs in a hash table of size entries, a power of two.
func slot(key uint64, size uint32) uint32 { return uint32(key*mulB>>32) & (size - 1) }

// keyOf is the key of a whole text without a slash.
func keyOf(text []byte) uint64 {
	_, key := scan(text, 0)
	return key
}

// segmentEnd is where the segment that begins at path[at] ends.
func segmentEnd(path []byte, at int) int {
	end, _ := scan(path, at)
	return end
}
