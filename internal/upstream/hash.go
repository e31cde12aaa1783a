package upstream

import (
	"bytes"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// ring is consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam,
// "Consistent Hashing with Bounded Loads", SODA 2018). Every endpoint owns points
// on a circle, as many as its weight asks for; a key belongs to the first point at
// or behind its own. An endpoint takes no more than slack times its fair share of
// the requests now in flight; a key whose owner is at that bound goes to the next
// one on the circle. So a key stays where its data is warm, one hot key cannot drown
// its owner, and when an endpoint comes or goes only the keys move that have to.
//
// A point's place depends on the address alone, so that several gateways agree.
type ring struct {
	points []point // by at
	ends   []*endpoint
	sum    float64 // of the weights
}

type point struct {
	at uint64
	e  *endpoint
}

const (
	// slack is the c of the paper: the load that is admitted over the fair share.
	slack = 1.25
	// pointsEach is the number of points for a weight of 1. The shares then differ
	// by about 1/sqrt(pointsEach), a sixteenth, from the weights.
	pointsEach = 256
	// maxPoints bounds the circle; with more, everyone has proportionally fewer.
	maxPoints = 1 << 17
)

func newRing(endpoints []*endpoint) *ring {
	r := &ring{ends: endpoints}
	for _, e := range endpoints {
		r.sum += e.weight()
	}
	each := min(pointsEach, maxPoints/r.sum)
	for _, e := range endpoints {
		seed := hashOf([]byte(e.name))
		for i := range max(1, int(math.Round(e.weight()*each))) {
			r.points = append(r.points, point{mix(seed + uint64(i)*0x9e3779b97f4a7c15), e})
		}
	}
	slices.SortFunc(r.points, func(a, b point) int {
		if a.at != b.at {
			if a.at < b.at {
				return -1
			}
			return 1
		}
		return strings.Compare(a.e.name, b.e.name)
	})
	return r
}

func (r *ring) pick(w *wish) *endpoint {
	from, _ := slices.BinarySearchFunc(r.points, w.key, func(p point, key uint64) int {
		switch {
		case p.at < key:
			return -1
		case p.at > key:
			return 1
		}
		return 0
	})
	var owner, last *endpoint
	total := -1.0
	for i := range r.points {
		e := r.points[(from+i)%len(r.points)].e
		if e == last {
			continue
		}
		last = e
		if !w.admits(e) {
			continue
		}
		if owner == nil {
			owner = e
		}
		mine := e.inFlight.Load()
		if mine == 0 {
			return e
		}
		if total < 0 {
			total = 1
			for _, o := range r.ends {
				total += float64(o.inFlight.Load())
			}
		}
		if float64(mine) < math.Ceil(slack*total*e.weight()/r.sum) {
			return e
		}
	}
	return owner // everyone who is admitted is at the bound: others are out
}

// hashOf is FNV-1a, finished so that all bits of short keys count.
func hashOf(b []byte) uint64 {
	h := uint64(0xcbf29ce484222325)
	for _, c := range b {
		h = (h ^ uint64(c)) * 0x100000001b3
	}
	return mix(h)
}

// mix is the finalizer of splitmix64.
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// hashKey is what `hash_on` names.
type hashKey struct {
	from string // client, ip, path, header, query or cookie
	name []byte
}

func newHashKey(on string) (hashKey, error) {
	from, name, named := strings.Cut(on, ":")
	switch from {
	case "":
		return hashKey{from: "client"}, nil
	case "client", "ip", "path":
		if !named {
			return hashKey{from: from}, nil
		}
	case "header", "query", "cookie":
		if name != "" {
			return hashKey{from, []byte(name)}, nil
		}
	}
	return hashKey{}, fmt.Errorf("hash_on: %q is not client, ip, path, header:NAME, query:NAME or cookie:NAME", on)
}

// of returns the hash of x's key. A request without the named thing goes by its
// client.
func (k *hashKey) of(x *exchange.Exchange) uint64 {
	q := &x.Request
	var v []byte
	switch k.from {
	case "path":
		v = q.Path
	case "header":
		v = q.Header.Get(k.name)
	case "query":
		v = queryValue(q.Query, k.name)
	case "cookie":
		v = cookieValue(&q.Header, k.name)
	}
	if len(v) > 0 {
		return hashOf(v)
	}
	return hashOfAddr(clientOf(x))
}

func clientOf(x *exchange.Exchange) netip.Addr {
	if x.Client.IsValid() {
		return x.Client
	}
	return x.Conn.Peer.Addr()
}

func hashOfAddr(a netip.Addr) uint64 {
	b := a.As16()
	return hashOf(b[:])
}

// queryValue is the first value of a parameter, as it was sent.
func queryValue(query, name []byte) []byte {
	for pair := range bytes.SplitSeq(query, []byte{'&'}) {
		if key, value, _ := bytes.Cut(pair, []byte{'='}); bytes.Equal(key, name) {
			return value
		}
	}
	return nil
}

// cookieValue is the first value of a cookie (RFC 6265 §4.2).
func cookieValue(h *exchange.Header, name []byte) []byte {
	for line := range h.ValuesID(exchange.Cookie) {
		for pair := range bytes.SplitSeq(line, []byte{';'}) {
			if key, value, _ := bytes.Cut(bytes.TrimSpace(pair), []byte{'='}); bytes.Equal(key, name) {
				return value
			}
		}
	}
	return nil
}
