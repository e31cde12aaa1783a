package memory

import (
	"fmt"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/internal/cache/object"
	"github.com/sluice-gateway/sluice/internal/exchange"
)

const noon = int64(1_800_000_000) * int64(time.Second)

// stored is an object as the gateway makes one of a small response.
func stored(c *Cache, path string, body int) *object.Object {
	key := "fingerprG" + "https://example.org" + path + "\x00"
	return &object.Object{
		Key: key, Primary: key, URI: key[9 : len(key)-1], Status: 200,
		Body: make([]byte, body), Born: noon, Stored: noon, Lifetime: 60, Stamp: c.Stamp(),
	}
}

// full is stored with the header that an origin sends.
func full(c *Cache, path string, body int) *object.Object {
	var h exchange.Header
	h.AddID(exchange.Date, []byte("Thu, 26 Nov 2026 12:00:00 GMT"))
	h.AddID(exchange.ContentType, []byte("application/json"))
	h.AddID(exchange.CacheControl, []byte("max-age=60"))
	h.AddID(exchange.ETag, []byte(`"5f3c-18b2a"`))
	o := stored(c, path, body)
	o.Fields = object.CopyFields(&h, nil)
	o.ETag = o.Fields[3].Value
	return o
}

// asked asks as the gateway does: what is not there is stored.
type asker struct {
	c   *Cache
	key []byte
}

func (a *asker) ask(n int) (hit bool) {
	a.key = strconv.AppendInt(append(a.key[:0], "fingerprGhttps://example.org/"...), int64(n), 10)
	a.key = append(a.key, 0)
	if a.c.Get(a.key) != nil {
		return true
	}
	a.c.Put(stored(a.c, fmt.Sprint("/", n), 100))
	return false
}
