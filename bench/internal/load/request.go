//go:build linux

package load

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// Request is one request in the forms in which it is sent.
type Request struct {
	http1  []byte // whole message
	block  []byte // HTTP/2: header block that uses no dynamic table
	body   []byte
	method string
}

// NewRequest prepares a request. Fields are "Name: value"; Host, and
// Content-Length when there is a body, are added.
func NewRequest(method, scheme, host, path string, fields []string, body []byte) *Request {
	r := &Request{body: body, method: method}
	var head bytes.Buffer
	fmt.Fprintf(&head, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, host)
	for _, f := range fields {
		head.WriteString(f + "\r\n")
	}
	if len(body) > 0 {
		fmt.Fprintf(&head, "Content-Length: %d\r\n", len(body))
	}
	head.WriteString("\r\n")
	r.http1 = slices.Concat(head.Bytes(), body)

	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	enc.SetMaxDynamicTableSize(0)
	write := func(name, value string) {
		// An encoder in memory cannot fail.
		_ = enc.WriteField(hpack.HeaderField{Name: name, Value: value})
	}
	write(":method", method)
	write(":scheme", scheme)
	write(":authority", host)
	write(":path", path)
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ":")
		write(strings.ToLower(name), strings.TrimSpace(value))
	}
	if len(body) > 0 {
		write("content-length", strconv.Itoa(len(body)))
	}
	r.block = block.Bytes()
	return r
}
