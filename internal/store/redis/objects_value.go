package redis

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-gateway/sluice/internal/store"
)

// A value in Redis, numbers little-endian:
//
//	4  "slo1"
//	4  CRC-32C of the header behind it
//	16 the life of the log of purges that the stamp is from
//	8  the stamp
//	2  the number of tags
//	16 of each tag, its hash
//	…  the value: what is wrong with it is for its owner to find

const (
	valueMagic = "slo1"
	lifeSize   = 16
	headerSize = 4 + 4 + lifeSize + 8 + 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// hash16 is what stands for a URI or a tag.
type hash16 [16]byte

func hashOf(s string) hash16 {
	sum := sha256.Sum256([]byte(s))
	return hash16(sum[:16])
}

// tagHashes are those of the tags, each once.
func tagHashes(tags []string) []hash16 {
	var out []hash16
	for _, t := range tags {
		if h := hashOf(t); !slices.Contains(out, h) {
			out = append(out, h)
		}
	}
	return out
}

// value is a value and what its header says.
type value struct {
	life  string // lifeSize bytes
	stamp uint64
	tags  []hash16
	body  []byte
}

// text is the value as it is kept.
func (v *value) text() string {
	head := make([]byte, 0, headerSize+16*len(v.tags))
	head = append(head, valueMagic+"\x00\x00\x00\x00"...)
	head = append(head, v.life...)
	head = binary.LittleEndian.AppendUint64(head, v.stamp)
	head = binary.LittleEndian.AppendUint16(head, uint16(len(v.tags)))
	for i := range v.tags {
		head = append(head, v.tags[i][:]...)
	}
	binary.LittleEndian.PutUint32(head[4:], crc32.Checksum(head[8:], castagnoli))
	var b strings.Builder
	b.Grow(len(head) + len(v.body))
	b.Write(head)
	b.Write(v.body)
	return b.String()
}

// readValue reads what is kept; false when its header is damaged. The body is part of b.
func readValue(b []byte) (v value, ok bool) {
	if len(b) < headerSize || string(b[:4]) != valueMagic {
		return v, false
	}
	n := int(binary.LittleEndian.Uint16(b[headerSize-2:]))
	end := headerSize + 16*n
	if n > store.MaxObjectTags || len(b) < end || crc32.Checksum(b[8:end], castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return v, false
	}
	v.life = string(b[8 : 8+lifeSize])
	v.stamp = binary.LittleEndian.Uint64(b[8+lifeSize:])
	for at := headerSize; at < end; at += 16 {
		v.tags = append(v.tags, hash16(b[at:at+16]))
	}
	v.body = b[end:len(b):len(b)]
	return v, true
}

// overtakes reports whether the purge whose number is kept as mark makes a value of that
// stamp invalid: also when it is missing or not a number.
func overtakes(mark []byte, stamp uint64) bool {
	n, err := strconv.ParseUint(string(mark), 10, 64)
	return err != nil || n > stamp
}

// maxStamp is the largest number that Lua counts with exactly.
const maxStamp = uint64(1) << 53

func stampOf(f float64) (uint64, bool) {
	return uint64(f), f >= 0 && f < float64(maxStamp) && f == math.Trunc(f)
}

// objectKeys are the keys of one value.
type objectKeys struct {
	slot              string // prefix and {…}
	value, mark, lock string
}

func (o *Objects) keys(k store.ObjectKey) objectKeys {
	slot := o.c.uriSlot(hashOf(k.URI))
	sum := sha256.Sum256([]byte(k.Variant))
	variant := hex.EncodeToString(sum[:])
	return objectKeys{slot: slot, value: slot + ":o:" + variant, mark: slot + ":m", lock: slot + ":l:" + variant}
}

func (c *Client) uriSlot(h hash16) string { return c.prefix + "{c:" + hex.EncodeToString(h[:]) + "}" }

func (c *Client) tagKey(h hash16) string {
	return c.prefix + "{t:" + hex.EncodeToString(h[:]) + "}:m"
}
