package telemetry

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

// Lines of the access log. Whatever a client sends, a line is one line and, in
// JSON, one document: every control character, line separator and byte that is
// not UTF-8 is escaped or replaced.

// formatter turns entries into lines. It is used by one goroutine.
type formatter struct {
	second int64 // the one that the texts below are of
	json   []byte
	common []byte
	path   []byte // scratch
}

// append appends the line of e, with its end.
func (f *formatter) append(dst []byte, b *batch, e *entry) []byte {
	if s := e.start / 1e9; s != f.second || f.json == nil {
		t := time.Unix(s, 0).UTC()
		f.second = s
		f.json = t.AppendFormat(f.json[:0], "2006-01-02T15:04:05.")
		f.common = t.AppendFormat(f.common[:0], "02/Jan/2006:15:04:05 +0000")
	}
	if e.options.combined {
		return f.appendCombined(dst, b, e)
	}
	return f.appendJSON(dst, b, e)
}

func (f *formatter) appendJSON(dst []byte, b *batch, e *entry) []byte {
	redact := &e.options.redact
	dst = append(dst, `{"time":"`...)
	dst = append(dst, f.json...)
	dst = appendThousandths(dst, int(e.start/1e6%1e3))
	dst = append(dst, `Z","id":`...)
	dst = appendJSONString(dst, b.textOf(e, textID))
	dst = append(dst, `,"trace":"`...)
	var trace [32]byte
	putHex(trace[:], e.trace[:])
	dst = append(dst, trace[:]...)
	dst = append(dst, `","client":"`...)
	dst = appendAddr(dst, e.client)
	dst = append(dst, `","peer":"`...)
	if e.peer.IsValid() {
		dst = e.peer.AppendTo(dst)
	}
	dst = append(dst, `","method":`...)
	dst = appendJSONString(dst, []byte(e.method))
	dst = append(dst, `,"host":`...)
	dst = appendJSONString(dst, b.textOf(e, textHost))
	dst = append(dst, `,"path":`...)
	dst = appendJSONString(dst, b.textOf(e, textPath))
	if q := b.textOf(e, textQuery); len(q) > 0 {
		f.path = redact.appendQuery(f.path[:0], q)
		dst = append(dst, `,"query":`...)
		dst = appendJSONString(dst, f.path)
	}
	dst = append(dst, `,"proto":"`...)
	dst = append(dst, e.proto.String()...)
	dst = append(dst, '"')
	if e.tls != nil {
		dst = append(dst, `,"tls":`...)
		dst = appendJSONString(dst, []byte(e.tls.Version))
		if e.tls.Subject != "" {
			dst = append(dst, `,"client_cert":`...)
			dst = appendJSONString(dst, []byte(e.tls.Subject))
		}
	}
	dst = append(dst, `,"status":`...)
	dst = strconv.AppendUint(dst, uint64(e.status), 10)
	if e.refused {
		dst = append(dst, `,"code":"`...)
		dst = append(dst, e.code.String()...)
		dst = append(dst, '"')
	}
	dst = append(dst, `,"bytes_in":`...)
	dst = strconv.AppendInt(dst, e.bytesIn, 10)
	dst = append(dst, `,"bytes_out":`...)
	dst = strconv.AppendInt(dst, e.bytesOut, 10)
	dst = append(dst, `,"duration_ms":`...)
	dst = appendMillis(dst, e.total)
	dst = append(dst, `,"gateway_ms":`...)
	dst = appendMillis(dst, e.own)
	if e.upstream != "" {
		dst = e.appendUpstream(dst)
	}
	dst = e.appendCache(dst)
	if e.route != nil {
		dst = append(dst, `,"route":`...)
		dst = appendJSONString(dst, []byte(e.route.Name))
		dst = append(dst, `,"api":`...)
		dst = appendJSONString(dst, []byte(e.route.API))
	}
	if e.caller != nil {
		dst = e.appendCaller(dst)
	}
	if a := b.textOf(e, textReason); len(a) > 0 {
		dst = append(dst, `,"reason":`...)
		dst = appendJSONString(dst, a)
	}
	if a := b.textOf(e, textAborted); len(a) > 0 {
		dst = append(dst, `,"aborted":`...)
		dst = appendJSONString(dst, a)
	}
	if a := b.textOf(e, textAgent); len(a) > 0 {
		dst = append(dst, `,"user_agent":`...)
		dst = appendJSONString(dst, redact.header("user-agent", a))
	}
	return append(dst, "}\n"...)
}

func (e *entry) appendCaller(dst []byte) []byte {
	dst = append(dst, `,"caller":`...)
	dst = appendJSONString(dst, []byte(e.caller.ID))
	if e.caller.Authenticator != "" {
		dst = append(dst, `,"authenticator":`...)
		dst = appendJSONString(dst, []byte(e.caller.Authenticator))
	}
	if e.caller.Key != "" {
		dst = append(dst, `,"key":`...)
		dst = appendJSONString(dst, []byte(e.caller.Key))
	}
	return dst
}

// appendCache appends what the response cache did.
func (e *entry) appendCache(dst []byte) []byte {
	if e.cache == exchange.CacheNone {
		return dst
	}
	dst = append(dst, `,"cache":"`...)
	dst = append(dst, e.cache.String()...)
	return append(dst, '"')
}

func (e *entry) appendUpstream(dst []byte) []byte {
	dst = append(dst, `,"upstream":{"name":`...)
	dst = appendJSONString(dst, []byte(e.upstream))
	dst = append(dst, `,"target":`...)
	dst = appendJSONString(dst, []byte(e.target))
	dst = append(dst, `,"attempts":`...)
	dst = strconv.AppendUint(dst, uint64(e.attempts), 10)
	dst = append(dst, `,"ms":`...)
	dst = appendMillis(dst, e.waited)
	dst = append(dst, `,"reused":`...)
	dst = strconv.AppendBool(dst, e.reused)
	return append(dst, '}')
}

// appendCombined appends the combined format of Apache and nginx. There is no
// identity, and the size is that of the whole response.
func (f *formatter) appendCombined(dst []byte, b *batch, e *entry) []byte {
	redact := &e.options.redact
	if e.client.IsValid() {
		dst = appendAddr(dst, e.client)
	} else {
		dst = append(dst, '-')
	}
	dst = append(dst, " - - ["...)
	dst = append(dst, f.common...)
	dst = append(dst, `] "`...)
	dst = appendCombinedText(dst, []byte(e.method))
	dst = append(dst, ' ')
	dst = appendCombinedText(dst, b.textOf(e, textPath))
	if q := b.textOf(e, textQuery); len(q) > 0 {
		f.path = redact.appendQuery(f.path[:0], q)
		dst = append(dst, '?')
		dst = appendCombinedText(dst, f.path)
	}
	dst = append(dst, ' ')
	dst = append(dst, e.proto.String()...)
	dst = append(dst, `" `...)
	dst = strconv.AppendUint(dst, uint64(e.status), 10)
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, e.bytesOut, 10)
	dst = append(dst, ` "`...)
	f.path = redact.appendURL(f.path[:0], b.textOf(e, textReferer))
	dst = appendCombinedField(dst, redact.header("referer", f.path))
	dst = append(dst, `" "`...)
	dst = appendCombinedField(dst, redact.header("user-agent", b.textOf(e, textAgent)))
	return append(dst, "\"\n"...)
}

func appendCombinedField(dst, v []byte) []byte {
	if len(v) == 0 {
		return append(dst, '-')
	}
	return appendCombinedText(dst, v)
}

// appendCombinedText writes what is not printable ASCII, quotes and backslashes
// as \xhh, much as nginx does.
func appendCombinedText(dst, v []byte) []byte {
	for {
		n := plainLen(v)
		dst = append(dst, v[:n]...)
		if n == len(v) {
			return dst
		}
		c := v[n]
		dst = append(dst, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
		v = v[n+1:]
	}
}

func appendAddr(dst []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return dst
	}
	return a.AppendTo(dst)
}

// appendThousandths appends three digits; n is from 0 to 999.
func appendThousandths(dst []byte, n int) []byte {
	n = max(n, 0)
	return append(dst, byte('0'+n/100), byte('0'+n/10%10), byte('0'+n%10))
}

// appendMillis appends d in milliseconds, to the microsecond.
func appendMillis(dst []byte, d time.Duration) []byte {
	us := max(d, 0).Microseconds()
	dst = strconv.AppendInt(dst, us/1e3, 10)
	dst = append(dst, '.')
	return appendThousandths(dst, int(us%1e3))
}

// plain are the bytes that stand for themselves in a line: printable ASCII but
// for the quote and the backslash.
var plain = func() (ok [256]bool) {
	for c := 0x20; c < 0x7f; c++ {
		ok[c] = c != '"' && c != '\\'
	}
	return ok
}()

// plainLen is the number of plain bytes that v begins with. It looks at eight at
// a time, the last eight perhaps twice.
func plainLen(v []byte) int {
	n := 0
	if len(v) >= 8 {
		for len(v)-n >= 8 && plainWord(binary.LittleEndian.Uint64(v[n:])) {
			n += 8
		}
		if len(v)-n < 8 && plainWord(binary.LittleEndian.Uint64(v[len(v)-8:])) {
			return len(v)
		}
	}
	for n < len(v) && plain[v[n]] {
		n++
	}
	return n
}

// plainWord reports whether all bytes of w are plain. In each byte, with no
// carry into the next while all below are plain, the top bit says 0x80 or above;
// w+1 reaches it at 0x7f; w-0x20 borrows below 0x20; and x-1 borrows where x, w
// with the looked-for byte taken out, is 0.
func plainWord(w uint64) bool {
	const (
		ones = 0x0101010101010101
		tops = 0x80 * ones
	)
	quote, slash := w^'"'*ones, w^'\\'*ones
	return (w|(w+ones)|(w-0x20*ones)&^w|(quote-ones)&^quote|(slash-ones)&^slash)&tops == 0
}

// appendJSONString appends v as a JSON string (RFC 8259 §7). Beyond what JSON
// asks for, it escapes DEL, the C1 controls, U+2028 and U+2029, which some
// terminals and readers of lines act on. What is not UTF-8 becomes U+FFFD.
func appendJSONString(dst, v []byte) []byte {
	dst = append(dst, '"')
	for {
		n := plainLen(v)
		dst = append(dst, v[:n]...)
		if n == len(v) {
			return append(dst, '"')
		}
		v = v[n:]
		if c := v[0]; c < utf8.RuneSelf {
			if c == '"' || c == '\\' {
				dst = append(dst, '\\', c)
			} else {
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			v = v[1:]
			continue
		}
		r, n := utf8.DecodeRune(v)
		switch {
		case r == utf8.RuneError && n == 1:
			dst = append(dst, `\ufffd`...)
		case r < 0xa0 || r == 0x2028 || r == 0x2029:
			dst = append(dst, '\\', 'u', hexDigits[r>>12], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
		default:
			dst = append(dst, v[:n]...)
		}
		v = v[n:]
	}
}
