package httpsig

import (
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"hash"

	"github.com/dunglas/httpsfv"
)

// contentDigest is the field with the digest of the body (RFC 9530 §2).
const contentDigest = "content-digest"

// Digest is what the body must hash to.
type Digest struct {
	Algorithm string // sha-256 or sha-512
	Sum       []byte
}

// New returns the hash that makes it.
func (d *Digest) New() hash.Hash {
	if d.Algorithm == "sha-512" {
		return sha512.New()
	}
	return sha256.New()
}

// digestSizes are the algorithms that are secure; others are passed over (RFC 9530
// §6.6).
var digestSizes = map[string]int{"sha-256": sha256.Size, "sha-512": sha512.Size}

var (
	errDigest = errors.New("the field Content-Digest is no dictionary of digests")
	errWeak   = errors.New("the field Content-Digest has neither sha-256 nor sha-512 among what is covered")
)

// digests are those of Content-Digest that a signature covers, none when it does not
// cover the field.
func digests(m *Message, covered []component) (all []Digest, err error) {
	only := map[string]bool{} // the members
	none, whole := true, false
	for i := range covered {
		if c := &covered[i]; c.name == contentDigest {
			none = false
			if c.kind == memberValue {
				only[c.of] = true
			} else {
				whole = true
			}
		}
	}
	if none {
		return nil, nil
	}
	lines, _ := texts(m.Fields(contentDigest))
	d, err := httpsfv.UnmarshalDictionary(lines)
	if err != nil {
		return nil, errDigest
	}
	for _, name := range d.Names() {
		size := digestSizes[name]
		if size == 0 || !whole && !only[name] {
			continue
		}
		v, _ := d.Get(name)
		item, _ := v.(httpsfv.Item)
		sum, ok := item.Value.([]byte)
		if !ok || len(sum) != size {
			return nil, errDigest
		}
		all = append(all, Digest{Algorithm: name, Sum: sum})
	}
	if len(all) == 0 {
		return nil, errWeak
	}
	return all, nil
}
