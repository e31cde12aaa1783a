package telemetry

import (
	"encoding/binary"
	"math/rand/v2"
	"time"
)

// RequestIDLen is the length of a request id made here.
const RequestIDLen = 36

// maxRequestID is the longest request id that is taken over from a proxy.
const maxRequestID = 128

// AppendRequestID appends a new UUIDv7 (RFC 9562 §5.7) for an exchange that
// began at now: 48 bits of Unix milliseconds, 12 bits of the fraction of the
// millisecond (§6.2, method 3: ids made in one process sort by time down to
// 244 ns), 62 random bits. The random bits come from the runtime's generator,
// which is ChaCha8, seeded by the operating system and kept per thread: no lock,
// no allocation, and nothing that a restart would repeat.
func AppendRequestID(dst []byte, now time.Time) []byte {
	const version, variant = 7 << 12, 2 << 62
	ns := max(now.UnixNano(), 0)
	ms := uint64(ns / 1e6)
	frac := uint64(ns%1e6) * 4096 / 1e6
	hi := ms<<16 | version | frac
	lo := rand.Uint64()>>2 | variant

	var u [16]byte
	binary.BigEndian.PutUint64(u[:8], hi)
	binary.BigEndian.PutUint64(u[8:], lo)
	var text [RequestIDLen]byte
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	putHex(text[0:8], u[0:4])
	putHex(text[9:13], u[4:6])
	putHex(text[14:18], u[6:8])
	putHex(text[19:23], u[8:10])
	putHex(text[24:36], u[10:16])
	return append(dst, text[:]...)
}

// ValidRequestID reports whether an id from a trusted proxy can be taken over:
// 1 to 128 letters, digits and -._~+/=:@ so that it fits into logs, headers and
// shell commands as it is.
func ValidRequestID(id []byte) bool {
	if len(id) == 0 || len(id) > maxRequestID {
		return false
	}
	for _, c := range id {
		if !requestIDByte[c] {
			return false
		}
	}
	return true
}

var requestIDByte = func() (ok [256]bool) {
	for _, c := range []byte("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._~+/=:@") {
		ok[c] = true
	}
	return ok
}()

const hexDigits = "0123456789abcdef"

// hexPairs are the two digits of each byte, the first one in the low byte.
var hexPairs = func() (pairs [256]uint16) {
	for i := range pairs {
		pairs[i] = uint16(hexDigits[i>>4]) | uint16(hexDigits[i&15])<<8
	}
	return pairs
}()

// putHex writes src in hexadecimal to dst, which has twice its length.
func putHex(dst, src []byte) {
	for i, c := range src {
		binary.LittleEndian.PutUint16(dst[2*i:2*i+2], hexPairs[c])
	}
}
