package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"
)

// A line is one JSON object and a line feed:
//
//	{"seq":7,"time":"2026-11-25T09:00:00.123456Z","kind":"…", … ,"prev":"<hash of line 6>","hash":"<hash of this line>"}
//
// seq comes first and counts from 1 without a gap; prev and hash come last, each 64
// hex digits in lower case. hash is the SHA-256 of the line as it stands in the file
// without its own member: the bytes before `,"hash":"` and a closing brace behind them.
// prev is the hash of the line before, and 64 zeros for the first. So a line
// fixes all that came before it, and anybody can check it:
//
//	sed -E 's/,"hash":"[0-9a-f]{64}"\}$/}/' line | tr -d '\n' | sha256sum

const (
	lineStart  = `{"seq":`
	prevMember = `,"prev":"`
	hashMember = `,"hash":"`
	lineEnd    = `"}`
	hexLen     = 2 * sha256.Size
	// tailLen is the length of what every line ends with: prev, hash and the brace.
	tailLen = len(prevMember) + hexLen + 1 + len(hashMember) + hexLen + len(lineEnd)

	// maxLine bounds a line in bytes, its end included.
	maxLine = 64 << 10
	// maxText bounds each text of an event in bytes, before it is written as JSON.
	maxText = 512
	// maxDetail bounds the detail of an event in bytes of JSON.
	maxDetail = 16 << 10
)

// first is what prev is in the first line of a chain.
var first = strings.Repeat("0", hexLen)

// Kinds of the log's own lines.
const (
	kindStarted  = "audit.started"  // the gateway began to write
	kindStopped  = "audit.stopped"  // it ended in order; a start without one in front of it follows a crash
	kindOpened   = "audit.opened"   // a file begins; detail.after names the file with the lines before
	kindRepaired = "audit.repaired" // a torn end was moved away
	kindLost     = "audit.lost"     // events that were not written
	kindChanged  = "audit.changed"  // somebody else has changed the file
)

// document is a line without its hash, in the order in which it is written.
type document struct {
	Seq     uint64          `json:"seq"`
	Time    string          `json:"time"`
	Kind    string          `json:"kind"`
	Actor   string          `json:"actor,omitempty"`
	Key     string          `json:"key,omitempty"`
	Address string          `json:"address,omitempty"`
	Request string          `json:"request,omitempty"`
	API     string          `json:"api,omitempty"`
	Route   string          `json:"route,omitempty"`
	Target  string          `json:"target,omitempty"`
	Status  int             `json:"status,omitempty"`
	Reason  string          `json:"reason,omitempty"`
	Detail  json.RawMessage `json:"detail,omitempty"`
	Prev    string          `json:"prev"`
}

// link is the end of a chain: the number and the hash of its last line.
type link struct {
	seq  uint64
	hash string // first when there is none yet
}

// append appends the line of an event behind end, and moves end to it.
func (end *link) append(dst []byte, e *entry) []byte {
	d := document{
		Seq: end.seq + 1, Time: e.at.UTC().Format("2006-01-02T15:04:05.000000Z"), Kind: e.Kind, Actor: e.Actor, Key: e.Key,
		Request: e.Request, API: e.API, Route: e.Route, Target: e.Target, Status: e.Status, Reason: e.Reason, Detail: e.detail, Prev: end.hash,
	}
	if e.Address.IsValid() {
		d.Address = e.Address.String()
	}
	text := d.encode()
	sum := sha256.Sum256(text)
	end.seq, end.hash = d.Seq, hex.EncodeToString(sum[:])
	dst = append(dst, text[:len(text)-1]...)
	dst = append(dst, hashMember...)
	dst = append(dst, end.hash...)
	return append(dst, lineEnd+"\n"...)
}

// encode returns the document as JSON in one line, without its end.
func (d *document) encode() []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(d) // texts, numbers and what has been encoded before
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// encodeDetail returns a detail as JSON, nil for none. What is too long, or no JSON,
// is replaced by a word about that.
func encodeDetail(detail map[string]any) json.RawMessage {
	if len(detail) == 0 {
		return nil
	}
	text, err := json.Marshal(detail)
	switch {
	case err != nil:
		return json.RawMessage(`{"omitted":"it is no JSON"}`)
	case len(text) > maxDetail:
		return json.RawMessage(`{"omitted":"` + strconv.Itoa(len(text)) + ` bytes"}`)
	}
	return text
}

// clip shortens the texts of an event, so that a line has a bound, and takes out of them
// what looks like one of the gateway's own keys or tokens: somebody may have put one
// into a path.
func (e *Event) clip() {
	for _, s := range []*string{&e.Kind, &e.Actor, &e.Key, &e.Request, &e.API, &e.Route, &e.Target, &e.Reason} {
		if len(*s) > maxText {
			*s = strings.ToValidUTF8((*s)[:maxText], "") + "…"
		}
		for _, prefix := range []string{"slk_", "slr_"} {
			*s = mask(*s, prefix)
		}
	}
}

// mask returns s with *** for whatever follows prefix, as far as it can be a key.
func mask(s, prefix string) string {
	before, rest, ok := strings.Cut(s, prefix)
	if !ok {
		return s
	}
	behind := strings.TrimLeft(rest, "_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	return before + prefix + "***" + mask(behind, prefix)
}

// parsed is what a line says of its place in the chain.
type parsed struct {
	seq        uint64
	prev, hash string
}

// parse reads a line without its end, and checks all that it can tell by itself;
// what is wrong is told in words, empty: nothing.
func parse(line []byte) (p parsed, wrong string) {
	rest, ok := bytes.CutPrefix(line, []byte(lineStart))
	if !ok || len(rest) < tailLen {
		return p, "is no line of an audit log"
	}
	digits := rest[:max(0, bytes.IndexByte(rest, ','))]
	seq, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil || string(strconv.AppendUint(nil, seq, 10)) != string(digits) {
		return p, "has no number"
	}
	body, tail := line[:len(line)-tailLen], line[len(line)-tailLen:]
	prev, ok := member(&tail, prevMember)
	if !ok {
		return p, "does not end with prev and hash"
	}
	if len(tail) == 0 || tail[0] != '"' {
		return p, "does not end with prev and hash"
	}
	tail = tail[1:]
	hash, ok := member(&tail, hashMember)
	if !ok || string(tail) != lineEnd {
		return p, "does not end with prev and hash"
	}
	h := sha256.New()
	h.Write(body)
	h.Write([]byte(prevMember + prev + lineEnd))
	if hex.EncodeToString(h.Sum(nil)) != hash {
		return p, "was changed: its hash is not that of its content"
	}
	if !json.Valid(line) {
		return p, "is no JSON"
	}
	return parsed{seq, prev, hash}, ""
}

// member cuts a member's name and its hash off tail.
func member(tail *[]byte, name string) (string, bool) {
	rest, ok := bytes.CutPrefix(*tail, []byte(name))
	if !ok || len(rest) < hexLen {
		return "", false
	}
	*tail = rest[hexLen:]
	return string(rest[:hexLen]), true
}
