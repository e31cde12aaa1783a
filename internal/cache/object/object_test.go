package object

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/exchange"
)

func header(fields ...string) *exchange.Header {
	h := new(exchange.Header)
	for i := 0; i < len(fields); i += 2 {
		h.Add([]byte(fields[i]), []byte(fields[i+1]))
	}
	return h
}

// sample has all that an object can have.
func sample() *Object {
	o := &Object{
		Key: "Ghttps://example.org/a?b\x00\x00accept-encoding\x00gzip", URI: "https://example.org/a?b", Spec: "accept-encoding", Status: 203,
		Fields: CopyFields(header("Content-Type", "text/plain", "X-Empty", "", "ETag", `"abc"`, "x-odd", "a\x80\xff b"), nil),
		Body:   []byte("the body\x00\xff"),
		Born:   1_800_000_000_123_456_789, Stored: 1_800_000_001_123_456_789, Lifetime: 3600, StaleWhileRevalidate: 30, StaleIfError: -1,
		NoCache: true, Open: true, LastModified: 1_700_000_000, Date: -5, Tags: []string{"t:x", "", "g:https://example.org\x00group"},
	}
	o.Primary = o.Key[:strings.IndexByte(o.Key, 0)]
	o.ETag = o.Fields[2].Value
	return o
}

// facts is what of an object has to survive: everything but what belongs to
// the memory it is in.
func facts(o *Object) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %q %q %q %d\n", o.Key, o.Primary, o.URI, o.Spec, o.Status)
	for _, f := range o.Fields {
		fmt.Fprintf(&b, "%q %q %d %v\n", f.Name, f.Value, f.ID, f.Hop)
	}
	fmt.Fprintf(&b, "%q %d %d %d %d %d %v %v %v %v %q %d %d %q", o.Body, o.Born, o.Stored, o.Lifetime, o.StaleWhileRevalidate, o.StaleIfError,
		o.NoCache, o.MustRevalidate, o.Open, o.ETag == nil, o.ETag, o.LastModified, o.Date, o.Tags)
	return b.String()
}

func samples() map[string]*Object {
	all := map[string]*Object{"full": sample(), "empty": {}}
	o := sample()
	o.Primary = "no beginning of the key"
	all["own primary"] = o
	o = sample()
	o.ETag = []byte{}
	o.Fields[1].Hop = true
	all["empty etag"] = o
	all["extremes"] = &Object{
		Key: "k", Primary: "k", Status: math.MaxInt32, Born: math.MinInt64, Stored: math.MaxInt64, Lifetime: math.MaxInt64, Date: math.MinInt64,
		MustRevalidate: true, Body: bytes.Repeat([]byte("x"), 100_000),
	}
	return all
}

func TestBinaryFormKeepsEverything(t *testing.T) {
	for name, o := range samples() {
		b := o.Append([]byte("before"))
		if string(b[:6]) != "before" {
			t.Fatalf("%s: Append changed what was there", name)
		}
		got, err := Decode(b[6:])
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if facts(got) != facts(o) {
			t.Errorf("%s:\n%s\nis not\n%s", name, facts(got), facts(o))
		} else if again := got.Append(nil); !bytes.Equal(again, b[6:]) {
			t.Errorf("%s: the second form is another one", name)
		}
	}
}

// The form is fixed: gateways of several releases read each other's.
func TestBinaryFormIsThatOfVersion1(t *testing.T) {
	o := &Object{
		Key: "Gk", Primary: "Gk", URI: "u", Spec: "", Status: 200, Fields: CopyFields(header("A", "b"), nil), Body: []byte("B"),
		Born: 1, Stored: 2, Lifetime: 3, StaleWhileRevalidate: 0, StaleIfError: -1, Open: true, ETag: []byte("e"), Tags: []string{"t"},
	}
	want := "\x1c" + "\xc8\x01" + "\x02\x04\x06\x00\x01\x00\x00" + "\x02\x01\x00\x02" + "\x01\x01" + "\x01\x02\x01" + "\x01" + "Gkut" + "Abe" + "B"
	b := o.Append(nil)
	if string(b[:4]) != "SLO\x01" || string(b[headerSize:]) != want {
		t.Errorf("%q", b)
	}
	const sum = "87cf0c2b6e3a3c70c56ddcced19a54e9"
	if got := fmt.Sprintf("%x", b[4:20]); got != sum {
		t.Errorf("checksum %s", got)
	}
}

func TestDamageIsSeen(t *testing.T) {
	for name, o := range samples() {
		b := o.Append(nil)
		if len(b) > 10_000 {
			b = (&Object{Key: "k", Body: make([]byte, 500)}).Append(nil)
		}
		for i := range b {
			for bit := range 8 {
				c := bytes.Clone(b)
				c[i] ^= 1 << bit
				if _, err := Decode(c); err == nil {
					t.Errorf("%s: bit %d of byte %d was flipped", name, bit, i)
				}
			}
			if _, err := Decode(bytes.Clone(b[:i])); err == nil {
				t.Errorf("%s: cut to %d bytes", name, i)
			}
			if _, err := Decode(append(append(bytes.Clone(b[:i]), 0), b[i:]...)); err == nil {
				t.Errorf("%s: a byte was put in at %d", name, i)
			}
			if _, err := Decode(append(bytes.Clone(b[:i]), b[i+1:]...)); err == nil {
				t.Errorf("%s: byte %d was taken out", name, i)
			}
		}
		if _, err := Decode(append(bytes.Clone(b), b...)); err == nil {
			t.Errorf("%s: two in one", name)
		}
	}
}

// seal makes facts and what follows an object's form with the right checksum,
// as one who can write to the store could.
func seal(rest []byte) []byte {
	b := append(append([]byte(magic), make([]byte, sumSize)...), rest...)
	sum := checksum(b)
	copy(b[len(magic):], sum[:sumSize])
	return b
}

func TestWrongLengthsAreErrors(t *testing.T) {
	numbers := "\x00\x00" + strings.Repeat("\x00", 7)
	for name, rest := range map[string]string{
		"nothing":              "",
		"flags alone":          "\x00",
		"unknown flag":         "\x20\x00" + strings.Repeat("\x00", 7) + "\x00\x00\x00\x00" + "\x00\x00",
		"key too long":         numbers + "\x05\x00\x00\x00" + "\x00\x00" + "abcd",
		"primary over the key": "\x10\x00" + strings.Repeat("\x00", 7) + "\x01\x00\x00\x02" + "\x00\x00" + "abcd",
		"primary told twice":   numbers + "\x01\x00\x00\x01" + "\x00\x00" + "aa",
		"long form":            "\x00\x80\x00" + strings.Repeat("\x00", 7) + "\x01\x00\x00\x01" + "\x00\x00" + "ab",
		"endless number":       "\x00" + strings.Repeat("\xff", 40),
		"many tags":            numbers + "\x00\x00\x00\x00" + "\xff\xff\xff\xff\x7f",
		"many fields":          numbers + "\x00\x00\x00\x00" + "\x00" + "\xff\xff\xff\xff\x7f",
		"tag too long":         numbers + "\x00\x00\x00\x00" + "\x01\x09" + "\x00",
		"field too long":       numbers + "\x00\x00\x00\x00" + "\x00" + "\x01\x02\x09" + "ab",
		"status too large":     "\x00" + string(binary.AppendUvarint(nil, 1<<40)) + strings.Repeat("\x00", 7) + "\x00\x00\x00\x00" + "\x00\x00",
		"etag too long":        "\x08\x00" + strings.Repeat("\x00", 7) + "\x00\x00\x00\x00" + "\x00\x00" + "\x03" + "ab",
	} {
		if o, err := Decode(seal([]byte(rest))); err == nil {
			t.Errorf("%s: %s", name, facts(o))
		}
	}
	for _, b := range []string{"", "SLO", "SLO\x02" + strings.Repeat("\x00", 100), "GET / HTTP/1.1\r\nHost: a\r\n\r\n"} {
		if _, err := Decode([]byte(b)); err != ErrForm {
			t.Errorf("%q: %v", b, err)
		}
	}
}

// FuzzDecode: whatever is read, with a checksum that fits or not, is an error
// or the one form of what it yields.
func FuzzDecode(f *testing.F) {
	for _, o := range samples() {
		b := o.Append(nil)
		if len(b) < 10_000 {
			f.Add(b)
			f.Add(b[headerSize:])
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{bytes.Clone(b), seal(b)} {
			before := bytes.Clone(b)
			o, err := Decode(b)
			if err != nil {
				continue
			}
			if !bytes.Equal(o.Append(nil), before) {
				t.Errorf("%q yields\n%s\nwhich has another form", before, facts(o))
			}
		}
	})
}

// FuzzDamage: an object's form with bytes exchanged, cut and put in yields
// nothing, or what it was made of.
func FuzzDamage(f *testing.F) {
	f.Add("key", "name", "value", []byte("body"), uint16(3), uint16(1), []byte("x"))
	f.Add("", "", "", []byte{}, uint16(0), uint16(0), []byte{})
	f.Fuzz(func(t *testing.T, key, name, value string, body []byte, at, cut uint16, put []byte) {
		o := &Object{Key: key, Primary: key, URI: value, Fields: CopyFields(header(name, value), nil), Body: body, Tags: []string{value}}
		b := o.Append(nil)
		from := int(at) % (len(b) + 1)
		to := min(from+int(cut), len(b))
		damaged := append(append(bytes.Clone(b[:from]), put...), b[to:]...)
		got, err := Decode(damaged)
		if err == nil && facts(got) != facts(o) {
			t.Errorf("%q yields\n%s", damaged, facts(got))
		}
		if err != nil && bytes.Equal(b, damaged) {
			t.Error(err)
		}
	})
}

func TestCopyFields(t *testing.T) {
	h := header("Content-Type", "text/plain", "content-type", "b", "X-A", "1", "X-Drop", "2", "X-B", "")
	got := CopyFields(h, func(f *exchange.Field) bool { return string(f.Name) != "X-Drop" })
	want := []exchange.Field{
		{Name: []byte("Content-Type"), Value: []byte("text/plain"), ID: exchange.ContentType},
		{Name: []byte("content-type"), Value: []byte("b"), ID: exchange.ContentType},
		{Name: []byte("X-A"), Value: []byte("1")},
		{Name: []byte("X-B"), Value: []byte{}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	h.At(2).Value[0] = 'x'
	if string(got[2].Value) != "1" {
		t.Error("a value is not copied")
	}
	if more := append(got[2].Value, "over"...); string(got[3].Name) != "X-B" {
		t.Errorf("%s ran into the next field", more)
	}
	if CopyFields(h, func(*exchange.Field) bool { return false }) != nil || CopyFields(header(), nil) != nil {
		t.Error("nothing is something")
	}
}

func TestWith(t *testing.T) {
	o := sample()
	o.Checked.Store(7)
	o.Mark.Store(new(Mark))
	c := o.With([]byte("other"))
	o.Body = []byte("other")
	if facts(c) != facts(o) || c.Checked.Load() != 0 || c.Mark.Load() != nil {
		t.Error(facts(c))
	}
}

func TestExpires(t *testing.T) {
	for _, test := range []struct{ born, lifetime, want int64 }{
		{1000, 0, 1000},
		{1000, 2, 1000 + 2*int64(time.Second)},
		{1_800_000_000_000_000_000, 1 << 31, 1_800_000_000_000_000_000 + 1<<31*int64(time.Second)},
		{1, math.MaxInt64, math.MaxInt64},
		{math.MaxInt64 - 1, 1, math.MaxInt64},
	} {
		if got := (&Object{Born: test.born, Lifetime: test.lifetime}).Expires(); got != test.want {
			t.Errorf("%d + %d s: %d", test.born, test.lifetime, got)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 20} {
		o := sample()
		o.Body = make([]byte, size)
		form := o.Append(nil)
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.SetBytes(int64(len(form)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Decode(form); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
